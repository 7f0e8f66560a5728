from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.support.polling import PollerRig, everything, play

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern


@pytest.mark.slow
def test_nothing_is_asked_for_more_often_than_its_interval(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        intervals = [5.0, 7.0, 30.0, 60.0, 300.0] * 4
        runs = [w.running() for _ in intervals]
        for run_id, interval in zip(runs, intervals, strict=True):
            w.start(run_id, interval, first_poll_delay=1.0)
            await asyncio.sleep(1)
        await asyncio.sleep(1000)
        for run_id, interval in zip(runs, intervals, strict=True):
            looks = w.looks(run_id)
            gaps = [later - earlier for earlier, later in pairwise(looks)]
            assert all(gap >= interval for gap in gaps), (interval, gaps)

    play(fake, scenario)


@pytest.mark.slow
def test_the_first_look_comes_when_it_is_wanted_whatever_the_others_do(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        for _ in range(30):
            w.start(w.running(), 1.0)
        await asyncio.sleep(5)
        run_id, soon = w.running(), w.running()
        for each in (run_id, soon):
            w.end(each)
        began = w.loop.time()
        late = w.start(run_id, 1.0, first_poll_delay=8.0)
        await w.wait(soon)
        assert w.loop.time() - began <= 3 * w.latency
        await late
        assert 8 <= w.loop.time() - began <= 8 + 3 * w.latency
        assert len(w.looks(run_id)) == 1

    play(fake, scenario)


@pytest.mark.parametrize("away", [False, True])
def test_a_deadline_ends_the_wait_after_one_last_look_if_there_is_a_server(fake: FakeSkyvern, *, away: bool) -> None:
    async def scenario(w: PollerRig) -> None:
        runs = [w.running() for _ in range(20)]
        for run_id in runs:
            w.start(run_id)
        await asyncio.sleep(20)
        began, task = w.loop.time(), w.start(runs[0], seconds=42.0)
        if away:
            w.instead = everything(httpx.Response(503, headers={"retry-after": "300"}))
        assert await task is None
        assert 42 <= w.loop.time() - began <= 42 + 2 * w.latency
        assert any(look - began >= 42 for look in w.looks(runs[0])) is not away

    play(fake, scenario)


def test_a_run_that_ends_at_the_deadline_counts(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        run_id = w.running()
        task = w.start(run_id, 60.0, seconds=100.0)
        await asyncio.sleep(99.5)
        w.end(run_id)
        run = await task
        assert run is not None
        assert run.is_final

    play(fake, scenario)
