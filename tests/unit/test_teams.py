"""Airflow with teams (`[core] multi_team`), its own database and code: who may use a team's connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from inspect import signature

import airflow
import pytest

if airflow.__version__.startswith("2."):
    pytest.skip("Airflow 2 has no teams", allow_module_level=True)

import sqlalchemy as sa
from airflow.assets.manager import AssetManager

if "api_user_teams" not in signature(AssetManager.register_asset_change).parameters:
    pytest.skip("assets know teams since Airflow 3.3", allow_module_level=True)

from airflow.models import import_all_models
from airflow.models.asset import AssetActive, AssetDagRunQueue, AssetEvent, AssetModel, DagScheduleAssetReference
from airflow.models.base import Base
from airflow.models.connection import Connection
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.team import Team
from airflow.settings import engine
from airflow.utils.session import create_session

from airflow_skyvern.compat.sdk import AirflowNotFoundException
from airflow_skyvern.compat.teams import may_read
from airflow_skyvern.finished_runs.registry import Delivered, register, requeue_dags
from airflow_skyvern.finished_runs.uri import FinishedRun, runs_uri
from airflow_skyvern.finished_runs.webhooks import read_api_key
from airflow_skyvern.hooks import ServerHook, SkyvernHook
from airflow_skyvern.reconciler.sweep import skyvern_connections
from airflow_skyvern.task.cancellations import Cancellation
from airflow_skyvern.task.listener import cancel_marked
from airflow_skyvern.testing.fake.skyvern import API_KEY, FakeSkyvern

NOW = datetime.now(timezone.utc)
KEYS = {"of_a": "key-of-a", "of_all": "key-of-all"}
TABLES = (AssetDagRunQueue, AssetEvent, DagScheduleAssetReference, AssetActive, AssetModel, DagRun, DagModel)


@pytest.fixture(autouse=True)
def teams(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two teams with a DAG each, a DAG of nobody, a connection of team a and one of all; assets of both."""
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    import_all_models()
    assert engine is not None
    Base.metadata.create_all(engine)
    with create_session() as session:
        for name in ("a", "b"):
            bundle = DagBundleModel(name=f"bundle_{name}")
            bundle.teams.append(Team(name=name))
            session.add(bundle)
        session.add(DagBundleModel(name="bundle_none"))
        session.flush()
        for name in ("a", "b", "none"):
            more = {"is_paused": False, "fileloc": "f", "has_task_concurrency_limits": False}
            session.add(DagModel(dag_id=f"dag_{name}", bundle_name=f"bundle_{name}", **more))
        for conn_id, team in (("of_a", "a"), ("of_all", None)):
            session.add(Connection(conn_id, "skyvern", password=KEYS[conn_id], host="http://x", team_name=team))
        for conn_id in (*KEYS, "hidden"):
            uri = runs_uri("wpid_1", conn_id)
            asset = AssetModel(name=uri, uri=uri, group="asset", extra={})
            session.add(asset)
            session.flush()
            session.add(AssetActive(name=uri, uri=uri))
            before = NOW - timedelta(days=30)
            for name in ("a", "b", "none"):
                session.add(DagScheduleAssetReference(asset_id=asset.id, dag_id=f"dag_{name}", created_at=before))
    yield
    with create_session() as session:
        for table in TABLES:
            session.execute(sa.delete(table))
        for bundle in session.scalars(sa.select(DagBundleModel).where(DagBundleModel.name.startswith("bundle_"))):
            bundle.teams = []
            session.delete(bundle)
        session.execute(sa.delete(Team))
        session.execute(sa.delete(Connection).where(Connection.conn_id.in_(KEYS)))


def key_read(hook: SkyvernHook) -> str:
    return hook.get_conn().settings.api_key


@pytest.mark.parametrize("dag_id", ["dag_a", None])
def test_airflows_own_processes_read_a_teams_connection(dag_id: str | None) -> None:
    assert key_read(ServerHook("of_a", dag_id=dag_id)) == "key-of-a"
    assert asyncio.run(ServerHook("of_a", dag_id=dag_id).asettings()).api_key == "key-of-a"


@pytest.mark.parametrize("dag_id", ["dag_a", "dag_b", "dag_none", "dag_deleted", None])
def test_a_connection_of_all_is_read_for_each(dag_id: str | None) -> None:
    assert key_read(ServerHook("of_all", dag_id=dag_id)) == "key-of-all"


@pytest.mark.parametrize("dag_id", ["dag_b", "dag_none", "dag_deleted"])
def test_a_teams_connection_is_not_read_for_the_dag_of_another(dag_id: str) -> None:
    with pytest.raises(AirflowNotFoundException):
        ServerHook("of_a", dag_id=dag_id).get_conn()


@pytest.fixture
def in_environment(monkeypatch: pytest.MonkeyPatch) -> str:
    """A connection that only the environment has, for team a, and an asset of its runs."""
    monkeypatch.setenv("AIRFLOW_CONN__A___HIDDEN", json.dumps({"conn_type": "skyvern", "password": "key-in-env"}))
    return "hidden"


@pytest.mark.parametrize("dag_id", ["dag_a", None])
def test_a_connection_in_the_environment_is_a_teams_by_its_name(in_environment: str, dag_id: str | None) -> None:
    assert key_read(ServerHook(in_environment, dag_id=dag_id)) == "key-in-env"
    with pytest.raises(AirflowNotFoundException):
        ServerHook(in_environment, dag_id="dag_b").get_conn()


def test_it_is_among_the_connections_that_the_commands_check(in_environment: str) -> None:
    assert skyvern_connections() == ["hidden", "of_a", "of_all"]
    assert read_api_key(in_environment) == b"key-in-env"


def test_one_that_the_environment_has_for_several_teams_is_read_for_their_dags_only(
    in_environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN__B___HIDDEN", json.dumps({"conn_type": "skyvern", "password": "key-of-b"}))
    assert key_read(ServerHook(in_environment, dag_id="dag_a")) == "key-in-env"
    assert key_read(ServerHook(in_environment, dag_id="dag_b")) == "key-of-b"
    with pytest.raises(AirflowNotFoundException):
        ServerHook(in_environment).get_conn()


def test_one_that_the_environment_has_for_all_is_no_teams(
    in_environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_HIDDEN", json.dumps({"conn_type": "skyvern", "password": "key-of-all"}))
    assert (
        key_read(ServerHook(in_environment)) == key_read(ServerHook(in_environment, dag_id="dag_b")) == "key-of-all"
    )


def test_pages_show_no_run_on_the_connection_of_another_team(in_environment: str) -> None:
    for conn_id in ("of_a", in_environment):
        assert [may_read(conn_id, dag_id) for dag_id in ("dag_a", "dag_b", "dag_none")] == [True, False, False]
    assert all(may_read("of_all", dag_id) for dag_id in ("dag_a", "dag_b", "dag_none"))


def test_a_triggerer_that_is_not_given_the_connection_says_what_helps() -> None:
    advice = "isn't defined. Airflow's triggerers .* AIRFLOW_CONN_OF_A in the environment of that team's triggerer"
    with pytest.raises(AirflowNotFoundException, match=advice):
        asyncio.run(SkyvernHook("of_a").asettings())


def test_a_task_and_a_page_that_are_not_given_the_connection_name_the_rule() -> None:
    rule = "isn't defined. With teams .*, a connection of a team is read for DAGs of that team only"
    with pytest.raises(AirflowNotFoundException, match=rule):
        SkyvernHook("of_a").get_conn()
    with pytest.raises(AirflowNotFoundException, match=rule):
        asyncio.run(ServerHook("of_a", dag_id="dag_b").asettings())


def test_without_teams_nothing_is_said_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "False")
    with pytest.raises(AirflowNotFoundException) as raised:
        asyncio.run(SkyvernHook("nowhere").asettings())
    assert "team" not in str(raised.value)


def test_webhooks_of_a_teams_connection_are_taken() -> None:
    assert read_api_key("of_a") == b"key-of-a"
    assert read_api_key("of_all") == b"key-of-all"


@pytest.mark.slow
def test_a_mark_cancels_the_run_of_a_teams_connection_only_for_its_own_dags(skyvern: FakeSkyvern) -> None:
    given = ServerHook("skyvern_default").get_conn().settings.base_url
    with create_session() as session:
        found = session.scalar(sa.select(Connection).where(Connection.conn_id == "of_a"))
        assert found is not None
        found.host, found.password = given, API_KEY
    for dag_id, expected in (("dag_b", "running"), ("dag_a", "canceled")):
        run_id = skyvern.run(plan=("running",))
        cancel_marked(Cancellation("of_a", dag_id, run_id, None))
        assert SkyvernHook().get_run(run_id).status == expected


def delivered(conn_id: str, run_id: str = "wr_1") -> Delivered:
    run = FinishedRun(
        run_id=run_id, status="completed", workflow_id="wpid_1", finished_at=NOW.isoformat(), app_url=None
    )
    return Delivered(conn_id, run, NOW)


def queued() -> list[str]:
    with create_session() as session:
        return sorted(session.scalars(sa.select(AssetDagRunQueue.target_dag_id)))


@pytest.mark.slow
@pytest.mark.parametrize("conn_id", ["of_a", "hidden"])
def test_runs_of_a_teams_connection_start_that_teams_dags_only(conn_id: str, in_environment: str) -> None:
    assert register([delivered(conn_id)], max_age=86400.0) == ["event created"]
    assert queued() == ["dag_a"]


@pytest.mark.slow
def test_runs_of_a_connection_of_all_start_all() -> None:
    assert register([delivered("of_all")], max_age=86400.0) == ["event created"]
    assert queued() == ["dag_a", "dag_b", "dag_none"]


@pytest.mark.slow
def test_events_that_airflow_has_passed_over_start_that_teams_dags_only() -> None:
    register([delivered("of_a")], max_age=86400.0)
    with create_session() as session:
        session.execute(sa.delete(AssetDagRunQueue))
    requeue_dags("of_a", "wpid_1")
    assert queued() == ["dag_a"]
