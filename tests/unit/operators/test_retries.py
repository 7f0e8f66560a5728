from __future__ import annotations

import time
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.compat.since_3_0 import is_airflow_3
from airflow_skyvern.exceptions import (
    SkyvernRunFailed,
    SkyvernRunTerminated,
)
from airflow_skyvern.runs import lookup
from tests.support.run_workflow_tasks import START, execute, make, try_number
from tests.support.tasks import FakeTaskInstance, context_of, deferral, resumed, run_task

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
    from tests.unit.conftest import TaskLog


def test_a_retry_goes_on_with_the_run_of_the_try_before(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("running", "running", "completed"), output={"sum": 1})
    deferral(make(workflow, retries=2, deferrable=True), try_number(1))
    assert run_task(lambda: make(workflow, retries=2), try_number(2)) == {"sum": 1}
    assert len(skyvern.runs) == 1


@pytest.mark.slow
@pytest.mark.skipif(not is_airflow_3(), reason="2.11 reads the number of the try when a process begins")
@pytest.mark.parametrize("plan", [("running", "running", "completed"), ("completed",)])
@pytest.mark.parametrize("cleared", [["run_id"], ["connection_and_run_key", "run_id"], ["connection_and_run_key"]])
@pytest.mark.parametrize("retries", [0, 2])
def test_a_first_try_that_airflow_executes_again_resumes_its_run(
    skyvern: FakeSkyvern, plan: tuple[str, ...], cleared: list[str], retries: int
) -> None:
    """
    A busy executor has begun with a resumption when the scheduler had given it up, and queued a retry.

    Airflow 3 has kept the task instance's id then, and taken away how to resume it.
    """
    workflow = skyvern.workflow(plan=plan, output={"sum": 1})
    ti = FakeTaskInstance()
    ti.max_tries = retries
    deferral(make(workflow, retries=retries, deferrable=True), ti)
    for run in skyvern.runs.values():
        run.look()
    again = FakeTaskInstance()
    again.max_tries, again.xcom_keys_to_clear = retries, cleared
    assert run_task(lambda: make(workflow, retries=retries, deferrable=True), again) == {"sum": 1}
    assert len(skyvern.runs) == 1


@pytest.mark.slow
def test_a_retry_takes_the_output_of_a_run_that_completed_meanwhile(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("completed",), output={"sum": 1})
    deferral(make(workflow, retries=2, deferrable=True), try_number(1))
    [run] = skyvern.runs.values()
    run.look()
    assert run_task(lambda: make(workflow, retries=2, deferrable=True), try_number(2)) == {"sum": 1}
    assert len(skyvern.runs) == 1


@pytest.mark.slow
def test_a_retry_after_a_failed_run_starts_another(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("failed",))
    for number in (1, 2):
        with pytest.raises(SkyvernRunFailed):
            run_task(lambda: make(workflow, retries=2), try_number(number))
    assert len(skyvern.runs) == 2


@pytest.mark.slow
@pytest.mark.parametrize("deferrable", [True, False])
def test_a_task_waits_for_the_run_that_skyvern_starts_with_a_fallback_credential(
    skyvern: FakeSkyvern, deferrable: bool
) -> None:
    workflow = skyvern.workflow(plan=("failed",), fallback_plan=("running", "completed"), output={"sum": 1})
    ti = FakeTaskInstance()
    assert run_task(lambda: make(workflow, deferrable=deferrable), ti) == {"sum": 1}
    failed, replacement = skyvern.runs
    assert (ti.xcoms["run_id"], len(skyvern.sent("POST", START))) == (replacement, 1)
    assert skyvern.runs[replacement].retried_from == failed


@pytest.mark.slow
def test_a_run_fails_its_task_when_the_fallback_credential_fails_too(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "REPLACEMENT_DELAY", 1)
    workflow = skyvern.workflow(plan=("failed",), fallback_plan=("terminated",))
    with pytest.raises(SkyvernRunTerminated):
        execute(make(workflow))
    assert len(skyvern.runs) == 2


def test_a_failed_run_fails_its_task_although_skyvern_does_not_tell_what_replaces_it(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("failed",), fallback_plan=("completed",))
    refused = httpx.Response(403, json={"detail": "Could not validate credentials"})
    skyvern.next("GET", "/v1/workflows/runs/.*", refused)
    with pytest.raises(SkyvernRunFailed):
        execute(make(workflow))


@pytest.mark.slow
def test_a_run_with_a_fallback_credential_counts_for_no_start(
    skyvern: FakeSkyvern, task_log: TaskLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs of the first try do not answer for the lost start of the second one; below Airflow 3.3."""
    monkeypatch.setattr(lookup, "REPLACEMENT_DELAY", 1)  # less than what is measured below
    workflow = skyvern.workflow(plan=("failed",), fallback_plan=("failed",))
    with pytest.raises(SkyvernRunFailed):
        run_task(lambda: make(workflow, retries=2), try_number(1))
    assert len(skyvern.runs) == 2
    operator = make(workflow, retries=2, lost_start_timeout=3)
    before = time.monotonic()
    with pytest.raises(SkyvernRunFailed):
        operator.execute(context_of(try_number(3)))
    assert time.monotonic() - before >= 3


def test_a_cleared_task_starts_anew_and_cancels_what_it_had_started(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("running",))
    deferral(make(workflow, deferrable=True), try_number(1, max_tries=0))
    deferral(make(workflow, deferrable=True), try_number(2, max_tries=1))
    before, after = skyvern.runs
    assert (skyvern.status(before), skyvern.status(after)) == ("canceled", "created")


def test_the_event_of_an_earlier_try_does_not_end_this_one(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("running", "completed"), output={"sum": 1})
    stale = deferral(make(workflow, deferrable=True), try_number(1))
    event = {"run_id": "wr_of_another_time", "reason": "ended", "status": "completed", "message": None}
    assert resumed(make(workflow), stale, event, context_of(try_number(2))) == {"sum": 1}
    assert len(skyvern.runs) == 1


def test_one_object_may_be_executed_in_each_try(skyvern: FakeSkyvern) -> None:
    operator, ti = make(skyvern.workflow(plan=("failed",))), FakeTaskInstance()
    ti.max_tries = 1
    for ti.try_number in (1, 2):
        with pytest.raises(SkyvernRunFailed):
            execute(operator, ti)
    assert len(skyvern.sent("POST", START)) == 2


@pytest.mark.skipif(not is_airflow_3(), reason="Airflow 2.11 tells what its database calls the DAG run")
def test_the_store_keeps_the_key_when_the_dag_run_is_queued_again(skyvern: FakeSkyvern) -> None:
    """Its start is another one then; the store belongs to the DAG run."""
    operator, ti = make(skyvern.workflow(), wait_for_completion=False), FakeTaskInstance()
    ti.max_tries = 1
    stored: dict[str, Any] = {}
    store = SimpleNamespace(get=stored.get, set=stored.__setitem__)
    run_ids = []
    for ti.try_number in (1, 2):
        context: Any = {**context_of(ti), "task_state_store": store}
        run_ids.append(operator.execute(context))
        ti.run_started += timedelta(minutes=1)
    assert run_ids[0] == run_ids[1]
    assert len(skyvern.sent("POST", START)) == 1
