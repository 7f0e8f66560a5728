"""When a task stops waiting, in seconds since the epoch: such a deadline survives deferrals and restarts."""

from __future__ import annotations

import math
import time
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_skyvern.runs.wait import Log, Reason, RunEvent

BACKSTOP = timedelta(minutes=5)
"""How long after our own deadline Airflow ends a deferral whose trigger sent no event."""

EXECUTION_MARGIN = timedelta(seconds=30)
"""How long before ``execution_timeout`` the wait ends, so that there is time to cancel the run."""

CONFIRMATION = 60.0
"""Seconds for which a worker polls a run that its trigger was refused for minutes."""

FIRST_POLL = 60.0
"""Seconds after which a wait has polled its run: an unknown one would have ended it by then."""

FETCH_PATIENCE = 300.0
"""Seconds for which a worker tries to fetch the result of a run that is known to have ended."""


def deadline_after(
    now: float,
    timeout: timedelta | float,
    execution_timeout: timedelta | None,
    started_at: float | None = None,
) -> float:
    """
    Return the end of a wait: the earlier of both limits.

    Airflow 3 does not enforce ``execution_timeout`` while a task is deferred, and Airflow 2 enforces it without
    calling any code of ours, so the wait ends before it: 30 s, at most half of it.

    :param started_at: When Airflow has started the task, which is where it counts ``execution_timeout`` from.
    """
    limit = timeout if isinstance(timeout, timedelta) else timedelta(seconds=timeout)
    deadline = now + limit.total_seconds()
    if execution_timeout is None:
        return deadline
    execution_limit = execution_timeout - min(EXECUTION_MARGIN, execution_timeout / 2)
    return min(deadline, (started_at or now) + execution_limit.total_seconds())


def airflows_timeout_for(deadline: float) -> timedelta:
    """Return Airflow's own timeout for a deferral whose trigger ends at the deadline."""
    return timedelta(seconds=max(0.0, deadline - time.time())) + BACKSTOP


def deadline_to_fetch(event: RunEvent, deadline: float, log: Log) -> float:
    """Return until when a resumed worker polls: a run that has ended has a result to fetch, whatever the time."""
    if event["reason"] == "error":
        log.warning("The triggerer stopped waiting; this worker continues. %s", event["message"])
    return max(deadline, time.time() + FETCH_PATIENCE) if event["reason"] == "ended" else deadline


def patience_after(reason: Reason | None, confirmation: float) -> float:
    """
    Return for how many seconds a worker does not believe a refusal, at the most.

    :param reason: Why its trigger has ended: ``error`` if that was refused for minutes.
    """
    return confirmation if reason == "error" else math.inf


def has_outlasted_first_poll(waiting_since: float) -> bool:
    """
    Return whether a wait without memory must have polled its run before.

    A triggerer that has just started cannot know otherwise: what a trigger learns is not stored.
    """
    return time.time() - waiting_since > FIRST_POLL
