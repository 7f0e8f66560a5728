"""What a deferral carries besides what resumes it; Airflow keeps it with the try, when the XComs are another's."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

NOTE = "skyvern"
"""The name of the note in the deferral's kwargs; Airflow stores it, so it does not change."""


def note_of_run(
    run_id: str, skyvern_conn_id: str, app_url: str | None = None, group: str | None = None
) -> dict[str, Any]:
    """
    Return the note that identifies a try's run from its deferral on; it contains no secret.

    :param app_url: The address of the run's page in Skyvern, if it is known.
    :param group: The tag of the attempt group, by which a second run of the same start is found at the end.
    """
    note = {"run_id": run_id, "skyvern_conn_id": skyvern_conn_id, "app_url": app_url}
    return note if group is None else {**note, "group": group}


def note_of(next_kwargs: Any) -> Mapping[str, Any]:
    """
    Read the note of a try, whatever Airflow has made of the kwargs.

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
    """Unwrap a stored value: JSON as text, or a value with its type beside it."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    if isinstance(value, Mapping) and set(value) >= {"__type", "__var"}:
        return decoded(value["__var"])
    return value
