"""
Reads the XComs of tasks from Airflow's database, for the API server, the scheduler and the command line.

A custom XCom backend stores something other than the value, such as an address in an object store. Only the backend
can read that, and it may take a request; so values are read when they are used, not in the transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_skyvern.compat import since_3_0
from airflow_skyvern.task import deferral, xcom

if TYPE_CHECKING:
    from datetime import datetime

    from sqlalchemy.orm import Session

log = logging.getLogger(__name__)


class TaskInstanceKey(NamedTuple):
    """Which task instance."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int


class Pushed:
    """
    One XCom, as Airflow has stored it.

    :param row: Has ``key`` and ``value``; that is what backends read.
    """

    def __init__(self, row: Any) -> None:
        self.key: str = row.key
        self._row = row

    @classmethod
    def read(cls, key: str, value: Any) -> Pushed:
        """Return an XCom whose value Airflow itself has read."""
        known = cls(SimpleNamespace(key=key, value=value))
        known.value = deferral.decoded(value)
        return known

    @cached_property
    def value(self) -> Any:
        """The value; None where the backend cannot read it here."""
        try:
            return deferral.decoded(since_3_0.read_xcom(self._row))
        except Exception as error:  # noqa: BLE001  a backend is anybody's code, and may need what is not installed here
            log.warning("Could not read XCom %r with the configured XCom backend: %r", self.key, error)
            return None


def pushed_xcoms(
    session: Session,
    keys: Collection[str],
    where: Callable[[Any], Iterable[Any]],
    *,
    newest: int | None = None,
) -> dict[TaskInstanceKey, dict[str, Pushed]]:
    """
    Find XComs of task instances, those of the newest DAG runs first.

    :param where: Makes the conditions for the table that it gets.
    :param newest: How many to read at most. Default: all.
    """
    from sqlalchemy import select

    table = since_3_0.xcom_table()
    rows = session.execute(
        select(table.dag_id, table.run_id, table.task_id, table.map_index, table.key, table.value)
        .where(table.key.in_(list(keys)), *where(table))
        .order_by(table.dag_run_id.desc())
        .limit(newest)
    )
    found: dict[TaskInstanceKey, dict[str, Pushed]] = {}
    for row in rows:
        found.setdefault(TaskInstanceKey(*row[:4]), {})[row.key] = Pushed(row)
    return found


def of_changed_tasks(since: datetime, states: Collection[str] = (), **ids: Any) -> Callable[[Any], list[Any]]:
    """
    Make the conditions for XComs of tasks that Airflow has changed since then.

    :param states: Only those that are in one of these states now. Default: in any.
    :param ids: What their rows have in the columns of these names.
    """
    from airflow.models.taskinstance import TaskInstance as TI  # noqa: N817  Airflow's own name for it
    from sqlalchemy import exists

    def where(table: Any) -> list[Any]:
        same_task = [getattr(TI, name) == getattr(table, name) for name in TaskInstanceKey._fields]
        chosen = [TI.state.in_(states)] if states else []
        its_own = [getattr(table, name) == value for name, value in ids.items()]
        return [*its_own, exists().where(*same_task, *chosen, TI.updated_at >= since)]

    return where


XCOMS_OF_RUN = (xcom.RUN_ID, xcom.APP_URL, xcom.CONNECTION_AND_RUN_KEY)
"""The columns that :class:`KnownRun` reads."""


class KnownRun:
    """
    The run of a task instance according to Airflow's database, in the order of trust.

    The deferral and the rendered arguments come first: no user can edit them. An XCom is read only if it is needed.

    A task that runs an agent may have several: one of each tool call.

    :param next_kwargs: The kwargs of the task instance's deferral.
    :param rendered: Its rendered arguments.
    :param call: Which of the tool calls, the first one is 0. Default: the newest.
    """

    def __init__(
        self,
        pushed: Mapping[str, Pushed],
        next_kwargs: Any = None,
        rendered: Mapping[str, Any] | None = None,
        call: int = -1,
    ) -> None:
        self._pushed = pushed
        self._chosen = call
        self._note = deferral.note_of(next_kwargs)
        self._rendered = rendered or {}

    @classmethod
    def all_of(cls, pushed: Mapping[str, Pushed]) -> Iterator[KnownRun]:
        """Yield the known facts about each run of a task instance: its own run, or the runs of its tool calls."""
        for number in range(len(cls(pushed).calls) or 1):
            yield cls(pushed, call=number)

    @property
    def calls(self) -> Sequence[Mapping[str, Any]]:
        """The tool calls of an agent that the task runs, the first one first."""
        calls = self._noted.get("calls")
        return [call for call in calls if isinstance(call, Mapping)] if isinstance(calls, list) else []

    @property
    def run_ids_of_calls(self) -> list[str | None]:
        """The run of each tool call; None for one that has not been answered yet."""
        return [_first_text(call.get(xcom.RUN_ID)) for call in self.calls]

    @property
    def call(self) -> int | None:
        """Which of the tool calls this is; None for the run of the task itself."""
        return range(len(self.calls))[self._chosen] if self.calls else None

    @property
    def is_announced(self) -> bool:
        """Whether the task has begun to start or to find a run."""
        return xcom.CONNECTION_AND_RUN_KEY in self._pushed

    @property
    def certain_id(self) -> str | None:
        """The run's id, if a source that nobody can edit has it."""
        return _first_text(self._note.get("run_id"), self._rendered.get("run_id"))

    @property
    def run_id(self) -> str | None:
        """The run's id; if a task runs an agent, the XCom of that name belongs to the agent."""
        return self.certain_id or _first_text(self._of_run(xcom.RUN_ID))

    @property
    def skyvern_conn_id(self) -> str | None:
        """The connection that leads to the run."""
        known = _first_text(self._note.get("skyvern_conn_id"), self._rendered.get("skyvern_conn_id"))
        return known or _first_text(self._announced.get("skyvern_conn_id"))

    @property
    def group(self) -> str | None:
        """The tag of the attempt group."""
        return _first_text(self._announced.get("group"))

    @property
    def app_url(self) -> str | None:
        """The address of the run's page in Skyvern."""
        return _first_text(self._note.get("app_url")) or _first_text(self._of_run(xcom.APP_URL))

    @property
    def approval(self) -> Mapping[str, Any] | None:
        """A person's answer to this run."""
        answer = self._value(xcom.APPROVAL)
        is_of_run = isinstance(answer, Mapping) and answer.get("run_id") == self.run_id is not None
        return answer if is_of_run else None

    @property
    def workflow_version(self) -> Mapping[str, Any] | None:
        """Which version of which workflow file the run is of."""
        note = self._value(xcom.WORKFLOW_VERSION)
        return note if isinstance(note, Mapping) else None

    def _of_run(self, key: str) -> Any:
        """Return the record of the chosen call, or the XCom of the task's own run."""
        return self._announced.get(key) if self.calls else self._value(key)

    @property
    def _announced(self) -> Mapping[str, Any]:
        return self.calls[self._chosen] if self.calls else self._noted

    @property
    def _noted(self) -> Mapping[str, Any]:
        announced = self._value(xcom.CONNECTION_AND_RUN_KEY)
        return announced if isinstance(announced, Mapping) else {}

    def _value(self, key: str) -> Any:
        return self._pushed[key].value if key in self._pushed else None


def _first_text(*values: Any) -> str | None:
    return next((value for value in values if isinstance(value, str) and value), None)
