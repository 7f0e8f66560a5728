"""
``make bench RIG=simulation``: more waits than one machine runs, over several triggerers, in virtual time.

Each triggerer is the poller that its waits share, before one server that answers after LATENCY seconds. Counted are
the requests that reach the server and the seconds from the end of a run until its wait ends. Memory is measured: what
the process of a row grows by, the server's own rows left out. PLANS="100000:10:60" narrows it to waits, triggerers
and poll interval; the rows of docs/performance.md are all of them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.client.sender import AsyncSkyvernClient
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.limits import LAST_RUNS_PAGE, PAGE_SIZE
from airflow_skyvern.polling.poller import RunPoller
from airflow_skyvern.runs.wait import Wait
from airflow_skyvern.testing.fake.skyvern import API_KEY, FakeSkyvern
from dev.memory import memory_kib
from dev.virtual_time import run_virtually

if TYPE_CHECKING:
    from airflow_skyvern.models import RunSnapshot

ROOT = Path(__file__).resolve().parent.parent
LATENCY = 0.02
"""Seconds in which the server answers a request."""

ENDS = 400
"""Runs that end while the requests are counted."""

PLANS = (
    (100, 1, 5.0),
    (1_000, 1, 5.0),
    (1_000, 2, 5.0),
    (1_000, 4, 5.0),
    (10_000, 1, 5.0),
    (10_000, 1, 30.0),
    (10_000, 4, 30.0),
    (100_000, 10, 60.0),
    (100_000, 10, 300.0),
)
"""Waits, triggerers that share them, and seconds between two polls."""


class Server:
    """
    A Skyvern whose runs are active until they are ended.

    :param count: How many runs it has.
    """

    def __init__(self, count: int) -> None:
        fake = FakeSkyvern()
        model = fake.run(plan=("running",))
        fake.runs[model].look()
        headers = {"x-api-key": API_KEY}
        self._row = json.dumps(fake.handle(httpx.Request("GET", "http://x/v1/runs", headers=headers)).json()[0])
        self._snapshot = fake.handle(httpx.Request("GET", f"http://x/v1/runs/{model}", headers=headers)).text
        fake.runs[model].workflow.plan = [{"status": "completed"}]
        fake.runs[model].step = 0
        self._ended = fake.handle(httpx.Request("GET", f"http://x/v1/runs/{model}", headers=headers)).text
        self._model = model
        self.active = {f"wr_{number:018}": None for number in range(count)}
        self._listed: list[str] = list(self.active)
        self.lists = self.fetches = 0

    def end(self, run_id: str) -> None:
        """Let a run end now."""
        del self.active[run_id]
        self._listed = []

    async def answer(self, request: httpx.Request) -> httpx.Response:
        """Answer a request as Skyvern does."""
        await asyncio.sleep(LATENCY)
        if request.url.path == "/v1/runs":
            self.lists += 1
            page = int(request.url.params["page"])
            assert page <= LAST_RUNS_PAGE
            self._listed = self._listed or list(self.active)
            rows = self._listed[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
            text = ",".join(self._row.replace(self._model, run_id) for run_id in rows)
            return httpx.Response(200, headers={"content-type": "application/json"}, text=f"[{text}]")
        found = re.fullmatch(r"/v1/runs/(\w+)", request.url.path)
        assert found, request.url
        self.fetches += 1
        answer = self._snapshot if found[1] in self.active else self._ended
        text = answer.replace(self._model, found[1])
        return httpx.Response(200, headers={"content-type": "application/json"}, text=text)


class Silent(logging.LoggerAdapter[logging.Logger]):
    """The log of a task that nobody reads."""

    def __init__(self) -> None:
        logger = logging.getLogger("simulation")
        logger.disabled = True
        super().__init__(logger, {})


async def simulated(waits: int, triggerers: int, interval: float) -> dict[str, float]:
    """Let the waits settle, then count for some intervals, in which some runs end."""
    loop = asyncio.get_running_loop()
    server = Server(waits)
    before = memory_kib("VmRSS")

    async def connect() -> Settings:
        return Settings(API_KEY, "http://127.0.0.1:1")

    def client(settings: Settings) -> AsyncSkyvernClient:
        transport = httpx.MockTransport(server.answer)
        return AsyncSkyvernClient(settings, retry=RetryPolicy(attempts=1), transport=transport)

    pollers = [RunPoller(connect, make_client=client) for _ in range(triggerers)]
    noticed: dict[str, float] = {}

    async def wait_for(run_id: str, poller: RunPoller) -> None:
        wait: Wait[RunSnapshot] = Wait(
            run_id, poll_interval=interval, deadline=1e9, log=Silent(), clock=loop.time, on_pause=lambda _: None
        )
        await poller.wait(wait, first_poll_delay=random.uniform(0, interval))
        noticed[run_id] = loop.time()

    tasks = {
        run_id: loop.create_task(wait_for(run_id, pollers[number % triggerers]))
        for number, run_id in enumerate(server.active)
    }
    await asyncio.sleep(2 * interval)
    grown = memory_kib("VmRSS") - before
    server.lists = server.fetches = 0
    ended: dict[str, float] = {}
    seconds = max(60.0, 2 * interval)
    for run_id in random.sample(list(server.active), min(ENDS, waits // 2)):
        await asyncio.sleep(seconds / min(ENDS, waits // 2))
        server.end(run_id)
        ended[run_id] = loop.time()
    lists, fetches = server.lists, server.fetches
    await asyncio.gather(*(tasks[run_id] for run_id in ended))
    assert noticed.keys() == ended.keys(), "no wait ends before its run"
    late = statistics.quantiles((noticed[run_id] - when for run_id, when in ended.items()), n=100)
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    await asyncio.sleep(1)
    return {
        "lists": lists / seconds,
        "fetches": fetches / seconds,
        "p50": late[49],
        "p95": late[94],
        "max": max(noticed[run_id] - when for run_id, when in ended.items()),
        "megabytes": grown / 1024,
    }


def main() -> int:
    """Simulate each plan in a process of its own, for its memory, and print the table."""
    if len(sys.argv) > 1:
        waits, triggerers, interval = sys.argv[1].split(":")
        print(json.dumps(run_virtually(simulated(int(waits), int(triggerers), float(interval)))))
        return 0
    wanted = os.environ.get("PLANS", "").split() or [":".join(map(str, plan)) for plan in PLANS]
    print("| waits | triggerers | `poll_interval` | lists/s | fetches/s | end noticed p50 / p95 / max | memory |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for plan in wanted:
        began = time.monotonic()
        made = subprocess.run(
            [sys.executable, "-m", "benchmarks.simulation", plan], cwd=ROOT, check=True, stdout=subprocess.PIPE
        )
        found = json.loads(made.stdout)
        waits, triggerers, interval = plan.split(":")
        late = " / ".join(f"{found[name]:.1f}" for name in ("p50", "p95", "max"))
        requests = f"{found['lists']:.1f} | {found['fetches']:.1f}"
        row = f"{int(waits):,} | {triggerers} | {float(interval):g} s | {requests} | {late} s"
        print(f"| {row} | {found['megabytes']:.0f} MB |", flush=True)
        print(f"{plan}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
