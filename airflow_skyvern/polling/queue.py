"""Those who wait at one connection, and when each of them is to be looked at."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from airflow_skyvern.models import RunSnapshot
    from airflow_skyvern.runs.wait import Wait

T = TypeVar("T")

RECHECK = 3600.0
"""Seconds after which a run that the list calls active is asked for itself."""


class QueueEntry:
    """
    One wait. It is in the queue, or ``out``: being looked at.

    ``due``: when to look. ``asked``: when the run itself was asked for. ``check``: when to do that although the list
    calls it active. ``listed``: whether the list can be expected to hold it. ``missing``: it did not at the last
    time. ``asking``: it is the run's turn to be asked for.
    """

    __slots__ = (
        "asked",
        "asking",
        "check",
        "context",
        "due",
        "future",
        "listed",
        "missing",
        "ready",
        "turn",
        "wait",
        "workflow_deleted",
    )

    def __init__(self, wait: Wait[RunSnapshot], now: float, first_poll_delay: float) -> None:
        self.wait = wait
        self.due = now + first_poll_delay
        self.check = now + RECHECK * random.random()
        self.asked = -math.inf
        self.turn: int | None = None
        self.future: asyncio.Future[RunSnapshot | None] = asyncio.get_running_loop().create_future()
        self.context = contextvars.copy_context()  # Airflow chooses by it which task's log a line goes to
        self.asking = self.missing = self.workflow_deleted = self.ready = False
        self.listed = True

    @property
    def out(self) -> bool:
        """Whether somebody has taken it out of the queue and not decided what to do with it."""
        return self.turn is None and not self.asking

    def tell(self, take_note: Callable[..., T], *args: Any) -> T:
        """Let the wait take note of something, as its own task: what it logs belongs there."""
        return self.context.run(take_note, *args)

    def may_ask(self, now: float) -> bool:
        """Whether asking for the run is not sooner than its interval allows."""
        return self.turn is None or self.asked + self.wait.poll_interval <= now

    def will_be_asked(self, now: float) -> None:
        """Note the time of a direct look."""
        self.asked = now
        self.check = now + RECHECK * random.uniform(0.5, 1.0)


class PollQueue:
    """
    All who wait, queued by when they are due.

    A place has one entry in the queue. That it is due later than its entry says is found out when the entry's time
    has come, so that a list that is news of thousands of runs moves none of their entries. An entry is two numbers:
    of those Python's garbage collector keeps no account, and so has less reason to stop the event loop.

    :param clock: The time of the event loop.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._all: set[QueueEntry] = set()
        self._ready: dict[str, tuple[QueueEntry, ...]] = {}
        self._intervals: Counter[float] = Counter()
        self._queue: list[tuple[float, int]] = []
        self._queued: dict[int, QueueEntry] = {}
        self._turns = itertools.count()

    def __contains__(self, place: QueueEntry) -> bool:
        return place in self._all

    def __len__(self) -> int:
        return len(self._all)

    def add(self, place: QueueEntry) -> None:
        """Let somebody in."""
        self._all.add(place)
        self._enqueue(place)

    def remove(self, place: QueueEntry) -> bool:
        """Let somebody out; tell whether it was there and was the last."""
        if place not in self._all:
            return False
        self._all.discard(place)
        if place.ready:
            run_id = place.wait.run_id
            self._ready[run_id] = tuple(twin for twin in self._ready[run_id] if twin is not place)
            if not self._ready[run_id]:
                del self._ready[run_id]
            self._intervals[place.wait.poll_interval] -= place.listed
        return not self._all

    def clear(self) -> list[QueueEntry]:
        """Send everybody away, and return them."""
        left = list(self._all)
        self._all.clear()
        self._ready.clear()
        self._intervals.clear()
        self._queue.clear()
        self._queued.clear()
        return left

    def of(self, run_id: str) -> tuple[QueueEntry, ...]:
        """Return those who wait for this run and have had their first look, or are having it."""
        return self._ready.get(run_id, ())

    def sought(self) -> set[str]:
        """Return the runs that a list can be expected to hold."""
        return {run_id for run_id, places in self._ready.items() for place in places if place.listed}

    def within(self, interval: float) -> int:
        """Return how many of them are to be looked at as often as this, or more often."""
        return sum(count for other, count in self._intervals.items() if other <= interval)

    def next_due(self) -> float | None:
        """Return when the next one may be due."""
        return self._queue[0][0] if self._queue else None

    def take_due(self) -> list[QueueEntry]:
        """Take those out of the queue who are due now."""
        now, due = self._clock(), []
        while self._queue and self._queue[0][0] <= now:
            _, turn = heapq.heappop(self._queue)
            place = self._queued.pop(turn)
            if place.turn != turn or place not in self._all:
                continue
            if place.due > now:
                self._enqueue(place)
                continue
            place.turn = None
            if not place.ready:
                place.ready = True
                self._ready[place.wait.run_id] = (*self.of(place.wait.run_id), place)
                self._intervals[place.wait.poll_interval] += place.listed
            due.append(place)
        return due

    def put_back(self, place: QueueEntry, due: float) -> None:
        """Queue up, or be due later than the queue says; at the deadline at the latest."""
        if place not in self._all:
            return
        left = place.wait.left
        now = self._clock()
        place.due = min(due, now + left) if left > 0.0 and due > now else now
        if place.turn is None:
            place.asking = False
            self._enqueue(place)

    def mark(self, place: QueueEntry, *, listed: bool) -> None:
        """Note whether the list can be expected to hold its run."""
        if place.ready:
            self._intervals[place.wait.poll_interval] += listed - place.listed
        place.listed = listed

    def mark_all_listed(self) -> None:
        """Forget which runs the list did not hold."""
        for place in self._all:
            self.mark(place, listed=True)

    def _enqueue(self, place: QueueEntry) -> None:
        place.turn = next(self._turns)
        self._queued[place.turn] = place
        heapq.heappush(self._queue, (place.due, place.turn))
