"""What a run has cost, the limits that a task sets for it, and what becomes of a run that reaches one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.compat.sdk import AirflowFailException
from airflow_skyvern.exceptions import (
    SkyvernConfigError,
    SkyvernStepLimitReached,
    SkyvernTimeLimitReached,
    SkyvernWaitTimeout,
)
from airflow_skyvern.operators import SkyvernRunPromptOperator
from airflow_skyvern.sensors import SkyvernRunSensor
from tests.support.run_workflow_tasks import START, make
from tests.support.tasks import FakeTaskInstance, run_task

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
    from tests.unit.conftest import TaskLog

COST = "/v1/workflows/runs/.*"
STEPS: dict[str, Any] = {
    "failure_reason": "navigation block failed. failure reason: Reached the maximum steps (3). Possible failure "
    "reasons: the page has no such button.",
    "errors": [
        {"error_code": "REACH_MAX_STEPS", "reasoning": "The agent has reached the maximum number of steps."},
    ],
}
TIME: dict[str, Any] = {"failure_reason": "Workflow run exceeded max elapsed runtime limit of 2 minutes."}
OTHER: dict[str, Any] = {"failure_reason": "the page is gone"}


def ended(status: str = "completed", steps: int = 9, **more: Any) -> tuple[Any, ...]:
    """Plan a run that has used so many steps; the fake says of each that it took 7 s."""
    return ("running", {"status": status, "step_count": steps, **more})


def last_line(task_log: TaskLog) -> str:
    return [line for line in task_log().splitlines() if "Skyvern run" in line][-1]


def acted(*orders: int) -> list[dict[str, Any]]:
    return [{"action_type": "click", "step_order": order} for order in orders]


def test_the_last_line_of_the_log_says_what_the_run_has_cost(
    skyvern: FakeSkyvern, task_log: TaskLog, *, deferrable: bool
) -> None:
    plan = ended(credits_used=30, cached_credits_used=4)
    value = run_task(lambda: make(skyvern.workflow(plan=plan), deferrable=deferrable, return_run=True))
    assert (value["steps"], value["credits"]) == (9, 34)
    assert f"Skyvern run {value['run_id']}: completed, used 9 steps, 34 credits" in last_line(task_log)


def test_a_run_that_failed_says_it_too(skyvern: FakeSkyvern, task_log: TaskLog, *, deferrable: bool) -> None:
    workflow = skyvern.workflow(plan=ended("failed", steps=1), **OTHER)
    with pytest.raises(Exception, match="the page is gone"):
        run_task(lambda: make(workflow, deferrable=deferrable))
    assert ": failed, used 1 step" in last_line(task_log)


@pytest.mark.slow
def test_a_run_that_is_canceled_at_the_deadline_says_it_too(skyvern: FakeSkyvern, task_log: TaskLog) -> None:
    workflow = skyvern.workflow(plan=({"status": "running", "step_count": 4},))
    with pytest.raises(SkyvernWaitTimeout):
        run_task(lambda: make(workflow, timeout=0.1))
    assert ": canceled, used 4 steps" in last_line(task_log)


def test_a_sensor_says_it_too(skyvern: FakeSkyvern, task_log: TaskLog, *, deferrable: bool) -> None:
    run_id = skyvern.run(plan=ended(credits_used=30))
    run_task(lambda: SkyvernRunSensor(task_id="t", run_id=run_id, poke_interval=0.01, deferrable=deferrable))
    assert ": completed, used 9 steps, 30 credits" in last_line(task_log)


@pytest.mark.slow
def test_credits_that_come_with_a_large_output_are_not_read(skyvern: FakeSkyvern, task_log: TaskLog) -> None:
    output = {"b_output": {"text": "word " * 2**20}}
    run_task(lambda: make(skyvern.workflow(plan=ended(credits_used=30), output=output)))
    assert ": completed, used 9 steps" in last_line(task_log)
    assert "credits" not in last_line(task_log)


def test_what_it_has_cost_is_asked_once_and_never_fails_the_task(skyvern: FakeSkyvern, task_log: TaskLog) -> None:
    skyvern.next("GET", COST, httpx.Response(500, json={"error": "Unexpected error: x"}))
    value = run_task(lambda: make(skyvern.workflow(plan=ended()), return_run=True))
    assert (value["steps"], value["credits"]) == (9, None)
    assert len(skyvern.sent("GET", COST)) == 1
    assert "used 9 steps" in task_log()


def test_a_run_without_steps_is_not_asked_for(skyvern: FakeSkyvern, task_log: TaskLog) -> None:
    run_task(lambda: make(skyvern.workflow()))
    assert skyvern.sent("GET", COST) == []
    assert "used" not in task_log()


def test_both_limits_have_arguments_of_their_own(skyvern: FakeSkyvern) -> None:
    run_task(lambda: make(skyvern.workflow(), max_steps=7, max_elapsed_time_minutes="30"))
    [start] = skyvern.sent("POST", START)
    assert start.headers["x-max-steps-override"] == "7"
    assert start.json["max_elapsed_time_minutes"] == 30


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({"max_steps": 0}, "run_options.max_steps: Input should be greater than or equal to 1"),
        ({"max_elapsed_time_minutes": 481}, "run_options.max_elapsed_time_minutes: .* less than or equal to 480"),
        ({"max_steps": 5, "run_options": {"max_steps": 6}}, "max_steps: is in run_options, too; give it once"),
        (
            {"max_elapsed_time_minutes": 5, "run_options": "{{ params.o }}"},
            "max_elapsed_time_minutes: run_options is a template; put",
        ),
    ],
)
def test_wrong_limits_are_named_when_the_dag_is_parsed(arguments: dict[str, Any], problem: str) -> None:
    with pytest.raises(SkyvernConfigError, match=f"Task 't': {problem}"):
        make("wpid_1", **arguments)


@pytest.mark.parametrize(
    ("ending", "limits", "kind", "advice"),
    [
        (ended("failed", **STEPS), {"max_steps": 3}, SkyvernStepLimitReached, "limit of steps: raise max_steps"),
        (
            ended("failed", **STEPS),
            {"run_options": {"max_steps": 3}},
            SkyvernStepLimitReached,
            "limit of steps: raise max_steps",
        ),
        (
            ended("timed_out", **TIME),
            {"max_elapsed_time_minutes": 2},
            SkyvernTimeLimitReached,
            "limit of time: raise max_elapsed_time_minutes",
        ),
        (
            ended("timed_out", **OTHER),  # in words that no server is known to use
            {"max_elapsed_time_minutes": 2},
            SkyvernTimeLimitReached,
            "limit of time: raise max_elapsed_time_minutes",
        ),
    ],
)
def test_a_run_that_reached_a_limit_of_its_task_is_not_retried_into_it(
    skyvern: FakeSkyvern, ending: Any, limits: Any, kind: type[Exception], advice: str, *, deferrable: bool
) -> None:
    workflow = skyvern.workflow(plan=ending)
    with pytest.raises(AirflowFailException, match=advice) as caught:
        run_task(lambda: make(workflow, deferrable=deferrable, retries=3, **limits))
    assert "Not retried: the next run would have the same max_" in str(caught.value)
    assert isinstance(caught.value.__cause__, kind)
    assert len(skyvern.runs) == 1


@pytest.mark.parametrize(
    ("ending", "kind"),
    [(ended("failed", **STEPS), SkyvernStepLimitReached), (ended("timed_out", **TIME), SkyvernTimeLimitReached)],
)
@pytest.mark.parametrize(
    ("limits", "policy"), [({}, None), ({"max_steps": 3, "max_elapsed_time_minutes": 2}, "theirs")]
)
def test_a_limit_of_the_workflow_or_a_policy_of_the_author_keeps_the_retries(
    skyvern: FakeSkyvern, ending: Any, kind: type[Exception], limits: Any, policy: Any
) -> None:
    workflow = skyvern.workflow(plan=ending)

    def made() -> Any:
        operator = make(workflow, retries=3, **limits)
        if policy:
            operator.retry_policy = policy
        return operator

    with pytest.raises(kind, match="It reached its limit"):
        run_task(made)


def test_a_failure_for_another_reason_keeps_its_class_and_its_retries(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=ended("failed", **OTHER))
    with pytest.raises(Exception, match="the page is gone") as caught:
        run_task(lambda: make(workflow, retries=3, max_steps=20, max_elapsed_time_minutes=2))
    assert type(caught.value).__name__ == "SkyvernRunFailed"


@pytest.mark.parametrize(
    ("steps", "blocks", "warns"),
    [
        (8, (), True),
        (7, (), False),
        (16, (acted(0, 1, 7), acted(0, 1)), True),  # the limit is each block's
        (16, (acted(0, 6), acted(0, 6)), False),
    ],
)
def test_steps_near_their_limit_are_warned_of(
    skyvern: FakeSkyvern, task_log: TaskLog, steps: int, blocks: Any, *, warns: bool, deferrable: bool
) -> None:
    known = [{"label": f"b{number}", "block_type": "navigation", "actions": own} for number, own in enumerate(blocks)]
    workflow = skyvern.workflow(plan=ended(steps=steps), blocks=known)
    run_task(lambda: make(workflow, deferrable=deferrable, max_steps=10))
    assert ("took 8 of max_steps=10 steps; the next one may reach it, and fail" in task_log()) is warns


@pytest.mark.parametrize(("seconds", "warns"), [(96, True), (95, False)])
def test_a_time_near_its_limit_is_warned_of(
    skyvern: FakeSkyvern, task_log: TaskLog, seconds: int, *, warns: bool, deferrable: bool
) -> None:
    times: dict[str, Any] = {
        "started_at": "2026-11-22T20:00:00",
        "finished_at": f"2026-11-22T20:01:{seconds - 60:02}",
    }
    workflow = skyvern.workflow(plan=ended(**times))
    run_task(lambda: make(workflow, deferrable=deferrable, max_elapsed_time_minutes=2))
    assert ("took 1 min 36 s of max_elapsed_time_minutes=2" in task_log()) is warns


def test_a_prompt_has_the_same_limits(skyvern: FakeSkyvern) -> None:
    skyvern.created_plan = ended("failed", **STEPS)
    given: dict[str, Any] = {"task_id": "t", "prompt": "read", "poll_interval": 0.01, "timeout": 20}
    with pytest.raises(AirflowFailException, match="the same max_steps"):
        run_task(
            lambda: SkyvernRunPromptOperator(**given, max_steps=3, max_elapsed_time_minutes=4), FakeTaskInstance()
        )
    assert skyvern.sent("POST", START)[0].json["max_elapsed_time_minutes"] == 4


def times(text: str, log: str) -> float:
    """How often something was logged; Airflow 2's log is read from two places, with the one line of the end."""
    return log.count(text) / log.count(": completed after")


LONG_AGO = {"status": "running", "started_at": "2026-11-22T20:00:00"}


@pytest.mark.slow
def test_a_run_that_has_used_most_of_its_time_is_warned_of_while_it_goes_on(
    skyvern: FakeSkyvern, task_log: TaskLog, *, deferrable: bool
) -> None:
    workflow = skyvern.workflow(plan=(LONG_AGO, LONG_AGO, LONG_AGO, "completed"))
    run_task(lambda: make(workflow, deferrable=deferrable, max_elapsed_time_minutes=60))
    warning = "has used 80 % of max_elapsed_time_minutes=60; Skyvern ends it when that is over"
    assert times(warning, task_log()) == 1


@pytest.mark.parametrize("limits", [{}, {"max_steps": 5}])
def test_without_a_limit_of_time_there_is_no_such_warning(
    skyvern: FakeSkyvern, task_log: TaskLog, limits: dict[str, Any], *, deferrable: bool
) -> None:
    run_task(lambda: make(skyvern.workflow(plan=(LONG_AGO, "completed")), deferrable=deferrable, **limits))
    assert "has used 80 %" not in task_log()


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "warnings"), [(8, 1), (7, 0)])
def test_a_prompt_that_waits_in_its_worker_is_warned_of_its_steps(
    skyvern: FakeSkyvern, task_log: TaskLog, steps: int, warnings: int
) -> None:
    going = {"status": "running", "step_count": steps}
    read = {"task_id": "tsk_1", "status": "completed", "extracted_information": "three"}
    skyvern.created_output = {"task_output": read}
    skyvern.created_plan = (going, going, {"status": "completed", "step_count": steps})
    given: dict[str, Any] = {"task_id": "t", "prompt": "read", "poll_interval": 0.01, "timeout": 20}
    run_task(lambda: SkyvernRunPromptOperator(**given, max_steps=10, deferrable=False), FakeTaskInstance())
    assert times(f": is at step {steps} of max_steps=10", task_log()) == warnings


def test_the_sum_of_several_blocks_is_no_reason_to_warn(skyvern: FakeSkyvern, task_log: TaskLog) -> None:
    going = {"status": "running", "step_count": 30}
    run_task(lambda: make(skyvern.workflow(plan=(going, "completed")), deferrable=False, max_steps=10))
    assert "is at step" not in task_log()
