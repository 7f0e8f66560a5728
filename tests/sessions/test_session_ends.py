"""
The ends of a DAG run with a browser session, on a real Airflow and a real Skyvern: which sessions are open then.

``AIRFLOW=2.11`` runs them on another Airflow.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dev.airflow_server import AirflowServer
from dev.process import wait_until
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer

DAGS = Path(__file__).parent / "dags" / "session_dags.py"
OVER = ("success", "failed", "skipped")
PATIENCE = 240.0
OPEN, CLOSE = "open_browser_session", "close_browser_session"


class Rig:
    """Both servers."""

    def __init__(self, airflow: AirflowServer, skyvern: SkyvernServer) -> None:
        self.airflow, self.skyvern = airflow, skyvern

    def start(self, dag_id: str, name: str, **conf: Any) -> str:
        return self.airflow.trigger(dag_id, conf, run_id=f"test_{name}", timeout=PATIENCE)

    def session(self, dag_id: str, dag_run: str) -> str:
        """Return the session of a DAG run, once its task has begun to work in it."""
        self.airflow.wait_task(dag_id, dag_run, "work", "running", timeout=PATIENCE)
        return str(self.airflow.xcom(dag_id, dag_run, OPEN))

    @property
    def open_sessions(self) -> list[str]:
        status, rows = self.skyvern.request("GET", "/v1/browser_sessions")
        assert status == 200, rows
        return [row["browser_session_id"] for row in rows]

    def closes(self, *sessions: str) -> None:
        wait_until("closed", lambda: not set(sessions) & set(self.open_sessions), PATIENCE)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    home = tmp_path_factory.mktemp("sessions")
    with SkyvernServer(home / "skyvern", SKYVERN_VENV) as skyvern:
        connection = {"conn_type": "skyvern", "host": skyvern.base_url, "password": skyvern.api_key}
        env = {
            "AIRFLOW_CONN_SKYVERN_DEFAULT": json.dumps(connection),
            "AIRFLOW__SKYVERN__INSTALLATION": "sessions",
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        }
        with AirflowServer(home / "airflow", [DAGS], env) as airflow:
            yield Rig(airflow, skyvern)


def test_no_end_of_a_dag_run_leaves_its_session_open(rig: Rig) -> None:
    """All at once: success, failure, a mark, dagrun_timeout, a clear while running, an opening that fails."""
    airflow = rig.airflow
    times_out = rig.start("times_out", "times_out", seconds=500)
    succeeds, fails = rig.start("ends", "succeeds"), rig.start("ends", "fails", fails=True)
    marked, run_marked = rig.start("ends", "marked", seconds=500), rig.start("ends", "run_marked", seconds=500)
    cleared, open_fails = rig.start("ends", "cleared", seconds=25), rig.start("open_fails", "open_fails")

    before = rig.session("ends", cleared)
    airflow.clear("ends", cleared, "work")
    rig.session("ends", marked)
    airflow.mark("ends", marked, "work", "failed")
    rig.session("ends", run_marked)
    airflow.mark_run("ends", run_marked, "failed")
    left = rig.session("times_out", times_out)

    assert airflow.wait_run("ends", succeeds, timeout=PATIENCE) == "success"
    assert airflow.wait_run("ends", fails, timeout=PATIENCE) == "failed"
    assert airflow.wait_run("ends", marked, timeout=PATIENCE) == "failed"
    assert airflow.wait_run("times_out", times_out, timeout=PATIENCE) == "failed"
    assert airflow.wait_run("open_fails", open_fails, timeout=PATIENCE) == "failed"
    assert airflow.task_states("times_out", times_out)[CLOSE, -1] != "success"
    rig.closes(left, before)
    assert airflow.wait_run("ends", cleared, timeout=PATIENCE) == "success"
    airflow.wait_run("ends", run_marked, timeout=PATIENCE)
    wait_until("no session is open", lambda: rig.open_sessions == [], PATIENCE)


def test_a_clear_of_an_ended_task_opens_a_session_that_is_closed_after_it(rig: Rig) -> None:
    dag_run = rig.start("ends", "cleared_later", seconds=20)
    assert rig.airflow.wait_run("ends", dag_run, timeout=PATIENCE) == "success"
    first = rig.airflow.xcom("ends", dag_run, OPEN)
    rig.airflow.clear("ends", dag_run, "work")
    rig.airflow.wait_task("ends", dag_run, "work", "running", timeout=PATIENCE)
    second = rig.airflow.xcom("ends", dag_run, OPEN)
    assert second != first
    assert second in rig.open_sessions
    rig.airflow.wait_task("ends", dag_run, "work", OVER, timeout=PATIENCE)
    rig.closes(second)
