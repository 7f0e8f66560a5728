"""
The client of a connection, and another one as soon as the connection has changed: a rotated key, another address.

There is a session for threads and one for an event loop. A session reads the connection when it is first used, and
again when its owner says so or Skyvern refuses the key; the one for threads also when no answer comes, at most once a
minute. A replaced client may have requests in flight; its owner decides when to close it.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from airflow_skyvern.client import api
from airflow_skyvern.client.retry import may_repeat
from airflow_skyvern.client.sender import AsyncSkyvernClient, SkyvernClient
from airflow_skyvern.exceptions import (
    SkyvernAuthError,
    SkyvernConnectionError,
    SkyvernError,
    SkyvernNotFoundError,
)

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call
    from airflow_skyvern.client.settings import Settings
    from airflow_skyvern.client.streaming import Incoming
    from airflow_skyvern.models import Run, RunSnapshot

T = TypeVar("T")

Send = Callable[["Call[Any]"], Any]
SendAsync = Callable[["Call[Any]"], Awaitable[Any]]
Connect = Callable[[], Awaitable["Settings"]]
MakeClient = Callable[["Settings"], AsyncSkyvernClient]


REREAD_INTERVAL = 60.0
"""Seconds for which a connection is not read again because no answer comes."""


def has_changed(client: SkyvernClient | AsyncSkyvernClient, settings: Settings) -> bool:
    """Return whether a connection that was read again differs from the one that a client was created for."""
    return settings.fingerprint != client.fingerprint


def checked(send: Send, check: Callable[[], object]) -> Send:
    """Return a sender that checks once more right before it writes a call that changes something."""
    return lambda call: send(call if call.method == "GET" else replace(call, before_sending=check))


class Session:
    """
    The client that several threads share.

    :param read: Reads the connection.
    :param make_client: Makes a client of it.
    :param on_change: Called when the connection has changed, before its new client is made.
    """

    def __init__(
        self,
        read: Callable[[], Settings],
        make_client: Callable[[Settings], SkyvernClient],
        on_change: Callable[[], object] = lambda: None,
    ) -> None:
        self._read = read
        self._make_client = make_client
        self._on_change = on_change
        # One that the same thread may take twice: a signal handler interrupts it anywhere.
        self._lock = threading.RLock()
        self._read_at = -math.inf
        self.current: SkyvernClient | None = None
        """The client, if there is one; a signal handler may read it, as no lock is taken for that."""

    def client(self) -> SkyvernClient:
        """Return the client; it is made once."""
        with self._lock:
            if self.current is None:
                self.current = self._make_client(self._settings())
            return self.current

    def forget(self) -> None:
        """Forget the client; the next call makes another one."""
        with self._lock:
            self.current = None

    def send(self, call: Call[T]) -> T:
        """
        Send a call; once more if Skyvern refuses the key, or no answer comes, and the connection has changed since.

        A call that may have started something is not sent again; the next one uses the changed connection.
        """
        client = self.client()
        try:
            return client.send(call)
        except SkyvernAuthError as error:
            newer = self._newer(client, error)
        except SkyvernConnectionError as error:
            newer = self._moved(client, call, error)
        return newer.send(call)

    @contextmanager
    def stream(self, call: Call[Any], start: int = 0) -> Iterator[Incoming]:
        """Send a call and hand over its answer as it arrives; the rest is as with :meth:`send`."""
        client = self.client()
        with ExitStack() as stack:
            try:
                incoming = stack.enter_context(client.stream(call, start))
            except SkyvernAuthError as error:
                incoming = stack.enter_context(self._newer(client, error).stream(call, start))
            yield incoming

    def _moved(self, used: SkyvernClient, call: Call[Any], failure: SkyvernConnectionError) -> SkyvernClient:
        """Return the client of a connection that has changed since no answer came; an error here hides nothing."""
        if call.within is not None or time.monotonic() - self._read_at < REREAD_INTERVAL:
            raise failure
        try:
            newer = self._newer(used, failure)
        except Exception as error:  # noqa: BLE001  Airflow may be away too; the failure of the request is what counts
            raise failure from (None if error is failure else error)
        if not may_repeat(call, failure):
            raise failure
        return newer

    def _settings(self) -> Settings:
        self._read_at = time.monotonic()
        return self._read()

    def _newer(self, used: SkyvernClient, failure: SkyvernError) -> SkyvernClient:
        """Return a client of a connection that has changed since; the first thread makes it for all."""
        with self._lock:
            if self.current is None or self.current is used:
                settings = self._settings()
                if not has_changed(used, settings):
                    raise failure
                self._on_change()
                self.current = self._make_client(settings)
            return self.current


class Kept(Generic[T]):
    """
    A value that is read from an event loop and kept; one caller at a time reads it.

    :param read: Reads it.
    """

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._reading = asyncio.Lock()
        self._kept: T | None = None
        self.read_at = -math.inf

    async def get(self, max_age: float = math.inf) -> T:
        """Return the value, which was read so many seconds ago at the most."""
        async with self._reading:
            if self._kept is None or time.monotonic() - self.read_at > max_age:
                self._kept = await self._read()
                self.read_at = time.monotonic()
            return self._kept


class AsyncSession:
    """
    The client of an event loop.

    :param connect: Reads the connection.
    :param make_client: Makes a client of it.
    :param on_change: Gets the client that is replaced when the connection has changed, before another one is made.
    :param fresh: Seconds for which a connection that was just read is not read again after a refused key.
    """

    def __init__(
        self,
        connect: Connect,
        make_client: MakeClient,
        on_change: Callable[[AsyncSkyvernClient], object] = lambda _: None,
        *,
        fresh: float = 0.0,
    ) -> None:
        self._connect = connect
        self._make_client = make_client
        self._on_change = on_change
        self._fresh = fresh
        self._client: AsyncSkyvernClient | None = None
        self._reading = asyncio.Lock()
        self._read_at = -math.inf

    async def client(self, max_age: float = math.inf) -> AsyncSkyvernClient:
        """Return the client of the connection as it is now, or was so many seconds ago at the most."""
        if self._client is not None and self._age <= max_age:
            return self._client  # also while the connection is being read again
        async with self._reading:
            if self._client is None or self._age > max_age:
                self._take(await self._connect())
            assert self._client is not None
            return self._client

    async def send(self, call: Call[T]) -> T:
        """Send a call; once more if it failed and the connection has changed since."""
        client = await self.client()
        try:
            return await self._sent(client, call)
        except SkyvernError as error:
            if not (self._may_have_changed(error) and await self.refresh(used=client)):
                raise
        return await self._sent(await self.client(), call)

    async def refresh(self, *, used: AsyncSkyvernClient | None = None) -> bool:
        """
        Read the connection again, unless that was just done.

        :param used: The client whose request failed.
        :returns: whether there is another client than that now.
        """
        async with self._reading:
            if used is not None and self._client is not used:
                return True
            return self._age >= self._fresh and self._take(await self._connect())

    async def aclose(self) -> None:
        """Close the client, if there is one."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _may_have_changed(self, error: SkyvernError) -> bool:
        """Return whether a changed connection may be why a request failed."""
        return isinstance(error, SkyvernAuthError)

    async def _sent(self, client: AsyncSkyvernClient, call: Call[T]) -> T:
        return await client.send(call)

    def _take(self, settings: Settings) -> bool:
        """Use this connection from now on; return whether it differs from the one used so far."""
        self._read_at = self._now()
        if self._client is not None:
            if not has_changed(self._client, settings):
                return False
            self._on_change(self._client)
        self._client = self._make_client(settings)
        return True

    @property
    def _age(self) -> float:
        return self._now() - self._read_at

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def fetch_run(send: Send, run_id: str) -> Run:
    """Fetch a run with its output, also when its workflow was deleted while it runs."""
    try:
        run: Run = send(api.get_run(run_id))
    except SkyvernNotFoundError as error:
        run = send(api.get_run_despite(error, run_id))
    return run


async def afetch_run(send: SendAsync, run_id: str) -> Run:
    """:func:`fetch_run` for an event loop."""
    try:
        run: Run = await send(api.get_run(run_id))
    except SkyvernNotFoundError as error:
        run = await send(api.get_run_despite(error, run_id))
    return run


async def afetch_snapshot(
    send: SendAsync, run_id: str, *, workflow_deleted: bool = False
) -> tuple[RunSnapshot, bool]:
    """
    Fetch a run without its output, also when its workflow was deleted while it runs.

    :param workflow_deleted: Whether that is known already.
    :returns: the run, and whether its workflow was deleted.
    """
    if not workflow_deleted:
        try:
            return await send(api.get_run_snapshot(run_id)), False
        except SkyvernNotFoundError as error:
            api.get_run_despite(error, run_id)  # raises unless only the workflow is gone
    return await send(api.get_run_snapshot(run_id, workflow_deleted=True)), True
