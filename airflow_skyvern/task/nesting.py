"""One task, one operator, one run per try: what else a task may execute has no identity of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_skyvern.compat.sdk import BaseOperator
from airflow_skyvern.exceptions import SkyvernConfigError

if TYPE_CHECKING:
    from airflow_skyvern.compat.sdk import Context

NO_IDENTITY = (
    "so nothing was started: a retry could not find its run, and nobody would cancel it. Make each run a task of its "
    "own: several operators in the DAG, or one that is mapped with .expand(). SkyvernHook().run_workflow(…) starts a "
    "run from any code, without these guarantees."
)
NO_WAIT_OUTSIDE = (
    "and there it cannot wait without its worker: Airflow would resume the outer task in its place. Make it a task "
    'of its own, or use mode="poke" and deferrable=False.'
)


def check_is_the_task(operator: Any, context: Context, otherwise: str) -> None:
    """
    Check that Airflow executes this operator, and not a task that executes it in turn.

    Airflow retries, kills, defers and links the outer task only, and its ids are the only ones there are: of several
    requests, a retry could not know which run belongs to which, and nothing would cancel them.

    :param otherwise: What follows from that, and what to do instead.
    :raises SkyvernConfigError: it is executed within another task.
    """
    task = getattr(context["ti"], "task", None) or context.get("task")
    if isinstance(task, BaseOperator) and task is not operator:
        raise SkyvernConfigError(
            f"{type(operator).__name__} {operator.task_id!r} was executed inside task {task.task_id!r}, {otherwise}"
        )


def check_starts_one(task_id: str, already_in: object, this_try: object) -> None:
    """
    Check that a try has started nothing yet: a subclass may call ``execute`` more than once.

    :raises SkyvernConfigError: it has, and a retry could not distinguish the two runs.
    """
    if already_in == this_try:
        raise SkyvernConfigError(f"Task {task_id!r} has already started a run in this try, {NO_IDENTITY}")
