"""The watcher, with the fake behind a real socket; Airflow 3."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import airflow
import httpx
import pytest

if airflow.__version__.startswith("2."):
    pytest.skip("watchers came with Airflow 3", allow_module_level=True)

from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.finished_runs.poller import FinishedRunsPoller, active_runs_of, runs_of
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.testing.fake.skyvern import API_KEY, FakeSkyvern
from airflow_skyvern.triggers.workflow_runs import SkyvernWorkflowRunsTrigger
from tests.support.tasks import rebuilt

if TYPE_CHECKING:
    from tests.unit.conftest import Connect, TaskLog

RUNS = "/v1/runs"
REDELIVER = "https://airflow.example.com/skyvern/webhooks/skyvern_default"


class Store:
    """What Airflow 3.3 keeps for an asset."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}
        self.broken = False

    async def aget(self, key: str, default: Any = None) -> Any:
        return json.loads(self.kept[key]) if key in self.kept else default

    async def aset(self, key: str, value: Any) -> None:
        if self.broken:
            raise RuntimeError("no answer from the API server")
        self.kept[key] = json.dumps(value)


@pytest.fixture(autouse=True)
def events_arrive_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SkyvernWorkflowRunsTrigger, "commit_delay", 0.0)
    monkeypatch.setattr(SkyvernWorkflowRunsTrigger, "event_interval", 0.0)


@pytest.fixture
def store() -> Store:
    return Store()


def trigger(workflow: str, store: Store | None = None, **more: Any) -> SkyvernWorkflowRunsTrigger:
    made = SkyvernWorkflowRunsTrigger(workflow, **{"poll_interval": 0.02, "lookback": 0, **more})
    if store is not None:
        made.asset_state_store = store  # type: ignore[assignment]  # what the triggerer sets
    return made


class PollerRig:
    """A watcher at work, as the triggerer drives it."""

    def __init__(self, trigger: SkyvernWorkflowRunsTrigger) -> None:
        self.events: list[dict[str, Any]] = []
        self.task = asyncio.create_task(self._drive(trigger))

    async def _drive(self, trigger: SkyvernWorkflowRunsTrigger) -> None:
        async for event in trigger.run():
            self.events.append(json.loads(json.dumps(event.payload)))

    @property
    def runs(self) -> list[str]:
        return [run["run_id"] for event in self.events for run in event["runs"]]


@asynccontextmanager
async def watching(*triggers: SkyvernWorkflowRunsTrigger) -> AsyncIterator[list[PollerRig]]:
    at_work = [PollerRig(trigger) for trigger in triggers]
    try:
        yield at_work
    finally:
        for one in at_work:
            one.task.cancel()
        await asyncio.gather(*(one.task for one in at_work), return_exceptions=True)


async def until(probe: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not probe():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)


async def polled(skyvern: FakeSkyvern, times: int = 3) -> None:
    """Wait for some more polls."""
    seen = len(skyvern.sent("GET", RUNS))
    await until(lambda: len(skyvern.sent("GET", RUNS)) >= seen + times)


def start(skyvern: FakeSkyvern, workflow: str) -> str:
    return skyvern._start(skyvern.workflows[workflow], {}, {}).run_id


def end(skyvern: FakeSkyvern, run_id: str) -> str:
    run = skyvern.runs[run_id]
    while not run.is_over:
        run.look()
    return run_id


@pytest.mark.slow
async def test_runs_that_end_are_handed_over_with_status_and_link(skyvern: FakeSkyvern, store: Store) -> None:
    workflow = skyvern.workflow(plan=("running", "failed"))
    old = end(skyvern, start(skyvern, workflow))
    async with watching(trigger(workflow, store)) as [watcher]:
        await polled(skyvern)
        new = end(skyvern, start(skyvern, workflow))
        await until(lambda: watcher.events)
        await polled(skyvern)
    [event] = watcher.events
    [run] = event["runs"]
    assert old not in watcher.runs
    assert (run["run_id"], run["status"], run["workflow_id"]) == (new, "failed", workflow)
    assert run["app_url"] == f"http://localhost:8080/runs/{new}"
    assert run["finished_at"].endswith("+00:00")


@pytest.mark.slow
async def test_one_poll_makes_one_event_of_all_runs(skyvern: FakeSkyvern, store: Store) -> None:
    workflow = skyvern.workflow()
    runs = [start(skyvern, workflow) for _ in range(5)]
    async with watching(trigger(workflow, store)) as [watcher]:
        await polled(skyvern)
        with skyvern._lock:
            for run_id in runs:
                end(skyvern, run_id)
        await until(lambda: watcher.events)
        await polled(skyvern)
    assert [len(event["runs"]) for event in watcher.events] == [5]
    assert sorted(watcher.runs) == runs


@pytest.mark.slow
async def test_only_chosen_statuses_of_the_workflow_are_handed_over(skyvern: FakeSkyvern, store: Store) -> None:
    good, bad, other = (skyvern.workflow(plan=("running", status)) for status in ("completed", "failed", "completed"))
    async with watching(trigger(good, store, statuses="failed"), trigger(bad, Store(), statuses="failed")) as at_work:
        await polled(skyvern)
        for workflow in (good, bad, other):
            end(skyvern, start(skyvern, workflow))
        await until(lambda: at_work[1].events)
        await polled(skyvern)
    assert [len(watcher.runs) for watcher in at_work] == [0, 1]


@pytest.mark.slow
async def test_a_run_that_skyvern_retries_is_handed_over_at_its_real_end(skyvern: FakeSkyvern, store: Store) -> None:
    pending = {"status": "failed", "retry_pending": True}
    workflow = skyvern.workflow(plan=("running", pending, "running", "completed"))
    async with watching(trigger(workflow, store)) as [watcher]:
        await polled(skyvern)
        run_id = start(skyvern, workflow)
        for _ in range(3):
            skyvern.runs[run_id].look()
            await polled(skyvern)
            assert watcher.events == []
        end(skyvern, run_id)
        await until(lambda: watcher.events)
    assert [run["status"] for run in watcher.events[0]["runs"]] == ["completed"]


@pytest.mark.slow
async def test_a_run_created_long_ago_is_handed_over_when_it_ends(skyvern: FakeSkyvern, store: Store) -> None:
    workflow = skyvern.workflow()
    slow = start(skyvern, workflow)
    run = skyvern.runs[slow]
    run.workflow = replace(run.workflow, plan=("running",))
    recent = [start(skyvern, workflow) for _ in range(1500)]  # a second each; 15 pages
    for run_id in recent:
        end(skyvern, run_id)
    async with watching(trigger(workflow, store)) as [watcher]:
        await polled(skyvern, 20)
        assert watcher.events == []
        run.canceled = True
        await until(lambda: watcher.events)
    assert watcher.runs == [slow]


@pytest.mark.slow
async def test_a_run_that_is_gone_from_skyvern_for_minutes_is_not_asked_for_again(
    skyvern: FakeSkyvern, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FinishedRunsPoller, "refusal_patience", 0.0)
    workflow = skyvern.workflow()
    gone = start(skyvern, workflow)
    async with watching(trigger(workflow, store)) as [watcher]:
        await polled(skyvern)
        del skyvern.runs[gone]
        await until(lambda: skyvern.sent("GET", f"/v1/runs/{gone}"))
        await polled(skyvern, 5)
        new = end(skyvern, start(skyvern, workflow))
        await until(lambda: watcher.events)
    assert watcher.runs == [new]
    assert len(skyvern.sent("GET", f"/v1/runs/{gone}")) == 1


@pytest.mark.slow
async def test_a_run_that_skyvern_denies_once_is_handed_over_when_it_has_ended(
    skyvern: FakeSkyvern, store: Store
) -> None:
    workflow = skyvern.workflow()
    denied = start(skyvern, workflow)
    missing = httpx.Response(404, json={"detail": f"Task run not found {denied}"})
    async with watching(trigger(workflow, store)) as [watcher]:
        await polled(skyvern)
        skyvern.next("GET", f"/v1/runs/{denied}", missing)
        skyvern.next("GET", "/v1/runs", *[httpx.Response(200, json=[])] * 2)
        await until(lambda: skyvern.sent("GET", f"/v1/runs/{denied}"))
        end(skyvern, denied)
        await until(lambda: watcher.events)
    assert watcher.runs == [denied]


@pytest.mark.slow
async def test_a_restart_goes_on_where_the_watcher_was_stopped(skyvern: FakeSkyvern, store: Store) -> None:
    workflow = skyvern.workflow()
    async with watching(trigger(workflow, store)) as [first]:
        await polled(skyvern)
        one = end(skyvern, start(skyvern, workflow))
        await until(lambda: first.events)
        await polled(skyvern)
    two = end(skyvern, start(skyvern, workflow))
    async with watching(trigger(workflow, store)) as [second]:
        await until(lambda: second.events)
        await polled(skyvern)
    assert (first.runs, second.runs) == ([one], [two])


@pytest.mark.slow
async def test_a_watcher_that_is_killed_after_an_event_repeats_it(
    skyvern: FakeSkyvern, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SkyvernWorkflowRunsTrigger, "commit_delay", 60.0)
    workflow = skyvern.workflow()
    async with watching(trigger(workflow, store)) as [first]:
        await polled(skyvern)
        one = end(skyvern, start(skyvern, workflow))
        await until(lambda: first.events)
        await polled(skyvern, 5)
    async with watching(trigger(workflow, store)) as [second]:
        await until(lambda: second.events)
    assert first.runs == second.runs == [one]


@pytest.mark.slow
async def test_a_run_that_ends_right_after_an_event_waits_for_the_next(
    skyvern: FakeSkyvern, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow would start no DAG for an event that comes while it starts one for the event before."""
    monkeypatch.setattr(SkyvernWorkflowRunsTrigger, "event_interval", 2.0)  # two polls, also on a slow machine
    workflow = skyvern.workflow()
    async with watching(trigger(workflow, store)) as [watcher]:
        await polled(skyvern)
        one = end(skyvern, start(skyvern, workflow))
        await until(lambda: watcher.events)
        begun = time.monotonic()
        later = []
        for _ in range(2):
            later.append(end(skyvern, start(skyvern, workflow)))
            await polled(skyvern)
        assert watcher.runs == [one]
        await until(lambda: len(watcher.events) > 1)
        assert time.monotonic() - begun > 1.8
        await polled(skyvern)
    assert [[run["run_id"] for run in event["runs"]] for event in watcher.events] == [[one], later]


@pytest.mark.slow
async def test_a_watcher_that_ends_while_a_run_waits_for_the_next_event_loses_none(
    skyvern: FakeSkyvern, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SkyvernWorkflowRunsTrigger, "event_interval", 60.0)
    workflow = skyvern.workflow()
    async with watching(trigger(workflow, store)) as [first]:
        await polled(skyvern)
        one = end(skyvern, start(skyvern, workflow))
        await until(lambda: first.events)
        two = end(skyvern, start(skyvern, workflow))
        await polled(skyvern)
    async with watching(trigger(workflow, store)) as [second]:
        await until(lambda: second.events)
    assert (first.runs, second.runs) == ([one], [two])


async def test_more_workflows_than_one_request_takes_are_watched_with_several(skyvern: FakeSkyvern) -> None:
    workflows = [skyvern.workflow(plan=("running",)) for _ in range(101)]
    started = [start(skyvern, workflow) for workflow in workflows]
    hook = SkyvernHook()
    long_ago = datetime(2020, 1, 1, tzinfo=timezone.utc)
    assert {row.run_id for row in await runs_of(hook, workflows, long_ago)} == set(started)
    assert len(await active_runs_of(hook, workflows)) == 101
    asked = [len(seen.query["workflow_permanent_id"]) for seen in skyvern.sent("GET", "/v1/runs")]
    assert sorted(asked) == [1, 1, 50, 50, 50, 50]
    await hook.aclose()


async def test_without_a_store_a_restart_looks_back(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow()
    run_id = end(skyvern, start(skyvern, workflow))
    ten_years = 10 * 365 * 86400
    async with watching(trigger(workflow, lookback=ten_years)) as [watcher]:
        await until(lambda: watcher.events)
    assert watcher.runs == [run_id]


@pytest.mark.slow
async def test_a_store_that_fails_does_not_end_the_watch(
    skyvern: FakeSkyvern, store: Store, task_log: TaskLog
) -> None:
    workflow = skyvern.workflow()
    store.broken = True
    async with watching(trigger(workflow, store)) as [watcher]:
        await polled(skyvern)
        end(skyvern, start(skyvern, workflow))
        await until(lambda: watcher.events)
        await polled(skyvern)
    assert "a restart would repeat the last runs" in task_log()


@pytest.mark.slow
async def test_many_watchers_of_a_connection_share_each_poll(skyvern: FakeSkyvern) -> None:
    workflows = [skyvern.workflow() for _ in range(20)]
    async with watching(*(trigger(workflow, Store(), poll_interval=0.2) for workflow in workflows)) as at_work:
        await until(lambda: any(len(seen.query.get("workflow_permanent_id", [])) == 20 for seen in skyvern.requests))
        before = len(skyvern.requests)
        await asyncio.sleep(1.0)
        assert len(skyvern.requests) - before <= 6
        for workflow in workflows:
            end(skyvern, start(skyvern, workflow))
        await until(lambda: all(watcher.events for watcher in at_work))
        await asyncio.sleep(0.5)
    assert [len(watcher.runs) for watcher in at_work] == [1] * 20
    assert len(skyvern.sent("GET", "/v1/runs/[^/]+")) == 1  # for the address of the pages


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer", [httpx.Response(503), httpx.Response(403), httpx.Response(200, json={"no": "list"})]
)
async def test_errors_do_not_end_the_watch(
    skyvern: FakeSkyvern, store: Store, answer: httpx.Response, task_log: TaskLog
) -> None:
    workflow = skyvern.workflow()
    async with watching(trigger(workflow, store)) as [watcher]:
        await polled(skyvern)
        skyvern.next("GET", RUNS, *[answer] * 2)
        await polled(skyvern, 2)
        end(skyvern, start(skyvern, workflow))
        await until(lambda: watcher.events)
        assert not watcher.task.done()
    assert len(watcher.runs) == 1


@pytest.mark.slow
async def test_a_missing_connection_is_waited_for(skyvern: FakeSkyvern, task_log: TaskLog) -> None:
    async with watching(trigger("wpid_1", skyvern_conn_id="nowhere")) as [watcher]:
        await asyncio.sleep(0.3)
        assert not watcher.task.done()
    log = task_log()
    assert "cannot watch it yet" in log
    assert "nowhere" in log


@pytest.mark.slow
async def test_a_key_that_is_rotated_is_picked_up(skyvern: FakeSkyvern, store: Store, connect: Connect) -> None:
    workflow = skyvern.workflow()
    async with watching(trigger(workflow, store)) as [watcher]:
        await polled(skyvern)
        skyvern.api_key = "the-next-key"
        connect(password="the-next-key")
        end(skyvern, start(skyvern, workflow))
        await until(lambda: watcher.events)


@pytest.mark.slow
async def test_a_redelivering_watcher_makes_no_events_but_lets_skyvern_send_each_webhook(
    skyvern: FakeSkyvern, store: Store
) -> None:
    workflow = skyvern.workflow()
    async with watching(trigger(workflow, store, redeliver_to=REDELIVER)) as [watcher]:
        await polled(skyvern)
        runs = [end(skyvern, start(skyvern, workflow)) for _ in range(3)]
        await until(lambda: len(skyvern.replays) == 3)
        await polled(skyvern)
    assert sorted(skyvern.replays) == runs
    assert watcher.events == []
    assert {seen.json["webhook_url"] for seen in skyvern.sent("POST", ".*/retry_webhook")} == {REDELIVER}


@pytest.mark.slow
@pytest.mark.parametrize(
    "refusal",
    [httpx.Response(500), httpx.Response(200, json={"run_id": "wr_1", "status_code": 503}), httpx.Response(409)],
)
async def test_a_webhook_that_is_not_accepted_is_sent_again(
    skyvern: FakeSkyvern, store: Store, refusal: httpx.Response
) -> None:
    workflow = skyvern.workflow()
    async with watching(trigger(workflow, store, redeliver_to=REDELIVER)):
        await polled(skyvern)
        skyvern.next("POST", ".*/retry_webhook", refusal)
        run_id = end(skyvern, start(skyvern, workflow))
        await until(lambda: skyvern.replays)
        await polled(skyvern)
    assert skyvern.replays == [run_id]


@pytest.mark.slow
@pytest.mark.parametrize("status", [400, 413])
async def test_a_webhook_that_will_always_be_refused_is_given_up(
    skyvern: FakeSkyvern, store: Store, status: int
) -> None:
    """One that is too large was sent again and again, and kept others from their turn."""
    workflow = skyvern.workflow()
    async with watching(trigger(workflow, store, redeliver_to=REDELIVER)):
        await polled(skyvern)
        run_id = start(skyvern, workflow)
        refusal = httpx.Response(200, json={"run_id": run_id, "status_code": status})
        skyvern.next("POST", ".*/retry_webhook", refusal)
        end(skyvern, run_id)
        await until(lambda: skyvern.sent("POST", ".*/retry_webhook"))
        for _ in range(3):
            await polled(skyvern)
    assert skyvern.replays == []
    assert len(skyvern.sent("POST", ".*/retry_webhook")) == 1


def test_a_trigger_survives_the_database_and_takes_no_secret_there(skyvern: FakeSkyvern) -> None:
    original = SkyvernWorkflowRunsTrigger("wpid_1", statuses=["failed"], redeliver_to=REDELIVER)
    assert rebuilt(original).serialize() == original.serialize()
    assert API_KEY not in json.dumps(original.serialize())


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"workflow_id": "{{ x }}"}, "workflow_id is not templated"),
        ({"statuses": ["done"]}, "choose from canceled"),
        ({"statuses": "running"}, "choose from canceled"),
        ({"poll_interval": 0}, "poll_interval must be a number of seconds above 0"),
        ({"poll_interval": "soon"}, "poll_interval must be a number"),
        ({"lookback": -1}, "lookback must be a number of seconds"),
        ({"redeliver_to": "airflow.example.com/x"}, "redeliver_to must be an address"),
        ({"redeliver_to": "https://user:pw@airflow.example.com/x"}, "redeliver_to must be an address"),
    ],
)
def test_a_wrong_argument_is_named(wrong: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SkyvernConfigError, match=complaint):
        SkyvernWorkflowRunsTrigger(**{"workflow_id": "wpid_1", **wrong})
