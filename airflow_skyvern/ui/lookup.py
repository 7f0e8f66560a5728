"""Finds a task instance's run in Airflow's database; nothing is taken from a page's address."""

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
from fastapi import HTTPException
from sqlalchemy import select, tuple_

from airflow_skyvern.runs.login_code import CodeStep
from airflow_skyvern.task import deferral, xcom
from airflow_skyvern.task.pushed import XCOMS_OF_RUN, KnownRun, Pushed, pushed_xcoms

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

NOT_STARTED = frozenset({None, "scheduled", "queued"})
"""States before a try runs, unless it is about to be resumed. XComs are still from the try before."""


@dataclass(frozen=True)
class TaskKey:
    """The task instance that a page is about."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int

    def of(self, model: Any) -> tuple[Any, ...]:
        """Return the conditions that select its rows in a table."""
        return (
            model.dag_id == self.dag_id,
            model.run_id == self.run_id,
            model.task_id == self.task_id,
            model.map_index == self.map_index,
        )


@dataclass(frozen=True)
class RunRef:
    """A run, and the connection that leads to it."""

    skyvern_conn_id: str
    run_id: str

    @classmethod
    def of(cls, skyvern_conn_id: str | None, run_id: str | None) -> RunRef | None:
        """Return the run, if both are known."""
        return cls(skyvern_conn_id, run_id) if skyvern_conn_id and run_id else None


@dataclass(frozen=True)
class Noted:
    """
    A run according to Airflow's database, also while Skyvern does not answer.

    :param app_url: The address of its page in Skyvern.
    :param status: The last status that the trigger has reported.
    :param deadline: Until when the task waits for it.
    :param answer: A person's answer to it: the XCom ``approval``.
    :param version: Its version of a workflow file: the XCom ``workflow_version``.
    :param code_step: Where the run waits for a code, or has just got one, if its task says so in Required Actions.
    """

    app_url: str | None = None
    status: str | None = None
    deadline: datetime | None = None
    answer: Mapping[str, Any] | None = None
    version: Mapping[str, Any] | None = None
    code_step: CodeStep | None = None


@dataclass(frozen=True)
class FoundTask:
    """
    Airflow's knowledge about a task instance and its runs.

    :param state: The state of the chosen try.
    :param try_number: The chosen try.
    :param tries: All tries, oldest first.
    :param run: The run of the chosen try; None if there is none, or none is known.
    :param is_certain: Whether Airflow itself has stored which run it is, and not only an XCom, which can be edited.
    :param skyvern_conn_id: The connection of the task, if it is known.
    :param ended_at: When the chosen try has ended.
    :param is_skyvern: Whether the task is one of ours, as far as is known.
    :param calls: The runs that the task's agent has started by calling tools, the first one first; None for one that
        has not started yet.
    :param call: Which of these is the run.
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
    calls: Sequence[str | None] = ()
    call: int | None = None

    @property
    def place(self) -> str:
        """The parameters that name the try, and the call, in an address."""
        return f"{self.try_number}" if self.call is None else f"{self.try_number}.{self.call}"


MAP_INDEX = re.compile(r"-1|\d{1,9}", re.ASCII)
"""A valid map index: Airflow's database has 32 bits for it."""


def map_index_of(text: str) -> int | None:
    """Read a map index in an address: Airflow leaves ``{MAP_INDEX}`` where a task is not mapped."""
    if text == "{MAP_INDEX}":
        return -1
    return int(text) if MAP_INDEX.fullmatch(text) else None


def key_of(dag_id: str, run_id: str, task_id: str, map_index: str) -> TaskKey:
    """
    Return which task instance an address names.

    :raises HTTPException: 404 it cannot name one.
    """
    index = map_index_of(map_index)
    if index is None:
        raise HTTPException(404, "This task instance does not exist.")
    return TaskKey(dag_id, run_id, task_id, index)


def find_task(
    session: Session, key: TaskKey, try_number: int | None = None, call: int | None = None
) -> FoundTask | None:
    """
    Find a task instance and its run; None if the task instance, the try or the call does not exist.

    :param try_number: The try. Default: the newest.
    :param call: Which of the tool calls of its agent. Default: the newest.
    """
    ti = session.scalar(select(TaskInstance).where(*key.of(TaskInstance)))
    if ti is None:
        return None
    history = session.scalars(select(TaskInstanceHistory).where(*key.of(TaskInstanceHistory))).all()
    earlier = {row.try_number: row for row in history if row.try_number != ti.try_number}
    chosen = earlier.get(try_number) if try_number not in (None, ti.try_number) else ti
    if chosen is None:
        return None
    pushed = next(
        iter(pushed_xcoms(session, (*XCOMS_OF_RUN, xcom.APPROVAL, xcom.WORKFLOW_VERSION), key.of).values()), {}
    )
    rendered = _rendered(session, key)
    conn_id = KnownRun(pushed, rendered=rendered).skyvern_conn_id
    known = _known_of_try(chosen, ti, pushed, rendered, call)
    if known is None:
        return None
    run = RunRef.of(known.skyvern_conn_id or conn_id, known.run_id)
    return FoundTask(
        key=key,
        state=chosen.state,
        try_number=chosen.try_number,
        tries=sorted({*earlier, ti.try_number} - {0}),
        run=run,
        is_certain=run is not None and run.run_id == known.certain_id,
        skyvern_conn_id=conn_id,
        ended_at=chosen.end_date,
        is_skyvern=run is not None or bool(rendered) or _looks_like_ours(session, ti, pushed),
        noted=_noted(chosen.next_kwargs, known),
        calls=known.run_ids_of_calls,
        call=known.call,
    )


def _known_of_try(
    chosen: TaskInstance | TaskInstanceHistory,
    ti: TaskInstance,
    pushed: Mapping[str, Pushed],
    rendered: Mapping[str, Any],
    call: int | None,
) -> KnownRun | None:
    """
    Return the known facts about a try's run: XComs and arguments belong to the newest try, once it has begun.

    None if there is no such call.
    """
    if chosen is not ti:
        return KnownRun({}, chosen.next_kwargs) if call is None else None
    begun = chosen.state not in NOT_STARTED or chosen.next_method is not None
    of_before = {xcom.RUN_ID, xcom.CONNECTION_AND_RUN_KEY} if KnownRun(pushed).calls else {xcom.RUN_ID}
    known = pushed if begun else {key: one for key, one in pushed.items() if key not in of_before}
    if call is not None and call >= len(KnownRun(known).calls):
        return None
    return KnownRun(known, chosen.next_kwargs, rendered, -1 if call is None else call)


def _noted(next_kwargs: Any, known: KnownRun) -> Noted:
    deadline = deferral.deadline_of(next_kwargs)
    return Noted(
        app_url=known.app_url,
        status=deferral.status_of(next_kwargs),
        deadline=None if deadline is None else datetime.fromtimestamp(deadline, timezone.utc),
        answer=known.approval,
        version=known.workflow_version,
        code_step=_code_step(next_kwargs, known),
    )


def _code_step(next_kwargs: Any, known: KnownRun) -> CodeStep | None:
    """Return the step at which a deferred task's run waits for a code; None for another run."""
    request = deferral.request_of(next_kwargs) or {}
    step = deferral.decoded(request.get("step"))
    return CodeStep.of(step) if isinstance(step, Mapping) and request.get("run_id") == known.run_id else None


def _rendered(session: Session, key: TaskKey) -> Mapping[str, Any]:
    """Return the rendered arguments of a task of ours; Airflow deletes them for old DAG runs."""
    model = RenderedTaskInstanceFields
    found = session.scalar(select(model.rendered_fields).where(*key.of(model)))
    return found if isinstance(found, Mapping) and "skyvern_conn_id" in found else {}


def known_dag(session: Session, dag_id: str) -> bool:
    """Return whether this Airflow has such a DAG."""
    return session.scalar(select(DagModel.dag_id).where(DagModel.dag_id == dag_id)) is not None


def _looks_like_ours(session: Session, ti: TaskInstance, pushed: Mapping[str, Any]) -> bool:
    return (
        xcom.CONNECTION_AND_RUN_KEY in pushed
        or is_own_operator(ti.operator)
        or ti.task_id in skyvern_tasks(session, ti.dag_id)
    )


def is_own_operator(operator: Any) -> bool:
    """Return whether a task instance's operator is ours, by its name; a user's subclass has another name."""
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
