"""From a task instance to its run in Skyvern: what Airflow's database tells; nothing comes from a page's address."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow.models.dag import DagModel
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancehistory import TaskInstanceHistory
from sqlalchemy import select

from airflow_skyvern.task import deferral, xcom
from airflow_skyvern.task.pushed import pushed_xcoms, values_of

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

NOT_STARTED = frozenset({None, "scheduled", "queued"})
"""States before a try runs, unless it is about to be resumed. XComs are still those of the try before."""


@dataclass(frozen=True)
class TaskKey:
    """Which task instance a page is about."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int

    def of(self, model: Any) -> tuple[Any, ...]:
        """Return the conditions that choose its rows of a table."""
        return (
            model.dag_id == self.dag_id,
            model.run_id == self.run_id,
            model.task_id == self.task_id,
            model.map_index == self.map_index,
        )


@dataclass(frozen=True)
class RunRef:
    """Which run, and the connection that leads to it."""

    skyvern_conn_id: str
    run_id: str


@dataclass(frozen=True)
class FoundTask:
    """
    What Airflow knows of a task instance and its runs.

    :param state: The state of the chosen try.
    :param try_number: The chosen try.
    :param tries: All tries, oldest first.
    :param run: The run of the chosen try; None if there is none, or none is known.
    :param is_certain: Whether Airflow itself has stored which run it is, and not only an XCom, which can be edited.
    :param skyvern_conn_id: The connection of the task, if it is known.
    :param ended_at: When the chosen try has ended.
    :param is_skyvern: Whether the task is one of ours, as far as is known.
    """

    key: TaskKey
    state: str | None
    try_number: int
    tries: Sequence[int]
    run: RunRef | None
    is_certain: bool
    skyvern_conn_id: str | None
    ended_at: datetime | None
    is_skyvern: bool


def map_index_of(text: str) -> int | None:
    """Read a map index in an address: Airflow leaves ``{MAP_INDEX}`` where a task is not mapped."""
    if text == "{MAP_INDEX}":
        return -1
    try:
        return int(text)
    except ValueError:
        return None


def find_task(session: Session, key: TaskKey, try_number: int | None = None) -> FoundTask | None:
    """
    Find a task instance and its run; None if there is no such task instance, or no such try.

    :param try_number: The try. Default: the newest.
    """
    ti = session.scalar(select(TaskInstance).where(*key.of(TaskInstance)))
    if ti is None:
        return None
    history = session.scalars(select(TaskInstanceHistory).where(*key.of(TaskInstanceHistory))).all()
    earlier = {row.try_number: row for row in history if row.try_number != ti.try_number}
    chosen = earlier.get(try_number) if try_number not in (None, ti.try_number) else ti
    if chosen is None:
        return None
    pushed = _xcoms(session, key)
    rendered = _rendered(session, key)
    certain = deferral.note_of(chosen.next_kwargs).get("run_id") or (rendered.get("run_id") if chosen is ti else None)
    conn_id = _connection(rendered, pushed)
    run = _run_of(chosen, certain, pushed if chosen is ti else {}, conn_id)
    return FoundTask(
        key=key,
        state=chosen.state,
        try_number=chosen.try_number,
        tries=sorted({*earlier, ti.try_number} - {0}),
        run=run,
        is_certain=run is not None and run.run_id == certain,
        skyvern_conn_id=conn_id,
        ended_at=chosen.end_date,
        is_skyvern=run is not None or _looks_like_ours(ti, pushed),
    )


def _run_of(
    chosen: TaskInstance | TaskInstanceHistory, certain: Any, pushed: Mapping[str, Any], conn_id: str | None
) -> RunRef | None:
    """Take the run id from what no user can edit: the deferral, or the argument of a sensor; else from XCom."""
    begun = chosen.state not in NOT_STARTED or chosen.next_method is not None
    run_id = certain or (pushed.get(xcom.RUN_ID) if begun else None)
    conn_id = deferral.note_of(chosen.next_kwargs).get("skyvern_conn_id") or conn_id
    if not (isinstance(run_id, str) and run_id and isinstance(conn_id, str) and conn_id):
        return None
    return RunRef(conn_id, run_id)


def _xcoms(session: Session, key: TaskKey) -> dict[str, Any]:
    keys = (xcom.RUN_ID, xcom.APP_URL, xcom.CONNECTION_AND_RUN_KEY)
    return next(map(values_of, pushed_xcoms(session, keys, key.of).values()), {})


def _rendered(session: Session, key: TaskKey) -> Mapping[str, Any]:
    """Return the rendered arguments of a task of ours; Airflow deletes those of old DAG runs."""
    model = RenderedTaskInstanceFields
    found = session.scalar(select(model.rendered_fields).where(*key.of(model)))
    return found if isinstance(found, Mapping) and "skyvern_conn_id" in found else {}


def _connection(rendered: Mapping[str, Any], pushed: Mapping[str, Any]) -> str | None:
    """Take the connection from the rendered arguments, which no user can edit; else from XCom."""
    if "skyvern_conn_id" in rendered:
        return str(rendered["skyvern_conn_id"])
    value = pushed.get(xcom.CONNECTION_AND_RUN_KEY)
    return value.get("skyvern_conn_id") if isinstance(value, Mapping) else None


def known_dag(session: Session, dag_id: str) -> bool:
    """Tell whether this Airflow has such a DAG."""
    return session.scalar(select(DagModel.dag_id).where(DagModel.dag_id == dag_id)) is not None


def _looks_like_ours(ti: TaskInstance, pushed: Mapping[str, Any]) -> bool:
    return xcom.CONNECTION_AND_RUN_KEY in pushed or str(ti.operator or "").startswith("Skyvern")
