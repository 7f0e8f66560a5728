"""
One event loop with many triggers, as in a triggerer; each measurement has its own process.

Run as ``python -m benchmarks.loop HOST:PORT``. It prints ``{"idle_mb": …}`` when it has imported what an idle
triggerer has imported, reads a :class:`~benchmarks.plan.Plan` from its standard input, runs it, and prints the
observations.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import selectors
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from benchmarks.contenders import contender
from benchmarks.plan import PHASES, Plan
from benchmarks.server import allow_many_files, end_with_parent
from dev.memory import memory_kib

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.triggers.base import BaseTrigger

LOOPBACK = ("127.0.0.1", "::1")
MEGABYTE = 1e6


class WatchedSelector(selectors.DefaultSelector):
    """
    Measures how long the loop was busy: from one ``select`` to the next.

    While it is busy nothing else runs: a stall for everything else that is due. This needs no timer.
    """

    def __init__(self) -> None:
        super().__init__()
        self._longest = self._longest_cpu = self._away = 0.0
        self._back: tuple[float, float] | None = None

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Note how long the loop was busy, then select."""
        if self._back is not None:
            self._note(time.perf_counter() - self._back[0])
            self._longest_cpu = max(self._longest_cpu, time.thread_time() - self._back[1])
        self._back = None
        found = super().select(timeout)
        self._back = (time.perf_counter(), time.thread_time())
        return found

    def take(self) -> dict[str, float]:
        """
        Return the longest stall (and the longest by CPU time alone) and all busy time since the last call.

        Called from another thread, so that it runs in time when the loop is late.
        """
        if (back := self._back) is not None:
            self._note(time.perf_counter() - back[0])
            self._back = (time.perf_counter(), back[1])
        taken = {"stall": self._longest, "stall_cpu": self._longest_cpu, "away": self._away}
        self._longest = self._longest_cpu = self._away = 0.0
        return taken

    def _note(self, away: float) -> None:
        self._away += away
        self._longest = max(self._longest, away)


class WatchedCollector:
    """Measures how long Python's garbage collector stopped everything."""

    def __init__(self) -> None:
        self._longest = self._began = 0.0
        gc.callbacks.append(self._note)

    def _note(self, when: str, _: object) -> None:
        now = time.perf_counter()
        if when == "start":
            self._began = now
        else:
            self._longest = max(self._longest, now - self._began)

    def take(self) -> dict[str, float]:
        """Return the longest run since the last call."""
        taken, self._longest = self._longest, 0.0
        return {"collector": taken}


def memory_mb(entry: str = "VmRSS") -> float:
    """Return the resident memory of this process, or its highest value so far (VmHWM)."""
    return memory_kib(entry) * 1024 / MEGABYTE


def forget_highest_memory() -> None:
    """Reset VmHWM."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def stay_on_loopback(strays: list[str]) -> None:
    """Refuse and record every connection beyond loopback, from any library."""

    def check(event: str, details: tuple[Any, ...]) -> None:
        if event == "socket.connect" and isinstance(address := details[1], tuple) and address[0] not in LOOPBACK:
            strays.append(str(address))
            raise OSError(f"the benchmark stays on loopback: {address}")

    sys.addaudithook(check)


@dataclass
class Observed:
    """The observations of the loop."""

    idle_mb: float
    latencies: dict[int, float] = field(default_factory=dict)
    early: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    phases: dict[str, dict[str, float]] = field(default_factory=dict)
    strays: list[str] = field(default_factory=list)
    most_mb: float = 0.0
    begun: int = 0


class Measurement:
    """Runs one plan."""

    def __init__(self, plan: Plan, observed: Observed, selector: WatchedSelector) -> None:
        self.plan = plan
        self.observed = observed
        self._selector = selector
        self._make: Callable[[int, float], BaseTrigger] = contender(plan.contender).make
        self._succeeded = contender(plan.contender).succeeded
        self._tasks: set[asyncio.Task[None]] = set()
        self._left = plan.ending
        self._successors = plan.successors  # computed now: thousands of objects that are not the triggers'
        self._all_seen = threading.Event()

    async def run(self) -> NoReturn:
        """Begin all waits; the thread that measures the phases ends the process."""
        await asyncio.sleep(max(0.0, self.plan.zero - time.time()))
        threading.Thread(target=self._note_phases, daemon=True).start()
        for number in range(self.plan.waits):
            await asyncio.sleep(0)  # as TriggerRunner.create_triggers does
            self._begin(number)
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    def _note_phases(self) -> NoReturn:
        """Measure each phase and print the numbers, even when the loop is too busy to do anything."""
        self._selector.take()
        collector = WatchedCollector()
        cpu, wall = time.process_time(), time.time()
        for phase, moment in zip(PHASES, self.plan.boundaries[1:], strict=True):
            time.sleep(max(0.0, moment - time.time()))
            before, (cpu, wall) = (cpu, wall), (time.process_time(), time.time())
            costs = {"cpu": cpu - before[0], "seconds": wall - before[1]}
            self.observed.phases[phase] = {**costs, **self._selector.take(), **collector.take()}
        if self._left:
            self._all_seen.wait(self.plan.grace)
        self.observed.most_mb = memory_mb("VmHWM")
        seen = {**vars(self.observed), "latencies": dict(self.observed.latencies), "wrong": dict(self.observed.wrong)}
        print(json.dumps(seen), flush=True)
        os._exit(0)  # thousands of waits are still open; ending them is not part of the measurement

    def _begin(self, number: int) -> None:
        self.observed.begun += 1
        task = asyncio.create_task(self._wait(number))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _wait(self, number: int) -> None:
        """Run one trigger as TriggerRunner.run_trigger does, and record its events."""
        import greenback

        await greenback.ensure_portal()
        events = 0
        try:
            trigger = self._make(number, self.plan.interval)
            async for event in trigger.run():
                events += 1
                self._record(number, event.payload)
            await trigger.cleanup()
        except Exception as error:  # noqa: BLE001  whatever a trigger raises is a result
            self.observed.wrong[f"raised {type(error).__name__}: {error}"[:300]] += 1
            return
        if events != 1:
            self.observed.wrong[f"{events} events of one trigger"] += 1
        successor = self._successors.get(number)
        if successor is not None:
            self._begin(successor)

    def _record(self, number: int, payload: Any) -> None:
        latency = time.time() - self.plan.zero - self.plan.jobs[number].ends
        if not self._succeeded(payload):
            self.observed.wrong[f"event {payload}"[:300]] += 1
        elif latency < 0:
            self.observed.early += 1
        else:
            self.observed.latencies[number] = latency
        self._left -= 1
        if not self._left:
            self._all_seen.set()


def import_what_a_triggerer_has() -> None:
    """Import what a triggerer has imported before its first trigger, and drop log lines below WARNING."""
    import airflow.jobs.triggerer_job_runner  # noqa: F401
    from airflow.sdk.log import configure_logging

    configure_logging(log_level="WARNING", json_output=True, output=sys.stderr.buffer)


def main(address: str) -> None:
    """Run the measurement that standard input describes."""
    allow_many_files()
    strays: list[str] = []
    stay_on_loopback(strays)
    import_what_a_triggerer_has()
    gc.collect()
    forget_highest_memory()
    observed = Observed(idle_mb=memory_mb(), strays=strays)
    print(json.dumps({"idle_mb": observed.idle_mb}), flush=True)
    plan = Plan.from_json(sys.stdin.readline())
    end_with_parent()
    contender(plan.contender).prepare(address)
    selector = WatchedSelector()
    loop = asyncio.SelectorEventLoop(selector)
    asyncio.set_event_loop(loop)
    loop.run_until_complete(Measurement(plan, observed, selector).run())


if __name__ == "__main__":
    main(sys.argv[1])
