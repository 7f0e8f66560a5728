"""
A login that lasts, in a real Chromium: three runs in one browser session, and a later DAG run with its profile.

The portal shows its invoices only to a browser that is logged in, and counts the logins.
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

DAGS = [Path(__file__).parent / "dags" / "session_dags.py"]
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
        with AirflowServer(home / "airflow", DAGS, env, postgres=postgres) as airflow:
            yield Rig(airflow, skyvern)


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
