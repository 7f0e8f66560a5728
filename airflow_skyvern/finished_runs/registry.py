"""
From finished runs to asset events in Airflow's database, each run once; for the webhooks in the API server.

The events themselves record which runs were registered: they survive restarts, and every API server reads them. The
row of the asset is locked from the check to the commit, so two deliveries at the same moment are handled in turn.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa
from airflow.assets.manager import asset_manager
from airflow.models.asset import AssetActive, AssetEvent, AssetModel
from airflow.utils.session import create_session

from airflow_skyvern.compat import since_3_1, since_3_3, teams
from airflow_skyvern.finished_runs.dag_run_queue import queue_dags_for_all_events
from airflow_skyvern.finished_runs.uri import FinishedRun, runs_named, runs_uri

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

DeliveryResult = Literal["event created", "duplicate", "left to the watcher", "too old", "in the future", "no asset"]

WATCHER = "airflow_skyvern.triggers.SkyvernWorkflowRunsTrigger"

CLOCK_SKEW = timedelta(days=1)
"""How far the clocks of Skyvern and Airflow may differ: events are searched from so long before a run's end."""


@dataclass(frozen=True)
class Delivered:
    """
    A finished run of a connection.

    :param ended: When the run ended, as Skyvern says.
    """

    conn_id: str
    run: FinishedRun
    ended: datetime


def register(batch: Sequence[Delivered], *, max_age: float) -> list[DeliveryResult]:
    """
    Make the asset events of finished runs that have none yet, and return the result for each run.

    :param max_age: Seconds since its end after which a run is refused: Airflow may have cleaned up its events.
    """
    now = datetime.now(timezone.utc)
    results: dict[int, DeliveryResult] = {}
    acceptable: dict[int, Delivered] = {}
    for number, delivered in enumerate(batch):
        if delivered.ended < now - timedelta(seconds=max_age):
            results[number] = "too old"
        elif delivered.ended > now + CLOCK_SKEW:
            results[number] = "in the future"
        else:
            acceptable[number] = delivered
    with create_session() as session:
        results.update(_register_new(session, acceptable))
    return [results[number] for number in range(len(batch))]


def _register_new(session: Session, batch: dict[int, Delivered]) -> dict[int, DeliveryResult]:
    listening: dict[int, list[AssetModel]] = {}
    results: dict[int, DeliveryResult] = {}
    for number, delivered in batch.items():
        found = _assets(session, delivered.conn_id, delivered.run["workflow_id"], delivered.run["status"])
        listening[number] = [asset for asset in found if not _has_a_watcher(asset)]
        results[number] = "left to the watcher" if found else "no asset"
    assets = {asset.id: asset for found in listening.values() for asset in found}
    _lock(session, assets)
    fresh: dict[int, dict[str, FinishedRun]] = {asset_id: {} for asset_id in assets}
    for number, delivered in batch.items():
        run = delivered.run
        for asset in listening[number]:
            if results[number] != "event created":
                results[number] = "duplicate"
            if run["run_id"] not in fresh[asset.id] and not _is_known(session, asset, run["run_id"], delivered.ended):
                fresh[asset.id][run["run_id"]] = run
                results[number] = "event created"
    for asset_id, runs in fresh.items():
        if runs:
            _make_events(session, assets[asset_id], list(runs.values()))
    return results


def requeue_dags(conn_id: str, workflow_id: str) -> None:
    """Start DAGs for events that Airflow has passed over, on any asset of a workflow's runs."""
    with create_session() as session:
        assets = _assets(session, conn_id, workflow_id)
        _lock(session, [asset.id for asset in assets])
        for asset in assets:
            queue_dags_for_all_events(session, asset)


def _assets(session: Session, conn_id: str, workflow_id: str, status: str | None = None) -> list[AssetModel]:
    """Return the assets in use that stand for runs of the workflow (in this status)."""
    uri = runs_uri(workflow_id, conn_id)
    named = sa.or_(AssetModel.uri == uri, AssetModel.uri.startswith(f"{uri}?", autoescape=True))
    active = sa.and_(AssetActive.name == AssetModel.name, AssetActive.uri == AssetModel.uri)
    found = session.scalars(sa.select(AssetModel).join(AssetActive, active).where(named).order_by(AssetModel.id))
    return [asset for asset in found if status is None or status in runs_named(asset.uri)[2]]


def _has_a_watcher(asset: AssetModel) -> bool:
    """Return whether a watcher makes the events of the asset: two writers would make them twice."""
    return any(trigger.classpath == WATCHER and not trigger.kwargs.get("redeliver_to") for trigger in asset.triggers)


def _lock(session: Session, asset_ids: Iterable[int]) -> None:
    """Lock the assets until the commit; SQLite locks by writing."""
    ids = sorted(asset_ids)
    if session.get_bind().dialect.name == "sqlite":
        session.execute(
            sa.update(AssetModel).where(AssetModel.id.in_(ids)).values(id=AssetModel.id),
            execution_options={"synchronize_session": False},
        )
    else:
        rows = sa.select(AssetModel.id).where(AssetModel.id.in_(ids)).order_by(AssetModel.id)
        session.execute(rows.with_for_update(key_share=True)).all()


def _is_known(session: Session, asset: AssetModel, run_id: str, ended: datetime) -> bool:
    """Return whether an event of the asset, of whatever origin, holds the run; it cannot be older than its end."""
    holds = sa.cast(AssetEvent.extra, sa.Text).contains(json.dumps(run_id), autoescape=True)
    found = sa.select(AssetEvent.id).where(
        AssetEvent.asset_id == asset.id, AssetEvent.timestamp >= ended - CLOCK_SKEW, holds
    )
    return session.scalar(found.limit(1)) is not None


def _make_events(session: Session, asset: AssetModel, runs: Sequence[FinishedRun]) -> None:
    """
    Make an event of all runs, and one of each run for DAGs with partitions (Airflow 3.3).

    An event with a partition key starts only such DAGs, one run per key; one without starts only the others. Runs of
    a team's connection start DAGs of that team: the others may not read it.
    """
    whose = teams.only_for(teams.team_of_connection(runs_named(asset.uri)[1], session))

    def register(some: Sequence[FinishedRun], **more: Any) -> None:
        extra = {"from_webhook": True, "payload": {"runs": list(some)}}
        asset_manager.register_asset_change(asset=asset, extra=extra, session=session, **whose, **more)

    partitioned = {since_3_3.is_partitioned(listener.dag) for listener in since_3_1.scheduled_on(asset)}
    if True in partitioned:
        for run in runs:
            register([run], partition_key=run["run_id"])
    if partitioned != {True}:
        register(runs)
    session.flush()
    queue_dags_for_all_events(session, asset)
