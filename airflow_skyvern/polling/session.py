"""The client that all waits of one connection share, as long as they are."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from airflow_skyvern.client import api
from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.client.sender import AsyncSkyvernClient, tls_context
from airflow_skyvern.exceptions import SkyvernAuthError, SkyvernConnectionError, SkyvernNotFoundError

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call
    from airflow_skyvern.client.settings import Settings
    from airflow_skyvern.models import RunSnapshot

T = TypeVar("T")
Connect = Callable[[], Awaitable["Settings"]]
MakeClient = Callable[["Settings"], AsyncSkyvernClient]

log = logging.getLogger(__name__)

REREAD = 5.0
"""Seconds for which a connection that was read again is taken for what it is."""

KEEP = 60.0
"""Seconds for which idle connections are kept, so that the next look needs no handshake."""


def single_attempt_client(settings: Settings) -> AsyncSkyvernClient:
    """Make a client for those who repeat a failed look themselves, later."""
    return AsyncSkyvernClient(settings, retry=RetryPolicy(attempts=1), keep=KEEP)


class PollSession:
    """
    A client, and another one as soon as the connection holds another key.

    :param connect: Reads the connection.
    """

    def __init__(self, connect: Connect, make_client: MakeClient = single_attempt_client) -> None:
        self._connect = connect
        self._make_client = make_client
        self._client: AsyncSkyvernClient | None = None
        self._retired: list[AsyncSkyvernClient] = []
        self._renewing = asyncio.Lock()
        self._read = -math.inf

    async def open(self) -> None:
        """Read the connection and make the client."""
        settings = await self._connect()
        await asyncio.to_thread(_prepare, settings)
        self._client = self._make_client(settings)

    def anew(self) -> PollSession:
        """Return one that is not open yet."""
        return PollSession(self._connect, self._make_client)

    async def close(self) -> None:
        """Close the client."""
        await self.close_retired()
        if self._client is not None:
            await self._client.aclose()

    async def close_retired(self) -> None:
        """Close the clients with former keys, when no request is under way any more."""
        while self._retired:
            await self._retired.pop().aclose()

    async def send(self, call: Call[T]) -> T:
        """Send a call; once more if its key is refused and the connection has another one."""
        client = self._client
        assert client is not None
        try:
            return await _sent(client, call)
        except SkyvernAuthError:
            if not await self._renewed(client):
                raise
        assert self._client is not None
        return await _sent(self._client, call)

    async def glance(self, run_id: str, *, workflow_deleted: bool = False) -> tuple[RunSnapshot, bool]:
        """
        Look at a run, also when its workflow was deleted while it runs.

        :param workflow_deleted: Whether that is known already.
        :returns: the run, and whether it is such a one.
        """
        if not workflow_deleted:
            try:
                return await self.send(api.get_run_snapshot(run_id)), False
            except SkyvernNotFoundError as error:
                if not error.workflow_gone:
                    raise
        return await self.send(api.get_run_snapshot(run_id, workflow_deleted=True)), True

    async def _renewed(self, refused: AsyncSkyvernClient) -> bool:
        """Read the connection again, and tell whether its key is another one now."""
        async with self._renewing:
            now = asyncio.get_running_loop().time()
            if self._client is not refused:
                return True
            if now - self._read < REREAD:
                return False
            self._read = now
            try:
                settings = await self._connect()
            except Exception as error:  # noqa: BLE001  the refusal itself says more than why there is no newer key
                log.warning("The Skyvern connection could not be read again: %s", error)
                return False
            if settings == refused.settings:
                return False
            log.info("A Skyvern connection has changed: trying its new key")
            self._retired.append(refused)
            self._client = self._make_client(settings)
            return True


async def _sent(client: AsyncSkyvernClient, call: Call[T]) -> T:
    """Send a call; again, once and at once, if the server has hung up: most often the connection was too old."""
    try:
        return await client.send(call)
    except SkyvernConnectionError as error:
        if not (error.hung_up and call.repeatable):
            raise
    return await client.send(call)


def _prepare(settings: Settings) -> None:
    """Make what takes tens of milliseconds the first time, in a thread: other triggers share the event loop."""
    tls_context(settings.verify)
    api.list_active_runs(1).parse(b"[]")
    api.get_run_snapshot("").parse(b'{"run_id": "", "status": "created"}')
