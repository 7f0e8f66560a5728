"""Running an operator as Airflow would, without a scheduler."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from importlib import import_module
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from airflow_skyvern.compat.sdk import TaskDeferred


class FakeTaskInstance:
    """The task instance that operators and links get: XComs, ids, tries."""

    def __init__(self, task_id: str = "t", map_index: int = -1) -> None:
        self.dag_id = "d"
        self.run_id = "manual__1"
        self.task_id = task_id
        self.map_index = map_index
        self.id = UUID(int=7)
        self.try_number = 1
        self.max_tries = 0
        self.start_date: datetime | None = None
        self.run_started = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
        self.xcoms: dict[str, Any] = {}
        self.on_push: Callable[[str], object] = lambda key: None
        self.state: str | Exception | None = "running"
        """What Airflow answers about this task; an exception is raised, and ``deleted`` is no row."""
        self.answers_after = 0.0
        self.xcom_keys_to_clear: list[str] | None = None
        """What Airflow 3 has cleared when it started this process."""
        self.next_method: str | None = None
        self.next_kwargs: dict[str, Any] | None = None

    @property
    def _ti_context_from_server(self) -> FakeTaskInstance:
        """Have the deferral where Airflow 3 has it."""
        return self

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep a value that survives JSON, as XComs do."""
        self.xcoms[key] = json.loads(json.dumps(value))
        self.on_push(key)

    def xcom_pull(self, task_ids: str, key: str, map_indexes: int | None = None) -> Any:
        """Return a value of this task instance, and of no other."""
        own = task_ids == self.task_id and map_indexes == (None if self.map_index == -1 else self.map_index)
        return self.xcoms.get(key) if own else None

    def get_task_states(self, dag_id: str, **_: Any) -> dict[str, dict[str, str | None]]:
        """Answer as Airflow 3 does."""
        state = self.current_state()
        return {} if self.state == "deleted" else {self.run_id: {self.task_id: state}}

    def current_state(self) -> str | None:
        """Answer as Airflow 2 does."""
        time.sleep(self.answers_after)
        if isinstance(self.state, Exception):
            raise self.state
        return None if self.state == "deleted" else self.state

    def get_first_reschedule_date(self, context: Any) -> None:
        """Say that a sensor was not rescheduled before (Airflow 3 asks this way)."""


def context_of(ti: FakeTaskInstance) -> Any:
    """Return what our operators read from a task's context."""
    return {"ti": ti, "task_instance": ti, "dag_run": SimpleNamespace(start_date=ti.run_started)}


def run_task(make: Callable[[], Any], ti: FakeTaskInstance | None = None) -> Any:
    """
    Execute a task to its end; deferrals go through the trigger and a new operator, all as JSON in between.

    :param make: Makes the operator: a resumed task is another process with another object.
    """
    context = context_of(ti or FakeTaskInstance())
    return _finished(make, partial(make().execute, context), context)


def _finished(make: Callable[[], Any], step: Callable[[], Any], context: Any) -> Any:
    try:
        return step()
    except TaskDeferred as deferred:
        event = asyncio.run(first_event(rebuilt(deferred.trigger)))
        return _finished(make, partial(resumed, make(), deferred, event, context), context)


def resumed(operator: Any, deferred: TaskDeferred, event: Any, context: Any) -> Any:
    """Resume after a deferral that ended with this event."""
    kwargs = json.loads(json.dumps({**(deferred.kwargs or {}), "event": event}))
    return operator.resume_execution(deferred.method_name, kwargs, context)


def deferral(operator: Any, ti: FakeTaskInstance | None = None) -> TaskDeferred:
    """Execute a task that defers, and return its deferral."""
    try:
        result = operator.execute(context_of(ti or FakeTaskInstance()))
    except TaskDeferred as deferred:
        return deferred
    raise AssertionError(f"The task did not defer but returned {result!r}")


def rebuilt(trigger: Any) -> Any:
    """Rebuild the trigger from what goes through the database."""
    path, kwargs = trigger.serialize()
    module, _, name = path.rpartition(".")
    return getattr(import_module(module), name)(**json.loads(json.dumps(kwargs)))


async def first_event(trigger: Any) -> Any:
    """Run a trigger to its only event and return what the event carries."""
    payloads = [event.payload async for event in trigger.run()]
    assert len(payloads) == 1
    return payloads[0]
