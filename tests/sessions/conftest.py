"""Both servers, and what both test modules ask of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.airflow_server import AirflowServer
from dev.postgres import PostgresServer
from dev.process import wait_until
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer

DAGS = list((Path(__file__).parent / "dags").glob("*.py"))
PATIENCE = 300.0
SETTINGS = {
    "CORE__PARALLELISM": "12",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": "30",
    "SCHEDULER__ZOMBIE_DETECTION_INTERVAL": "5",
    # A dead scheduler's tasks are looked for only after another has adopted them: every five minutes by default.
    "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "15",
    "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    "SKYVERN__INSTALLATION": "sessions",
    "WORKERS__EXECUTION_API_TIMEOUT": "60",
}


class Rig:
    """Both servers."""

    def __init__(self, airflow: AirflowServer, skyvern: SkyvernServer) -> None:
        self.airflow, self.skyvern = airflow, skyvern

    @property
    def open_sessions(self) -> list[str]:
        status, rows = self.skyvern.request("GET", "/v1/browser_sessions")
        assert status == 200, rows
        return [row["browser_session_id"] for row in rows]

    def closes(self, *sessions: str) -> None:
        wait_until("closed", lambda: not set(sessions) & set(self.open_sessions), PATIENCE)


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    home = tmp_path_factory.mktemp("sessions")
    with PostgresServer() as postgres, SkyvernServer(home / "skyvern", SKYVERN_VENV) as skyvern:
        env = {
            "AIRFLOW_CONN_SKYVERN_DEFAULT": json.dumps(skyvern.connection),
            **{f"AIRFLOW__{name}": value for name, value in SETTINGS.items()},
        }
        with AirflowServer(home / "airflow", DAGS, env, postgres=postgres) as airflow:
            yield Rig(airflow, skyvern)
