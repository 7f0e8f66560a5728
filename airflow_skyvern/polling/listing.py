"""What a list of the active runs tells those who wait: whether it is worth its requests, and what to believe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_skyvern.client.api import LAST_RUNS_PAGE
from airflow_skyvern.client.calls import PAGE_SIZE
from airflow_skyvern.models import RunSnapshot
from airflow_skyvern.runs.wait import POLL_JITTER, jitter

if TYPE_CHECKING:
    from airflow_skyvern.exceptions import SkyvernError
    from airflow_skyvern.models import ListedRun
    from airflow_skyvern.runs.wait import Wait

PAGES_AT_ONCE = 4

RETHINK = 300.0
"""Seconds after which listing is tried again where it was too dear."""

DISTRUST = 600.0
"""Seconds for which a list that was refused, has failed twice, or was stale is not asked for."""

STALE = 5.0
"""Seconds after which the list must have heard of an end."""

PLAIN = ("created", "queued", "running")
"""The statuses that a row of a list is believed, in their order."""


class ListPolicy:
    """What a list of the active runs costs in requests, from what the last one did, and whether it is believed."""

    def __init__(self) -> None:
        self.pages = 1
        self._cost = 1
        self._estimated = self._listed = self._off_until = float("-inf")
        self._failures = 0
        self._ended: dict[str, float] = {}

    def worth(self, now: float, *, due: int, near: int, interval: float) -> bool:
        """
        Whether to list the runs instead of asking for each of them.

        :param due: How many runs have to be looked at now.
        :param near: How many have to be looked at within about one interval: a list is news of them all.
        """
        if now < self._off_until:
            return False
        return due > self._cost or (near > self._cost and now - self._listed >= 0.9 * interval)

    def has_aged(self, now: float) -> bool:
        """Whether what listing costs was found out too long ago; it is tried again then."""
        if now - self._estimated <= RETHINK:
            return False
        self._cost, self.pages, self._estimated = 1, 1, now
        return True

    def listed(self, now: float, *, pages: int, unseen: int) -> None:
        """Take note of what a list has cost: its pages, and those runs that were sought in vain."""
        self._cost, self.pages, self._estimated, self._listed = pages + unseen, pages, now, now
        self._failures = 0

    def missed_one(self) -> None:
        """Take note that a run is active and was not in the list: it has cost another request."""
        self._cost += 1

    def failed(self, error: SkyvernError, now: float) -> bool:
        """Take note that the list was not given; tell whether to do without it for some minutes."""
        self._failures += 1
        if error.transient and self._failures == 1:
            return False
        self._off_until = now + DISTRUST
        self._failures = 0
        return True

    def ended(self, run_id: str, now: float) -> None:
        """Remember for a while that a run is over."""
        self._ended.pop(run_id, None)
        self._ended[run_id] = now
        while len(self._ended) > 1000 or now - next(iter(self._ended.values())) > DISTRUST:  # noqa: PLR2004
            del self._ended[next(iter(self._ended))]

    def contradicts(self, run_id: str, asked: float) -> bool:
        """
        Tell whether a list that was asked for then is stale, as it holds this run.

        Such a list says nothing of ends, so it is not asked for again for some minutes.
        """
        if asked < self._off_until or asked - self._ended.get(run_id, asked) < STALE:
            return False
        self._off_until = asked + DISTRUST
        return True


class ListPass:
    """
    One reading of the list.

    :param asked: When it began.
    :param sought: The runs to look for.
    :param checks: How many of the runs that are found may be asked for themselves nevertheless.
    """

    def __init__(self, *, asked: float, sought: set[str], checks: int) -> None:
        self.asked = asked
        self.unseen = sought
        self.checks = checks
        self.pages = 0
        self.complete = False
        self.jitter = jitter(POLL_JITTER)
        self._limit = len(sought)

    def goes_on(self, expected: int) -> bool:
        """
        Whether another page costs less than asking for the runs that were not seen yet.

        :param expected: How many pages the last reading took.
        """
        if self.complete or self.pages >= LAST_RUNS_PAGE:
            return False
        return self.pages == 0 or (len(self.unseen) > max(1, expected - self.pages) and self.pages < self._limit)

    def ahead(self, expected: int) -> range:
        """Return the pages to ask for at the same time."""
        count = min(PAGES_AT_ONCE, max(1, expected - self.pages), LAST_RUNS_PAGE - self.pages)
        return range(self.pages + 1, self.pages + 1 + count)

    def turn(self, rows: list[ListedRun]) -> None:
        """Take note of a page."""
        self.pages += 1
        self.complete = self.complete or len(rows) < PAGE_SIZE


def nothing_new(row: ListedRun, wait: Wait[RunSnapshot]) -> bool:
    """Tell whether a wait need not take note of a row, as nearly always when thousands of rows are read."""
    return wait.content and wait.run is not None and _same(row, wait.run)


def confirms(row: ListedRun, wait: Wait[RunSnapshot]) -> bool:
    """
    Let a wait take note of a row of a list, and tell whether the row says enough.

    A row may confirm what is known or say that the run has got further. All else, as a pause, an end, or a step back,
    only the run itself can tell.
    """
    known, status, attempt = wait.run, row["status"], row.get("attempt") or 1
    if known is None:
        enough = status in PLAIN and not row.get("retry_pending")
        further = True
    else:
        if _same(row, known):
            wait.confirmed()
            return True
        before = known.attempt or 1
        enough = status in PLAIN and known.status in PLAIN and attempt >= before and not row.get("retry_pending")
        further = enough and (attempt > before or PLAIN.index(status) > PLAIN.index(known.status))
    if enough and further:
        wait.saw(RunSnapshot.model_validate(row))
    elif enough:
        wait.confirmed()
    return enough


def _same(row: ListedRun, known: RunSnapshot) -> bool:
    return (
        row["status"] == known.status
        and (row.get("attempt") or 1) == (known.attempt or 1)
        and bool(row.get("retry_pending")) == known.retry_pending
    )
