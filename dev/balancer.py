"""
A load balancer for TCP on loopback: each connection goes to the next server that accepts it.

A server that dies takes its connections with it. What is sent through a connection is shown to a function of the
rig first, which may do something to the server that is about to get it.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

Address = tuple[str, int]
Watch = Callable[[str, bytes], Awaitable[None]]
"""Gets the name of a server and what is about to be sent to it."""

CHUNK = 65536


async def unwatched(server: str, chunk: bytes) -> None:
    """Do nothing about it."""


class Balancer:
    """Start with `with Balancer(port, {"api-server": ("127.0.0.20", 8080)}) as balancer:`."""

    def __init__(self, port: int, servers: Mapping[str, Address]) -> None:
        self.watch: Watch = unwatched
        self._port = port
        self._servers = list(servers.items())
        self._turns = itertools.count()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="balancer", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(asyncio.start_server(self._handle, "127.0.0.1", self._port, backlog=512, reuse_address=True))
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(_awaited(work), self._loop).result(30)

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = next(self._turns)
        for place in range(len(self._servers)):
            name, address = self._servers[(first + place) % len(self._servers)]
            with contextlib.suppress(OSError):
                there, back = await asyncio.open_connection(*address)
                await asyncio.gather(self._watched(name, reader, back), _pipe(there, writer))
                return
        writer.close()

    async def _watched(self, name: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def look(chunk: bytes) -> None:
            await self.watch(name, chunk)

        await _pipe(reader, writer, look)


async def _awaited(work: Awaitable[Any]) -> Any:
    return await work


async def _pipe(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    look: Callable[[bytes], Awaitable[None]] | None = None,
) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(CHUNK):
            if look is not None:
                await look(chunk)
            writer.write(chunk)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()
