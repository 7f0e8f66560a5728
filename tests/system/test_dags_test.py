"""`dags test`, `dag.test()` and `tasks test`: what everybody does first, alone and beside a live Airflow."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from dev.airflow_server import AirflowServer
from dev.skyvern_server import workflows

if TYPE_CHECKING:
    from tests.system.conftest import Rig

pytestmark = pytest.mark.core
SYSTEM_DAGS = Path(__file__).parent / "dags" / "system_dags.py"

DAG_TEST = """
import importlib.util, json, sys

spec = importlib.util.spec_from_file_location("system_dags", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.tried.test(run_conf=json.loads(sys.argv[2]))
"""


def dags_test(airflow: AirflowServer, conf: str) -> str:
    return airflow.cli("dags", "test", "tried", "--conf", conf)


def tasks_test(airflow: AirflowServer, conf: str) -> str:
    return airflow.cli("tasks", "test", "tried", "run", "2026-01-01", "--task-params", conf)


def dag_test(airflow: AirflowServer, conf: str) -> str:
    return airflow.python(DAG_TEST, str(airflow.dags / SYSTEM_DAGS.name), conf)


WAYS = [dags_test, tasks_test, dag_test]
Way = Callable[[AirflowServer, str], str]


def check(rig: Rig, airflow: AirflowServer, way: Way) -> None:
    workflow = rig.skyvern.create_workflow(way.__name__, workflows(rig.skyvern.peer_url)["wait_5"])
    log = way(airflow, json.dumps({"workflow_id": workflow}))
    assert [run["status"] for run in rig.skyvern.runs_of(workflow)] == ["completed"], log
    # Beside a scheduler, which on 2.11 takes the DAG run of `dags test` for one of its own, the line is in its log.
    shared = not airflow.is_3 and airflow is rig.airflow and way is dags_test
    assert "completed after" in log or way is dag_test or shared
    assert "isn't defined" not in log
    assert "stopped waiting" not in log


@pytest.mark.parametrize("way", WAYS)
def test_a_deferrable_task_can_be_tried_without_a_running_airflow(
    rig: Rig, unstarted: AirflowServer, way: Way
) -> None:
    check(rig, unstarted, way)


@pytest.mark.parametrize("way", WAYS)
def test_a_deferrable_task_can_be_tried_beside_a_running_airflow(rig: Rig, way: Way) -> None:
    rig.airflow.wait_dag("tried")
    check(rig, rig.airflow, way)
