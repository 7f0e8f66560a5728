"""Tasks that run a workflow, and what Skyvern is asked by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx

from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.runs.prompt_workflow import LABEL
from tests.support.tasks import FakeTaskInstance, context_of

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

START = "/v1/run/workflows"
CANCEL = "/v1/runs/[^/]+/cancel"
LOOK = "/v1/runs/wr_[^/]+"


def make(workflow_id: str = "wpid_1", **more: Any) -> SkyvernRunWorkflowOperator:
    """Make a task that polls often."""
    given: dict[str, Any] = {"task_id": "t", "workflow_id": workflow_id, "poll_interval": 0.01, "timeout": 20, **more}
    return SkyvernRunWorkflowOperator(**given)


def execute(operator: SkyvernRunWorkflowOperator, ti: FakeTaskInstance | None = None) -> Any:
    """Execute a task as a worker does, once."""
    return operator.execute(context_of(ti or FakeTaskInstance()))


def try_number(number: int, max_tries: int = 2) -> FakeTaskInstance:
    """Return a task instance at one of its tries."""
    ti = FakeTaskInstance()
    ti.try_number, ti.max_tries = number, max_tries
    return ti


def fail(operator: SkyvernRunWorkflowOperator, ti: FakeTaskInstance, error: str = "Trigger timeout") -> Any:
    """Resume a task as Airflow does when its deferral ended without an event."""
    return operator.resume_execution("__fail__", {"error": error}, context_of(ti))


def extracted(data: Any) -> dict[str, Any]:
    """Return the output of a prompt's run, whose one block has used the browser."""
    block = {"task_id": "tsk_1", "status": "completed", "extracted_information": data, "failure_reason": None}
    return {f"{LABEL}_output": block, "extracted_information": [data]}


def not_found(what: str, skyvern: FakeSkyvern) -> httpx.Response:
    """Deny the only run in Skyvern's own words."""
    [run_id] = skyvern.runs
    return httpx.Response(404, json={"detail": f"{what} not found {run_id}"})
