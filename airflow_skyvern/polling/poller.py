"""
All waits of one connection, in one loop: a thousand waits for the price of ten requests.

Instead of asking run by run, the watcher lists the active runs, a hundred per request. A run that is missing from the
list is never taken for finished: it is asked for itself. docs/architecture.md says how the watcher decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import math
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from airflow_skyvern.client import api
from airflow_skyvern.exceptions import SkyvernError
from airflow_skyvern.polling.circuit_breaker import CircuitBreaker
from airflow_skyvern.polling.listing import ListPass, ListPolicy, confirms, nothing_new
from airflow_skyvern.polling.queue import RECHECK, PollQueue, QueueEntry
from airflow_skyvern.polling.session import Connect, MakeClient, PollSession, single_attempt_client

if TYPE_CHECKING:
    from airflow_skyvern.models import ListedRun, RunSnapshot
    from airflow_skyvern.runs.wait import Wait

T = TypeVar("T")

log = logging.getLogger(__name__)

AT_ONCE = 8
"""How many runs are asked for at the same time."""

BREATH = 0.01
"""Seconds after which the reading of a page lets others have the event loop."""

_ENDING: set[asyncio.Task[None]] = set()
"""Loops that close their client; without a reference the event loop may drop them."""


class RunPoller:
    """
    Wait for many runs with one client and one loop; it lives as long as somebody waits.

    :param connect: Reads the connection: called before the first request and when the key is refused.
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
        self._line = PollSession(connect, make_client)
        self._places = PollQueue(self._loop.time)
        self._pace = CircuitBreaker()
        self._listing = ListPolicy()
        self._to_ask: deque[QueueEntry] = deque()
        self._asking: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def wait(self, wait: Wait[RunSnapshot], *, first_poll_delay: float = 0.0) -> RunSnapshot | None:
        """
        Return the run as it ended, or None when the wait is over before it has.

        :param first_poll_delay: Seconds before the first look at the run.
        :raises SkyvernError: looking again cannot help: an unknown run, a refused key.
        """
        place = QueueEntry(wait, self._loop.time(), first_poll_delay)
        self._places.add(place)
        if self._task is None:  # in a context of its own: a trigger's would send its log lines into that task's log
            self._task = contextvars.Context().run(self._loop.create_task, self._run())
        self._news.set()
        try:
            return await place.future
        finally:
            self._leave(place)

    async def _run(self) -> None:
        try:
            await self._line.open()
            while self._places:
                self._news.clear()
                if due := self._places.take_due():
                    await self._look_at(due)
                self._ask_next()
                await self._nap()
        except Exception as error:  # noqa: BLE001  whatever it is, those who wait must hear of it
            for place in self._places.clear():
                self._settle(place, error=error)
        finally:
            await self._close()

    async def _close(self) -> None:
        """End everything; what there is goes first, so that a wait that comes now starts anew."""
        task, self._task = self._task, None
        line, self._line = self._line, self._line.anew()
        asking, self._asking = self._asking, set()
        self._to_ask.clear()
        left = self._places.clear()
        if task is not None:
            _ENDING.add(task)
            task.add_done_callback(_ENDING.discard)
        for place in left:  # somebody has canceled the loop itself
            place.future.cancel()
        for request in asking:
            request.cancel()
        self._on_idle()
        await asyncio.gather(*asking, return_exceptions=True)
        await line.close()

    async def _nap(self) -> None:
        """Sleep until somebody is due, comes, leaves as the last, or has got an answer."""
        if not self._asking:
            await self._line.close_retired()
        due = self._places.next_due()
        pause = None if due is None else max(0.0, due - self._loop.time())
        with contextlib.suppress(asyncio.TimeoutError, TimeoutError):  # one class only from Python 3.11 on
            await asyncio.wait_for(self._news.wait(), pause)

    def _leave(self, place: QueueEntry) -> None:
        if self._places.remove(place):
            self._on_idle()
            self._news.set()

    def _settle(self, place: QueueEntry, run: RunSnapshot | None = None, error: Exception | None = None) -> None:
        """End a wait."""
        if not place.future.done():
            if error is not None:
                place.future.set_exception(error)
            else:
                place.future.set_result(run)
        self._leave(place)

    async def _look_at(self, due: list[QueueEntry]) -> None:
        """Look at runs by a list if that is cheaper, and let ask for the others."""
        if self._pace.in_trouble and not self._pace.held(self._loop.time()):
            probe = due.pop(0)
            probe.asking = True
            await self._ask(probe)
        if not self._pace.held(self._loop.time()):
            for place in due:
                if place.wait.expired:  # the last look is at the run itself
                    self._will_ask(place)
            by_list = [place for place in due if place.out]
            interval = min((place.wait.poll_interval for place in by_list), default=math.inf)
            if by_list and self._shall_list(by_list, interval):
                await self._list(interval)
        left = [place for place in due if place.out and place in self._places]
        if self._pace.held(self._loop.time()):
            self._hold(left)
        else:
            for place in left:
                self._will_ask(place)

    def _hold(self, places: Iterable[QueueEntry]) -> None:
        """Leave the server alone; only deadlines are kept meanwhile."""
        for place in places:
            if place not in self._places:
                continue
            if place.wait.expired:
                self._settle(place)
                continue
            if self._pace.error is not None:
                self._tell(place, place.wait.held_up, self._pace.error)
            self._places.put_back(place, self._pace.until)

    def _will_ask(self, place: QueueEntry) -> None:
        if not place.asking and place in self._places:
            place.asking, place.turn = True, None
            self._to_ask.append(place)

    def _ask_next(self) -> None:
        """Ask for those whose turn it is, a few at a time."""
        if self._to_ask and self._pace.held(self._loop.time()):
            self._hold(self._to_ask)
            self._to_ask.clear()
        while self._to_ask and len(self._asking) < AT_ONCE:
            place = self._to_ask.popleft()
            if place in self._places:
                task = self._loop.create_task(self._ask(place))
                self._asking.add(task)
                task.add_done_callback(self._answered)

    def _answered(self, task: asyncio.Task[None]) -> None:
        self._asking.discard(task)
        self._news.set()

    async def _ask(self, place: QueueEntry) -> None:
        """Look at one run itself."""
        place.will_be_asked(self._loop.time())
        try:
            try:
                run, place.workflow_deleted = await self._line.glance(
                    place.wait.run_id, workflow_deleted=place.workflow_deleted
                )
            except SkyvernError as error:
                self._missed(place, error)
            else:
                self._pace.worked()
                self._saw(place, run)
        except Exception as error:  # noqa: BLE001  such as a log that cannot be written; this wait must hear of it
            self._settle(place, error=error)

    def _saw(self, place: QueueEntry, run: RunSnapshot) -> None:
        wait = place.wait
        if run.is_final:
            self._listing.ended(wait.run_id, self._loop.time())
        if place not in self._places:
            return
        place.tell(wait.saw, run)
        if wait.over:
            self._settle(place, run if wait.ended else None)
            return
        if place.missing and place.listed:
            self._listing.missed_one()
            self._places.mark(place, listed=False)
        self._places.put_back(place, self._loop.time() + wait.pause())

    def _missed(self, place: QueueEntry, error: SkyvernError) -> None:
        if error.transient:
            self._pace.failed(error, self._loop.time())
        else:
            self._pace.worked()
        if place not in self._places:
            return
        try:
            place.tell(place.wait.missed, error)
        except SkyvernError:
            self._settle(place, error=error)
            return
        if place.wait.over:
            self._settle(place)
        else:
            due = self._loop.time() + place.wait.pause()
            place.asked = due - place.wait.poll_interval  # nor may a list have it asked for before
            self._places.put_back(place, due)

    def _shall_list(self, due: list[QueueEntry], interval: float) -> bool:
        now = self._loop.time()
        if self._listing.has_aged(now):
            self._places.mark_all_listed()
        expected = sum(place.listed for place in due)
        near = self._places.within(2 * interval)
        return self._listing.worth(now, due=expected, near=near, interval=interval)

    async def _list(self, interval: float) -> None:
        """Look at as many runs as possible by listing the active ones; who is missing has to be asked for."""
        checks = math.ceil(1.4 * len(self._places) * interval / RECHECK)
        sweep = ListPass(asked=self._loop.time(), sought=self._places.sought(), checks=checks)
        try:
            await self._read_pages(sweep)
        except SkyvernError as error:
            if error.transient:
                self._pace.failed(error, self._loop.time())
            if self._listing.failed(error, self._loop.time()):
                log.info("Skyvern's list of active runs is not used for some minutes. %s", error)
            return
        self._listing.listed(self._loop.time(), pages=sweep.pages, unseen=0 if sweep.complete else len(sweep.unseen))
        for run_id in sweep.unseen:
            for place in self._places.of(run_id):
                place.missing = True
                if sweep.complete and place.may_ask(sweep.asked):
                    self._will_ask(place)

    async def _read_pages(self, sweep: ListPass) -> None:
        while sweep.goes_on(self._listing.pages):
            pages = sweep.ahead(self._listing.pages)
            answers = await asyncio.gather(
                *(self._line.send(api.list_active_runs(page)) for page in pages), return_exceptions=True
            )
            for rows in answers:
                if isinstance(rows, BaseException):
                    raise rows
                self._pace.worked()
                sweep.turn(rows)
                await self._read_rows(rows, sweep)

    async def _read_rows(self, rows: list[ListedRun], sweep: ListPass) -> None:
        began = self._loop.time()
        for row in rows:
            run_id = row["run_id"]
            places = self._places.of(run_id)
            if places:
                sweep.unseen.discard(run_id)
            elif self._listing.contradicts(run_id, sweep.asked):
                log.warning("Skyvern's list of active runs is stale: %s is over.", run_id)
            for place in places:
                if not place.asking:
                    self._seen(place, row, sweep)
            if self._loop.time() - began > BREATH:  # who is seen for the first time is logged, which takes time
                await asyncio.sleep(0)
                began = self._loop.time()

    def _seen(self, place: QueueEntry, row: ListedRun, sweep: ListPass) -> None:
        wait = place.wait
        place.missing = False
        if not place.listed:
            self._places.mark(place, listed=True)
        if sweep.asked >= place.check and sweep.checks > 0:
            sweep.checks -= 1
            self._will_ask(place)
        elif nothing_new(row, wait) or self._tell(place, confirms, row, wait):
            self._places.put_back(place, sweep.asked + wait.poll_interval * sweep.jitter)
        elif place.may_ask(sweep.asked):
            self._will_ask(place)

    def _tell(self, place: QueueEntry, take_note: Callable[..., T], *args: Any) -> T | None:
        """Let a wait take note; one that cannot, as its log cannot be written, must not end the others."""
        try:
            return place.tell(take_note, *args)
        except Exception as error:  # noqa: BLE001  see above
            self._settle(place, error=error)
            return None


_WATCHERS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, RunPoller]] = WeakKeyDictionary()


def poller_of(conn_id: str, connect: Connect) -> RunPoller:
    """Return the watcher that everybody in this event loop shares who waits at this connection."""
    watchers = _WATCHERS.setdefault(asyncio.get_running_loop(), {})
    if conn_id in watchers:
        return watchers[conn_id]

    def forget() -> None:
        if watchers.get(conn_id) is watcher:
            del watchers[conn_id]

    watchers[conn_id] = watcher = RunPoller(connect, on_idle=forget)
    return watcher
