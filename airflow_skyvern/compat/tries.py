"""Reads Airflow's data about a try and its DAG run, from where each version has it."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from enum import Enum
from http import HTTPStatus
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow_skyvern.compat import internals, since_3_0

if TYPE_CHECKING:
    from airflow_skyvern.compat.sdk import Context

log = logging.getLogger(__name__)


class Standing(Enum):
    """How Airflow regards a running try."""

    CURRENT = "the task's current try"
    ENDED = "the last one: the task has been ended or deleted, and no other try has its run"
    OVERTAKEN = "given up for another try, which has the run"


ENDED_2 = internals.ENDED_BY_USER | {"upstream_failed"}
"""
The states in 2.11 of a task instance that nobody runs and nobody will retry by itself. ``airflow dags test`` leaves
those that run ``scheduled``.
"""

NO_LONGER = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
"""
The answers of Airflow's API server to a try that was overtaken: its id is not there any more, or its token has
expired, which a supervisor that runs renews in time.
"""


def standing(ti: Any) -> Standing:
    """
    Ask Airflow how it regards a running try; the current one, for anything that is not Airflow's own object.

    Costs one request. 3.x gives each try its own id, and forgets it when the try is given up; of what a task may ask
    its API server, on all versions, one question names the try by that id. It does not say what a user has done, so
    there a try of a task that was marked may be called the current one.

    :raises Exception: Airflow does not answer.
    """
    return _standing_3(ti) if since_3_0.is_airflow_3() else _standing_2(ti)


def _standing_3(ti: Any) -> Standing:
    task_runner = import_module("airflow.sdk.execution_time.task_runner")
    if not isinstance(ti, task_runner.RuntimeTaskInstance):
        return Standing.CURRENT
    comms = import_module("airflow.sdk.execution_time.comms")
    status = _refusal(task_runner, comms.ValidateInletsAndOutlets(ti_id=ti.id))
    if status is None:
        return Standing.CURRENT
    if status in NO_LONGER:
        return Standing.ENDED if _is_deleted(ti) else Standing.OVERTAKEN
    # The question has more in it than we need: below 3.3 it fails where Airflow has no version of the DAG any more.
    state = since_3_0.state_of_running_task(ti)
    if state in internals.ENDED_BY_USER:
        return Standing.ENDED
    return Standing.CURRENT if state == "running" else Standing.OVERTAKEN


def _is_deleted(ti: Any) -> bool:
    """Return whether no other try can have taken over, because the task instance has no row."""
    with suppress(Exception):  # as the token is no longer taken
        return bool(since_3_0.state_of_running_task(ti) == internals.DELETED)
    return False


def _refusal(task_runner: Any, message: Any) -> int | None:
    """
    Send a message to the supervisor; return the HTTP status with which the API server refused it, if it did.

    Below 3.2 nothing keeps two threads from reading one another's answers.
    """
    try:
        answer = _answer(task_runner, message)
    except Exception as error:
        if (status := _status_of(error)) is None:
            raise
        return status
    status = _status_of(answer)
    if status is None and not hasattr(answer, "inactive_assets"):
        raise RuntimeError(f"Airflow answered another question: {type(answer).__name__}")
    return status


def _answer(task_runner: Any, message: Any) -> Any:
    """Return the supervisor's answer; 3.0 asks in another way, and returns errors instead of raising them."""
    supervisor = task_runner.SUPERVISOR_COMMS
    if hasattr(supervisor, "send"):
        return supervisor.send(msg=message)
    with supervisor.lock:
        supervisor.send_request(log=task_runner.structlog.get_logger(), msg=message)
        return supervisor.get_message()


def _status_of(answer: Any) -> int | None:
    """Read the status out of an error: of the supervisor, raised or not, or of the client that `dag.test()` uses."""
    if (response := getattr(answer, "response", None)) is not None:
        return int(response.status_code)
    detail = getattr(getattr(answer, "error", answer), "detail", None)
    status = detail.get("status_code") if isinstance(detail, dict) else None
    return None if status is None else int(status)


def _standing_2(ti: Any) -> Standing:
    from airflow.models.taskinstance import TaskInstance as TI  # noqa: N817  Airflow's own name for it
    from sqlalchemy import select

    if not _is_in_database(ti):
        return Standing.CURRENT
    row = _row(select(TI.try_number, TI.state, TI.job_id).where(*_is_of(TI, ti)))
    if row is None:
        return Standing.CURRENT if ti.job_id is None else Standing.ENDED
    try_number, state, job_id = row
    if try_number != ti.try_number or str(job_id) != str(ti.job_id) or state == "up_for_retry":
        return Standing.OVERTAKEN
    return Standing.ENDED if state in ENDED_2 else Standing.CURRENT


def was_executed_before(ti: Any) -> bool:
    """
    Return whether Airflow has failed a try of this number before, so that this is its retry; on 2.11.

    Seen on an overloaded Airflow: it wrote the failed try into the row once more when the retry was queued already.
    """
    if since_3_0.is_airflow_3() or not _is_in_database(ti):
        return False
    from airflow.models.taskinstancehistory import TaskInstanceHistory as Earlier
    from sqlalchemy import select

    earlier = select(Earlier.try_number).where(*_is_of(Earlier, ti), Earlier.try_number == ti.try_number)
    return _row(earlier) is not None


def leave_task_to_other_try() -> None:
    """
    End this process without a word to Airflow if another try has taken over its task; on 2.11.

    2.11 writes the end of a try into the row that the tries of a task share, which would fail the other one. Later
    versions refuse it.
    """
    if since_3_0.is_airflow_3() or (context := internals.current_context()) is None:
        return
    ti: Any = context["ti"]
    with suppress(Exception):  # if the database does not answer, Airflow cannot write anything, either
        if _standing_2(ti) is Standing.OVERTAKEN and _has_own_process(ti):
            log.warning("Another try of this task has taken over. This one ends here, and Airflow is not told of it.")
            try:
                logging.shutdown()
            finally:
                os._exit(1)  # as Airflow ends this process itself, whose parent writes nothing about the task


def _has_own_process(ti: Any) -> bool:
    """Return whether nothing but a try is executed in this process; the executor for debugging has one for all."""
    from airflow.jobs.job import Job
    from sqlalchemy import select

    row = _row(select(Job.job_type).where(Job.id == ti.job_id))
    return row is not None and row[0] == "LocalTaskJob"


def _is_in_database(ti: Any) -> bool:
    """Return whether this is Airflow's own object, and not of a task that is only tried; on 2.11."""
    from airflow.models.taskinstance import TaskInstance

    return isinstance(ti, TaskInstance) and not ti.test_mode


def _is_of(model: Any, ti: Any) -> list[Any]:
    return [getattr(model, name) == getattr(ti, name) for name in ("dag_id", "run_id", "task_id", "map_index")]


def _row(query: Any) -> Any:
    """Read at most one row, not in the session of the task, which may see the past only."""
    from airflow import settings

    assert settings.engine is not None
    with settings.engine.connect() as connection:
        return connection.execute(query).one_or_none()


def dag_run_id(context: Context) -> str | None:
    """
    Return the database's name for a DAG run, which no other one with its ids has; on 2.11, where tasks know it.

    It stays when the DAG run is queued again, which changes its start.
    """
    dag_run: Any = context["dag_run"]
    number = None if since_3_0.is_airflow_3() else getattr(dag_run, "id", None)
    return None if number is None else f"{number}/{getattr(dag_run, 'creating_job_id', None)}"


def dag_run_created(context: Context) -> str:
    """
    Return what is fixed when a DAG run is made: after when it may run.

    To the microsecond for one that a user started; equal for the same scheduled run of two Airflows; from 3.0 on.
    """
    run_after: Any = getattr(context["dag_run"], "run_after", None)
    return str(run_after.isoformat()) if run_after is not None else ""
