"""The client that all waits of one connection share, and the connection that it is made from."""

from __future__ import annotations

import asyncio
import logging
import math
from typing import TYPE_CHECKING, ClassVar, TypeVar

import tenacity

from airflow_skyvern.client import api
from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.client.sender import AsyncSkyvernClient, tls_context
from airflow_skyvern.client.session import AsyncSession, Connect, MakeClient
from airflow_skyvern.exceptions import (
    SkyvernConfigError,
    SkyvernConnectionError,
    SkyvernError,
)

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call
    from airflow_skyvern.client.sender import Observe
    from airflow_skyvern.client.settings import Settings


T = TypeVar("T")

log = logging.getLogger(__name__)

FRESH = 5.0
"""Seconds for which a connection that was just read, or has just changed, is not read again."""

MAX_AGE = 60.0
"""Seconds after which the connection is read again when a request fails or a wait is added."""

KEEPALIVE = 60.0
"""Seconds for which idle connections are kept, so that the next poll needs no handshake."""


def single_attempt_client(settings: Settings, *, observe: Observe | None = None) -> AsyncSkyvernClient:
    """Make a client that does not repeat failed requests: the poller does, later."""
    return AsyncSkyvernClient(settings, retry=RetryPolicy(attempts=1), keep=KEEPALIVE, observe=observe)


class PollSession(AsyncSession):
    """
    A session that reads its connection again now and then, also after errors that a new key does not fix.

    The address or the proxy may have changed. A connection that cannot be read again is used as it was.

    :param connect: Reads the connection.
    """

    connect_patience: ClassVar[float] = 30.0
    """Seconds for which the first reading of the connection is retried: a secrets backend may be unavailable."""

    def __init__(self, connect: Connect, make_client: MakeClient = single_attempt_client) -> None:
        super().__init__(connect, make_client, self._retire)
        self._retired: list[AsyncSkyvernClient] = []
        self._read_not_before = -math.inf

    @property
    def is_old(self) -> bool:
        """Whether the connection may have been edited since it was read."""
        return self._client is not None and self._age >= MAX_AGE

    def lists_as(self, other: PollSession) -> bool:
        """Return whether both get the same list: they are open, and reach the same server with the same key."""
        ours, theirs = self._client, other._client
        return ours is not None and theirs is not None and ours.settings.account == theirs.settings.account

    async def open(self) -> None:
        """
        Read the connection and create the client.

        Airflow reports an unavailable secrets backend as a missing connection, so that error is not believed at once.
        An error in the connection itself is.
        """
        reading = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(lambda error: not isinstance(error, SkyvernConfigError)),
            stop=tenacity.stop_after_delay(self.connect_patience),
            wait=tenacity.wait_exponential(multiplier=0.5, max=8),
            sleep=asyncio.sleep,
            reraise=True,
        )
        settings: Settings = await reading(self._read)
        await asyncio.to_thread(_prepare, settings)
        self._take(settings)

    def unopened_copy(self) -> PollSession:
        """Return a session of the same connection that is not open yet."""
        return PollSession(self._connect, self._make_client)

    async def close(self) -> None:
        """Close the client."""
        await self.close_retired()
        await self.aclose()

    async def close_retired(self) -> None:
        """Close the clients of former connections if no request is in flight."""
        while self._retired:
            await self._retired.pop().aclose()

    async def refresh(self, *, used: AsyncSkyvernClient | None = None) -> bool:
        """Read the connection again, unless that was done lately; see :meth:`AsyncSession.refresh`."""
        async with self._reading:
            if used is not None and self._client is not used:
                return True
            if self._now() < self._read_not_before:
                return False
            try:
                return self._take(await self._connect())
            except Exception as error:  # noqa: BLE001  the failed request says more than why nothing newer can be read
                self._read_at, self._read_not_before = self._now(), self._now() + MAX_AGE
                log.warning("The Skyvern connection could not be read again: %s", error)
                return False

    def _take(self, settings: Settings) -> bool:
        changed = super()._take(settings)
        self._read_not_before = self._now() + (FRESH if changed else MAX_AGE)
        if self._retired and changed:
            log.info("A Skyvern connection has changed: using the new one for %s", settings.base_url)
        return changed

    def _retire(self, client: AsyncSkyvernClient) -> None:
        self._retired.append(client)

    def _may_have_changed(self, error: SkyvernError) -> bool:
        return error.transient or super()._may_have_changed(error)

    async def _read(self) -> Settings:
        return await self._connect()

    async def _sent(self, client: AsyncSkyvernClient, call: Call[T]) -> T:
        """Send a call; once more at once if the server closed the connection: most often it was idle for too long."""
        try:
            return await client.send(call)
        except SkyvernConnectionError as error:
            if not (error.hung_up and call.repeatable):
                raise
        return await client.send(call)


def _prepare(settings: Settings) -> None:
    """Do the first use in a thread, as it takes tens of milliseconds: other triggers share the event loop."""
    tls_context(settings)
    api.list_active_runs(1).parse(b"[]")
    api.get_run_snapshot("").parse(b'{"run_id": "", "status": "created"}')
