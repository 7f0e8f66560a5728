"""Callbacks for a DAG run that has missed its deadline: name its Skyvern runs, and cancel them. Airflow 3.1."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict

from airflow_skyvern.compat import internals, since_3_1
from airflow_skyvern.exceptions import SkyvernConfigError

if TYPE_CHECKING:
    from airflow_skyvern.hooks import SkyvernHook
    from airflow_skyvern.models import Run
    from airflow_skyvern.task.pushed import KnownRun, TaskInstanceKey

log = logging.getLogger(__name__)

MAPPED = re.compile(r"(?P<task_id>.+)_(?P<map_index>\d+)")
"""How Airflow names a mapped task instance among the states of a DAG run; a task may have such a name, too."""

OF_SKYVERN = ("wr_", "tsk_")
"""How ids of runs begin: other providers push an XCom ``run_id``, too."""

REFUSALS = 60.0
"""Seconds for which a refused cancel request is sent again."""


class OverdueRun(TypedDict):
    """A Skyvern run of a DAG run that has missed its deadline."""

    task_id: str
    map_index: int
    run_id: str
    status: str | None
    """None where it is not known: the task does not wait for the run, or Skyvern does not answer."""

    app_url: str | None
    """The address of the run in Skyvern."""

    page_url: str
    """The address of the task's page in Airflow, at its run."""

    canceled: bool
    """Whether it was canceled now."""


async def overdue_runs(context: Mapping[str, Any], *, cancel: bool = False) -> str:
    """
    Name the Skyvern runs of a DAG run that has missed its deadline, and cancel them if wanted; Airflow 3.1 and newer.

    ::

        deadline=DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            interval=timedelta(hours=2),
            callback=AsyncCallback(overdue_runs, kwargs={"cancel": True}),
        )

    Airflow calls it in the triggerer. It logs a line for each run there. To notify somebody, write a callback that
    awaits :func:`find_overdue_runs` instead.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/cancel-run

    :param context: The context that Airflow passes to the callback.
    :param cancel: Whether to cancel the active runs that end with their task, as when the task is marked; runs with
        ``cancel_on_kill=False`` or ``wait_for_completion=False`` continue. The task then fails, and a retry, if any
        is left, starts another run. Default: False.
    :return: A line for each run, which Airflow keeps with the deadline. Unanswered requests to Skyvern or Airflow
        raise nothing.
    :raises SkyvernConfigError: the context does not come from a deadline.
    """
    found = await find_overdue_runs(context, cancel=cancel)
    return "\n".join(f"{run['task_id']}: {_in_words(run)}" for run in found) or "The DAG run has no Skyvern runs."


async def find_overdue_runs(context: Mapping[str, Any], *, cancel: bool = False) -> list[OverdueRun]:
    """
    Return what :func:`overdue_runs` names, for a callback of your own.

    The callback itself has to return a text or None: a triggerer of Airflow 3.3.2 ends when it has to store a list or
    an object, and with it all waits in it until another triggerer takes over.

    :param context: The context that Airflow passes to the callback.
    :param cancel: As for :func:`overdue_runs`. Default: False.
    :return: The runs, in the order of their tasks. Unanswered requests to Skyvern or Airflow raise nothing.
    :raises SkyvernConfigError: the context does not come from a deadline.
    """
    dag_run = context.get("dag_run")
    if not isinstance(dag_run, Mapping) or "dag_run_id" not in dag_run:
        raise SkyvernConfigError("overdue_runs is the callback of a DeadlineAlert: its context has no DAG run.")
    found: dict[str, OverdueRun] = {}
    async for place, known in _known_runs(str(dag_run["dag_id"]), str(dag_run["dag_run_id"])):
        if known.run_id in found or not str(known.run_id).startswith(OF_SKYVERN):
            continue
        run = await _described(place, known, cancel=cancel)
        found[run["run_id"]] = run
        log.warning(
            "DAG %s: run %s has missed its deadline; task %s has Skyvern run %s",
            place.dag_id,
            place.run_id,
            place.task_id,
            _in_words(run),
        )
    return list(found.values())


def _in_words(run: OverdueRun) -> str:
    status = "canceled now" if run["canceled"] else run["status"] or "status unknown"
    return f"{run['run_id']} ({status}), see {run['app_url'] or run['page_url']}"


async def _known_runs(dag_id: str, run_id: str) -> AsyncIterator[tuple[TaskInstanceKey, KnownRun]]:
    """Yield what the tasks of a DAG run have pushed about their runs, tasks that wait for theirs first."""
    from airflow_skyvern.task.pushed import XCOMS_OF_RUN, KnownRun, Pushed, TaskInstanceKey

    later = []
    for name in await since_3_1.tasks_of_dag_run(dag_id, run_id):
        for task_id, map_index in _task_instances(name):
            place = TaskInstanceKey(dag_id, run_id, task_id, map_index)
            values = {key: await internals.xcom_of_deferred_task(place, key) for key in XCOMS_OF_RUN}
            pushed = {key: Pushed.read(key, value) for key, value in values.items() if value is not None}
            for known in KnownRun.all_of(pushed):
                if known.is_announced:
                    yield place, known
                else:
                    later.append((place, known))
    for place, known in later:
        yield place, known


def _task_instances(name: str) -> Iterator[tuple[str, int]]:
    """Yield which task instances Airflow may mean by this name."""
    yield name, -1
    if mapped := MAPPED.fullmatch(name):
        yield mapped["task_id"], int(mapped["map_index"])


async def _described(place: TaskInstanceKey, known: KnownRun, *, cancel: bool) -> OverdueRun:
    run, canceled = None, False
    if known.skyvern_conn_id is not None:
        run, canceled = await _fetched(known.skyvern_conn_id, str(known.run_id), cancel=cancel and known.is_announced)
    return OverdueRun(
        task_id=place.task_id,
        map_index=place.map_index,
        run_id=str(known.run_id),
        status=run.status if run else None,
        app_url=(run.app_url if run else None) or known.app_url,
        page_url=since_3_1.task_page(place),
        canceled=canceled,
    )


async def _fetched(skyvern_conn_id: str, run_id: str, *, cancel: bool) -> tuple[Run | None, bool]:
    """Return a run, and whether it was canceled; None where Skyvern does not answer, which the log says."""
    from airflow_skyvern.hooks import SkyvernHook

    hook = SkyvernHook(skyvern_conn_id)
    try:
        return await _canceled(hook, run_id) if cancel else (await hook.afetch_run(run_id), False)
    except Exception as error:  # noqa: BLE001  of each run as much as is known
        log.error("Skyvern run %s%s. %s", run_id, " may still be running" if cancel else "", error)
        return None, False
    finally:
        await hook.aclose()


async def _canceled(hook: SkyvernHook, run_id: str) -> tuple[Run, bool]:
    from airflow_skyvern.runs.cancel import cancel_unless_ended_async

    fetch, send = partial(hook.afetch_run, run_id), partial(hook.acancel_run, run_id)
    ended = await cancel_unless_ended_async(fetch, send, asyncio.sleep, REFUSALS)
    return ended.run, ended.canceled
