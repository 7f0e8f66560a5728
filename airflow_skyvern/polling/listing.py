"""Decides when the list of active runs is worth its requests, and what its rows prove about a run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from airflow_skyvern.client.retry import jittered
from airflow_skyvern.limits import LAST_RUNS_PAGE, PAGE_SIZE
from airflow_skyvern.models import RunSnapshot
from airflow_skyvern.runs.wait import POLL_JITTER

if TYPE_CHECKING:
    from airflow_skyvern.exceptions import SkyvernError
    from airflow_skyvern.models import ListedRun
    from airflow_skyvern.runs.wait import Wait

CONCURRENT_PAGES = 4

COST_MAX_AGE = 300.0
"""Seconds after which the list is tried again if it was too expensive."""

OFF_SECONDS = 600.0
"""Seconds for which a list that was refused, or failed twice in a row, is not requested."""

PROGRESS = ("created", "queued", "running")
"""The statuses that a row can prove, in the order in which a run has them."""


class ListPolicy:
    """Decides when to list the active runs instead of fetching each, based on the requests of the last list."""

    def __init__(self) -> None:
        self.pages = 1
        self._cost = 1
        self._estimated_at = self._listed_at = self._off_until = float("-inf")
        self._failures = 0

    def is_worth_it(self, now: float, *, due: int, near: int, interval: float) -> bool:
        """
        Whether a list costs fewer requests than fetching the runs.

        :param due: How many runs have to be polled now.
        :param near: How many have to be polled within about one interval: a list polls them all.
        """
        cost = self.cost(now)
        return due > cost or (near > cost and now - self._listed_at >= 0.9 * interval)

    def cost(self, now: float) -> float:
        """Return how many requests a list costs; infinity while lists fail."""
        return math.inf if now < self._off_until else self._cost

    def forget_old_cost(self, now: float) -> bool:
        """Forget the cost of a list if it was measured too long ago, and return whether it was."""
        if now - self._estimated_at <= COST_MAX_AGE:
            return False
        self._cost, self.pages, self._estimated_at = 1, 1, now
        return True

    def succeeded(self, now: float, *, pages: int, unseen: int) -> None:
        """Record the cost of a list: its pages, and the runs that it did not hold, which have to be fetched."""
        self._cost, self.pages, self._estimated_at, self._listed_at = pages + unseen, pages, now, now
        self._failures = 0

    def run_was_active(self) -> None:
        """Note that a run is active although the list did not hold it: it cost another request."""
        self._cost += 1

    def failed(self, error: SkyvernError, now: float) -> bool:
        """Record that the list could not be read; return whether to stop using it for some minutes."""
        self._failures += 1
        if error.transient and self._failures == 1:
            return False
        self._off_until = now + OFF_SECONDS
        self._failures = 0
        return True


class ListPass:
    """
    One reading of the list, page by page.

    :param started_at: When it began.
    :param expected: The runs that the list can be expected to hold.
    :param rechecks: How many of the runs that it holds may be fetched nevertheless.
    """

    def __init__(self, *, started_at: float, expected: set[str], rechecks: int) -> None:
        self.started_at = started_at
        self.unseen = expected
        self.rechecks = rechecks
        self.pages = 0
        self.is_complete = False
        self.spread = jittered(1.0, POLL_JITTER)
        self._limit = len(expected)

    def needs_more(self, last_pages: int) -> bool:
        """
        Whether another page costs less than fetching the runs that were not seen yet.

        :param last_pages: How many pages the last reading took.
        """
        if self.is_complete or self.pages >= LAST_RUNS_PAGE:
            return False
        return self.pages == 0 or (len(self.unseen) > max(1, last_pages - self.pages) and self.pages < self._limit)

    def next_pages(self, last_pages: int) -> range:
        """Return the pages to request concurrently."""
        count = min(CONCURRENT_PAGES, max(1, last_pages - self.pages), LAST_RUNS_PAGE - self.pages)
        return range(self.pages + 1, self.pages + 1 + count)

    def page_read(self, rows: list[ListedRun]) -> None:
        """Note that a page was read."""
        self.pages += 1
        self.is_complete = self.is_complete or len(rows) < PAGE_SIZE


def is_no_news(row: ListedRun, wait: Wait[RunSnapshot], delay: float) -> bool:
    """
    Return whether a row changes and logs nothing, as nearly always when thousands of rows are read.

    :param delay: Seconds until the next poll; it must not be later than the deadline.
    """
    return wait.run is not None and _is_same(row, wait.run) and wait.is_quiet(delay)


def row_suffices(row: ListedRun, wait: Wait[RunSnapshot]) -> bool:
    """
    Update a wait from a row, and return whether the row proves enough.

    A row may confirm the known status, or show that the run has progressed. For anything else, such as a pause, an
    end, or a step back, the run itself has to be fetched.
    """
    known, status, attempt = wait.run, row["status"], row.get("attempt") or 1
    if known is None:
        enough = status in PROGRESS and not row.get("retry_pending")
        further = True
    else:
        if _is_same(row, known):
            wait.unchanged()
            return True
        before = known.attempt or 1
        enough = (
            status in PROGRESS and known.status in PROGRESS and attempt >= before and not row.get("retry_pending")
        )
        further = enough and (attempt > before or PROGRESS.index(status) > PROGRESS.index(known.status))
    if enough and further:
        wait.update(RunSnapshot.model_validate(row))
    elif enough:
        wait.unchanged()
    return enough


def _is_same(row: ListedRun, known: RunSnapshot) -> bool:
    return (
        row["status"] == known.status
        and (row.get("attempt") or 1) == (known.attempt or 1)
        and bool(row.get("retry_pending")) == known.retry_pending
    )
