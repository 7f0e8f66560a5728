from __future__ import annotations

import json
import os
import sys
import time
from datetime import datetime, timedelta, timezone
from typing import Any

import httpx
import pytest

from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.compat.sdk import (
    AirflowException,
    TaskDeferred,
)
from airflow_skyvern.exceptions import (
    SkyvernError,
    SkyvernWaitTimeout,
)
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.task.deferral import BACKSTOP
from airflow_skyvern.testing.fake.skyvern import API_KEY, FakeSkyvern
from tests.support.run_workflow_tasks import CANCEL, LOOK, START, execute, fail, make
from tests.support.tasks import FakeTaskInstance, context_of, deferral, resumed


def test_the_visits_of_a_worker_cost_few_requests_and_one_look_at_the_connection_each(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[str] = []

    class Env(dict[str, str]):
        def get(self, key: str, default: Any = None) -> Any:
            looked_up.append(key)
            return super().get(key, default)

    ti, workflow = FakeTaskInstance(), skyvern.workflow(plan=("completed",), output={"sum": 1})
    monkeypatch.setattr("os.environ", Env(os.environ))
    deferred = deferral(make(workflow, deferrable=True), ti)
    assert [(seen.method, seen.path) for seen in skyvern.requests] == [("POST", START)]
    assert looked_up.count("AIRFLOW_CONN_SKYVERN_DEFAULT") == 1
    skyvern.requests.clear()
    looked_up.clear()
    run_id = ti.xcoms["run_id"]
    event = {"run_id": run_id, "reason": "ended", "status": "completed", "message": None}
    assert resumed(make(workflow), deferred, event, context_of(ti)) == {"sum": 1}
    search_for_twins = ("GET", "/v1/runs")
    assert [(seen.method, seen.path) for seen in skyvern.requests] == [
        ("GET", f"/v1/runs/{run_id}"),
        search_for_twins,
    ]
    assert looked_up.count("AIRFLOW_CONN_SKYVERN_DEFAULT") == 1


def test_a_deferral_says_what_the_trigger_needs_and_no_secret(skyvern: FakeSkyvern) -> None:
    before = time.time()
    deferred = deferral(make(skyvern.workflow(), deferrable=True, poll_interval=7, timeout=600))
    [run_id] = skyvern.runs
    _, kwargs = deferred.trigger.serialize()
    assert (kwargs["run_id"], kwargs["poll_interval"]) == (run_id, 7.0)
    assert before + 600 <= kwargs["deadline"] <= time.time() + 600
    note = {
        "run_id": run_id,
        "skyvern_conn_id": "skyvern_default",
        "app_url": f"http://localhost:8080/runs/{run_id}",
        "group": skyvern.runs[run_id].tags["airflow_key"],
    }
    assert deferred.kwargs == {"deadline": kwargs["deadline"], "try_number": 1, "skyvern": note}
    assert deferred.method_name == "execute_complete"
    assert deferred.timeout is not None
    assert timedelta(seconds=595) + BACKSTOP < deferred.timeout <= timedelta(seconds=600) + BACKSTOP
    assert API_KEY not in json.dumps(kwargs)


def test_the_deadline_leaves_time_before_the_execution_timeout(skyvern: FakeSkyvern) -> None:
    operator = make(skyvern.workflow(), deferrable=True, timeout=3600, execution_timeout=timedelta(minutes=10))
    _, kwargs = deferral(operator).trigger.serialize()
    assert kwargs["deadline"] == pytest.approx(time.time() + 570, abs=5)


def test_the_execution_timeout_counts_from_the_start_of_the_task(skyvern: FakeSkyvern) -> None:
    ti = FakeTaskInstance()
    ti.start_date = datetime.now(timezone.utc) - timedelta(minutes=2)
    operator = make(skyvern.workflow(), deferrable=True, timeout=3600, execution_timeout=timedelta(minutes=10))
    _, kwargs = deferral(operator, ti).trigger.serialize()
    assert kwargs["deadline"] == pytest.approx(time.time() + 450, abs=5)


def test_a_start_that_took_the_whole_execution_timeout_cancels_at_once(skyvern: FakeSkyvern) -> None:
    ti = FakeTaskInstance()
    ti.start_date = datetime.now(timezone.utc) - timedelta(seconds=35)
    operator = make(skyvern.workflow(plan=("running",)), deferrable=True, execution_timeout=timedelta(minutes=1))
    with pytest.raises(SkyvernWaitTimeout, match="it is canceled now"):
        execute(operator, ti)


@pytest.mark.parametrize("event", [None, {}, "ended", {"run_id": "wr_1", "reason": None}, {"reason": "ended"}])
def test_a_missing_or_malformed_event_fails_loudly(skyvern: FakeSkyvern, event: Any) -> None:
    workflow = skyvern.workflow(plan=("completed",))
    deferred = deferral(make(workflow, deferrable=True))
    with pytest.raises(SkyvernError, match="without a valid event"):
        resumed(make(workflow), deferred, event, context_of(FakeTaskInstance()))


@pytest.mark.parametrize(("max_tries", "canceled"), [(0, 1), (1, 0)])
@pytest.mark.parametrize("noted", [True, False], ids=["noted in the deferral", "deferred by an older version"])
def test_an_invalid_event_cancels_the_run_unless_a_retry_will_resume_it(
    skyvern: FakeSkyvern, *, noted: bool, max_tries: int, canceled: int
) -> None:
    workflow = skyvern.workflow(plan=("running",))
    ti = FakeTaskInstance()
    ti.max_tries = max_tries
    deferred = deferral(make(workflow, deferrable=True), ti)
    assert deferred.kwargs is not None
    if not noted:
        del deferred.kwargs["skyvern"]
    with pytest.raises(SkyvernError, match="without a valid event"):
        resumed(make(workflow), deferred, {"reason": "unheard of"}, context_of(ti))
    assert len(skyvern.sent("POST", CANCEL)) == canceled


def test_a_trigger_that_gave_up_is_replaced_by_the_worker(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("running", "completed"), output={"sum": 1})
    deferred = deferral(make(workflow, deferrable=True))
    [run_id] = skyvern.runs
    event = {"run_id": run_id, "reason": "error", "status": None, "message": "the key did not work there"}
    assert resumed(make(workflow), deferred, event, context_of(FakeTaskInstance())) == {"sum": 1}


@pytest.mark.slow
def test_the_result_of_a_run_that_is_over_is_fetched_with_patience(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("completed",), output={"sum": 1})
    deferred = deferral(make(workflow, deferrable=True, timeout=0.001))
    [run_id] = skyvern.runs
    skyvern.next("GET", LOOK, *[httpx.Response(503)] * 6)
    operator = make(workflow)
    operator.hook = SkyvernHook(retry=RetryPolicy(attempts=2, base=0))
    time.sleep(0.002)
    event = {"run_id": run_id, "reason": "ended", "status": "completed", "message": None}
    assert resumed(operator, deferred, event, context_of(FakeTaskInstance())) == {"sum": 1}


@pytest.mark.parametrize("map_index", [-1, 2])
@pytest.mark.parametrize("error", ["Trigger timeout", "Trigger/execution timeout"])
def test_a_deferral_that_airflow_timed_out_cancels_the_run(skyvern: FakeSkyvern, map_index: int, error: str) -> None:
    workflow = skyvern.workflow(plan=("running",))
    ti = FakeTaskInstance(map_index=map_index)
    deferral(make(workflow, deferrable=True), ti)
    with pytest.raises(SkyvernWaitTimeout, match="it is canceled now"):
        fail(make(workflow), ti, error)
    assert len(skyvern.sent("POST", CANCEL)) == 1


@pytest.mark.slow
def test_a_trigger_that_failed_leaves_the_run_alone_and_is_replaced_by_another(skyvern: FakeSkyvern) -> None:
    """Its class cannot be loaded during a rolling deployment, for example."""
    workflow = skyvern.workflow(plan=("running",))
    ti = FakeTaskInstance()
    first = deferral(make(workflow, deferrable=True), ti)
    operator = make(workflow, deferrable=True)
    operator.trigger_failed_wait = 0.05  # type: ignore[misc]  # of this object only
    with pytest.raises(TaskDeferred) as again:
        fail(operator, ti, "Trigger failure")
    assert again.value.trigger.serialize()[1]["run_id"] == first.trigger.serialize()[1]["run_id"]
    assert skyvern.sent("POST", CANCEL) == []


def test_a_task_whose_trigger_cannot_be_imported_starts_nothing(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "airflow_skyvern.triggers", None)
    with pytest.raises(ImportError):
        execute(make(skyvern.workflow(), deferrable=True))
    assert skyvern.requests == []


def test_a_worker_finishes_what_a_failed_trigger_did_not(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("running", "completed"), output={"sum": 1})
    ti = FakeTaskInstance()
    deferral(make(workflow, deferrable=True), ti)
    assert fail(make(workflow, deferrable=True), ti, "Trigger failure") == {"sum": 1}


def test_a_failed_trigger_does_not_move_the_deadline(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("running",))
    ti = FakeTaskInstance()
    ti.start_date = datetime.now(timezone.utc) - timedelta(hours=2)
    deferral(make(workflow, deferrable=True), ti)
    with pytest.raises(SkyvernWaitTimeout, match="it is canceled now"):
        fail(make(workflow, deferrable=True, execution_timeout=timedelta(hours=1)), ti, "Trigger failure")


def test_a_run_that_completed_without_an_event_is_not_lost(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("completed",), output={"sum": 1})
    ti = FakeTaskInstance()
    deferral(make(workflow, deferrable=True), ti)
    assert fail(make(workflow), ti) == {"sum": 1}


def test_a_deferral_of_nothing_fails_as_airflow_says(skyvern: FakeSkyvern) -> None:
    with pytest.raises(AirflowException, match="Trigger timeout"):
        fail(make(), FakeTaskInstance())
    assert skyvern.requests == []
