"""A person's approval: from the paused block to Airflow's Required Actions, and the answer back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
import pytest

from airflow_skyvern.compat import since_3_1
from airflow_skyvern.compat.sdk import AirflowFailException, AirflowSkipException
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernRunCanceled, SkyvernWaitTimeout
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.runs import question
from airflow_skyvern.testing.fake.skyvern import LOST, FakeSkyvern
from airflow_skyvern.triggers.approval import SkyvernApprovalTrigger
from tests.support.log_lines import LogLines
from tests.support.required_actions import AS_AIRFLOW_3_3, DeferredTask, RequiredActions, Task
from tests.support.tasks import context_of, first_event

if TYPE_CHECKING:
    from tests.unit.conftest import Connect

CONTINUE = "/v1/workflows/runs/[^/]+/continue"
CANCEL = "/v1/runs/[^/]+/cancel"
ASK = {"label": "ask", "block_type": "human_interaction"}
ASK_IN_WORDS = {
    **ASK,
    "subject": "Pay ACME?",
    "instructions": "Pay *1,234 EUR*\n![x](http://evil.example/x.png)",
    "positive_descriptor": "Pay",
    "negative_descriptor": "Do not pay",
}
PLAN = ("running", "paused", "running", "completed")

needs_required_actions = pytest.mark.skipif(not since_3_1.has_required_actions(), reason="came with Airflow 3.1")
below_3_1 = pytest.mark.skipif(since_3_1.has_required_actions(), reason="Airflow has Required Actions")


def make(workflow_id: str, **arguments: Any) -> SkyvernRunWorkflowOperator:
    defaults: dict[str, Any] = {"deferrable": True, "poll_interval": 0.01, "timeout": 30, "approval": "airflow"}
    return SkyvernRunWorkflowOperator(task_id="t", workflow_id=workflow_id, **(defaults | arguments))


def started(workflow_id: str, **arguments: Any) -> Task:
    return Task(partial(make, workflow_id, **arguments))


def asking(skyvern: FakeSkyvern, block: dict[str, Any] | None = None, plan: Any = PLAN, **more: Any) -> str:
    return skyvern.workflow(plan=plan, blocks=[{"label": "before", "block_type": "wait"}, block or ASK], **more)


@pytest.mark.parametrize(
    "approvers",
    [
        [],
        "",
        [""],
        [7],
        [None],
        [{}],
        [{"name": "Alice"}],
        [{"id": 7}],
        [{"id": "7", "mail": "a@b.c"}],
        {"alice": 1},
        7,
    ],
)
def test_approvers_who_are_no_users_are_refused_at_parse(approvers: Any) -> None:
    with pytest.raises(SkyvernConfigError, match=r"Task 't': approvers (must be a list|has .*; give a user)"):
        make("wpid_1", approvers=approvers)


def test_approvers_of_no_approval_are_refused_at_parse() -> None:
    with pytest.raises(SkyvernConfigError, match="Task 't': approvers needs approval='airflow'"):
        make("wpid_1", approval=None, approvers=["alice"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("approvers", "users"),
    [
        (None, None),
        ("alice", [("alice", "alice")]),
        (["alice", {"id": "7", "name": "Bob"}], [("alice", "alice"), ("7", "Bob")]),
        ({"id": "7"}, [("7", "7")]),
    ],
)
def test_a_request_names_those_who_alone_may_answer(
    skyvern: FakeSkyvern, actions: RequiredActions, approvers: Any, users: Any
) -> None:
    started(asking(skyvern), approvers=approvers).until_asked()
    named = actions.only.assigned_users
    assert [(user.id, user.name) for user in named or ()] == (users or [])


@pytest.mark.parametrize("arguments", [{"approval": "mail"}, {"on_reject": "retry"}, {"approval": "skyvern"}])
def test_what_no_version_understands_is_refused_at_parse(arguments: dict[str, Any]) -> None:
    with pytest.raises(SkyvernConfigError, match=r"Task 't': (approval|on_reject) must be"):
        make("wpid_1", **arguments)


@below_3_1
def test_without_required_actions_an_approval_is_refused_at_parse() -> None:
    with pytest.raises(SkyvernConfigError, match=r"needs Airflow 3\.1"):
        make("wpid_1")


@needs_required_actions
@pytest.mark.parametrize("arguments", [{"deferrable": False}, {"wait_for_completion": False}])
def test_an_approval_needs_a_deferred_wait(arguments: dict[str, Any]) -> None:
    with pytest.raises(SkyvernConfigError, match="needs deferrable=True and wait_for_completion=True"):
        make("wpid_1", **arguments)


def test_what_a_block_asks_is_shown_in_its_words_and_as_text_only(
    skyvern: FakeSkyvern, actions: RequiredActions
) -> None:
    started(asking(skyvern, ASK_IN_WORDS)).until_asked()
    request = actions.only
    assert (request.subject, list(request.options)) == ("Skyvern: Pay ACME?", ["Pay", "Do not pay"])
    assert r"Pay \*1,234 EUR\*" in request.body
    assert "![" not in request.body
    assert "[Run in Skyvern](http://localhost:8080/runs/wr_" in request.body


@pytest.mark.slow
def test_an_approval_continues_the_run_and_names_who_gave_it(
    skyvern: FakeSkyvern, actions: RequiredActions, task_log: Callable[[], str]
) -> None:
    task = started(asking(skyvern, output={"paid": True})).until_asked()
    actions.choose("Approve")
    assert task.finish() == {"paid": True}
    assert len(skyvern.sent("POST", CONTINUE)) == 1
    assert skyvern.sent("POST", CANCEL) == []
    note = task.ti.xcoms["approval"]
    assert (note["approved"], note["answer"], note["answered_by"], note["answered_in"], note["block"]) == (
        True,
        "Approve",
        "alice",
        "airflow",
        "ask",
    )
    assert "approved by alice in Airflow" in task_log()
    assert len(skyvern.runs) == 1


@pytest.mark.slow
def test_the_answer_as_airflow_3_3_sends_it_is_the_same(skyvern: FakeSkyvern, actions: RequiredActions) -> None:
    task = started(asking(skyvern)).until_asked()
    actions.choose("Approve")
    task.resume(AS_AIRFLOW_3_3)
    task.finish()
    assert task.ti.xcoms["approval"]["answered_by"] == "alice"
    assert len(skyvern.sent("POST", CONTINUE)) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("on_reject", "error"), [("fail", AirflowFailException), ("skip", AirflowSkipException), ("return", None)]
)
def test_a_rejection_cancels_the_run_and_ends_the_task_as_its_author_chose(
    skyvern: FakeSkyvern, actions: RequiredActions, on_reject: str, error: type[Exception] | None
) -> None:
    task = started(asking(skyvern, ASK_IN_WORDS), on_reject=on_reject).until_asked()
    actions.choose("Do not pay")
    if error is None:
        assert task.finish() == task.ti.xcoms["approval"]
        assert task.result["approved"] is False
    else:
        with pytest.raises(error, match=r"alice rejected it in Airflow \(Do not pay\)"):
            task.finish()
    [run_id] = skyvern.runs
    assert skyvern.status(run_id) == "canceled"
    assert len(skyvern.sent("POST", CANCEL)) == 1
    assert skyvern.sent("POST", CONTINUE) == []


@pytest.mark.slow
def test_an_answer_in_skyvern_closes_the_request_in_airflow(skyvern: FakeSkyvern, actions: RequiredActions) -> None:
    plan = ("running", "paused", *["running"] * 9, "completed")
    task = started(asking(skyvern, plan=plan, output={"paid": True})).until_asked()
    skyvern_continues(skyvern)
    assert task.finish() == {"paid": True}
    assert actions.open == []
    assert actions.responses[task.ti.id]["chosen_options"] == ["Answered in Skyvern"]
    assert (task.ti.xcoms["approval"]["answered_in"], task.ti.xcoms["approval"]["answered_by"]) == ("skyvern", None)
    assert skyvern.sent("POST", CONTINUE) == []


@pytest.mark.slow
def test_an_answer_in_skyvern_after_which_the_run_completes_at_once_is_noted_too(
    skyvern: FakeSkyvern, actions: RequiredActions
) -> None:
    task = started(asking(skyvern)).until_asked()
    skyvern_continues(skyvern)
    task.finish()
    assert actions.responses[task.ti.id]["chosen_options"] == ["The run has ended"]
    assert task.ti.xcoms["approval"]["answered_in"] == "skyvern"


@pytest.mark.slow
def test_a_cancel_in_skyvern_closes_the_request_and_fails_the_task(
    skyvern: FakeSkyvern, actions: RequiredActions
) -> None:
    task = started(asking(skyvern)).until_asked()
    skyvern.runs[next(iter(skyvern.runs))].canceled = True
    with pytest.raises(SkyvernRunCanceled):
        task.finish()
    assert actions.open == []
    assert skyvern.sent("POST", CANCEL) == []


@pytest.mark.slow
@pytest.mark.parametrize("chosen", ["Approve", "Reject"])
def test_an_answer_that_comes_after_one_in_skyvern_does_nothing(
    skyvern: FakeSkyvern, actions: RequiredActions, task_log: Callable[[], str], chosen: str
) -> None:
    """Two persons at the same moment: the rejection must not cancel what the other has approved."""
    task = started(asking(skyvern)).until_asked()
    actions.choose(chosen)
    skyvern_continues(skyvern)
    task.resume(AS_AIRFLOW_3_3 | {"chosen_options": [actions.responses[task.ti.id]["chosen_options"][0]]}).finish()
    assert skyvern.sent("POST", CANCEL) == []
    assert "came too late" in task_log()
    note = task.ti.xcoms["approval"]
    assert (note["approved"], note["answer"], note["answered_in"]) == (True, "", "skyvern")


@pytest.mark.slow
def test_an_answer_that_comes_after_a_cancel_notes_no_answer(skyvern: FakeSkyvern, actions: RequiredActions) -> None:
    task = started(asking(skyvern)).until_asked()
    actions.choose("Approve")
    skyvern.runs[next(iter(skyvern.runs))].canceled = True
    with pytest.raises(SkyvernRunCanceled):
        task.resume(AS_AIRFLOW_3_3).finish()
    assert "approval" not in task.ti.xcoms


@pytest.mark.slow
def test_an_answer_reaches_only_the_block_that_asked(skyvern: FakeSkyvern, actions: RequiredActions) -> None:
    """The run has been approved in Skyvern and asks its second question; the answer to the first approves nothing."""
    blocks = [{**ASK, "label": "first"}, {**ASK, "label": "second"}]
    plan = ({"status": "paused", "blocks": 1}, {"status": "paused", "blocks": 2}, "completed")
    task = started(skyvern.workflow(plan=plan, blocks=blocks)).until_asked()
    skyvern_continues(skyvern)
    actions.choose("Approve")
    task.resume(AS_AIRFLOW_3_3 | {"chosen_options": [actions.responses[task.ti.id]["chosen_options"][0]]})
    assert skyvern.sent("POST", CONTINUE) == []
    task.until_asked()
    assert actions.open == [task.ti.id]
    actions.choose("Approve", "bob")
    task.finish()
    assert task.ti.xcoms["approval"]["block"] == "second"
    assert len(skyvern.sent("POST", CONTINUE)) == 1


@pytest.mark.slow
def test_a_run_may_ask_several_times(skyvern: FakeSkyvern, actions: RequiredActions) -> None:
    blocks = [{**ASK_IN_WORDS, "label": "first"}, {**ASK_IN_WORDS, "label": "second"}]
    plan = ({"status": "paused", "blocks": 1}, {"status": "paused", "blocks": 2}, "completed")
    task = started(skyvern.workflow(plan=plan, blocks=blocks)).until_asked()
    assert list(actions.only.options) == ["Approve", "Reject"]
    assert "may ask several times" in actions.only.body
    actions.choose("Approve")
    task.resume().until_asked()
    assert actions.open == [task.ti.id]
    actions.choose("Approve")
    task.finish()
    assert len(skyvern.sent("POST", CONTINUE)) == 2


@pytest.mark.slow
def test_a_lost_answer_of_skyvern_is_not_followed_by_a_second_approval(
    skyvern: FakeSkyvern, actions: RequiredActions
) -> None:
    """The approval arrived, and the run asks its next question by the time that the first is tried again."""
    blocks = [{**ASK, "label": "first"}, {**ASK, "label": "second"}]
    plan = ({"status": "paused", "blocks": 1}, {"status": "paused", "blocks": 2}, "completed")
    task = started(skyvern.workflow(plan=plan, blocks=blocks)).until_asked()
    skyvern.next("POST", CONTINUE, LOST)
    actions.choose("Approve")
    task.resume()
    assert len(skyvern.sent("POST", CONTINUE)) == 1
    task.until_asked()
    assert actions.open == [task.ti.id]


@pytest.mark.slow
def test_an_approval_survives_a_skyvern_that_is_away(skyvern: FakeSkyvern, actions: RequiredActions) -> None:
    task = started(asking(skyvern)).until_asked()
    busy = [httpx.Response(503, json={"detail": "away"})] * 2
    skyvern.next("POST", CONTINUE, *busy)
    actions.choose("Approve")
    task.finish()
    assert len(skyvern.sent("POST", CONTINUE)) == 3


@pytest.mark.slow
def test_the_deadline_closes_the_request_and_cancels_the_run(skyvern: FakeSkyvern, actions: RequiredActions) -> None:
    task = started(asking(skyvern), timeout=1.5).until_asked()
    with pytest.raises(SkyvernWaitTimeout):
        task.finish()
    assert actions.open == []
    assert skyvern.status(next(iter(skyvern.runs))) == "canceled"


@pytest.mark.slow
def test_a_deferral_that_ends_without_an_event_cancels_the_run(
    skyvern: FakeSkyvern, actions: RequiredActions
) -> None:
    task = started(asking(skyvern)).until_asked()
    kwargs = {"error": "Trigger timeout", "traceback": []}
    with pytest.raises(SkyvernWaitTimeout):
        task.make().resume_execution("__fail__", kwargs, context_of(task.ti))
    assert skyvern.status(next(iter(skyvern.runs))) == "canceled"


@pytest.mark.slow
def test_the_answer_to_an_earlier_try_is_not_carried_out(skyvern: FakeSkyvern, actions: RequiredActions) -> None:
    task = started(asking(skyvern)).until_asked()
    actions.choose("Reject")
    task.ti.try_number = task.ti.max_tries = 2
    task.resume()
    first, *_ = skyvern.runs
    assert skyvern.sent("POST", CONTINUE) == []
    assert skyvern.status(first) != "completed"


@pytest.mark.slow
def test_an_answer_to_what_a_cleared_try_has_asked_is_ignored(
    skyvern: FakeSkyvern, actions: RequiredActions, task_log: Callable[[], str]
) -> None:
    """Airflow resumes whatever wait the task is in: here that for the run of the new try, which asks nothing yet."""
    task = started(asking(skyvern))
    task.resume(AS_AIRFLOW_3_3)
    assert task.deferral is not None
    assert "ignoring an earlier answer" in task_log()
    assert skyvern.sent("POST", CONTINUE) == skyvern.sent("POST", CANCEL) == []
    task.until_asked()
    actions.choose("Approve")
    task.finish()
    assert len(skyvern.runs) == 1


def test_a_run_that_moved_on_before_it_was_asked_about_is_waited_for(
    skyvern: FakeSkyvern, actions: RequiredActions
) -> None:
    task = started(asking(skyvern))
    while skyvern.status(next(iter(skyvern.runs))) != "paused":
        skyvern.runs[next(iter(skyvern.runs))].look()
    skyvern_continues(skyvern)
    task.resume({"run_id": next(iter(skyvern.runs)), "reason": "paused"}).finish()
    assert actions.requests == {}


def approval_trigger(run_id: str, connect: Connect | None = None) -> SkyvernApprovalTrigger:
    return SkyvernApprovalTrigger(run_id, "skyvern_default", 0.01, 4e9, ti_id=str(UUID(int=7)), cancel_on_kill=True)


def paused(skyvern: FakeSkyvern) -> str:
    run_id = skyvern.run(plan=("paused", "completed"), blocks=[ASK])
    skyvern.runs[run_id].look()
    return run_id


def open_request() -> None:
    since_3_1.ask_person(UUID(int=7), options=["Approve", "Reject"], subject="s", body="b")


async def test_an_answer_never_cancels_the_run_though_airflow_kills_the_trigger(
    skyvern: FakeSkyvern, actions: RequiredActions, state: list[str]
) -> None:
    """Airflow 3.3 resumes the task with the answer, and calls on_kill; the task may have ended by then."""
    run_id = paused(skyvern)
    open_request()
    trigger = approval_trigger(run_id)
    trigger.task_instance = DeferredTask()  # type: ignore[assignment]  # what the trigger reads of one
    actions.choose("Approve")
    state[0] = "failed"
    await trigger.on_kill()
    assert skyvern.sent("POST", CANCEL) == []


@pytest.mark.parametrize("ended", ["failed", "success"])
async def test_a_user_who_ends_the_task_cancels_the_run_and_closes_the_request(
    skyvern: FakeSkyvern, actions: RequiredActions, state: list[str], ended: str
) -> None:
    run_id = paused(skyvern)
    open_request()
    trigger = approval_trigger(run_id)
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
    run_id = paused(skyvern)
    open_request()
    trigger = approval_trigger(run_id)
    trigger.task_instance = DeferredTask()  # type: ignore[assignment]  # what the trigger reads of one
    waiting = asyncio.create_task(first_event(trigger))
    await asyncio.sleep(0.1)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await trigger.cleanup()
    assert actions.open == [UUID(int=7)]
    assert skyvern.sent("POST", CANCEL) == []
    again = asyncio.create_task(first_event(approval_trigger(run_id)))
    actions.choose("Approve")
    assert (await again)["reason"] == "answered"


@pytest.mark.slow
async def test_two_triggerers_may_watch_the_same_request(skyvern: FakeSkyvern, actions: RequiredActions) -> None:
    run_id = paused(skyvern)
    open_request()
    both = [asyncio.create_task(first_event(approval_trigger(run_id))) for _ in range(2)]
    await asyncio.sleep(0.05)
    skyvern_continues(skyvern)
    assert {(await event)["reason"] for event in both} <= {"resumed", "ended"}
    assert actions.open == []


async def test_a_request_that_another_triggerer_closed_first_is_not_reported_as_open(
    skyvern: FakeSkyvern, actions: RequiredActions, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LogLines()
    monkeypatch.setattr(SkyvernApprovalTrigger, "log", log)
    monkeypatch.setattr(SkyvernApprovalTrigger, "slow_answer_interval", 60)
    monkeypatch.setattr(SkyvernApprovalTrigger, "answer_interval", 60)
    open_request()
    actions.choose("Approve")
    run_id = skyvern.run(plan=("completed",), blocks=[ASK])
    assert (await first_event(approval_trigger(run_id)))["reason"] == "ended"
    assert "was not closed" not in log.text


@pytest.mark.slow
async def test_a_request_that_is_gone_does_not_end_the_wait(skyvern: FakeSkyvern, actions: RequiredActions) -> None:
    run_id = paused(skyvern)
    waiting = asyncio.create_task(first_event(approval_trigger(run_id)))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    skyvern_continues(skyvern)
    assert (await waiting)["reason"] in ("resumed", "ended")


def test_what_crosses_the_database_holds_no_secret(skyvern: FakeSkyvern, actions: RequiredActions) -> None:
    task = started(asking(skyvern, ASK_IN_WORDS)).until_asked()
    assert task.deferral is not None
    stored = json.dumps([task.deferral.trigger.serialize(), task.deferral.kwargs])
    assert skyvern.api_key not in stored
    assert "1,234" not in stored


def test_text_is_escaped_whatever_it_is() -> None:
    assert question.escaped("a [b](javascript:alert(1)) <i> `c`") == (
        r"a \[b\]\(javascript\:alert\(1\)\) \<i\> \`c\`"
    )


def skyvern_continues(skyvern: FakeSkyvern) -> None:
    """Let a person answer in Skyvern's own UI."""
    run = skyvern.runs[next(iter(skyvern.runs))]
    run.continued = True
    run.look()
