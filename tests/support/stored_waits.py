"""A task of whose waits Airflow's database holds what another version of this provider would have stored."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow_skyvern.compat.sdk import TaskDeferred
from tests.support.tasks import FakeTaskInstance, context_of, first_event

if TYPE_CHECKING:
    from tests.support.required_actions import RequiredActions


@dataclass(frozen=True)
class StoredWait:
    """
    What Airflow stores of a deferral.

    :param trigger: The path of the trigger's class.
    :param event: What the trigger has sent; None before it has.
    """

    trigger: str
    trigger_kwargs: dict[str, Any]
    next_method: str
    next_kwargs: dict[str, Any]
    event: dict[str, Any] | None = None

    @classmethod
    def of(cls, deferred: TaskDeferred) -> StoredWait:
        """Return what Airflow stores."""
        path, kwargs = deferred.trigger.serialize()
        return cls(path, as_json(kwargs), deferred.method_name, as_json(deferred.kwargs or {}))

    def loaded(self) -> Any:
        """Make the trigger as a triggerer does."""
        module, _, name = self.trigger.rpartition(".")
        return getattr(import_module(module), name)(**as_json(self.trigger_kwargs))


Change = Callable[[int, StoredWait], StoredWait]
"""Returns what is in the database instead of the task's wait with that number; also of its event, once it has one."""


class StoredTask:
    """
    A task that runs to its end, each wait by what is in the database.

    :param make: Makes the operator: each step is another process.
    :param change: See :data:`Change`.
    :param before_event: Called before a trigger runs, with the task's wait: what a person does then.
    :param actions: Airflow's Required Actions, where the task asks a person.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        change: Change = lambda _, wait: wait,
        before_event: Callable[[StoredWait], object] = lambda _: None,
        actions: RequiredActions | None = None,
    ) -> None:
        self.ti = FakeTaskInstance()
        self.store = Memory()
        self.waits: list[StoredWait] = []
        self._make, self._change, self._before_event, self._actions = make, change, before_event, actions

    def run(self, started: StoredWait | None = None) -> Any:
        """
        Return the task's value.

        :param started: The wait with which Airflow itself begins, if it does.
        """
        wait = started or self._step(lambda: self._make().execute(self._context))
        while isinstance(wait, StoredWait):
            wait = self._step(self._resumption_of(wait))
        return wait

    @property
    def _context(self) -> Any:
        return {**context_of(self.ti), "task_state_store": self.store}

    def _resumption_of(self, wait: StoredWait) -> Callable[[], Any]:
        number = len(self.waits)
        stored = self._change(number, wait)
        self._before_event(wait)
        event = as_json(asyncio.run(first_event(stored.loaded())))
        self.waits.append(replace(wait, event=event))
        stored = self._change(number, replace(stored, event=event))
        kwargs = as_json({**stored.next_kwargs, "event": stored.event})
        return lambda: self._make().resume_execution(stored.next_method, kwargs, self._context)

    def _step(self, step: Callable[[], Any]) -> Any:
        if self._actions is not None:
            self._actions.asked_by_worker = True
        try:
            return step()
        except TaskDeferred as deferred:
            return StoredWait.of(deferred)
        finally:
            if self._actions is not None:
                self._actions.asked_by_worker = False

    def recorded(self) -> dict[str, Any]:
        """Return all that Airflow has stored of the task."""
        waits = [asdict(wait) for wait in self.waits]
        found: dict[str, Any] = as_json({"waits": waits, "xcoms": self.ti.xcoms, "task_state": dict(self.store)})
        return found


class Memory(dict[str, Any]):
    """Airflow's store of a task's state."""

    def set(self, key: str, value: Any) -> None:
        """Keep a value as JSON does."""
        self[key] = as_json(value)


def as_json(value: Any) -> Any:
    """Return a value as it comes back from Airflow's database."""
    return json.loads(json.dumps(value))
