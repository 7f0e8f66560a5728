"""
A tool call's run: the operators' own way from the start to the result, on behalf of a task that Airflow executes.

The task is somebody else's operator. So what Airflow does to it is passed on (retries, limits, kills), and what ours
would report to Airflow as a task of its own is noted as one of its calls.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_skyvern.compat.sdk import DAG
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.operators.run_prompt import SkyvernRunPromptOperator
from airflow_skyvern.operators.run_workflow import SkyvernRunWorkflowOperator
from airflow_skyvern.runs.store import StartStore
from airflow_skyvern.task.task_try import UNKNOWN, TaskTry

if TYPE_CHECKING:
    from airflow_skyvern.compat.tries import Standing
    from airflow_skyvern.hooks import SkyvernHook
    from airflow_skyvern.models import Run
    from airflow_skyvern.task.active_run import Names
    from airflow_skyvern.task.tool_calls import ToolCalls

TASK_ID = "agent"

OPTIONS = frozenset({
    *("max_steps", "max_elapsed_time_minutes", "proxy_location", "browser_profile_id", "run_options", "title"),
    *("mask_output", "poll_interval", "engine", "error_code_mapping"),
})  # fmt: skip
"""The arguments of the operators that make sense for an agent, besides those that the hook names."""

OF_PROMPTS = frozenset({"engine", "error_code_mapping"})
OF_TASK = ("retries", "execution_timeout", "retry_policy")
"""What Airflow knows of the task, and the steps of a run read from their operator."""


class OfAgent(SkyvernRunWorkflowOperator):
    """An operator that runs for a tool call, and not as a task."""

    calls: ToolCalls | None = None
    ended_run: Run | None = None

    def answer(self, task_try: TaskTry) -> Any:
        """Start the run of a call, or find it again, wait for its end, and return its result."""
        self._active_run.begins(task_try)
        try:
            with self._active_run.canceled_if_given_up():
                return self.start_and_wait(task_try)
        except KeyboardInterrupt:  # of somebody who runs it by hand
            self.on_kill(timed_out=False)
            raise

    def on_kill(self, *, timed_out: bool | None = None) -> None:
        """Cancel the run or leave it to the next try."""
        self._active_run.on_kill(timed_out=timed_out)

    def interrupt(self) -> None:
        """Stop the wait: nobody needs its result any more."""
        self._active_run.interrupt()

    def get_template_env(self, *args: Any, **kwargs: Any) -> Any:
        """Return the loader for files next to the DAG file: a schema may be one."""
        task = self.calls.task if self.calls is not None else None
        return task.get_template_env() if task is not None else super().get_template_env(*args, **kwargs)

    def _task_is_over(self) -> bool:
        return self.calls is not None and self.calls.is_over()

    def _names(self, task_try: TaskTry) -> Names | None:
        names = super()._names(task_try)
        return None if names is None else replace(names, task=None)

    def _result(self, task_try: TaskTry, run: Run) -> Any:
        self.ended_run = run
        return super()._result(task_try, run)


class WorkflowOfAgent(OfAgent):
    """Runs a workflow for a tool call."""


class PromptOfAgent(OfAgent, SkyvernRunPromptOperator):
    """Runs a prompt for a tool call."""


def operator_of(
    kind: type[OfAgent], arguments: Mapping[str, Any], hook: SkyvernHook, calls: ToolCalls | None
) -> OfAgent:
    """
    Make the operator of a call; it belongs to no DAG, regardless of the DAG file that is being parsed.

    :raises SkyvernConfigError: an argument is wrong.
    """
    nowhere = DAG(TASK_ID, schedule=None)
    try:
        made = kind(
            task_id=TASK_ID,
            dag=nowhere,
            task_group=nowhere.task_group,
            skyvern_conn_id=hook.skyvern_conn_id,
            deferrable=False,
            durable=calls is not None,
            **arguments,
        )
    except SkyvernConfigError as error:
        raise SkyvernConfigError(str(error).removeprefix(f"Task {TASK_ID!r}: ")) from None
    made.calls = calls
    made.hook = hook  # calls share its connections
    for name in OF_TASK if calls is not None else ():
        setattr(made, name, getattr(calls and calls.task, name, None))
    return made


class NoTask(TaskTry):
    """A stand-in for the task of a run outside of a task: no run is found again there, and nothing is killed."""

    def __init__(self) -> None:
        self._published = None
        self._began = time.time()

    number = 1
    name = ("", 1)
    earlier_tries = 0
    will_be_retried = False
    is_resumed = False
    deferred_run_id = None

    @property
    def started_at(self) -> float:
        """When the call was made."""
        return self._began

    @cached_property
    def start_store(self) -> StartStore:
        """Return a store that keeps nothing."""
        return StartStore(None)

    def ensure_current(self) -> None:
        """Do nothing: no other try can take over."""

    def stop_if_overtaken(self) -> None:
        """Do nothing."""

    def standing_within(self, seconds: float) -> Standing | None:
        """Return nothing: Airflow knows of no try."""

    def state_within(self, seconds: float) -> str | None:
        """Return that the state is not known."""
        return UNKNOWN

    def published_run_id(self) -> str | None:
        """Return the run of the call."""
        return self._published.run_id if self._published else None

    def publish_connection_and_run_key(self, skyvern_conn_id: str, group: str | None) -> None:
        """Do nothing: there are no XComs."""

    def publish_run(self, run: Run) -> None:
        """Keep the run."""
        self._published = run

    def publish_pause(self, run_id: str, app_url: str | None) -> None:
        """Do nothing: the log says it."""
