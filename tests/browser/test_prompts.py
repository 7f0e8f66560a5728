"""
Prompts in a real browser: a real Airflow, and a real Skyvern whose Chromium a scripted model drives.

Every prompt of a shape has the same hidden workflow, and a run of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dev.airflow_server import AirflowServer
from dev.browser.chromium import require_chromium
from dev.browser.site import pdf
from dev.postgres import PostgresServer
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer

DAG_ID = "prompts"
SLOW = 1500.0
TIMES = 20
ROWS = [("INV-1001", 1250.0), ("INV-1002", 480.5), ("INV-1003", 3999.99)]


class Ran:
    """The DAG run, which has ended."""

    def __init__(self, airflow: AirflowServer, skyvern: SkyvernServer, folder: Path) -> None:
        self.airflow, self.skyvern, self.folder = airflow, skyvern, folder
        conf = {"url": f"{skyvern.site.url}/invoices?open=1", "folder": str(folder)}
        self.run_id = airflow.trigger(DAG_ID, conf, timeout=120)
        self.state = airflow.wait_run(DAG_ID, self.run_id, timeout=SLOW)

    def xcom(self, task_id: str, key: str = "return_value", **which: Any) -> Any:
        return self.airflow.xcom(DAG_ID, self.run_id, task_id, key, **which)

    @property
    def why(self) -> str:
        """What the first task that failed has logged last."""
        states = self.airflow.task_states(DAG_ID, self.run_id)
        bad = [which for which, state in states.items() if state not in ("success", None)]
        logs = [self.airflow.log(DAG_ID, self.run_id, task, map_index=index)[-3000:] for task, index in bad[:1]]
        return "\n".join([str(states), *logs])


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    require_chromium()
    home = tmp_path_factory.mktemp("prompts")
    with PostgresServer() as postgres, SkyvernServer(home / "skyvern", SKYVERN_VENV, browser=True) as skyvern:
        env = {"AIRFLOW_CONN_SKYVERN_DEFAULT": json.dumps(skyvern.connection)}
        dags = [Path(__file__).parent / "dags" / "prompt_dags.py"]
        with AirflowServer(home / "airflow", dags, env, postgres=postgres) as airflow:
            yield Ran(airflow, skyvern, home / "kept")


def test_all_tasks_succeed(ran: Ran) -> None:
    assert ran.state == "success", ran.why


@pytest.mark.parametrize("task_id", ["deferred", "worker"])
def test_the_value_is_the_data_that_the_schema_asks_for(ran: Ran, task_id: str) -> None:
    assert [(row["invoice"], row["amount"]) for row in ran.xcom(task_id)] == ROWS


def test_what_a_prompt_downloads_ends_in_the_folder(ran: Ran) -> None:
    (file,) = ran.xcom("download", "files")
    assert Path(file["path"]).parent == ran.folder
    assert Path(file["path"]).read_bytes() == pdf("Invoice INV-1003")


def test_a_function_gives_the_values(ran: Ran) -> None:
    value = ran.xcom("decorated")
    assert value["output"] == {"total_open": 4480.49}
    assert value["parameters"]["prompt"] == "Read the total that is open, for a function."
    assert value["steps"] > 0


def test_twenty_mapped_prompts_have_twenty_runs_of_one_workflow(ran: Ran) -> None:
    values = [ran.xcom("mapped", map_index=number) for number in range(TIMES)]
    assert values == [{"total_open": 4480.49}] * TIMES
    runs = {ran.xcom("mapped", "run_id", map_index=number) for number in range(TIMES)}
    assert len(runs) == TIMES
    _, workflows = ran.skyvern.request("GET", "/v1/workflows?page_size=100&status=auto_generated")
    (workflow,) = [row for row in workflows if row["title"].startswith("Airflow prompt")]
    started = {run["workflow_run_id"] for run in ran.skyvern.runs_of(workflow["workflow_permanent_id"])}
    others = {ran.xcom(task_id, "run_id") for task_id in ("deferred", "worker", "download", "decorated")}
    assert started == runs | others
    assert workflow["version"] == 1
