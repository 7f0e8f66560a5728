"""
Cancels runs: within the seconds that Airflow leaves to a killed task, or until Skyvern can be reached.

Canceling a run that has ended changes nothing in Skyvern, but sends the run's webhook again. So each of these
functions fetches the run first, and again after each failure: it may have ended while the server was away. Only when
most of the time is over, or when the answer cannot be read at all, is a cancel sent without knowing the status: a
needless webhook is better than a run that nobody waits for.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_skyvern.client import api
from airflow_skyvern.client.retry import patience_with, poll_until, while_transient, while_transient_async
from airflow_skyvern.client.session import fetch_run
from airflow_skyvern.exceptions import SkyvernAPIError, SkyvernConnectionError, SkyvernError
from airflow_skyvern.runs.key import GROUP_TAG, TASK_TAG
from airflow_skyvern.runs.lookup import REPLACED_STATUSES, tagged_runs

if TYPE_CHECKING:
    from airflow_skyvern.client.retry import Sleep
    from airflow_skyvern.client.session import Send
    from airflow_skyvern.models import Run
    from airflow_skyvern.runs.wait import Log

KILL_BUDGET = 4.0
"""Seconds for canceling the run of a killed task: Airflow 3 kills its process 5 s after the signal."""

KILL_INTERVAL = 0.3
"""Seconds between two attempts within the budget."""

CANCEL_PATIENCE = 300.0
"""Seconds for which a cancel is retried while Skyvern cannot be reached, if nothing limits the time."""

DEADLINE_PATIENCE = 60.0
"""Seconds for which a cancel is retried by a task that is out of time."""

FETCH_PATIENCE = 60.0
"""Seconds for which a run has to be fetched before its cancel, at the most; then the cancel is sent anyway."""

FETCH_SHARE = 0.75
"""The share of the time for a cancel in which the run has to be fetched first."""

LATE_START = 30.0
"""Seconds of the search for a run whose start was unanswered when its task was killed."""


@dataclass(frozen=True)
class Ended:
    """
    The result of a cancel.

    :param run: The run's state afterwards.
    :param canceled: Whether a cancel was sent; none is sent for a run that has ended by itself.
    """

    run: Run
    canceled: bool


def cancel_within_budget(
    send: Send,
    run_id: str | None,
    group: str | None,
    log: Log,
    budget: float = KILL_BUDGET,
    *,
    start_sent: bool = True,
) -> None:
    """
    Cancel the run of a killed task and confirm that it is canceled; raises nothing.

    :param send: Sends a call, once and not for long.
    :param run_id: The run, if its start has been answered.
    :param group: The tag for finding it if its start is still unanswered, or for finding its replacement by Skyvern.
    :param budget: Seconds for everything.
    :param start_sent: Whether a start may be unanswered, so that a run may appear during the search.
    """
    fetch_first = _FetchFirst(budget / 2 - KILL_INTERVAL)  # a fetch that gets no answer takes a third of it
    work = _KilledTask(send, run_id, group, fetch_first, start_sent=start_sent)
    until = time.monotonic() + budget
    poll_until(work.cancel, bool, stop=lambda _: time.monotonic() + KILL_INTERVAL >= until, interval=KILL_INTERVAL)
    work.report(log)


class _KilledTask:
    """The active runs of a killed task, and the progress of canceling them."""

    def __init__(
        self, send: Send, run_id: str | None, group: str | None, fetch_first: _FetchFirst, *, start_sent: bool
    ) -> None:
        self._send = send
        self._group = group
        self._fetch_first = fetch_first
        self._start_sent = start_sent
        self._open = [run_id] if run_id else []
        self._searched = bool(run_id) or group is None
        self._requested: set[str] = set()
        self._ended: dict[str, bool] = {}
        self._problem: object = "No active run was found."

    def cancel(self) -> bool:
        """Take the next steps, and return whether no run of the task is active any more."""
        for run_id in list(self._open):
            self._try(self._end, run_id)
        if not self._searched:
            self._try(self._search)
            for run_id in list(self._open):
                self._try(self._end, run_id)
        return self._searched and not self._open

    def _try(self, step: Callable[..., None], *args: str) -> None:
        try:
            step(*args)
        except SkyvernError as error:  # the next attempt continues here
            self._problem = error

    def report(self, log: Log) -> None:
        """Log the result for each run."""
        for run_id, canceled in self._ended.items():
            what = "canceled, as the task was killed" if canceled else "has ended, so there is nothing to cancel"
            log.info("Skyvern run %s: %s", run_id, what)
        for run_id in self._open:
            if run_id in self._requested:
                log.warning("Skyvern run %s: cancel requested, as the task was killed; not confirmed yet", run_id)
            else:
                log.warning("Skyvern run %s may still be running. %s", run_id, self._problem)
        if not self._searched:
            log.warning("Skyvern run (its start was not answered) may still be running. %s", self._problem)
        elif not (self._open or self._ended):
            log.info("The task was killed; no Skyvern run of it is active")

    def _search(self) -> None:
        assert self._group is not None
        found = active_runs_of(self._send, GROUP_TAG, self._group)
        self._open += [run_id for run_id in found if run_id not in self._ended]
        self._searched = bool(found) or not self._start_sent

    def _end(self, run_id: str) -> None:
        if run_id not in self._requested:
            if (ended := self._fetch_first.ended(self._send, run_id)) is not None:
                self._note_end(ended, canceled=False)
                return
            self._send(api.cancel_run(run_id))
            self._requested.add(run_id)
        run = fetch_run(self._send, run_id)
        if run.is_final:
            self._note_end(run, canceled=True)

    def _note_end(self, run: Run, *, canceled: bool) -> None:
        self._open.remove(run.run_id)
        self._ended[run.run_id] = canceled
        if not canceled and run.status in REPLACED_STATUSES and self._group is not None and len(self._ended) == 1:
            self._searched = self._start_sent = False  # Skyvern may have started another one in its place


def cancel_unless_ended(
    send: Send, run_id: str, patience: float = CANCEL_PATIENCE, sleep: Sleep = time.sleep
) -> Ended:
    """
    Cancel a run unless it has ended, also when Skyvern cannot be reached for a while.

    :param patience: Seconds after which a transient error is raised instead of retried.
    :raises SkyvernError: the run could not be canceled, or not be fetched afterwards.
    """
    requested = False
    fetch_first = _FetchFirst(patience)

    def cancel() -> Ended:
        nonlocal requested
        run = fetch_first.ended(send, run_id)
        if run is None:
            send(api.cancel_run(run_id))
            requested = True
            run = fetch_run(send, run_id)
        return Ended(run, requested)

    retrying = while_transient(patience, sleep=sleep, refusals=lambda error: min(patience_with(error), patience))
    ended: Ended = retrying(cancel)
    return ended


def cancel_and_fetch(send: Send, run_id: str, patience: float = CANCEL_PATIENCE, sleep: Sleep = time.sleep) -> Run:
    """Call :func:`cancel_unless_ended`, and return the run's state afterwards."""
    return cancel_unless_ended(send, run_id, patience, sleep).run


async def cancel_unless_ended_async(
    fetch: Callable[[], Awaitable[Run]],
    cancel: Callable[[], Awaitable[object]],
    sleep: Callable[[float], Awaitable[None]],
    refusals: float,
) -> Ended:
    """
    :func:`cancel_unless_ended` for an event loop.

    :param refusals: Seconds for which a refusal is not believed.
    """
    requested = False
    fetch_first = _FetchFirst(CANCEL_PATIENCE)

    async def attempt() -> Ended:
        nonlocal requested
        run: Run | None = None
        try:
            run = await fetch()
        except SkyvernError as error:
            fetch_first.failed(error)
        if run is None or not run.is_final:
            await cancel()
            requested = True
            run = await fetch()
        return Ended(run, requested)

    retrying = while_transient_async(
        CANCEL_PATIENCE, sleep=sleep, refusals=lambda error: min(patience_with(error), refusals)
    )
    ended: Ended = await retrying(attempt)
    return ended


def cancel_if_active(
    send: Send,
    run_id: str | None,
    group: str | None,
    sleep: Sleep = time.sleep,
    *,
    patience: float = CANCEL_PATIENCE,
    late_start: float | None = None,
) -> list[Run]:
    """
    Cancel the runs that an ended task left active, also if Skyvern is unreachable for minutes.

    :param run_id: The run, if its start has been answered.
    :param group: The tag to find it by otherwise: its start may have been unanswered when the task was killed, so the
        run is searched for during half a minute.
    :param patience: Seconds after which a transient error is raised instead of retried.
    :param late_start: Seconds of the search, counted from its first answer.
    :return: The canceled runs, in their state afterwards.
    :raises SkyvernError: a run could not be canceled.
    """
    late_start = LATE_START if late_start is None else late_start
    found = [run_id] if run_id else _late_runs(send, group, sleep, patience, late_start) if group else []
    ended = [cancel_unless_ended(send, each, patience, sleep) for each in found]
    return [each.run for each in ended if each.canceled]


def active_runs_of(send: Send, tag: str, value: str) -> list[str]:
    """Return our runs with this tag that have not ended, newest first; without runs that a person repeated."""
    runs = (run for run in tagged_runs(send, tag, value) if not (run.is_final or run.by_person))
    return [run.run_id for run in runs if run.tags.get(tag) == value]


def active_runs_of_task(send: Send, task: str, patience: float, sleep: Sleep = time.sleep) -> list[str]:
    """Return the active runs of a task instance, regardless of their attempt group."""
    found: list[str] = while_transient(patience, sleep=sleep)(active_runs_of, send, TASK_TAG, task)
    return found


class _FetchFirst:
    """
    Decides whether a run that cannot be fetched may be canceled without knowing whether it has ended.

    :param patience: Seconds for the whole cancel.
    """

    def __init__(self, patience: float) -> None:
        self._until = time.monotonic() + min(FETCH_SHARE * patience, FETCH_PATIENCE)

    def ended(self, send: Send, run_id: str) -> Run | None:
        """
        Return the run if it has ended; None if it must be canceled.

        :raises SkyvernError: it must be fetched again.
        """
        try:
            run = fetch_run(send, run_id)
        except SkyvernError as error:
            self.failed(error)
            return None
        return run if run.is_final else None

    def failed(self, error: SkyvernError) -> None:
        """
        Let a cancel follow a failed fetch, if the time is over or another fetch would not help.

        :raises SkyvernError: the same error; it must be fetched again.
        """
        is_unreadable = isinstance(error, SkyvernAPIError) and not (error.transient or patience_with(error))
        is_about_the_run = isinstance(error, SkyvernAPIError | SkyvernConnectionError)
        if not is_about_the_run or (time.monotonic() < self._until and not is_unreadable):
            raise error


def _late_runs(send: Send, group: str, sleep: Sleep, patience: float, late_start: float) -> list[str]:
    until: list[float] = []

    def search() -> list[str]:
        found: list[str] = while_transient(patience, sleep=sleep)(active_runs_of, send, GROUP_TAG, group)
        until[:1] = until[:1] or [time.monotonic() + late_start]
        return found

    return poll_until(search, bool, stop=lambda _: time.monotonic() >= until[0], sleep=sleep)
