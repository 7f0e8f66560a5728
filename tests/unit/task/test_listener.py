from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.trigger import Trigger
from sqlalchemy import create_engine, insert
from sqlalchemy.orm import Session

from airflow_skyvern.client import retry
from airflow_skyvern.compat.since_3_0 import is_airflow_3
from airflow_skyvern.runs.key import GROUP_TAG
from airflow_skyvern.task import listener
from airflow_skyvern.task.cancellations import Cancellation, Cancellations
from tests.support.xcom_backends import BACKENDS

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

if not is_airflow_3():
    pytest.skip("Airflow 2 has no API server that would notify of marks", allow_module_level=True)

from airflow.models.xcom import XComModel

NOW = datetime(2026, 11, 22, tzinfo=timezone.utc)


class Tasks:
    """Task instances and their XComs in a database like Airflow's, as the API server finds them."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.stored_by: Callable[..., Any] = lambda value: value
        times = dict.fromkeys(("data_interval_start", "data_interval_end", "run_after"), NOW)
        run = {"dag_id": "d", "run_id": "r", "run_type": "manual", "state": "failed", "log_template_id": 1}
        session.execute(insert(DagRun).values(**run, **times))

    def add(
        self, state: str, task_id: str = "t", map_index: int = -1, *, since: datetime | None = None, **xcoms: Any
    ) -> TaskInstance:
        """Store a task as it is when a user has just marked it, or as it is since then."""
        task = {"dag_id": "d", "run_id": "r", "task_id": task_id, "map_index": map_index}
        updated_at = since or datetime.now(timezone.utc)
        row = {"pool": "default_pool", "state": state, "updated_at": updated_at}
        self.session.execute(insert(TaskInstance).values(**task, **row))
        for key, value in xcoms.items():
            self.session.execute(insert(XComModel).values(**task, dag_run_id=1, key=key, value=self.stored_by(value)))
        return self.session.query(TaskInstance).filter_by(task_id=task_id, map_index=map_index).one()


@pytest.fixture
def tasks() -> Iterator[Tasks]:
    engine = create_engine("sqlite://")
    for model in (XComModel, TaskInstance, DagRun, Trigger):
        model.__table__.create(engine)
    with Session(engine) as session:
        yield Tasks(session)


def started(skyvern: FakeSkyvern, group: str = "g", status: str = "running") -> dict[str, Any]:
    """Start a run, and return the XComs of the task that waits for it."""
    run_id = skyvern.run(plan=(status,))
    skyvern.runs[run_id].tags = {GROUP_TAG: group}
    return {"run_id": run_id, "connection_and_run_key": {"skyvern_conn_id": "skyvern_default", "group": group}}


def cancels(skyvern: FakeSkyvern) -> list[str]:
    """Return the runs that were canceled, once nothing is left to cancel."""
    assert listener.cancellations().join(10)
    return sorted(seen.path.split("/")[-2] for seen in skyvern.sent("POST", ".*/cancel"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("state", "notify"),
    [
        ("failed", listener.on_task_instance_failed),
        ("success", listener.on_task_instance_success),
        ("skipped", listener.on_task_instance_skipped),
    ],
)
@pytest.mark.parametrize("map_index", [-1, 1])
def test_a_marked_task_cancels_its_run_and_no_other(
    skyvern: FakeSkyvern, tasks: Tasks, map_index: int, state: str, notify: Callable[..., None]
) -> None:
    ours = started(skyvern)
    marked = tasks.add(state, "t", map_index, **ours)
    tasks.add(state, "another", map_index, **started(skyvern))
    tasks.add(state, "t", map_index + 1, **started(skyvern))
    notify(task_instance=marked)
    tasks.session.commit()
    assert cancels(skyvern) == [ours["run_id"]]
    assert skyvern.status(ours["run_id"]) == "canceled"


@pytest.mark.slow
@pytest.mark.parametrize("notify", [listener.on_dag_run_failed, listener.on_dag_run_success])
def test_a_marked_dag_run_cancels_the_runs_of_its_ended_tasks(
    skyvern: FakeSkyvern, tasks: Tasks, notify: Callable[..., None]
) -> None:
    ended = [started(skyvern), started(skyvern)]
    for number, xcoms in enumerate(ended):
        tasks.add("failed", f"t{number}", **xcoms)
    tasks.add("deferred", "teardown", **started(skyvern))
    notify(dag_run=tasks.session.query(DagRun).one())
    tasks.session.commit()
    assert cancels(skyvern) == sorted(xcoms["run_id"] for xcoms in ended)


def test_a_run_whose_start_is_unanswered_is_found_by_the_group_of_its_task(
    skyvern: FakeSkyvern, tasks: Tasks
) -> None:
    ours, another = started(skyvern, "ours"), started(skyvern, "another")
    run_id = ours.pop("run_id")
    listener.on_task_instance_failed(task_instance=tasks.add("failed", **ours))
    tasks.session.commit()
    assert cancels(skyvern) == [run_id]
    assert skyvern.status(another["run_id"]) == "created"


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mark_reads_xcoms_through_the_configured_backend_once_it_is_committed(
    skyvern: FakeSkyvern, tasks: Tasks, backend: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    read: list[bool] = []

    class Backend(backend):  # type: ignore[misc]  # of Airflow 2 or 3
        @staticmethod
        def deserialize_value(result: Any) -> Any:
            read.append(True)
            return backend.deserialize_value(result)

    monkeypatch.setenv("XCOM_FOLDER", str(tmp_path))
    monkeypatch.setattr("airflow.sdk.execution_time.xcom.XCom", Backend)
    tasks.stored_by = backend.serialize_value
    ours = started(skyvern)
    listener.on_task_instance_failed(task_instance=tasks.add("failed", **ours))
    assert not read
    tasks.session.commit()
    assert cancels(skyvern) == [ours["run_id"]]


def test_a_task_that_is_not_over_cancels_nothing(skyvern: FakeSkyvern, tasks: Tasks) -> None:
    listener.on_task_instance_failed(task_instance=tasks.add("deferred", **started(skyvern)))
    tasks.session.commit()
    assert cancels(skyvern) == []


def test_a_task_that_did_not_ask_for_it_cancels_nothing(skyvern: FakeSkyvern, tasks: Tasks) -> None:
    run_id = started(skyvern)["run_id"]
    listener.on_task_instance_failed(task_instance=tasks.add("failed", run_id=run_id))
    tasks.session.commit()
    assert cancels(skyvern) == []


def test_a_run_that_is_over_is_not_canceled(skyvern: FakeSkyvern, tasks: Tasks) -> None:
    marked = tasks.add("failed", **started(skyvern, status="completed"))
    listener.on_task_instance_failed(task_instance=marked)
    tasks.session.commit()
    assert cancels(skyvern) == []


def test_a_task_that_is_in_no_session_is_left_alone(skyvern: FakeSkyvern, tasks: Tasks) -> None:
    marked = tasks.add("failed", **started(skyvern))
    tasks.session.expunge(marked)
    listener.on_task_instance_failed(task_instance=marked)
    tasks.session.commit()
    assert cancels(skyvern) == []


def test_what_became_of_the_run_is_logged(skyvern: FakeSkyvern, caplog: pytest.LogCaptureFixture) -> None:
    run_id = skyvern.run(plan=("running",))
    with caplog.at_level("INFO"):
        listener.cancel_marked(Cancellation("skyvern_default", "d", run_id, None))
    assert f"Skyvern run {run_id}: cancel requested, as a user ended its task; it is canceled" in caplog.text


@pytest.mark.parametrize("conn_id", ["skyvern_default", "no_such_connection"])
def test_a_run_that_cannot_be_canceled_is_told_of_and_raises_nothing(
    skyvern: FakeSkyvern, caplog: pytest.LogCaptureFixture, conn_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "REFUSAL_PATIENCE", 0.0)
    listener.cancel_marked(Cancellation(conn_id, "d", "wr_unknown", None))
    assert "Skyvern run wr_unknown may still be running" in caplog.text


def test_what_ended_before_the_mark_is_not_asked_for(skyvern: FakeSkyvern, tasks: Tasks) -> None:
    """Marking a DAG run of hundreds of tasks asked for all their runs, with their outputs, at once."""
    tasks.add("success", "long_ago", since=NOW, **started(skyvern, status="completed"))
    tasks.add("failed", "t", **started(skyvern))
    listener.on_dag_run_failed(dag_run=tasks.session.query(DagRun).one())
    tasks.session.commit()
    assert len(cancels(skyvern)) == 1
    assert len({seen.path for seen in skyvern.sent("GET", "/v1/runs/.*")}) == 1


def test_nothing_is_canceled_before_the_mark_is_committed(skyvern: FakeSkyvern, tasks: Tasks) -> None:
    marked = tasks.add("failed", **started(skyvern))
    listener.on_task_instance_failed(task_instance=marked)
    assert cancels(skyvern) == []
    tasks.session.rollback()
    tasks.session.commit()
    assert cancels(skyvern) == []


@pytest.mark.slow
def test_a_few_threads_do_all_the_work_and_end_with_it() -> None:
    done: list[Cancellation] = []
    most = 0

    def cancel(work: Cancellation) -> None:
        nonlocal most
        most = max(most, len(ours()))
        done.append(work)

    def ours() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "cancel Skyvern runs"]

    before = len(ours())
    pool = Cancellations(cancel, idle_seconds=0.05)
    works = [Cancellation("c", "d", f"wr_{number}", None) for number in range(300)]
    for work in works:
        pool.add(work)
    assert pool.join(10)
    assert sorted(map(str, done)) == sorted(map(str, works))
    assert most <= before + 4
    for thread in ours():
        thread.join(10)
    assert len(ours()) <= before


def test_a_run_is_canceled_once_though_its_mark_is_reported_twice() -> None:
    wait = threading.Event()
    done: list[Cancellation] = []

    def cancel(work: Cancellation) -> None:
        wait.wait(10)
        done.append(work)

    pool = Cancellations(cancel)
    for _ in range(3):
        pool.add(Cancellation("c", "d", "wr_1", "g"))
    wait.set()
    assert pool.join(10)
    assert len(done) == 1


def test_what_a_shutdown_interrupts_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    stuck = threading.Event()
    pool = Cancellations(lambda _: stuck.wait(10))
    pool.add(Cancellation("c", "d", "wr_1", None))
    pool.add(Cancellation("c", "d", None, "the-tag"))
    pool.log_unfinished()
    stuck.set()
    assert "Skyvern run wr_1 may still be running" in caplog.text
    assert "its tag airflow_key is the-tag" in caplog.text
    assert pool.join(10)
