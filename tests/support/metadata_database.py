"""Airflow's metadata database in memory, with task instances, XComs and an audit log as Airflow writes them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

from airflow.jobs.job import Job
from airflow.models import import_all_models
from airflow.models.connection import Connection
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.log import Log
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancehistory import TaskInstanceHistory
from airflow.models.trigger import Trigger
from sqlalchemy import create_engine, event, insert
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import StaticPool

from airflow_skyvern.compat import since_3_0
from airflow_skyvern.runs.orphans import Place

if TYPE_CHECKING:
    import pytest

PLACE = Place("d", "r", "t")
TABLES = (
    DagModel,
    DagRun,
    TaskInstance,
    TaskInstanceHistory,
    Trigger,
    Log,
    RenderedTaskInstanceFields,
    Connection,
    Job,
)
LONG_AGO = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)


class MetadataDatabase:
    """Made by :func:`metadata_database`."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.statements: list[str] = []
        self.stored_by: Callable[[Any], Any] | None = None
        """What a custom XCom backend stores in place of a value."""
        self._dag_runs: dict[tuple[str, str], int] = {}
        event.listen(engine, "before_cursor_execute", lambda *args: self.statements.append(args[2]))

    def dag(self, dag_id: str, *, present: bool = True, paused: bool = False) -> None:
        """Add a DAG."""
        present_column = {"is_stale": not present} if hasattr(DagModel, "is_stale") else {"is_active": present}
        values = {"dag_id": dag_id, "is_paused": paused, **present_column}
        self._insert(DagModel, **self._given(DagModel, bundle_name="dags-folder", fileloc="/dags/d.py", **values))

    def task(
        self,
        state: str | None,
        place: Place = PLACE,
        *,
        changed: datetime = LONG_AGO,
        next_kwargs: Any = None,
        trigger_id: int | None = None,
        try_number: int = 0,
        job_id: int | None = None,
        **xcoms: Any,
    ) -> Place:
        """Add a task instance, its DAG run, and its XComs."""
        number = self._dag_run(place.dag_id, place.run_id)
        row = {
            **place._asdict(),
            "state": state,
            "updated_at": changed,
            "end_date": changed,
            "pool": "default_pool",
            "next_kwargs": next_kwargs,
            "trigger_id": trigger_id,
            "try_number": try_number,
            "job_id": job_id,
        }
        self._insert(TaskInstance, **row)
        table = since_3_0.xcom_table()
        for key, value in xcoms.items():
            stored = self.stored_by(value) if self.stored_by else _plain(value)
            timestamp = {"timestamp": changed}
            self._insert(table, **place._asdict(), key=key, value=stored, dag_run_id=number, **timestamp)
        return place

    def earlier_try(self, try_number: int, place: Place = PLACE) -> None:
        """Add a try that has failed to the history of a task instance."""
        self._insert(
            TaskInstanceHistory, **place._asdict(), try_number=try_number, state="failed", pool="default_pool"
        )

    def job(self, job_type: str, number: int) -> None:
        """Add what Airflow has of one of its processes."""
        self._insert(Job, id=number, job_type=job_type, state="running", start_date=LONG_AGO)

    def set_dag_run_state(self, state: str) -> None:
        """Give all DAG runs another state."""
        with self.engine.begin() as connection:
            connection.execute(DagRun.__table__.update().values(state=state))

    def delete(self, place: Place) -> None:
        """Delete a task instance and its DAG run's XComs, as deleting a DAG does: its audit log stays."""
        for table in (since_3_0.xcom_table(), TaskInstance):
            with self.engine.begin() as connection:
                matching = [table.__table__.c[name] == value for name, value in place._asdict().items()]
                connection.execute(table.__table__.delete().where(*matching))

    def logged(self, what: str, when: datetime, place: Place = PLACE) -> None:
        """Add a row to the audit log."""
        self._insert(Log, **place._asdict(), event=what, dttm=when)

    def rendered(self, place: Place, **fields: Any) -> None:
        """Store the rendered arguments of a task instance."""
        stored = fields if since_3_0.is_airflow_3() else json.dumps(fields)
        self._insert(RenderedTaskInstanceFields, **place._asdict(), rendered_fields=stored)

    def trigger(self, classpath: str, **kwargs: Any) -> int:
        """Store a trigger, and return its id."""
        trigger = Trigger(classpath=classpath, kwargs=kwargs)
        with sessionmaker(self.engine)() as session:
            session.add(trigger)
            session.commit()
            return int(trigger.id)

    def connection(self, conn_id: str, conn_type: str = "skyvern") -> None:
        """Store a connection."""
        self._insert(Connection, conn_id=conn_id, conn_type=conn_type)

    def triggerer(self, latest_heartbeat: datetime, *, state: str = "running", hostname: str = "trig-1") -> None:
        """Add a triggerer."""
        names = {"job_type": "TriggererJob", "state": state, "hostname": hostname}
        self._insert(Job, **names, latest_heartbeat=latest_heartbeat, start_date=LONG_AGO)

    def _dag_run(self, dag_id: str, run_id: str) -> int:
        if (dag_id, run_id) not in self._dag_runs:
            names = ("data_interval_start", "data_interval_end", "run_after", "execution_date", "start_date")
            times = dict.fromkeys(names, LONG_AGO)
            row = {"dag_id": dag_id, "run_id": run_id, "run_type": "manual", "state": "failed", "log_template_id": 1}
            number = self._dag_runs[dag_id, run_id] = len(self._dag_runs) + 1
            # Only the first of two DAG runs may have a logical date: it is unique.
            if number > 1:
                times["execution_date"] = LONG_AGO.replace(second=number % 60, minute=number // 60 % 60)
            self._insert(DagRun, **self._given(DagRun, id=number, **row, **times))
        return self._dag_runs[dag_id, run_id]

    def _given(self, model: Any, **values: Any) -> dict[str, Any]:
        """Leave out columns that this Airflow does not have."""
        return {name: value for name, value in values.items() if name in model.__table__.c}

    def _insert(self, model: Any, **values: Any) -> None:
        columns = [column for column in model.__table__.c if column.name not in values and _is_required(column)]
        given = {**{column.name: _anything(column) for column in columns}, **self._given(model, **values)}
        with sessionmaker(self.engine)() as session:
            session.execute(insert(model).values(**given))
            session.commit()


def _plain(value: Any) -> Any:
    return value if since_3_0.is_airflow_3() else json.dumps(value).encode()


def _type_of(column: Any) -> Any:
    """Return the type of a column's values; UUIDs of Airflow 3.0 do not say theirs."""
    try:
        return column.type.python_type
    except NotImplementedError:
        return UUID if "UUID" in type(column.type).__name__.upper() else str


def _is_required(column: Any) -> bool:
    has_default = column.default is not None or column.server_default is not None
    numbers_itself = column.primary_key and _type_of(column) is int
    return not (column.nullable or has_default or numbers_itself)


def _anything(column: Any) -> Any:
    kind = _type_of(column)
    return {datetime: LONG_AGO, UUID: uuid4()}.get(kind) or kind()


@cache
def _engine() -> Any:
    """Return a database with Airflow's tables; they take a while to be made."""
    import_all_models()
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    for model in (*TABLES, since_3_0.xcom_table()):
        model.__table__.create(engine)
    return engine


@contextmanager
def metadata_database(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetadataDatabase]:
    """Let Airflow's sessions lead to an empty database in memory."""
    engine = _engine()
    with engine.begin() as connection:
        for model in (since_3_0.xcom_table(), *reversed(TABLES)):
            connection.execute(model.__table__.delete())
    monkeypatch.setattr("airflow.settings.Session", sessionmaker(engine))
    yield MetadataDatabase(engine)
