"""A workflow file on a real Airflow and a real Skyvern: one workflow, one version per content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.support.workflow_file_runs import DAG_ID, SINGLE, TASKS, TITLE, FileRuns, waits, workflows

if TYPE_CHECKING:
    from tests.system.conftest import Rig


def rendered(rig: Rig, run_id: str, task_id: str) -> str:
    answer = rig.airflow.request("GET", f"/dags/{DAG_ID}/dagRuns/{run_id}/taskInstances/{task_id}")
    return str(answer.json()["rendered_fields"]["workflow_version"])


def of_version(rig: Rig, run_id: str, task_id: str) -> int:
    """Which version Skyvern has run."""
    started = rig.airflow.xcom(DAG_ID, run_id, task_id, "run_id")
    return int(rig.skyvern.request("GET", f"/v1/workflows/runs/{started}")[1]["workflow"]["version"])


def test_a_file_is_run_as_it_stands_by_all_tasks_at_once(rig: Rig) -> None:
    runs = FileRuns(rig.airflow)
    first = runs.trigger()
    runs.succeeds(first)
    (workflow,) = workflows(rig.skyvern)
    workflow_id = workflow["workflow_permanent_id"]
    assert waits(rig.skyvern, workflow_id) == [1]
    assert runs.ran(first) == {(workflow_id, 1, "waits.yaml")}
    assert len(rig.skyvern.runs_of(workflow_id)) == TASKS

    changed = {"title": TITLE, "workflow_definition": {"parameters": [], "blocks": [_wait(600)]}}
    assert rig.skyvern.request("POST", f"/v1/workflows/{workflow_id}", {"json_definition": changed})[0] == 200
    runs.edit(1, 2)
    second = runs.trigger()
    runs.succeeds(second)
    assert waits(rig.skyvern, workflow_id) == [
        2,
        600,
        1,
    ]  # what was edited in Skyvern has not been run, and is not lost
    assert runs.ran(second) == {(workflow_id, 3, "waits.yaml")}
    assert [of_version(rig, second, task_id) for task_id in SINGLE] == [3, 3, 3]
    for task_id in ("deferred", "worker"):
        shown = rendered(rig, second, task_id)
        assert shown.startswith("waits.yaml, content ")
        if rig.airflow.is_3 or task_id == "deferred":
            assert shown.endswith(f": version 3 of workflow {workflow_id}")


def _wait(seconds: int) -> dict[str, Any]:
    return {"block_type": "wait", "label": "pause", "wait_sec": seconds}
