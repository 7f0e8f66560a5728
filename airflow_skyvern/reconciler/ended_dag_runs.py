"""A queue of DAG runs that ended in this scheduler, and the thread that searches for runs they left active."""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from enum import Enum
from functools import cache

from airflow_skyvern.compat import since_3_0

log = logging.getLogger(__name__)

LOOKS = (10.0, 60.0)
"""
Seconds after the end at which Skyvern is asked: when the end is committed and tasks that were stopped have canceled
their own runs; and so many seconds after that, for a start that was under way.
"""

JUST_ENDED = timedelta(minutes=10)
"""How long ago Airflow changed a task whose run is checked; an earlier task ended by itself."""

LONGEST_SESSION = timedelta(hours=25)
"""How long ago a task may have ended whose browser session is open: no timeout of a session is longer."""

MOST_WAITING = 10_000
"""How many DAG runs the queue holds at most, to bound the scheduler's memory."""

RETRIES = 10
RETRY_AFTER = 30.0
"""How often, and after how many seconds, a failed check is repeated: Skyvern or the database is away."""


@dataclass(frozen=True, order=True)
class EndedDagRun:
    """
    A DAG run whose Skyvern runs are to be checked.

    :param due: When, by the clock of its queue.
    :param later: Seconds after which it is checked again, if it has Skyvern tasks.
    :param retries: How often the check may still fail.
    """

    due: float
    dag_id: str
    run_id: str
    ended_at: datetime
    later: tuple[float, ...] = ()
    retries: int = RETRIES


class Outcome(Enum):
    """The result of a check: no Skyvern task ended there, all is done, or something could not be done yet."""

    NOTHING, DONE, FAILED = "nothing", "done", "failed"


class EndedDagRuns:
    """
    A queue of DAG runs, each checked by one thread some seconds after its end.

    :param look: Checks a DAG run.
    """

    def __init__(
        self, look: Callable[[EndedDagRun], Outcome], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._look = look
        self._clock = clock
        self._changed = threading.Condition()
        self._queue: list[EndedDagRun] = []
        self._thread: threading.Thread | None = None
        self._busy = False

    def add(self, dag_id: str, run_id: str, looks: Sequence[float]) -> None:
        """Check a DAG run that just ended after each of these delays, in seconds; returns at once."""
        first, *later = looks
        self._put(EndedDagRun(self._clock() + first, dag_id, run_id, datetime.now(timezone.utc), tuple(later)))

    def join(self, timeout: float) -> bool:
        """Wait until the queue is empty; return whether that was in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._queue and not self._busy, timeout)

    def _put(self, ended: EndedDagRun) -> None:
        with self._changed:
            if len(self._queue) >= MOST_WAITING:
                log.error(
                    "%s of %s: not checked for active Skyvern runs, as too many DAG runs have ended",
                    ended.run_id,
                    ended.dag_id,
                )
                return
            heapq.heappush(self._queue, ended)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="orphaned Skyvern runs", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            ended = self._next()
            self._follow_up(ended, self._outcome(ended))
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _follow_up(self, ended: EndedDagRun, outcome: Outcome) -> None:
        now = self._clock()
        if outcome is Outcome.DONE and ended.later:
            first, *later = ended.later
            self._put(replace(ended, due=now + first, later=tuple(later)))
        elif outcome is Outcome.FAILED and ended.retries:
            self._put(replace(ended, due=now + RETRY_AFTER, retries=ended.retries - 1))
        elif outcome is Outcome.FAILED:
            log.error("%s of %s: Skyvern runs of its tasks may still be running", ended.run_id, ended.dag_id)

    def _outcome(self, ended: EndedDagRun) -> Outcome:
        try:
            return self._look(ended)
        except Exception:  # one DAG run must not keep the others from being checked
            log.exception("%s of %s: could not search for the Skyvern runs that it left", ended.run_id, ended.dag_id)
            return Outcome.FAILED

    def _next(self) -> EndedDagRun:
        with self._changed:
            while not self._queue or (left := self._queue[0].due - self._clock()) > 0:
                self._changed.wait(left if self._queue else None)
            self._busy = True
            return heapq.heappop(self._queue)


def cancel_orphans_of(ended: EndedDagRun) -> Outcome:
    """Cancel the runs and close the sessions of a DAG run that has ended; without such tasks no request is sent."""
    from airflow_skyvern.reconciler.airflow_tasks import AirflowTasks
    from airflow_skyvern.reconciler.browser_sessions import close_sessions_of
    from airflow_skyvern.reconciler.sweep import Sweep
    from airflow_skyvern.runs.key import READABLE_TAGS, tag_value

    if not since_3_0.installation():
        warn_of_missing_name()
        return Outcome.NOTHING
    dag_id, run_id = ended.dag_id, ended.run_id
    problems: list[str] = []
    connections = AirflowTasks().connections_of(dag_id, run_id, ended.ended_at - JUST_ENDED)
    sessions = close_sessions_of(dag_id, run_id, ended.ended_at - LONGEST_SESSION, problems.append)
    if not connections and not sessions:
        return Outcome.NOTHING
    dag_tag, _, run_tag = READABLE_TAGS
    sweep = Sweep(min_age=timedelta(0), report=problems.append, dag_id=dag_id)
    tags = {dag_tag: tag_value(dag_id), run_tag: tag_value(run_id)}
    for one in sweep.find(sorted(connections), cancel=True, tags=tags):
        if one.action:
            log.warning(
                "Skyvern run %s: %s, as %s of %s has ended and %s",
                one.finding.run.run_id,
                one.action,
                run_id,
                dag_id,
                one.finding.verdict.reason,
            )
    for problem in problems:
        log.warning("%s of %s: %s", run_id, dag_id, problem)
    return Outcome.FAILED if problems else Outcome.DONE


@cache
def warn_of_missing_name() -> None:
    """Log once that nothing is canceled by this scheduler."""
    log.warning(
        "Skyvern runs that a DAG run leaves are not canceled when it ends: this Airflow has no name that "
        "identifies its runs. Set [skyvern] installation, or base_url"
    )
