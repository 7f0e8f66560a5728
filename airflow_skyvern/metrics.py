"""
What this provider adds to Airflow's metrics, wherever those go: statsd, Datadog, OpenTelemetry.

docs/metrics.md explains each. The tags are few, so that a thousand tasks make no thousand series. Plain statsd has no
tags, so what must be distinguished there is in the name.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_skyvern.compat import internals, since_3_2

if TYPE_CHECKING:
    from airflow_skyvern.exceptions import SkyvernError
    from airflow_skyvern.models import RunSnapshot
    from airflow_skyvern.runs.cost import Cost

log = logging.getLogger(__name__)

RUN_STARTED = "skyvern.run.started"
RUN_RESUMED = "skyvern.run.resumed"
RUN_ENDED = "skyvern.run.ended"
RUN_DURATION = "skyvern.run.duration"
RUN_STEPS = "skyvern.run.steps"
RUN_CREDITS = "skyvern.run.credits"
END_NOTICED = "skyvern.run.end_noticed"
WAITS = "skyvern.waits"
REQUEST_SENT = "skyvern.request.sent"
REQUEST_FAILED = "skyvern.request.failed"

GAUGE_INTERVAL = 10.0
"""Seconds between two reports of the waits of a triggerer: a gauge that is not repeated may be taken for gone."""


def run_started(conn_id: str, *, resumed: bool) -> None:
    """Count a run that a task has started, or one of an earlier try that it resumes."""
    _write("incr", RUN_RESUMED if resumed else RUN_STARTED, tags={"conn_id": conn_id})


def run_ended(conn_id: str, run: RunSnapshot, cost: Cost) -> None:
    """Count a run that a task has waited for, by its status, how long it took, and what it has cost."""
    if not run.is_final:
        return
    tags = {"conn_id": conn_id, "status": run.status}
    _write("incr", f"{RUN_ENDED}.{run.status}", tags=tags)
    if (duration := run.duration) is not None:
        _write("timing", RUN_DURATION, duration, tags=tags)
    for name, used in ((RUN_STEPS, cost.steps), (RUN_CREDITS, cost.credits)):
        if used:
            _write("incr", name, used, tags=tags)


def end_noticed(conn_id: str, run: RunSnapshot, waiting_since: float = 0.0) -> None:
    """
    Note how long after its end a deferred task has noticed that its run has ended.

    :param waiting_since: When the wait began, in seconds since the epoch: an earlier end was not noticed late.
    """
    if run.finished_at is not None:
        late = time.time() - max(run.finished_at.timestamp(), waiting_since)
        _write("timing", END_NOTICED, timedelta(seconds=max(0.0, late)), tags={"conn_id": conn_id})


def request_sent(conn_id: str, error: SkyvernError | None) -> None:
    """Count a request, and its failure by the status of the answer: ``none`` when there was no answer."""
    _write("incr", REQUEST_SENT, tags={"conn_id": conn_id})
    if error is not None:
        status = str(getattr(error, "status_code", None) or "none")
        _write("incr", REQUEST_FAILED, tags={"conn_id": conn_id, "status": status})


@contextmanager
def active_wait() -> Iterator[None]:
    """Count a wait while it lasts; in the triggerer's event loop."""
    _WAITS.change(+1)
    try:
        yield
    finally:
        _WAITS.change(-1)


class _Waits:
    """
    How many waits this process has.

    A triggerer that starts takes up a thousand waits at once, so the first change is reported soon, and every other
    with the next report.
    """

    def __init__(self) -> None:
        self.count = 0
        self._report: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def change(self, by: int) -> None:
        self.count += by
        loop = asyncio.get_running_loop()
        if self._report is None or self._loop is not loop:
            self._loop = loop
            self._report = loop.call_later(1.0, self._write)
        if not self.count:
            self._report.cancel()
            self._write()

    def _write(self) -> None:
        host = internals.hostname()
        _write("gauge", WAITS, self.count, tags={"hostname": host})
        _write("gauge", f"{WAITS}.{host}", self.count, tags={"hostname": host})
        assert self._loop is not None
        self._report = self._loop.call_later(GAUGE_INTERVAL, self._write) if self.count else None


_WAITS = _Waits()


def _write(kind: str, name: str, *args: Any, tags: dict[str, str]) -> None:
    try:
        getattr(since_3_2.stats(), kind)(name, *args, tags=tags)
    except Exception:  # whatever a metrics backend raises: a run is worth more than a number about it
        log.debug("The metric %s could not be written", name, exc_info=True)
