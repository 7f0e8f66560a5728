"""
Features of Airflow 3.3. On older versions, each question here is answered with no, and each store is None.

Callers then do something else; when support for 3.2 ends, all of that goes too.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_skyvern.compat import internals

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger, TriggerEvent

    from airflow_skyvern.compat.sdk import Context


def task_state_store(context: Context) -> Any:
    """Return the store that outlives a try of this task; None below 3.3, which has no such store."""
    return context.get("task_state_store")


def kept_by_task(context: Context, key: str, other_task: str | None) -> Any:
    """
    Return the value that an earlier try of this task, also one before a clear, has stored.

    :param other_task: The task instance with the same map index whose XCom has it below 3.3: those of the task itself
        are deleted when a try begins. None: nothing is kept there.
    """
    if (store := task_state_store(context)) is not None:
        return store.get(key, None)
    if other_task is None:
        return None
    ti: Any = context["ti"]
    return ti.xcom_pull(task_ids=other_task, key=key, map_indexes=internals.map_index_for_lookups(ti))


def keep_for_task(context: Context, key: str, value: Any, other_task: str | None) -> None:
    """Keep a value for later tries of this task, see :func:`kept_by_task`."""
    if (store := task_state_store(context)) is not None:
        store.set(key, value)
    elif other_task is not None:
        from airflow_skyvern.compat.sdk import XCom

        ti: Any = context["ti"]
        index = -1 if ti.map_index is None else ti.map_index
        XCom.set(key=key, value=value, dag_id=ti.dag_id, task_id=other_task, run_id=ti.run_id, map_index=index)


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


def answers_resume_tasks() -> bool:
    """Return whether Airflow itself resumes a deferred task with a person's answer; from 3.3 on."""
    return renders_trigger_arguments()


def renders_trigger_arguments() -> bool:
    """Return whether a task can start in the triggerer with templates; from 3.3 on."""
    from airflow.triggers.base import BaseTrigger

    return hasattr(BaseTrigger, "render_template_fields")


def airflows_timeout(trigger: BaseTrigger) -> datetime | None:
    """Return when Airflow ends the deferral of a trigger; from 3.3 on."""
    when: datetime | None = getattr(trigger, "timeout_after", None)
    return when


def asset_state_store(trigger: BaseTrigger) -> Any:
    """Return a watcher's store for its asset; None below 3.3, which has no such store."""
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


def is_partitioned(dag_model: Any) -> bool:
    """Return whether a DAG is started once per partition of its assets; from 3.3 on."""
    return bool(getattr(dag_model, "timetable_partitioned", False))
