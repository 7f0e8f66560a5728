from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx
import pytest

from airflow_skyvern.polling.listing import OFF_SECONDS
from airflow_skyvern.polling.poller import LIST_DELAY, LIST_PATIENCE
from airflow_skyvern.polling.queue import RECHECK_INTERVAL
from airflow_skyvern.polling.session import MAX_AGE
from tests.support.polling import PollerRig, play, refused

if TYPE_CHECKING:
    from airflow_skyvern.models import RunSnapshot
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern


@pytest.mark.slow
def test_a_thousand_waits_cost_ten_requests_per_interval_and_a_few_direct_checks(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        waits = [w.start(w.running()) for _ in range(1000)]
        await asyncio.sleep(10)
        w.sent.clear()
        await asyncio.sleep(100)
        ticks = 100 / (5 * 1.05)
        assert len(w.lists) == pytest.approx(10 * ticks, rel=0.15)
        assert len(w.sent) <= 12 * (ticks + 2)
        assert not any(task.done() for task in waits)

    play(fake, scenario)


def test_one_wait_asks_directly_and_many_list(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        w.start(w.running())
        await asyncio.sleep(20)
        assert w.lists == []
        for _ in range(9):
            w.start(w.running())
            await asyncio.sleep(0.4)
        w.sent.clear()
        await asyncio.sleep(60)
        assert len(w.sent) <= 15

    play(fake, scenario)


@pytest.mark.slow
def test_waits_that_begin_at_any_time_share_the_lists(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        for _ in range(300):
            w.start(w.running())
            await asyncio.sleep(0.03)
        w.sent.clear()
        await asyncio.sleep(50)
        assert len(w.lists) <= 4 * 11

    play(fake, scenario)


@pytest.mark.slow
def test_many_waits_that_begin_one_after_another_are_not_each_fetched(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        runs = [w.running() for _ in range(1500)]
        random.Random(3).shuffle(runs)
        for run_id in runs[:20]:
            w.start(run_id)
        await asyncio.sleep(2)
        assert len(w.lists) >= 10  # the cost of a list is known, and one has just been read
        w.sent.clear()
        for number, run_id in enumerate(runs[20:]):
            w.start(run_id)
            if number % 5 == 0:  # as a triggerer begins its triggers: fewer at a time than a list has pages
                await asyncio.sleep(0.002)
        await asyncio.sleep(5)
        assert len(w.sent) < 600

    play(fake, scenario)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 30])
def test_an_end_is_noticed_within_the_interval_and_its_jitter(fake: FakeSkyvern, count: int) -> None:
    async def scenario(w: PollerRig) -> None:
        runs = [w.running() for _ in range(count)]
        waits = [w.start(run_id) for run_id in runs]
        for run_id, task in zip(runs, waits, strict=True):
            await asyncio.sleep(7)
            w.end(run_id)
            ended = w.loop.time()
            seen = await task
            assert seen is not None
            assert seen.status == "completed"
            assert w.loop.time() - ended <= 5.1 + 10 * w.latency

    play(fake, scenario)


@pytest.mark.slow
def test_a_run_that_is_missing_from_the_list_is_never_taken_for_finished(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        runs = [w.running() for _ in range(20)]
        waits = [w.start(run_id) for run_id in runs]
        w.instead = lambda request: httpx.Response(200, json=[]) if request.url.path == "/v1/runs" else None
        await asyncio.sleep(60)
        assert not any(task.done() for task in waits)
        assert min(Counter(path for _, path in w.sent if path != "/v1/runs").values()) >= 9
        assert len(w.lists) <= 3

    play(fake, scenario)


@pytest.mark.slow
@pytest.mark.parametrize("status", ["failed", "thinking"])
def test_a_run_that_the_list_does_not_hold_is_asked_for_at_its_interval(fake: FakeSkyvern, status: str) -> None:
    async def scenario(w: PollerRig) -> None:
        others = [w.start(w.running()) for _ in range(20)]
        run_id = w.running()
        task = w.start(run_id)
        await asyncio.sleep(20)
        w.end(run_id, status, retry_pending=True)
        await asyncio.sleep(60)
        assert not task.done()
        assert 8 <= len([when for when in w.looks(run_id) if when > 20]) <= 13
        w.end(run_id, "running", attempt=2)
        await asyncio.sleep(20)
        w.end(run_id, "completed", attempt=2)
        ended = await task
        assert ended is not None
        assert ended.attempt == 2
        assert not any(other.done() for other in others)

    play(fake, scenario)


@pytest.mark.slow
def test_a_list_that_calls_an_ended_run_active_delays_its_end_by_an_hour_at_most(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        runs = [w.running() for _ in range(40)]
        waits = [w.start(run_id, seconds=3 * RECHECK_INTERVAL) for run_id in runs]
        await asyncio.sleep(20)
        rows = fake.handle(httpx.Request("GET", "http://x/v1/runs?page_size=100", headers={"x-api-key": w.key}))
        w.instead = lambda request: (
            httpx.Response(200, content=rows.content) if request.url.path == "/v1/runs" else None
        )
        for run_id in runs[:20]:
            w.end(run_id)
        began = w.loop.time()
        await asyncio.wait(waits[:1], timeout=2 * RECHECK_INTERVAL)
        assert w.loop.time() - began <= RECHECK_INTERVAL + 10
        done = await asyncio.gather(*waits[:20])
        assert all(run is not None and run.status == "completed" for run in done)
        assert w.loop.time() - began <= RECHECK_INTERVAL + 10
        assert not any(task.done() for task in waits[20:])

    play(fake, scenario)


@pytest.mark.slow
def test_pages_that_shift_while_they_are_read_are_harmless(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        runs = [w.running() for _ in range(350)]
        waits = [w.start(run_id) for run_id in runs]

        async def others_come_and_go() -> None:
            while True:
                mine = w.running()
                await asyncio.sleep(w.latency)
                w.end(mine)

        coming_and_going = asyncio.create_task(others_come_and_go())
        await asyncio.sleep(60)
        assert not any(task.done() for task in waits)
        coming_and_going.cancel()
        for run_id in runs[::7]:
            w.end(run_id)
        ended = await asyncio.gather(*waits[::7])
        assert all(run is not None and run.is_final for run in ended)
        assert not any(task.done() for number, task in enumerate(waits) if number % 7)

    play(fake, scenario)


@pytest.mark.slow
def test_many_foreign_runs_make_listing_too_dear(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        waits = [w.start(w.running()) for _ in range(5)]
        for _ in range(1500):
            w.running()
        await asyncio.sleep(30)
        w.sent.clear()
        await asyncio.sleep(100)
        assert w.lists == []
        assert len(w.looks()) <= 5 * 21
        assert not any(task.done() for task in waits)

    play(fake, scenario)


@pytest.mark.slow
@pytest.mark.parametrize("status", [400, 403, 404, 422, 500, 501])
def test_where_the_list_is_refused_the_runs_are_asked_for(fake: FakeSkyvern, status: int) -> None:
    async def scenario(w: PollerRig) -> None:
        w.instead = refused(status)
        runs = [w.running() for _ in range(20)]
        waits = [w.start(run_id) for run_id in runs]
        await asyncio.sleep(30)
        w.sent.clear()
        await asyncio.sleep(60)
        assert w.lists == []
        for run_id in runs:
            assert 9 <= len(w.looks(run_id)) <= 13
        for run_id in runs:
            w.end(run_id)
        assert all(run is not None for run in await asyncio.gather(*waits))

    play(fake, scenario)


@pytest.mark.slow
def test_a_list_that_works_again_is_used_again(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        w.instead = refused(404)
        for _ in range(20):
            w.start(w.running())
        await asyncio.sleep(20)
        w.instead = lambda request: None
        await asyncio.sleep(OFF_SECONDS)
        w.sent.clear()
        await asyncio.sleep(50)
        assert len(w.sent) <= 12

    play(fake, scenario)


class Connections:
    """
    Waits at three connections of one server and key, thirty runs each, in one event loop.

    :param change: Changes the rig of the second one before its waits begin.
    """

    def __init__(self, w: PollerRig, change: Callable[[PollerRig], object] = lambda _: None) -> None:
        self.rigs = [w, *(PollerRig(w.fake, conn_id=conn_id) for conn_id in ("second", "third"))]
        w.clients = self.clients = [client for rig in self.rigs for client in rig.clients]
        for rig in self.rigs:
            rig.clients = w.clients
        change(self.rigs[1])
        self.runs = [(rig, rig.running()) for rig in self.rigs for _ in range(30)]
        self.waits = [rig.start(run_id) for rig, run_id in self.runs]

    async def lists(self, seconds: float = 60.0) -> list[int]:
        """Return how many pages each connection asks for in this time, in which no wait ends."""
        for rig in self.rigs:
            rig.sent.clear()
        await asyncio.sleep(seconds)
        assert not any(task.done() for task in self.waits)
        return [len(rig.lists) for rig in self.rigs]

    async def end(self) -> list[float]:
        """End each run; return how long each wait took to notice."""
        began = asyncio.get_running_loop().time()

        async def noticed(wait: asyncio.Task[RunSnapshot | None]) -> float:
            run = await wait
            assert run is not None
            assert run.is_final
            return asyncio.get_running_loop().time() - began

        for rig, run_id in self.runs:
            rig.end(run_id)
        return await asyncio.gather(*map(noticed, self.waits))


def test_connections_with_the_same_server_and_key_share_each_list(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        three = Connections(w)
        await asyncio.sleep(10)
        assert 11 <= sum(await three.lists()) <= 14
        assert max(await three.end()) <= 5.1 + 15 * w.latency

    play(fake, scenario, conn_id="first")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), [("base_url", "http://127.0.0.1:2"), ("proxy", "http://127.0.0.1:3")])
def test_a_connection_that_reaches_another_server_lists_for_itself(fake: FakeSkyvern, name: str, value: str) -> None:
    async def scenario(w: PollerRig) -> None:
        three = Connections(w, lambda rig: setattr(rig, name, value))
        await asyncio.sleep(10)
        first, second, third = await three.lists()
        assert 11 <= second <= 13
        assert 11 <= first + third <= 13

    play(fake, scenario, conn_id="first")


def test_a_connection_that_changes_keeps_its_waits_and_the_others_theirs(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        three = Connections(w)
        await asyncio.sleep(10)
        three.rigs[1].base_url = "http://127.0.0.1:2"
        await asyncio.sleep(MAX_AGE)
        three.rigs[1].start(three.rigs[1].running())
        await asyncio.sleep(10)
        first, second, third = await three.lists()
        assert 11 <= second <= 13
        assert 11 <= first + third <= 13
        await three.end()

    play(fake, scenario, conn_id="first")


@pytest.mark.slow
@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_a_connection_whose_list_fails_costs_the_others_nothing(fake: FakeSkyvern, status: int) -> None:
    async def scenario(w: PollerRig) -> None:
        three = Connections(w, lambda rig: setattr(rig, "instead", refused(status)))
        await asyncio.sleep(10)
        assert sum(await three.lists()) <= 16
        ends = await three.end()
        others = [seconds for seconds, (rig, _) in zip(ends, three.runs, strict=True) if rig is not three.rigs[1]]
        assert max(others) <= 5.1 + 15 * w.latency
        assert max(ends) <= 12  # where its own list came first: after three failures, its runs are fetched

    play(fake, scenario, conn_id="first")


def test_a_connection_whose_list_never_comes_holds_nobody_up(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        three = Connections(w)
        slow = three.rigs[1]
        more = [slow.start(slow.running(), 1.0) for _ in range(30)]  # so it is the one that lists
        await asyncio.sleep(10)
        slow.latency = 3000.0
        await asyncio.sleep(30)
        first_and_third = [number for number, (rig, _) in enumerate(three.runs) if rig is not slow]
        for rig, run_id in three.runs:
            rig.end(run_id)
        began = w.loop.time()
        await asyncio.wait([three.waits[number] for number in first_and_third])
        assert w.loop.time() - began <= 5.1 + LIST_PATIENCE + 2 * LIST_DELAY
        for wait in (*three.waits, *more):
            wait.cancel()

    play(fake, scenario, conn_id="first")


def test_waits_that_alone_would_be_fetched_are_listed_together(fake: FakeSkyvern) -> None:
    """Three waits of 250 runs in each connection: a list of three pages costs less than nine requests."""

    async def scenario(w: PollerRig) -> None:
        rigs = [w, *(PollerRig(fake, conn_id=f"c{number}") for number in range(5))]
        for rig in rigs:
            rig.clients = w.clients
        waits = [rig.start(rig.running()) for rig in rigs for _ in range(3)]
        await asyncio.sleep(30)
        for rig in rigs:
            rig.sent.clear()
        await asyncio.sleep(60)
        assert sum(len(rig.sent) for rig in rigs) <= 20
        assert not any(task.done() for task in waits)

    play(fake, scenario, conn_id="first")
