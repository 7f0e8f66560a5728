"""A workflow file in each way of a task, in a test of a DAG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_skyvern.testing import Skyvern
    from tests.kit.conftest import DagOf

DAG = Path(__file__).parents[1] / "system" / "dags" / "workflow_file_dags.py"


def test_all_tasks_run_one_version_of_one_workflow(skyvern: Skyvern, dag_of: DagOf) -> None:
    skyvern.workflow_file("waits.yaml", output={"pause_output": {"success": True}})
    run = dag_of(DAG).test()
    states = {(ti.task_id, str(getattr(ti.state, "value", ti.state))) for ti in run.get_task_instances()}
    assert states == {(task_id, "success") for task_id in ("deferred", "worker", "mapped", "decorated")}
    (workflow,) = skyvern.fake.workflows.values()
    assert (workflow.title, workflow.version) == ("Waits of the system tests", 1)
    notes = {started.parameters["note"] for started in skyvern.started()}
    assert {"from a function", "0", "19"} < notes
