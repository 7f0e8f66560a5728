from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.compat import since_3_3
from airflow_skyvern.exceptions import SkyvernError
from airflow_skyvern.runs.wait import event_of
from airflow_skyvern.testing.fake.skyvern import API_KEY, FakeSkyvern
from airflow_skyvern.triggers.run import SkyvernRunTrigger
from tests.support.tasks import FakeTaskInstance, first_event, rebuilt

if TYPE_CHECKING:
    from tests.unit.conftest import Connect

LOOK = "/v1/runs/[^/]+"


def trigger(run_id: str, seconds: float = 10) -> SkyvernRunTrigger:
    return SkyvernRunTrigger(run_id, "skyvern_default", 0.01, time.time() + seconds)


def test_a_trigger_survives_the_database_and_takes_no_secret_there(skyvern: FakeSkyvern) -> None:
    original = SkyvernRunTrigger("wr_1", "skyvern_default", 10.0, 1795377777.5)
    path, kwargs = original.serialize()
    assert path == "airflow_skyvern.triggers.SkyvernRunTrigger"
    assert kwargs == {
        "run_id": "wr_1",
        "skyvern_conn_id": "skyvern_default",
        "poll_interval": 10.0,
        "deadline": 1795377777.5,
        "cancel_on_kill": False,
        "pause_known": None,
        "run_known": False,
    }
    assert API_KEY not in json.dumps(kwargs)
    assert rebuilt(original).serialize() == original.serialize()


def test_rare_options_are_stored_only_if_they_are_set() -> None:
    original = SkyvernRunTrigger("wr_1", "skyvern_default", 10.0, 1.0, log_blocks=True, max_elapsed_time_minutes=30)
    _, kwargs = original.serialize()
    assert (kwargs["log_blocks"], kwargs["max_elapsed_time_minutes"]) == (True, 30)
    assert rebuilt(original).serialize() == original.serialize()


@pytest.mark.parametrize("status", ["completed", "failed", "terminated", "timed_out", "canceled"])
async def test_the_event_says_that_the_run_is_over_and_how(skyvern: FakeSkyvern, status: str) -> None:
    run_id = skyvern.run(plan=("queued", "running", status), output={"secret": "in the output"})
    expected = {"run_id": run_id, "reason": "ended", "status": status, "message": None}
    assert await first_event(trigger(run_id)) == expected


@pytest.mark.slow
async def test_the_wait_goes_on_while_a_retry_is_pending(skyvern: FakeSkyvern) -> None:
    pending = {"status": "failed", "retry_pending": True, "attempt": 1}
    run_id = skyvern.run(plan=("running", pending, "running", "completed"))
    assert (await first_event(trigger(run_id)))["status"] == "completed"


async def test_the_wait_goes_on_through_statuses_nobody_knows(skyvern: FakeSkyvern) -> None:
    run_id = skyvern.run(plan=("thinking", "completed"))
    assert (await first_event(trigger(run_id)))["status"] == "completed"


@pytest.mark.slow
async def test_the_deadline_ends_the_wait_but_not_the_run(skyvern: FakeSkyvern) -> None:
    run_id = skyvern.run(plan=("running",))
    event = await first_event(trigger(run_id, seconds=0.1))
    assert event == {"run_id": run_id, "reason": "deadline", "status": "running", "message": None}
    assert skyvern.sent("POST", ".*") == []


async def test_a_deadline_that_passed_during_a_restart_still_gives_one_look(skyvern: FakeSkyvern) -> None:
    assert (await first_event(trigger(skyvern.run(plan=("completed",)), seconds=-5)))["reason"] == "ended"
    assert (await first_event(trigger(skyvern.run(plan=("running",)), seconds=-5)))["reason"] == "deadline"


@pytest.mark.slow
async def test_errors_that_may_pass_do_not_end_the_wait(skyvern: FakeSkyvern) -> None:
    run_id = skyvern.run(plan=("running", "completed"))
    skyvern.next("GET", "/v1/runs/.*", httpx.Response(503, json={"error": "Database temporarily unavailable"}))
    assert (await first_event(trigger(run_id)))["reason"] == "ended"


async def test_a_run_that_is_unknown_ends_the_wait_with_the_reason(skyvern: FakeSkyvern) -> None:
    event = await first_event(trigger("wr_123"))
    assert (event["run_id"], event["reason"], event["status"]) == ("wr_123", "error", None)
    assert "Task run not found wr_123" in event["message"]


async def test_a_key_that_never_worked_ends_the_wait_with_the_reason(skyvern: FakeSkyvern) -> None:
    run_id = skyvern.run(plan=("running",))
    skyvern.api_key = "another"
    event = await first_event(trigger(run_id))
    assert (event["reason"], event["status"]) == ("error", None)
    assert "Could not validate credentials" in event["message"]
    assert API_KEY not in event["message"]


@pytest.mark.slow
async def test_a_key_that_stops_working_may_be_one_that_is_being_replaced(skyvern: FakeSkyvern) -> None:
    run_id = skyvern.run(plan=("running",))
    skyvern.next("GET", LOOK, lambda: setattr(skyvern, "api_key", "another"))
    event = await first_event(trigger(run_id, seconds=0.5))
    assert (event["reason"], event["status"]) == ("deadline", "running")


@pytest.mark.slow
async def test_a_key_that_is_rotated_does_not_end_the_wait(skyvern: FakeSkyvern, connect: Connect) -> None:
    run_id = skyvern.run(plan=("running", "completed"))

    def rotate() -> None:
        skyvern.api_key = "the-next-key"
        connect(password="the-next-key")

    skyvern.next("GET", LOOK, rotate)
    assert (await first_event(trigger(run_id)))["reason"] == "ended"


async def test_a_missing_or_wrong_connection_ends_the_wait_with_the_reason(
    skyvern: FakeSkyvern, connect: Connect
) -> None:
    event = await first_event(SkyvernRunTrigger("wr_1", "nowhere", 0.01, time.time() + 5))
    assert event["reason"] == "error"
    assert "nowhere" in event["message"]
    connect(extra={"timeout": "soon"})
    event = await first_event(trigger("wr_1"))
    assert event["reason"] == "error"
    assert "timeout must be a number" in event["message"]


async def test_a_trigger_that_is_stopped_leaves_the_run_alone(skyvern: FakeSkyvern) -> None:
    run_id = skyvern.run(plan=("running",))
    looked, loop = asyncio.Event(), asyncio.get_running_loop()
    skyvern.next("GET", LOOK, lambda: loop.call_soon_threadsafe(looked.set))
    waiting = asyncio.create_task(first_event(trigger(run_id)))
    await looked.wait()
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    assert waiting.cancelled()
    assert skyvern.sent("POST", ".*") == []
    assert skyvern.status(run_id) == "running"


@pytest.mark.slow
async def test_triggers_share_a_client_and_do_not_hold_each_other_up(skyvern: FakeSkyvern) -> None:
    runs = [skyvern.run(plan=("completed",)) for _ in range(8)]
    together = threading.Barrier(8, timeout=10)
    skyvern.next("GET", LOOK, *[together.wait] * 8)
    events = await asyncio.gather(*(first_event(trigger(run_id)) for run_id in runs))
    assert [event["run_id"] for event in events] == runs
    assert len(skyvern.sent("GET", LOOK)) == 8
    assert len(skyvern.requests) <= 9


def test_an_event_is_taken_as_it_was_given() -> None:
    event = {"run_id": "wr_1", "reason": "ended", "status": "completed", "message": None}
    assert event_of(event) == event
    assert event_of({"run_id": "wr_1", "reason": "deadline"})["status"] is None


@pytest.mark.parametrize(
    "value",
    [
        None,
        "completed",
        {},
        [],
        {"run_id": "wr_1"},
        {"reason": "ended"},
        {"run_id": None, "reason": "ended"},
        {"run_id": "wr_1", "reason": ["ended"]},
    ],
)
def test_a_missing_or_malformed_event_is_an_error(value: Any) -> None:
    with pytest.raises(SkyvernError, match="without a valid event"):
        event_of(value)


@pytest.mark.parametrize("cancel_on_kill", [True, False])
async def test_a_user_who_ends_the_task_cancels_the_run_if_that_is_wanted(
    skyvern: FakeSkyvern, *, cancel_on_kill: bool
) -> None:
    run_id = skyvern.run(plan=("running",))
    killed = SkyvernRunTrigger(run_id, "skyvern_default", 0.01, time.time() + 10, cancel_on_kill=cancel_on_kill)
    killed.task_instance = None
    await killed.on_kill()
    assert skyvern.status(run_id) == ("canceled" if cancel_on_kill else "created")


class AirflowsAnswers:
    """What Airflow answers a trigger about its task, one state after the other; the last one stays."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, states: list[str | None], run_id: str | None) -> None:
        self.states, self.run_id = states, run_id
        monkeypatch.setattr("airflow_skyvern.compat.since_3_0.state_of_deferred_task", self.state)
        monkeypatch.setattr("airflow_skyvern.compat.internals.xcom_of_deferred_task", self.xcom)

    async def state(self, ti: Any) -> str | None:
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        if state == "away":
            raise RuntimeError("API_SERVER_ERROR: 503")
        return state

    async def xcom(self, ti: Any, key: str) -> str | None:
        assert key == "run_id"
        return self.run_id


@pytest.mark.slow
@pytest.mark.parametrize(
    ("states", "published", "canceled"),
    [
        (["failed"], "ours", True),
        (["success"], "ours", True),
        (["skipped"], "ours", True),
        (["removed"], "ours", True),
        (["deferred"], "ours", False),
        (["running"], "ours", False),
        (["awaiting_input"], "ours", False),
        (["deferred"], "another", True),
        (["running"], None, True),
        (["queued", "running"], "ours", False),
        (["scheduled", "queued", "running"], "ours", False),
        (["up_for_retry", "scheduled", "deferred"], "ours", False),
        ([None, "scheduled", "running"], None, True),
        ([None, "scheduled", "deferred"], "another", True),
        (["queued", "failed"], "ours", True),
        (["scheduled"], "ours", False),
        (["deleted"], "ours", True),
        (["deleted"], None, True),
        (["deleted", "deleted", "queued", "deferred"], "ours", False),
        (["deleted", "scheduled", "running"], "another", True),
        ([None], "ours", False),
        ([None], None, False),
        (["running", "up_for_retry"], None, False),
        (["running", "failed"], None, True),
        (["away"], "ours", False),
        (["away", "away", "failed"], "ours", True),
        (["away", "deleted", "away", "deferred"], "ours", False),
    ],
)
async def test_only_a_users_word_cancels_the_run_of_a_deferred_task(
    skyvern: FakeSkyvern,
    monkeypatch: pytest.MonkeyPatch,
    states: list[str | None],
    published: str | None,
    *,
    canceled: bool,
) -> None:
    """Airflow calls on_kill also for a takeover, and in a triggerer that wakes up while the task is resumed."""
    run_id = skyvern.run(plan=("running",))
    AirflowsAnswers(monkeypatch, list(states), run_id if published == "ours" else published)
    await killed_trigger(run_id).on_kill()
    assert skyvern.status(run_id) == ("canceled" if canceled else "created")


async def test_a_triggerer_that_wakes_up_during_a_retrys_search_leaves_the_run_to_it(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry has no run in XCom until it has found that of the try before."""
    run_id = skyvern.run(plan=("running",))
    airflow = AirflowsAnswers(monkeypatch, [*["running"] * 5, "deferred"], None)
    killed = killed_trigger(run_id)
    found = asyncio.get_running_loop().call_later(0.02, setattr, airflow, "run_id", run_id)
    await killed.on_kill()
    found.cancel()
    assert skyvern.sent("POST", ".*") == []


@pytest.mark.parametrize("state", ["success", "failed", "deleted"])
async def test_a_stalled_triggerer_that_wakes_up_after_its_run_does_not_repeat_the_webhook(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    run_id = skyvern.run(plan=("completed",))
    AirflowsAnswers(monkeypatch, [state], run_id)
    await killed_trigger(run_id).on_kill()
    assert skyvern.sent("POST", ".*") == []


@pytest.mark.slow
async def test_a_run_that_cannot_be_fetched_is_canceled_for_a_user_nevertheless(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = skyvern.run(plan=("running",))
    AirflowsAnswers(monkeypatch, ["failed"], run_id)
    skyvern.next("GET", LOOK, httpx.Response(404, json={"error": "Not Found", "path": "/v1"}))
    await killed_trigger(run_id).on_kill()
    assert skyvern.status(run_id) == "canceled"


def killed_trigger(run_id: str) -> SkyvernRunTrigger:
    killed = SkyvernRunTrigger(run_id, "skyvern_default", 0.01, time.time() + 10, cancel_on_kill=True)
    task: Any = FakeTaskInstance()
    killed.task_instance = task
    killed.retry_interval = 0.001  # type: ignore[misc]  # of this object only
    return killed


@pytest.mark.parametrize(("state", "canceled"), [("failed", True), ("deleted", True), ("deferred", False)])
async def test_below_3_3_a_trigger_that_airflow_cancels_asks_what_on_kill_asks(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch, state: str, *, canceled: bool
) -> None:
    run_id = skyvern.run(plan=("running",))
    AirflowsAnswers(monkeypatch, [state], run_id)
    monkeypatch.setattr("airflow_skyvern.compat.since_3_3.calls_on_kill", lambda: False)
    stopped = killed_trigger(run_id)
    await stop_and_clean_up(stopped)
    assert skyvern.status(run_id) == ("canceled" if canceled else "created")


async def test_below_3_3_a_triggerer_that_shuts_down_asks_nothing(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TriggerRunner:
        async def arun(self) -> None:
            await asyncio.sleep(0)

    run_id = skyvern.run(plan=("running",))
    AirflowsAnswers(monkeypatch, ["failed"], run_id)
    monkeypatch.setattr("airflow_skyvern.compat.since_3_3.calls_on_kill", lambda: False)
    monkeypatch.setattr("airflow_skyvern.compat.internals.TRIGGERER", TriggerRunner.arun.__qualname__)
    triggerer = asyncio.create_task(TriggerRunner().arun())
    stopped = killed_trigger(run_id)
    waiting = asyncio.create_task(first_event(stopped))
    await triggerer
    await asyncio.sleep(0.02)
    await stop_and_clean_up(stopped, waiting)
    assert skyvern.sent("POST", ".*") == []


@pytest.mark.skipif(since_3_3.calls_on_kill(), reason="Airflow calls on_kill")
async def test_a_trigger_that_has_sent_its_event_cancels_nothing(skyvern: FakeSkyvern) -> None:
    run_id = skyvern.run(plan=("completed",))
    done = killed_trigger(run_id)
    await first_event(done)
    asked = len(skyvern.requests)
    await stop_and_clean_up(done, asyncio.create_task(asyncio.sleep(0)))
    assert len(skyvern.requests) == asked


async def stop_and_clean_up(trigger: SkyvernRunTrigger, waiting: asyncio.Task[Any] | None = None) -> None:
    """Stop a trigger as the triggerer does, and let what it begins then come to its end."""
    before = asyncio.all_tasks()
    waiting = waiting or asyncio.create_task(first_event(trigger))
    await asyncio.sleep(0)
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    await trigger.cleanup()
    begun = await asyncio.gather(*(asyncio.all_tasks() - before - {waiting}), return_exceptions=True)
    assert [error for error in begun if isinstance(error, Exception)] == []  # what the wait had begun is canceled


@pytest.mark.slow
async def test_a_cancellation_that_is_interrupted_is_finished_nevertheless(skyvern: FakeSkyvern) -> None:
    run_id = skyvern.run(plan=("running",))
    killed = SkyvernRunTrigger(run_id, "skyvern_default", 0.01, time.time() + 10, cancel_on_kill=True)
    killed.task_instance = None
    work = asyncio.create_task(killed.on_kill())
    skyvern.next("POST", ".*/cancel", lambda: time.sleep(0.05))
    for _ in range(3):
        await asyncio.sleep(0.01)
        work.cancel()
    await work
    assert skyvern.status(run_id) == "canceled"


async def test_a_cancellation_that_fails_breaks_nothing(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SkyvernRunTrigger, "cancel_refusals", 0.0)
    killed = SkyvernRunTrigger("wr_123", "skyvern_default", 0.01, time.time() + 10, cancel_on_kill=True)
    killed.task_instance = None
    await killed.on_kill()
    assert skyvern.sent("POST", ".*/cancel") == []


@pytest.mark.parametrize(
    ("pause_known", "plan", "reason"),
    [
        (False, ("running", "paused"), "paused"),
        (True, ("paused", "completed"), "ended"),
        (None, ("paused", "completed"), "ended"),
        (True, ("paused", "running", "paused"), "paused"),
    ],
)
async def test_a_new_pause_is_news_if_that_is_wanted(
    skyvern: FakeSkyvern, *, pause_known: bool | None, plan: tuple[str, ...], reason: str
) -> None:
    run_id = skyvern.run(plan=plan)
    skyvern.runs[run_id].continued = True
    waiting = SkyvernRunTrigger(run_id, "skyvern_default", 0.01, time.time() + 10, pause_known=pause_known)
    event = await first_event(waiting)
    assert event["reason"] == reason
    assert event["message"] == (f"http://localhost:8080/runs/{run_id}" if reason == "paused" else None)


@pytest.mark.slow
@pytest.mark.parametrize(("run_known", "reason"), [(True, "deadline"), (False, "error")])
async def test_a_triggerer_that_begins_while_the_key_is_refused_gives_up_only_a_run_that_is_not_known(
    skyvern: FakeSkyvern, *, run_known: bool, reason: str
) -> None:
    run_id = skyvern.run(plan=("running",))
    skyvern.api_key = "the-next-key"
    restarted = SkyvernRunTrigger(run_id, "skyvern_default", 0.01, time.time() + 0.5, run_known=run_known)
    assert (await first_event(rebuilt(restarted)))["reason"] == reason
