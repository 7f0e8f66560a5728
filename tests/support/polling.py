"""A poller before the fake, in virtual time, and what it requested when."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import httpx

from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.client.sender import AsyncSkyvernClient
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.polling.poller import _POLLERS, RunPoller
from airflow_skyvern.runs.block_log import BlockLog
from airflow_skyvern.runs.wait import Wait
from airflow_skyvern.testing.fake.skyvern import API_KEY, FakeSkyvern
from dev.virtual_time import run_virtually
from tests.support.log_lines import LogLines

if TYPE_CHECKING:
    from airflow_skyvern.models import RunSnapshot


class PollerRig:
    """
    Waits for runs of a fake; use it within a virtual loop.

    ``instead``: answers a request instead of the fake if it returns something.

    :param conn_id: This connection's poller, which other rigs of the event loop know; without it, nobody does.
    """

    def __init__(self, fake: FakeSkyvern, *, latency: float = 0.02, conn_id: str | None = None) -> None:
        self.fake = fake
        self.latency = latency
        self.loop = asyncio.get_running_loop()
        self.key = API_KEY
        self.base_url = "http://127.0.0.1:1"
        self.proxy: str | None = None
        self.connected = 0
        self.clients: list[AsyncSkyvernClient] = []
        self.sent: list[tuple[float, str]] = []
        self.lines = LogLines()
        self.instead: Callable[[httpx.Request], httpx.Response | None] = lambda request: None
        self.poller = RunPoller(self._connect, make_client=self._client)
        if conn_id is not None:
            _POLLERS.setdefault(self.loop, {})[conn_id] = self.poller

    def running(self) -> str:
        """Add a run that is active until :meth:`end`."""
        run_id = self.fake.run(plan=("running",))
        self.fake.runs[run_id].look()
        return run_id

    def end(self, run_id: str, status: str = "completed", **more: Any) -> None:
        """Let a run be in this status from now on."""
        run = self.fake.runs[run_id]
        run.workflow.plan, run.step = [{"status": status, **more}], 0

    async def wait(
        self,
        run_id: str,
        interval: float = 5.0,
        *,
        seconds: float = 3600.0,
        first_poll_delay: float = 0.0,
        log_blocks: bool = False,
        **more: Any,
    ) -> RunSnapshot | None:
        """Wait for a run as a trigger does."""
        blocks = BlockLog(run_id, self.lines, clock=self.loop.time) if log_blocks else None
        wait: Wait[RunSnapshot] = Wait(
            run_id,
            poll_interval=interval,
            deadline=self.loop.time() + seconds,
            log=self.lines,
            clock=self.loop.time,
            **more,
        )
        return await self.poller.wait(wait, first_poll_delay=first_poll_delay, blocks=blocks)

    def start(self, run_id: str, interval: float = 5.0, **more: Any) -> asyncio.Task[RunSnapshot | None]:
        """Wait in the background."""
        return self.loop.create_task(self.wait(run_id, interval, **more))

    @property
    def lists(self) -> list[float]:
        """When a page of the list was asked for."""
        return [when for when, path in self.sent if path == "/v1/runs"]

    @property
    def timelines(self) -> list[float]:
        """When any timeline was asked for."""
        return [when for when, path in self.sent if path.endswith("/timeline")]

    def looks(self, run_id: str | None = None) -> list[float]:
        """When a run, or any, was asked for itself."""
        wanted = re.compile(f"/v1/(workflows/)?runs/{run_id or '.+'}")
        return [when for when, path in self.sent if wanted.fullmatch(path)]

    async def _connect(self) -> Settings:
        self.connected += 1
        await asyncio.sleep(self.latency)
        return Settings(self.key, self.base_url, proxy=self.proxy)

    def _client(self, settings: Settings) -> AsyncSkyvernClient:
        client = AsyncSkyvernClient(
            settings, retry=RetryPolicy(attempts=1), transport=httpx.MockTransport(self._answer)
        )
        self.clients.append(client)
        return client

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.sent.append((self.loop.time(), request.url.path))
        await asyncio.sleep(self.latency)
        instead = self.instead(request)
        if instead is not None:
            return instead
        return self.fake.handle(request)


Scenario = Callable[[PollerRig], Awaitable[None]]


def play(fake: FakeSkyvern, scenario: Scenario, **more: Any) -> None:
    """Play a scenario in virtual time; nothing of it may be left at its end."""

    async def played() -> None:
        watching = PollerRig(fake, **more)
        await scenario(watching)
        await asyncio.sleep(1)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        assert all(client._http.is_closed for client in watching.clients)

    run_virtually(played())


def refused(status: int) -> Callable[[httpx.Request], httpx.Response | None]:
    """Refuse the list of active runs."""

    def answer(request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(status, json={"detail": "no"}) if request.url.path == "/v1/runs" else None

    return answer


def everything(answer: httpx.Response | Exception) -> Callable[[httpx.Request], httpx.Response | None]:
    """Answer every request with this."""

    def instead(request: httpx.Request) -> httpx.Response | None:
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    return instead
