"""A code that a run waits for at its login: the request in Airflow, and what becomes of it; the code is not here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import pytest

from airflow_skyvern.client import api
from airflow_skyvern.compat import since_3_1
from airflow_skyvern.compat.sdk import AirflowFailException
from airflow_skyvern.exceptions import (
    SkyvernConfigError,
    SkyvernRunCanceled,
    SkyvernRunTerminated,
    SkyvernWaitTimeout,
)
from airflow_skyvern.models import TimelineItem
from airflow_skyvern.operators import SkyvernRunPromptOperator, SkyvernRunWorkflowOperator
from airflow_skyvern.runs import login_code
from airflow_skyvern.runs.login_code import Answered, CodeStep, CodeWatch, code_step_of, identifier_of
from airflow_skyvern.task.login_code import SENT
from airflow_skyvern.testing.fake.run_details import timeline
from airflow_skyvern.triggers.login_code import SkyvernCodeTrigger, SkyvernLoginTrigger
from tests.support.required_actions import AS_AIRFLOW_3_3, DeferredTask, Killed, RequiredActions, Task
from tests.support.tasks import context_of, first_event, rebuilt

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

CODE = "482913"
IDENTIFIER = "ops@example.com"
CANCEL = "/v1/runs/[^/]+/cancel"
LOGIN = {"label": "sign_in", "block_type": "login", "totp_identifier": IDENTIFIER, "code": CODE}
ASK = {"label": "ask", "block_type": "human_interaction"}
SENT_AS_AIRFLOW_3_3 = AS_AIRFLOW_3_3 | {"chosen_options": [SENT]}

needs_required_actions = pytest.mark.skipif(not since_3_1.has_required_actions(), reason="came with Airflow 3.1")
below_3_1 = pytest.mark.skipif(since_3_1.has_required_actions(), reason="Airflow has Required Actions")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look often, and take a moment without an action for a wait."""
    for trigger in (SkyvernLoginTrigger, SkyvernCodeTrigger):
        monkeypatch.setattr(trigger, "look_interval", 0.02)
    monkeypatch.setattr(SkyvernLoginTrigger, "quiet", 0.05)


def make(workflow_id: str, **arguments: Any) -> SkyvernRunWorkflowOperator:
    defaults: dict[str, Any] = {"deferrable": True, "poll_interval": 0.01, "timeout": 30, "code": "airflow"}
    return SkyvernRunWorkflowOperator(task_id="t", workflow_id=workflow_id, **(defaults | arguments))


def started(workflow_id: str, **arguments: Any) -> Task:
    return Task(partial(make, workflow_id, **arguments))


def asked(workflow_id: str, **arguments: Any) -> Task:
    return started(workflow_id, **arguments).until("code_complete")


def logging_in(skyvern: FakeSkyvern, *more: dict[str, Any], **workflow: Any) -> str:
    return skyvern.workflow(blocks=[LOGIN, *more], **{"output": {"invoices": 3}, **workflow})


def only_run(skyvern: FakeSkyvern) -> Any:
    [run] = skyvern.runs.values()
    return run


def send(skyvern: FakeSkyvern, code: str) -> None:
    """Give Skyvern a code, as the run page does."""
    until = datetime.now(timezone.utc) + timedelta(seconds=login_code.EXPIRES)
    run_id = only_run(skyvern).run_id
    body = {
        "totp_identifier": IDENTIFIER,
        "content": code,
        "workflow_run_id": run_id,
        "expired_at": until.isoformat(),
    }
    headers = {"x-api-key": skyvern.api_key}
    request = httpx.Request("POST", "http://s/v1/credentials/totp", json=body, headers=headers)
    assert skyvern.handle(request).status_code == 200


@pytest.mark.parametrize("code", ["482913", "skyvern", True, ""])
def test_what_is_not_airflow_is_refused_at_parse_and_not_repeated(code: Any) -> None:
    with pytest.raises(SkyvernConfigError, match="Task 't': code must be None or 'airflow', not something else"):
        make("wpid_1", code=code)


@below_3_1
def test_below_3_1_it_is_refused_at_parse() -> None:
    with pytest.raises(SkyvernConfigError, match=r"code='airflow' needs Airflow 3\.1"):
        make("wpid_1")


@needs_required_actions
@pytest.mark.parametrize("arguments", [{"deferrable": False}, {"wait_for_completion": False}])
def test_it_needs_a_deferred_wait(arguments: dict[str, Any]) -> None:
    with pytest.raises(SkyvernConfigError, match="code='airflow' needs deferrable=True and wait_for_completion=True"):
        make("wpid_1", **arguments)


def test_a_prompt_takes_no_code() -> None:
    with pytest.raises(SkyvernConfigError, match="code: belongs to SkyvernRunWorkflowOperator"):
        SkyvernRunPromptOperator(task_id="t", prompt="say hello", code="airflow", deferrable=True)


@pytest.mark.slow
def test_a_run_that_waits_for_a_code_is_said_in_required_actions(
    skyvern: FakeSkyvern, actions: RequiredActions, task_log: Callable[[], str]
) -> None:
    task = asked(logging_in(skyvern), approvers=["alice"])
    request = actions.only
    assert (request.subject, list(request.options)) == ("Skyvern: a code is wanted", [SENT])
    assert "Type it on the page of the run in Airflow" in request.body
    assert request.params == {}  # nothing to fill in: Airflow would keep it
    assert [user.id for user in request.assigned_users] == ["alice"]
    assert IDENTIFIER not in request.body + request.subject + json.dumps(stored_of(task))
    assert "waits for a code at block sign_in" in task_log()


@pytest.mark.slow
def test_a_code_that_was_sent_lets_the_run_complete(
    skyvern: FakeSkyvern, actions: RequiredActions, task_log: Callable[[], str]
) -> None:
    task = asked(logging_in(skyvern, plan=(*["running"] * 99, "completed")))
    send(skyvern, CODE)
    actions.choose(SENT)
    assert task.finish() == {"invoices": 3}
    log = task_log()
    assert "a code was sent by alice" in log
    assert CODE not in log + json.dumps(task.ti.xcoms)
    assert (actions.open, len(skyvern.runs)) == ([], 1)
    assert "approval" not in task.ti.xcoms


@pytest.mark.slow
def test_the_answer_as_airflow_3_3_sends_it_is_the_same(skyvern: FakeSkyvern, actions: RequiredActions) -> None:
    task = asked(logging_in(skyvern))
    send(skyvern, CODE)
    actions.choose(SENT)
    assert task.resume(SENT_AS_AIRFLOW_3_3).finish() == {"invoices": 3}


@pytest.mark.slow
def test_a_wrong_code_is_asked_for_again_and_typed_in_once(skyvern: FakeSkyvern, actions: RequiredActions) -> None:
    task = asked(logging_in(skyvern))
    send(skyvern, "000000")
    actions.choose(SENT)
    task.resume().until("code_complete")
    assert actions.open == [task.ti.id]
    assert only_run(skyvern).typed == [("sign_in", "000000")]
    send(skyvern, CODE)
    actions.choose(SENT, "bob")
    assert task.finish() == {"invoices": 3}


@pytest.mark.slow
def test_a_code_that_skyvern_has_not_used_is_asked_for_again(
    skyvern: FakeSkyvern, actions: RequiredActions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has expired before Skyvern looked, or a person said that it was sent and it was not."""
    monkeypatch.setattr("airflow_skyvern.task.login_code.SETTLES", 0.2)
    task = asked(logging_in(skyvern))
    actions.choose(SENT)
    task.resume().until("code_complete")
    assert actions.open == [task.ti.id]


@pytest.mark.slow
def test_the_step_that_was_answered_is_not_asked_about_at_once(
    skyvern: FakeSkyvern, actions: RequiredActions
) -> None:
    task = asked(logging_in(skyvern), timeout=1.5)
    actions.choose(SENT)
    task.resume()
    with pytest.raises(SkyvernWaitTimeout):  # it is waited for, and nobody is asked
        task.resume()
    assert actions.open == []


@pytest.mark.slow
def test_a_run_that_goes_on_by_itself_closes_the_request(
    skyvern: FakeSkyvern, actions: RequiredActions, task_log: Callable[[], str]
) -> None:
    """A slow step looks like a wait; or somebody has sent the code to Skyvern in another way."""
    task = asked(logging_in(skyvern, plan=("running", *["running"] * 9, "completed")))
    send(skyvern, CODE)
    assert task.finish() == {"invoices": 3}
    assert actions.open == []
    assert actions.responses[task.ti.id]["chosen_options"][0] in ("The run has gone on", "The run has ended")


def test_a_run_that_has_gone_on_before_a_worker_was_free_asks_nobody(
    skyvern: FakeSkyvern, actions: RequiredActions
) -> None:
    task = started(logging_in(skyvern))
    event = {"run_id": only_run(skyvern).run_id, "reason": "code", "status": "running", "message": None}
    step = {"block_id": "wrb_other", "task_id": "tsk_other", "label": "sign_in", "actions": 3}
    task.resume({**event, "step": step})
    assert actions.requests == {}
    assert task.deferral is not None
    assert task.deferral.method_name == "execute_complete"


@pytest.mark.slow
def test_a_timeout_in_skyvern_closes_the_request_and_fails_the_task(
    skyvern: FakeSkyvern, actions: RequiredActions
) -> None:
    why = {"failure_reason": "No code came.", "errors": [{"error_code": "OTP_TIMEOUT", "reasoning": "Timeout."}]}
    task = asked(logging_in(skyvern, plan=("running", "terminated"), **why))
    only_run(skyvern).step = 1  # Skyvern gives up
    with pytest.raises(SkyvernRunTerminated, match="OTP_TIMEOUT"):
        task.finish()
    assert actions.responses[task.ti.id]["chosen_options"][0] in ("The run has gone on", "The run has ended")


@pytest.mark.slow
def test_a_cancel_in_skyvern_closes_the_request(skyvern: FakeSkyvern, actions: RequiredActions) -> None:
    task = asked(logging_in(skyvern))
    only_run(skyvern).canceled = True
    with pytest.raises(SkyvernRunCanceled):
        task.finish()
    assert actions.open == []


@pytest.mark.slow
def test_the_deadline_closes_the_request_and_cancels_the_run(skyvern: FakeSkyvern, actions: RequiredActions) -> None:
    task = asked(logging_in(skyvern), timeout=1.5)
    with pytest.raises(SkyvernWaitTimeout):
        task.finish()
    assert actions.open == []
    assert skyvern.status(only_run(skyvern).run_id) == "canceled"


@pytest.mark.slow
@pytest.mark.parametrize("kills", ["before it asks", "after it has asked"])
def test_a_worker_that_is_killed_around_its_request_leaves_it_to_the_next_try(
    skyvern: FakeSkyvern, actions: RequiredActions, kills: Any
) -> None:
    """SIGKILL between the notice and the request, or between the request and the deferral."""
    task = started(logging_in(skyvern), retries=1)
    actions.kills = kills
    with pytest.raises(Killed):
        task.until("code_complete")
    assert len(actions.open) == (kills == "after it has asked")
    task.retry().until("code_complete")
    assert actions.open == [task.ti.id]
    send(skyvern, CODE)
    actions.choose(SENT)
    assert task.finish() == {"invoices": 3}
    assert only_run(skyvern).typed == [("sign_in", CODE)]
    assert skyvern.sent("POST", CANCEL) == []


@pytest.mark.slow
def test_a_worker_that_is_killed_when_the_code_was_sent_lets_the_run_complete(
    skyvern: FakeSkyvern, actions: RequiredActions
) -> None:
    task = started(logging_in(skyvern), retries=1)
    task.until("code_complete")
    send(skyvern, CODE)
    actions.choose(SENT)
    assert task.retry().finish() == {"invoices": 3}
    assert only_run(skyvern).typed == [("sign_in", CODE)]
    assert actions.open == []


@pytest.mark.slow
def test_two_triggerers_may_notice_the_same_wait_and_one_request_is_made(
    skyvern: FakeSkyvern, actions: RequiredActions
) -> None:
    """One that was killed with its notice, and the one that takes over: Airflow takes one event."""
    task = started(logging_in(skyvern))
    assert task.deferral is not None
    first, second = (asyncio.run(first_event(rebuilt(task.deferral.trigger))) for _ in range(2))
    assert first == second
    assert first["reason"] == "code"
    task.resume(second)
    assert actions.open == [task.ti.id]


@pytest.mark.slow
def test_an_answer_to_an_earlier_try_starts_again_and_sends_nothing(
    skyvern: FakeSkyvern, actions: RequiredActions
) -> None:
    task = asked(logging_in(skyvern))
    actions.choose(SENT)
    task.ti.try_number = task.ti.max_tries = 2
    task.resume()
    assert skyvern.totp_codes == []
    assert task.deferral is not None
    assert task.deferral.method_name == "execute_complete"


@pytest.mark.slow
def test_an_answer_to_what_a_cleared_try_has_asked_is_ignored(
    skyvern: FakeSkyvern, actions: RequiredActions, task_log: Callable[[], str]
) -> None:
    task = started(logging_in(skyvern))
    task.resume(SENT_AS_AIRFLOW_3_3)
    assert "ignoring an earlier answer" in task_log()
    assert isinstance(task.deferral.trigger if task.deferral else None, SkyvernLoginTrigger)
    task.until("code_complete")
    assert actions.open == [task.ti.id]


@pytest.mark.slow
def test_a_task_may_ask_for_a_code_and_for_an_approval(skyvern: FakeSkyvern, actions: RequiredActions) -> None:
    """Airflow has one request for both, whose text and answers are those of the first."""
    plan = ("running", {"status": "paused", "blocks": 2}, "completed")
    task = asked(logging_in(skyvern, ASK, plan=plan), approval="airflow")
    assert list(actions.only.options) == ["Approve", "Reject"]
    assert "its page says what for now" in actions.only.body
    send(skyvern, CODE)
    actions.choose("Approve")
    task.resume().until_asked()
    actions.choose("Approve")
    assert task.finish() == {"invoices": 3}
    assert task.ti.xcoms["approval"]["block"] == "ask"


@pytest.mark.slow
def test_a_task_that_asks_for_an_approval_first_may_ask_for_a_code_later(
    skyvern: FakeSkyvern, actions: RequiredActions
) -> None:
    plan = ({"status": "paused", "blocks": 1}, {"status": "running", "blocks": 2}, "completed")
    workflow = skyvern.workflow(blocks=[{**ASK, "positive_descriptor": "Pay"}, LOGIN], plan=plan, output={"paid": 1})
    task = started(workflow, approval="airflow").until_asked()
    assert list(actions.only.options) == ["Approve", "Reject"]  # not the block's own words: a code would be "Pay"
    actions.choose("Approve")
    task.resume().until("code_complete")
    send(skyvern, CODE)
    actions.choose("Approve")
    assert task.finish() == {"paid": 1}


@pytest.mark.slow
def test_a_rejection_of_a_code_cancels_the_run_where_it_can_be_chosen(
    skyvern: FakeSkyvern, actions: RequiredActions
) -> None:
    task = asked(logging_in(skyvern, ASK), approval="airflow")
    actions.choose("Reject")
    with pytest.raises(AirflowFailException, match="alice rejected it in Airflow"):
        task.finish()
    assert skyvern.status(only_run(skyvern).run_id) == "canceled"


@pytest.mark.slow
def test_a_rejection_that_comes_after_the_code_cancels_nothing(
    skyvern: FakeSkyvern, actions: RequiredActions, task_log: Callable[[], str]
) -> None:
    task = asked(logging_in(skyvern), approval="airflow")
    actions.choose("Reject")
    send(skyvern, CODE)
    assert task.resume(SENT_AS_AIRFLOW_3_3 | {"chosen_options": ["Reject"]}).finish() == {"invoices": 3}
    assert "the answer of alice (Reject) came too late" in task_log()
    assert skyvern.sent("POST", CANCEL) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "block",
    [
        {**LOGIN, "totp_identifier": None},
        {**LOGIN, "totp_verification_url": "https://codes.example/now"},
        {**LOGIN, "actions": [{"action_type": "input_text"}]},
        {**LOGIN, "actions": [{"action_type": "click"}, {"action_type": "complete"}]},
        {**LOGIN, "block_type": "wait"},
    ],
)
def test_what_does_not_look_like_a_wait_for_a_code_asks_nobody(
    skyvern: FakeSkyvern, actions: RequiredActions, block: dict[str, Any]
) -> None:
    task = started(skyvern.workflow(blocks=[block]), timeout=1.5)
    with pytest.raises(SkyvernWaitTimeout):
        task.resume()
    assert actions.requests == {}


@pytest.mark.slow
def test_a_timeline_that_cannot_be_read_ends_no_wait(skyvern: FakeSkyvern, actions: RequiredActions) -> None:
    bad: list[Any] = [httpx.Response(503), httpx.Response(200, json={"what": "else"}), httpx.ReadTimeout("lost")]
    skyvern.next("GET", "/v1/runs/[^/]+/timeline", *bad)
    skyvern.next("GET", "/api/v1/tasks/[^/]+", httpx.Response(500), httpx.Response(200, json={}))
    asked(logging_in(skyvern))
    assert skyvern.unused == []


@pytest.mark.slow
def test_a_server_that_does_not_say_what_blocks_wait_for_is_noted_once(
    skyvern: FakeSkyvern, actions: RequiredActions, task_log: Callable[[], str]
) -> None:
    skyvern.next("GET", "/api/v1/tasks/[^/]+", *[httpx.Response(403, json={"detail": "Invalid credentials"})] * 5)
    asked(logging_in(skyvern))
    assert task_log().count("whether it waits for a code is not known") == 1
    assert skyvern.unused == []


def stored_of(task: Task) -> Any:
    deferral = task.deferral
    assert deferral is not None
    return [deferral.trigger.serialize(), deferral.kwargs]


def waiting(skyvern: FakeSkyvern) -> tuple[str, SkyvernCodeTrigger]:
    """Return a run that waits for a code, and the trigger of its task."""
    run_id = skyvern.run(blocks=[LOGIN], plan=("running", "completed"))
    skyvern.runs[run_id].look()
    since_3_1.ask_person(UUID(int=7), options=[SENT], subject="s", body="b")
    return run_id, code_trigger(skyvern, run_id)


def code_trigger(skyvern: FakeSkyvern, run_id: str) -> SkyvernCodeTrigger:
    told = json.dumps(timeline(skyvern.runs[run_id])).encode()
    step = code_step_of(api.get_run_timeline(run_id).parse(told))
    assert step is not None
    more: dict[str, Any] = {"ti_id": str(UUID(int=7)), "step": step.stored(), "cancel_on_kill": True}
    return SkyvernCodeTrigger(run_id, "skyvern_default", 0.01, 4e9, **more)


async def test_a_code_that_was_sent_never_cancels_the_run_though_airflow_kills_the_trigger(
    skyvern: FakeSkyvern, actions: RequiredActions, state: list[str]
) -> None:
    run_id, trigger = waiting(skyvern)
    trigger.task_instance = DeferredTask()  # type: ignore[assignment]  # what the trigger reads of one
    actions.choose(SENT)
    state[0] = "failed"
    await trigger.on_kill()
    assert skyvern.status(run_id) == "running"


@pytest.mark.parametrize("ended", ["failed", "success"])
async def test_a_user_who_ends_the_task_cancels_the_run_and_closes_the_request(
    skyvern: FakeSkyvern, actions: RequiredActions, state: list[str], ended: str
) -> None:
    run_id, trigger = waiting(skyvern)
    trigger.task_instance = DeferredTask()  # type: ignore[assignment]  # what the trigger reads of one
    state[0] = ended
    await trigger.on_kill()
    await trigger.cleanup()
    assert skyvern.status(run_id) == "canceled"
    assert actions.open == []


@pytest.mark.slow
async def test_a_triggerer_that_stops_leaves_the_request_to_the_next(
    skyvern: FakeSkyvern, actions: RequiredActions, state: list[str]
) -> None:
    run_id, trigger = waiting(skyvern)
    trigger.task_instance = DeferredTask()  # type: ignore[assignment]  # what the trigger reads of one
    first = asyncio.create_task(first_event(trigger))
    await asyncio.sleep(0.1)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    await trigger.cleanup()
    assert actions.open == [UUID(int=7)]
    assert skyvern.sent("POST", CANCEL) == []
    again = asyncio.create_task(first_event(code_trigger(skyvern, run_id)))
    actions.choose(SENT)
    assert (await again)["reason"] == "answered"


@pytest.mark.slow
async def test_two_triggerers_may_watch_the_same_request(skyvern: FakeSkyvern, actions: RequiredActions) -> None:
    run_id, _ = waiting(skyvern)
    both = [asyncio.create_task(first_event(code_trigger(skyvern, run_id))) for _ in range(2)]
    await asyncio.sleep(0.05)
    send(skyvern, CODE)
    assert {(await event)["reason"] for event in both} <= {"resumed", "ended"}
    assert actions.open == []


def block(**more: Any) -> list[TimelineItem]:
    told = {"workflow_run_block_id": "wrb_1", "block_type": "login", "status": "running", "task_id": "tsk_1", **more}
    return [TimelineItem.model_validate({"type": "block", "block": {"label": "in", **told}})]


def test_a_block_waits_once_it_has_been_quiet_for_ten_seconds() -> None:
    now = [100.0]
    watch = CodeWatch(None, clock=lambda: now[0])
    before, after = block(actions=[{"action_type": "click"}]), block(actions=[{"action_type": "click"}] * 2)
    assert watch.waits_at(before) is None
    now[0] = 109.0
    assert watch.waits_at(before) is None
    assert watch.waits_at(after) is None  # another click: the count starts again
    now[0] = 118.9
    assert watch.waits_at(after) is None
    now[0] = 119.0
    assert watch.waits_at(after) == CodeStep("wrb_1", "tsk_1", "in", 2)


def test_a_step_that_was_answered_counts_again_when_its_code_must_have_been_read() -> None:
    now = [100.0]
    clicked = block(actions=[{"action_type": "click"}])
    step = code_step_of(clicked)
    assert step is not None
    watch = CodeWatch(Answered(step, 190.0), clock=lambda: now[0])
    assert watch.waits_at(clicked) is None
    now[0] = 189.0
    assert watch.waits_at(clicked) is None
    now[0] = 190.0
    assert watch.waits_at(clicked) == step


def test_a_code_expires_before_skyvern_would_type_it_in_again() -> None:
    assert login_code.EXPIRES < 37 < login_code.SETTLES


@pytest.mark.parametrize(
    ("asked_of_task", "expected"),
    [
        ({"totp_identifier": "a@b.c"}, "a@b.c"),
        ({"totp_identifier": None}, None),
        ({"totp_identifier": ""}, None),
        ({}, None),
        ({"totp_identifier": "a@b.c", "totp_verification_url": "https://x"}, None),
    ],
)
def test_what_a_block_takes_codes_for(asked_of_task: Any, expected: str | None) -> None:
    assert identifier_of({"request": asked_of_task}) == expected


@pytest.mark.slow
def test_a_deferral_that_ends_without_an_event_cancels_the_run(
    skyvern: FakeSkyvern, actions: RequiredActions
) -> None:
    task = asked(logging_in(skyvern))
    kwargs = {"error": "Trigger timeout", "traceback": []}
    with pytest.raises(SkyvernWaitTimeout):
        task.make().resume_execution("__fail__", kwargs, context_of(task.ti))
    assert skyvern.status(only_run(skyvern).run_id) == "canceled"
