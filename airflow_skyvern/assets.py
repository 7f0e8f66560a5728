"""
Finished runs as Airflow assets: their name, and what the events of such an asset say.

``skyvern://skyvern_default/wpid_123`` stands for the runs of workflow ``wpid_123`` that finished, on the
connection ``skyvern_default``; ``…?status=completed`` for those that completed. Needs Airflow 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit, urlunsplit

from airflow_skyvern.compat import since_3_0
from airflow_skyvern.compat.stores import openlineage_dataset
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.finished_runs.declarations import declare
from airflow_skyvern.finished_runs.uri import FinishedRun, checked_statuses, runs_named, runs_uri
from airflow_skyvern.task.arguments import refuse_late_values

__all__ = [
    "FinishedRun",
    "convert_asset_to_openlineage",
    "create_asset",
    "runs_in",
    "runs_uri",
    "sanitize_uri",
    "skyvern_runs",
]

if TYPE_CHECKING:
    from airflow.sdk import Asset


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
    from airflow.sdk import Asset

    return Asset(uri=runs_uri(workflow_id, skyvern_conn_id), extra=extra or {})


def convert_asset_to_openlineage(asset: Asset, _lineage_context: object) -> Any:
    """
    Return OpenLineage's name for the workflow of an asset; its provider calls this for each ``skyvern://`` asset.

    The namespace is ``skyvern://skyvern_default``, with the connection's id, and the name is the workflow's id.
    """
    workflow_id, skyvern_conn_id, _ = runs_named(asset.uri)
    return openlineage_dataset(f"skyvern://{skyvern_conn_id}", workflow_id)


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
    :func:`runs_in` reads them. All DAG files that use the asset must make it with the same arguments; otherwise
    Airflow would keep replacing one file's watcher with another's. The second file is refused.

    :param workflow_id: The workflow, ``wpid_…``; no template.
    :param skyvern_conn_id: Id of the connection of type ``skyvern``; no template.
    :param statuses: Only runs that ended this way: ``completed``, ``failed``, ``terminated``, ``timed_out``,
        ``canceled``, one or several. Default: all of them.
    :param watch: Whether Airflow's triggerer looks for such runs. Default: False.
    :param poll_interval: Seconds between two polls. Default: 30.
    :param redeliver_to: With ``watch``, and webhooks that may get lost: the address of this Airflow's webhooks,
        ``https://airflow.example.com/skyvern/webhooks/skyvern_default``. The watcher then creates no events itself:
        it asks Skyvern to send each run's webhook there, and the receiver accepts each run once.
    :raises SkyvernConfigError: an argument is wrong, another DAG file has made the asset differently, or this is
        Airflow 2.
    """
    if not since_3_0.is_airflow_3():
        raise SkyvernConfigError("skyvern_runs needs Airflow 3: assets with watchers came with it.")
    from airflow.sdk import Asset, AssetWatcher

    refuse_late_values(watch=watch, poll_interval=poll_interval, redeliver_to=redeliver_to)
    uri = runs_uri(workflow_id, skyvern_conn_id, statuses)
    if not watch:
        if redeliver_to is not None:
            raise SkyvernConfigError("redeliver_to is what the watcher does: it needs watch=True.")
        declare(uri, {"watch": False})
        return Asset(uri=uri)
    from airflow_skyvern.triggers.workflow_runs import SkyvernWorkflowRunsTrigger

    trigger = SkyvernWorkflowRunsTrigger(
        workflow_id=workflow_id,
        skyvern_conn_id=skyvern_conn_id,
        statuses=checked_statuses(statuses),
        poll_interval=poll_interval,
        redeliver_to=redeliver_to,
    )
    declare(uri, {"watch": True, "poll_interval": trigger.poll_interval, "redeliver_to": redeliver_to})
    return Asset(uri=uri, watchers=[AssetWatcher(name=f"{workflow_id} on {skyvern_conn_id}", trigger=trigger)])


def runs_in(triggering_asset_events: Mapping[Any, Iterable[Any]]) -> list[FinishedRun]:
    """
    Return the finished runs that started a DAG run, each once, in order of arrival.

    :param triggering_asset_events: The value that Airflow passes to a task argument of that name.
    """
    found: dict[str, FinishedRun] = {}
    for asset in triggering_asset_events:
        for event in triggering_asset_events[asset]:
            payload = (event.extra or {}).get("payload")
            for run in payload.get("runs", []) if isinstance(payload, Mapping) else []:
                found.setdefault(run["run_id"], run)
    return list(found.values())
