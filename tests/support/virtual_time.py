"""An event loop whose time jumps to the next timer, so that hours of waiting take milliseconds."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _JumpingSelector(selectors.DefaultSelector):
    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None or timeout <= 0:
            return super().select(timeout)
        self.loop.now += timeout
        return super().select(0)


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
