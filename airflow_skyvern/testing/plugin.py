"""The pytest plugin behind ``pytest_plugins = ["airflow_skyvern.testing"]``."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from airflow_skyvern.testing.guard import Guard
from airflow_skyvern.testing.loopback import Loopback
from airflow_skyvern.testing.skyvern import Skyvern

if TYPE_CHECKING:
    from airflow_skyvern.compat.dag_test import MetadataDatabase
    from airflow_skyvern.testing.scripted_fake import ScriptedFake

CONNECTION = "AIRFLOW_CONN_"

SHORT = {
    "airflow_skyvern.client.retry.PACE": 0.001,
    "airflow_skyvern.client.retry.REFUSAL_PATIENCE": 0.1,
    "airflow_skyvern.client.retry.REFUSAL_INTERVAL": 0.05,
    "airflow_skyvern.client.retry.KEY_ROTATION_PATIENCE": 0.1,
    "airflow_skyvern.operators.lifecycle.RunLifecycle.confirmation": 0.1,
    "airflow_skyvern.operators.lifecycle.RunLifecycle.trigger_failed_wait": 0.1,
    "airflow_skyvern.polling.session.PollSession.connect_patience": 0.0,
    "airflow_skyvern.runs.submission.RETRY_INTERVAL": 0.05,
    "airflow_skyvern.sensors.SkyvernRunSensor.confirmation": 0.1,
    "airflow_skyvern.triggers.SkyvernRunTrigger.first_poll_delay": 0.0,
}
"""The shortened delays of a test, in seconds; ``PACE`` is a factor of all pauses between polls."""

ENDLESS = 0.5
"""Seconds for which a task waits for a run that never ends."""

LOST_START = 0.2
"""Seconds for which the run of an unanswered start is searched for."""

SETTINGS = {
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__DATABASE__LOAD_DEFAULT_CONNECTIONS": "False",
    "AIRFLOW__LOGGING__REMOTE_LOGGING": "False",
    "AIRFLOW__METRICS__STATSD_ON": "False",
    "AIRFLOW__METRICS__OTEL_ON": "False",
    "AIRFLOW__OPENLINEAGE__DISABLED": "True",
    "AIRFLOW__SECRETS__BACKEND": "",
    "AIRFLOW__TRACES__OTEL_ON": "False",
    "AIRFLOW__WORKERS__SECRETS_BACKEND": "",
    "NO_PROXY": "*",
    "no_proxy": "*",
}
"""Settings that stop Airflow from reaching out of the test or slowing it down."""


def _airflow_home() -> None:
    """Without its own home, Airflow would create ~/airflow; it reads the variable once, when it is imported."""
    if "AIRFLOW_HOME" not in os.environ and "airflow" not in sys.modules:
        os.environ["AIRFLOW_HOME"] = home = tempfile.mkdtemp(prefix="airflow-home-of-tests-")
        atexit.register(shutil.rmtree, home, ignore_errors=True)


_airflow_home()


@pytest.fixture(scope="session")
def skyvern_database(tmp_path_factory: pytest.TempPathFactory) -> MetadataDatabase:
    """Make Airflow's metadata database for the tests of this process; your own database is not touched."""
    from airflow_skyvern.compat.dag_test import MetadataDatabase

    return MetadataDatabase(tmp_path_factory.mktemp("airflow"))


@pytest.fixture(scope="session")
def skyvern_no_dags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty DAGs folder: ``dag.test()`` would parse the whole of yours for each test."""
    return tmp_path_factory.mktemp("no-dags")


@pytest.fixture
def skyvern(
    skyvern_database: MetadataDatabase, skyvern_no_dags: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Skyvern]:
    """Run a Skyvern without a server; see :class:`~airflow_skyvern.testing.skyvern.Skyvern`."""
    _shut_out(monkeypatch, skyvern_no_dags)
    _use_database(monkeypatch, skyvern_database)
    _shorten(monkeypatch)
    with Loopback() as server:
        made = Skyvern(server.url, Guard(monkeypatch), monkeypatch)
        server.fake = made.fake
        made.connection("skyvern_default")
        _end_what_never_ends(monkeypatch, made.fake)
        _prepare_dag_test(monkeypatch, skyvern_no_dags)
        yield made
    made.check()


def _shut_out(monkeypatch: pytest.MonkeyPatch, no_dags: Path) -> None:
    """Block access to a real Skyvern, and to everything else that Airflow is configured for."""
    for name in [name for name in os.environ if name.startswith(CONNECTION) and _is_skyvern(os.environ[name])]:
        monkeypatch.delenv(name)
    for name, value in {**SETTINGS, "AIRFLOW__CORE__DAGS_FOLDER": str(no_dags)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", raising=False)
    from airflow_skyvern.compat.dag_test import secrets_backends

    monkeypatch.setattr("airflow.settings.DAGS_FOLDER", str(no_dags))
    monkeypatch.setattr("airflow.configuration.secrets_backend_list", secrets_backends())


def _is_skyvern(connection: str) -> bool:
    if connection.lstrip().startswith("{"):
        return bool(json.loads(connection).get("conn_type") == "skyvern")
    return urlsplit(connection).scheme == "skyvern"


def _use_database(monkeypatch: pytest.MonkeyPatch, database: MetadataDatabase) -> None:
    database.clear()
    for name, value in database.known.items():
        monkeypatch.setattr(f"airflow.settings.{name}", value)
    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", database.known["SQL_ALCHEMY_CONN"])


def _shorten(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow_skyvern.runs.parameter_check import DEFINITIONS

    DEFINITIONS.clear()  # of other tests, whose workflows have the same ids
    for name, seconds in SHORT.items():
        monkeypatch.setattr(name, seconds)
    monkeypatch.setattr("airflow_skyvern.sensors.SkyvernRunSensor._get_next_poke_interval", lambda *_: 0.01)


def _end_what_never_ends(monkeypatch: pytest.MonkeyPatch, fake: ScriptedFake) -> None:
    """Shorten the wait for runs that never end and for lost starts to a moment, regardless of the tasks' timeouts."""
    from airflow_skyvern.agents.call import OfAgent
    from airflow_skyvern.operators.lifecycle import RunLifecycle
    from airflow_skyvern.sensors import SkyvernRunSensor

    original = RunLifecycle._deadline  # noqa: SLF001  no public one

    def deadline(task: RunLifecycle, *args: Any) -> float:
        known = original(task, *args)
        return min(known, time.time() + ENDLESS) if fake.may_be_endless(task.workflow_id) else known

    of_starts, of_waits, of_calls = RunLifecycle.pre_execute, SkyvernRunSensor.pre_execute, OfAgent.answer

    def before_start(task: RunLifecycle, context: Any) -> None:
        task.lost_start_timeout = min(task.lost_start_timeout, LOST_START)
        of_starts(task, context)

    def before_call(task: OfAgent, *args: Any) -> Any:
        task.lost_start_timeout = min(task.lost_start_timeout, LOST_START)
        return of_calls(task, *args)

    def before_wait(task: SkyvernRunSensor, context: Any) -> None:
        if fake.is_endless(task.run_id):
            task.timeout = ENDLESS
        of_waits(task, context)

    monkeypatch.setattr(RunLifecycle, "_deadline", deadline)
    monkeypatch.setattr(RunLifecycle, "pre_execute", before_start)
    monkeypatch.setattr(OfAgent, "answer", before_call)
    monkeypatch.setattr(SkyvernRunSensor, "pre_execute", before_wait)


def _prepare_dag_test(monkeypatch: pytest.MonkeyPatch, no_dags: Path) -> None:
    """Let ``dag.test()`` find its DAG wherever it was made, and retry tasks without a delay."""
    from airflow_skyvern.compat.dag_test import store_dag

    kind = import_module("airflow_skyvern.compat.sdk").DAG
    original = kind.test

    def test(dag: Any, *args: Any, **kwargs: Any) -> Any:
        with _without_retry_delays(dag):
            store_dag(dag, no_dags)
            return original(dag, *args, **kwargs)

    monkeypatch.setattr(kind, "test", test)


@contextmanager
def _without_retry_delays(dag: Any) -> Iterator[None]:
    before = [(task, task.retry_delay) for task in dag.tasks]
    try:
        for task, _ in before:
            task.retry_delay = timedelta(0)
        yield
    finally:
        for task, delay in before:
            task.retry_delay = delay
