"""
Polls for all waits of one connection in one loop: a thousand waits share ten requests.

Instead of fetching run by run, the poller lists the active runs, a hundred per request. A run that is missing from
the list is never taken for finished: it is fetched individually. See docs/waiting.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from airflow_skyvern.client import api
from airflow_skyvern.client.session import Connect, MakeClient, afetch_snapshot
from airflow_skyvern.exceptions import SkyvernError
from airflow_skyvern.polling.block_requests import BlockRequests
from airflow_skyvern.polling.circuit_breaker import CircuitBreaker
from airflow_skyvern.polling.listing import ListPass, ListPolicy, is_no_news, row_suffices
from airflow_skyvern.polling.queue import RECHECK_INTERVAL, InList, PollQueue, QueueEntry, State
from airflow_skyvern.polling.session import PollSession, single_attempt_client

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call
    from airflow_skyvern.client.sender import Observe
    from airflow_skyvern.models import ListedRun, RunSnapshot
    from airflow_skyvern.runs.block_log import BlockLog
    from airflow_skyvern.runs.wait import Wait

T = TypeVar("T")

log = logging.getLogger(__name__)

MAX_CONCURRENT_FETCHES = 8

LIST_DELAY = 1.0
"""
Seconds after which runs are due again that a list may show: while the poller of another connection reads it, or more
fetches wait than a list costs.
"""

LIST_PATIENCE = 5.0
"""Seconds to wait for that list: the way to the server, or Airflow's log, may be slow only for that connection."""

YIELD_INTERVAL = 0.01
"""Seconds after which the reading of a page yields the event loop to other triggers."""

_CLOSING: set[asyncio.Task[None]] = set()
"""Loops that close their session; without a reference the event loop may drop them."""


class RunPoller:
    """
    Wait for many runs with one session and one loop; it lives as long as there is a wait.

    :param connect: Reads the connection: before the first request, and again while requests fail.
    :param on_idle: Called when the last wait has left.
    :param make_client: Makes the client.
    """

    def __init__(
        self,
        connect: Connect,
        *,
        on_idle: Callable[[], object] = lambda: None,
        make_client: MakeClient = single_attempt_client,
    ) -> None:
        self._on_idle = on_idle
        self._loop = asyncio.get_running_loop()
        self.session = PollSession(connect, make_client)
        self._queue = PollQueue(self._loop.time)
        self._breaker = CircuitBreaker()
        self._block_requests: BlockRequests | None = None
        self._list_policy = ListPolicy()
        self._listing_until = -math.inf
        self._to_fetch: deque[QueueEntry] = deque()
        self._fetches: set[asyncio.Task[None]] = set()
        self._refresh: asyncio.Task[bool] | None = None
        self._wake_up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def wait(
        self, wait: Wait[RunSnapshot], *, first_poll_delay: float = 0.0, blocks: BlockLog | None = None
    ) -> RunSnapshot | None:
        """
        Return the run as it ended, or None when the wait is over before that.

        :param first_poll_delay: Seconds before the first poll of the run.
        :param blocks: Logs the blocks of the run, if they are wanted.
        :raises SkyvernError: polling failed permanently: an unknown run, a refused key.
        """
        entry = QueueEntry(wait, self._loop.time(), first_poll_delay, blocks)
        self._queue.add(entry)
        if self._task is None:  # in a context of its own: a trigger's would send its log lines into that task's log
            self._task = contextvars.Context().run(self._loop.create_task, self._run())
        elif self._refresh is None and self.session.is_old:  # a user may have edited the connection before this task
            self._refresh = contextvars.Context().run(self._loop.create_task, self.session.refresh())
            self._refresh.add_done_callback(self._refreshed)
        self._wake_up.set()
        try:
            return await entry.future
        finally:
            self._remove(entry)

    async def _run(self) -> None:
        try:
            await self.session.open()
            while self._queue:
                self._wake_up.clear()
                if due := self._queue.pop_due():
                    await self._poll(due)
                self._start_fetches()
                await self._sleep()
        except Exception as error:  # noqa: BLE001  whatever it is, the waits must get it
            for entry in self._queue.clear():
                self._resolve(entry, error=error)
        finally:
            await self._close()

    async def _close(self) -> None:
        """End everything; the state is replaced first, so that a wait added now creates a new one."""
        task, self._task = self._task, None
        session, self.session = self.session, self.session.unopened_copy()
        fetches, self._fetches = self._fetches, set()
        refresh, self._refresh = self._refresh, None
        self._to_fetch.clear()
        left = self._queue.clear()
        if task is not None:
            _CLOSING.add(task)
            task.add_done_callback(_CLOSING.discard)
        for entry in left:  # the loop itself was canceled
            entry.future.cancel()
        block_requests, self._block_requests = self._block_requests, None
        timelines = block_requests.stop() if block_requests else []
        pending = [*fetches, *([refresh] if refresh else []), *timelines]
        for request in pending:
            request.cancel()
        self._on_idle()
        await asyncio.gather(*pending, return_exceptions=True)
        await session.close()

    async def _sleep(self) -> None:
        """Sleep until the next poll is due, a wait is added, the last one leaves, or a request finishes."""
        if not self._fetches:
            await self.session.close_retired()
        due = self._queue.next_due()
        delay = None if due is None else max(0.0, due - self._loop.time())
        with contextlib.suppress(asyncio.TimeoutError, TimeoutError):  # one class only from Python 3.11 on
            await asyncio.wait_for(self._wake_up.wait(), delay)

    def _remove(self, entry: QueueEntry) -> None:
        if self._queue.remove(entry):
            self._on_idle()
            self._wake_up.set()

    def _resolve(self, entry: QueueEntry, run: RunSnapshot | None = None, error: Exception | None = None) -> None:
        """End a wait."""
        if not entry.future.done():
            if error is not None:
                entry.future.set_exception(error)
            else:
                entry.future.set_result(run)
        self._remove(entry)

    def _refreshed(self, task: asyncio.Task[bool]) -> None:
        if task is self._refresh:
            self._refresh = None

    async def _poll(self, due: list[QueueEntry]) -> None:
        """Poll runs by a list if that is cheaper, and have the others fetched."""
        if self._breaker.needs_probe and not self._breaker.is_open(self._loop.time()):
            probe = due.pop(0)
            if self._queue.start_fetch(probe):
                await self._fetch(probe)
        if not self._breaker.is_open(self._loop.time()):
            by_list = []
            for entry in due:
                if entry.wait.expired:  # the last poll is a fetch
                    self._fetch_soon(entry)
                elif entry.state is State.POPPED:
                    by_list.append(entry)
            interval = min({entry.wait.poll_interval for entry in by_list}, default=math.inf)
            if by_list and self._should_list(by_list, interval):
                await self._list(by_list, interval)
        left = [entry for entry in due if entry.state is State.POPPED]
        if self._breaker.is_open(self._loop.time()):
            self._postpone(left)
        else:
            self._fetch_some(left)

    def _fetch_some(self, left: list[QueueEntry]) -> None:
        """Have runs fetched; when more fetches wait than a list costs, the others are due a little later."""
        now = self._loop.time()
        most = max(MAX_CONCURRENT_FETCHES, self._list_policy.cost(now))
        for entry in left:
            if len(self._to_fetch) < most or entry.in_list is InList.NEVER:
                self._fetch_soon(entry)
            else:  # all at the same moment, so that a list costs less
                self._queue.requeue(entry, (now // LIST_DELAY + 1) * LIST_DELAY)

    def _postpone(self, entries: Iterable[QueueEntry]) -> None:
        """Send nothing while the breaker is open; only deadlines are kept."""
        for entry in entries:
            if entry.state is State.REMOVED:
                continue
            if entry.wait.expired:
                self._resolve(entry)
                continue
            if self._breaker.error is not None:
                self._call(entry, entry.wait.connection_down, self._breaker.error)
            self._queue.requeue(entry, self._breaker.closes_at)

    def _fetch_soon(self, entry: QueueEntry) -> None:
        if self._queue.start_fetch(entry):
            self._to_fetch.append(entry)

    def _start_fetches(self) -> None:
        """Fetch the next runs, a few at a time."""
        if self._to_fetch and self._breaker.is_open(self._loop.time()):
            self._postpone(self._to_fetch)
            self._to_fetch.clear()
        while self._to_fetch and len(self._fetches) < MAX_CONCURRENT_FETCHES:
            entry = self._to_fetch.popleft()
            if entry.state is not State.REMOVED:
                task = self._loop.create_task(self._fetch(entry))
                self._fetches.add(task)
                task.add_done_callback(self._fetched)

    def _fetched(self, task: asyncio.Task[None]) -> None:
        self._fetches.discard(task)
        self._wake_up.set()

    async def _fetch(self, entry: QueueEntry) -> None:
        """Fetch one run."""
        entry.fetch_starts(self._loop.time())
        try:
            try:
                run, entry.workflow_deleted = await afetch_snapshot(
                    self.session.send, entry.wait.run_id, workflow_deleted=entry.workflow_deleted
                )
            except SkyvernError as error:
                self._fetch_failed(entry, error)
            else:
                self._breaker.succeeded()
                if entry.blocks is not None and run.is_final:
                    await self._requests_of_blocks().before_end(entry)
                self._update(entry, run)
        except Exception as error:  # noqa: BLE001  such as a log that cannot be written; this wait must get it
            self._resolve(entry, error=error)

    def _update(self, entry: QueueEntry, run: RunSnapshot) -> None:
        wait = entry.wait
        if entry.state is State.REMOVED:
            return
        entry.call(wait.update, run)
        if wait.is_done:
            self._resolve(entry, run if wait.ended else None)
            return
        if self._queue.active_though_missing(entry):
            self._list_policy.run_was_active()
        self._queue.requeue(entry, self._loop.time() + wait.next_delay())
        if entry.blocks is not None:
            self._requests_of_blocks().polled(entry)

    def _fetch_failed(self, entry: QueueEntry, error: SkyvernError) -> None:
        if error.transient:
            self._breaker.failed(error, self._loop.time())
        else:
            self._breaker.succeeded()
        if entry.state is State.REMOVED:
            return
        try:
            entry.call(entry.wait.poll_failed, error)
        except SkyvernError:
            self._resolve(entry, error=error)
            return
        if entry.wait.is_done:
            self._resolve(entry)
        else:
            due = self._loop.time() + entry.wait.next_delay()
            entry.fetch_failed(due)
            self._queue.requeue(entry, due)

    def _should_list(self, due: list[QueueEntry], interval: float) -> bool:
        now = self._loop.time()
        if self._list_policy.forget_old_cost(now):
            self._queue.expect_all_in_list()
        expected = len(due) - [entry.in_list for entry in due].count(InList.NEVER)
        near = sum(poller.count_within(2 * interval) for poller in self._sharing())
        return self._list_policy.is_worth_it(now, due=expected, near=near, interval=interval)

    def _sharing(self) -> list[RunPoller]:
        """Return the pollers that can use a list: the pollers of all connections with the same server and key."""
        others = [poller for poller in _POLLERS.get(self._loop, {}).values() if poller is not self]
        return [self, *(poller for poller in others if poller.session.lists_as(self.session))]

    async def _list(self, due: list[QueueEntry], interval: float) -> None:
        """Poll as many runs as possible by listing the active ones; runs missing from the list are fetched."""
        now, sharing = self._loop.time(), self._sharing()
        if any(poller.is_listing for poller in sharing):
            for entry in due:
                self._queue.requeue(entry, now + LIST_DELAY)
            return
        waits = sum(poller.waits for poller in sharing)
        list_pass = ListPass(
            started_at=now,
            expected=set().union(*(poller.runs_expected_in_list() for poller in sharing)),
            rechecks=math.ceil(1.4 * waits * interval / RECHECK_INTERVAL),
        )
        self._listing_until = now + LIST_PATIENCE
        try:
            await self._read_pages(list_pass, sharing)
        except SkyvernError as error:
            if error.transient:
                self._breaker.failed(error, self._loop.time())
            if self._list_policy.failed(error, self._loop.time()):
                log.info(
                    "Skyvern's list of active runs fails: runs are fetched one by one for some minutes. %s", error
                )
            return
        finally:
            self._listing_until = -math.inf
        for poller in sharing:
            poller.take_list(list_pass)

    async def _read_pages(self, list_pass: ListPass, sharing: list[RunPoller]) -> None:
        while list_pass.needs_more(self._list_policy.pages):
            pages = list_pass.next_pages(self._list_policy.pages)
            answers = await asyncio.gather(
                *(self.session.send(api.list_active_runs(page)) for page in pages), return_exceptions=True
            )
            for rows in answers:
                if isinstance(rows, BaseException):
                    raise rows
                self._breaker.succeeded()
                list_pass.page_read(rows)
                for poller in sharing:
                    await poller.take_rows(rows, list_pass)

    @property
    def is_listing(self) -> bool:
        """Whether this poller is reading the list, and did not begin too long ago."""
        return self._listing_until > self._loop.time()

    def count_within(self, interval: float) -> int:
        """Return how many of the waits for runs in the list are polled as often as this, or more often."""
        return self._queue.count_within(interval)

    def runs_expected_in_list(self) -> set[str]:
        """Return the runs that the list can be expected to hold."""
        return self._queue.runs_expected_in_list()

    def take_list(self, list_pass: ListPass) -> None:
        """Process a finished reading of the list: its cost, and the runs that it did not hold."""
        missing = {run_id: entries for run_id in list_pass.unseen if (entries := self._queue.entries_of(run_id))}
        unseen = 0 if list_pass.is_complete else len(missing)
        self._list_policy.succeeded(self._loop.time(), pages=list_pass.pages, unseen=unseen)
        for entries in missing.values():
            for entry in entries:
                self._queue.missing_from_list(entry)
                if list_pass.is_complete and entry.may_fetch(list_pass.started_at):
                    self._fetch_soon(entry)
        self._wake_up.set()

    async def take_rows(self, rows: list[ListedRun], list_pass: ListPass) -> None:
        """Apply the rows of a page, each to the waits for its run."""
        began = self._loop.time()
        for row in rows:
            run_id = row["run_id"]
            for entry in self._queue.entries_of(run_id):
                list_pass.unseen.discard(run_id)
                if entry.state is not State.FETCHING:
                    self._found_in_list(entry, row, list_pass)
            if self._loop.time() - began > YIELD_INTERVAL:  # the first row of a run is logged, which takes time
                await asyncio.sleep(0)
                began = self._loop.time()

    def _found_in_list(self, entry: QueueEntry, row: ListedRun, list_pass: ListPass) -> None:
        wait, started_at = entry.wait, list_pass.started_at
        delay = wait.poll_interval * list_pass.spread
        if entry.in_list is not InList.EXPECTED:
            self._queue.found_in_list(entry)
        if started_at >= entry.recheck_at and list_pass.rechecks > 0:  # a stale list must not hide an end for ever
            list_pass.rechecks -= 1
            self._fetch_soon(entry)
            return
        if is_no_news(row, wait, delay):
            self._queue.confirmed(entry, started_at + delay)
        elif self._call(entry, row_suffices, row, wait):
            self._queue.requeue(entry, started_at + delay)
        else:
            if entry.may_fetch(started_at):
                self._fetch_soon(entry)
            return
        if entry.blocks is not None:
            self._requests_of_blocks().polled(entry)

    @property
    def waits(self) -> int:
        """How many waits this connection has."""
        return len(self._queue)

    def _count_waits(self) -> int:
        """Return how many waits this event loop has, at all connections."""
        return sum(poller.waits for poller in {self, *_POLLERS.get(self._loop, {}).values()})

    def _requests_of_blocks(self) -> BlockRequests:
        """Return the requester of timelines; it is created for the first wait that logs blocks."""
        if self._block_requests is None:
            self._block_requests = BlockRequests(self.send, self._count_waits)
        return self._block_requests

    async def send(self, call: Call[T]) -> T:
        """Send a call for one of the waits, with the client that all waits share."""
        return await self.session.send(call)

    def _call(self, entry: QueueEntry, method: Callable[..., T], *args: Any) -> T | None:
        """Call a method of a wait; a failure, for example of writing its log, must not end the other waits."""
        try:
            return entry.call(method, *args)
        except Exception as error:  # noqa: BLE001  see above
            self._resolve(entry, error=error)
            return None


_POLLERS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, RunPoller]] = WeakKeyDictionary()


def poller_of(conn_id: str, connect: Connect, *, observe: Observe | None = None) -> RunPoller:
    """
    Return the poller that all waits of this event loop at this connection share.

    :param observe: Called after each request of a poller that is created now.
    """
    pollers = _POLLERS.setdefault(asyncio.get_running_loop(), {})
    if conn_id in pollers:
        return pollers[conn_id]

    def forget() -> None:
        if pollers.get(conn_id) is poller:
            del pollers[conn_id]

    pollers[conn_id] = poller = RunPoller(
        connect, on_idle=forget, make_client=functools.partial(single_attempt_client, observe=observe)
    )
    return poller
