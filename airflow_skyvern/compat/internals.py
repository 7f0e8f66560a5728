"""
Access to Airflow's internals that are the same on all versions and have no public interface.

Nothing is imported before it is needed: the DAG processor and Airflow's command line load these modules.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

if TYPE_CHECKING:
    import asyncio

    from sqlalchemy.orm import Session

    from airflow_skyvern.compat.sdk import Context

T = TypeVar("T")
P = ParamSpec("P")

LOCAL_HOSTS = frozenset({"localhost", "127.0.0.1", "0.0.0.0", "::1"})  # noqa: S104  nothing listens there for us


def hostname() -> str:
    """Return Airflow's name for this machine, in characters that every metrics backend accepts."""
    from airflow.utils.net import get_hostname

    return re.sub(r"[^\w.-]", "_", get_hostname(), flags=re.ASCII)


DELETED = "deleted"
"""
The state of a task instance without a row: somebody has deleted its DAG, its DAG run or itself.

A row without a state is different: Airflow removes the state of tasks whose scheduler has died, and runs them again.
"""

ENDED_BY_USER = frozenset({"failed", "success", "skipped", "removed", "restarting", DELETED})
"""
The states that a user gives to a task that is running or deferred: marked, its task deleted, or cleared
(``restarting``, on all versions). Every other state is a step of Airflow's own: a task that is ``queued`` or
``scheduled`` is about to be resumed or retried; on 2.11 it is so also while ``airflow dags test`` runs it.
"""


def map_index_for_lookups(ti: Any) -> int | None:
    """Return the map index for Airflow's look-ups: None for a task that is not mapped."""
    return ti.map_index if ti.map_index is not None and ti.map_index >= 0 else None


def is_loopback(address: str) -> bool:
    """Return whether only this machine reaches an address."""
    return urlsplit(address).hostname in LOCAL_HOSTS


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


def deferral_timed_out(next_kwargs: Mapping[str, Any] | None) -> bool:
    """
    Return whether a deferral without an event ended because of Airflow's timeout.

    The other reason is that the trigger failed: its class could not be loaded during a deployment, or it raised. 2.11
    writes "Trigger/execution timeout", 3.x "Trigger timeout".
    """
    return "timeout" in str((next_kwargs or {}).get("error", "")).lower()


async def in_thread(ask: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """
    Ask Airflow from a trigger, or read a connection, and take the answer even if the trigger is canceled meanwhile.

    A question that is canceled leaves its answer in the triggerer's socket. The next question, whoever's it is, takes
    it for its own, and the whole triggerer ends (seen on 3.1.8): asgiref hands a cancel on to what its thread awaits.

    Airflow's own async way is not there on 2.11 and 3.0, blocks other reads before 3.3.2, and finds no connection in
    ``airflow dags test`` of 3.3.2. The blocking way in a thread works on all versions.
    """
    import asyncio

    from asgiref.sync import sync_to_async

    asked: asyncio.Future[T] = asyncio.ensure_future(sync_to_async(ask)(*args, **kwargs))
    _ASKED.add(asked)
    asked.add_done_callback(_answered)
    return await asyncio.shield(asked)


def _answered(asked: asyncio.Future[Any]) -> None:
    """Forget a question, and consume its error if nobody waits for it any more."""
    _ASKED.discard(asked)
    if not asked.cancelled():
        asked.exception()


_ASKED: set[asyncio.Future[Any]] = set()


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


async def xcom_of_deferred_task(ti: Any, key: str) -> Any:
    """Return an XCom that a trigger's task has pushed, asked from the triggerer."""
    from airflow_skyvern.compat.sdk import XCom

    return await in_thread(
        XCom.get_one, key=key, dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index
    )


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


def is_made_by_expand(task: Any) -> bool:
    """Return whether a task is one that ``expand`` creates at run time."""
    return bool(getattr(task, "_BaseOperator__from_mapped", False))


def is_reference(value: Any) -> bool:
    """Return whether a value is another task's XCom, or derived from one: the marker is the same from 2.11 on."""
    return hasattr(value, "iter_references")


def in_scheduler() -> bool:
    """
    Return whether this process is Airflow's scheduler, not one that it has started: a worker, 2.11's DAG processor.

    A listener in a DAG processor would forbid ``end_from_trigger=True``, see ``since_3_0.in_api_server``.
    """
    import multiprocessing

    return sys.argv[1:2] == ["scheduler"] and multiprocessing.parent_process() is None


def forget_listener_in_children(listener: Any) -> None:
    """Keep listeners out of processes that this one forks: workers of a LocalExecutor, the DAG processor of 2.11."""

    def forget() -> None:
        from airflow.listeners.listener import get_listener_manager

        manager: Any = get_listener_manager()
        if manager.pm.is_registered(listener):
            manager.pm.unregister(listener)

    os.register_at_fork(after_in_child=forget)


def airflow_home() -> str:
    """Return the folder that Airflow keeps its own files in."""
    from airflow.configuration import AIRFLOW_HOME

    return str(AIRFLOW_HOME)


def is_dag_file(module: str) -> bool:
    """Return whether Airflow loads a module as a DAG file: it gives them names of their own, from 2.11 to 3.3."""
    return module.startswith("unusual_prefix_")


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
