from __future__ import annotations

import asyncio
import contextvars
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support.log_lines import LogLines
from tests.support.polling import PollerRig, everything, play

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern


@pytest.mark.slow
def test_a_pause_ends_a_wait_once_and_is_asked_for_once(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        runs = [w.running() for _ in range(10)]
        paused: list[str | None] = []
        waits = [w.start(run_id, on_pause=lambda run: paused.append(run.app_url)) for run_id in runs]
        await asyncio.sleep(20)
        w.end(runs[0], "paused")
        w.sent.clear()
        await asyncio.sleep(100)
        assert paused == [f"http://localhost:8080/runs/{runs[0]}"]
        assert len(w.looks(runs[0])) <= 2
        w.end(runs[0])
        assert await waits[0] is not None

    play(fake, scenario)


def test_two_who_wait_for_the_same_run_both_hear_of_its_end(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        run_id = w.running()
        waits = [w.start(run_id), w.start(run_id), w.start(run_id, 20.0)]
        await asyncio.sleep(30)
        waits[0].cancel()
        w.end(run_id)
        for task in waits[1:]:
            run = await task
            assert run is not None

    play(fake, scenario)


@pytest.mark.parametrize("when", [0.0, 0.01, 0.03, 12.0, 15.01])
def test_who_is_canceled_disturbs_nobody(fake: FakeSkyvern, when: float) -> None:
    async def scenario(w: PollerRig) -> None:
        runs = [w.running() for _ in range(20)]
        waits = [w.start(run_id) for run_id in runs]
        await asyncio.sleep(when)
        for task in waits[:10]:
            task.cancel()
        for run_id in runs:
            w.end(run_id)
        ended = await asyncio.gather(*waits, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended[:10])
        assert all(getattr(end, "is_final", False) for end in ended[10:])

    play(fake, scenario)


def test_the_last_who_leaves_closes_the_client_and_the_next_opens_another(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        for _ in range(3):
            run_id = w.running()
            w.end(run_id)
            assert await w.wait(run_id) is not None
            await asyncio.sleep(1)
            assert len(asyncio.all_tasks()) == 1
            assert all(client._http.is_closed for client in w.clients)
        assert len(w.clients) == 3

    play(fake, scenario)


def test_who_comes_in_the_moment_the_last_leaves_is_not_forgotten(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        for pause in (0.0, w.latency / 2, w.latency, 2 * w.latency):
            first, second = w.running(), w.running()
            w.end(first)
            w.end(second)
            await w.wait(first)
            await asyncio.sleep(pause)
            assert await w.wait(second) is not None

    play(fake, scenario)


def test_each_wait_logs_in_the_context_of_its_own_trigger(fake: FakeSkyvern) -> None:
    trigger = contextvars.ContextVar("trigger", default="nobody's")

    async def scenario(w: PollerRig) -> None:
        logged: list[tuple[str, str]] = []

        class Log(LogLines):
            def info(self, msg: str, /, *args: Any) -> None:
                logged.append((args[0], trigger.get()))

        w.lines = Log()
        runs = [w.running() for _ in range(5)]
        for run_id in runs:
            trigger.set(f"of {run_id}")
            w.start(run_id)
        trigger.set("nobody's")
        await asyncio.sleep(20)
        for run_id in runs:
            w.end(run_id)
        await asyncio.sleep(20)
        assert len(logged) == 10
        assert all(context == f"of {run_id}" for run_id, context in logged)

    play(fake, scenario)


def test_a_log_that_cannot_be_written_ends_only_its_own_wait(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        class Broken(LogLines):
            def info(self, msg: str, /, *args: Any) -> None:
                raise OSError("the disk is full")

        others = [w.start(w.running()) for _ in range(5)]
        await asyncio.sleep(0)
        w.lines = Broken()
        task = w.start(w.running())
        with pytest.raises(OSError, match="disk is full"):
            await task
        await asyncio.sleep(20)
        assert not any(other.done() for other in others)

    play(fake, scenario)


def test_waits_that_nobody_looks_at_say_so_now_and_then(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        for _ in range(10):
            w.start(w.running())
        await asyncio.sleep(10)
        w.instead = everything(httpx.Response(503))
        await asyncio.sleep(600)
        silent = [line for line in w.lines.lines if "not polled for some minutes" in line]
        assert 10 <= len(silent) <= 30

    play(fake, scenario)
