"""Whatever happens in whatever order: every wait ends exactly once, for its reason, neither early nor late."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_skyvern.models import FINAL_STATUSES
from airflow_skyvern.polling.listing import OFF_SECONDS
from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
from dev.virtual_time import run_virtually
from tests.support.polling import PollerRig

if TYPE_CHECKING:
    from airflow_skyvern.models import RunSnapshot

SCENE = 200.0
"""Seconds in which things happen."""

UNREST = 100.0
"""Seconds that trouble may cost after it is over: pauses grow to a minute."""

TROUBLE = st.sampled_from(
    [
        httpx.Response(503, json={"error": "Database temporarily unavailable"}),
        httpx.Response(429, headers={"retry-after": "20"}),
        httpx.Response(500, json={"error": "Unexpected error"}),
        httpx.Response(200, text="<html>maintenance</html>"),
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
    ]
)
MOMENT = st.floats(0, SCENE)


@dataclass
class Waiter:
    """One wait: what will become of it, and what did."""

    interval: float
    begins: float
    ends: float | None
    """When its run does."""
    status: str
    patience: float
    canceled: float | None
    run_id: str = ""
    noticed: list[tuple[float, RunSnapshot | None]] = field(default_factory=list)


@dataclass
class Story:
    """All that happens."""

    waiters: list[Waiter]
    foreign: list[tuple[float, float]]
    trouble: tuple[float, float, Any] | None
    no_list: tuple[float, float, int] | None


WAITERS = st.builds(
    Waiter,
    interval=st.sampled_from([5.0, 5.0, 5.0, 12.0, 60.0]),
    begins=st.floats(0, 60),
    ends=st.none() | MOMENT,
    status=st.sampled_from(sorted(FINAL_STATUSES)),
    patience=st.sampled_from([30.0, 900.0, 900.0, 900.0]),
    canceled=st.none() | st.none() | st.none() | MOMENT,
)
STORIES = st.builds(
    Story,
    waiters=st.lists(WAITERS, min_size=1, max_size=230),
    foreign=st.lists(st.tuples(MOMENT, st.floats(0, 100)), max_size=120),
    trouble=st.none() | st.tuples(MOMENT, st.floats(1, 60), TROUBLE),
    no_list=st.none() | st.tuples(MOMENT, st.floats(1, 60), st.sampled_from([403, 404, 422, 500])),
)


async def played(story: Story, fake: FakeSkyvern) -> PollerRig:
    w = PollerRig(fake)
    trouble, no_list = story.trouble, story.no_list

    def instead(request: httpx.Request) -> httpx.Response | None:
        now = w.loop.time()
        if trouble and trouble[0] <= now < trouble[0] + trouble[1]:
            if isinstance(trouble[2], Exception):
                raise trouble[2]
            return httpx.Response(trouble[2].status_code, headers=trouble[2].headers, content=trouble[2].content)
        if no_list and request.url.path == "/v1/runs" and no_list[0] <= now < no_list[0] + no_list[1]:
            return httpx.Response(no_list[2], json={"detail": "no"})
        return None

    async def comes_and_goes(begins: float, lasts: float) -> None:
        await asyncio.sleep(begins)
        run_id = w.running()
        await asyncio.sleep(lasts)
        w.end(run_id)

    async def waits(waiter: Waiter) -> None:
        waiter.run_id = w.running()
        if waiter.ends is not None:
            w.loop.call_later(waiter.ends, w.end, waiter.run_id, waiter.status)
        await asyncio.sleep(waiter.begins)
        task = w.start(waiter.run_id, waiter.interval, seconds=waiter.patience)
        if waiter.canceled is not None:
            w.loop.call_later(waiter.canceled, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            run = await task
            waiter.noticed.append((w.loop.time(), run))

    w.instead = instead
    await asyncio.gather(
        *(comes_and_goes(*each) for each in story.foreign), *(waits(waiter) for waiter in story.waiters)
    )
    await asyncio.sleep(1)
    assert all(client._http.is_closed for client in w.clients)
    return w


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(STORIES)
def test_every_wait_ends_once_for_its_reason_and_in_time(story: Story) -> None:
    w = run_virtually(played(story, FakeSkyvern()))
    for waiter in story.waiters:
        deadline = waiter.begins + waiter.patience
        if not waiter.noticed:
            assert waiter.canceled is not None
            continue
        [(when, run)] = waiter.noticed
        if run is None:
            assert deadline <= when <= deadline + 2
            assert waiter.ends is None or waiter.ends + waiter.interval * 1.1 + UNREST > deadline or story.trouble
            continue
        assert waiter.ends is not None
        assert when >= waiter.ends
        assert run.status == waiter.status
        late = when - max(waiter.ends, waiter.begins)
        assert late <= waiter.interval * 1.1 + (70 + UNREST if story.trouble or story.no_list else 3)
        gaps = [after - before for before, after in pairwise(w.looks(waiter.run_id))]
        assert all(gap >= waiter.interval for gap in gaps[:-1]) or story.trouble
    assert w.loop.time() <= SCENE + 900 + OFF_SECONDS
