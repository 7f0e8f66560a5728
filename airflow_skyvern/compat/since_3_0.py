"""Differences between Airflow 2.11 and 3.x. When support for 2.11 ends, one half of each function here goes."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow_skyvern.compat import internals

if TYPE_CHECKING:
    from airflow_skyvern.compat.sdk import Context

FIRST_POLL_DELAY = 8.0
"""
Seconds before the first poll for a task that a worker has deferred; for Airflow 3.

Airflow 3 may notice up to 5 s late (``[workers] min_heartbeat_interval``) that the process of such a task has ended.
If the task is resumed before that, Airflow assumes that the process crashed and fails the task: measured in 5 of 30
runs with 3 s, in 0 of 45 with 8 s.
"""

DEFAULT_UI_ADDRESS = "http://localhost:8080"


@cache
def is_airflow_3() -> bool:
    """Return whether this is Airflow 3."""
    from airflow import __version__

    return not __version__.startswith("2.")


def state_of_running_task(ti: Any) -> str | None:
    """
    Return the state that Airflow's database has of a task that is running here, or ``internals.DELETED``.

    3.x has no method for it. On 2.11, ``airflow tasks test`` runs a task that never has a row.

    :raises Exception: Airflow does not answer.
    """
    if not is_airflow_3():
        state: str | None = ti.current_state()
        return _stored_state(ti) if state is None and not getattr(ti, "test_mode", False) else state
    states = ti.get_task_states(
        ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=internals.map_index_for_lookups(ti)
    )
    return _only_state(states, ti.run_id)


def _only_state(states: Mapping[str, Mapping[str, str | None]], run_id: str) -> str | None:
    """Read Airflow's answer about one task instance: it leaves out those without a row, and has null for no state."""
    return next(iter(states.get(run_id, {}).values()), internals.DELETED)


def _stored_state(ti: Any) -> str | None:
    """Read the state from the database; for 2.11, where workers and triggers may."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    names = ("dag_id", "run_id", "task_id", "map_index")
    with create_session() as session:
        query = session.query(TaskInstance.task_id, TaskInstance.state)
        row = query.filter_by(**{name: getattr(ti, name) for name in names}).one_or_none()
    return internals.DELETED if row is None else row[1]


def interrupts_question() -> bool:
    """
    Return whether this is called in a signal handler that has interrupted a question of this process to Airflow.

    Another question would not be answered before that one; below 3.2 each would get the answer of the other.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == "airflow.sdk.execution_time.comms":
            return True
        frame = frame.f_back
    return False


def would_overwrite_mark() -> bool:
    """
    Return whether a user has ended the task that this process executes, and an error would give it another state.

    2.11 reads the state before it fails a task for an error of its own class, and for no other. 3.x refuses the state
    of a task that was marked.
    """
    if is_airflow_3() or (context := internals.current_context()) is None:
        return False
    with suppress(Exception):  # if the database does not answer, the author has to see the error itself
        return state_of_running_task(context["ti"]) in internals.ENDED_BY_USER
    return False


def was_rescheduled(context: Context) -> bool:
    """Return whether a sensor in the mode ``reschedule`` has polled before, in another process."""
    ti: Any = context["ti"]
    if is_airflow_3():
        counted = int(context.get("task_reschedule_count") or 0) > 0
        return counted or ti.get_first_reschedule_date(context) is not None
    from airflow.models.taskreschedule import TaskReschedule
    from airflow.utils.session import create_session

    with create_session() as session:
        return session.scalar(TaskReschedule.stmt_for_task_instance(ti).limit(1)) is not None


def airflow_base_url() -> str:
    """Return the address that identifies this Airflow, or an empty text if it only has a local one."""
    address = airflow_ui_address()
    return "" if internals.is_loopback(address) else address


def airflow_ui_address() -> str:
    """Return the address of Airflow's UI; by default the one on this machine, as in Airflow's own links."""
    return configured_base_url() or DEFAULT_UI_ADDRESS


def configured_base_url() -> str:
    """Return the address of Airflow's UI from its configuration, or an empty text."""
    from airflow_skyvern.compat.sdk import conf

    return str(conf.get(*base_url_setting(), fallback="") or "")


def base_url_setting() -> tuple[str, str]:
    """Return the section and the name of the setting that has the address of Airflow's UI."""
    return ("api" if is_airflow_3() else "webserver", "base_url")


def installation() -> str:
    """Return the name that identifies the runs of this Airflow, or an empty text if it has no name."""
    from airflow_skyvern.compat.sdk import conf

    return str(conf.get("skyvern", "installation", fallback="") or "") or airflow_base_url()


def run_type_of(dag_run: Any) -> str:
    """Return the type of a DAG run as text: 3.x gives an enum, 2.11 a text."""
    return str(getattr(dag_run.run_type, "value", dag_run.run_type))


def deferral_of(ti: Any) -> tuple[str | None, Any]:
    """Return the method by which a task is resumed, and its arguments as they are stored; 3.x has no public way."""
    source = getattr(ti, "_ti_context_from_server", None) if is_airflow_3() else ti
    return getattr(source, "next_method", None), getattr(source, "next_kwargs", None)


def keys_pushed_before(ti: Any) -> frozenset[str]:
    """
    Return under which keys this task instance had pushed XComs when Airflow started this process, and cleared them.

    Nothing on 2.11, and nothing in a task that is resumed: its XComs stay.
    """
    source = getattr(ti, "_ti_context_from_server", None) if is_airflow_3() else None
    return frozenset(getattr(source, "xcom_keys_to_clear", None) or ())


async def state_of_deferred_task(ti: Any) -> str | None:
    """
    Return the state of a trigger's task, or ``internals.DELETED``; asked from the triggerer.

    :raises Exception: Airflow does not answer.
    """
    if not is_airflow_3():
        return await internals.in_thread(_stored_state, ti)
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states: dict[str, Any] = await internals.in_thread(
        RuntimeTaskInstance.get_task_states,
        dag_id=ti.dag_id,
        task_ids=[ti.task_id],
        run_ids=[ti.run_id],
        map_index=ti.map_index,
    )
    return _only_state(states, ti.run_id)


def in_api_server() -> bool:
    """
    Return whether this process is Airflow's API server; from 3.0 on.

    A listener anywhere else would forbid ``end_from_trigger=True`` to every DAG of the installation: Airflow
    refuses it where the DAG processor has listeners.
    """
    return "airflow.api_fastapi.main" in sys.modules


def in_dag_processor() -> bool:
    """Return whether this process parses files for a DAG processor, which forks it; from 3.0 on."""
    return "dag-processor" in sys.argv


def read_connections_from_database() -> None:
    """Let a program of our own read connections as Airflow's command line does; 3.x asks an API server otherwise."""
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")


def is_present(dag_model: Any) -> bool:
    """Return whether Airflow still finds a DAG: ``is_stale`` since 3.0, ``is_active`` before."""
    return not dag_model.is_stale if hasattr(dag_model, "is_stale") else bool(dag_model.is_active)


def dag_import() -> str:
    """Return how a DAG file imports ``DAG``; files written on 2.11 also work on Airflow 3, without a warning."""
    return f"from airflow{'.sdk' if is_airflow_3() else ''} import DAG"


def xcom_table() -> Any:
    """Return the model of the table that XComs are in."""
    if is_airflow_3():
        from airflow.models.xcom import XComModel

        return XComModel
    from airflow.models.xcom import XCom

    return XCom


def read_xcom(row: Any) -> Any:
    """
    Return the value of a row of the table as the configured XCom backend reads it.

    Airflow 3's own backend would make objects of any class that the value names; what it has stored is JSON already.
    """
    from airflow_skyvern.compat.sdk import XCom

    if is_airflow_3():
        from airflow.sdk.bases.xcom import BaseXCom

        if XCom.deserialize_value is BaseXCom.deserialize_value:
            return row.value
    return XCom.deserialize_value(row)
