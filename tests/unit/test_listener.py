from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from sqlalchemy import create_engine, insert
from sqlalchemy.orm import Session

from airflow_skyvern import listener, plugin
from airflow_skyvern.triggers import SkyvernRunTrigger

if TYPE_CHECKING:
    from tests.support.fake_skyvern import FakeSkyvern

NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)


class Tasks:
    """Deferred task instances in a database like Airflow's, and what the API server finds of them."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def deferred(self, state: str, classpath: str = listener.TRIGGER, **kwargs: Any) -> TaskInstance:
        """Store a task with its trigger, as it is when a user has just marked it."""
        trigger = Trigger(classpath=classpath, kwargs=kwargs)
        self.session.add(trigger)
        self.session.flush()
        task_id = f"t{trigger.id}"
        values = {"dag_id": "d", "run_id": "r", "task_id": task_id, "pool": "default_pool", "state": state}
        self.session.execute(insert(TaskInstance).values(**values, trigger_id=trigger.id))
        return self.session.query(TaskInstance).filter_by(task_id=task_id).one()


@pytest.fixture
def tasks() -> Iterator[Tasks]:
    engine = create_engine("sqlite://")
    for model in (Trigger, TaskInstance, DagRun):
        model.__table__.create(engine)
    with Session(engine) as session:
        times = dict.fromkeys(("data_interval_start", "data_interval_end", "run_after"), NOW)
        known = {name: time for name, time in times.items() if name in DagRun.__table__.columns}
        run = {"dag_id": "d", "run_id": "r", "run_type": "manual", "state": "failed", "log_template_id": 1}
        session.execute(insert(DagRun).values(**run, **known))
        yield Tasks(session)


def waiting(skyvern: FakeSkyvern, *, cancel_on_kill: bool = True) -> dict[str, Any]:
    """Return what a trigger of ours that waits for a run leaves in the database."""
    trigger = SkyvernRunTrigger(
        skyvern.run(plan=("running",)), "skyvern_default", 5.0, 0.0, cancel_on_kill=cancel_on_kill
    )
    return trigger.serialize()[1]


def cancels(skyvern: FakeSkyvern) -> list[str]:
    """Return the runs that were canceled, once all threads are done."""
    for thread in threading.enumerate():
        if thread.name.startswith("cancel "):
            thread.join(10)
    return sorted(seen.path.split("/")[-2] for seen in skyvern.sent("POST", ".*/cancel"))


def test_the_trigger_is_found_under_its_name() -> None:
    path, kwargs = SkyvernRunTrigger("wr_1", "c", 5.0, 0.0).serialize()
    assert path == listener.TRIGGER
    assert {"run_id", "skyvern_conn_id", "cancel_on_kill"} <= kwargs.keys()


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ("failed", listener.on_task_instance_failed),
        ("success", listener.on_task_instance_success),
        ("skipped", listener.on_task_instance_skipped),
    ],
)
def test_a_marked_task_cancels_the_run_it_waited_for_and_no_other(
    skyvern: FakeSkyvern, tasks: Tasks, state: str, told: Callable[..., None]
) -> None:
    ours, twins = waiting(skyvern), waiting(skyvern)
    marked = tasks.deferred(state, **ours)
    tasks.deferred(state, **twins)
    told(task_instance=marked)
    assert cancels(skyvern) == [ours["run_id"]]
    assert (skyvern.status(ours["run_id"]), skyvern.status(twins["run_id"])) == ("canceled", "created")


@pytest.mark.parametrize("told", [listener.on_dag_run_failed, listener.on_dag_run_success])
def test_a_marked_dag_run_cancels_what_its_ended_tasks_waited_for(
    skyvern: FakeSkyvern, tasks: Tasks, told: Callable[..., None]
) -> None:
    ended, teardown = [waiting(skyvern), waiting(skyvern)], waiting(skyvern)
    for kwargs in ended:
        tasks.deferred("failed", **kwargs)
    tasks.deferred("deferred", **teardown)
    told(dag_run=tasks.session.query(DagRun).one())
    assert cancels(skyvern) == sorted(kwargs["run_id"] for kwargs in ended)


@pytest.mark.parametrize(
    ("state", "classpath", "cancel_on_kill"),
    [
        ("failed", listener.TRIGGER, False),
        ("failed", "some.other.Trigger", True),
        ("deferred", listener.TRIGGER, True),
    ],
)
def test_nothing_else_cancels(
    skyvern: FakeSkyvern, tasks: Tasks, state: str, classpath: str, *, cancel_on_kill: bool
) -> None:
    kwargs = waiting(skyvern, cancel_on_kill=cancel_on_kill)
    listener.on_task_instance_failed(task_instance=tasks.deferred(state, classpath, **kwargs))
    assert cancels(skyvern) == []


def test_a_task_that_is_in_no_session_is_left_alone(skyvern: FakeSkyvern, tasks: Tasks) -> None:
    marked = tasks.deferred("failed", **waiting(skyvern))
    tasks.session.expunge(marked)
    listener.on_task_instance_failed(task_instance=marked)
    assert cancels(skyvern) == []


def test_what_became_of_the_run_is_logged(skyvern: FakeSkyvern, caplog: pytest.LogCaptureFixture) -> None:
    run_id = skyvern.run(plan=("running",))
    with caplog.at_level("INFO"):
        listener.cancel_marked(run_id, "skyvern_default")
    assert f"Skyvern run {run_id}: told to cancel, as a user ended its task; it is canceled" in caplog.text


@pytest.mark.parametrize("conn_id", ["skyvern_default", "no_such_connection"])
def test_a_run_that_cannot_be_canceled_is_told_of_and_raises_nothing(
    skyvern: FakeSkyvern, caplog: pytest.LogCaptureFixture, conn_id: str
) -> None:
    listener.cancel_marked("wr_unknown", conn_id)
    assert "Skyvern run wr_unknown may still be running" in caplog.text


def test_only_the_api_server_listens_as_listeners_elsewhere_forbid_end_from_trigger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert plugin.SkyvernPlugin.listeners == plugin.listeners() == []
    monkeypatch.setitem(sys.modules, "airflow.api_fastapi.main", object())
    assert plugin.listeners() == [listener]


def test_airflow_finds_the_plugin() -> None:
    (found,) = [entry for entry in entry_points(group="airflow.plugins") if entry.name == "skyvern"]
    assert found.load() is plugin.SkyvernPlugin
