"""
One shared poll for all watchers of a Skyvern connection.

Whoever watches joins the :class:`FinishedRunsPoller` of the connection in this event loop, says what it needs
(its :class:`~airflow_skyvern.finished_runs.watermark.Watermark`) and gets what Skyvern answers. However many watch, a
poll is one request: the runs of all watched workflows, newest first, down to where everybody knows them. A run that
is older
and still active costs a second request, and its end one fetch.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import ClassVar
from weakref import WeakKeyDictionary

from airflow_skyvern.client import api
from airflow_skyvern.client.retry import REFUSAL_PATIENCE, backoff, jittered
from airflow_skyvern.compat.sdk import AirflowNotFoundException
from airflow_skyvern.exceptions import SkyvernAPIError, SkyvernError, SkyvernNotFoundError
from airflow_skyvern.finished_runs.watermark import BEGINNING, OVERLAP, ListedRun, Watermark, newest
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.limits import LAST_SEARCH_PAGE, MOST_WORKFLOWS, PAGE_SIZE
from airflow_skyvern.models import ACTIVE_STATUSES, Run, RunSummary

log = logging.getLogger(__name__)

MOST_LOOKS = 50
"""Active runs that are fetched individually in one poll; the next poll fetches others."""

BACKWARDS = timedelta(days=1)
"""How long before its end a run may have been created, for the first poll of a watcher without a watermark."""

LONGEST_DELAY = 300.0
"""Seconds between two polls while Skyvern cannot be asked."""


@dataclass(frozen=True)
class PollResult:
    """
    The result of a poll.

    :param rows: The runs of all watched workflows; each watcher picks its own.
    :param gone: Ids of active runs that Skyvern does not know any more.
    """

    rows: list[ListedRun]
    gone: frozenset[str] = frozenset()

    @property
    def latest(self) -> datetime | None:
        """When the newest run was created."""
        return newest(self.rows)

    def rows_of(self, subscription: Subscription) -> list[ListedRun]:
        """Return the runs that concern a watcher."""
        return [
            row
            for row in self.rows
            if row.run_id in subscription.mark.active
            or (isinstance(row, RunSummary) and row.workflow_permanent_id == subscription.workflow_id)
        ]


@dataclass(eq=False)
class Subscription:
    """
    One watcher in a poller. It keeps ``mark`` up to date itself; the poller reads it before each poll.

    :param poll_interval: Seconds between two polls; the shortest of all watchers counts.
    """

    workflow_id: str
    mark: Watermark
    poll_interval: float
    inbox: asyncio.Queue[PollResult] = field(default_factory=lambda: asyncio.Queue(maxsize=1))

    def put(self, result: PollResult) -> None:
        """Leave a result; it replaces the unread result of an earlier poll."""
        if self.inbox.full():
            self.inbox.get_nowait()
        self.inbox.put_nowait(result)

    async def result(self) -> PollResult:
        """Wait for the next poll."""
        return await self.inbox.get()


async def runs_of(hook: SkyvernHook, workflow_ids: Iterable[str], since: datetime) -> list[ListedRun]:
    """Return the runs of these workflows created since, and some older ones."""
    workflows = sorted(set(workflow_ids))
    rows: list[ListedRun] = []
    if len(workflows) > MOST_WORKFLOWS:
        for start in range(0, len(workflows), MOST_WORKFLOWS):
            rows += await runs_of(hook, workflows[start : start + MOST_WORKFLOWS], since)
        return rows
    for page in range(1, LAST_SEARCH_PAGE + 1):
        call = api.list_runs(workflow_ids=workflows, page=page)
        found: list[RunSummary] = await hook.asend(call.as_answered())  # all rows say whether this was the last page
        rows.extend(call.kept(found))
        if len(found) < PAGE_SIZE or (found[-1].created_at or BEGINNING) < since:
            return rows
    for workflow_id in workflows:
        found = await hook.asend(api.list_workflow_runs(workflow_id, created_at_start=since))
        rows.extend(found)
    return rows


async def active_runs_of(hook: SkyvernHook, workflow_ids: Iterable[str]) -> list[ListedRun]:
    """Return the active runs of these workflows."""
    workflows = sorted(set(workflow_ids))
    rows: list[ListedRun] = []
    for start in range(0, len(workflows), MOST_WORKFLOWS):
        some = workflows[start : start + MOST_WORKFLOWS]
        call = api.list_runs(status=ACTIVE_STATUSES, workflow_ids=some)
        found: list[RunSummary] = await hook.asend(call)
        rows.extend(found)
    return rows


async def starting_watermark(hook: SkyvernHook, workflow_id: str, ended_since: datetime | None = None) -> Watermark:
    """
    Return the watermark of a watcher that begins now.

    :param ended_since: Runs that ended since then count as not handed over yet.
    """
    latest = newest(await _newest_page(hook, workflow_id))
    if latest is None:
        return Watermark()
    reach = latest - OVERLAP
    if ended_since is not None:
        reach = min(reach, ended_since - BACKWARDS)
    rows = await runs_of(hook, [workflow_id], reach)
    return Watermark.at([*rows, *await active_runs_of(hook, [workflow_id])], ended_before=ended_since)


async def _newest_page(hook: SkyvernHook, workflow_id: str) -> list[RunSummary]:
    """Return the newest runs of a workflow, also where the server has answered with the runs of all workflows."""
    call = api.list_runs(workflow_ids=[workflow_id], page=1)
    answered: list[RunSummary] = await hook.asend(call.as_answered())
    ours = call.kept(answered)
    if ours or len(answered) < PAGE_SIZE:
        return ours
    of_workflow: list[RunSummary] = await hook.asend(replace(api.list_workflow_runs(workflow_id), last_page=1))
    return of_workflow


class MissingRuns:
    """
    Active runs of which Skyvern says that there are none; one that says so for minutes is gone.

    :param patience: Seconds for which it has to say so.
    """

    def __init__(self, patience: float = REFUSAL_PATIENCE) -> None:
        self._patience = patience
        self._since: dict[str, float] = {}

    def is_gone(self, run_id: str) -> bool:
        """Note that Skyvern denies a run, and return whether that is to be believed."""
        now = time.monotonic()
        return now - self._since.setdefault(run_id, now) >= self._patience

    def found(self, run_id: str) -> None:
        """Note that the run is there."""
        self._since.pop(run_id, None)


async def poll(
    hook: SkyvernHook, watching: Iterable[tuple[str, Watermark]], missing: MissingRuns | None = None
) -> PollResult:
    """
    Poll once for all watchers: the new runs, and those that were active.

    :param missing: What earlier polls have missed.
    """
    missing = missing or MissingRuns()
    watched = list(watching)
    workflows = [workflow_id for workflow_id, _ in watched]
    rows = await runs_of(hook, workflows, min(mark.since for _, mark in watched))
    unseen = frozenset().union(*(mark.active for _, mark in watched)).difference(row.run_id for row in rows)
    if not unseen:
        return PollResult(rows)
    rows += await active_runs_of(hook, workflows)
    ended = sorted(unseen.difference(row.run_id for row in rows))
    gone = set()
    for run_id in random.sample(ended, min(len(ended), MOST_LOOKS)):
        with suppress(SkyvernNotFoundError):
            rows.append(await hook.afetch_run(run_id))
            missing.found(run_id)
            continue
        if missing.is_gone(run_id):
            gone.add(run_id)
    return PollResult(rows, frozenset(gone))


class FinishedRunsPoller:
    """Polls one connection while it has watchers; see :func:`finished_runs_poller`."""

    refusal_patience: ClassVar[float] = REFUSAL_PATIENCE
    """Seconds for which Skyvern has to deny a run that was active."""

    def __init__(self, skyvern_conn_id: str) -> None:
        self.skyvern_conn_id = skyvern_conn_id
        self.hook = SkyvernHook(skyvern_conn_id)
        self.users = 0
        self._missing = MissingRuns(self.refusal_patience)
        self._members: list[Subscription] = []
        self._joined = asyncio.Event()
        self._failures = 0
        self._pages: str | None = None
        self._asking = asyncio.Lock()
        self._work: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def joined(self, member: Subscription) -> AsyncIterator[Subscription]:
        """Take part in the polls of this connection; the next one is at once."""
        self._members.append(member)
        self._joined.set()
        if self._work is None:
            self._work = asyncio.create_task(self._run(), name=f"Skyvern poller of {self.skyvern_conn_id}")
        try:
            yield member
        finally:
            self._members.remove(member)
            if not self._members and self._work is not None:
                work, self._work = self._work, None
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)

    async def app_url(self, row: ListedRun) -> str | None:
        """Return the address of a run's page. Lists do not hold it, so one run is fetched for it, and once only."""
        if isinstance(row, Run):
            return row.app_url
        async with self._asking:
            if self._pages is None:
                try:
                    address = (await self.hook.afetch_run(row.run_id)).app_url or ""
                except SkyvernError:
                    return None
                self._pages = address.removesuffix(row.run_id) if address.endswith(f"/{row.run_id}") else ""
        return f"{self._pages}{row.run_id}" if self._pages else None

    async def _run(self) -> None:
        while True:
            self._joined.clear()
            pause = await self._tick()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._joined.wait(), pause)

    async def _tick(self) -> float:
        """Poll once and return the seconds until the next time."""
        members = list(self._members)
        interval = min(member.poll_interval for member in members)
        try:
            watched = [(member.workflow_id, member.mark) for member in members]
            result = await poll(self.hook, watched, self._missing)
        except Exception as error:  # noqa: BLE001  a watcher that raises would be started again every 2 s, for ever
            self._failures += 1
            delay = retry_delay_after(error, self._failures, interval)
            log_failure(
                f"Skyvern connection {self.skyvern_conn_id!r}: could not poll, next time in {delay:.0f} s", error
            )
            return delay
        if self._failures:
            log.info(
                "Skyvern connection %r: polling works again after %d failures", self.skyvern_conn_id, self._failures
            )
        self._failures = 0
        for member in members:
            member.put(result)
        return interval


def retry_delay_after(error: Exception, failures: int, interval: float) -> float:
    """Return the seconds to wait after that many failures in a row."""
    requested = error.retry_after if isinstance(error, SkyvernAPIError) else None
    longest = max(LONGEST_DELAY, interval)
    return jittered(backoff(failures, base=2.0 * interval, longest=longest, requested=requested), 0.25)


_POLLERS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, FinishedRunsPoller]] = WeakKeyDictionary()


@asynccontextmanager
async def finished_runs_poller(skyvern_conn_id: str) -> AsyncIterator[FinishedRunsPoller]:
    """Use the poller of a connection in this event loop; the last user closes it."""
    pollers = _POLLERS.setdefault(asyncio.get_running_loop(), {})
    poller = pollers[skyvern_conn_id] = pollers.get(skyvern_conn_id) or FinishedRunsPoller(skyvern_conn_id)
    poller.users += 1
    try:
        yield poller
    finally:
        poller.users -= 1
        if not poller.users:
            del pollers[skyvern_conn_id]
            await poller.hook.aclose()


def log_failure(what: str, error: Exception) -> None:
    """Log a failure: an error of Skyvern or of the connection explains itself, any other needs its traceback."""
    expected = isinstance(error, SkyvernError | AirflowNotFoundException)
    log.warning("%s. %s: %s", what, type(error).__name__, error, exc_info=None if expected else error)
