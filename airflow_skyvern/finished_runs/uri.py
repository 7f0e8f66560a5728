"""
The address of the finished runs of a workflow, as an asset's URI, and what an event of that asset says of a run.

``skyvern://skyvern_default/wpid_123`` stands for the finished runs of workflow ``wpid_123`` on the connection
``skyvern_default``; ``…?status=completed`` for those that completed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypedDict
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.task.arguments import refuse_late_values

SCHEME = "skyvern"
FINAL = ("canceled", "completed", "failed", "terminated", "timed_out")
"""The statuses of finished runs, as :data:`airflow_skyvern.models.FINAL_STATUSES`, which DAG files need not load."""

WANTED = "skyvern://<connection id>/<workflow id>, with ?status=completed for runs in that status only"


class FinishedRun(TypedDict):
    """
    A finished run, as events carry it.

    repeats have the same ``run_id``; ``finished_at`` is UTC in ISO 8601, or None where Skyvern does not say;
    ``app_url`` is the run's page in Skyvern.
    """

    run_id: str
    status: str
    workflow_id: str
    finished_at: str | None
    app_url: str | None


def checked_statuses(statuses: Iterable[str] | str | None) -> tuple[str, ...]:
    """
    Return final statuses in order; nothing chosen means all of them.

    :raises SkyvernConfigError: one of them is not a final status.
    """
    chosen = {statuses} if isinstance(statuses, str) else {str(status) for status in statuses or FINAL}
    if unknown := chosen.difference(FINAL):
        raise SkyvernConfigError(f"statuses: {sorted(unknown)} cannot be waited for; choose from {', '.join(FINAL)}.")
    return tuple(sorted(chosen or FINAL))


def runs_uri(
    workflow_id: str, skyvern_conn_id: str = "skyvern_default", statuses: Iterable[str] | str | None = None
) -> str:
    """Return the address of the finished runs of a workflow on a connection."""
    given: dict[str, Any] = {"workflow_id": workflow_id, "skyvern_conn_id": skyvern_conn_id}
    refuse_late_values(**given, statuses=statuses)
    for name, value in given.items():
        if not isinstance(value, str) or not value.strip():
            raise SkyvernConfigError(f"{name} must be a text, as it names an asset: {value!r}.")
    chosen = checked_statuses(statuses)
    query = "" if chosen == FINAL else urlencode([("status", status) for status in chosen])
    return urlunsplit((SCHEME, quote(skyvern_conn_id, safe=""), f"/{quote(workflow_id, safe='')}", query, ""))


def runs_named(uri: str) -> tuple[str, str, tuple[str, ...]]:
    """
    Return workflow, connection and statuses that an address stands for.

    :raises SkyvernConfigError: it is not an address of finished runs; a :class:`ValueError` for Airflow.
    """
    parts = urlsplit(uri)
    workflow_id = unquote(parts.path.strip("/"))
    query = parse_qsl(parts.query, keep_blank_values=True)
    if parts.scheme != SCHEME or not parts.netloc or not workflow_id or "/" in parts.path.strip("/"):
        raise SkyvernConfigError(f"{uri!r} does not name Skyvern runs; write {WANTED}.")
    if others := sorted({key for key, _ in query} - {"status"}):
        raise SkyvernConfigError(f"{uri!r}: {', '.join(others)} is not allowed there; write {WANTED}.")
    return workflow_id, unquote(parts.netloc), checked_statuses([value for _, value in query])
