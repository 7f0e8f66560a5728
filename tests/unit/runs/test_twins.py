"""A task takes the result of one run, and cancels what else the same start has made."""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.exceptions import SkyvernRunFailed, SkyvernWaitTimeout
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.testing.fake.skyvern import LOST
from tests.support.tasks import FakeTaskInstance, context_of, deferral, resumed, run_task

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.records import Run
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
    from tests.unit.conftest import TaskLog

START = "/v1/run/workflows"


def make(workflow_id: str, **more: Any) -> SkyvernRunWorkflowOperator:
    arguments = {"workflow_id": workflow_id, "poll_interval": 0.02, "lost_start_timeout": 0.1, "retries": 1}
    return SkyvernRunWorkflowOperator(**{"task_id": "t", **arguments, **more})


def sent_again(skyvern: FakeSkyvern) -> None:
    """Do as a gateway that got no answer to a start and sends it again: two runs, the second one is answered."""
    skyvern.next("POST", START, lambda: copied(skyvern))


def copied(skyvern: FakeSkyvern) -> None:
    """Start a run once more, with the same request."""
    [run] = [run for run in skyvern.runs.values() if not run.is_over]
    twin = skyvern._start(skyvern.workflows[skyvern.workflow(plan=("running",))], {}, run.request)
    assert twin.tags == run.tags


def statuses(skyvern: FakeSkyvern) -> list[str]:
    return [skyvern.status(run_id) for run_id in skyvern.runs]


@pytest.mark.slow
@pytest.mark.parametrize("deferrable", [True, False], ids=["deferred", "on the worker"])
@pytest.mark.parametrize("ending", ["completed", "failed"])
def test_a_start_that_a_gateway_sent_twice_leaves_one_run(
    skyvern: FakeSkyvern, task_log: TaskLog, ending: str, *, deferrable: bool
) -> None:
    sent_again(skyvern)
    workflow = skyvern.workflow(plan=("running", ending))
    with suppress(SkyvernRunFailed):
        run_task(lambda: make(workflow, deferrable=deferrable))
    assert statuses(skyvern) == [ending, "canceled"]
    taken, twin = skyvern.runs
    assert f"Skyvern run {twin}: canceled. It is a second run of the same start" in task_log()
    assert [seen.path for seen in skyvern.sent("POST", ".*/cancel")] == [f"/v1/runs/{twin}/cancel"]
    assert taken in task_log()


@pytest.mark.slow
def test_two_runs_of_an_unanswered_start_are_one_before_the_wait_begins(skyvern: FakeSkyvern) -> None:
    skyvern.next("POST", START, LOST)
    skyvern.next("GET", "/v1/runs", lambda: copied(skyvern))
    workflow, ti = skyvern.workflow(plan=("running",)), FakeTaskInstance()
    with pytest.raises(SkyvernWaitTimeout):
        run_task(lambda: make(workflow, timeout=1.5), ti)
    canceled = [seen.path.split("/")[-2] for seen in skyvern.sent("POST", ".*/cancel")]
    [twin] = set(skyvern.runs) - {ti.xcoms["run_id"]}
    assert canceled == [twin, ti.xcoms["run_id"]]


def test_a_retry_that_finds_two_active_runs_leaves_one(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("running", "running", "running", "completed"))
    ti = FakeTaskInstance()
    ti.max_tries = 1
    deferral(make(workflow, deferrable=True), ti)
    copied(skyvern)
    ti.try_number = 2
    deferral(make(workflow, deferrable=True), ti)
    assert sorted(statuses(skyvern)).count("canceled") == 1
    taken = ti.xcoms["run_id"]
    assert skyvern.status(taken) != "canceled"


def test_a_start_that_arrives_during_the_wait_is_canceled_at_its_end(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("running", "completed"))
    ti = FakeTaskInstance()
    deferred = deferral(make(workflow, deferrable=True), ti)
    copied(skyvern)
    skyvern.runs[ti.xcoms["run_id"]].step = 1
    event = {"run_id": ti.xcoms["run_id"], "reason": "ended", "status": "completed", "message": None}
    resumed(make(workflow, deferrable=True), deferred, event, context_of(ti))
    assert statuses(skyvern) == ["completed", "canceled"]


def after_the_end(skyvern: FakeSkyvern, more: dict[str, Any] | None = None) -> None:
    """Start a copy of a run that is over, as a person or Skyvern itself may."""
    first: Run = next(iter(skyvern.runs.values()))
    skyvern._now = first.created_at.replace(hour=21)
    copy = skyvern._start(skyvern.workflows[skyvern.workflow(plan=("running",))], {}, first.request)
    for name, value in (more or {}).items():
        setattr(copy, name, value)


@pytest.mark.parametrize("by", ["a person", "Skyvern"])
def test_a_copy_of_the_run_that_was_over_is_left_alone(skyvern: FakeSkyvern, by: str) -> None:
    workflow = skyvern.workflow(plan=("running", "failed"))
    ti = FakeTaskInstance()
    deferred = deferral(make(workflow, deferrable=True), ti)
    run_id = ti.xcoms["run_id"]
    skyvern.runs[run_id].step = 1
    after_the_end(skyvern, {"retried_from": run_id} if by == "Skyvern" else None)
    event = {"run_id": run_id, "reason": "ended", "status": "failed", "message": None}
    with pytest.raises(Exception, match="failed"):
        resumed(make(workflow, deferrable=True), deferred, event, context_of(ti))
    assert skyvern.sent("POST", ".*/cancel") == []


GENUINE = {
    403: {"detail": "Workflow tagging is not enabled for this organization."},
    422: {"detail": [{"type": "enum", "loc": ["query", "status", 1], "msg": "Input should be 'created'"}]},
}


def refused(status: int) -> httpx.Response:
    return httpx.Response(status, json=GENUINE.get(status, {"detail": "no"}))


@pytest.mark.parametrize("trouble", [503, 404, 403, 302, 422, "timeout"])
def test_a_search_for_twins_that_fails_fails_no_task(
    skyvern: FakeSkyvern, task_log: TaskLog, trouble: int | str
) -> None:
    workflow = skyvern.workflow(plan=("completed",), output={"sum": 1})
    answer = httpx.ReadTimeout("no answer") if trouble == "timeout" else refused(int(trouble))
    began = time.monotonic()
    deferred = deferral(make(workflow, deferrable=True), ti := FakeTaskInstance())
    skyvern.next("GET", "/v1/runs", answer)
    event = {"run_id": ti.xcoms["run_id"], "reason": "ended", "status": "completed", "message": None}
    finish = partial(resumed, make(workflow, deferrable=True), deferred, event, context_of(ti))
    assert finish() == {"sum": 1}
    assert len(skyvern.sent("GET", "/v1/runs")) == 1
    assert time.monotonic() - began < 5
    assert ("could not check whether" in task_log()) is (trouble not in (422, 403))


def test_a_task_that_sends_no_tags_searches_for_none(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("completed",))
    run_task(lambda: make(workflow, durable=False))
    assert skyvern.sent("GET", "/v1/runs") == []
