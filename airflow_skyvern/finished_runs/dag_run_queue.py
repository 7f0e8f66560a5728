"""
Writes into Airflow's own queue of asset-triggered DAG runs. The riskiest code of this package, and therefore alone.

Airflow (3.0 to 3.3) has one row per asset and DAG in ``asset_dag_run_queue``, with the time of the *first* event.
The DAG run takes the events up to that time; events that come before the scheduler starts it wait for the next event,
which may never come: four webhooks within a second started one DAG run that held one run. So the row's time is moved
to now, and a DAG without a row is queued again if it was not started for the newest event.

Nothing else writes Airflow's tables. This can go when Airflow starts a DAG run for all events there are. Partitioned
DAGs (3.3) have a queue of their own, without this problem, and are left alone.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from airflow.models.asset import AssetDagRunQueue, AssetEvent, AssetModel
from airflow.models.dagrun import DagRun
from airflow.utils.types import DagRunType

from airflow_skyvern.compat import since_3_1, since_3_3, teams
from airflow_skyvern.finished_runs.uri import runs_named

if TYPE_CHECKING:
    from sqlalchemy.orm import Session


def queue_dags_for_all_events(session: Session, asset: AssetModel) -> None:
    """
    Make sure that each DAG that is scheduled on the asset, and not partitioned, is started for all its events.

    The caller holds the lock of the asset's row, so two API servers do not queue a DAG twice.
    """
    newest = session.scalar(sa.select(sa.func.max(AssetEvent.timestamp)).where(AssetEvent.asset_id == asset.id))
    if newest is None:
        return
    now = datetime.now(timezone.utc)
    for reference in _allowed(session, asset, since_3_1.scheduled_on(asset)):
        dag = reference.dag
        if dag.is_paused or since_3_3.is_partitioned(dag) or _postponed(session, asset, dag.dag_id, now):
            continue
        if newest > max(_last_start(session, dag.dag_id) or reference.created_at, reference.created_at):
            session.add(AssetDagRunQueue(asset_id=asset.id, target_dag_id=dag.dag_id, created_at=now))
            session.flush()


def _allowed(session: Session, asset: AssetModel, references: list[Any]) -> list[Any]:
    """Leave out the DAGs of other teams than the one that the asset's connection belongs to."""
    team = teams.team_of_connection(runs_named(asset.uri)[1], session)
    if team is None:
        return references
    own = teams.dags_of_team(team, [reference.dag.dag_id for reference in references], session)
    return [reference for reference in references if reference.dag.dag_id in own]


def _postponed(session: Session, asset: AssetModel, dag_id: str, now: datetime) -> bool:
    """Move the time of a DAG in the queue to now, and return whether it was there."""
    row = sa.update(AssetDagRunQueue).where(
        AssetDagRunQueue.asset_id == asset.id, AssetDagRunQueue.target_dag_id == dag_id
    )
    changed: Any = session.execute(row.values(created_at=now), execution_options={"synchronize_session": False})
    return bool(changed.rowcount)


def _last_start(session: Session, dag_id: str) -> datetime | None:
    """Return up to when the newest DAG run that assets have started took events."""
    started = sa.select(sa.func.max(DagRun.run_after)).where(
        DagRun.dag_id == dag_id, DagRun.run_type == DagRunType.ASSET_TRIGGERED
    )
    return session.scalar(started)
