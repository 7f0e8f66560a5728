"""
Canceling the runs of deferred tasks that a user marks failed or succeeded, from Airflow's API server.

Airflow below 3.3 tells a trigger nothing, and 3.3 tells only one that a triggerer has at work at that moment. But
since 3.1 the API server, where the mark is made, says so to listeners.
"""

from __future__ import annotations

import logging
import threading
from contextlib import closing
from typing import TYPE_CHECKING, Any

from airflow.listeners import hookimpl

from airflow_skyvern.exceptions import SkyvernError

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun
    from airflow.models.taskinstance import TaskInstance

log = logging.getLogger(__name__)

DAG_RUN = ("dag_id", "run_id")
TASK = (*DAG_RUN, "task_id", "map_index")

TRIGGER = "airflow_skyvern.triggers.SkyvernRunTrigger"


@hookimpl
def on_task_instance_failed(task_instance: TaskInstance) -> None:
    """Cancel the run of a deferred task that was marked failed."""
    _cancel_waits(task_instance, *TASK)


@hookimpl
def on_task_instance_success(task_instance: TaskInstance) -> None:
    """Cancel the run of a deferred task that was marked as succeeded."""
    _cancel_waits(task_instance, *TASK)


@hookimpl(optionalhook=True)
def on_task_instance_skipped(task_instance: TaskInstance) -> None:
    """Cancel the run of a deferred task that was marked as skipped."""
    _cancel_waits(task_instance, *TASK)


@hookimpl
def on_dag_run_failed(dag_run: DagRun) -> None:
    """Cancel the runs of the deferred tasks of a DAG run that was marked failed."""
    _cancel_waits(dag_run, *DAG_RUN)


@hookimpl
def on_dag_run_success(dag_run: DagRun) -> None:
    """Cancel the runs of the deferred tasks of a DAG run that was marked as succeeded."""
    _cancel_waits(dag_run, *DAG_RUN)


def _cancel_waits(marked: Any, *columns: str) -> None:
    """Cancel the runs that ended task instances like this one still wait for; each in a thread, as it takes time."""
    from airflow.models.taskinstance import TaskInstance as TI  # noqa: PLC0415, N817  the API server has them loaded
    from airflow.models.trigger import Trigger  # noqa: PLC0415
    from airflow.utils.state import State  # noqa: PLC0415
    from sqlalchemy import select  # noqa: PLC0415
    from sqlalchemy.orm import object_session  # noqa: PLC0415

    session = object_session(marked)
    if session is None:
        return
    waits = session.scalars(
        select(Trigger)
        .join(TI, TI.trigger_id == Trigger.id)
        .where(Trigger.classpath == TRIGGER, TI.state.in_(State.finished))
        .where(*(getattr(TI, column) == getattr(marked, column) for column in columns))
    )
    for kwargs in [wait.kwargs for wait in waits]:
        if kwargs.get("cancel_on_kill"):
            threading.Thread(
                target=cancel_marked,
                args=(kwargs["run_id"], kwargs["skyvern_conn_id"]),
                name=f"cancel {kwargs['run_id']}",
                daemon=True,
            ).start()


def cancel_marked(run_id: str, skyvern_conn_id: str) -> None:
    """Cancel a run whose task a user has ended, also when Skyvern cannot be reached for minutes."""
    from airflow.providers.common.compat.sdk import AirflowNotFoundException  # noqa: PLC0415

    from airflow_skyvern.hooks import SkyvernHook  # noqa: PLC0415
    from airflow_skyvern.killing import PERSISTENCE, cancel_and_look  # noqa: PLC0415

    try:
        with closing(SkyvernHook(skyvern_conn_id)) as hook:
            run = cancel_and_look(hook, run_id, PERSISTENCE)
        log.info("Skyvern run %s: told to cancel, as a user ended its task; it is %s", run_id, run.status)
    except (SkyvernError, AirflowNotFoundException) as error:
        log.error("Skyvern run %s may still be running. %s", run_id, error)  # noqa: TRY400  it says all
