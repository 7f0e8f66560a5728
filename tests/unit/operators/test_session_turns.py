"""Runs in a browser session go one after the other: a task whose session is in use waits, and starts nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.compat.sdk import AirflowFailException
from airflow_skyvern.exceptions import SkyvernRunFailed, SkyvernSessionEnded, SkyvernWaitTimeout
from airflow_skyvern.models import Run
from airflow_skyvern.operators import SkyvernRunPromptOperator
from airflow_skyvern.runs.browser_sessions import lost_turn_to
from airflow_skyvern.triggers import SkyvernSessionTurnTrigger
from tests.support.run_workflow_tasks import CANCEL, START, execute, make, try_number
from tests.support.tasks import FakeTaskInstance, context_of, deferral, rebuilt, resumed, run_task

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

RUNS = "/v1/browser_sessions/[^/]+/workflow_runs"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_skyvern.operators.lifecycle.RunLifecycle.turn_pause", 0.01)
    monkeypatch.setattr("airflow_skyvern.client.retry.PACE", 0.01)


def in_session(skyvern: FakeSkyvern, session: str, *steps: str) -> str:
    """Start a run of another task in a session and return its id."""
    workflow = skyvern.workflows[skyvern.workflow(plan=steps or ("running", "running", "completed"))]
    return skyvern._start(workflow, {}, {"workflow_id": workflow.workflow_id, "browser_session_id": session}).run_id


def test_a_free_session_takes_one_more_request(skyvern: FakeSkyvern, deferrable: bool) -> None:
    session, workflow = skyvern.session(), skyvern.workflow(output={"sum": 1})
    task = run_task(lambda: make(workflow, browser_session_id=session, deferrable=deferrable))
    assert task == {"sum": 1}
    assert len(skyvern.sent("GET", RUNS)) == 1
    [run] = skyvern.runs.values()
    assert run.request["browser_session_id"] == session


@pytest.mark.slow
def test_a_task_waits_for_the_run_that_is_in_its_session(skyvern: FakeSkyvern, deferrable: bool) -> None:
    session, workflow = skyvern.session(), skyvern.workflow(output={"sum": 1})
    other = in_session(skyvern, session)
    assert run_task(lambda: make(workflow, browser_session_id=session, deferrable=deferrable)) == {"sum": 1}
    assert skyvern.status(other) == "completed"
    assert len(skyvern.sent("POST", START)) == 1
    assert [run.occupied_by for run in skyvern.runs.values()] == [None, None]


@pytest.mark.slow
def test_a_prompt_waits_too(skyvern: FakeSkyvern) -> None:
    skyvern.created_output = {
        "task_output": {"task_id": "tsk_1", "status": "completed", "extracted_information": {"answer": "Two."}}
    }
    session = skyvern.session()
    in_session(skyvern, session)

    def prompt() -> Any:
        return SkyvernRunPromptOperator(
            task_id="t", prompt="How many?", browser_session_id=session, poll_interval=0.01, deferrable=True
        )

    assert run_task(prompt) == "Two."


@pytest.mark.slow
def test_a_run_that_lost_its_turn_is_no_failure(skyvern: FakeSkyvern, deferrable: bool) -> None:
    """Two tasks start a run at the same moment: none of them has seen the other's."""
    session, workflow = skyvern.session(), skyvern.workflow(output={"sum": 1})
    in_session(skyvern, session, *["running"] * 12, "completed")
    skyvern.next("GET", RUNS, httpx.Response(200, json=[]))
    task = run_task(lambda: make(workflow, browser_session_id=session, deferrable=deferrable, retries=0))
    assert task == {"sum": 1}
    assert [bool(run.occupied_by) for run in skyvern.runs.values()] == [False, True, False]


@pytest.mark.slow
def test_a_session_that_is_released_late_costs_a_few_runs_that_did_nothing(
    skyvern: FakeSkyvern, deferrable: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, workflow = skyvern.session(), skyvern.workflow(output={"sum": 1})
    other = in_session(skyvern, session, "completed")
    skyvern.runs[other].look()
    held = iter([other, other, None])
    monkeypatch.setattr(skyvern, "occupier_of", lambda _: next(held))
    task = run_task(lambda: make(workflow, browser_session_id=session, deferrable=deferrable, retries=0))
    assert task == {"sum": 1}
    assert [bool(run.occupied_by) for run in skyvern.runs.values()] == [False, True, True, False]


@pytest.mark.slow
def test_a_server_that_lists_no_runs_of_a_session_says_it_by_a_run_that_fails(skyvern: FakeSkyvern) -> None:
    session, workflow = skyvern.session(), skyvern.workflow(output={"sum": 1})
    in_session(skyvern, session)
    skyvern.next("GET", RUNS, *[httpx.Response(404, json={"detail": "Not Found"})] * 2)
    assert run_task(lambda: make(workflow, browser_session_id=session)) == {"sum": 1}


@pytest.mark.slow
def test_a_start_that_is_refused_as_the_session_is_in_use_is_sent_again_later(skyvern: FakeSkyvern) -> None:
    session, workflow = skyvern.session(), skyvern.workflow(output={"sum": 1})
    other = in_session(skyvern, session)
    said = f"Browser session {session} is already occupied by {other}. Wait for that run to finish or cancel it."
    skyvern.next("GET", RUNS, httpx.Response(200, json=[]))
    skyvern.next("POST", START, *[httpx.Response(400, json={"detail": said})] * 5)
    assert run_task(lambda: make(workflow, browser_session_id=session)) == {"sum": 1}
    assert len([run for run in skyvern.runs.values() if run.tags]) == 1


def test_what_waits_in_the_triggerer_names_the_other_run_in_no_way_that_would_cancel_it(skyvern: FakeSkyvern) -> None:
    session, ti = skyvern.session(), FakeTaskInstance()
    other = in_session(skyvern, session, "running")
    deferred = deferral(make(skyvern.workflow(), browser_session_id=session, deferrable=True), ti)
    assert isinstance(rebuilt(deferred.trigger), SkyvernSessionTurnTrigger)
    assert deferred.method_name == "execute_in_turn"
    assert "run_id" not in str([deferred.kwargs, deferred.trigger.serialize()])
    operator = make(skyvern.workflow(), browser_session_id=session, deferrable=True)
    ti.state = "failed"
    ti.next_method, ti.next_kwargs = (
        deferred.method_name,
        {**(deferred.kwargs or {}), "event": {"occupied_by": other}},
    )
    operator.pre_execute(context_of(ti))
    operator.on_kill()
    assert skyvern.sent("POST", CANCEL) == []
    assert skyvern.status(other) != "canceled"


@pytest.mark.slow
def test_the_wait_for_the_session_is_part_of_the_tasks_time(skyvern: FakeSkyvern, deferrable: bool) -> None:
    session = skyvern.session()
    other = in_session(skyvern, session, "running")
    began = time.monotonic()
    with pytest.raises(SkyvernWaitTimeout, match=f"in use until.*{other}; nothing was started"):
        run_task(lambda: make(skyvern.workflow(), browser_session_id=session, timeout=0.3, deferrable=deferrable))
    assert time.monotonic() - began < 10
    assert skyvern.sent("POST", START) == []
    assert skyvern.sent("POST", CANCEL) == []


@pytest.mark.slow
def test_a_retry_resumes_its_own_run_and_does_not_wait_for_it(skyvern: FakeSkyvern) -> None:
    session, workflow = skyvern.session(), skyvern.workflow(plan=("running", "running", "completed"), output={"n": 1})
    operator = make(workflow, browser_session_id=session, wait_for_completion=False)
    execute(operator, try_number(1))
    assert execute(make(workflow, browser_session_id=session), try_number(2)) == {"n": 1}
    assert len(skyvern.sent("POST", START)) == 1


@pytest.mark.slow
def test_a_run_that_lost_its_turn_counts_for_no_try(skyvern: FakeSkyvern) -> None:
    """The first try has left one that did nothing; its second start is unanswered, and must not be sent again."""
    session, workflow = skyvern.session(), skyvern.workflow(output={"n": 1})
    in_session(skyvern, session, *["running"] * 9, "completed")
    skyvern.next("GET", RUNS, httpx.Response(200, json=[]))
    assert run_task(lambda: make(workflow, browser_session_id=session), try_number(1)) == {"n": 1}
    second = list(skyvern.runs)[-1]
    hidden = skyvern.runs.pop(second)

    def appears() -> None:
        skyvern.runs[second] = hidden

    skyvern.next("GET", "/v1/runs", appears)
    assert execute(make(workflow, browser_session_id=session, lost_start_timeout=5), try_number(2)) == {"n": 1}
    assert len(skyvern.sent("POST", START)) == 2


def test_a_closed_session_keeps_the_retries_and_says_what_to_do(skyvern: FakeSkyvern) -> None:
    session = skyvern.session()
    skyvern.end_session(session)
    with pytest.raises(SkyvernSessionEnded, match=r"no longer usable.*Clear this task: Airflow then opens"):
        execute(make(skyvern.workflow(), browser_session_id=session))
    assert skyvern.runs == {}


def test_an_unknown_session_is_permanent(skyvern: FakeSkyvern) -> None:
    with pytest.raises(AirflowFailException, match="pbs_1 does not exist or is not live"):
        execute(make(skyvern.workflow(), browser_session_id="pbs_1"))


WORDS = "Failed to begin browser session for workflow run: Browser session pbs_1 is already occupied by wr_2. Wait."


@pytest.mark.parametrize(
    ("fields", "other"),
    [
        ({}, "wr_2"),
        ({"step_count": 3}, None),  # it did something: the words are those of a page
        ({"status": "terminated"}, None),
        ({"retry_pending": True}, None),
        ({"failure_reason": f"In block x: {WORDS}"}, None),
        ({"failure_reason": WORDS.replace("pbs_1", "pbs_9")}, None),
        ({"failure_reason": None}, None),
    ],
)
def test_only_the_servers_own_words_about_this_session_say_that_a_run_lost_its_turn(
    fields: dict[str, Any], other: str | None
) -> None:
    run = Run(**{"run_id": "wr_1", "status": "failed", "failure_reason": WORDS, "step_count": 0, **fields})
    assert lost_turn_to(run, "pbs_1") == other


def test_a_run_that_failed_otherwise_in_a_session_fails_its_task(skyvern: FakeSkyvern) -> None:
    session = skyvern.session()
    workflow = skyvern.workflow(plan=("running", "failed"), failure_reason="the portal is down")
    with pytest.raises(SkyvernRunFailed, match="the portal is down"):
        run_task(lambda: make(workflow, browser_session_id=session))
    assert len(skyvern.sent("POST", START)) == 1


@pytest.mark.slow
def test_a_resumption_for_another_try_starts_over(skyvern: FakeSkyvern) -> None:
    session, ti = skyvern.session(), try_number(1)
    other = in_session(skyvern, session, "running", "completed")
    workflow = skyvern.workflow(output={"n": 1})
    deferred = deferral(make(workflow, browser_session_id=session, deferrable=True), ti)
    ti.try_number = 2
    skyvern.runs[other].canceled = True
    operator = make(workflow, browser_session_id=session, deferrable=False, lost_start_timeout=0.1)
    assert resumed(operator, deferred, {"occupied_by": other, "reason": "ended"}, context_of(ti)) == {"n": 1}
