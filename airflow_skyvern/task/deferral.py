"""
The data of a deferral: the deadline of the wait, and the note that identifies the run.

A deadline is in seconds since the epoch, so it survives deferrals and restarts. Airflow keeps the note with the try,
also when the XComs are another try's.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_skyvern.runs.wait import Log, Reason, RunEvent

NOTE = "skyvern"
"""The name of the note in the deferral's kwargs; Airflow stores it, so it does not change."""

FAILED = "__fail__"
"""The method by which Airflow resumes a task whose deferral ended without an event."""

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

TRIGGER_FAILED_WAIT = 60.0
"""Seconds for which a worker polls the run of a trigger that failed, before it defers again."""

POLLS_AND_DEFERS_AGAIN = (
    "Skyvern run %s: its wait cannot be resumed; this worker polls for a minute and defers again. %s"
)
"""The log message if the trigger failed, or a newer version has deferred the task."""


def can_resume(task: Any, next_method: str) -> bool:
    """Return whether a task has the method by which it is to be resumed: a newer version may have deferred it."""
    return next_method == FAILED or callable(getattr(task, next_method, None))


def no_method(next_method: str) -> str:
    """Describe what a task without that method cannot do."""
    return f"A newer version of this provider has deferred the task; this one has no {next_method}."


def note_of_run(
    run_id: str,
    skyvern_conn_id: str,
    app_url: str | None = None,
    group: str | None = None,
    traceparent: str | None = None,
) -> dict[str, Any]:
    """
    Return the note that identifies a try's run from its deferral on; it contains no secret.

    :param app_url: The address of the run's page in Skyvern, if it is known.
    :param group: The tag of the attempt group, by which a second run of the same start is found at the end.
    :param traceparent: The position of the run's start in Airflow's trace, if there is one.
    """
    note = {"run_id": run_id, "skyvern_conn_id": skyvern_conn_id, "app_url": app_url}
    more = {"group": group, "traceparent": traceparent}
    return {**note, **{name: value for name, value in more.items() if value is not None}}


def note_of(next_kwargs: Any) -> Mapping[str, Any]:
    """
    Read the note of a try, in any form that Airflow has given the kwargs.

    Once the trigger has sent its event, the event may be all that is left: it has the run id.
    """
    kwargs = decoded(next_kwargs)
    if not isinstance(kwargs, Mapping):
        return {}
    for name in (NOTE, "event"):
        found = decoded(kwargs.get(name))
        if isinstance(found, Mapping) and isinstance(found.get("run_id"), str):
            return found
    return {}


def deadline_of(next_kwargs: Any) -> float | None:
    """Return until when a deferred task waits, in seconds since the epoch."""
    kwargs = decoded(next_kwargs)
    found = kwargs.get("deadline") if isinstance(kwargs, Mapping) else None
    return float(found) if isinstance(found, int | float) else None


def request_of(next_kwargs: Any) -> Mapping[str, Any] | None:
    """Return the request to a person with whose answer a deferred task is resumed, as the task has stored it."""
    kwargs = decoded(next_kwargs)
    found = decoded(kwargs.get("request")) if isinstance(kwargs, Mapping) else None
    return found if isinstance(found, Mapping) else None


def status_of(next_kwargs: Any) -> str | None:
    """Return the status of the run that the trigger has reported last, if it has."""
    kwargs = decoded(next_kwargs)
    event = decoded(kwargs.get("event")) if isinstance(kwargs, Mapping) else None
    found = event.get("status") if isinstance(event, Mapping) else None
    return found if isinstance(found, str) else None


def decoded(value: Any) -> Any:
    """Unwrap a stored value: JSON as text, or a value with its type."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    if isinstance(value, Mapping) and set(value) >= {"__type", "__var"}:
        return decoded(value["__var"])
    return value


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
