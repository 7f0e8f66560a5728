from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.client import retry
from airflow_skyvern.compat.sdk import (
    AirflowFailException,
    AirflowTaskTimeout,
)
from airflow_skyvern.exceptions import (
    SkyvernRunCanceled,
    SkyvernWaitInterrupted,
)
from airflow_skyvern.testing.fake.skyvern import LOST, FakeSkyvern
from tests.support.run_workflow_tasks import CANCEL, LOOK, START, execute, make, not_found, try_number
from tests.support.tasks import FakeTaskInstance, context_of, deferral, resumed, run_task

if TYPE_CHECKING:
    from tests.unit.conftest import TaskLog


def test_killing_a_waiting_task_cancels_its_run_once(skyvern: FakeSkyvern, task_log: TaskLog) -> None:
    operator = make(skyvern.workflow(plan=("running",)), poll_interval=60)
    skyvern.next("GET", LOOK, operator.on_kill)
    with pytest.raises(SkyvernRunCanceled):
        execute(operator)
    operator.on_kill()
    [run_id] = skyvern.runs
    assert skyvern.status(run_id) == "canceled"
    assert len(skyvern.sent("POST", CANCEL)) == 1
    assert f"Skyvern run {run_id}: canceled, as the task was killed" in task_log()


def test_a_killed_task_never_succeeds_even_when_its_run_does(skyvern: FakeSkyvern) -> None:
    operator = make(skyvern.workflow(plan=("completed",)))
    skyvern.next("GET", LOOK, operator.on_kill)
    with pytest.raises(SkyvernRunCanceled, match="must not succeed"):
        execute(operator)


@pytest.mark.parametrize("durable", [True, False])
def test_killing_a_task_whose_start_is_not_answered_yet_cancels_the_run(
    skyvern: FakeSkyvern, *, durable: bool
) -> None:
    operator = make(skyvern.workflow(plan=("running",)), durable=durable)
    skyvern.next("POST", START, operator.on_kill)
    with pytest.raises(SkyvernRunCanceled):
        execute(operator)
    [run_id] = skyvern.runs
    assert skyvern.status(run_id) == "canceled"


@pytest.mark.parametrize(
    ("state", "retries", "durable", "canceled"),
    [
        ("failed", 2, True, True),
        ("success", 2, True, True),
        ("skipped", 2, True, True),
        ("removed", 2, True, True),
        ("restarting", 2, True, True),
        ("running", 2, True, False),
        (None, 2, True, False),
        ("queued", 2, True, False),
        ("scheduled", 2, True, False),
        ("up_for_retry", 2, True, False),
        ("deferred", 2, True, False),
        ("running", 0, True, True),
        ("running", 2, False, True),
    ],
)
def test_a_stopped_worker_cancels_its_run_only_for_a_user_or_when_no_retry_will_come(
    skyvern: FakeSkyvern, state: str | None, retries: int, *, durable: bool, canceled: bool
) -> None:
    """Airflow sends the same signal for a mark and for a shutdown of the worker."""
    ti = try_number(1, retries)
    workflow = skyvern.workflow(plan=("running",))
    operator = make(workflow, durable=durable, retries=retries)

    def kill() -> None:
        ti.state = state
        operator.on_kill()

    skyvern.next("GET", LOOK, kill)
    with pytest.raises(SkyvernRunCanceled if canceled else SkyvernWaitInterrupted):
        execute(operator, ti)
    [run_id] = skyvern.runs
    assert skyvern.status(run_id) == ("canceled" if canceled else "running")


@pytest.mark.slow
@pytest.mark.parametrize(("retries", "canceled"), [(0, True), (2, False)])
def test_a_worker_that_gets_no_answer_from_airflow_leaves_the_run_to_a_retry(
    skyvern: FakeSkyvern, retries: int, *, canceled: bool
) -> None:
    ti = try_number(1, retries)
    operator = make(skyvern.workflow(plan=("running",)), retries=retries)

    def kill() -> None:
        ti.answers_after = 30
        began = time.monotonic()
        operator.on_kill()
        assert time.monotonic() - began < 5

    skyvern.next("GET", LOOK, kill)
    with pytest.raises(SkyvernRunCanceled if canceled else SkyvernWaitInterrupted):
        execute(operator, ti)
    assert len(skyvern.sent("POST", CANCEL)) == int(canceled)


def test_the_retry_of_a_stopped_worker_resumes_its_run(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("running", "running", "completed"), output={"sum": 1})
    stopped = make(workflow, retries=2)
    skyvern.next("POST", START, stopped.on_kill)
    with pytest.raises(SkyvernWaitInterrupted):
        execute(stopped, try_number(1))
    assert run_task(lambda: make(workflow, retries=2), try_number(2)) == {"sum": 1}
    assert len(skyvern.runs) == 1


def test_an_execution_timeout_cancels_the_run_although_a_retry_will_come(skyvern: FakeSkyvern) -> None:
    operator = make(skyvern.workflow(plan=("running",)), retries=2)

    def time_out() -> None:
        try:
            raise AirflowTaskTimeout  # noqa: TRY301  as Airflow does
        except AirflowTaskTimeout:
            operator.on_kill()

    skyvern.next("GET", LOOK, time_out)
    with pytest.raises(SkyvernRunCanceled):
        execute(operator, try_number(1))
    [run_id] = skyvern.runs
    assert skyvern.status(run_id) == "canceled"


@pytest.mark.parametrize("state", ["scheduled", "queued", "up_for_retry", None])
def test_a_state_that_no_user_has_set_does_not_keep_a_task_from_deferring(
    skyvern: FakeSkyvern, state: str | None
) -> None:
    """`airflow dags test` leaves a running task `scheduled` on Airflow 2."""
    ti = FakeTaskInstance()
    ti.state = state
    deferral(make(skyvern.workflow(plan=("running",)), deferrable=True), ti)
    assert skyvern.sent("POST", CANCEL) == []


@pytest.mark.parametrize(("retries", "durable", "canceled"), [(0, True, True), (2, True, False), (2, False, True)])
def test_a_task_that_fails_for_any_reason_leaves_no_run_that_nobody_will_resume(
    skyvern: FakeSkyvern, retries: int, *, durable: bool, canceled: bool
) -> None:
    ti = try_number(1, retries)

    def fail_to_push(key: str) -> None:
        raise RuntimeError("the XCom backend is away")

    ti.on_push = lambda key: fail_to_push(key) if key == "run_id" else None
    with pytest.raises(RuntimeError):
        execute(make(skyvern.workflow(plan=("running",)), durable=durable, retries=retries), ti)
    [run_id] = skyvern.runs
    assert skyvern.status(run_id) == ("canceled" if canceled else "created")


def test_a_permanent_error_during_the_wait_leaves_no_run(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "REFUSAL_PATIENCE", 0.0)
    skyvern.next("GET", LOOK, lambda: not_found("Task run", skyvern))
    with pytest.raises(AirflowFailException):
        execute(make(skyvern.workflow(plan=("running",)), retries=2), try_number(1))
    [run_id] = skyvern.runs
    assert skyvern.status(run_id) == "canceled"


def test_killing_a_resumed_task_cancels_its_run(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("running",))
    deferred = deferral(make(workflow, deferrable=True))
    [run_id] = skyvern.runs
    operator = make(workflow)
    skyvern.next("GET", LOOK, operator.on_kill)
    event = {"run_id": run_id, "reason": "error", "status": None, "message": ""}
    with pytest.raises(SkyvernRunCanceled):
        resumed(operator, deferred, event, context_of(FakeTaskInstance()))
    assert len(skyvern.sent("POST", CANCEL)) == 1


def test_a_task_that_is_killed_before_it_is_resumed_cancels_its_run(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("running",))
    deferred = deferral(make(workflow, deferrable=True))
    [run_id] = skyvern.runs
    operator = make(workflow)
    operator.on_kill()
    event = {"run_id": run_id, "reason": "error", "status": None, "message": ""}
    with pytest.raises(SkyvernRunCanceled):
        resumed(operator, deferred, event, context_of(FakeTaskInstance()))
    assert skyvern.status(run_id) == "canceled"
    assert len(skyvern.sent("POST", CANCEL)) == 1


def test_killing_a_task_that_has_started_nothing_asks_nothing(skyvern: FakeSkyvern) -> None:
    make().on_kill()
    assert skyvern.requests == []


def test_killing_a_task_that_is_over_asks_nothing(skyvern: FakeSkyvern) -> None:
    operator = make(skyvern.workflow())
    execute(operator)
    asked = len(skyvern.requests)
    operator.on_kill()
    assert len(skyvern.requests) == asked


@pytest.mark.slow
def test_a_cancel_whose_answer_is_lost_is_seen_to_by_looking(skyvern: FakeSkyvern) -> None:
    operator = make(skyvern.workflow(plan=("running",)))
    skyvern.next("GET", LOOK, operator.on_kill)
    skyvern.next("POST", CANCEL, LOST)
    with pytest.raises(SkyvernRunCanceled):
        execute(operator)
    [run_id] = skyvern.runs
    assert skyvern.status(run_id) == "canceled"


def test_a_run_can_be_left_alone_when_its_task_is_killed(skyvern: FakeSkyvern) -> None:
    operator = make(skyvern.workflow(plan=("running",)), cancel_on_kill=False)
    skyvern.next("GET", LOOK, operator.on_kill)
    with pytest.raises(SkyvernRunCanceled, match="must not succeed"):
        execute(operator)
    assert skyvern.sent("POST", CANCEL) == []


@pytest.mark.parametrize(
    ("durable", "options", "complaint"),
    [
        (True, {"run_metadata": {f"k{n}": "v" for n in range(16)}}, "at most 14 entries"),
        (False, {"run_metadata": {f"k{n}": "v" for n in range(21)}}, "at most 20"),
        (True, {"run_metadata": {"airflow_key": "v"}}, "airflow_key is used by the provider"),
        (True, {"run_metadata": {"k" * 65: "v"}}, "at most 64 characters"),
        (True, {"run_metadata": {"k": "v" * 257}}, "at most 256 characters"),
        (True, {"max_elapsed_time_minutes": 481}, "less than or equal to 480"),
        (True, {"totp_url": "https://x/".ljust(2084, "a")}, "at most 2083 characters"),
        (True, {"file_ids": ["file_1"] * 51}, "at most 50"),
        (True, {"run_metdata": {}}, "Did you mean run_metadata"),
    ],
)
@pytest.mark.parametrize("as_text", [True, False])
def test_what_templates_bring_is_checked_before_anything_is_sent(
    skyvern: FakeSkyvern, *, durable: bool, options: dict[str, Any], complaint: str, as_text: bool
) -> None:
    operator = make(skyvern.workflow(), run_options="{{ something }}", durable=durable)
    operator.run_options = json.dumps(options) if as_text else options  # type: ignore[assignment]
    with pytest.raises(AirflowFailException, match=complaint):
        execute(operator)
    assert skyvern.requests == []
