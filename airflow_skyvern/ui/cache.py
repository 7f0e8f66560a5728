"""Fetches data once for all viewers that need it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable

T = TypeVar("T")

FAILURE_TTL = 3.0
"""Seconds for which a failure is shared: not every viewer sends a request to a server that is down."""


@dataclass
class _Entry(Generic[T]):
    task: asyncio.Future[T]
    size: int = 0
    expires: float = float("inf")


class SharedCache(Generic[T]):
    """
    Caches results for some seconds; concurrent callers share one fetch.

    :param ttl: Seconds for which a result is kept, made from the result.
    :param size: The size of a result, in the unit of ``capacity``. Default: 1 each.
    :param capacity: How much is kept at most; the least recently used results are dropped first.
    """

    def __init__(
        self,
        ttl: Callable[[T], float],
        *,
        size: Callable[[T], int] = lambda _: 1,
        capacity: int = 500,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ttl, self._size, self._capacity, self._clock = ttl, size, capacity, clock
        self._entries: dict[Hashable, _Entry[T]] = {}

    async def get(self, key: Hashable, fetch: Callable[[], Awaitable[T]]) -> T:
        """
        Return the cached result for the key, or fetch it.

        A viewer who leaves does not cancel the fetch for the others.
        """
        entry = self._entries.pop(key, None)
        if entry is None or entry.expires <= self._clock():
            entry = self._fetched(fetch)
        self._entries[key] = entry
        return await asyncio.shield(entry.task)

    def __contains__(self, key: Hashable) -> bool:
        """Return whether a result is cached, or being fetched."""
        entry = self._entries.get(key)
        return entry is not None and entry.expires > self._clock()

    def put(self, key: Hashable, result: T) -> None:
        """Cache a result that was fetched together with others."""
        done: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        done.set_result(result)
        self._entries[key] = _Entry(done, self._size(result), self._clock() + self._ttl(result))
        self._shrink()

    def _fetched(self, fetch: Callable[[], Awaitable[T]]) -> _Entry[T]:
        entry = _Entry(asyncio.ensure_future(_awaited(fetch)))
        entry.task.add_done_callback(lambda _: self._done(entry))
        return entry

    def _done(self, entry: _Entry[T]) -> None:
        failed = entry.task.cancelled() or entry.task.exception() is not None
        entry.expires = self._clock() + (FAILURE_TTL if failed else self._ttl(entry.task.result()))
        entry.size = 1 if failed else self._size(entry.task.result())
        self._shrink()

    def _shrink(self) -> None:
        now = self._clock()
        for key in [key for key, entry in self._entries.items() if entry.expires <= now]:
            del self._entries[key]
        left = sum(entry.size for entry in self._entries.values())
        for key, entry in list(self._entries.items()):
            if left <= self._capacity:
                return
            left -= entry.size
            del self._entries[key]


async def _awaited(fetch: Callable[[], Awaitable[T]]) -> T:
    return await fetch()
