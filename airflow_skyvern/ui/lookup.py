"""From a task instance to its run in Skyvern: what Airflow's database tells; nothing comes from a page's address."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow.models.dag import DagModel
from airflow.models.renderedtifields import RenderedTaskInstanceFields
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancehistory import TaskInstanceHistory
from sqlalchemy import select, tuple_

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
class Noted:
    """
    What Airflow's database says of a run, also while Skyvern does not answer.

    :param app_url: The address of its page in Skyvern.
    :param status: The last status that the trigger has reported.
    :param deadline: Until when the task waits for it.
    :param answer: What a person has answered to it: the XCom ``approval``.
    """

    app_url: str | None = None
    status: str | None = None
    deadline: datetime | None = None
    answer: Mapping[str, Any] | None = None


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
    noted: Noted = Noted()


MAP_INDEX = re.compile(r"-1|\d{1,9}", re.ASCII)
"""What is a map index: Airflow's database has 32 bits for it."""


def map_index_of(text: str) -> int | None:
    """Read a map index in an address: Airflow leaves ``{MAP_INDEX}`` where a task is not mapped."""
    if text == "{MAP_INDEX}":
        return -1
    return int(text) if MAP_INDEX.fullmatch(text) else None


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
        is_skyvern=run is not None or bool(rendered) or _looks_like_ours(session, ti, pushed),
        noted=_noted(chosen.next_kwargs, pushed if chosen is ti else {}, run),
    )


def _noted(next_kwargs: Any, pushed: Mapping[str, Any], run: RunRef | None) -> Noted:
    address = deferral.note_of(next_kwargs).get("app_url") or pushed.get(xcom.APP_URL)
    deadline, answer = deferral.deadline_of(next_kwargs), pushed.get(xcom.APPROVAL)
    about_run = isinstance(answer, Mapping) and run is not None and answer.get("run_id") == run.run_id
    return Noted(
        app_url=address if isinstance(address, str) else None,
        status=deferral.status_of(next_kwargs),
        deadline=None if deadline is None else datetime.fromtimestamp(deadline, timezone.utc),
        answer=answer if about_run else None,
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
    keys = (xcom.RUN_ID, xcom.APP_URL, xcom.CONNECTION_AND_RUN_KEY, xcom.APPROVAL)
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


def _looks_like_ours(session: Session, ti: TaskInstance, pushed: Mapping[str, Any]) -> bool:
    return (
        xcom.CONNECTION_AND_RUN_KEY in pushed
        or is_own_operator(ti.operator)
        or ti.task_id in skyvern_tasks(session, ti.dag_id)
    )


def is_own_operator(operator: Any) -> bool:
    """Tell whether a task instance's operator is one of ours by its name; a user's subclass has another one."""
    return str(operator or "").startswith("Skyvern")


def skyvern_tasks(session: Session, dag_id: str) -> frozenset[str]:
    """Return the ids of the tasks of a DAG that have a connection to Skyvern, subclasses included."""
    newest = (
        select(SerializedDagModel)
        .where(SerializedDagModel.dag_id == dag_id)
        .order_by(SerializedDagModel.created_at.desc())
        .limit(1)
    )
    stored = session.scalar(newest)
    tasks = ((stored.data or {}).get("dag") or {}).get("tasks") if stored is not None else None
    found = [deferral.decoded(task) for task in tasks or ()]
    return frozenset(
        str(task.get("task_id"))
        for task in found
        if isinstance(task, Mapping) and "skyvern_conn_id" in (task.get("template_fields") or ())
    )


def tries_of_runs(session: Session, runs: Mapping[str, tuple[TaskKey, datetime | None]]) -> dict[str, int]:
    """
    Find the tries that belong to runs, for tasks that have had several.

    :param runs: By run id: the task instance that has started the run, and when.
    """
    keys = sorted({(key.dag_id, key.run_id, key.task_id, key.map_index) for key, _ in runs.values()})
    tries: dict[TaskKey, list[Any]] = {}
    for model in (TaskInstance, TaskInstanceHistory):
        ids = (model.dag_id, model.run_id, model.task_id, model.map_index)
        rows = session.execute(
            select(*ids, model.try_number, model.start_date, model.next_kwargs).where(tuple_(*ids).in_(keys))
        )
        for row in rows:
            tries.setdefault(TaskKey(*row[:4]), []).append(row)
    found = {run_id: _try_of(run_id, tries.get(key, ()), at) for run_id, (key, at) in runs.items()}
    return {run_id: number for run_id, number in found.items() if number is not None}


def _try_of(run_id: str, tries: Sequence[Any], created_at: datetime | None) -> int | None:
    """Choose the try that has waited for the run, else the last that had begun when the run was created."""
    if len({one.try_number for one in tries}) < 2:  # noqa: PLR2004  there is nothing to choose
        return None
    waited = [one.try_number for one in tries if deferral.note_of(one.next_kwargs).get("run_id") == run_id]
    begun = [
        one.try_number for one in tries if created_at and one.start_date and one.start_date <= created_at + CLOCKS
    ]
    return max(waited or begun, default=None)


CLOCKS = timedelta(seconds=2)
"""By how much the clocks of Airflow and Skyvern may differ."""
