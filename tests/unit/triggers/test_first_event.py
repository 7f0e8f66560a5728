"""Of several waits, the first that is over counts, and the others end."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from airflow_skyvern.runs.wait import RunEvent
from airflow_skyvern.triggers.run import first_event_of

EVENT = RunEvent(run_id="wr_1", reason="ended", status="completed", message=None)


async def over() -> RunEvent:
    return EVENT


async def stubborn(swallows: list[int]) -> RunEvent:
    """Wait for ever, and swallow some cancels, as a request does that is answered at that moment."""
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:  # noqa: PERF203  that is the point
            if not swallows:
                raise
            swallows.pop()


async def test_a_wait_that_swallows_a_cancel_ends_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_skyvern.triggers.run.CANCEL_AGAIN", 0.01)
    swallows = [1, 2]
    async with asyncio.timeout(10) if hasattr(asyncio, "timeout") else contextlib.nullcontext():
        assert await first_event_of(over_soon(), stubborn(swallows)) == EVENT
    assert swallows == []


async def over_soon() -> RunEvent:
    await asyncio.sleep(0.01)
    return EVENT


async def test_of_two_that_are_over_at_once_the_first_one_given_counts() -> None:
    later = RunEvent(run_id="wr_1", reason="resumed", status=None, message=None)

    async def other() -> RunEvent:
        return later

    assert await first_event_of(over(), other()) == EVENT
    assert await first_event_of(other(), over()) == later


async def test_an_error_of_the_first_one_is_raised() -> None:
    async def fails() -> RunEvent:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await first_event_of(fails(), over_soon())
