"""
What differs between Airflow versions, and what is read of Airflow's internals: all of it, and nothing else.

Each function says which versions it is for, so that it can go when they go. Nothing is imported before it is needed:
the DAG processor and Airflow's command line load this module.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from inspect import signature
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path
    from uuid import UUID

    from airflow.triggers.base import BaseTrigger, TriggerEvent
    from sqlalchemy.orm import Session

    from airflow_skyvern.compat.sdk import Connection, Context

FIRST_POLL_DELAY = 8.0
"""
Seconds before the first poll for a task that a worker has deferred; for Airflow 3.

Airflow 3 may notice up to 5 s late (``[workers] min_heartbeat_interval``) that the process of such a task has ended.
If the task is resumed before that, Airflow assumes that the process crashed and fails the task: measured in 5 of 30
runs with 3 s, in 0 of 45 with 8 s.
"""


DEFAULT_UI_ADDRESS = "http://localhost:8080"

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "0.0.0.0", "::1"})  # noqa: S104  nothing listens there for us


@cache
def is_airflow_3() -> bool:
    """Return whether this is Airflow 3."""
    from airflow import __version__

    return not __version__.startswith("2.")


@cache
def stats() -> Any:
    """
    Return what writes Airflow's metrics: ``incr``, ``gauge``, ``timing``.

    From 3.2 on the task SDK has metrics of its own, which Airflow prepares in tasks and not in the triggerer.
    """
    try:
        from airflow.sdk.observability.stats import Stats
    except ImportError:
        from airflow.stats import Stats
    else:
        _prepare_stats(Stats)
    return Stats


def _prepare_stats(stats: Any) -> None:
    """Set what Airflow's own processes set; its factory takes an argument in 3.2 only, ``initialize`` one in 3.3."""
    from airflow.sdk.configuration import conf
    from airflow.sdk.observability.metrics import stats_utils

    state = import_module("airflow.sdk._shared.observability.metrics.stats")
    if (state._factory if hasattr(state, "_factory") else stats.factory) is not None:  # noqa: SLF001  no public one
        return
    make_factory: Any = stats_utils.get_stats_factory
    factory = make_factory(*([stats] if signature(make_factory).parameters else []))
    legacy = {"export_legacy_names": conf.getboolean("metrics", "legacy_names_on")}
    stats.initialize(
        factory=factory, **(legacy if "export_legacy_names" in signature(stats.initialize).parameters else {})
    )


def hostname() -> str:
    """Return the name that Airflow gives this machine, in letters that every metrics backend takes."""
    from airflow.utils.net import get_hostname

    return re.sub(r"[^\w.-]", "_", get_hostname(), flags=re.ASCII)


# What a running task may ask.


def state_of_running_task(ti: Any) -> str | None:
    """
    Return the state that Airflow's database has of a task that is running here, or :data:`DELETED`.

    3.x has no method for it. On 2.11, ``airflow tasks test`` runs a task that never has a row.

    :raises Exception: Airflow does not answer.
    """
    if not is_airflow_3():
        state: str | None = ti.current_state()
        return _stored_state(ti) if state is None and not getattr(ti, "test_mode", False) else state
    states = ti.get_task_states(
        ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=map_index_for_lookups(ti)
    )
    return _only_state(states, ti.run_id)


def _only_state(states: Mapping[str, Mapping[str, str | None]], run_id: str) -> str | None:
    """Read Airflow's answer about one task instance: it leaves out those without a row, and has null for no state."""
    return next(iter(states.get(run_id, {}).values()), DELETED)


def _stored_state(ti: Any) -> str | None:
    """Read the state from the database; for 2.11, where workers and triggers may."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session

    names = ("dag_id", "run_id", "task_id", "map_index")
    with create_session() as session:
        query = session.query(TaskInstance.task_id, TaskInstance.state)
        row = query.filter_by(**{name: getattr(ti, name) for name in names}).one_or_none()
    return DELETED if row is None else row[1]


DELETED = "deleted"
"""
What stands for the state of a task instance that has no row: somebody has deleted its DAG, its DAG run or itself.

A row without a state is another thing: Airflow takes the state away from tasks whose scheduler has died, and runs
them again.
"""

ENDED_BY_USER = frozenset({"failed", "success", "skipped", "removed", "restarting", DELETED})
"""
The states that a user gives to a task that is running or deferred: marked, its task deleted, or cleared
(``restarting``, on all versions). Every other state is a step of Airflow's own: a task that is ``queued`` or
``scheduled`` is about to be resumed or retried; on 2.11 it is so also while ``airflow dags test`` runs it.
"""


def map_index_for_lookups(ti: Any) -> int | None:
    """Return the map index as Airflow's look-ups take it: None for a task that is not mapped."""
    return ti.map_index if ti.map_index is not None and ti.map_index >= 0 else None


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


def task_state_store(context: Context) -> Any:
    """Return what outlives a try of this task; None below 3.3, where there is no such thing."""
    return context.get("task_state_store")


def airflow_base_url() -> str:
    """Return the address by which this Airflow is told from others, or nothing if it has none of its own."""
    address = airflow_ui_address()
    return "" if is_loopback(address) else address


def airflow_ui_address() -> str:
    """
    Return the address of Airflow's UI; where none is configured, the one on this machine, as Airflow's own links do.

    2.11 has it in another section.
    """
    from airflow_skyvern.compat.sdk import conf

    return (
        str(conf.get("api" if is_airflow_3() else "webserver", "base_url", fallback="") or "") or DEFAULT_UI_ADDRESS
    )


def is_loopback(address: str) -> bool:
    """Return whether only this machine reaches an address."""
    return urlsplit(address).hostname in LOCAL_HOSTS


def installation() -> str:
    """Return the name by which the runs of this Airflow are told from those of others, or nothing if it has none."""
    from airflow_skyvern.compat.sdk import conf

    return str(conf.get("skyvern", "installation", fallback="") or "") or airflow_base_url()


def run_type_of(dag_run: Any) -> str:
    """Return the type of a DAG run as text: 3.x gives an enum, 2.11 a text."""
    return str(getattr(dag_run.run_type, "value", dag_run.run_type))


def timetable_zone(timetable: Any) -> Any:
    """
    Return the time zone of a timetable, or None if it has none of its own.

    3.1 and newer have timetables of their own in DAG files, with ``timezone``; the others have ``_timezone``. A
    timetable that is made of several, or of one and assets, has that of the first.
    """
    for name in ("timezone", "_timezone"):
        if zone := getattr(timetable, name, None):
            return zone
    several = getattr(timetable, "timetables", None) or getattr(timetable, "_timetables", None) or ()
    parts = [*several, getattr(timetable, "timetable", None)]
    return next((zone for part in parts if part is not None and (zone := timetable_zone(part))), None)


def timed_out_by_airflow() -> bool:
    """
    Return whether ``on_kill`` is called because ``execution_timeout`` is over, and not by a signal.

    Airflow calls it while it handles its own exception, which is the same class on all versions.
    """
    from airflow_skyvern.compat.sdk import AirflowTaskTimeout

    return isinstance(sys.exc_info()[1], AirflowTaskTimeout)


def current_context() -> Context | None:
    """
    Return the context of the task that this process executes, or None.

    Airflow may call ``on_kill`` of a task that knows nothing yet: while its templates are rendered, and on 2.11 when
    its ``execution_timeout`` was over before it was resumed.
    """
    from airflow_skyvern.compat.sdk import AirflowException, get_current_context

    try:
        return get_current_context()
    except (AirflowException, RuntimeError):
        return None


def is_executed(context: Mapping[str, Any]) -> bool:
    """Return whether this process executes the task of a context, and does not render its templates for a page."""
    current = current_context()
    return current is not None and current.get("ti") is context.get("ti")


def refuses_retry(task: Any, error: BaseException, ti: Any) -> bool:
    """Return whether the task's retry policy fails it for good after this error; there are policies from 3.3 on."""
    policy = getattr(task, "retry_policy", None)
    if policy is None:
        return False
    try:
        decision = policy.evaluate(exception=error, try_number=ti.try_number, max_tries=ti.max_tries, context=None)
    except Exception:  # noqa: BLE001  the author's own code; Airflow ignores a policy that raises
        return False
    return str(getattr(decision.action, "value", decision.action)).lower() == "fail"


def deferral_of(ti: Any) -> tuple[str | None, Any]:
    """Return the method by which a task is resumed, and its arguments as they are stored; 3.x has no public way."""
    source = getattr(ti, "_ti_context_from_server", None) if is_airflow_3() else ti
    return getattr(source, "next_method", None), getattr(source, "next_kwargs", None)


def deferral_timed_out(next_kwargs: Mapping[str, Any] | None) -> bool:
    """
    Return whether a deferral without an event ended because of Airflow's timeout.

    The other reason is that the trigger failed: its class could not be loaded during a deployment, or it raised. 2.11
    writes "Trigger/execution timeout", 3.x "Trigger timeout".
    """
    return "timeout" in str((next_kwargs or {}).get("error", "")).lower()


# A person's answer in Airflow, "Required Actions": from 3.1 on.


def has_required_actions() -> bool:
    """Tell whether a task can ask a person in Airflow; from 3.1 on."""
    return is_airflow_3() and find_spec("airflow.sdk.execution_time.hitl") is not None


def answers_resume_tasks() -> bool:
    """Tell whether Airflow itself resumes a deferred task with a person's answer; from 3.3 on."""
    return renders_trigger_arguments()


def ask_person(ti_id: UUID, *, options: list[str], subject: str, body: str) -> None:
    """
    Show a request in Required Actions.

    There is one per try: a second one opens the first again if that was answered, with the text of the first.
    """
    from airflow.sdk.execution_time.hitl import upsert_hitl_detail

    upsert_hitl_detail(
        ti_id=ti_id, options=options, subject=subject, body=body, defaults=None, multiple=False, params={}
    )


def answer_of_person(ti_id: UUID) -> Any:
    """
    Return a person's response to a request, or None: ``chosen_options``, ``responded_by_user``, ``responded_at``.

    One by nobody is how :func:`close_request` closes a request; another triggerer may have done so.

    Triggers only: Airflow answers no such question of a worker.

    :raises Exception: there is no request, as after a clear, or Airflow does not answer.
    """
    from airflow.sdk.execution_time.hitl import get_hitl_detail_content_detail

    detail = get_hitl_detail_content_detail(ti_id=ti_id)
    return detail if detail.response_received and detail.responded_by_user else None


def close_request(ti_id: UUID, answer: str) -> None:
    """
    Answer a request in nobody's name, so that no person need answer it any more; in triggers only, as above.

    :raises Exception: there is none, it is answered already, or Airflow does not answer.
    """
    from airflow.sdk.execution_time.hitl import update_hitl_detail_response

    update_hitl_detail_response(ti_id=ti_id, chosen_options=[answer], params_input={})


def hitl_entity() -> Any:
    """Return what Airflow's authorization calls a request to a person; in the API server."""
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity

    return DagAccessEntity.HITL_DETAIL


def task_page(ti: Any) -> str:
    """Return the address of a task instance's page in Airflow, at the tab of its run if it has one."""
    address = airflow_ui_address()
    if not is_airflow_3():
        return str(ti.log_url)
    mapped = f"/mapped/{ti.map_index}" if map_index_for_lookups(ti) is not None else ""
    page = "{}/dags/{}/runs/{}/tasks/{}".format(address.rstrip("/"), *_quoted_ids(ti)) + mapped
    return f"{page}/plugin/skyvern" if shows_external_views() else page


def picture_address(ti: Any, artifact_id: str) -> str:
    """Return the address of a screenshot as the page of a task instance's run has it; or nothing without a page."""
    if not shows_external_views():
        return ""
    address = airflow_ui_address()
    page = "{}/skyvern/ti/{}/{}/{}".format(address.rstrip("/"), *_quoted_ids(ti))
    map_index = -1 if map_index_for_lookups(ti) is None else ti.map_index
    return f"{page}/{map_index}/tries/{ti.try_number}/pictures/{quote(artifact_id, safe='')}"


def _quoted_ids(ti: Any) -> list[str]:
    return [quote(part, safe="") for part in (ti.dag_id, ti.run_id, ti.task_id)]


# What a trigger may ask.


async def get_connection(conn_id: str) -> Connection:
    """
    Read a connection from an event loop.

    Airflow's own async way is not there on 2.11 and 3.0, blocks other reads before 3.3.2, and finds no connection in
    ``airflow dags test`` of 3.3.2. The blocking way in a thread works on all versions.
    """
    from asgiref.sync import sync_to_async

    from airflow_skyvern.compat.sdk import BaseHook

    connection: Connection = await sync_to_async(BaseHook.get_connection)(conn_id)
    return connection


def renders_trigger_arguments() -> bool:
    """Return whether a task can start in the triggerer with templates; from 3.3 on."""
    from airflow.triggers.base import BaseTrigger

    return hasattr(BaseTrigger, "render_template_fields")


def airflows_timeout(trigger: BaseTrigger) -> datetime | None:
    """Return when Airflow ends the deferral of a trigger; from 3.3 on."""
    when: datetime | None = getattr(trigger, "timeout_after", None)
    return when


def asset_state_store(trigger: BaseTrigger) -> Any:
    """Return what a watcher may keep for its asset; None below 3.3, where there is no such thing."""
    return getattr(trigger, "asset_state_store", None)


def task_success_event() -> TriggerEvent:
    """Return the event that ends a task as succeeded in the triggerer; where tasks start there, from 3.3 on."""
    from airflow.triggers.base import TaskSuccessEvent

    return TaskSuccessEvent()


def task_skipped_event() -> TriggerEvent:
    """Return the event that ends a task as skipped; see :func:`task_success_event`."""
    from airflow.triggers.base import TaskSkippedEvent

    return TaskSkippedEvent()


def task_failed_event() -> TriggerEvent:
    """Return the event that ends a task as failed; see :func:`task_success_event`."""
    from airflow.triggers.base import TaskFailedEvent

    return TaskFailedEvent()


def calls_on_kill() -> bool:
    """Return whether Airflow notifies a trigger whose task was ended; from 3.3 on. Below, it only cancels it."""
    from airflow.triggers.base import BaseTrigger

    return hasattr(BaseTrigger, "on_kill")


def triggerers_main_task() -> asyncio.Task[Any] | None:
    """Return the asyncio task that runs the triggerer: when it is done, the triggerer is shutting down."""
    from asyncio import all_tasks, get_running_loop

    loop = get_running_loop()
    if loop not in _TRIGGERERS:
        tasks = (task for task in all_tasks() if getattr(task.get_coro(), "__qualname__", "") == TRIGGERER)
        _TRIGGERERS[loop] = next(tasks, None)
    return _TRIGGERERS[loop]


TRIGGERER = "TriggerRunner.arun"
"""The coroutine of the triggerer, from 2.11 to 3.3."""

_TRIGGERERS: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[Any] | None] = WeakKeyDictionary()


async def state_of_deferred_task(ti: Any) -> str | None:
    """
    Return the state of a trigger's task, or :data:`DELETED`; asked from the triggerer.

    :raises Exception: Airflow does not answer.
    """
    from asgiref.sync import sync_to_async

    if not is_airflow_3():
        return await sync_to_async(_stored_state)(ti)
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    states: dict[str, Any] = await sync_to_async(RuntimeTaskInstance.get_task_states)(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
    )
    return _only_state(states, ti.run_id)


async def xcom_of_deferred_task(ti: Any, key: str) -> Any:
    """Return an XCom that a trigger's task has pushed, asked from the triggerer."""
    from asgiref.sync import sync_to_async

    from airflow_skyvern.compat.sdk import XCom

    return await sync_to_async(XCom.get_one)(
        key=key, dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index
    )


# What Airflow masks.


def redactor() -> Callable[[str], Any]:
    """
    Return what masks in a text whatever Airflow has registered as a secret: passwords of connections, variables.

    The masker's module moved in 3.0 and in 3.1, and each process of Airflow uses one of them.
    """
    homes = ("sdk._shared.secrets_masker", "sdk.execution_time.secrets_masker", "utils.log.secrets_masker")
    home = next(home for home in homes if module_exists(f"airflow.{home}"))
    redact: Callable[[str], Any] = import_module(f"airflow.{home}")._secrets_masker().redact  # noqa: SLF001
    return redact


def mask_secret(secret: str) -> None:
    """
    Let Airflow mask a value from now on: in logs, among rendered templates, and in what :func:`redactor` gets.

    The function moved in 3.0 and in 3.1.
    """
    homes = ("sdk.log", "sdk.execution_time.secrets_masker", "utils.log.secrets_masker")
    home = next(
        home
        for home in homes
        if module_exists(f"airflow.{home}") and hasattr(import_module(f"airflow.{home}"), "mask_secret")
    )
    import_module(f"airflow.{home}").mask_secret(secret)


def module_exists(module: str) -> bool:
    """Return whether there is a module of this name, without importing it."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it does not exist
        return False


def sensitive_names() -> frozenset[str]:
    """Return the parts of names that this installation calls secret, besides Airflow's own list."""
    from airflow_skyvern.compat.sdk import conf

    names = conf.get("core", "sensitive_var_conn_names", fallback="") or ""
    return frozenset(name.strip().lower() for name in names.split(",") if name.strip())


# What is only known when a task runs.


def is_reference(value: Any) -> bool:
    """Return whether a value is an XCom of another task, or made of one: the marker is the same from 2.11 on."""
    return hasattr(value, "iter_references")


# Airflow's processes and its database.


def in_api_server() -> bool:
    """
    Return whether this process is Airflow's API server; from 3.0 on.

    A listener anywhere else would forbid ``end_from_trigger=True`` to every DAG of the installation: Airflow
    refuses it where the DAG processor has listeners.
    """
    return "airflow.api_fastapi.main" in sys.modules


def in_scheduler() -> bool:
    """
    Return whether this process is Airflow's scheduler, and none that it has started: a worker, 2.11's DAG processor.

    A listener in a DAG processor would forbid ``end_from_trigger=True``, see :func:`in_api_server`.
    """
    return sys.argv[1:2] == ["scheduler"] and multiprocessing.parent_process() is None


def forget_listener_in_children(listener: Any) -> None:
    """Let no process that this one forks have a listener: workers of a LocalExecutor, the DAG processor of 2.11."""

    def forget() -> None:
        from airflow.listeners.listener import get_listener_manager

        manager: Any = get_listener_manager()
        if manager.pm.is_registered(listener):
            manager.pm.unregister(listener)

    os.register_at_fork(after_in_child=forget)


def in_dag_processor() -> bool:
    """Return whether this process parses files for a DAG processor, which forks it; from 3.0 on."""
    return "dag-processor" in sys.argv


def airflow_home() -> str:
    """Return the folder that Airflow keeps its own files in."""
    from airflow.configuration import AIRFLOW_HOME

    return str(AIRFLOW_HOME)


def is_dag_file(module: str) -> bool:
    """Return whether Airflow loads a module as a DAG file: it gives them names of their own, from 2.11 to 3.3."""
    return module.startswith("unusual_prefix_")


@cache
def shows_external_views() -> bool:
    """Tell whether this Airflow shows pages of plugins within its own; from 3.1 on."""
    from airflow import __version__

    return not __version__.startswith(("2.", "3.0."))


def read_connections_from_database() -> None:
    """Let a program of our own read connections as Airflow's command line does; 3.x asks an API server otherwise."""
    os.environ.setdefault("_AIRFLOW_PROCESS_CONTEXT", "server")


@contextmanager
def database_session() -> Iterator[Session]:
    """
    Open a session in Airflow's database; for the command line and threads of the scheduler.

    :raises SkyvernConfigError: the database cannot be read.
    """
    from airflow.utils.session import create_session
    from sqlalchemy.exc import SQLAlchemyError

    from airflow_skyvern.exceptions import SkyvernConfigError

    try:
        with create_session() as session:
            yield session
    except SQLAlchemyError as error:
        raise SkyvernConfigError(
            "Airflow's database cannot be read: run this where Airflow runs, with its AIRFLOW_HOME and settings. "
            f"{type(error).__name__}: {str(error).splitlines()[0]}"
        ) from None


def dag_bag(path: Path) -> Any:
    """Parse a DAG file, or a folder of them: the class moved in 3.1, and lost its examples in 3.2."""
    package = "dag_processing" if find_spec("airflow.dag_processing.dagbag") else "models"
    kind = import_module(f"airflow.{package}.dagbag").DagBag
    more = {"include_examples": False} if "include_examples" in signature(kind).parameters else {}
    return kind(dag_folder=str(path), **more)


def is_present(dag_model: Any) -> bool:
    """Return whether Airflow still finds a DAG: ``is_stale`` since 3.0, ``is_active`` before."""
    return not dag_model.is_stale if hasattr(dag_model, "is_stale") else bool(dag_model.is_active)


def scheduled_on(asset: Any) -> list[Any]:
    """Return which DAGs the events of an asset start: ``scheduled_dags``, on 3.0 ``consuming_dags``."""
    references: list[Any] = asset.scheduled_dags if hasattr(asset, "scheduled_dags") else asset.consuming_dags
    return references


def is_partitioned(dag_model: Any) -> bool:
    """Return whether a DAG is started once per partition of its assets; from 3.3 on."""
    return bool(getattr(dag_model, "timetable_partitioned", False))


def dag_import() -> str:
    """Return how a DAG file imports ``DAG``; what is written on 2.11 works on Airflow 3 too, without a warning."""
    return f"from airflow{'.sdk' if is_airflow_3() else ''} import DAG"


def connection_form_widgets(fields: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Make the fields of the connection form for Airflow versions that ask the hook: below 3.2."""
    from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
    from wtforms import BooleanField, StringField

    def widget(field: Mapping[str, Any]) -> Any:
        if "boolean" in field["schema"]["type"]:
            return BooleanField(field["label"], description=field["description"], default=True)
        return StringField(field["label"], description=field["description"], widget=BS3TextFieldWidget())

    return {name: widget(field) for name, field in fields.items()}


# What the API server, the scheduler and the command line read of XComs.


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
