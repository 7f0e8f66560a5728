"""How what Skyvern says becomes what Airflow does: shared by the operator and the sensor."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_skyvern import compat
from airflow_skyvern.exceptions import SkyvernError, SkyvernRunError, SkyvernWaitTimeout

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_skyvern.models import Run
    from airflow_skyvern.runs.event import RunEvent
    from airflow_skyvern.runs.wait import Log

APP_URL_KEY = "app_url"
RUN_ID_KEY = "run_id"
PAUSED_KEY = "awaiting_person"
ON_KILL_KEY = "cancel_on_kill"

BACKSTOP = timedelta(minutes=5)
"""How long after our own deadline Airflow ends a deferral whose trigger said nothing."""

EXECUTION_MARGIN = timedelta(seconds=30)
"""How long before ``execution_timeout`` we stop waiting, so that there is time to cancel the run."""

FETCH_GRACE = 300.0
"""Seconds that a worker goes on trying to fetch the result of a run that is known to be over."""


@contextmanager
def no_retry_for_permanent_errors() -> Iterator[None]:
    """
    Turn errors that no retry can cure into :class:`AirflowFailException`.

    These are a wrong key, an unknown workflow or run, a request that Skyvern does not accept, no credit, and
    a wrong connection or argument. Everything else keeps its type, and the task its retries.
    """
    try:
        yield
    except (SkyvernRunError, SkyvernWaitTimeout):
        raise
    except SkyvernError as error:
        if error.transient:
            raise
        raise AirflowFailException(str(error)) from error


def publish(context: Context, run: Run) -> None:
    """Push the run's id and its address in Skyvern, so that links and other tasks have them from now on."""
    ti = context["ti"]
    ti.xcom_push(key=RUN_ID_KEY, value=run.run_id)
    if run.app_url:
        ti.xcom_push(key=APP_URL_KEY, value=run.app_url)


def publish_what_to_cancel(context: Context, skyvern_conn_id: str, group: str | None) -> None:
    """
    Push how the API server finds the task's run when a user marks the task, before anything is started.

    Airflow 2 has nobody who would read it.

    :param group: The tag of the task's attempt group; None where no tags are sent.
    """
    if compat.is_airflow_3():
        context["ti"].xcom_push(key=ON_KILL_KEY, value={"skyvern_conn_id": skyvern_conn_id, "group": group})


def published_run_id(context: Context) -> str | None:
    """Return the run id that this task has pushed before it was deferred."""
    ti = context["ti"]
    run_id = ti.xcom_pull(task_ids=ti.task_id, key=RUN_ID_KEY, map_indexes=compat.map_index_for_lookups(ti))
    return run_id if isinstance(run_id, str) else None


def publish_pause(context: Context, run_id: str, where: str | None) -> None:
    """Push where a person is awaited, so that a notification or another task can send one there."""
    context["ti"].xcom_push(key=PAUSED_KEY, value={"run_id": run_id, "app_url": where})


def ended_by_user(context: Context) -> bool:
    """
    Tell whether a user has marked or cleared this running task, as far as Airflow says.

    The worker hears of that seconds later. A task that defers in between is just forgotten, with its run.
    """
    try:
        return compat.state_of_running_task(context["ti"]) not in (None, "running")
    except Exception:  # noqa: BLE001  not to know is how it was without asking
        return False


def map_index_of(ti: Any) -> int:
    """Return the task's place among its mapped twins, or -1."""
    return -1 if ti.map_index is None else int(ti.map_index)


def started_at(dag_run: Any) -> str:
    """Return when the DAG run has started, in one form on every Airflow."""
    start = dag_run.start_date
    return start.astimezone(timezone.utc).isoformat() if start else ""


def deadline_after(now: float, timeout: timedelta | float, execution_timeout: timedelta | None) -> float:
    """
    Return the end of a wait in seconds since the epoch: the earlier of both limits.

    Airflow 3 does not enforce ``execution_timeout`` while a task is deferred, and Airflow 2 does it without
    calling any code of ours, so we stop before it: 30 s, at most half of it.
    """
    limit = timeout if isinstance(timeout, timedelta) else timedelta(seconds=timeout)
    if execution_timeout is not None:
        limit = min(limit, execution_timeout - min(EXECUTION_MARGIN, execution_timeout / 2))
    return now + limit.total_seconds()


def backstop_of(deadline: float) -> timedelta:
    """Return Airflow's own timeout for a deferral whose trigger ends at this point in time."""
    return timedelta(seconds=max(0.0, deadline - time.time())) + BACKSTOP


def deadline_to_look(event: RunEvent, deadline: float, log: Log) -> float:
    """Return how long a resumed worker may look; a run that is over has a result to fetch, whatever the time."""
    if event["reason"] == "error":
        log.warning("The triggerer gave up, this worker looks itself. %s", event["message"])
    return max(deadline, time.time() + FETCH_GRACE) if event["reason"] == "ended" else deadline
