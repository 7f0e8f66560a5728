"""
Cancels the runs of tasks that a user marks failed or succeeded, from Airflow's API server.

A worker that is notified of the mark has five seconds to cancel. A deferred task has no process at all: Airflow below
3.3 does not notify its trigger, and 3.3 notifies only a trigger that is running at that moment; between two tries
nothing runs. But since 3.1 the API server, where the mark is made, calls listeners, and nothing limits their time.
"""

from __future__ import annotations

import logging
from contextlib import closing
from datetime import datetime, timedelta, timezone
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

from airflow_skyvern.exceptions import SkyvernError
from airflow_skyvern.task.cancellations import Cancellation, Cancellations
from airflow_skyvern.task.pushed import XCOMS_OF_RUN, KnownRun, of_changed_tasks, pushed_xcoms

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)

DAG_RUN = ("dag_id", "run_id")
TASK = (*DAG_RUN, "task_id", "map_index")

JUST_MARKED = timedelta(minutes=5)
"""
How long ago Airflow changed a task that counts as just marked: a run that ended long before is not fetched. The
clocks of two components may differ, and a task that ended by itself a moment ago costs one request.
"""


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
    """Cancel the active runs of the tasks with these columns that were just marked, once the mark is committed."""
    from airflow.utils.state import State
    from sqlalchemy import event
    from sqlalchemy.orm import object_session

    session = object_session(marked)
    if session is None:
        return
    since = datetime.now(timezone.utc) - JUST_MARKED
    ids = {column: getattr(marked, column) for column in columns}
    where = of_changed_tasks(since, State.finished, **ids)
    found = list(pushed_xcoms(session, XCOMS_OF_RUN, where).values())

    def committed(_: Session) -> None:
        while found:  # XCom backends may take requests: not in the transaction
            for run in KnownRun.all_of(found.pop()):
                if run.skyvern_conn_id is not None:
                    cancellations().add(Cancellation(run.skyvern_conn_id, marked.dag_id, run.run_id, run.group))

    def rolled_back(_: Session) -> None:
        found.clear()

    event.listen(session, "after_commit", committed)
    event.listen(session, "after_rollback", rolled_back)


def cancel_marked(work: Cancellation) -> None:
    """Cancel the run of a task that a user has ended, if it is active, and log the result."""
    from airflow_skyvern.compat.sdk import AirflowNotFoundException
    from airflow_skyvern.hooks import ServerHook
    from airflow_skyvern.runs.cancel import cancel_if_active

    try:
        with closing(ServerHook(work.skyvern_conn_id, dag_id=work.dag_id)) as hook:
            canceled = cancel_if_active(hook.send, work.run_id, work.group)
    except (SkyvernError, AirflowNotFoundException) as error:
        log.error("Skyvern run %s may still be running. %s", work, error)
        return
    for run in canceled:
        log.info("Skyvern run %s: cancel requested, as a user ended its task; it is %s", run.run_id, run.status)


@cache
def cancellations() -> Cancellations:
    """Return the queue of this process."""
    return Cancellations(cancel_marked)
