"""
From a finished run to asset events in Airflow's database, once per run; used by the webhooks in the API server.

The events themselves say what was handed over: they survive restarts, and every API server sees them. The row of
the asset is locked from the look to the commit, so two deliveries at the same moment are one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa
from airflow.assets.manager import asset_manager
from airflow.models.asset import AssetActive, AssetDagRunQueue, AssetEvent, AssetModel
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from airflow.utils.types import DagRunType

from airflow_skyvern import compat
from airflow_skyvern.finished_runs.uri import FinishedRun, runs_named, runs_uri

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

Outcome = Literal[
    "handed over", "already handed over", "left to the watcher", "too old", "of the future", "nobody listens"
]

WATCHER = "airflow_skyvern.triggers.SkyvernWorkflowRunsTrigger"

SKEW = timedelta(days=1)
"""How far the clocks of Skyvern and Airflow may differ: an event is looked for from so long before the run's end."""


@dataclass(frozen=True)
class Finished:
    """
    A finished run of a connection.

    :param ended: When the run ended, as Skyvern says.
    """

    conn_id: str
    run: FinishedRun
    ended: datetime


def hand_over(batch: Sequence[Finished], *, max_age: float) -> list[Outcome]:
    """
    Make the events of finished runs, as far as they have not been made, and say for each what has become of it.

    :param max_age: Seconds since its end after which a run is not taken: Airflow may have cleaned up its events.
    """
    now = datetime.now(timezone.utc)
    outcomes: dict[int, Outcome] = {}
    to_do: dict[int, Finished] = {}
    for place, finished in enumerate(batch):
        if finished.ended < now - timedelta(seconds=max_age):
            outcomes[place] = "too old"
        elif finished.ended > now + SKEW:
            outcomes[place] = "of the future"
        else:
            to_do[place] = finished
    with create_session() as session:
        outcomes.update(_hand_over(session, to_do))
    return [outcomes[place] for place in range(len(batch))]


def _hand_over(session: Session, batch: dict[int, Finished]) -> dict[int, Outcome]:
    listening: dict[int, list[AssetModel]] = {}
    outcomes: dict[int, Outcome] = {}
    for place, finished in batch.items():
        found = _assets(session, finished.conn_id, finished.run["workflow_id"], finished.run["status"])
        listening[place] = [asset for asset in found if not _has_a_watcher(asset)]
        outcomes[place] = "left to the watcher" if found else "nobody listens"
    assets = {asset.id: asset for found in listening.values() for asset in found}
    _lock(session, assets)
    fresh: dict[int, dict[str, FinishedRun]] = {asset_id: {} for asset_id in assets}
    for place, finished in batch.items():
        run = finished.run
        for asset in listening[place]:
            if outcomes[place] != "handed over":
                outcomes[place] = "already handed over"
            if run["run_id"] not in fresh[asset.id] and not _is_known(session, asset, run["run_id"], finished.ended):
                fresh[asset.id][run["run_id"]] = run
                outcomes[place] = "handed over"
    for asset_id, runs in fresh.items():
        if runs:
            _register(session, assets[asset_id], list(runs.values()))
    return outcomes


def wake_all(conn_id: str, workflow_id: str) -> None:
    """Start DAGs for events that Airflow has passed over, on any asset of a workflow's runs."""
    with create_session() as session:
        assets = _assets(session, conn_id, workflow_id)
        _lock(session, [asset.id for asset in assets])
        for asset in assets:
            wake(session, asset)


def _assets(session: Session, conn_id: str, workflow_id: str, status: str | None = None) -> list[AssetModel]:
    """Return the assets in use that stand for runs of the workflow (in this status)."""
    uri = runs_uri(workflow_id, conn_id)
    named = sa.or_(AssetModel.uri == uri, AssetModel.uri.startswith(f"{uri}?", autoescape=True))
    active = sa.and_(AssetActive.name == AssetModel.name, AssetActive.uri == AssetModel.uri)
    found = session.scalars(sa.select(AssetModel).join(AssetActive, active).where(named).order_by(AssetModel.id))
    return [asset for asset in found if status is None or status in runs_named(asset.uri)[2]]


def _has_a_watcher(asset: AssetModel) -> bool:
    """Tell whether a watcher makes the events of the asset itself: each asset has one writer, or runs came twice."""
    return any(trigger.classpath == WATCHER and not trigger.kwargs.get("redeliver_to") for trigger in asset.triggers)


def _lock(session: Session, asset_ids: Iterable[int]) -> None:
    """Let nobody else do the same until the commit; SQLite locks by writing."""
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
    """Tell whether an event of the asset, of whatever origin, holds the run; it cannot be older than its end."""
    holds = sa.cast(AssetEvent.extra, sa.Text).contains(json.dumps(run_id), autoescape=True)
    found = sa.select(AssetEvent.id).where(
        AssetEvent.asset_id == asset.id, AssetEvent.timestamp >= ended - SKEW, holds
    )
    return session.scalar(found.limit(1)) is not None


def _register(session: Session, asset: AssetModel, runs: Sequence[FinishedRun]) -> None:
    """
    Make an event of all runs, and one of each run for DAGs with partitions (Airflow 3.3).

    An event with a partition key starts only such DAGs, one run per key; one without starts only the others.
    """

    def register(some: Sequence[FinishedRun], **more: Any) -> None:
        extra = {"from_webhook": True, "payload": {"runs": list(some)}}
        asset_manager.register_asset_change(asset=asset, extra=extra, session=session, **more)

    partitioned = {compat.is_partitioned(listener.dag) for listener in asset.scheduled_dags}
    if True in partitioned:
        for run in runs:
            register([run], partition_key=run["run_id"])
    if partitioned != {True}:
        register(runs)
    session.flush()
    wake(session, asset)


def wake(session: Session, asset: AssetModel) -> None:
    """
    See to it that each DAG without partitions is started for all events there are.

    Airflow queues a DAG with the time of the first event and starts it for events up to then; those that follow
    before it is started would wait for the next event, which may never come. So the queue's time is moved on, and a
    DAG that is not queued any more, and has not been started for the newest event, is queued again.
    """
    newest = session.scalar(sa.select(sa.func.max(AssetEvent.timestamp)).where(AssetEvent.asset_id == asset.id))
    now = datetime.now(timezone.utc)
    for reference in asset.scheduled_dags:
        dag = reference.dag
        if newest is None or dag.is_paused or compat.is_partitioned(dag):
            continue
        queued = sa.update(AssetDagRunQueue).where(
            AssetDagRunQueue.asset_id == asset.id, AssetDagRunQueue.target_dag_id == dag.dag_id
        )
        changed: Any = session.execute(
            queued.values(created_at=now), execution_options={"synchronize_session": False}
        )
        if changed.rowcount:
            continue
        started = session.scalar(
            sa.select(sa.func.max(DagRun.run_after)).where(
                DagRun.dag_id == dag.dag_id, DagRun.run_type == DagRunType.ASSET_TRIGGERED
            )
        )
        if newest > max(started or reference.created_at, reference.created_at):
            session.add(AssetDagRunQueue(asset_id=asset.id, target_dag_id=dag.dag_id, created_at=now))
            session.flush()
