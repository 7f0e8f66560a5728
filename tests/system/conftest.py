"""One real Skyvern server and one real Airflow for all system tests; the DAG runs are all started at once."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dev.airflow_2 import needs_ai
from dev.airflow_server import AirflowServer
from dev.postgres import PostgresServer
from dev.process import wait_until
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer
from tests.support import events_rig

ROOT = Path(__file__).parents[2]
SYSTEM_DAGS = Path(__file__).parent / "dags" / "system_dags.py"
FILE_DAGS = Path(__file__).parent / "dags" / "workflow_file_dags.py"
DEADLINE_DAGS = Path(__file__).parent / "dags" / "deadline_dags.py"


@dataclass
class Rig:
    """Both servers, and what the tests ask of them."""

    airflow: AirflowServer
    skyvern: SkyvernServer
    events: events_rig.EventsRig
    started: dict[str, str] = field(default_factory=dict)
    workflows: Counter[str] = field(default_factory=Counter)
    """How many DAG runs were started for each workflow."""

    def start(self, name: str, dag_id: str, workflow: str, **conf: Any) -> None:
        self.workflows[workflow] += 1
        self.started[name] = self.airflow.trigger(
            dag_id, {"workflow_id": self.skyvern.workflow(workflow), **conf}, run_id=f"test_{name}"
        )

    def run_status(self, run_id: str) -> str:
        status, body = self.skyvern.request("GET", f"/v1/runs/{run_id}")
        assert status == 200, body
        return str(body["status"])

    def wait_for_trigger(self, dag_id: str, dag_run: str) -> None:
        """Wait until the triggerer has begun to wait for a task: what ends it before, nobody notices on Airflow 2."""
        begins = f"trigger {dag_id}/{dag_run}/"

        def begun() -> bool:
            text = (self.airflow.home / "triggerer.log").read_text(errors="replace")
            text += self.airflow.log(dag_id, dag_run, "run")  # 3.x writes it there
            return any(begins in line and "starting" in line for line in text.splitlines())

        wait_until(f"trigger of {dag_run}", begun, 120)

    def wait_run_status(self, run_id: str, wanted: str, timeout: float) -> float:
        """Wait until Skyvern says so, and return how long it took."""
        began = time.monotonic()
        while self.run_status(run_id) != wanted:
            assert time.monotonic() - began < timeout, f"{run_id} is {self.run_status(run_id)}, not {wanted}"
            time.sleep(0.2)
        return time.monotonic() - began

    def stays(self, run_id: str, status: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert self.run_status(run_id) == status
            time.sleep(0.5)

    def cancel(self, run_id: str) -> None:
        status, body = self.skyvern.request("POST", f"/v1/runs/{run_id}/cancel")
        assert status == 200, body

    def runs_of(self, workflow: str) -> list[dict[str, Any]]:
        return self.skyvern.runs_of(self.skyvern.workflow(workflow))


@pytest.fixture(scope="session")
def rig(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    browser = any(test.get_closest_marker("snippets") for test in request.session.items)
    home = tmp_path_factory.mktemp("system")
    with PostgresServer() as postgres, SkyvernServer(home / "skyvern", SKYVERN_VENV, browser=browser) as skyvern:
        good = skyvern.connection
        connections = {
            "SKYVERN_DEFAULT": good,
            "SKYVERN_WRONG_KEY": {**good, "password": "not-the-key"},
        }
        env = {f"AIRFLOW_CONN_{name}": json.dumps(value) for name, value in connections.items()}
        # When all DAG runs begin at once, an API server answers late, and Airflow 3 gives up a task after 5 s and
        # some repetitions: "Executor … reported that the task instance … finished with state failed".
        env["AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT"] = "60"
        dags = [
            SYSTEM_DAGS,
            FILE_DAGS,
            DEADLINE_DAGS,
            events_rig.DAGS,
            *(path for path in (ROOT / "dags").glob("*.py") if not needs_ai(path.read_text())),
        ]
        workflows = events_rig.make_workflows(skyvern)
        # Not SQLite: Airflow 3.3 waits for itself there, half a minute at a time, when much is written at once.
        airflow = AirflowServer(home / "airflow", dags, env, postgres=postgres)
        events_rig.prepare(airflow, workflows)
        with airflow:
            yield Rig(airflow, skyvern, events_rig.EventsRig(airflow, skyvern, workflows))


@pytest.fixture(scope="session")
def unstarted(rig: Rig, tmp_path_factory: pytest.TempPathFactory) -> AirflowServer:
    """An Airflow with a database, a connection in it, and no process."""
    airflow = AirflowServer(tmp_path_factory.mktemp("unstarted"), [SYSTEM_DAGS])
    airflow.cli("db", "migrate", timeout=400)
    connection = rig.skyvern.connection
    airflow.cli("connections", "add", "skyvern_default", "--conn-json", json.dumps(connection))
    return airflow
