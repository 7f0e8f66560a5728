"""
The tool calls of an agent that a task runs: each starts its own run, and a retry of the task finds it again.

Airflow knows only the task. So a call is named by its arguments, and by how often the task has made the same call
before: a model that makes the same calls in a retry gets the same runs, in any order. Airflow's AI provider replays
the model's messages (``durable=True``), so that the calls are the same.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol

from airflow_skyvern.compat import internals, since_3_0
from airflow_skyvern.exceptions import SkyvernWaitInterrupted
from airflow_skyvern.runs.key import call_tag
from airflow_skyvern.task import xcom
from airflow_skyvern.task.task_try import TaskTry

if TYPE_CHECKING:
    from airflow_skyvern.client.run_request import RunRequest
    from airflow_skyvern.compat.sdk import Context
    from airflow_skyvern.models import Run
    from airflow_skyvern.runs.key import RunKey
    from airflow_skyvern.runs.store import StartStore

MOST_TASKS = 16
"""The number of tries whose calls a process remembers: a worker runs one, ``dag.test()`` several."""

LONGEST_KILL = 4.5
"""Seconds for which Airflow's signal handler waits: half a second later, Airflow kills the process."""


class Killable(Protocol):
    """The code that waits for the run of a call."""

    def on_kill(self, *, timed_out: bool | None = None) -> None:
        """Cancel the run, or leave it to the next try."""


class ToolCalls:
    """
    The tool calls of one try of a task; several threads make them.

    :param context: The context of the task.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._ti: Any = context["ti"]
        self._changing = threading.Lock()
        self._made: Counter[str] = Counter()
        self._known: dict[str, dict[str, Any]] = {}
        self._active: list[Killable] = []
        self._killed = False
        self._take_those_before_a_pause()
        self._notice_kills()

    @classmethod
    def of_this_task(cls) -> ToolCalls | None:
        """Return the calls of the task that this process executes; None outside of a task."""
        context = internals.current_context()
        if context is None:
            return None
        ti: Any = context["ti"]
        key = (str(ti.id), int(ti.try_number))
        with _MAKING:
            if key not in _OF_TRIES:
                if len(_OF_TRIES) >= MOST_TASKS:
                    del _OF_TRIES[next(iter(_OF_TRIES))]
                _OF_TRIES[key] = cls(context)
            return _OF_TRIES[key]

    @property
    def task(self) -> Any:
        """The task that makes the calls."""
        return self._ti.task

    def begin(self, agent: str, arguments: Mapping[str, Any]) -> CallTry:
        """
        Record a call, and return what its run needs from the task.

        :raises SkyvernWaitInterrupted: the task was killed, or has ended: no more runs are started for it.
        """
        if self._killed or self.is_over():
            raise SkyvernWaitInterrupted("The task has been stopped, so it starts nothing more.")
        content = call_tag(agent, arguments, 0)
        with self._changing:
            number = self._made[content]
            self._made[content] += 1
        tag = call_tag(agent, arguments, number)
        return CallTry(self._context, self, tag, {"call": tag, "content": content, "agent": agent})

    @contextmanager
    def active(self, call: Killable) -> Iterator[None]:
        """Pass a kill of the task on to the code that waits for the run of a call."""
        self._active.append(call)
        try:
            yield
        finally:
            self._active.remove(call)

    def is_over(self) -> bool:
        """Return whether the task has ended: another call's error has ended the agent, say."""
        current = internals.current_context()
        return current is None or str(current["ti"].id) != str(self._ti.id)

    def note(self, tag: str, **known: Any) -> None:
        """Let Airflow's other processes, and its pages, know of a call."""
        with self._changing:
            self._known[tag] = {**self._known.pop(tag, {}), **known}
            newest = self._known[tag]
            value = {
                "skyvern_conn_id": newest.get("skyvern_conn_id"),
                "group": newest.get("group"),
                "calls": list(self._known.values()),
            }
            self._ti.xcom_push(key=xcom.CONNECTION_AND_RUN_KEY, value=value)

    def on_kill(self) -> None:
        """Let each run that is waited for be canceled or left to the next try, all at the same time."""
        self._killed = True
        timed_out = internals.timed_out_by_airflow()
        active = list(self._active)  # without the lock: the interrupted code may hold it
        if since_3_0.interrupts_question():
            for call in active:
                call.on_kill(timed_out=timed_out)
            return
        threads = [
            threading.Thread(target=call.on_kill, kwargs={"timed_out": timed_out}, daemon=True) for call in active
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(None if timed_out else LONGEST_KILL)

    def _take_those_before_a_pause(self) -> None:
        """Continue to count where this try was when it paused for a person's approval: in another process."""
        if not TaskTry(self._context).is_resumed:
            return
        lookup = internals.map_index_for_lookups(self._ti)
        pushed = self._ti.xcom_pull(task_ids=self._ti.task_id, key=xcom.CONNECTION_AND_RUN_KEY, map_indexes=lookup)
        calls = pushed.get("calls") if isinstance(pushed, Mapping) else None
        for call in calls or ():
            self._known[call["call"]] = dict(call)
            self._made[call["content"]] += 1

    def _notice_kills(self) -> None:
        """Airflow calls ``on_kill`` of the task that it executes, which is not our operator."""
        self.task.on_kill = partial(_killed, self.task.on_kill, self)


def _killed(on_kill: Callable[[], object], calls: ToolCalls) -> None:
    try:
        on_kill()
    finally:
        calls.on_kill()


_OF_TRIES: dict[tuple[str, int], ToolCalls] = {}
_MAKING = threading.Lock()


class CallTry(TaskTry):
    """
    A tool call of this try: the try, with a separate name and record.

    :param tag: Identifies the call.
    :param about: The facts recorded from the beginning.
    """

    def __init__(self, context: Context, calls: ToolCalls, tag: str, about: Mapping[str, Any]) -> None:
        super().__init__(context)
        self._calls = calls
        self._tag = tag
        self._about = about

    @cached_property
    def start_store(self) -> StartStore:
        """The store that outlives this try, for this call."""
        return self.store_of(self._tag)

    def run_key(self, request: RunRequest) -> RunKey:
        """Return the key that the run of this call carries."""
        return self.key_of(request, self._tag)

    def publish_connection_and_run_key(self, skyvern_conn_id: str, group: str | None) -> None:
        """Push how the run of this call is found, next to the entries of the other calls."""
        self._calls.note(self._tag, **self._about, skyvern_conn_id=skyvern_conn_id, group=group)

    def publish_run(self, run: Run) -> None:
        """Push the run among those of the calls; the link leads to the newest one."""
        self._published = run
        self._calls.note(self._tag, run_id=run.run_id, app_url=run.app_url)
        if run.app_url:
            self._ti.xcom_push(key=xcom.APP_URL, value=run.app_url)

    def published_run_id(self) -> str | None:
        """Return the run of this call, if it has published one."""
        return self._published.run_id if self._published else None
