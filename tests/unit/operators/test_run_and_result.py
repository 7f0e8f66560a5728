from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
)
from airflow_skyvern.exceptions import (
    SkyvernConnectionError,
    SkyvernCreditError,
    SkyvernError,
    SkyvernRunCanceled,
    SkyvernRunError,
    SkyvernRunFailed,
    SkyvernRunTerminated,
    SkyvernRunTimedOut,
    SkyvernStartUnknown,
)
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.runs.key import ENDS_WITH_TASK_TAG
from airflow_skyvern.testing.fake.skyvern import LOST, FakeSkyvern
from tests.support.run_workflow_tasks import CANCEL, LOOK, START, execute, make, try_number
from tests.support.tasks import FakeTaskInstance, run_task

if TYPE_CHECKING:
    from tests.unit.conftest import Connect, TaskLog


def test_the_output_of_a_completed_run_is_returned(skyvern: FakeSkyvern, *, deferrable: bool) -> None:
    output = {"fetch_output": {"n": 42}, "extracted_information": []}
    workflow = skyvern.workflow(plan=("queued", "running", "completed"), output=output)
    assert run_task(lambda: make(workflow, deferrable=deferrable)) == output
    assert len(skyvern.sent("POST", START)) == 1
    assert skyvern.sent("POST", CANCEL) == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("failed", SkyvernRunFailed),
        ("terminated", SkyvernRunTerminated),
        ("timed_out", SkyvernRunTimedOut),
        ("canceled", SkyvernRunCanceled),
    ],
)
def test_a_run_that_ends_badly_fails_the_task_with_the_run_in_the_error(
    skyvern: FakeSkyvern, status: str, kind: type[SkyvernRunError], *, deferrable: bool
) -> None:
    errors = [{"error_code": "OUT"}]
    workflow = skyvern.workflow(plan=("running", status), failure_reason="no stock", errors=errors)
    with pytest.raises(kind) as caught:
        run_task(lambda: make(workflow, deferrable=deferrable))
    assert caught.value.run is not None
    assert caught.value.run.status == status
    assert f"ended as {status}" in str(caught.value)
    assert str(caught.value.run.app_url) in str(caught.value)
    assert skyvern.sent("POST", CANCEL) == []


@pytest.mark.slow
def test_a_run_that_skyvern_runs_again_is_waited_for(skyvern: FakeSkyvern, *, deferrable: bool) -> None:
    pending = {"status": "failed", "retry_pending": True}
    workflow = skyvern.workflow(plan=("running", pending, {"status": "running", "attempt": 2}, "completed"))
    assert run_task(lambda: make(workflow, deferrable=deferrable)) is not None


def test_the_run_is_published_before_anything_is_waited_for(skyvern: FakeSkyvern, *, deferrable: bool) -> None:
    ti = FakeTaskInstance()
    asked: dict[str, list[str]] = {}
    ti.on_push = lambda key: asked.setdefault(key, [seen.method for seen in skyvern.requests])
    run_task(lambda: make(skyvern.workflow(), deferrable=deferrable), ti)
    pushed = ti.xcoms.pop("connection_and_run_key")
    assert asked.pop("connection_and_run_key", []) == []
    assert list(asked.items()) == [("run_id", ["POST"]), ("app_url", ["POST"])]
    [run_id] = skyvern.runs
    assert ti.xcoms == {"run_id": run_id, "app_url": f"http://localhost:8080/runs/{run_id}"}
    group = skyvern.runs[run_id].tags["airflow_key"]
    assert pushed == {"skyvern_conn_id": "skyvern_default", "group": group}


@pytest.mark.parametrize("arguments", [{"cancel_on_kill": False}, {"wait_for_completion": False}], ids=str)
def test_a_run_that_is_not_to_be_canceled_is_not_published_for_it(
    skyvern: FakeSkyvern, arguments: dict[str, bool], *, deferrable: bool
) -> None:
    ti = FakeTaskInstance()
    run_task(lambda: make(skyvern.workflow(), deferrable=deferrable, **arguments), ti)
    assert "connection_and_run_key" not in ti.xcoms
    [run] = skyvern.runs.values()
    assert ENDS_WITH_TASK_TAG not in run.tags


def test_a_run_that_is_canceled_with_its_task_says_so(skyvern: FakeSkyvern, *, deferrable: bool) -> None:
    run_task(lambda: make(skyvern.workflow(), deferrable=deferrable))
    [run] = skyvern.runs.values()
    assert run.tags[ENDS_WITH_TASK_TAG] == "yes"


def test_a_run_need_not_be_waited_for(skyvern: FakeSkyvern, *, deferrable: bool) -> None:
    ti = FakeTaskInstance()
    operator = make(skyvern.workflow(), wait_for_completion=False, deferrable=deferrable)
    run_id = execute(operator, ti)
    assert list(skyvern.runs) == [run_id]
    assert ti.xcoms["run_id"] == run_id
    assert [seen.method for seen in skyvern.requests] == ["POST"]


def test_a_run_whose_workflow_is_deleted_meanwhile_is_seen_to_its_end(
    skyvern: FakeSkyvern, *, deferrable: bool
) -> None:
    workflow = skyvern.workflow(plan=("running", "running", "completed"), output={"sum": 1})
    skyvern.next("GET", LOOK, lambda: setattr(skyvern.workflows[workflow], "deleted", True))
    assert run_task(lambda: make(workflow, deferrable=deferrable)) == {"sum": 1}


def test_a_person_who_is_awaited_is_told_where(skyvern: FakeSkyvern, *, deferrable: bool) -> None:
    ti = FakeTaskInstance()

    def check_stop(key: str) -> None:
        if key == "awaiting_person":
            SkyvernHook().continue_run(ti.xcoms["run_id"])

    ti.on_push = check_stop
    run_task(lambda: make(skyvern.workflow(plan=("running", "paused", "completed")), deferrable=deferrable), ti)
    [run_id] = skyvern.runs
    assert ti.xcoms["awaiting_person"] == {"run_id": run_id, "app_url": f"http://localhost:8080/runs/{run_id}"}
    assert len(skyvern.sent("POST", ".*/continue")) == 1


def test_the_reason_of_a_bad_ending_is_logged_in_lines_that_can_be_read(
    skyvern: FakeSkyvern, task_log: TaskLog, *, deferrable: bool
) -> None:
    """Before the traceback, at whose end Airflow logs it as one long line."""
    reason = "The page asked for a second factor that no one has configured, " * 6
    workflow = skyvern.workflow(plan=("running", "failed"), failure_reason=reason)
    with pytest.raises(SkyvernRunFailed):
        run_task(lambda: make(workflow, deferrable=deferrable))
    [run_id] = skyvern.runs
    lines = [line for line in task_log().splitlines() if "second factor" in line]
    assert len(lines) >= 4
    assert any(f"Skyvern run {run_id} ended as failed in block pause: The page asked" in line for line in lines)
    assert not any(reason[:200] in line for line in lines)


@pytest.mark.parametrize("status", ["failed", "terminated"])
def test_endings_can_skip_the_task(skyvern: FakeSkyvern, status: str, *, deferrable: bool) -> None:
    workflow = skyvern.workflow(plan=("running", status), failure_reason="no stock")
    expected = AirflowSkipException if status == "terminated" else SkyvernRunFailed
    with pytest.raises(expected, match="no stock"):
        run_task(lambda: make(workflow, deferrable=deferrable, skip_on=["terminated"]))


def test_one_ending_may_be_written_without_a_list(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("running", "terminated"))
    with pytest.raises(AirflowSkipException):
        run_task(lambda: make(workflow, skip_on="terminated"))


@pytest.mark.parametrize(
    ("arguments", "answer", "message"),
    [
        ({"workflow_id": "wpid_123"}, None, "404: Workflow not found. workflow_permanent_id=wpid_123"),
        ({}, None, "400: Missing value for parameter vendor"),
        ({"parameters": {"vendor": "A"}, "proxy_location": "RESIDENTIAL_XX"}, None, "422: proxy_location"),
        ({}, httpx.Response(403, json={"detail": "Could not validate credentials"}), "403: Could not validate"),
    ],
)
def test_what_no_retry_can_cure_fails_at_once(
    skyvern: FakeSkyvern, arguments: dict[str, Any], answer: httpx.Response | None, message: str
) -> None:
    if answer is not None:
        skyvern.next("POST", START, answer)
    workflow = skyvern.workflow(parameters={"vendor": "string"})
    with pytest.raises(AirflowFailException, match=message):
        execute(make(**{"workflow_id": workflow, **arguments}))
    assert len(skyvern.sent("POST", START)) == 1
    assert skyvern.runs == {}


def test_a_connection_that_is_wrong_fails_at_once_and_keeps_its_key(connect: Connect, task_log: TaskLog) -> None:
    connect(password="s3cr3t", extra={"timeout": "soon"})
    with pytest.raises(AirflowFailException, match="connection 'skyvern_default': timeout") as caught:
        execute(make())
    assert "s3cr3t" not in str(caught.value) + task_log()


@pytest.mark.slow
def test_errors_that_may_pass_keep_the_tasks_retries(skyvern: FakeSkyvern) -> None:
    skyvern.next("POST", START, httpx.Response(429))
    operator = make(skyvern.workflow(), lost_start_timeout=0.01)
    operator.hook = SkyvernHook(retry=RetryPolicy(attempts=1))
    with pytest.raises(SkyvernError) as caught:
        execute(operator)
    assert caught.value.transient


@pytest.mark.slow
def test_no_credit_is_an_error_of_its_own_once_no_run_of_the_start_was_found(skyvern: FakeSkyvern) -> None:
    """Only Skyvern Cloud says so, in words that are not known here: so it may be anybody's."""
    skyvern.next("POST", START, httpx.Response(402, json={"detail": "Out of credit"}))
    with pytest.raises(SkyvernCreditError, match=r"402: Out of credit\. Add credit in Skyvern under Billing"):
        execute(make(skyvern.workflow(), lost_start_timeout=0.01))
    assert len(skyvern.sent("GET", "/v1/runs")) >= 1


def test_a_start_whose_answer_was_lost_is_found_and_never_sent_twice(
    skyvern: FakeSkyvern, *, deferrable: bool
) -> None:
    skyvern.next("POST", START, LOST)
    workflow = skyvern.workflow(output={"sum": 1})
    assert run_task(lambda: make(workflow, deferrable=deferrable)) == {"sum": 1}
    assert len(skyvern.sent("POST", START)) == 1
    assert len(skyvern.runs) == 1


def test_a_start_that_cannot_be_found_is_left_to_the_next_try(skyvern: FakeSkyvern) -> None:
    skyvern.next("POST", START, httpx.ReadTimeout("lost on its way"))
    with pytest.raises(SkyvernStartUnknown, match="The next try searches again before it starts anything"):
        execute(make(skyvern.workflow(), lost_start_timeout=1e-6))
    assert len(skyvern.sent("POST", START)) == 1


def test_without_durable_a_lost_answer_is_an_error_and_nothing_is_tagged(skyvern: FakeSkyvern) -> None:
    skyvern.next("POST", START, LOST)
    with pytest.raises(SkyvernConnectionError, match="may have arrived"):
        execute(make(skyvern.workflow(), durable=False))
    [start] = skyvern.requests
    assert "run_metadata" not in start.json


@pytest.mark.slow
@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize(
    ("status", "detail"),
    [
        (400, "Invalid credential ID: x. Failed to resolve to a valid credential."),
        (403, "Could not validate credentials"),
        (422, [{"type": "missing", "loc": ["body", "workflow_id"], "msg": "Field required", "input": {}}]),
    ],
)
def test_a_start_that_skyvern_refused_leaves_nothing_to_look_for(
    skyvern: FakeSkyvern, task_log: TaskLog, status: int, detail: Any, number: int, *, durable: bool
) -> None:
    """A person who is woken by "may still be running" has to find something."""
    workflow = skyvern.workflow()
    skyvern.next("POST", START, httpx.Response(status, json={"detail": detail}))
    operator = make(workflow, durable=durable, lost_start_timeout=0.01)
    with pytest.raises((AirflowFailException, SkyvernError)):
        execute(operator, try_number(number))
    assert skyvern.runs == {}
    assert "may still be running" not in task_log()


@pytest.mark.slow
@pytest.mark.parametrize("durable", [True, False])
def test_a_start_that_may_have_been_done_is_named(skyvern: FakeSkyvern, task_log: TaskLog, *, durable: bool) -> None:
    workflow = skyvern.workflow()
    skyvern.next("POST", START, httpx.Response(502, text="<html>Bad gateway</html>"))
    with pytest.raises((AirflowFailException, SkyvernError)):
        execute(make(workflow, durable=durable, lost_start_timeout=0.01), try_number(3))
    assert "A Skyvern run of this task may still be running" in task_log()
