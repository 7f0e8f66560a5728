"""The tab of a DAG run: its tasks that run something in Skyvern, with their runs, and why they failed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow.models.dagrun import DagRun
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from fastapi import HTTPException, Request
from sqlalchemy import select
from starlette.concurrency import run_in_threadpool

from airflow_skyvern.client import api
from airflow_skyvern.compat import teams
from airflow_skyvern.durations import in_words
from airflow_skyvern.limits import PAGE_SIZE
from airflow_skyvern.runs.key import READABLE_TAGS, tag_value
from airflow_skyvern.task.pushed import XCOMS_OF_RUN, KnownRun, Pushed, pushed_xcoms
from airflow_skyvern.ui import rendering
from airflow_skyvern.ui.access import connection_name
from airflow_skyvern.ui.concealment import web_address
from airflow_skyvern.ui.lookup import RunRef, TaskKey, is_own_operator, skyvern_tasks
from airflow_skyvern.ui.page_data import ENDED_BADLY
from airflow_skyvern.ui.reader import LastSeen
from airflow_skyvern.ui.task_page import ACTIVE, READ_ERRORS, REFRESH, belongs, sentence_of

if TYPE_CHECKING:
    from datetime import datetime

    from fastapi.responses import Response
    from sqlalchemy.orm import Session

    from airflow_skyvern.ui.reader import RunReader
    from airflow_skyvern.ui.task_page import TaskPages

MOST_TASKS = 500
"""Tasks in the table."""

MOST_SINGLE = 20
"""Runs of sensors, which are fetched one by one because they carry no tags of this DAG run."""

MOST_REASONS = 20
"""Reasons that are fetched for the table, of runs and of tasks each."""


WELL = frozenset({"success", "running", "queued", "scheduled", "deferred", None})
"""States that need no reason."""


@dataclass(frozen=True)
class TaskOfRun:
    """
    A task instance of the DAG run, and its run in Skyvern.

    :param ref: The run; None if it has started none, or none is known.
    """

    key: TaskKey
    state: str | None
    try_number: int
    ref: RunRef | None
    app_url: str | None


@dataclass(frozen=True)
class ShownTask:
    """A row of the table; without a status where Skyvern does not report it."""

    task_id: str
    map_index: int
    state: str | None
    path: str
    reason: str
    run_id: str
    app_url: str | None = None
    status: str | None = None
    created_at: datetime | None = None
    duration: str = ""


async def dag_run_page(pages: TaskPages, request: Request, user: Any, dag_id: str, run_id: str) -> Response:
    """Answer with the table."""

    def look() -> list[TaskOfRun] | None:
        with create_session() as session:
            return find_tasks(session, dag_id, run_id)

    found = await run_in_threadpool(look)
    if found is None:
        raise HTTPException(404, "This DAG run does not exist.")
    shown = await run_in_threadpool(_readable, _most_urgent(found), dag_id)
    known, sentences = await _from_skyvern(pages.reader, user, dag_id, run_id, shown)
    if not found:
        sentences = ["No task of this DAG run has started a run in Skyvern."]
    if len(found) > len(shown):
        sentences.append(f"{len(found) - len(shown)} more tasks are not shown.")
    reasons = await _reasons(pages, user, shown, known)
    addresses = await asyncio.gather(*(_address(pages.reader, task) for task in shown))
    rows = [
        _row(task, _run_of(task, known) or _last_seen(pages.reader, task), reasons.get(task.key, ""), address)
        for task, address in zip(shown, addresses, strict=True)
    ]
    changes = any(task.state in ACTIVE for task in found)
    return rendering.page(
        "dag_run.html",
        request.scope.get("root_path", ""),
        rows=rows,
        sentences=sentences,
        refresh=REFRESH if changes or not found else 0,
    )


def _most_urgent(found: Sequence[TaskOfRun]) -> Sequence[TaskOfRun]:
    """Limit the number of rows: if there are too many tasks, those that succeeded are left out."""
    if len(found) <= MOST_TASKS:
        return found
    chosen = {task.key for task in sorted(found, key=lambda task: task.state == "success")[:MOST_TASKS]}
    return [task for task in found if task.key in chosen]


def _readable(tasks: Sequence[TaskOfRun], dag_id: str) -> Sequence[TaskOfRun]:
    """Leave out runs on connections of other teams, which only an edited XCom can name."""
    connections = {task.ref.skyvern_conn_id for task in tasks if task.ref is not None}
    hidden = {conn_id for conn_id in connections if not teams.may_read(conn_id, dag_id)}
    return [
        replace(task, ref=None) if task.ref is not None and task.ref.skyvern_conn_id in hidden else task
        for task in tasks
    ]


def find_tasks(session: Session, dag_id: str, run_id: str) -> list[TaskOfRun] | None:
    """Find the tasks of a DAG run that run something in Skyvern; None if it does not exist."""
    if session.scalar(select(DagRun.id).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)) is None:
        return None
    tasks = select(
        *(TaskInstance.task_id, TaskInstance.map_index, TaskInstance.state, TaskInstance.try_number),
        *(TaskInstance.operator, TaskInstance.next_kwargs),
    )
    rows = session.execute(
        tasks.where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id).order_by(
            TaskInstance.start_date, TaskInstance.task_id, TaskInstance.map_index
        )
    )
    pushed, rendered = _xcoms(session, dag_id, run_id), _connections(session, dag_id, run_id)
    of_dag: frozenset[str] | None = None
    found = []
    for row in rows:
        place = (row.task_id, row.map_index)
        values = pushed.get(place, {})
        ours = place in rendered or KnownRun(values).is_announced or is_own_operator(row.operator)
        if not ours and row.state not in WELL:
            of_dag = skyvern_tasks(session, dag_id) if of_dag is None else of_dag
        task = _task_of(row, TaskKey(dag_id, run_id, *place), values, rendered.get(place))
        if ours or task.ref is not None or row.task_id in (of_dag or ()):
            found.append(task)
    return found


def _task_of(row: Any, key: TaskKey, values: Mapping[str, Pushed], conn_id: str | None) -> TaskOfRun:
    known = KnownRun(values, row.next_kwargs, {"skyvern_conn_id": conn_id})
    ref = RunRef.of(known.skyvern_conn_id, known.run_id)
    return TaskOfRun(key, row.state, row.try_number, ref, known.app_url)


def _xcoms(session: Session, dag_id: str, run_id: str) -> dict[tuple[str, int], dict[str, Pushed]]:
    found = pushed_xcoms(session, XCOMS_OF_RUN, lambda table: (table.dag_id == dag_id, table.run_id == run_id))
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


async def _address(reader: RunReader, task: TaskOfRun) -> str | None:
    if task.ref is None or task.app_url is None:
        return None
    return web_address(await reader.clients.run_page(task.ref.skyvern_conn_id, task.app_url))


async def _reasons(
    pages: TaskPages, user: Any, tasks: Sequence[TaskOfRun], known: Mapping[RunRef, Any]
) -> dict[TaskKey, str]:
    """Return why tasks ended: the reason of the run if it failed itself; else the error in the task's log."""
    of_run = {
        task.key: task.ref
        for task in tasks
        if task.ref is not None
        and task.state != "success"
        and getattr(_run_of(task, known), "status", None) in ENDED_BADLY
    }
    of_runs = await pages.reader.reasons(dict.fromkeys(list(of_run.values())[:MOST_REASONS]))
    of_tasks = [task for task in tasks if task.state not in WELL and task.key not in of_run]
    errors = await asyncio.gather(*(pages.error_of(task, user) for task in of_tasks[:MOST_REASONS]))
    return {
        **{key: of_runs.get(ref, "") for key, ref in of_run.items()},
        **{task.key: error for task, error in zip(of_tasks, errors, strict=False)},
    }


def _run_of(task: TaskOfRun, known: Mapping[RunRef, Any]) -> Any:
    return None if task.ref is None else known.get(task.ref)


def _last_seen(reader: RunReader, task: TaskOfRun) -> Any:
    """Return the last known state of a task's run, while Skyvern does not answer; another DAG's run is not shown."""
    seen = None if task.ref is None else reader.last_seen(task.ref)
    return seen if seen is not None and seen.dag_id in (None, task.key.dag_id) else None


async def _from_skyvern(
    reader: RunReader, user: Any, dag_id: str, run_id: str, found: Sequence[TaskOfRun]
) -> tuple[dict[RunRef, Any], list[str]]:
    """Fetch the runs of the tasks: runs with the tags of this DAG run with one request per hundred."""
    known: dict[RunRef, Any] = {}
    sentences = []
    refs = {task.ref for task in found if task.ref is not None}
    for conn_id in sorted({ref.skyvern_conn_id for ref in refs}):
        wanted = {ref for ref in refs if ref.skyvern_conn_id == conn_id}
        try:
            known.update(await _tagged(reader, conn_id, dag_id, run_id, wanted))
            known.update(await _single(reader, user, dag_id, wanted - set(known)))
        except READ_ERRORS as error:
            sentences.append(sentence_of(error, await run_in_threadpool(connection_name, user, conn_id)))
    return known, sentences


async def _tagged(
    reader: RunReader, conn_id: str, dag_id: str, run_id: str, wanted: set[RunRef]
) -> dict[RunRef, Any]:
    dag_tag, _, run_tag = READABLE_TAGS
    tags = {dag_tag: tag_value(dag_id), run_tag: tag_value(run_id)}
    found: dict[RunRef, Any] = {}
    for page in range(1, MOST_TASKS // PAGE_SIZE + 1):
        rows = await reader.listed(conn_id, api.list_runs(tags=tags, page=page).as_answered())
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


def _row(task: TaskOfRun, run: Any, reason: str, app_url: str | None) -> ShownTask:
    key = task.key
    path = rendering.tab_path(key.dag_id, key.run_id, key.task_id, key.map_index)
    row = ShownTask(
        key.task_id, key.map_index, task.state, path, reason, task.ref.run_id if task.ref else "", app_url
    )
    if run is None:
        return row
    if isinstance(run, LastSeen):
        return replace(row, status=run.status)
    return replace(row, status=run.status, created_at=run.created_at, duration=duration_of(run))


def duration_of(run: Any) -> str:
    """Return how long a run took; nothing while it is active."""
    if run.created_at is None or run.finished_at is None:
        return ""
    return in_words((run.finished_at - run.created_at).total_seconds(), tenths=True)
