"""The waits of one connection, and when each of them is polled next."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from airflow_skyvern.models import RunSnapshot
    from airflow_skyvern.runs.block_log import BlockLog
    from airflow_skyvern.runs.wait import Wait

T = TypeVar("T")

RECHECK_INTERVAL = 3600.0
"""Seconds after which a run is fetched although the list shows it as active: a stale list hides an end no longer."""


class State(Enum):
    """Where an entry is."""

    QUEUED = "queued"
    """In the queue, until it is due."""
    POPPED = "popped"
    """Out of the queue: due, and the poller decides how to poll it."""
    FETCHING = "fetching"
    """Out of the queue: its run is fetched individually, now or soon."""
    REMOVED = "removed"
    """The wait has ended."""


class InList(Enum):
    """Whether a run is known to be in the list of active runs."""

    EXPECTED = "expected"
    """The list can be expected to hold it."""
    MISSING = "missing"
    """The last list did not hold it; it may have ended."""
    NEVER = "never"
    """It is active and the list does not hold it: a child run, or one that Skyvern will retry."""


class QueueEntry:
    """
    One wait in the queue. Only the queue changes where it is.

    ``due``: when to poll. ``fetched_at``: when its run was last fetched individually. ``recheck_at``: when to do that
    although the list shows the run as active. ``blocks``: logs the blocks of the run, where that is wanted.
    """

    __slots__ = (
        "blocks",
        "context",
        "due",
        "fetched_at",
        "future",
        "in_list",
        "is_indexed",
        "recheck_at",
        "state",
        "ticket",
        "wait",
        "workflow_deleted",
    )

    def __init__(
        self, wait: Wait[RunSnapshot], now: float, first_poll_delay: float, blocks: BlockLog | None = None
    ) -> None:
        self.wait = wait
        self.blocks = blocks
        self.due = now + first_poll_delay
        self.recheck_at = now + RECHECK_INTERVAL * random.random()
        self.fetched_at = -math.inf
        self.state = State.POPPED
        self.in_list = InList.EXPECTED
        self.ticket = -1
        self.is_indexed = self.workflow_deleted = False
        self.future: asyncio.Future[RunSnapshot | None] = asyncio.get_running_loop().create_future()
        self.context = contextvars.copy_context()  # Airflow chooses by it which task's log a line goes to

    def call(self, method: Callable[..., T], *args: Any) -> T:
        """Call a method of the wait in the context of its trigger, so that it logs into the log of its task."""
        return self.context.run(method, *args)

    def may_fetch(self, now: float) -> bool:
        """Whether fetching the run is not sooner than the poll interval allows."""
        return self.state is State.POPPED or self.fetched_at + self.wait.poll_interval <= now

    def fetch_starts(self, now: float) -> None:
        """Note that the run is fetched now."""
        self.fetched_at = now
        self.recheck_at = now + RECHECK_INTERVAL * random.uniform(0.5, 1.0)

    def fetch_failed(self, retry_at: float) -> None:
        """Note that the run must not be fetched before then, although a list may miss it."""
        self.fetched_at = retry_at - self.wait.poll_interval


class PollQueue:
    """
    All waits of a connection, ordered by due time.

    Each entry has one ticket, in a row with all entries that are due at the same moment, like the runs of one list.
    If an entry is due later than its ticket says, that is noticed only when the ticket's time has come, so a list
    that confirms thousands of runs moves none of their tickets. A ticket is a number: Python's garbage collector does
    not track it, so it stops the event loop less often.

    :param clock: The time of the event loop.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._all: set[QueueEntry] = set()
        self._by_run: dict[str, tuple[QueueEntry, ...]] = {}
        self._intervals: Counter[float] = Counter()
        self._moments: list[float] = []  # a heap
        self._tickets_at: dict[float, list[int]] = {}
        self._by_ticket: dict[int, QueueEntry] = {}
        self._tickets = itertools.count()

    def __len__(self) -> int:
        return len(self._all)

    def add(self, entry: QueueEntry) -> None:
        """Add a wait."""
        self._all.add(entry)
        self._push(entry)

    def remove(self, entry: QueueEntry) -> bool:
        """Remove a wait; return whether it was the last one."""
        if entry not in self._all:
            return False
        self._all.discard(entry)
        entry.state = State.REMOVED
        if entry.is_indexed:
            run_id = entry.wait.run_id
            self._by_run[run_id] = tuple(twin for twin in self._by_run[run_id] if twin is not entry)
            if not self._by_run[run_id]:
                del self._by_run[run_id]
            self._intervals[entry.wait.poll_interval] -= entry.in_list is not InList.NEVER
        return not self._all

    def clear(self) -> list[QueueEntry]:
        """Remove all waits, and return them."""
        removed = list(self._all)
        for entry in removed:
            entry.state = State.REMOVED
        self._all.clear()
        self._by_run.clear()
        self._intervals.clear()
        self._moments.clear()
        self._tickets_at.clear()
        self._by_ticket.clear()
        return removed

    def entries_of(self, run_id: str) -> tuple[QueueEntry, ...]:
        """Return the waits for a run whose first poll is due or past."""
        return self._by_run.get(run_id, ())

    def runs_expected_in_list(self) -> set[str]:
        """Return the runs that a list can be expected to hold."""
        never = InList.NEVER
        return {
            run_id
            for run_id, entries in self._by_run.items()  # nearly all have one wait
            if entries[0].in_list is not never or any(twin.in_list is not never for twin in entries)
        }

    def count_within(self, interval: float) -> int:
        """Return how many waits for runs in the list are polled as often as this, or more often."""
        return sum(count for other, count in self._intervals.items() if other <= interval)

    def next_due(self) -> float | None:
        """Return when the next wait may be due."""
        return self._moments[0] if self._moments else None

    def pop_due(self) -> list[QueueEntry]:
        """Take the waits that are due now out of the queue."""
        now, due = self._clock(), []
        while self._moments and self._moments[0] <= now:
            for ticket in self._tickets_at.pop(heapq.heappop(self._moments)):
                entry = self._by_ticket.pop(ticket)
                if entry.state is not State.QUEUED or entry.ticket != ticket:
                    continue
                if entry.due > now:
                    self._push(entry)
                    continue
                entry.state = State.POPPED
                if not entry.is_indexed:
                    self._index(entry)
                due.append(entry)
        return due

    def requeue(self, entry: QueueEntry, due: float) -> None:
        """Poll a wait again at this time; at its deadline at the latest."""
        if entry.state is State.REMOVED:
            return
        left = entry.wait.seconds_left
        now = self._clock()
        entry.due = min(due, now + left) if left > 0.0 and due > now else now
        if entry.state is not State.QUEUED:
            self._push(entry)

    def confirmed(self, entry: QueueEntry, due: float) -> None:
        """Poll a wait again at this time, before its deadline; for thousands of waits, so it does no more."""
        entry.due = due
        if entry.state is State.POPPED:
            self._push(entry)

    def start_fetch(self, entry: QueueEntry) -> bool:
        """Take a wait out of the queue to fetch its run; return False if that is under way, or the wait has ended."""
        if entry.state in (State.FETCHING, State.REMOVED):
            return False
        entry.state = State.FETCHING
        return True

    def found_in_list(self, entry: QueueEntry) -> None:
        """Note that the list holds the run."""
        self._set_in_list(entry, InList.EXPECTED)

    def missing_from_list(self, entry: QueueEntry) -> None:
        """Note that a list did not hold the run."""
        if entry.in_list is InList.EXPECTED:
            entry.in_list = InList.MISSING

    def active_though_missing(self, entry: QueueEntry) -> bool:
        """Note that the run is active; return whether that shows that lists do not hold it."""
        if entry.in_list is not InList.MISSING:
            return False
        self._set_in_list(entry, InList.NEVER)
        return True

    def expect_all_in_list(self) -> None:
        """Forget which runs the list did not hold."""
        for entry in self._all:
            self._set_in_list(entry, InList.EXPECTED)

    def _set_in_list(self, entry: QueueEntry, in_list: InList) -> None:
        if entry.is_indexed:
            was, becomes = entry.in_list is not InList.NEVER, in_list is not InList.NEVER
            self._intervals[entry.wait.poll_interval] += becomes - was
        entry.in_list = in_list

    def _index(self, entry: QueueEntry) -> None:
        entry.is_indexed = True
        self._by_run[entry.wait.run_id] = (*self.entries_of(entry.wait.run_id), entry)
        self._intervals[entry.wait.poll_interval] += entry.in_list is not InList.NEVER

    def _push(self, entry: QueueEntry) -> None:
        entry.state = State.QUEUED
        entry.ticket = next(self._tickets)
        self._by_ticket[entry.ticket] = entry
        if entry.due in self._tickets_at:
            self._tickets_at[entry.due].append(entry.ticket)
        else:
            self._tickets_at[entry.due] = [entry.ticket]
            heapq.heappush(self._moments, entry.due)
