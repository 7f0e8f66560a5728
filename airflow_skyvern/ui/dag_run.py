"""The tab of a DAG run: all runs in Skyvern that its tasks have started or wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.models.dagrun import DagRun
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from fastapi import HTTPException, Request
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from airflow_skyvern.client import api
from airflow_skyvern.durations import in_words
from airflow_skyvern.limits import PAGE_SIZE
from airflow_skyvern.runs.key import READABLE_TAGS, tag_value
from airflow_skyvern.task import deferral, xcom
from airflow_skyvern.task.pushed import Pushed, pushed_xcoms, value_of
from airflow_skyvern.ui import rendering
from airflow_skyvern.ui.concealment import web_address
from airflow_skyvern.ui.lookup import RunRef
from airflow_skyvern.ui.task_page import ACTIVE, READ_ERRORS, REFRESH, belongs, sentence_of

if TYPE_CHECKING:
    from datetime import datetime

    from fastapi.responses import Response
    from sqlalchemy.orm import Session

    from airflow_skyvern.ui.reader import RunReader

MOST_RUNS = 500
"""Runs in the table."""

MOST_SINGLE = 20
"""Runs that are fetched one by one, as they carry no tags of this DAG run: those of sensors."""


@dataclass(frozen=True)
class TaskOfRun:
    """A task instance of the DAG run, and its run in Skyvern."""

    task_id: str
    map_index: int
    state: str | None
    ref: RunRef
    app_url: str | None


@dataclass(frozen=True)
class Row:
    """A line of the table; without a status where Skyvern does not tell it."""

    task_id: str
    map_index: int
    state: str | None
    path: str
    run_id: str
    app_url: str | None = None
    status: str | None = None
    created_at: datetime | None = None
    duration: str = ""


async def dag_run_page(reader: RunReader, request: Request, user: Any, dag_id: str, run_id: str) -> Response:
    """Answer with the table."""

    def look() -> list[TaskOfRun] | None:
        with create_session() as session:
            return find_runs(session, dag_id, run_id)

    found = await run_in_threadpool(look)
    if found is None:
        raise HTTPException(404, "There is no such DAG run.")
    known, sentences = await _from_skyvern(reader, user, dag_id, run_id, found)
    if not found:
        sentences = ["No task of this DAG run has started a run in Skyvern."]
    changes = any(task.state in ACTIVE for task in found)
    return rendering.page(
        "dag_run.html",
        request.scope.get("root_path", ""),
        rows=[_row(task, dag_id, run_id, known.get(task.ref)) for task in found],
        sentences=sentences,
        refresh=REFRESH if changes or not found else 0,
    )


def find_runs(session: Session, dag_id: str, run_id: str) -> list[TaskOfRun] | None:
    """Find the tasks of a DAG run that have a run in Skyvern; None if there is no such DAG run."""
    if session.scalar(select(DagRun.id).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)) is None:
        return None
    tasks = select(TaskInstance.task_id, TaskInstance.map_index, TaskInstance.state, TaskInstance.next_kwargs)
    rows = session.execute(
        tasks.where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id).order_by(
            TaskInstance.start_date, TaskInstance.task_id, TaskInstance.map_index
        )
    )
    pushed, rendered = _xcoms(session, dag_id, run_id), _connections(session, dag_id, run_id)
    found = []
    for task_id, map_index, state, next_kwargs in rows:
        values = pushed.get((task_id, map_index), {})
        note = deferral.note_of(next_kwargs)
        conn_id = note.get("skyvern_conn_id") or rendered.get((task_id, map_index))
        if conn_id is None and isinstance(announced := value_of(values, xcom.CONNECTION_AND_RUN_KEY), Mapping):
            conn_id = announced.get("skyvern_conn_id")
        skyvern_id = note.get("run_id") or value_of(values, xcom.RUN_ID)
        if isinstance(skyvern_id, str) and isinstance(conn_id, str):
            app_url = note.get("app_url") or value_of(values, xcom.APP_URL)
            found.append(TaskOfRun(task_id, map_index, state, RunRef(conn_id, skyvern_id), app_url))
    return found[:MOST_RUNS]


def _xcoms(session: Session, dag_id: str, run_id: str) -> dict[tuple[str, int], dict[str, Pushed]]:
    found = pushed_xcoms(
        session,
        (xcom.RUN_ID, xcom.APP_URL, xcom.CONNECTION_AND_RUN_KEY),
        lambda table: (table.dag_id == dag_id, table.run_id == run_id),
    )
    return {(key.task_id, key.map_index): pushed for key, pushed in found.items()}


def _connections(session: Session, dag_id: str, run_id: str) -> dict[tuple[str, int], str]:
    model = RenderedTaskInstanceFields
    rows = session.execute(
        select(model.task_id, model.map_index, model.rendered_fields).where(
            model.dag_id == dag_id, model.run_id == run_id
        )
    )
    return {
        (task_id, map_index): str(fields["skyvern_conn_id"])
        for task_id, map_index, fields in rows
        if isinstance(fields, Mapping) and "skyvern_conn_id" in fields
    }


async def _from_skyvern(
    reader: RunReader, user: Any, dag_id: str, run_id: str, found: Sequence[TaskOfRun]
) -> tuple[dict[RunRef, Any], list[str]]:
    """Fetch the runs of the tasks: all that carry the tags of this DAG run with one request per hundred."""
    known: dict[RunRef, Any] = {}
    sentences = []
    for conn_id in sorted({task.ref.skyvern_conn_id for task in found}):
        wanted = {task.ref for task in found if task.ref.skyvern_conn_id == conn_id}
        try:
            known.update(await _tagged(reader, conn_id, dag_id, run_id, wanted))
            known.update(await _single(reader, user, dag_id, wanted - set(known)))
        except READ_ERRORS as error:
            sentences.append(sentence_of(error, RunRef(conn_id, "")))
    return known, sentences


async def _tagged(
    reader: RunReader, conn_id: str, dag_id: str, run_id: str, wanted: set[RunRef]
) -> dict[RunRef, Any]:
    dag_tag, _, run_tag = READABLE_TAGS
    tags = {dag_tag: tag_value(dag_id), run_tag: tag_value(run_id)}
    found: dict[RunRef, Any] = {}
    for page in range(1, MOST_RUNS // PAGE_SIZE + 1):
        rows = await reader.listed(conn_id, api.list_runs(tags=tags, page=page))
        found.update({RunRef(conn_id, row.run_id): row for row in rows})
        if len(rows) < PAGE_SIZE or wanted <= set(found):
            break
    if ours := set(found) & wanted:
        carried = await reader.tags(conn_id, [ref.run_id for ref in ours])
        found = {ref: row for ref, row in found.items() if carried.get(ref.run_id, {}).get(dag_tag) == tags[dag_tag]}
    return {ref: row for ref, row in found.items() if ref in wanted}


async def _single(reader: RunReader, user: Any, dag_id: str, refs: set[RunRef]) -> dict[RunRef, Any]:
    async def fetch(ref: RunRef) -> Any:
        try:
            return await reader.run(ref) if await belongs(reader, ref, dag_id, user, is_certain=False) else None
        except READ_ERRORS:
            return None

    chosen = sorted(refs, key=lambda ref: ref.run_id)[:MOST_SINGLE]
    return dict(zip(chosen, await asyncio.gather(*map(fetch, chosen)), strict=True))


def _row(task: TaskOfRun, dag_id: str, run_id: str, run: Any) -> Row:
    path = task_path(dag_id, run_id, task.task_id, task.map_index)
    if run is None:
        return Row(task.task_id, task.map_index, task.state, path, task.ref.run_id)
    return Row(
        task.task_id,
        task.map_index,
        task.state,
        path,
        task.ref.run_id,
        web_address(task.app_url),
        run.status,
        run.created_at,
        duration_of(run),
    )


def duration_of(run: Any) -> str:
    """Return how long a run took; nothing while it is active."""
    if run.created_at is None or run.finished_at is None:
        return ""
    return in_words((run.finished_at - run.created_at).total_seconds(), tenths=True)


def task_path(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """Return the path of a task instance's tab in Airflow."""
    quoted = rendering.segment
    mapped = f"/mapped/{map_index}" if map_index >= 0 else ""
    return f"dags/{quoted(dag_id)}/runs/{quoted(run_id)}/tasks/{quoted(task_id)}{mapped}/plugin/{TASK_ROUTE}"


TASK_ROUTE = "skyvern"
"""The ``url_route`` of the tab, see :mod:`airflow_skyvern.plugin`."""
