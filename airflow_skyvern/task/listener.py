"""
Cancels the runs of tasks that a user marks failed or succeeded, from Airflow's API server.

A worker that is notified of the mark has five seconds to cancel. A deferred task has no process at all: Airflow below
3.3 does not notify its trigger, and 3.3 notifies only a trigger that is running at that moment; between two tries
nothing runs. But since 3.1 the API server, where the mark is made, calls listeners, and nothing limits their time.
"""

from __future__ import annotations

import logging
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

from airflow_skyvern.exceptions import SkyvernError
from airflow_skyvern.task import xcom

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance

log = logging.getLogger(__name__)

DAG_RUN = ("dag_id", "run_id")
TASK = (*DAG_RUN, "task_id", "map_index")


@hookimpl
def on_task_instance_failed(task_instance: TaskInstance) -> None:
    """Cancel the run of a task that was marked failed."""
    _cancel_runs(task_instance, *TASK)


@hookimpl
def on_task_instance_success(task_instance: TaskInstance) -> None:
    """Cancel the run of a task that was marked as succeeded."""
    _cancel_runs(task_instance, *TASK)


@hookimpl(optionalhook=True)
def on_task_instance_skipped(task_instance: TaskInstance) -> None:
    """Cancel the run of a task that was marked as skipped."""
    _cancel_runs(task_instance, *TASK)


@hookimpl
def on_dag_run_failed(dag_run: DagRun) -> None:
    """Cancel the runs of the tasks of a DAG run that was marked failed."""
    _cancel_runs(dag_run, *DAG_RUN)


@hookimpl
def on_dag_run_success(dag_run: DagRun) -> None:
    """Cancel the runs of the tasks of a DAG run that was marked as succeeded."""
    _cancel_runs(dag_run, *DAG_RUN)


def _cancel_runs(marked: Any, *columns: str) -> None:
    """Cancel the active runs of the finished tasks that share these columns, in threads: it may take minutes."""
    from airflow.models.taskinstance import TaskInstance as TI  # noqa: N817  the API server has them loaded
    from airflow.models.xcom import XComModel
    from airflow.utils.state import State
    from sqlalchemy import and_, select
    from sqlalchemy.orm import object_session

    session = object_session(marked)
    if session is None:
        return
    same_task = and_(*(getattr(TI, column) == getattr(XComModel, column) for column in TASK))
    rows = session.scalars(
        select(XComModel)
        .join(TI, same_task)
        .where(TI.state.in_(State.finished), XComModel.key.in_([xcom.CONNECTION_AND_RUN_KEY, xcom.RUN_ID]))
        .where(*(getattr(TI, column) == getattr(marked, column) for column in columns))
    )
    pushed: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        pushed.setdefault((row.task_id, row.map_index), {})[row.key] = XComModel.deserialize_value(row)
    for values in pushed.values():
        if isinstance(to_cancel := values.get(xcom.CONNECTION_AND_RUN_KEY), dict):
            threading.Thread(
                target=cancel_marked,
                args=(to_cancel["skyvern_conn_id"], values.get(xcom.RUN_ID), to_cancel["group"]),
                name="cancel a Skyvern run",
                daemon=True,
            ).start()


def cancel_marked(skyvern_conn_id: str, run_id: str | None, group: str | None) -> None:
    """Cancel the run of a task that a user has ended, if it is active, and log the result."""
    from airflow.providers.common.compat.sdk import AirflowNotFoundException

    from airflow_skyvern.hooks import SkyvernHook
    from airflow_skyvern.runs.cancel import cancel_what_is_left

    try:
        with closing(SkyvernHook(skyvern_conn_id)) as hook:
            run = cancel_what_is_left(hook, run_id, group)
    except (SkyvernError, AirflowNotFoundException) as error:
        where = run_id or "(its start was not answered)"
        log.error("Skyvern run %s may still be running. %s", where, error)  # noqa: TRY400  it says all
        return
    if run is not None:
        log.info("Skyvern run %s: cancel requested, as a user ended its task; it is %s", run.run_id, run.status)
