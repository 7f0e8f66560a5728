"""The page in Airflow's menu: the newest runs, of the DAGs that the user may read; older ones page by page."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from airflow.models.connection import Connection
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from sqlalchemy import select, tuple_
from starlette.concurrency import run_in_threadpool

from airflow_skyvern.client import api
from airflow_skyvern.client.versions import RUN_TAGS
from airflow_skyvern.limits import LAST_RUNS_PAGE, PAGE_SIZE
from airflow_skyvern.models import RunStatus, RunSummary
from airflow_skyvern.runs.key import READABLE_TAGS
from airflow_skyvern.task import xcom
from airflow_skyvern.task.pushed import KnownRun, pushed_xcoms
from airflow_skyvern.ui import rendering
from airflow_skyvern.ui.access import connection_name, readable
from airflow_skyvern.ui.concealment import visible
from airflow_skyvern.ui.dag_run import duration_of
from airflow_skyvern.ui.lookup import RunRef, TaskKey, map_index_of, tries_of_runs
from airflow_skyvern.ui.page_data import ENDED_BADLY
from airflow_skyvern.ui.task_page import READ_ERRORS, sentence_of

if TYPE_CHECKING:
    from datetime import datetime

    from fastapi import Request
    from fastapi.responses import Response
    from sqlalchemy.orm import Session

    from airflow_skyvern.ui.reader import RunReader

NEWEST_XCOMS = 100
"""How many of the newest tasks are read to find the connections in use."""

MOST_CONNECTIONS = 10
"""Connections whose runs are listed."""

ROWS = 50
"""Rows from which a page is long enough, and older runs go to another page."""

PAGES_AT_ONCE = 5
"""Pages of a hundred runs that are searched for the rows of one page."""

MOST_REASONS = 25
"""Reasons that are fetched for a page; the others are on the pages of the runs."""

REFRESH = 10

NO_TAGS = (
    f"A Skyvern without run tags does not say whose its runs are: they came with version {RUN_TAGS.since}, and an "
    "organization of Skyvern Cloud may have none. Each task still has its run page."
)


@dataclass(frozen=True)
class Origin:
    """The task that started a run, from the run's tags."""

    dag_id: str
    task: str
    run_id: str

    @property
    def key(self) -> TaskKey:
        """The task instance: the tag of a mapped one ends with its index."""
        task_id, _, index = self.task.partition("[")
        mapped = map_index_of(index.rstrip("]"))
        return TaskKey(self.dag_id, self.run_id, task_id, -1 if mapped is None else mapped)


@dataclass(frozen=True)
class Found:
    """A run, and its origin."""

    ref: RunRef
    run: RunSummary
    origin: Origin


@dataclass(frozen=True)
class ShownRun:
    """A line of the table."""

    run_id: str
    status: str
    dag_id: str
    dag_path: str
    task: str
    task_path: str
    reason: str
    title: str
    workflow_id: str
    created_at: datetime | None
    duration: str
    seconds: float


SORTS: Mapping[str, Callable[[ShownRun], Any]] = {
    "status": lambda row: row.status,
    "dag": lambda row: row.dag_id.lower(),
    "task": lambda row: row.task.lower(),
    "workflow": lambda row: (row.title.lower(), row.workflow_id),
    "started": lambda row: str(row.created_at),
    "duration": lambda row: row.seconds,
}
"""The columns that a page can be sorted by."""


@dataclass(frozen=True)
class Wanted:
    """
    The user's filter.

    :param status: A status of Skyvern; empty for all.
    :param dag: A part of the DAG's id; the same applies to task and workflow.
    :param workflow: A part of the title or of the id.
    :param page: The page of Skyvern's list to begin with.
    """

    status: str = ""
    dag: str = ""
    task: str = ""
    workflow: str = ""
    sort: str = "started"
    order: str = "desc"
    page: int = 1

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Wanted:
        """Read the address; Skyvern would refuse a status that it does not know."""
        status, page = query.get("status", ""), query.get("page", "")
        known = status in {one.value for one in RunStatus}
        parts = {name: query.get(name, "").strip()[:250] for name in ("dag", "task", "workflow")}
        sort = query.get("sort", "")
        return cls(
            status=status if known else "",
            sort=sort if sort in SORTS else "started",
            order="asc" if query.get("order") == "asc" else "desc",
            page=int(page) if re.fullmatch(r"[1-9]\d?|100", page, re.ASCII) else 1,
            **parts,
        )

    def call(self, page: int) -> Any:
        """Return the request to Skyvern."""
        return api.list_runs(status=[self.status] if self.status else [], page=page)

    def fits(self, found: Found) -> bool:
        """Return whether a run passes the filter; a server that does not know a filter ignores it."""
        run, origin = found.run, found.origin
        return (
            self.status in ("", run.status)
            and self.dag.lower() in origin.dag_id.lower()
            and self.task.lower() in origin.task.lower()
            and self.workflow.lower() in f"{run.title or ''} {run.workflow_permanent_id or ''}".lower()
        )

    def address(self, **changed: Any) -> str:
        """Return the query of the same page with changed parameters."""
        usual = asdict(Wanted())
        return "?" + urlencode({name: v for name, v in {**asdict(self), **changed}.items() if v != usual[name]})

    def sorted_by(self, name: str) -> str:
        """Return the address of the same page sorted by a column, reversed if it is sorted by it already."""
        first = "desc" if name in ("started", "duration") else "asc"
        other = {"asc": "desc", "desc": "asc"}[self.order]
        return self.address(sort=name, order=other if self.sort == name else first)


async def newest_runs_page(reader: RunReader, request: Request, user: Any) -> Response:
    """Answer with the table."""
    wanted = Wanted.of(request.query_params)
    found, next_page, sentences = await _found(reader, user, wanted)
    rows = await _rows(reader, found)
    rows.sort(key=SORTS[wanted.sort], reverse=wanted.order == "desc")
    if not rows and not sentences:
        sentences = [_nothing(wanted, next_page), *([NO_TAGS] if reader.untagged else [])]
    return rendering.page(
        "newest_runs.html",
        request.scope.get("root_path", ""),
        rows=rows,
        sentences=sentences,
        refresh=REFRESH,
        statuses=[status.value for status in RunStatus],
        wanted=wanted,
        older=wanted.address(page=next_page) if next_page else "",
        newest=wanted.address(page=1) if wanted.page > 1 else "",
        is_end=next_page is None and wanted.page > 1,
    )


def _nothing(wanted: Wanted, next_page: int | None) -> str:
    if next_page is None and wanted.page == 1:
        return "Skyvern has no runs of DAGs that you may read, or none of them match the filter."
    if next_page is None:
        return "Skyvern has no older runs of DAGs that you may read, or none of them match the filter."
    return f"Of the runs {(wanted.page - 1) * PAGE_SIZE + 1} to {(next_page - 1) * PAGE_SIZE} of Skyvern none fits."


async def _found(reader: RunReader, user: Any, wanted: Wanted) -> tuple[list[Found], int | None, list[str]]:
    """Read the lists of all connections until there are enough rows for a page."""
    conn_ids = await run_in_threadpool(_connections_of, user)
    found: dict[str, Found] = {}
    sentences: list[str] = []
    page, end = wanted.page, min(wanted.page + PAGES_AT_ONCE, LAST_RUNS_PAGE + 1)
    while conn_ids and page < end and len(found) < ROWS:
        answers = await asyncio.gather(
            *(_page_of(reader, conn_id, wanted, page) for conn_id in conn_ids), return_exceptions=True
        )
        left = []
        for conn_id, answer in zip(conn_ids, answers, strict=True):
            if isinstance(answer, READ_ERRORS):
                sentences.append(sentence_of(answer, await run_in_threadpool(connection_name, user, conn_id)))
            elif isinstance(answer, BaseException):
                raise answer
            else:
                found.update({one.run.run_id: one for one in await run_in_threadpool(_shown_to, user, answer[0])})
                left += [conn_id] if answer[1] else []
        conn_ids, page = left, page + 1
    more = bool(conn_ids) and page <= LAST_RUNS_PAGE
    return list(found.values()), page if more else None, list(dict.fromkeys(sentences))


async def _page_of(reader: RunReader, conn_id: str, wanted: Wanted, page: int) -> tuple[list[Found], bool]:
    """Return the runs of one page of a connection's list that tasks have started, and whether there is another."""
    runs = await reader.listed(conn_id, wanted.call(page))
    tags = await reader.tags(conn_id, [run.run_id for run in runs])
    origins = [(run, origin_of(tags.get(run.run_id, {}))) for run in runs]
    found = [Found(RunRef(conn_id, run.run_id), run, origin) for run, origin in origins if origin is not None]
    return [one for one in found if wanted.fits(one)], len(runs) >= PAGE_SIZE


async def _rows(reader: RunReader, found: Sequence[Found]) -> list[ShownRun]:
    badly = [one.ref for one in found if one.run.status in ENDED_BADLY]
    reasons = await reader.reasons(badly[:MOST_REASONS])
    tries = await run_in_threadpool(_tries, found)
    return [_row(one, reasons.get(one.ref, ""), tries.get(one.run.run_id)) for one in found]


def _tries(found: Sequence[Found]) -> dict[str, int]:
    with create_session() as session:
        return tries_of_runs(session, {one.run.run_id: (one.origin.key, one.run.created_at) for one in found})


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
    announced = [KnownRun(values).skyvern_conn_id for key, values in pushed.items() if key.dag_id in allowed]
    names = dict.fromkeys(name for name in [*announced, *stored] if name)
    return list(names)[:MOST_CONNECTIONS]


def _shown_to(user: Any, found: Sequence[Found]) -> list[Found]:
    """Return the runs whose DAG runs exist in this Airflow, of DAGs that the user may read."""
    allowed = readable(user, [one.origin.dag_id for one in found])
    with create_session() as session:
        existing = _existing(session, [(one.origin.dag_id, one.origin.run_id) for one in found])
    return [
        one for one in found if one.origin.dag_id in allowed and (one.origin.dag_id, one.origin.run_id) in existing
    ]


def _existing(session: Session, runs: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
    wanted = sorted(set(runs))
    rows = session.execute(
        select(DagRun.dag_id, DagRun.run_id).where(tuple_(DagRun.dag_id, DagRun.run_id).in_(wanted))
    )
    return {(dag_id, run_id) for dag_id, run_id in rows}


def _row(found: Found, reason: str, try_number: int | None) -> ShownRun:
    run, origin, key = found.run, found.origin, found.origin.key
    return ShownRun(
        run_id=run.run_id,
        status=run.status,
        dag_id=origin.dag_id,
        dag_path=f"dags/{rendering.segment(origin.dag_id)}",
        task=origin.task,
        task_path=rendering.tab_path(key.dag_id, key.run_id, key.task_id, key.map_index, try_number),
        reason=reason,
        title=visible(run.title),
        workflow_id=run.workflow_permanent_id or "",
        created_at=run.created_at,
        duration=duration_of(run),
        seconds=-1.0 if run.duration is None else run.duration.total_seconds(),  # while it is active
    )
