"""
Cancels runs in the background of Airflow's API server: a few at a time, each once.

A cancellation may take minutes while Skyvern is unreachable, and a user may mark a DAG run with hundreds of tasks. So
there are a few threads, which end when they have nothing to do.
"""

from __future__ import annotations

import atexit
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

THREADS = 4


@dataclass(frozen=True)
class Cancellation:
    """
    A run to cancel.

    :param dag_id: The DAG of its task, which may read the connection.
    :param run_id: The run, if its start was answered.
    :param group: The tag of the attempt group, to find it by otherwise.
    """

    skyvern_conn_id: str
    dag_id: str
    run_id: str | None
    group: str | None

    def __str__(self) -> str:
        return self.run_id or f"(not known by id; its tag airflow_key is {self.group})"


class Cancellations:
    """
    A queue of runs to cancel, and the threads that work on it.

    :param cancel: Cancels one run.
    :param idle_seconds: Seconds without work after which a thread ends.
    """

    def __init__(self, cancel: Callable[[Cancellation], object], *, idle_seconds: float = 5.0) -> None:
        self._cancel = cancel
        self._idle_seconds = idle_seconds
        self._changed = threading.Condition()
        self._queue: deque[Cancellation] = deque()
        self._unfinished: set[Cancellation] = set()
        self._threads = 0
        atexit.register(self.log_unfinished)

    def add(self, work: Cancellation) -> None:
        """Cancel a run soon, unless it is in the queue already: marking a DAG run reports its tasks twice."""
        with self._changed:
            if work in self._unfinished:
                return
            self._unfinished.add(work)
            self._queue.append(work)
            if self._threads < min(THREADS, len(self._unfinished)):
                self._threads += 1
                threading.Thread(target=self._run, name="cancel Skyvern runs", daemon=True).start()
            self._changed.notify()

    def join(self, timeout: float) -> bool:
        """Wait until nothing is left to cancel; return whether that happened in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._unfinished, timeout)

    def log_unfinished(self) -> None:
        """Log what a shutdown interrupts: its runs may be running."""
        with self._changed:
            for work in self._unfinished:
                log.error("Skyvern run %s may still be running: the API server stopped before it was canceled", work)

    def _run(self) -> None:
        while (work := self._next()) is not None:
            try:
                self._cancel(work)
            except Exception:  # one run must not keep the others from being canceled
                log.exception("Skyvern run %s may still be running", work)
            with self._changed:
                self._unfinished.discard(work)
                self._changed.notify_all()

    def _next(self) -> Cancellation | None:
        with self._changed:
            if self._changed.wait_for(lambda: self._queue, self._idle_seconds):
                return self._queue.popleft()
            self._threads -= 1
            return None
