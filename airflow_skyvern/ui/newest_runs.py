"""The page in Airflow's menu: the newest runs, of the DAGs that the user may read."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.models.connection import Connection
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from sqlalchemy import select, tuple_
from starlette.concurrency import run_in_threadpool

from airflow_skyvern.client import api
from airflow_skyvern.models import RunStatus, RunSummary
from airflow_skyvern.runs.key import READABLE_TAGS
from airflow_skyvern.task import xcom
from airflow_skyvern.task.pushed import pushed_xcoms, value_of
from airflow_skyvern.ui import rendering
from airflow_skyvern.ui.access import readable
from airflow_skyvern.ui.dag_run import duration_of, task_path
from airflow_skyvern.ui.lookup import RunRef
from airflow_skyvern.ui.task_page import READ_ERRORS, sentence_of

if TYPE_CHECKING:
    from datetime import datetime

    from fastapi import Request
    from fastapi.responses import Response
    from sqlalchemy.orm import Session

    from airflow_skyvern.ui.reader import RunReader

NEWEST_XCOMS = 100
"""So many of the newest tasks tell which connections are in use."""

MOST_CONNECTIONS = 10
"""Connections whose runs are listed."""

REFRESH = 10


@dataclass(frozen=True)
class Origin:
    """The task that has started a run, as the run's tags tell."""

    dag_id: str
    task: str
    run_id: str


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    run_id: str
    status: str
    dag_id: str
    dag_path: str
    task: str
    task_path: str
    title: str
    workflow_id: str
    created_at: datetime | None
    duration: str


@dataclass(frozen=True)
class Filter:
    """What the user wants to see: nothing means all."""

    status: str = ""
    dag: str = ""
    workflow: str = ""

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Filter:
        """Read the address; a status that Skyvern does not know would be refused by it."""
        status = query.get("status", "")
        known = status in {one.value for one in RunStatus}
        return cls(
            status if known else "", query.get("dag", "").strip()[:250], query.get("workflow", "").strip()[:250]
        )

    def call(self) -> Any:
        """Return the request to Skyvern."""
        dag_tag = READABLE_TAGS[0]
        return api.list_runs(
            status=[self.status] if self.status else [],
            workflow_id=self.workflow or None,
            tags={dag_tag: self.dag} if self.dag else None,
            page=1,
        )


async def newest_runs_page(reader: RunReader, request: Request, user: Any) -> Response:
    """Answer with the table."""
    wanted = Filter.of(request.query_params)
    rows, sentences = await _rows(reader, user, wanted)
    if not rows and not sentences:
        sentences = ["There are no runs in Skyvern of DAGs that you may read, or none that fit the filter."]
    return rendering.page(
        "newest_runs.html",
        request.scope.get("root_path", ""),
        rows=rows,
        sentences=sentences,
        refresh=REFRESH,
        statuses=[status.value for status in RunStatus],
        status=wanted.status,
        dag=wanted.dag,
        workflow=wanted.workflow,
    )


async def _rows(reader: RunReader, user: Any, wanted: Filter) -> tuple[list[Row], list[str]]:
    sentences = []
    found: dict[str, tuple[RunSummary, Origin]] = {}
    conn_ids = await run_in_threadpool(_connections_of, user)
    answers = await asyncio.gather(
        *(_runs_of(reader, conn_id, wanted) for conn_id in conn_ids), return_exceptions=True
    )
    for conn_id, answer in zip(conn_ids, answers, strict=True):
        if isinstance(answer, READ_ERRORS):
            sentences.append(sentence_of(answer, RunRef(conn_id, "")))
        elif isinstance(answer, BaseException):
            raise answer
        else:
            found.update({run.run_id: (run, origin) for run, origin in answer})
    origins = [origin for _, origin in found.values()]
    ours = await run_in_threadpool(_shown_to, user, origins)
    rows = [_row(run, origin) for run, origin in found.values() if origin in ours]
    rows.sort(key=lambda row: str(row.created_at), reverse=True)
    return rows, sentences


async def _runs_of(reader: RunReader, conn_id: str, wanted: Filter) -> list[tuple[RunSummary, Origin]]:
    """Return the newest runs of a connection that a task of some Airflow has started."""
    runs = [run for run in await reader.listed(conn_id, wanted.call()) if _fits(run, wanted)]
    tags = await reader.tags(conn_id, [run.run_id for run in runs])
    found = [(run, origin_of(tags.get(run.run_id, {}))) for run in runs]
    return [(run, origin) for run, origin in found if origin is not None and wanted.dag in ("", origin.dag_id)]


def _fits(run: RunSummary, wanted: Filter) -> bool:
    """Check what a server that does not know a filter ignores."""
    return wanted.status in ("", run.status) and wanted.workflow in ("", run.workflow_permanent_id)


def origin_of(tags: Mapping[str, str]) -> Origin | None:
    """Read the tags of a run; None if they are not ours."""
    values = [tags.get(name) for name in READABLE_TAGS]
    return Origin(*(value for value in values if value)) if all(values) else None


def _connections_of(user: Any) -> list[str]:
    """
    Return the connections of the newest tasks that the user may read, and those in Airflow's database.

    The latter hold runs of tasks that have not announced their connection; a run is shown only to readers of its DAG.
    """
    with create_session() as session:
        pushed = pushed_xcoms(session, (xcom.CONNECTION_AND_RUN_KEY,), lambda _: (), newest=NEWEST_XCOMS)
        stored = session.scalars(select(Connection.conn_id).where(Connection.conn_type == "skyvern")).all()
    allowed = readable(user, [key.dag_id for key in pushed])
    used = [value_of(values, xcom.CONNECTION_AND_RUN_KEY) for key, values in pushed.items() if key.dag_id in allowed]
    announced = [value.get("skyvern_conn_id") for value in used if isinstance(value, Mapping)]
    names = dict.fromkeys(name for name in [*announced, *stored] if isinstance(name, str) and name)
    return list(names)[:MOST_CONNECTIONS]


def _shown_to(user: Any, origins: Sequence[Origin]) -> set[Origin]:
    """Return the origins that are DAG runs of this Airflow, of DAGs that the user may read."""
    allowed = readable(user, [origin.dag_id for origin in origins])
    with create_session() as session:
        existing = _existing(session, [(origin.dag_id, origin.run_id) for origin in origins])
    return {origin for origin in origins if origin.dag_id in allowed and (origin.dag_id, origin.run_id) in existing}


def _existing(session: Session, runs: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    wanted = sorted(set(runs))
    rows = session.execute(
        select(DagRun.dag_id, DagRun.run_id).where(tuple_(DagRun.dag_id, DagRun.run_id).in_(wanted))
    )
    return {(dag_id, run_id) for dag_id, run_id in rows}


def _row(run: RunSummary, origin: Origin) -> Row:
    task_id, _, index = origin.task.partition("[")
    map_index = int(index.rstrip("]")) if index.rstrip("]").isdecimal() else -1
    return Row(
        run_id=run.run_id,
        status=run.status,
        dag_id=origin.dag_id,
        dag_path=f"dags/{rendering.segment(origin.dag_id)}",
        task=origin.task,
        task_path=task_path(origin.dag_id, origin.run_id, task_id, map_index),
        title=run.title or "",
        workflow_id=run.workflow_permanent_id or "",
        created_at=run.created_at,
        duration=duration_of(run),
    )
