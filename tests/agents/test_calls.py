"""One run for each tool call, also when the task is retried, cleared, paused, mapped or killed."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from airflow.providers.common.ai.exceptions import ManagedAgentInvocationError, ManagedAgentRejected
from airflow.providers.common.ai.managed_agents.base import ManagedAgentRequest

from airflow_skyvern.exceptions import (
    SkyvernRunCanceled,
    SkyvernRunFailed,
    SkyvernStartUnknown,
    SkyvernWaitInterrupted,
)
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.task.pushed import KnownRun
from airflow_skyvern.testing import completed, failed
from airflow_skyvern.testing.fake.skyvern import LOST
from tests.agents.scripted import Task, raises

if TYPE_CHECKING:
    from airflow_skyvern.testing.skyvern import Skyvern

START = "/v1/run/workflows"


def ask(agent: Any = None, **arguments: Any) -> str:
    """Call a tool: what it returns is the run that has answered."""
    found = (agent or SkyvernHook().agent("wpid_1")).invoke(
        ManagedAgentRequest(prompt="…", vendor_options={"arguments": arguments})
    )
    return str(found.trace_ref)


@pytest.fixture(autouse=True)
def workflow(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_1", parameters={"vendor": "string"}, output={"x": 1})


def count(skyvern: Skyvern) -> int:
    return len(skyvern.started())


def test_a_retry_finds_the_run_of_each_call_in_whatever_order_it_makes_them(skyvern: Skyvern) -> None:
    task = Task()
    with task.runs():
        first, second = ask(vendor="ACME"), ask(vendor="Oak")
    with task.runs(number=2):
        assert (ask(vendor="Oak"), ask(vendor="ACME")) == (second, first)
    assert first != second
    assert count(skyvern) == 2


def test_the_same_call_twice_is_two_runs_and_a_retry_finds_both_in_their_order(skyvern: Skyvern) -> None:
    task = Task()
    with task.runs():
        runs = [ask(vendor="ACME"), ask(vendor="ACME")]
    with task.runs(number=2):
        assert [ask(vendor="ACME"), ask(vendor="ACME")] == runs
        third = ask(vendor="ACME")
    assert len({*runs, third}) == count(skyvern) == 3


def test_the_same_calls_at_the_same_time_are_as_many_runs(skyvern: Skyvern) -> None:
    task, found = Task(), []
    with task.runs():
        threads = [threading.Thread(target=lambda: found.append(ask(vendor="ACME"))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(set(found)) == count(skyvern) == 4
    assert {call["run_id"] for call in task.calls} == set(found)


def test_a_call_of_a_retry_that_is_new_starts_a_run_and_leaves_the_others(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_2", completed().after("running", "running", "running", "running"), parameters={})
    task = Task()
    with task.runs(), pytest.raises(SkyvernWaitInterrupted):
        _interrupted_while_it_waits(task, "wpid_2")
    with task.runs(number=2):
        ask(vendor="ACME")
    (waiting, _) = skyvern.started()
    assert waiting.status == "running"
    with task.runs(number=3):
        assert ask(SkyvernHook().agent("wpid_2")) == waiting.run_id


def _interrupted_while_it_waits(task: Task, workflow_id: str, **arguments: Any) -> None:
    """Stop the worker while it waits: no user has done that."""
    task.ti.on_push = lambda key: task.kill() if key == "app_url" else None
    try:
        ask(SkyvernHook().agent(workflow_id), **arguments)
    finally:
        task.ti.on_push = lambda key: None


def test_a_run_that_an_earlier_try_has_left_failed_is_not_taken_for_the_answer(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_2", failed("no stock"), completed({"x": 2}), parameters={})
    task = Task()
    with task.runs():
        raises(SkyvernRunFailed, lambda: ask(SkyvernHook().agent("wpid_2")))
    with task.runs(number=2):
        assert ask(SkyvernHook().agent("wpid_2")) == skyvern.started()[1].run_id


def test_a_start_that_was_not_answered_is_found_by_the_retry(
    skyvern: Skyvern, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = Task()
    skyvern.next("POST", START, LOST)
    with task.runs():
        found = ask(vendor="ACME")
    assert [run.run_id for run in skyvern.started()] == [found]
    skyvern.next("POST", START, LOST)
    skyvern.next("GET", "/v1/runs", httpx.Response(200, json=[]))
    monkeypatch.setattr("airflow_skyvern.testing.plugin.LOST_START", 0.0)
    with task.runs():
        raises(SkyvernStartUnknown, lambda: ask(vendor="Oak"))
    with task.runs(number=2):
        assert ask(vendor="Oak") == skyvern.started()[1].run_id
    assert count(skyvern) == 2


def test_a_cleared_task_starts_anew_and_cancels_all_that_it_had_started(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_2", completed().after(*["running"] * 9), parameters={"n": "integer"})
    task = Task()
    for n in (1, 2):
        with task.runs(), pytest.raises(SkyvernWaitInterrupted):
            _interrupted_while_it_waits(task, "wpid_2", n=n)
    task.ti.max_tries = 3  # Airflow adds the retries
    with task.runs(number=3):
        ask(vendor="ACME")
    assert [run.status for run in skyvern.started()] == ["canceled", "canceled", "completed"]


def test_a_task_that_pauses_for_a_person_continues_to_count(skyvern: Skyvern) -> None:
    task = Task()
    with task.runs():
        first = ask(vendor="ACME")
    task.ti.next_method = "resume_after_tool_approval"
    with task.resumes():
        second = ask(vendor="ACME")
    task.ti.next_method = None
    with task.runs(number=2):
        assert [ask(vendor="ACME"), ask(vendor="ACME")] == [first, second]
    assert count(skyvern) == 2


def test_each_mapped_task_has_runs_of_its_own(skyvern: Skyvern) -> None:
    tasks = [Task(map_index=index) for index in (0, 1)]
    runs = []
    for task in tasks:
        with task.runs():
            runs.append(ask(vendor="ACME"))
    for task, run in zip(tasks, runs, strict=True):
        with task.runs(number=2):
            assert ask(vendor="ACME") == run
    assert len(set(runs)) == count(skyvern) == 2


def test_without_a_store_of_airflow_the_tags_are_enough(skyvern: Skyvern) -> None:
    task = Task()
    task.store = None
    with task.runs():
        runs = [ask(vendor="ACME"), ask(vendor="Oak")]
    with task.runs(number=2):
        assert [ask(vendor="ACME"), ask(vendor="Oak")] == runs
    assert count(skyvern) == 2


def test_outside_of_a_task_each_call_is_a_run_without_a_key(skyvern: Skyvern) -> None:
    assert ask(vendor="ACME") != ask(vendor="ACME")
    assert [set(run.tags) for run in skyvern.started()] == [set(), set()]


def test_what_airflow_notes_of_the_calls_leads_to_each_run(skyvern: Skyvern) -> None:
    task = Task()
    with task.runs() as ti:
        runs = [ask(vendor="ACME"), ask(vendor="Oak")]
    ti.xcoms["run_id"] = "the agent's own"

    class Row:
        def __init__(self, key: str) -> None:
            self.key, self.value = key, ti.xcoms[key]

    known = {key: Row(key) for key in ti.xcoms}
    assert KnownRun(known).run_id == runs[1]  # type: ignore[arg-type]  # rows of a database have more
    assert [(run.run_id, run.call) for run in KnownRun.all_of(known)] == [(runs[0], 0), (runs[1], 1)]  # type: ignore[arg-type]  # as above
    assert ti.xcoms["app_url"].endswith(runs[1])


def test_a_kill_by_a_user_cancels_each_run_that_is_waited_for(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_2", completed().after(*["running"] * 2000), parameters={"n": "integer"})
    task = Task()
    errors: list[BaseException] = []
    with task.runs() as ti:
        threads = [threading.Thread(target=_caught, args=(errors, n)) for n in (1, 2, 3)]
        for thread in threads:
            thread.start()
        _until(lambda: count(skyvern) == 3 and all("run_id" in call for call in task.calls))
        ti.state = "failed"  # a user has marked it
        began = time.monotonic()
        task.kill()
        took = time.monotonic() - began
        for thread in threads:
            thread.join(10)
    assert took < 5  # then Airflow kills the process
    assert [run.status for run in skyvern.started()] == ["canceled"] * 3
    assert [type(error) for error in errors] == [SkyvernRunCanceled] * 3
    assert task.killed == ["by Airflow"]


def _caught(errors: list[BaseException], n: int) -> None:
    try:
        ask(SkyvernHook().agent("wpid_2"), n=n)
    except Exception as error:  # noqa: BLE001  whatever it is
        errors.append(error)


def _until(true: Any, seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_killed_task_starts_nothing_more(skyvern: Skyvern) -> None:
    task = Task()
    with task.runs():
        ask(vendor="ACME")
        task.kill()
        raises(SkyvernWaitInterrupted, lambda: ask(vendor="Oak"))
    assert count(skyvern) == 1


def test_the_last_try_cancels_its_run_when_it_is_killed(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_2", completed().after(*["running"] * 9), parameters={})
    task = Task(retries=0)
    with task.runs(), pytest.raises(SkyvernRunCanceled):
        _interrupted_while_it_waits(task, "wpid_2")
    assert [run.status for run in skyvern.started()] == ["canceled"]


def test_a_wait_ends_with_the_task_when_that_ends_without_it(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_2", completed().after(*["running"] * 2000), parameters={"n": "integer"})
    task = Task(retries=0)
    errors: list[BaseException] = []
    thread = threading.Thread(target=_caught, args=(errors, 1))
    with task.runs():
        thread.start()
        _until(lambda: count(skyvern) == 1)
    thread.join(15)
    assert not thread.is_alive()
    assert [run.status for run in skyvern.started()] == ["canceled"]


def test_a_run_that_takes_too_long_is_canceled(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_2", completed().after(*["running"] * 2000), parameters={})
    request = ManagedAgentRequest(prompt="{}", timeout=0.2)
    with Task().runs():
        error = raises(Exception, lambda: SkyvernHook().agent("wpid_2").invoke(request))
    assert "did not end in time" in str(error)
    assert [run.status for run in skyvern.started()] == ["canceled"]


def test_a_refusal_of_arguments_starts_nothing(skyvern: Skyvern) -> None:
    with Task().runs():
        error = raises(ManagedAgentRejected, lambda: ask(vendro="ACME"))
        assert "vendro" in str(error)
        raises(ManagedAgentRejected, ask)
    assert count(skyvern) == 0


def test_a_workflow_that_is_not_there_is_terminal(skyvern: Skyvern) -> None:
    raises(ManagedAgentInvocationError, lambda: ask(SkyvernHook().agent("wpid_gone")))
    skyvern.unforeseen.clear()


def test_answers_are_json_for_the_model_and_values_for_python(skyvern: Skyvern) -> None:
    found = SkyvernHook().agent("wpid_1").invoke(ManagedAgentRequest(prompt='{"vendor": "ACME"}'))
    assert (json.loads(found.text), found.structured) == ({"x": 1}, {"x": 1})
    assert found.trace_ref == found.raw.run_id == skyvern.started()[0].run_id
