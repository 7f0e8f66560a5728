"""An Airflow connection that leads to the fake through a real socket."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import airflow
import pytest
from hypothesis import HealthCheck, settings

from airflow_skyvern.runs.parameter_check import DEFINITIONS
from airflow_skyvern.testing.fake.skyvern import API_KEY, FakeSkyvern
from airflow_skyvern.testing.loopback import Loopback
from tests.support import dag_test_walk
from tests.support.layers import needs_airflow
from tests.support.masker import forget_secrets

BUSY = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no error
settings.register_profile("unit", BUSY, max_examples=25)
settings.register_profile("check", BUSY, max_examples=10)  # make check: --hypothesis-profile
settings.load_profile("unit")

Connect = Callable[..., None]
TaskLog = Callable[[], str]


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """With CORE=1, leave out what is the same on every Airflow."""
    is_test = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    return True if is_test and os.environ.get("CORE") and not needs_airflow(collection_path) else None


def pytest_configure(config: pytest.Config) -> None:
    # A task's process ends with its hook, so operators need not close theirs; these tests live on.
    config.addinivalue_line("filterwarnings", "ignore:unclosed:ResourceWarning")


@pytest.fixture(autouse=True)
def _secrets_of_no_other_test() -> Iterator[None]:
    yield
    forget_secrets()


@pytest.fixture(autouse=True, scope="session")
def _reschedules_can_be_stored() -> None:
    """Airflow 2 asks its database when a sensor was first rescheduled."""
    if airflow.__version__.startswith("2."):
        from airflow.models import import_all_models
        from airflow.models.taskreschedule import TaskReschedule
        from airflow.settings import engine

        import_all_models()  # the table refers to others
        TaskReschedule.__table__.create(engine, checkfirst=True)


@pytest.fixture(autouse=True, scope="session")
def _walk_through_dags(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Start what test_dag_test.py looks at when the first test begins, so that it need not wait for it."""
    wanted = any(item.path.name == dag_test_walk.TEST for item in request.session.items)
    walk = dag_test_walk.start(dag_test_walk.home_of(tmp_path_factory)) if wanted else None
    yield
    if walk is not None:
        walk.wait(dag_test_walk.PATIENCE)  # others may still look for it


@pytest.fixture(scope="session")
def loopback() -> Iterator[Loopback]:
    with Loopback() as server:
        yield server


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch, loopback: Loopback) -> Connect:
    """Store the connection ``skyvern_default``, with other fields where they are given."""

    def store(**fields: object) -> None:
        given = {"conn_type": "skyvern", "host": loopback.url, "password": API_KEY, **fields}
        monkeypatch.setenv("AIRFLOW_CONN_SKYVERN_DEFAULT", json.dumps(given))

    return store


@pytest.fixture
def skyvern(fake: FakeSkyvern, loopback: Loopback, connect: Connect) -> FakeSkyvern:
    """The fake, reachable through the Airflow connection ``skyvern_default``."""
    loopback.fake = fake
    connect()
    return fake


@pytest.fixture
def task_log(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> TaskLog:
    """What hooks and tasks have logged so far: to logging on Airflow 2, past it to a stream on Airflow 3."""
    parts: list[str] = []

    def read() -> str:
        parts.extend(capfd.readouterr())
        return "".join(parts) + caplog.text

    return read


@pytest.fixture(autouse=True)
def no_definitions_of_other_tests() -> None:
    """Forget the workflows of earlier tests: each fake gives the same ids."""
    DEFINITIONS.clear()


@pytest.fixture(autouse=True)
def no_wait_before_the_first_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what spares Airflow's scheduler and waits for its secrets backend: there is neither here."""
    monkeypatch.setattr("airflow_skyvern.triggers.SkyvernRunTrigger.first_poll_delay", 0.0)
    monkeypatch.setattr("airflow_skyvern.polling.session.PollSession.connect_patience", 0.0)
