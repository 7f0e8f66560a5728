"""A workflow file on a real Airflow and a real Skyvern: one workflow, one version per content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.system.conftest import Rig

DAG_ID = "workflow_file"
TITLE = "Waits of the system tests"
SINGLE = ("deferred", "worker", "decorated")
TASKS = 20
SLOW = 240


def succeeds(rig: Rig, run_id: str) -> None:
    """Wait for a DAG run, and show what a task of it that failed has logged."""
    if rig.airflow.wait_run(DAG_ID, run_id, timeout=SLOW) != "success":
        states = rig.airflow.task_states(DAG_ID, run_id)
        failed = [task_id for task_id in SINGLE if states.get((task_id, -1)) != "success"]
        logs = [rig.airflow.log(DAG_ID, run_id, task_id)[-2000:] for task_id in failed]
        raise AssertionError("\n".join([str(states), *logs]))


def workflows(rig: Rig) -> list[dict[str, Any]]:
    _, rows = rig.skyvern.request("GET", "/v1/workflows?page_size=100")
    return [row for row in rows if row["title"] == TITLE]


def versions(rig: Rig, workflow_id: str) -> list[dict[str, Any]]:
    _, rows = rig.skyvern.request("GET", f"/v1/workflows/{workflow_id}/versions")
    return list(rows)


def notes(rig: Rig, run_id: str) -> list[dict[str, Any]]:
    """What each task says that it has run."""
    single = [rig.airflow.xcom(DAG_ID, run_id, task_id, "workflow_version") for task_id in SINGLE]
    mapped = [rig.airflow.xcom(DAG_ID, run_id, "mapped", "workflow_version", map_index=n) for n in range(TASKS)]
    return [*single, *mapped]


def rendered(rig: Rig, run_id: str, task_id: str) -> str:
    answer = rig.airflow.request("GET", f"/dags/{DAG_ID}/dagRuns/{run_id}/taskInstances/{task_id}")
    return str(answer.json()["rendered_fields"]["workflow_version"])


def of_version(rig: Rig, run_id: str, task_id: str) -> int:
    """Which version Skyvern has run."""
    started = rig.airflow.xcom(DAG_ID, run_id, task_id, "run_id")
    return int(rig.skyvern.request("GET", f"/v1/workflows/runs/{started}")[1]["workflow"]["version"])


def test_a_file_is_run_as_it_stands_by_all_tasks_at_once(rig: Rig) -> None:
    first = rig.airflow.trigger(DAG_ID)
    succeeds(rig, first)
    (workflow,) = workflows(rig)
    workflow_id = workflow["workflow_permanent_id"]
    assert [row["version"] for row in versions(rig, workflow_id)] == [1]
    assert {(note["workflow_id"], note["version"], note["file"]) for note in notes(rig, first)} == {
        (workflow_id, 1, "waits.yaml")
    }
    assert len(rig.skyvern.runs_of(workflow_id)) == len(SINGLE) + TASKS

    changed = {"title": TITLE, "workflow_definition": {"parameters": [], "blocks": [_wait(600)]}}
    assert rig.skyvern.request("POST", f"/v1/workflows/{workflow_id}", {"json_definition": changed})[0] == 200
    file = rig.airflow.dags / "waits.yaml"
    file.write_text(file.read_text().replace("wait_sec: 1", "wait_sec: 2"))
    second = rig.airflow.trigger(DAG_ID)
    succeeds(rig, second)
    waits = [row["workflow_definition"]["blocks"][0]["wait_sec"] for row in versions(rig, workflow_id)]
    assert waits == [2, 600, 1]  # what was edited in Skyvern has not been run, and is not lost
    assert {note["version"] for note in notes(rig, second)} == {3}
    assert [of_version(rig, second, task_id) for task_id in SINGLE] == [3, 3, 3]
    for task_id in ("deferred", "worker"):
        shown = rendered(rig, second, task_id)
        assert shown.startswith("waits.yaml, content ")
        if rig.airflow.is_3 or task_id == "deferred":
            assert shown.endswith(f": version 3 of workflow {workflow_id}")


def _wait(seconds: int) -> dict[str, Any]:
    return {"block_type": "wait", "label": "pause", "wait_sec": seconds}
