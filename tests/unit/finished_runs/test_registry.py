"""Events in a real database of Airflow 3, with Airflow's own asset manager; only its scheduler is not there."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import airflow
import pytest

if airflow.__version__.startswith("2."):
    pytest.skip("assets came with Airflow 3", allow_module_level=True)

import sqlalchemy as sa
from airflow.models import asset as models
from airflow.models import import_all_models
from airflow.models.asset import (
    AssetActive,
    AssetDagRunQueue,
    AssetEvent,
    AssetModel,
    DagScheduleAssetReference,
)
from airflow.models.base import Base
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.trigger import Trigger
from airflow.settings import engine
from airflow.utils.session import create_session

from airflow_skyvern.finished_runs.registry import WATCHER, Delivered, register, requeue_dags
from airflow_skyvern.finished_runs.uri import FinishedRun, runs_uri
from airflow_skyvern.triggers.workflow_runs import SkyvernWorkflowRunsTrigger

NOW = datetime.now(timezone.utc)
WEEK = 7 * 86400.0
TABLES: Any = (AssetDagRunQueue, AssetEvent, DagScheduleAssetReference, AssetActive, AssetModel, DagRun, DagModel)


@pytest.fixture(scope="module", autouse=True)
def database() -> None:
    import_all_models()
    assert engine is not None
    Base.metadata.create_all(engine)


@pytest.fixture(autouse=True)
def empty(database: None) -> Iterator[None]:
    yield
    with create_session() as session:
        for table in TABLES:
            session.execute(sa.delete(table))


def add_dag(dag_id: str, uri: str, *, paused: bool = False, active: bool = True) -> None:
    """Store what Airflow stores when it has parsed a DAG that is scheduled on an asset."""
    with create_session() as session:
        if session.get(DagBundleModel, "b") is None:
            session.add(DagBundleModel(name="b"))
            session.flush()
        found = session.scalar(sa.select(AssetModel).where(AssetModel.uri == uri))
        if found is None:
            found = AssetModel(name=uri, uri=uri, group="asset", extra={})
            session.add(found)
            session.flush()
            if active:
                session.add(AssetActive(name=uri, uri=uri))
        session.add(
            DagModel(dag_id=dag_id, bundle_name="b", is_paused=paused, fileloc="f", has_task_concurrency_limits=False)
        )
        session.flush()
        before = NOW - timedelta(days=30)
        session.add(DagScheduleAssetReference(asset_id=found.id, dag_id=dag_id, created_at=before))


def finished(run_id: str = "wr_1", status: str = "completed", ended: datetime = NOW, **more: str) -> Delivered:
    run = FinishedRun(run_id=run_id, status=status, workflow_id="wpid_1", finished_at=ended.isoformat(), app_url=None)
    return Delivered(more.get("conn_id", "c"), run, ended)


def results(*batch: Delivered) -> list[str]:
    return [*register(batch, max_age=WEEK)]


def events() -> list[list[str]]:
    with create_session() as session:
        extras = session.scalars(sa.select(AssetEvent.extra).order_by(AssetEvent.id)).all()
        return [[run["run_id"] for run in extra["payload"]["runs"]] for extra in extras]


def queued() -> list[str]:
    with create_session() as session:
        return sorted(session.scalars(sa.select(AssetDagRunQueue.target_dag_id)))


def dequeue() -> None:
    """Forget the queue without having started anything, as Airflow may."""
    with create_session() as session:
        session.execute(sa.delete(AssetDagRunQueue))


@pytest.mark.slow
def test_a_run_becomes_one_event_that_starts_the_dags() -> None:
    add_dag("one", runs_uri("wpid_1", "c"))
    add_dag("two", runs_uri("wpid_1", "c"))
    assert results(finished()) == ["event created"]
    assert events() == [["wr_1"]]
    assert queued() == ["one", "two"]


def test_a_repeated_run_is_known_also_within_a_batch() -> None:
    add_dag("one", runs_uri("wpid_1", "c"))
    assert results(finished(), finished("wr_2"), finished()) == ["event created", "event created", "duplicate"]
    assert results(finished("wr_2"), finished("wr_3")) == ["duplicate", "event created"]
    assert events() == [["wr_1", "wr_2"], ["wr_3"]]


def test_a_run_whose_id_is_a_part_of_another_is_not_known() -> None:
    add_dag("one", runs_uri("wpid_1", "c"))
    assert results(finished("wr_12")) == results(finished("wr_1")) == results(finished("wrX1")) == ["event created"]
    assert results(finished('"%_\\')) == ["event created"]
    assert results(finished('"%_\\')) == ["duplicate"]


def test_what_a_watcher_handed_over_is_known() -> None:
    add_dag("one", runs_uri("wpid_1", "c"))
    with create_session() as session:
        asset_id = session.scalar(sa.select(AssetModel.id))
        extra = {"from_trigger": True, "payload": {"runs": [{"run_id": "wr_1"}]}}
        session.add(AssetEvent(asset_id=asset_id, extra=extra))
    assert results(finished()) == ["duplicate"]


def add_watcher(uri: str, redeliver_to: str | None) -> None:
    """Store what Airflow stores for the watcher of an asset, on 3.1 and on 3.3."""
    trigger = Trigger(WATCHER, {"workflow_id": "wpid_1", "redeliver_to": redeliver_to})
    with create_session() as session:
        asset = session.scalar(sa.select(AssetModel).where(AssetModel.uri == uri))
        assert asset is not None
        if hasattr(models, "AssetWatcherModel"):
            watcher = models.AssetWatcherModel(name="w", asset_id=asset.id)
            watcher.trigger = trigger
            asset.watchers.append(watcher)
        else:
            asset.triggers.append(trigger)


@pytest.mark.slow
def test_an_asset_whose_watcher_makes_events_is_left_to_it() -> None:
    for name in ("watched", "redelivered"):
        add_dag(name, runs_uri("wpid_1", name))
    add_watcher(runs_uri("wpid_1", "watched"), None)
    add_watcher(runs_uri("wpid_1", "redelivered"), "https://airflow.example.com/skyvern/webhooks/redelivered")
    add_dag("completed", runs_uri("wpid_1", "watched", "completed"))
    assert results(finished(conn_id="redelivered")) == ["event created"]
    assert results(finished(status="failed", conn_id="watched")) == ["left to the watcher"]
    assert results(finished(conn_id="watched")) == ["event created"]
    assert queued() == ["completed", "redelivered"]


def test_the_watcher_is_where_it_is_looked_for() -> None:
    trigger = SkyvernWorkflowRunsTrigger("wpid_1")
    assert trigger.serialize()[0] == WATCHER
    assert "redeliver_to" in trigger.serialize()[1]


def test_a_replay_of_an_old_delivery_starts_nothing() -> None:
    """Neither while its event is there, nor when Airflow has cleaned it up."""
    add_dag("one", runs_uri("wpid_1", "c"))
    replayed = finished(ended=NOW - timedelta(days=6))
    assert results(replayed) == ["event created"]
    assert results(replayed) == ["duplicate"]
    assert results(finished(ended=NOW - timedelta(days=8))) == ["too old"]
    assert results(finished("wr_9", ended=NOW + timedelta(days=2))) == ["in the future"]
    assert len(events()) == 1


def test_a_run_that_nobody_listens_to_makes_no_event() -> None:
    add_dag("elsewhere", runs_uri("wpid_1", "other"))
    add_dag("another", runs_uri("wpid_12", "c"))
    add_dag("gone", runs_uri("wpid_1", "c"), active=False)
    assert results(finished()) == ["no asset"]
    assert events() == []


@pytest.mark.slow
def test_an_asset_with_statuses_gets_those_only() -> None:
    add_dag("all", runs_uri("wpid_1", "c"))
    add_dag("bad", runs_uri("wpid_1", "c", ["failed", "timed_out"]))
    add_dag("good", runs_uri("wpid_1", "c", "completed"))
    assert results(finished("wr_1", "timed_out")) == ["event created"]
    assert queued() == ["all", "bad"]


def test_a_paused_dag_is_not_started() -> None:
    add_dag("paused", runs_uri("wpid_1", "c"), paused=True)
    assert results(finished()) == ["event created"]
    requeue_dags("c", "wpid_1")
    assert queued() == []


@pytest.mark.slow
def test_the_same_run_delivered_many_times_at_once_is_handed_over_once() -> None:
    add_dag("one", runs_uri("wpid_1", "c"))
    with ThreadPoolExecutor(8) as pool:
        said = [result for [result] in pool.map(lambda _: results(finished()), range(16))]
    assert sorted(said) == ["duplicate"] * 15 + ["event created"]
    assert events() == [["wr_1"]]


@pytest.mark.slow
def test_each_event_moves_the_queue_on_so_that_the_dag_sees_it() -> None:
    """Airflow starts a DAG for the events up to the time at which it was queued, and that is the first one's."""
    add_dag("one", runs_uri("wpid_1", "c"))
    for number in range(3):
        results(finished(f"wr_{number}"))
        with create_session() as session:
            latest = session.scalar(sa.select(sa.func.max(AssetEvent.timestamp)))
            at = session.scalar(sa.select(AssetDagRunQueue.created_at))
        assert at is not None
        assert latest is not None
        assert at >= latest


def test_a_dag_that_was_not_started_for_the_newest_event_is_queued_again() -> None:
    add_dag("one", runs_uri("wpid_1", "c"))
    results(finished())
    dequeue()
    requeue_dags("c", "wpid_1")
    assert queued() == ["one"]


def test_a_dag_that_was_started_for_all_events_is_left_alone() -> None:
    add_dag("one", runs_uri("wpid_1", "c"))
    results(finished())
    dequeue()
    after = datetime.now(timezone.utc) + timedelta(seconds=1)
    with create_session() as session:
        session.add(DagRun(dag_id="one", run_id="r", run_type="asset_triggered", run_after=after, start_date=after))
    requeue_dags("c", "wpid_1")
    assert queued() == []


def test_an_empty_batch_is_no_trouble() -> None:
    assert results() == []
    requeue_dags("c", "wpid_1")
