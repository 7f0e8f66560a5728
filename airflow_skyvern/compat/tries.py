"""Reads Airflow's data about a try and its DAG run, from where each version has it."""

from __future__ import annotations

from contextlib import suppress
from enum import Enum
from http import HTTPStatus
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow_skyvern.compat import internals, since_3_0

if TYPE_CHECKING:
    from airflow_skyvern.compat.sdk import Context


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
    from airflow import settings
    from airflow.models.taskinstance import TaskInstance as TI  # noqa: N817  Airflow's own name for it
    from sqlalchemy import select

    if not isinstance(ti, TI) or ti.test_mode:
        return Standing.CURRENT
    rows = select(TI.try_number, TI.state, TI.job_id).where(
        TI.dag_id == ti.dag_id, TI.run_id == ti.run_id, TI.task_id == ti.task_id, TI.map_index == ti.map_index
    )
    assert settings.engine is not None
    with settings.engine.connect() as connection:  # not the session of the task, which may see the past only
        row = connection.execute(rows).one_or_none()
    if row is None:
        return Standing.CURRENT if ti.job_id is None else Standing.ENDED
    try_number, state, job_id = row
    if try_number != ti.try_number or str(job_id) != str(ti.job_id) or state == "up_for_retry":
        return Standing.OVERTAKEN
    return Standing.ENDED if state in ENDED_2 else Standing.CURRENT


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
