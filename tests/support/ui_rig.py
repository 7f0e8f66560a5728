"""The pages over Airflow's real authorization and database, with the fake for Skyvern behind a loopback socket."""

from __future__ import annotations

import json
import shutil
import uuid
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import sqlalchemy as sa
from airflow.api_fastapi.app import init_auth_manager
from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.configuration import conf
from airflow.models import import_all_models
from airflow.models.base import Base
from airflow.models.dag import DagModel
from airflow.models.dag_version import DagVersion
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.hitl import HITLDetail
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancehistory import TaskInstanceHistory
from airflow.models.tasklog import LogTemplate
from airflow.models.xcom import XComModel
from airflow.settings import engine
from airflow.utils.session import create_session
from fastapi import FastAPI

from airflow_skyvern.ui.app import Routes, made
from airflow_skyvern.ui.reader import RunReader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

    import pytest

OUR_PAGE = {"x-skyvern-page": "1", "sec-fetch-site": "same-origin"}
"""What our page sends with an answer."""

FORGED: tuple[dict[str, str], ...] = (
    {"accept": "*/*"},
    {"sec-fetch-site": "same-origin"},
    {"x-skyvern-page": "1", "sec-fetch-site": "cross-site"},
    {"x-skyvern-page": "1", "origin": "http://evil.example"},
)
"""What others may send in its place."""

DAG, SECRET_DAG, RUN, TASK, CONN = (
    "invoices",
    "secret",
    "manual__2026-11-26T00:00:00+00:00",
    "fetch",
    "skyvern_default",
)
PAGE = f"/skyvern/ti/{DAG}/{RUN}/{TASK}/{{MAP_INDEX}}"
SERIALIZED: Any = SerializedDagModel.__table__
TABLES: Any = (
    HITLDetail,
    XComModel,
    SerializedDagModel,
    DagVersion,
    RenderedTaskInstanceFields,
    TaskInstanceHistory,
    TaskInstance,
    DagRun,
    DagModel,
)


LOGS = "{{ ti.dag_id }}/{{ ti.task_id }}/{{ ti.map_index }}/attempt={{ try_number }}.log"


class RightsByDag(SimpleAuthManager):
    """
    Airflow's simple auth manager with rights by DAG.

    ``eve`` may read all DAGs but ``secret``; ``mallory`` may read task instances, but no XComs; ``nolog`` no logs;
    ``nohitl`` may answer no requests.
    """

    def is_authorized_dag(self, *, method: Any, user: Any, access_entity: Any = None, details: Any = None) -> bool:
        if user.username == "eve" and details is not None and details.id == SECRET_DAG:
            return False
        if user.username == "mallory" and getattr(access_entity, "name", "") == "XCOM":
            return False
        entity = getattr(access_entity, "name", "")
        if user.username == "nohitl" and method == "PUT" and entity == "HITL_DETAIL":
            return False
        if user.username == "nolog" and entity == "TASK_LOGS":
            return False
        allowed: bool = super().is_authorized_dag(
            method=method, user=user, access_entity=access_entity, details=details
        )
        return allowed


@cache
def api_server() -> tuple[FastAPI, Any, Routes]:
    """Make Airflow's app, its auth manager, and our routes once: FastAPI takes a tenth of a second for them."""
    airflow, routes = FastAPI(), Routes(RunReader())
    auth = init_auth_manager(airflow)
    airflow.mount("/skyvern", made(routes))
    return airflow, auth, routes


class Ui:
    """Airflow's API server as far as the pages need it, with a reader and caches of its own."""

    def __init__(self) -> None:
        self.reader = RunReader()
        self.airflow, self.auth, routes = api_server()
        vars(routes).update(vars(Routes(self.reader)))

    def cookie(self, username: str, role: str = "viewer") -> dict[str, str]:
        return {"_token": self.auth.generate_jwt(SimpleAuthManagerUser(username=username, role=role))}

    @asynccontextmanager
    async def client(self, username: str | None = "eve", role: str = "viewer") -> AsyncIterator[httpx.AsyncClient]:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(self.airflow),
            base_url="http://airflow.test",
            cookies=self.cookie(username, role) if username else {},
            headers={"accept": "text/html"},
        ) as client:
            yield client

    async def get(
        self, path: str, username: str | None = "eve", role: str = "viewer", **headers: str
    ) -> httpx.Response:
        async with self.client(username, role) as client:
            return await client.get(path, headers=headers)


def create_database() -> None:
    import_all_models()
    assert engine is not None
    Base.metadata.create_all(engine)
    with create_session() as session:
        if session.scalar(sa.select(LogTemplate.id)) is None:
            session.add(LogTemplate(filename=LOGS, elasticsearch_id=""))


@contextmanager
def pages(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ui]:
    """Make the pages over an authorization that tells DAGs apart; the database is empty again at the end."""
    monkeypatch.setenv("AIRFLOW__CORE__AUTH_MANAGER", "tests.support.ui_rig.RightsByDag")
    monkeypatch.setenv("AIRFLOW__API_AUTH__JWT_SECRET", "x" * 64)
    yield Ui()
    empty_database()


def empty_database() -> None:
    with create_session() as session:
        for table in TABLES:
            session.execute(sa.delete(table))
    shutil.rmtree(Path(conf.get("logging", "base_log_folder")) / DAG, ignore_errors=True)


def add_dag_run(dag_id: str = DAG, run_id: str = RUN) -> int:
    """Store a DAG and a run of it, unless they are there; return the run's number."""
    with create_session() as session:
        if session.get(DagBundleModel, "b") is None:
            session.add(DagBundleModel(name="b"))
            session.flush()
        if session.get(DagModel, dag_id) is None:
            session.add(DagModel(dag_id=dag_id, bundle_name="b", fileloc="f", has_task_concurrency_limits=False))
            session.flush()
        found = session.scalar(sa.select(DagRun.id).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))
        if found is None:
            run = DagRun(dag_id=dag_id, run_id=run_id, run_type="manual")
            session.add(run)
            session.flush()
            found = run.id
        return int(found)


def add_task(
    *,
    dag_id: str = DAG,
    run_id: str = RUN,
    task_id: str = TASK,
    map_index: int = -1,
    state: str | None = "success",
    try_number: int = 1,
    next_kwargs: Mapping[str, Any] | None = None,
    xcoms: Mapping[str, Any] | None = None,
    conn_id: str | None = CONN,
    operator: str = "SkyvernRunWorkflowOperator",
    rendered: Mapping[str, Any] | None = None,
    backend: Any = None,
    start_date: datetime = datetime(2026, 11, 26, 8, tzinfo=timezone.utc),
) -> None:
    """
    Store a task instance, what it has pushed, and its rendered fields.

    :param backend: The XCom backend through which it has pushed. Default: Airflow's own.
    """
    number = add_dag_run(dag_id, run_id)
    ids: dict[str, Any] = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}
    with create_session() as session:
        session.execute(
            sa.insert(TaskInstance.__table__).values(
                id=_uuid(),
                **ids,
                state=state,
                try_number=try_number,
                max_tries=1,
                pool="default_pool",
                pool_slots=1,
                priority_weight=1,
                queue="default",
                operator=operator,
                next_method="execute_complete" if next_kwargs else None,
                next_kwargs=next_kwargs,
                start_date=start_date,
            )
        )
        for key, value in (xcoms or {}).items():
            stored = value if backend is None else backend.serialize_value(value)
            session.add(XComModel(dag_run_id=number, key=key, value=stored, **ids))
        if conn_id is not None:
            session.execute(
                sa.insert(RenderedTaskInstanceFields.__table__).values(
                    **ids, rendered_fields={"skyvern_conn_id": conn_id, **(rendered or {})}
                )
            )


def add_serialized_dag(tasks: Sequence[Mapping[str, Any]], dag_id: str = DAG) -> None:
    """Store a version of a DAG with these tasks, as the DAG processor does."""
    with create_session() as session:
        version = DagVersion(dag_id=dag_id, version_number=1, bundle_name="b")
        session.add(version)
        session.flush()
        values = {"id": _uuid(), "dag_id": dag_id, "dag_hash": "h", "dag_version_id": version.id}
        values |= {"data": {"dag": {"tasks": list(tasks)}}, "created_at": datetime.now(timezone.utc)}
        values |= {"last_updated": values["created_at"]} if "last_updated" in SERIALIZED.c else {}
        session.execute(sa.insert(SERIALIZED).values(**values))


def write_log(lines: Iterable[Mapping[str, Any]], try_number: int = 1, task_id: str = TASK) -> None:
    """Write the log of a try, as a worker leaves it in the folder of logs."""
    file = Path(conf.get("logging", "base_log_folder")) / DAG / task_id / "-1" / f"attempt={try_number}.log"
    file.parent.mkdir(parents=True, exist_ok=True)
    stamped = ({"timestamp": "2026-11-26T08:00:00Z", **line} for line in lines)
    file.write_text("".join(f"{json.dumps(line)}\n" for line in stamped))


def add_earlier_try(
    try_number: int,
    next_kwargs: Mapping[str, Any] | None,
    *,
    ended_at: datetime | None = None,
    start_date: datetime | None = None,
) -> None:
    """Store an earlier try of the task."""
    with create_session() as session:
        session.execute(
            sa.insert(TaskInstanceHistory.__table__).values(
                task_instance_id=_uuid(),
                dag_id=DAG,
                run_id=RUN,
                task_id=TASK,
                map_index=-1,
                try_number=try_number,
                state="failed",
                start_date=start_date,
                end_date=ended_at,
                pool="default_pool",
                pool_slots=1,
                max_tries=1,
                next_kwargs=next_kwargs,
            )
        )


def _uuid() -> Any:
    kind = TaskInstance.__table__.c.id.type.python_type
    made = uuid.uuid4()
    return str(made) if kind is str else made
