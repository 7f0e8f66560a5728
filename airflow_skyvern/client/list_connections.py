"""
The connections for lists of runs, with asyncio itself in place of anyio, which takes a fifth of such a request.

httpcore does everything else, as for all requests; this is what it calls a network backend. Ten thousand waits read
twenty lists per second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import httpcore
import httpx

if TYPE_CHECKING:
    import ssl

HAPPY_EYEBALLS_DELAY = 0.25
"""Seconds after which the next address of a host is tried, too; anyio's value."""

MOST_CHUNKS = 16
"""How much may arrive before it is read: 4 MB, as asyncio reads up to 256 kB at once."""


class ListTransport(httpx.AsyncHTTPTransport):
    """
    Carries one list at a time, over one connection that is kept.

    :param keep: Seconds for which the connection is kept.
    """

    def __init__(self, context: ssl.SSLContext, keep: float) -> None:
        super().__init__(verify=context, trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(  # what the super class makes, but for the last argument
            ssl_context=context,
            max_connections=1,
            max_keepalive_connections=1,
            keepalive_expiry=keep,
            network_backend=_Backend(),
        )


class _Backend(httpcore.AsyncNetworkBackend):
    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        loop = asyncio.get_running_loop()
        with _errors(httpcore.ConnectTimeout, httpcore.ConnectError):
            connecting = loop.create_connection(_Stream, host, port, happy_eyeballs_delay=HAPPY_EYEBALLS_DELAY)
            _, stream = await asyncio.wait_for(connecting, timeout)
        return stream

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Stream(asyncio.Protocol, httpcore.AsyncNetworkStream):
    """A connection; one request at a time reads and writes."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._received: list[bytes] = []
        self._ended = False
        self._error: Exception | None = None
        self._reading: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received.append(data)
        if len(self._received) == MOST_CHUNKS:
            self._transport.pause_reading()
        self._wake_up()

    def eof_received(self) -> None:
        self._ended = True
        self._wake_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended, self._error = True, exc
        self._wake_up()

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        if not (self._received or self._ended):
            self._reading = self._loop.create_future()
            late = None if timeout is None else self._loop.call_later(timeout, self._wake_up)
            try:
                await self._reading
            finally:
                self._reading = None
                if late is not None:
                    late.cancel()
        if self._received:
            data = self._received.pop(0)
            if len(data) > max_bytes:
                self._received.insert(0, data[max_bytes:])
            elif len(self._received) == MOST_CHUNKS - 1:
                self._transport.resume_reading()
            return data[:max_bytes]
        if self._error is not None:
            raise httpcore.ReadError(str(self._error)) from self._error
        if not self._ended:
            raise httpcore.ReadTimeout
        return b""

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Write; a request for a list is short, and is in the kernel's buffer at once."""
        if self._ended:
            raise httpcore.WriteError(str(self._error or "the server has closed the connection"))
        if buffer:
            self._transport.write(buffer)

    async def aclose(self) -> None:
        self._transport.abort()

    async def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.AsyncNetworkStream:
        with _errors(httpcore.ConnectTimeout, httpcore.ConnectError):
            starting = self._loop.start_tls(self._transport, self, ssl_context, server_hostname=server_hostname)
            transport = await asyncio.wait_for(starting, timeout)
            if transport is None:
                raise ConnectionResetError("the server has closed the connection")
        self._transport = transport
        return self

    def get_extra_info(self, info: str) -> Any:
        if info == "is_readable":  # a connection that is idle, and has data or an end, cannot be used again
            return bool(self._received) or self._ended
        return self._transport.get_extra_info(info)

    def _wake_up(self) -> None:
        if self._reading is not None and not self._reading.done():
            self._reading.set_result(None)


@contextmanager
def _errors(late: type[Exception], other: type[Exception]) -> Iterator[None]:
    try:
        yield
    except (asyncio.TimeoutError, TimeoutError) as error:  # one class only from Python 3.11 on
        raise late(str(error)) from error
    except OSError as error:
        raise other(str(error)) from error
