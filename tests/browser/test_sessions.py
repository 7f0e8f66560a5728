"""
A login that lasts, in a real Chromium: three runs in one browser session, and a later DAG run with its profile.

The portal shows its invoices only to a browser that is logged in, and counts the logins. The examples of
docs/browser-sessions.md run as they stand, but for their addresses and the id of their workflow.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dev.airflow_server import AirflowServer
from dev.browser.chromium import require_chromium
from dev.browser.site import INVOICES
from dev.postgres import PostgresServer
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer

DAGS = Path(__file__).parent / "dags" / "session_dags.py"
EXAMPLES = Path(__file__).parents[2] / "dags"
NUMBERS = [invoice[0] for invoice in INVOICES]
SLOW = 420.0


@dataclass
class Rig:
    airflow: AirflowServer
    skyvern: SkyvernServer

    def run(self, dag_id: str) -> str:
        """Run a DAG until it has succeeded."""
        conf = {name: self.skyvern.workflow(name) for name in ("login", "private")}
        dag_run = self.airflow.trigger(dag_id, conf, timeout=120)
        state = self.airflow.wait_run(dag_id, dag_run, timeout=SLOW)
        assert state == "success", self.airflow.task_states(dag_id, dag_run)
        return dag_run

    def listed(self, dag_id: str, dag_run: str, task_id: str) -> list[str]:
        """Return the invoices that the browser of a task has read."""
        return [row["invoice"] for row in self.airflow.xcom(dag_id, dag_run, task_id, "return_value")["invoices"]]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    require_chromium()
    home = tmp_path_factory.mktemp("sessions")
    with PostgresServer() as postgres, SkyvernServer(home / "skyvern", SKYVERN_VENV, browser=True) as skyvern:
        env = {"AIRFLOW_CONN_SKYVERN_DEFAULT": json.dumps(skyvern.connection)}
        dags = [DAGS, *(example(name, skyvern, home) for name in ("stay_logged_in", "several_runs_in_one_session"))]
        with AirflowServer(home / "airflow", dags, env, postgres=postgres) as airflow:
            yield Rig(airflow, skyvern)


def example(name: str, skyvern: SkyvernServer, folder: Path) -> Path:
    """Return a copy of an example for the rig's portal, which runs only when it is triggered."""
    code = (EXAMPLES / f"{name}.py").read_text()
    given = {
        "https://portal.example.com/orders": f"{skyvern.site.url}/invoices",
        "https://portal.example.com": skyvern.site.url,
        "wpid_123": skyvern.workflow("login"),
        '"portal"': '"example"',  # a profile that is not there yet
        '"@daily"': "None",
    }
    for text, instead in given.items():
        code = code.replace(text, instead)
    copy = folder / f"{name}.py"
    copy.write_text(code)
    return copy


@pytest.fixture(scope="module")
def logged_in(rig: Rig) -> str:
    return rig.run("log_in_once")


def open_sessions(skyvern: SkyvernServer) -> Any:
    status, found = skyvern.request("GET", "/v1/browser_sessions")
    assert status == 200
    return found


def test_three_runs_share_one_login(rig: Rig, logged_in: str) -> None:
    for task_id in ("first", "second"):
        assert rig.listed("log_in_once", logged_in, task_id) == NUMBERS
    assert rig.skyvern.site.logins == 1
    assert open_sessions(rig.skyvern) == []


def test_a_later_dag_run_needs_no_login(rig: Rig, logged_in: str) -> None:
    later = rig.run("logged_in")
    assert rig.listed("logged_in", later, "read") == NUMBERS
    assert rig.skyvern.site.logins == 1


def test_the_example_logs_in_when_it_has_to_and_not_before(rig: Rig) -> None:
    """Three days: there is no profile yet; it is used; the portal has forgotten the login."""
    dag_id, before = "skyvern_stay_logged_in", rig.skyvern.site.logins

    def day() -> tuple[dict[str, str | None], int]:
        states = rig.airflow.task_states(dag_id, rig.run(dag_id))
        return {task: states[task, -1] for task in ("read", "log_in", "read_again")}, rig.skyvern.site.logins - before

    assert day() == ({"read": "failed", "log_in": "success", "read_again": "success"}, 1)
    assert day() == ({"read": "success", "log_in": "skipped", "read_again": "skipped"}, 1)
    rig.skyvern.site.log_everybody_out()
    assert day() == ({"read": "failed", "log_in": "success", "read_again": "success"}, 2)
    assert open_sessions(rig.skyvern) == []


def test_the_example_reads_several_pages_with_one_login(rig: Rig) -> None:
    before = rig.skyvern.site.logins
    rig.run("skyvern_several_runs_in_one_session")
    assert rig.skyvern.site.logins == before + 1
    assert open_sessions(rig.skyvern) == []
