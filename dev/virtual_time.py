"""An event loop whose time jumps to the next timer, so that hours of waiting take milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


ROUNDS = 100_000
"""So many rounds of a loop without a pause are a loop that never rests."""

TICK = 1e-9
"""Seconds that a round takes: a loop that waits for less than its clock can tell would wait for ever otherwise."""


class _JumpingSelector(selectors.DefaultSelector):
    loop: VirtualLoop
    rounds = 0

    def select(self, timeout: float | None = None) -> Any:
        found = super().select(0)
        assert found or timeout is not None, "nobody is due and nobody comes: this would wait for ever"
        pause = max(TICK, timeout or 0.0)
        self.loop.now += pause
        self.rounds = self.rounds + 1 if pause == TICK else 0
        assert self.rounds < ROUNDS, "the loop never rests"
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """Threads are not used: what would be done in one is done at once."""

    def __init__(self) -> None:
        self.now = 0.0
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.now

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:  # type: ignore[override]  # asyncio's is made for Python 3.11
        future = self.create_future()
        future.set_result(func(*args))
        return future


def run_virtually(main: Coroutine[Any, Any, T]) -> T:
    """Run in a loop of its own; nothing may be left in it."""
    loop = VirtualLoop()
    try:
        result = loop.run_until_complete(main)
        for _ in range(5):  # who leaves last lets the client be closed behind its back
            loop.run_until_complete(asyncio.sleep(0.001))
        assert not asyncio.all_tasks(loop), asyncio.all_tasks(loop)
        return result
    finally:
        loop.close()
