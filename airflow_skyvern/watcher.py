"""
All waits of one connection, in one loop: a thousand waits for the price of ten requests.

Instead of asking run by run, the watcher lists the active runs, a hundred per request. A run that is missing from the
list is never taken for finished: it is asked for itself. docs/architecture.md says how the watcher decides.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import itertools
import logging
import math
import random
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

from airflow_skyvern import api
from airflow_skyvern.client import AsyncSkyvernClient, RetryPolicy, tls_context
from airflow_skyvern.exceptions import SkyvernAuthError, SkyvernConnectionError, SkyvernError, SkyvernNotFoundError
from airflow_skyvern.listing import Listing, Sweep, confirms
from airflow_skyvern.pace import Pace

if TYPE_CHECKING:
    from airflow_skyvern.client import Settings
    from airflow_skyvern.models import ListedRun, RunGlance
    from airflow_skyvern.waiting import Wait

T = TypeVar("T")

log = logging.getLogger(__name__)

AT_ONCE = 8
"""How many runs are asked for at the same time."""

RECHECK = 3600.0
"""Seconds after which a run that the list calls active is asked for itself."""

REREAD = 5.0
"""Seconds for which a connection that was read again is taken for what it is."""

BREATH = 0.01
"""Seconds after which the reading of a page lets others have the event loop."""

KEEP = 60.0
"""Seconds for which idle connections are kept."""

_ENDING: set[asyncio.Task[None]] = set()
"""Loops that close their client; without a reference the event loop may drop them."""


class _OnceMore(RetryPolicy):
    """Send a call again, once and at once, if the server has hung up: most often the connection was too old."""

    def delay(self, call: api.Call[Any], attempt: int, error: SkyvernError) -> float | None:
        again = attempt == 1 and call.repeatable and isinstance(error, SkyvernConnectionError) and error.hung_up
        return 0.0 if again else None


class _Place:
    """One wait in the watcher; ``turn`` is its entry in the queue, or None when it is being looked at."""

    __slots__ = (
        "asked",
        "busy",
        "check",
        "context",
        "due",
        "future",
        "listed",
        "missing",
        "orphaned",
        "ready",
        "turn",
        "wait",
    )

    def __init__(self, wait: Wait[RunGlance], due: float, check: float) -> None:
        self.wait = wait
        self.due = due
        self.check = check
        self.asked = -math.inf
        self.turn: int | None = None
        self.future: asyncio.Future[RunGlance | None] = asyncio.get_running_loop().create_future()
        self.context = contextvars.copy_context()  # Airflow chooses by it which task's log a line goes to
        self.busy = self.missing = self.orphaned = self.ready = False
        self.listed = True

    def tell(self, take_note: Callable[..., T], *args: Any) -> T:
        return self.context.run(take_note, *args)


class RunWatcher:
    """
    Wait for many runs with one client and one loop.

    :param connect: Reads the connection: called before the first request and when the key is refused.
    :param on_idle: Called when the last wait has left.
    :param make_client: Makes the client; for tests.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Settings]],
        *,
        on_idle: Callable[[], object] = lambda: None,
        make_client: Callable[[Settings], AsyncSkyvernClient] | None = None,
    ) -> None:
        self._connect = connect
        self._on_idle = on_idle
        self._make_client = make_client or _client
        self._loop = asyncio.get_running_loop()
        self._places: set[_Place] = set()
        self._ready: dict[str, list[_Place]] = {}
        self._intervals: Counter[float] = Counter()
        self._queue: list[tuple[float, int, _Place]] = []
        self._turns = itertools.count()
        self._to_ask: deque[_Place] = deque()
        self._asking: set[asyncio.Task[None]] = set()
        self._news = asyncio.Event()
        self._pace = Pace()
        self._listing = Listing()
        self._task: asyncio.Task[None] | None = None
        self._client: AsyncSkyvernClient | None = None
        self._retired: list[AsyncSkyvernClient] = []
        self._renewing = asyncio.Lock()
        self._read = -math.inf

    async def wait(self, wait: Wait[RunGlance], *, first_look: float = 0.0) -> RunGlance | None:
        """
        Return the run as it ended, or None when the wait is over before it has.

        :param first_look: Seconds before the first look at the run.
        :raises SkyvernError: looking again cannot help: an unknown run, a refused key.
        """
        now = self._loop.time()
        place = _Place(wait, now + first_look, now + RECHECK * random.random())  # noqa: S311  spreads load
        self._places.add(place)
        self._enqueue(place)
        if self._task is None:  # in a context of its own: a trigger's would send its log lines into that task's log
            self._task = contextvars.Context().run(self._loop.create_task, self._run())
        self._news.set()
        try:
            return await place.future
        finally:
            self._leave(place)

    async def _run(self) -> None:
        try:
            await self._work()
        except Exception as error:  # noqa: BLE001  whatever it is, those who wait must hear of it
            for place in list(self._places):
                self._settle(place, error=error)
        finally:
            await self._close()

    async def _work(self) -> None:
        settings = await self._connect()
        await asyncio.to_thread(_prepare, settings)
        self._client = self._make_client(settings)
        while self._places:
            self._news.clear()
            if due := self._due():
                await self._look_at(due)
            self._ask_next()
            await self._nap()

    async def _close(self) -> None:
        """End everything; the task is forgotten first, so that a wait that comes now starts another."""
        task, self._task = self._task, None
        clients, self._client, self._retired = [*self._retired, self._client], None, []
        asking, self._asking = self._asking, set()
        left, self._places = self._places, set()
        self._ready.clear()
        self._queue.clear()
        self._to_ask.clear()
        self._intervals.clear()
        if task is not None:
            _ENDING.add(task)
            task.add_done_callback(_ENDING.discard)
        for place in left:  # somebody has canceled the loop itself
            place.future.cancel()
        for request in asking:
            request.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        for client in clients:
            if client is not None:
                await client.aclose()

    def _leave(self, place: _Place) -> None:
        if place not in self._places:
            return
        self._places.discard(place)
        if place.ready:
            twins = self._ready[place.wait.run_id]
            twins.remove(place)
            if not twins:
                del self._ready[place.wait.run_id]
            self._count(place, -1)
        if not self._places:
            self._on_idle()
            self._news.set()

    def _settle(self, place: _Place, run: RunGlance | None = None, error: Exception | None = None) -> None:
        """End a wait."""
        if not place.future.done():
            if error is not None:
                place.future.set_exception(error)
            else:
                place.future.set_result(run)
        self._leave(place)

    def _enqueue(self, place: _Place) -> None:
        place.turn = next(self._turns)
        heapq.heappush(self._queue, (place.due, place.turn, place))

    def _due(self) -> list[_Place]:
        """Take out of the queue who has to be looked at now; who was seen meanwhile goes back."""
        now, due = self._loop.time(), []
        while self._queue and self._queue[0][0] <= now:
            _, turn, place = heapq.heappop(self._queue)
            if place.turn != turn or place not in self._places:
                continue
            if place.due > now:
                self._enqueue(place)
                continue
            place.turn = None
            if not place.ready:
                place.ready = True
                self._ready.setdefault(place.wait.run_id, []).append(place)
                self._count(place, 1)
            due.append(place)
        return due

    async def _nap(self) -> None:
        """Sleep until somebody is due, comes, goes, or got an answer."""
        if not self._asking:
            while self._retired:
                await self._retired.pop().aclose()
        pause = max(0.0, self._queue[0][0] - self._loop.time()) if self._queue else None
        with contextlib.suppress(asyncio.TimeoutError, TimeoutError):  # one class only from Python 3.11 on
            await asyncio.wait_for(self._news.wait(), pause)

    async def _look_at(self, due: list[_Place]) -> None:
        if self._pace.in_trouble and not self._pace.held(self._loop.time()):
            probe = next((place for place in due if not place.wait.expired), due[0])
            due.remove(probe)
            probe.busy = True
            await self._ask(probe)
        if self._pace.held(self._loop.time()):
            self._hold(due)
            return
        expired = [place for place in due if place.wait.expired]
        for place in expired:
            self._will_ask(place)
        due = [place for place in due if place.turn is None and not place.busy]
        if due and self._shall_list(due):
            await self._list(due)
            if self._pace.held(self._loop.time()):
                self._hold(place for place in due if place.turn is None and not place.busy)
                return
        for place in due:
            if place.turn is None and place in self._places:
                self._will_ask(place)

    def _hold(self, places: Iterable[_Place]) -> None:
        """Leave the server alone; only deadlines are kept meanwhile."""
        for place in places:
            if place.wait.expired:
                self._settle(place)
            elif place in self._places:
                if self._pace.error is not None:
                    place.tell(place.wait.held_up, self._pace.error)
                self._put_back(place, self._pace.until)

    def _put_back(self, place: _Place, due: float) -> None:
        """Queue up again."""
        place.busy = False
        self._postpone(place, due)
        self._enqueue(place)

    def _postpone(self, place: _Place, due: float) -> None:
        """Look at it then, at the deadline at the latest."""
        now = self._loop.time()
        place.due = max(now, min(due, now + place.wait.left))

    def _will_ask(self, place: _Place) -> None:
        if not place.busy:
            place.busy, place.turn = True, None
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

    async def _ask(self, place: _Place) -> None:
        """Look at one run itself."""
        place.asked = self._loop.time()
        place.check = place.asked + RECHECK * random.uniform(0.5, 1.0)  # noqa: S311  spreads load
        try:
            run = await self._glance(place)
            self._pace.worked()
            if place in self._places:
                self._saw(place, run)
        except SkyvernError as error:
            self._missed(place, error)
        except Exception as error:  # noqa: BLE001  such as a log that cannot be written; this wait must hear of it
            self._settle(place, error=error)

    async def _glance(self, place: _Place) -> RunGlance:
        run_id = place.wait.run_id
        if not place.orphaned:
            try:
                return await self._send(api.glance_at_run(run_id))
            except SkyvernNotFoundError as error:
                if not error.workflow_gone:
                    raise
                place.orphaned = True
        return await self._send(api.glance_at_run(run_id, orphaned=True))

    def _saw(self, place: _Place, run: RunGlance) -> None:
        wait = place.wait
        place.tell(wait.saw, run)
        if wait.over:
            if wait.ended:
                self._listing.ended(wait.run_id, self._loop.time())
            self._settle(place, run if wait.ended else None)
            return
        if place.missing and place.listed:
            self._listing.missed_one()
            self._mark(place, listed=False)
        self._put_back(place, self._loop.time() + wait.pause())

    def _missed(self, place: _Place, error: SkyvernError) -> None:
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
            self._put_back(place, self._loop.time() + place.wait.pause())

    def _shall_list(self, due: list[_Place]) -> bool:
        now = self._loop.time()
        if self._listing.has_aged(now):
            for place in self._places:
                self._mark(place, listed=True)
        interval = min(place.wait.poll_interval for place in due)
        return self._listing.worth(
            now,
            due=sum(place.listed for place in due),
            near=sum(count for other, count in self._intervals.items() if other <= 2 * interval),
            interval=interval,
        )

    async def _list(self, due: list[_Place]) -> None:
        """Look at as many runs as possible by listing the active ones; who is missing has to be asked for."""
        interval = min(place.wait.poll_interval for place in due)
        sweep = Sweep(
            asked=self._loop.time(),
            sought={run_id for run_id, places in self._ready.items() if any(place.listed for place in places)},
            checks=math.ceil(1.4 * len(self._ready) * interval / RECHECK),
        )
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
            for place in self._ready.get(run_id, ()):
                place.missing = True
                if sweep.complete and not place.busy and place.asked + place.wait.poll_interval <= sweep.asked:
                    self._will_ask(place)

    async def _read_pages(self, sweep: Sweep) -> None:
        while sweep.goes_on(self._listing.pages):
            pages = sweep.ahead(self._listing.pages)
            answers = await asyncio.gather(
                *(self._send(api.list_active_runs(page)) for page in pages), return_exceptions=True
            )
            for rows in answers:
                if isinstance(rows, BaseException):
                    raise rows
                self._pace.worked()
                sweep.turn(rows)
                await self._read_rows(rows, sweep)

    async def _read_rows(self, rows: list[ListedRun], sweep: Sweep) -> None:
        began = self._loop.time()
        for row in rows:
            if self._loop.time() - began > BREATH:  # who is seen for the first time is logged, which takes time
                await asyncio.sleep(0)
                began = self._loop.time()
            run_id = row["run_id"]
            places = self._ready.get(run_id)
            if places is None:
                if self._listing.contradicts(run_id, sweep.asked):
                    log.warning("Skyvern's list of active runs is stale: it holds %s, which is over.", run_id)
                continue
            sweep.unseen.discard(run_id)
            for place in list(places):
                if not place.busy:
                    self._seen(place, row, sweep)

    def _seen(self, place: _Place, row: ListedRun, sweep: Sweep) -> None:
        wait = place.wait
        place.missing = False
        self._mark(place, listed=True)
        if sweep.asked >= place.check and sweep.checks > 0:
            sweep.checks -= 1
            self._will_ask(place)
        elif place.tell(confirms, row, wait):
            due = sweep.asked + wait.poll_interval * sweep.jitter
            if place.turn is None:
                self._put_back(place, due)
            else:
                self._postpone(place, due)
        elif place.turn is None or place.asked + wait.poll_interval <= sweep.asked:
            self._will_ask(place)

    def _mark(self, place: _Place, *, listed: bool) -> None:
        if place.listed != listed:
            place.listed = listed
            if place.ready:
                self._intervals[place.wait.poll_interval] += 1 if listed else -1

    def _count(self, place: _Place, change: int) -> None:
        if place.listed:
            self._intervals[place.wait.poll_interval] += change

    async def _send(self, call: api.Call[T]) -> T:
        client = self._client
        assert client is not None
        try:
            return await client.send(call)
        except SkyvernAuthError:
            if not await self._renewed(client):
                raise
            assert self._client is not None
            return await self._client.send(call)

    async def _renewed(self, refused: AsyncSkyvernClient) -> bool:
        """Read the connection again, and tell whether its key is another one now."""
        async with self._renewing:
            if self._client is not refused:
                return True
            if self._loop.time() - self._read < REREAD:
                return False
            self._read = self._loop.time()
            try:
                settings = await self._connect()
            except Exception as error:  # noqa: BLE001  the refusal itself says more than why there is no newer key
                log.warning("The Skyvern connection could not be read again: %s", error)
                return False
            if settings == refused.settings:
                return False
            log.info("A Skyvern connection has changed: trying its new key")
            self._retired.append(refused)
            self._client = self._make_client(settings)
            return True


_WATCHERS: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, RunWatcher]] = WeakKeyDictionary()


def watcher_of(conn_id: str, connect: Callable[[], Awaitable[Settings]]) -> RunWatcher:
    """Return the watcher that everybody in this event loop shares who waits at this connection."""
    watchers = _WATCHERS.setdefault(asyncio.get_running_loop(), {})
    if conn_id not in watchers:
        watchers[conn_id] = RunWatcher(connect, on_idle=lambda: watchers.pop(conn_id, None))
    return watchers[conn_id]


def _client(settings: Settings) -> AsyncSkyvernClient:
    return AsyncSkyvernClient(settings, retry=_OnceMore(), keep=KEEP)


def _prepare(settings: Settings) -> None:
    """Make what takes tens of milliseconds the first time, in a thread: other triggers share the event loop."""
    tls_context(settings.verify)
    api.list_active_runs(1).parse(b"[]")
    api.glance_at_run("").parse(b'{"run_id": "", "status": "created"}')
