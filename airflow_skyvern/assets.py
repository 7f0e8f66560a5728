"""
Finished runs as Airflow assets: their name, and what the events of such an asset say.

``skyvern://skyvern_default/wpid_123`` stands for the runs of workflow ``wpid_123`` that finished, on the
connection ``skyvern_default``; ``…?status=completed`` for those that completed. Needs Airflow 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit

from airflow_skyvern.exceptions import SkyvernConfigError

if TYPE_CHECKING:
    from airflow.sdk import Asset

SCHEME = "skyvern"
FINAL = ("canceled", "completed", "failed", "terminated", "timed_out")
"""The statuses of finished runs, as :data:`airflow_skyvern.models.FINAL_STATUSES`, which DAG files need not load."""

WANTED = "skyvern://<connection id>/<workflow id>, with ?status=completed for runs in that status only"


class FinishedRun(TypedDict):
    """
    A finished run, as events carry it.

    ``run_id`` is what to tell repeats by; ``finished_at`` is UTC in ISO 8601, or None where Skyvern does not say;
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

    :raises SkyvernConfigError: one of them is no final status.
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
    for name, value in given.items():
        if not isinstance(value, str) or not value.strip() or "{{" in value:
            raise SkyvernConfigError(f"{name} must be a text, and not a template, as it names an asset: {value!r}.")
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
        raise SkyvernConfigError(f"{uri!r} names no Skyvern runs; write {WANTED}.")
    if others := sorted({key for key, _ in query} - {"status"}):
        raise SkyvernConfigError(f"{uri!r}: {', '.join(others)} means nothing there; write {WANTED}.")
    return workflow_id, unquote(parts.netloc), checked_statuses([value for _, value in query])


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Bring the address of an asset into its one form; Airflow calls this for each ``skyvern://`` asset."""
    try:
        workflow_id, skyvern_conn_id, statuses = runs_named(urlunsplit(uri))
        return urlsplit(runs_uri(workflow_id, skyvern_conn_id, statuses))
    except SkyvernConfigError as error:
        raise ValueError(str(error)) from None


def create_asset(
    *, workflow_id: str, skyvern_conn_id: str = "skyvern_default", extra: dict[str, Any] | None = None
) -> Asset:
    """Make the asset for Airflow's hook lineage: ``add_output_asset(scheme="skyvern", asset_kwargs={...})``."""
    from airflow.sdk import Asset  # noqa: PLC0415  Airflow 3

    return Asset(uri=runs_uri(workflow_id, skyvern_conn_id), extra=extra or {})


def skyvern_runs(
    workflow_id: str,
    skyvern_conn_id: str = "skyvern_default",
    *,
    statuses: Iterable[str] | str | None = None,
    watch: bool = False,
    poll_interval: float = 30.0,
    redeliver_to: str | None = None,
) -> Asset:
    """
    Return the asset "finished runs of this workflow on this connection", to schedule DAGs on; Airflow 3.

    Its events come from a watcher (``watch=True``), from webhooks (``[skyvern] webhook_connections``), or both.
    :func:`runs_in` reads them. All DAG files that use the asset must make it with the same arguments.

    :param workflow_id: The workflow, ``wpid_…``; no template.
    :param skyvern_conn_id: Id of the connection of type ``skyvern``; no template.
    :param statuses: Only runs that ended this way: ``completed``, ``failed``, ``terminated``, ``timed_out``,
        ``canceled``, one or several. Default: all of them.
    :param watch: Whether Airflow's triggerer looks for such runs. Default: False.
    :param poll_interval: Seconds between two looks. Default: 30.
    :param redeliver_to: With ``watch``, and webhooks that may get lost: the address of this Airflow's webhooks,
        ``https://airflow.example.com/skyvern/webhooks/skyvern_default``. The watcher then makes no events itself
        but lets Skyvern send the webhook of each run there, and the receiver takes each run once.
    :raises SkyvernConfigError: an argument is wrong, or this is Airflow 2.
    """
    try:
        from airflow.sdk import Asset, AssetWatcher  # noqa: PLC0415  Airflow 3
    except ImportError:
        raise SkyvernConfigError("skyvern_runs needs Airflow 3: assets with watchers came with it.") from None
    uri = runs_uri(workflow_id, skyvern_conn_id, statuses)
    if not watch:
        if redeliver_to is not None:
            raise SkyvernConfigError("redeliver_to is what the watcher does: it needs watch=True.")
        return Asset(uri=uri)
    from airflow_skyvern.events import SkyvernWorkflowRunsTrigger  # noqa: PLC0415  needs Airflow 3

    trigger = SkyvernWorkflowRunsTrigger(
        workflow_id=workflow_id,
        skyvern_conn_id=skyvern_conn_id,
        statuses=checked_statuses(statuses),
        poll_interval=poll_interval,
        redeliver_to=redeliver_to,
    )
    return Asset(uri=uri, watchers=[AssetWatcher(name=f"{workflow_id} on {skyvern_conn_id}", trigger=trigger)])


def runs_in(triggering_asset_events: Mapping[Any, Iterable[Any]]) -> list[FinishedRun]:
    """
    Return the finished runs that a DAG run was started for, each once, in the order in which they came.

    :param triggering_asset_events: What Airflow gives a task of that name.
    """
    found: dict[str, FinishedRun] = {}
    for asset in triggering_asset_events:
        for event in triggering_asset_events[asset]:
            payload = (event.extra or {}).get("payload")
            for run in payload.get("runs", []) if isinstance(payload, Mapping) else []:
                found.setdefault(run["run_id"], run)
    return list(found.values())
