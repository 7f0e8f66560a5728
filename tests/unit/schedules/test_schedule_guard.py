"""The guard lets a scheduled DAG run through just when Skyvern does not fire it."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.compat.sdk import AirflowException, AirflowSkipException
from airflow_skyvern.exceptions import SkyvernServerError
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.schedules.guard import SkyvernScheduleGuard

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.schedules import Schedule
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

TICK = datetime(2026, 11, 24, 1, 30, tzinfo=timezone.utc)
EARLIER, LATER = TICK - timedelta(hours=1), TICK + timedelta(seconds=30)


@pytest.fixture
def made(skyvern: FakeSkyvern) -> Schedule:
    return skyvern.schedule(skyvern.workflow(), created_at=EARLIER, modified_at=EARLIER)


def goes_on(made: Schedule, run_type: Any = "scheduled", **context: Any) -> bool:
    guard = SkyvernScheduleGuard(task_id="guard", workflow_id=made.workflow.workflow_id, schedule_id=made.schedule_id)
    times = {"logical_date": TICK, "data_interval_end": TICK, **context}
    try:
        guard.execute({"dag_run": SimpleNamespace(run_type=run_type), **times})  # type: ignore[typeddict-item]
    except AirflowSkipException:
        return False
    return True


@pytest.mark.parametrize(
    ("enabled", "modified_at", "fired", "airflows_turn"),
    [
        (True, EARLIER, False, False),
        (True, EARLIER, True, False),
        (True, TICK, False, False),
        (False, EARLIER, False, True),
        (False, EARLIER, True, True),
        (True, LATER, False, True),
        (True, LATER, True, False),
        (False, LATER, False, True),
        (False, LATER, True, False),
    ],
)
def test_each_tick_has_one_owner(
    skyvern: FakeSkyvern,
    made: Schedule,
    enabled: bool,
    modified_at: datetime,
    fired: bool,
    airflows_turn: bool,
) -> None:
    made.enabled, made.modified_at = enabled, modified_at
    skyvern.fire(made.schedule_id, EARLIER)
    skyvern.fire(skyvern.schedule(made.workflow.workflow_id).schedule_id, LATER)
    if fired:
        skyvern.fire(made.schedule_id, LATER)
    assert goes_on(made) is airflows_turn


@pytest.mark.parametrize("run_type", ["manual", "backfill", "asset_triggered"])
def test_runs_that_somebody_starts_always_go_on(skyvern: FakeSkyvern, made: Schedule, run_type: str) -> None:
    assert goes_on(made, run_type)
    assert goes_on(made, SimpleNamespace(value=run_type))
    assert not goes_on(made, SimpleNamespace(value="scheduled"))


def test_the_moment_is_the_end_of_the_interval(made: Schedule) -> None:
    made.enabled = False
    made.modified_at = LATER
    assert goes_on(made, data_interval_end=LATER, logical_date=EARLIER)
    assert goes_on(made, data_interval_end=None, logical_date=LATER)


def test_a_schedule_that_is_gone_is_airflows(skyvern: FakeSkyvern, made: Schedule) -> None:
    del skyvern.schedules[made.schedule_id]
    assert goes_on(made)
    skyvern.has_schedules = False
    assert goes_on(made)


def test_what_may_pass_is_tried_again_and_what_cannot_is_not(skyvern: FakeSkyvern, made: Schedule) -> None:
    class Guard(SkyvernScheduleGuard):
        def _hook(self) -> SkyvernHook:
            return SkyvernHook(retry=RetryPolicy(attempts=1))

    guard = Guard(task_id="guard", workflow_id=made.workflow.workflow_id, schedule_id=made.schedule_id)
    context: Any = {"dag_run": SimpleNamespace(run_type="scheduled"), "logical_date": TICK}
    skyvern.next("GET", "/v1/workflows/.*", httpx.Response(503))
    with pytest.raises(SkyvernServerError):
        guard.execute(context)
    skyvern.api_key = "another"
    with pytest.raises(AirflowException, match="403") as caught:
        guard.execute(context)
    assert type(caught.value).__name__ == "AirflowFailException"
