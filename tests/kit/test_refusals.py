"""What a test did not foresee fails it, and nothing leaves this machine."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from datetime import datetime
from importlib import import_module
from importlib.metadata import distribution
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.compat.sdk import DAG, task
from airflow_skyvern.exceptions import SkyvernNotFoundError
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.testing import completed
from airflow_skyvern.testing.guard import CallLeavesTheTest
from airflow_skyvern.testing.plugin import SETTINGS

if TYPE_CHECKING:
    from airflow_skyvern.testing import Skyvern

START = datetime(2026, 1, 1)  # noqa: DTZ001  as authors write it


def runs(workflow_id: str = "wpid_123", **more: Any) -> Any:
    with DAG("runs", schedule=None, start_date=START) as dag:
        SkyvernRunWorkflowOperator(task_id="run", workflow_id=workflow_id, **more)
    return dag


def why_it_fails(skyvern: Skyvern) -> str:
    """Check, as the fixture does at the end of the test, and forget what was found."""
    with pytest.raises(AssertionError) as failure:
        skyvern.check()
    skyvern.unforeseen.clear()
    skyvern.fake.away_for = 0
    skyvern._guard.refused.clear()
    return str(failure.value)


def test_a_workflow_that_the_test_does_not_have(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_123")
    assert runs("wpid_124").test().state == "failed"
    assert "POST /v1/run/workflows was refused with 404" in (why := why_it_fails(skyvern))
    assert "wpid_124" in why


def test_a_parameter_that_the_workflow_does_not_have(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_123", parameters={"vendor": "string"})
    assert runs(parameters={"vendor": "ACME", "mouth": "2026-10"}).test().state == "failed"
    assert skyvern.started() == []


def test_any_parameters_are_accepted_where_the_test_does_not_say(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_123")
    assert runs(parameters={"vendor": "ACME", "month": 10}).test().state == "success"


def test_more_runs_than_the_test_foresees(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_123", completed(), completed())
    assert runs().test().state == "success"
    assert "1 more of wpid_123" in why_it_fails(skyvern)
    assert runs().test().state == "success"
    assert runs().test().state == "failed"
    assert "the test has 2 runs of wpid_123, and this is one more" in why_it_fails(skyvern)


def test_an_answer_that_nothing_asked_for(skyvern: Skyvern) -> None:
    skyvern.away(3)
    assert "3 more requests while the server is away" in why_it_fails(skyvern)


def test_a_run_and_an_endpoint_that_the_test_does_not_have(skyvern: Skyvern) -> None:
    with pytest.raises(SkyvernNotFoundError, match="wr_9"):
        SkyvernHook().get_run("wr_9")
    assert httpx.get(f"{skyvern.url}/v2/anything", trust_env=False).status_code == 404
    why = why_it_fails(skyvern)
    assert "GET /v1/runs/wr_9 was refused with 404" in why
    assert "GET /v2/anything was refused with 404" in why


def test_a_refusal_that_the_test_scripts_is_foreseen(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_123")
    skyvern.next("POST", "/v1/run/workflows", httpx.Response(402, json={"detail": "no credits"}))
    assert runs().test().state == "failed"
    skyvern.check()


def reaches_out() -> Any:
    with DAG("reaches_out", schedule=None, start_date=START) as dag:

        @task
        def fetch() -> None:
            httpx.get("http://skyvern.example/", trust_env=False)

        fetch()
    return dag


def test_a_task_that_would_reach_another_machine(skyvern: Skyvern) -> None:
    assert reaches_out().test().state == "failed"
    assert "a connection to skyvern.example" in why_it_fails(skyvern)


def test_sockets_and_event_loops_reach_no_other_machine(skyvern: Skyvern) -> None:
    with socket.socket() as connection, pytest.raises(CallLeavesTheTest):
        connection.connect(("192.0.2.1", 80))
    with pytest.raises(CallLeavesTheTest):
        asyncio.run(_opened("192.0.2.1"))
    with pytest.raises(CallLeavesTheTest):
        asyncio.run(_opened("skyvern.example"))
    assert why_it_fails(skyvern).count("a connection to 192.0.2.1") == 2


async def _opened(host: str) -> None:
    await asyncio.open_connection(host, 80)


def test_a_host_can_be_allowed(skyvern: Skyvern) -> None:
    skyvern.allow_host("192.0.2.1")
    with socket.socket() as connection:
        connection.settimeout(0.01)
        with pytest.raises(OSError):  # noqa: PT011  no route, or no answer
            connection.connect(("192.0.2.1", 80))


@pytest.fixture
def a_real_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a project has in its environment."""
    real = {"conn_type": "skyvern", "host": "http://127.0.0.1:9", "password": "real"}
    monkeypatch.setenv("AIRFLOW_CONN_SKYVERN_JSON", json.dumps(real))
    monkeypatch.setenv("AIRFLOW_CONN_SKYVERN_URI", "skyvern://:real@127.0.0.1:9")
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", "sqlite:////tmp/w.db")
    monkeypatch.setenv("AIRFLOW__SECRETS__BACKEND", "no.such.Backend")


def test_a_real_connection_is_not_there(a_real_connection: None, skyvern: Skyvern) -> None:
    assert {name for name in os.environ if name.startswith("AIRFLOW_CONN_")} == {
        "AIRFLOW_CONN_SKYVERN_DEFAULT",
        "AIRFLOW_CONN_WAREHOUSE",
    }
    skyvern.workflow("wpid_123")
    assert runs(skyvern_conn_id="skyvern_json").test().state == "failed"
    assert skyvern.requests == []


def test_another_connection_leads_here_too(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_123")
    skyvern.connection("skyvern_eu")
    assert runs(skyvern_conn_id="skyvern_eu").test().state == "success"


def test_the_database_is_the_kits_own_and_only_for_the_test(request: pytest.FixtureRequest) -> None:
    settings = import_module("airflow.settings")
    before = settings.engine
    skyvern: Skyvern = request.getfixturevalue("skyvern")
    skyvern.workflow("wpid_123")
    runs().test()
    assert settings.engine is not before
    assert str(settings.engine.url).endswith("airflow.db")
    assert os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] == settings.SQL_ALCHEMY_CONN != str(before.url)


@pytest.mark.parametrize("task_id", ["first", "second"])
def test_each_test_begins_with_an_empty_database(skyvern: Skyvern, task_id: str) -> None:
    with DAG("changes", schedule=None, start_date=START, default_args={"depends_on_past": True}) as dag:
        SkyvernRunWorkflowOperator(task_id=task_id, workflow_id="wpid_123")
    skyvern.workflow("wpid_123")
    run = dag.test()
    assert [ti.task_id for ti in run.get_task_instances()] == [task_id]
    assert [found.run_id for found in import_module("airflow.models.dagrun").DagRun.find()] == [run.run_id]


def test_pytest_loads_the_plugin_by_its_name_only() -> None:
    assert [
        found for found in distribution("airflow-provider-skyvern").entry_points if found.group == "pytest11"
    ] == []
    assert not set(SETTINGS) & set(os.environ) - {"NO_PROXY", "no_proxy", "AIRFLOW__CORE__LOAD_EXAMPLES"}
