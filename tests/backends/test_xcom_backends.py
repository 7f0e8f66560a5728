"""An Airflow whose XComs are not in its database: what the provider reads there, it reads through the backend."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dev.airflow_server import AirflowServer
from dev.process import wait_until
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer
from tests.support.xcom_backends import BACKENDS

ROOT = Path(__file__).parents[2]
DAGS = [ROOT / "tests" / "system" / "dags" / "system_dags.py"]
DAG, TASK, RUN = "ends_deferred", "run", "test_backend"
SLOW = 240.0


@pytest.fixture(scope="module")
def skyvern(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SkyvernServer]:
    with SkyvernServer(tmp_path_factory.mktemp("backends") / "skyvern", SKYVERN_VENV) as server:
        yield server


@pytest.fixture(params=BACKENDS, ids=lambda backend: backend.__name__)
def airflow(
    skyvern: SkyvernServer, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowServer]:
    home = tmp_path_factory.mktemp("backend")
    (values := home / "values").mkdir()
    env = {
        "AIRFLOW_CONN_SKYVERN_DEFAULT": json.dumps(skyvern.connection),
        "AIRFLOW__CORE__XCOM_BACKEND": f"{request.param.__module__}.{request.param.__name__}",
        "PYTHONPATH": str(ROOT),
        "XCOM_FOLDER": str(values),
    }
    with AirflowServer(home / "airflow", DAGS, env) as airflow:
        yield airflow


def stored_xcom(airflow: AirflowServer, key: str) -> str:
    """Return what Airflow's database has; the link's own XCom is written by Airflow, past the backend."""
    with closing(sqlite3.connect(airflow.db_path)) as database:
        [(value,)] = database.execute("SELECT value FROM xcom WHERE key = ?", (key,))
    return str(value)


def test_the_run_page_and_a_mark_find_the_run(skyvern: SkyvernServer, airflow: AirflowServer) -> None:
    workflow = skyvern.workflow("long_wait")
    earlier = {run["workflow_run_id"] for run in skyvern.runs_of(workflow)}
    airflow.trigger(DAG, {"workflow_id": workflow}, run_id=RUN, timeout=SLOW)
    airflow.wait_task(DAG, RUN, TASK, "deferred", timeout=SLOW)
    [run_id] = {run["workflow_run_id"] for run in skyvern.runs_of(workflow)} - earlier
    assert run_id not in stored_xcom(airflow, "run_id")
    if airflow.version >= (3, 1):  # which brought the run page
        for path in (f"/ti/{DAG}/{RUN}/{TASK}/-1", f"/dag_run/{DAG}/{RUN}", "/runs"):
            assert run_id in airflow.page(path)
    if airflow.is_3:  # where the API server cancels
        airflow.processes["triggerer"].kill()
    else:
        wait_until(
            "the trigger", lambda: f"trigger {DAG}/{RUN}/" in (airflow.home / "triggerer.log").read_text(), SLOW
        )
    airflow.mark(DAG, RUN, TASK, "success")
    wait_until("the cancel", lambda: status_of(skyvern, run_id) == "canceled", 10 if airflow.is_3 else 30)


def status_of(skyvern: SkyvernServer, run_id: str) -> str:
    return str(skyvern.request("GET", f"/v1/runs/{run_id}")[1]["status"])
