from __future__ import annotations

import json
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from airflow.exceptions import AirflowRescheduleException
from airflow.triggers.base import BaseTrigger

from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.compat.sdk import (
    DAG,
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseOperator,
    TaskDeferred,
)
from airflow_skyvern.compat.since_3_0 import is_airflow_3
from airflow_skyvern.exceptions import SkyvernAuthError, SkyvernConfigError, SkyvernError, SkyvernRunFailed
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.sensors import SkyvernRunSensor
from airflow_skyvern.task.deferral import BACKSTOP
from airflow_skyvern.testing.fake.skyvern import API_KEY, FakeSkyvern
from airflow_skyvern.triggers.run import SkyvernSensorTrigger
from tests.support.tasks import FakeTaskInstance, context_of, deferral, rebuilt, resumed, run_task

if TYPE_CHECKING:
    from tests.unit.conftest import TaskLog

MODES: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke"},
    "reschedule": {"mode": "reschedule"},
    "deferrable": {"deferrable": True},
}


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> dict[str, Any]:
    return MODES[request.param]


def make(run_id: str = "wr_1", **more: Any) -> SkyvernRunSensor:
    given: dict[str, Any] = {"task_id": "t", "run_id": run_id, "poke_interval": 0.01, "timeout": 20, **more}
    sensor = SkyvernRunSensor(**given)
    sensor.hook = SkyvernHook(retry=RetryPolicy(attempts=2, base=0))
    return sensor


def wait(run_id: str, ti: FakeTaskInstance | None = None, **more: Any) -> Any:
    """Run a sensor to its end; a rescheduled one is another object in another process."""
    try:
        return run_task(lambda: make(run_id, **more), ti)
    except AirflowRescheduleException as rescheduled:
        time.sleep(max(0.0, rescheduled.reschedule_date.timestamp() - time.time()))
        return wait(run_id, ti, **more)


@pytest.mark.slow
def test_a_sensor_waits_for_a_run_and_returns_its_output(skyvern: FakeSkyvern, mode: dict[str, Any]) -> None:
    pending = {"status": "failed", "retry_pending": True}
    run_id = skyvern.run(plan=("queued", pending, "paused", "completed"), output={"sum": 1})
    skyvern.runs[run_id].continued = True
    ti = FakeTaskInstance()
    assert wait(run_id, ti, **mode) == {"sum": 1}
    assert ti.xcoms == {"run_id": run_id, "app_url": f"http://localhost:8080/runs/{run_id}"}


def test_the_run_is_published_at_the_first_look(skyvern: FakeSkyvern, mode: dict[str, Any]) -> None:
    run_id = skyvern.run(plan=("running", "completed"))
    ti = FakeTaskInstance()
    asked: dict[str, int] = {}
    ti.on_push = lambda key: asked.setdefault(key, len(skyvern.requests))
    wait(run_id, ti, **mode)
    assert asked == {"run_id": 1, "app_url": 1}


@pytest.mark.parametrize("soft_fail", [False, True])
@pytest.mark.parametrize(
    ("situation", "hard", "soft"),
    [
        ("failed", AirflowFailException, AirflowSkipException),
        ("timeout", AirflowSensorTimeout, AirflowSkipException),
        ("wrong key", AirflowFailException, AirflowFailException),
        ("unknown run", AirflowFailException, AirflowFailException),
    ],
)
def test_what_soft_fail_skips_and_what_it_does_not(
    skyvern: FakeSkyvern,
    mode: dict[str, Any],
    *,
    soft_fail: bool,
    situation: str,
    hard: type[Exception],
    soft: type[Exception],
) -> None:
    plan = ("running", "failed") if situation == "failed" else ("running",)
    run_id = "wr_123" if situation == "unknown run" else skyvern.run(plan=plan, failure_reason="no stock")
    skyvern.api_key = "another" if situation == "wrong key" else API_KEY
    timeout = 1e-6 if situation == "timeout" else 20
    with pytest.raises((AirflowFailException, AirflowSensorTimeout, AirflowSkipException)) as caught:
        wait(run_id, soft_fail=soft_fail, timeout=timeout, **mode)
    assert type(caught.value) is (soft if soft_fail else hard)
    assert skyvern.sent("POST", ".*") == []


def test_soft_fail_says_why_it_skips_also_when_the_run_was_over_before(
    skyvern: FakeSkyvern, mode: dict[str, Any]
) -> None:
    run_id = skyvern.run(plan=("failed",), failure_reason="no stock")
    with pytest.raises(AirflowSkipException, match="no stock"):
        wait(run_id, soft_fail=True, **mode)


def test_the_error_of_a_bad_ending_has_the_run_as_its_cause(skyvern: FakeSkyvern, mode: dict[str, Any]) -> None:
    run_id = skyvern.run(plan=("running", "failed"), failure_reason="no stock")
    with pytest.raises(AirflowFailException, match=r"ended as failed: no stock\. See http") as caught:
        wait(run_id, **mode)
    assert isinstance(caught.value.__cause__, SkyvernRunFailed)
    assert caught.value.__cause__.run is not None
    assert caught.value.__cause__.run.run_id == run_id


@pytest.mark.slow
@pytest.mark.parametrize("soft_fail", [False, True])
def test_a_key_that_stops_working_while_the_sensor_is_deferred_fails_it(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch, *, soft_fail: bool
) -> None:
    monkeypatch.setattr(SkyvernRunSensor, "confirmation", 0.1)
    run_id = skyvern.run(plan=("running",))
    deferred = deferral(make(run_id, deferrable=True))
    skyvern.api_key = "another"
    event = {"run_id": run_id, "reason": "error", "status": "running", "message": "403"}
    with pytest.raises(AirflowFailException, match="Could not validate credentials"):
        resumed(make(run_id, soft_fail=soft_fail), deferred, event, context_of(FakeTaskInstance()))


def rotated(skyvern: FakeSkyvern) -> None:
    """Let Skyvern have the next key before Airflow has it."""
    skyvern.api_key = "the-next-key"


def test_a_key_that_is_refused_for_a_while_does_not_fail_a_retry(skyvern: FakeSkyvern) -> None:
    run_id = skyvern.run(plan=("completed",))
    ti = FakeTaskInstance()
    ti.try_number, ti.max_tries = 2, 1
    sensor = make(run_id, retries=1)
    rotated(skyvern)
    assert sensor.poke(context_of(ti)) is False
    skyvern.api_key = API_KEY
    assert sensor.poke(context_of(ti))


@pytest.mark.skipif(not is_airflow_3(), reason="Airflow 2 asks its database")
def test_a_key_that_is_refused_for_a_while_does_not_fail_a_rescheduled_sensor(skyvern: FakeSkyvern) -> None:
    """Each poll is another process, which has not polled before."""
    run_id = skyvern.run(plan=("completed",))
    again: Any = {**context_of(FakeTaskInstance()), "task_reschedule_count": 1}
    rotated(skyvern)
    assert make(run_id, mode="reschedule").poke(again) is False
    with pytest.raises(SkyvernAuthError):
        make(run_id, mode="reschedule").poke(context_of(FakeTaskInstance()))
    skyvern.api_key = API_KEY
    assert make(run_id, mode="reschedule").poke(again)


@pytest.mark.slow
def test_one_404_at_resumption_does_not_fail_a_sensor(skyvern: FakeSkyvern) -> None:
    run_id = skyvern.run(plan=("running", "completed"), output={"sum": 1})
    deferred = deferral(make(run_id, deferrable=True))
    missing = httpx.Response(404, json={"detail": f"Task run not found {run_id}"})
    for reason in ("ended", "error"):
        skyvern.next("GET", f"/v1/runs/{run_id}", missing)
        event = {"run_id": run_id, "reason": reason, "status": None, "message": None}
        assert resumed(make(run_id), deferred, event, context_of(FakeTaskInstance())) == {"sum": 1}


def test_errors_that_may_pass_do_not_end_the_wait(skyvern: FakeSkyvern, mode: dict[str, Any]) -> None:
    run_id = skyvern.run(plan=("running", "completed"), output={"sum": 1})
    skyvern.next("GET", "/v1/runs/.*", *[httpx.Response(429)] * 2)
    assert wait(run_id, **mode) == {"sum": 1}


def test_a_look_that_fails_for_good_is_a_miss_and_not_the_end(skyvern: FakeSkyvern) -> None:
    run_id = skyvern.run(plan=("completed",))
    skyvern.next("GET", "/v1/runs/.*", httpx.Response(503, headers={"retry-after": "60"}))
    sensor = make(run_id)
    assert sensor.poke(context_of(FakeTaskInstance())) is False
    assert sensor.poke(context_of(FakeTaskInstance()))


def test_a_deferral_says_what_the_trigger_needs_and_no_secret(skyvern: FakeSkyvern) -> None:
    run_id = skyvern.run(plan=("running",))
    deferred = deferral(make(run_id, deferrable=True, poke_interval=7, timeout=600))
    _, kwargs = deferred.trigger.serialize()
    assert kwargs == {
        "run_id": run_id,
        "skyvern_conn_id": "skyvern_default",
        "poll_interval": 7.0,
        "deadline": pytest.approx(time.time() + 600, abs=5),
        "cancel_on_kill": False,
        "pause_known": None,
        "run_known": True,
    }
    note = {"run_id": run_id, "skyvern_conn_id": "skyvern_default", "app_url": None}
    assert deferred.kwargs == {"deadline": kwargs["deadline"], "run_known": True, "skyvern": note}
    assert deferred.timeout is not None
    assert timedelta(seconds=595) + BACKSTOP < deferred.timeout <= timedelta(seconds=600) + BACKSTOP
    assert API_KEY not in json.dumps(kwargs)


@pytest.mark.parametrize("event", [None, {}, {"run_id": "wr_1", "reason": None}])
def test_a_missing_or_malformed_event_fails_loudly(skyvern: FakeSkyvern, event: Any) -> None:
    run_id = skyvern.run(plan=("running", "completed"))
    deferred = deferral(make(run_id, deferrable=True))
    with pytest.raises((AirflowFailException, SkyvernError), match="without a valid event"):
        resumed(make(run_id), deferred, event, context_of(FakeTaskInstance()))


def failed_trigger(sensor: SkyvernRunSensor, ti: FakeTaskInstance | None = None, seconds: float = 0.03) -> Any:
    """Resume a sensor whose trigger has failed, and which polls for these seconds."""
    sensor.trigger_failed_wait = seconds  # type: ignore[misc]  # of this object only
    return sensor.resume_execution("__fail__", {"error": "Trigger failure"}, context_of(ti or FakeTaskInstance()))


def test_a_trigger_that_failed_is_replaced_by_another(skyvern: FakeSkyvern) -> None:
    """Its class cannot be loaded during a rolling deployment, for example."""
    run_id = skyvern.run(plan=("running",))
    with pytest.raises(TaskDeferred) as again:
        failed_trigger(make(run_id, deferrable=True))
    _, kwargs = again.value.trigger.serialize()
    assert (kwargs["run_id"], kwargs["run_known"]) == (run_id, True)


def test_a_worker_finishes_what_a_failed_trigger_did_not(skyvern: FakeSkyvern) -> None:
    run_id = skyvern.run(plan=("running", "completed"), output={"sum": 1})
    assert failed_trigger(make(run_id, deferrable=True), seconds=20.0) == {"sum": 1}


def test_a_failed_trigger_does_not_make_the_time_longer(skyvern: FakeSkyvern) -> None:
    ti = FakeTaskInstance()
    ti.start_date = datetime.now(timezone.utc) - timedelta(seconds=30)
    with pytest.raises(AirflowSensorTimeout, match="did not end within 20"):
        failed_trigger(make(skyvern.run(plan=("running",)), deferrable=True), ti)


def test_a_deferral_that_airflow_timed_out_is_not_begun_again(skyvern: FakeSkyvern) -> None:
    sensor = make(skyvern.run(plan=("running",)), deferrable=True)
    with pytest.raises(AirflowException, match=r"(?i)timeout"):
        sensor.resume_execution("__fail__", {"error": "Trigger timeout"}, context_of(FakeTaskInstance()))


def test_a_run_that_is_over_is_not_deferred_for(skyvern: FakeSkyvern) -> None:
    run_id = skyvern.run(plan=("completed",), output={"sum": 1})
    assert make(run_id, deferrable=True).execute(context_of(FakeTaskInstance())) == {"sum": 1}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"run_id": ""}, "Task 't': run_id is empty"),
        ({"poke_interval": 0}, "poke_interval must be a positive number"),
        ({"poke_interval": timedelta(-1)}, "poke_interval must be a positive number"),
    ],
)
def test_a_mistake_is_found_when_the_dag_is_parsed(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SkyvernConfigError, match=complaint):
        make(**arguments)


def test_durations_may_be_timedeltas() -> None:
    sensor = make(poke_interval=timedelta(seconds=5), timeout=timedelta(minutes=1))
    assert sensor.poke_interval == 5.0
    assert sensor.template_fields[:2] == ("run_id", "skyvern_conn_id")


def early(run_id: Any = "wr_1", **more: Any) -> SkyvernRunSensor:
    return make(run_id, start_from_trigger=True, **more)


needs_early_starts = pytest.mark.skipif(
    not hasattr(BaseTrigger, "render_template_fields"), reason="Airflow 3.3 starts sensors in the triggerer"
)


@needs_early_starts
def test_a_sensor_tells_airflow_how_to_start_it_in_the_triggerer() -> None:
    sensor = early("{{ params.run }}", timeout=600, poke_interval=7, soft_fail=True, end_from_trigger=True)
    assert sensor.start_from_trigger
    started = sensor.start_trigger_args
    assert started is not None
    assert (started.trigger_cls, started.next_method) == (
        "airflow_skyvern.triggers.SkyvernSensorTrigger",
        "execute_complete",
    )
    assert started.timeout == timedelta(seconds=600) + BACKSTOP
    assert started.trigger_kwargs == {
        "run_id": "{{ params.run }}",
        "skyvern_conn_id": "skyvern_default",
        "poll_interval": 7.0,
        "timeout": 600.0,
        "backstop": 300.0,
        "end_from_trigger": True,
        "soft_fail": True,
    }
    json.dumps(started.trigger_kwargs)
    with_blocks = early(log_blocks=True).start_trigger_args
    assert with_blocks is not None
    assert (with_blocks.trigger_kwargs or {})["log_blocks"] is True


@needs_early_starts
def test_a_sensor_that_starts_in_the_triggerer_ends_before_its_execution_timeout() -> None:
    started = early(timeout=600, execution_timeout=timedelta(seconds=100)).start_trigger_args
    assert started is not None
    assert started.timeout == timedelta(seconds=100)
    assert started.trigger_kwargs is not None
    assert (started.trigger_kwargs["timeout"], started.trigger_kwargs["backstop"]) == (70.0, 30.0)


@needs_early_starts
def test_the_output_of_another_task_is_pulled_in_the_form_that_does_not_hang() -> None:
    with DAG("d", schedule=None):
        start = SkyvernRunWorkflowOperator(task_id="start", workflow_id="wpid_1", wait_for_completion=False)
        sensor = early(start.output)
        assert sensor.start_trigger_args is not None
        assert sensor.start_trigger_args.trigger_kwargs is not None
        assert sensor.start_trigger_args.trigger_kwargs["run_id"] == (
            "{{ ti.xcom_pull(task_ids='start', key='return_value', map_indexes=-1) }}"
        )
        assert sensor.upstream_task_ids == {"start"}
        elsewhere = early(skyvern_conn_id=start.output, task_id="t2").start_trigger_args
        assert elsewhere is not None
        json.dumps(elsewhere.trigger_kwargs)  # as Airflow stores it with the DAG


@needs_early_starts
def test_a_run_id_that_a_trigger_cannot_render_is_waited_for_as_usual() -> None:
    with DAG("d", schedule=None):
        mapped = SkyvernRunWorkflowOperator.partial(task_id="s", wait_for_completion=False).expand(
            workflow_id=["wpid_1", "wpid_2"]
        )
        assert not early(mapped.output).start_from_trigger
        start = SkyvernRunWorkflowOperator(task_id="t1", workflow_id="wpid_1", wait_for_completion=False)
        assert not early(start.output.map(str), task_id="t2").start_from_trigger


def test_early_starts_are_checked_when_the_dag_is_parsed() -> None:
    with pytest.raises(SkyvernConfigError, match="end_from_trigger needs start_from_trigger=True"):
        make(end_from_trigger=True)
    if hasattr(BaseTrigger, "render_template_fields"):
        with pytest.raises(SkyvernConfigError, match="hangs at this xcom_pull"):
            early("{{ ti.xcom_pull(task_ids='start') }}")
        assert early("{{ ti.xcom_pull(task_ids='start', map_indexes=-1) }}").start_from_trigger


def test_on_a_worker_such_a_sensor_defers_and_says_why(skyvern: FakeSkyvern, task_log: TaskLog) -> None:
    run_id = skyvern.run(plan=("running",))
    deferral(early(run_id, end_from_trigger=True))
    assert "start_from_trigger needs Airflow 3.3" in task_log()


ENDS = [
    ({}, "completed", "TriggerEvent"),
    ({"end_from_trigger": True}, "completed", "TaskSuccessEvent"),
    ({"end_from_trigger": True}, "failed", "TaskFailedEvent"),
    ({"end_from_trigger": True, "soft_fail": True}, "failed", "TaskSkippedEvent"),
    ({"end_from_trigger": True, "soft_fail": True}, "running", "TaskSkippedEvent"),
    ({"end_from_trigger": True}, "running", "TriggerEvent"),
    ({"end_from_trigger": True, "soft_fail": True}, "unknown", "TriggerEvent"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("more", "status", "kind"), ENDS)
async def test_how_the_trigger_of_such_a_sensor_ends(
    skyvern: FakeSkyvern, *, more: dict[str, bool], status: str, kind: str
) -> None:
    run_id = "wr_123" if status == "unknown" else skyvern.run(plan=(status,))
    trigger = SkyvernSensorTrigger(run_id, "skyvern_default", 0.01, 60.0, backstop=300.0, **more)
    again = rebuilt(trigger)
    again.timeout_after = datetime.now(timezone.utc) + timedelta(seconds=300.2 if status == "running" else 360)
    events = [event async for event in again.run()]
    assert [type(event).__name__ for event in events] == [kind]


@pytest.mark.parametrize("reason", ["ended", "deadline", "error"])
def test_a_worker_that_resumes_such_a_sensor_publishes_the_run(skyvern: FakeSkyvern, reason: str) -> None:
    run_id = skyvern.run(plan=("completed",), output={"sum": 1})
    ti = FakeTaskInstance()
    event = {"run_id": run_id, "reason": reason, "status": None, "message": None}
    assert early(run_id).execute_complete(context_of(ti), event) == {"sum": 1}
    assert ti.xcoms == {"run_id": run_id, "app_url": f"http://localhost:8080/runs/{run_id}"}
    assert len(skyvern.requests) == 1


def test_time_that_is_up_is_up_for_the_worker_too(skyvern: FakeSkyvern) -> None:
    run_id = skyvern.run(plan=("running",))
    event = {"run_id": run_id, "reason": "deadline", "status": "running", "message": None}
    with pytest.raises(AirflowSensorTimeout):
        early(run_id).execute_complete(context_of(FakeTaskInstance()), event)
    assert len(skyvern.requests) == 1


@pytest.mark.parametrize("run_id", [None, "None", 7])
def test_a_run_id_that_another_task_has_not_pushed_fails_by_name(run_id: Any) -> None:
    sensor = SkyvernRunSensor(task_id="t", run_id="{{ the_xcom }}")
    sensor.run_id = run_id
    with pytest.raises(AirflowFailException, match=r"run_id: is .*has not pushed it"):
        sensor.execute(context_of(FakeTaskInstance()))


@pytest.mark.parametrize("way", [{"deferrable": True}, {"mode": "reschedule"}, {"start_from_trigger": True}])
def test_a_sensor_inside_another_task_refuses_to_wait_without_its_worker(
    skyvern: FakeSkyvern, way: dict[str, Any]
) -> None:
    """Airflow would resume, or begin again, the outer task."""
    sensor = make(skyvern.run(), **way)
    context = context_of(FakeTaskInstance())
    context["ti"].task = BaseOperator(task_id="outer")
    with pytest.raises(AirflowFailException, match="inside task 'outer', and there it cannot wait"):
        sensor.execute(context)
    assert skyvern.requests == []


def test_a_sensor_inside_another_task_may_wait_on_its_worker(skyvern: FakeSkyvern) -> None:
    context = context_of(FakeTaskInstance())
    context["ti"].task = BaseOperator(task_id="outer")
    make(skyvern.run(plan=("completed",)), mode="poke").execute(context)
