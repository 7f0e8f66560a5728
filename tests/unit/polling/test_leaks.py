from __future__ import annotations

import asyncio
import gc
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.polling.poller import _POLLERS, poller_of
from airflow_skyvern.polling.queue import QueueEntry
from airflow_skyvern.runs.wait import Wait
from airflow_skyvern.triggers.run import SkyvernRunTrigger
from tests.support.polling import PollerRig, play
from tests.support.tasks import first_event

if TYPE_CHECKING:
    from airflow_skyvern.client.settings import Settings
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
    from tests.unit.conftest import Connect


def queue_entries() -> dict[int, QueueEntry]:
    """The entries of all queues of this process; it keeps them alive, and so their ids."""
    gc.collect()
    return {id(thing): thing for thing in gc.get_objects() if type(thing) is QueueEntry}


@pytest.mark.slow
def test_ten_thousand_waits_leave_nothing_behind(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        of_other_tests = queue_entries()
        runs = [w.running() for _ in range(100)]
        for number in range(100):
            waits = [w.start(run_id) for run_id in runs]
            await asyncio.sleep(0.5)
            for task in waits[number % 2 :]:
                task.cancel()
            if number % 2:
                w.end(runs[0])
                assert await waits[0] is not None
                w.end(runs[0], "running")
            await asyncio.gather(*waits, return_exceptions=True)
        del waits, task
        await asyncio.sleep(1)
        assert len(asyncio.all_tasks()) == 1
        assert queue_entries().keys() <= of_other_tests.keys()
        w.sent.clear()
        await asyncio.sleep(60)
        assert w.sent == []

    play(fake, scenario)


async def test_triggers_of_one_connection_share_and_others_do_not(skyvern: FakeSkyvern, connect: Connect) -> None:
    os.environ["AIRFLOW_CONN_OTHER"] = os.environ["AIRFLOW_CONN_SKYVERN_DEFAULT"]
    try:
        runs = [skyvern.run(plan=("running",)) for _ in range(4)]
        ids = ["skyvern_default", "skyvern_default", "skyvern_default", "other"]
        tasks = [
            asyncio.create_task(first_event(SkyvernRunTrigger(run_id, conn_id, 0.05, time.time() + 60)))
            for run_id, conn_id in zip(runs, ids, strict=True)
        ]
        await asyncio.sleep(0)
        mine = _POLLERS[asyncio.get_running_loop()]
        assert set(mine) == {"skyvern_default", "other"}
        for _ in range(500):
            if all(poller.session._client for poller in mine.values()):
                break
            await asyncio.sleep(0.01)
        assert len({id(mine[name].session._client) for name in mine}) == 2
        elsewhere = asyncio.to_thread(asyncio.run, _poller_of_another_loop())
        assert await elsewhere is not mine["skyvern_default"]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert mine == {}
    finally:
        del os.environ["AIRFLOW_CONN_OTHER"]


async def _poller_of_another_loop() -> object:
    async def connect() -> Settings:
        raise AssertionError("nobody waits")

    return poller_of("skyvern_default", connect)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.slow
async def test_hundreds_of_triggers_leave_no_task_and_no_socket_behind(skyvern: FakeSkyvern) -> None:
    before = open_files()
    for _ in range(3):
        runs = [skyvern.run(plan=("running", "running", "completed")) for _ in range(100)]
        events = await asyncio.gather(
            *(first_event(SkyvernRunTrigger(each, "skyvern_default", 0.05, time.time() + 60)) for each in runs)
        )
        assert [event["run_id"] for event in events] == runs
        assert all(event["reason"] == "ended" for event in events)
    for _ in range(100):
        await asyncio.sleep(0.02)
        if len(asyncio.all_tasks()) == 1 and open_files() <= before + 1:
            break
    assert len(asyncio.all_tasks()) == 1
    assert open_files() <= before + 1
    assert _POLLERS.get(asyncio.get_running_loop()) == {}


def test_a_wait_is_a_wait_also_without_a_trigger(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        run_id = w.running()
        w.end(run_id, "failed")
        wait: Wait[Any] = Wait(run_id, poll_interval=5, deadline=100, log=w.lines, clock=w.loop.time)
        run = await w.poller.wait(wait)
        assert run is not None
        assert run.status == "failed"

    play(fake, scenario)
