"""What Airflow's metadata database knows of the tasks that runs belong to, read in batches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow_skyvern.compat import internals, since_3_0
from airflow_skyvern.runs.orphans import FINISHED, Period, Place, TaskRow
from airflow_skyvern.task import deferral, xcom
from airflow_skyvern.task.pushed import KnownRun, Pushed, TaskInstanceKey, of_changed_tasks, pushed_xcoms

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

BATCH = 300
"""How many task instances one statement asks for: SQLite takes few variables."""

BEGINS = "running"
ENDS = ("deferred", "success", "failed", "skipped", "up_for_retry", "up_for_reschedule", "restarting", "removed")
"""What the audit log calls the begin of a period in which a task's code runs, and its end."""

XCOMS = (xcom.RUN_ID, xcom.CONNECTION_AND_RUN_KEY)
OUR_TRIGGERS = "airflow_skyvern.%"


class AirflowTasks:
    """
    The task instances of this Airflow.

    Each method opens a session of its own, so that nothing is held while Skyvern is asked.

    :raises SkyvernConfigError: the database cannot be read.
    """

    def rows(self, places: Collection[Place]) -> dict[Place, TaskRow]:
        """Return the task instances that there are."""
        found: dict[Place, TaskRow] = {}
        for some in _batches(places):
            with internals.database_session() as session:
                pushed = pushed_xcoms(session, XCOMS, partial(_are_of, some))
                rows = list(_task_instances(session, some))
            for place, ti, about_dag in rows:  # XCom backends may take requests: not in the transaction
                found[place] = _row(ti, pushed.get(TaskInstanceKey(*place), {}), about_dag)
        return found

    def periods(self, places: Collection[Place]) -> dict[Place, list[Period]]:
        """Return when the code of these task instances has run, by the audit log, which outlives a deletion."""
        events: dict[Place, list[tuple[datetime, str]]] = {}
        for some in _batches(places):
            with internals.database_session() as session:
                for place, when, event in _logged(session, some):
                    events.setdefault(place, []).append((when, event))
        return {place: _periods(sorted(known)) for place, known in events.items()}

    def waiting_for(self, runs: Mapping[str, Place]) -> dict[str, set[Place]]:
        """
        Return which task instances that are not over have one of these runs as an argument, or may have it.

        A sensor that starts in the triggerer keeps the template of its argument: it may wait for any run of its DAG
        run.
        """
        found: dict[str, set[Place]] = {}
        with internals.database_session() as session:
            for place, text in _arguments(session, runs):
                for run_id in runs:
                    if run_id in text:
                        found.setdefault(run_id, set()).add(place)
            for place, argument in _awaited_by_triggers(session):
                for run_id, starter in runs.items():
                    if argument == run_id or ("{" in argument and place[:2] == starter[:2]):
                        found.setdefault(run_id, set()).add(place)
        return found

    def connections_of(self, dag_id: str, run_id: str, since: datetime) -> set[str]:
        """
        Return the connections of the tasks of a DAG run whose runs end with them.

        :param since: Only tasks that Airflow has changed since then: what ended before, has ended by itself.
        """
        with internals.database_session() as session:
            where = of_changed_tasks(since, dag_id=dag_id, run_id=run_id)
            pushed = pushed_xcoms(session, [xcom.CONNECTION_AND_RUN_KEY], where)
            rendered = _rendered_connections(session, where)
        announced = (run.skyvern_conn_id for one in pushed.values() for run in KnownRun.all_of(one))
        return rendered | {name for name in announced if name is not None}


def _rendered_connections(session: Session, where: Callable[[Any], list[Any]]) -> set[str]:
    """
    Return the connections among rendered arguments.

    A retry deletes the XComs of the try before as it begins, and may come no further.
    """
    from airflow.models.renderedtifields import RenderedTaskInstanceFields as Fields
    from sqlalchemy import Text, cast, select

    is_ours = cast(Fields.rendered_fields, Text).contains("skyvern_conn_id")
    found = session.scalars(select(Fields.rendered_fields).where(*where(Fields), is_ours))
    known = (KnownRun({}, rendered=fields) for each in found if isinstance(fields := deferral.decoded(each), Mapping))
    return {name for run in known if (name := run.skyvern_conn_id) is not None}


def _batches(places: Iterable[Place]) -> Iterator[list[Place]]:
    left = iter(sorted(places))
    while some := list(islice(left, BATCH)):
        yield some


def _is_one_of(table: Any, places: Sequence[Place]) -> Any:
    from sqlalchemy import tuple_

    return tuple_(table.dag_id, table.run_id, table.task_id, table.map_index).in_(places)


def _are_of(places: Sequence[Place], table: Any) -> list[Any]:
    return [_is_one_of(table, places)]


def _task_instances(session: Session, places: Sequence[Place]) -> Iterator[tuple[Place, Any, dict[str, bool]]]:
    from airflow.models.dag import DagModel
    from airflow.models.taskinstance import TaskInstance as TI  # noqa: N817
    from sqlalchemy import select

    columns = (TI.dag_id, TI.run_id, TI.task_id, TI.map_index, TI.state, TI.updated_at, TI.end_date, TI.next_kwargs)
    statement = select(*columns, DagModel).outerjoin(DagModel, DagModel.dag_id == TI.dag_id)
    for ti in session.execute(statement.where(_is_one_of(TI, places))):
        dag = ti[-1]
        gone, paused = dag is None or not since_3_0.is_present(dag), dag is not None and bool(dag.is_paused)
        yield Place(*ti[:4]), ti, {"dag_gone": gone, "dag_paused": paused}


def _row(ti: Any, pushed: Mapping[str, Pushed], about_dag: Mapping[str, bool]) -> TaskRow:
    known = KnownRun(pushed, ti.next_kwargs)
    return TaskRow(
        state=str(ti.state) if ti.state else None,
        changed=max(filter(None, (ti.updated_at, ti.end_date)), default=datetime.now(timezone.utc)),
        run_id=known.run_id,
        group=known.group,
        **about_dag,
    )


def _logged(session: Session, places: Sequence[Place]) -> Iterator[tuple[Place, datetime, str]]:
    from airflow.models.log import Log
    from sqlalchemy import select

    columns = (Log.dag_id, Log.run_id, Log.task_id, Log.map_index, Log.dttm, Log.event)
    wanted = Log.event.in_((BEGINS, *ENDS))
    for *place, when, event in session.execute(select(*columns).where(_is_one_of(Log, places), wanted)):
        if when is not None:
            yield Place(*place), when, event


def _periods(events: Sequence[tuple[datetime, str]]) -> list[Period]:
    following = [*(when for when, _ in events[1:]), None]
    return [(when, end) for (when, event), end in zip(events, following, strict=True) if event == BEGINS]


def _arguments(session: Session, run_ids: Iterable[str]) -> Iterator[tuple[Place, str]]:
    """Return the rendered arguments and deferrals that hold one of these run ids, of tasks that are not over."""
    from airflow.models.renderedtifields import RenderedTaskInstanceFields as Fields
    from airflow.models.taskinstance import TaskInstance as TI  # noqa: N817
    from sqlalchemy import Text, and_, cast, func, or_, select

    same_task = and_(*(getattr(TI, name) == getattr(Fields, name) for name in Place._fields))
    deferred, rendered = cast(TI.next_kwargs, Text), cast(Fields.rendered_fields, Text)
    columns = (TI.dag_id, TI.run_id, TI.task_id, TI.map_index)
    texts = (func.coalesce(deferred, ""), func.coalesce(rendered, ""))
    for some in _slices(sorted(run_ids)):
        has_one = or_(*(text.contains(run_id, autoescape=True) for text in (deferred, rendered) for run_id in some))
        statement = select(*columns, *texts).outerjoin(Fields, same_task).where(_is_not_over(TI), has_one)
        for *place, one, other in session.execute(statement):
            yield Place(*place), one + other


def _slices(run_ids: Sequence[str], size: int = 50) -> Iterator[Sequence[str]]:
    return (run_ids[at : at + size] for at in range(0, len(run_ids), size))


def _awaited_by_triggers(session: Session) -> Iterator[tuple[Place, str]]:
    """Return the argument ``run_id`` of our triggers, which are stored encrypted: a template, or a run id."""
    from airflow.models.taskinstance import TaskInstance as TI  # noqa: N817
    from airflow.models.trigger import Trigger
    from sqlalchemy import select

    columns = (TI.dag_id, TI.run_id, TI.task_id, TI.map_index, Trigger)
    statement = (
        select(*columns).join(Trigger, TI.trigger_id == Trigger.id).where(Trigger.classpath.like(OUR_TRIGGERS))
    )
    for *place, trigger in session.execute(statement):
        yield Place(*place), str(trigger.kwargs.get("run_id", ""))


def _is_not_over(table: Any) -> Any:
    return table.state.is_(None) | table.state.not_in(sorted(FINISHED))
