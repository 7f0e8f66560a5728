"""Stores a task's last start, which outlives its try. Airflow 3.3 has a store for that, ``task_state_store``."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

from airflow_skyvern.exceptions import SkyvernStartUnknown

log = logging.getLogger(__name__)

STORE_KEY = "skyvern_run"


class TaskStateStore(Protocol):
    """Airflow's store; it survives retries, and every clear too."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return what was stored."""

    def set(self, key: str, value: Any) -> Any:
        """Store a value."""


@dataclass(frozen=True)
class StartRecord:
    """
    The last start of a task.

    :param group: The tag of the attempt group that it belongs to.
    :param run_id: The run; None while the start was sent and not answered.
    :param done: Whether the task took the run's result, so that it ended as a success.
    :param run_started: The first value of this argument of :meth:`RunKey.of <airflow_skyvern.runs.key.RunKey.of>`:
        the store belongs to the DAG run, whose start may change.
    """

    group: str
    run_id: str | None = None
    done: bool = False
    run_started: str = ""


class StartStore:
    """
    Reads and writes the record of the last start.

    :param store: Airflow's, or None if this Airflow has none.
    :param run_started: The present start of the DAG run.
    :param call: Which of the task's tool calls; each has its own record.
    """

    def __init__(self, store: TaskStateStore | None, run_started: str = "", call: str = "") -> None:
        self._store = store
        self._run_started = run_started
        self._key = f"{STORE_KEY}.{call}" if call else STORE_KEY

    @property
    def exists(self) -> bool:
        """Whether anything is stored here."""
        return self._store is not None

    def read(self, group: str | None = None) -> StartRecord | None:
        """Return the record, if one exists, and, if a group is given, belongs to that group."""
        value = self._value()
        if not value.get("group"):
            return None
        record = StartRecord(
            value["group"],
            value.get("run_id"),
            bool(value.get("done")),
            value.get("run_started") or self._run_started,
        )
        return record if group in (None, record.group) else None

    def run_started(self, *, first_try: bool) -> str:
        """Return the name that the task's first start gave its DAG run; the first try has nothing to read."""
        if not first_try:
            self._run_started = str(self._value().get("run_started") or self._run_started)
        return self._run_started

    def _value(self) -> dict[str, Any]:
        value = self._store.get(self._key, None) if self._store is not None else None
        return value if isinstance(value, dict) else {}

    def will_start(self, group: str) -> None:
        """
        Note that a start of this group is sent next.

        :raises SkyvernStartUnknown: the note was not taken, as another try of the task has taken over.
        """
        self._write(StartRecord(group))
        if self._store is not None and self.read(group) is None:
            raise SkyvernStartUnknown("Another try of this task has taken over, so this one starts no Skyvern run.")

    def started(self, group: str, run_id: str) -> None:
        """Note the run that a start of this group has created, or that is resumed."""
        with _best_effort(run_id):
            self._write(StartRecord(group, run_id))

    def not_started(self) -> None:
        """Note that the start did nothing."""
        self._write(StartRecord(""))

    def replaced(self, run_id: str, by: str) -> None:
        """Note the run that Skyvern has started in place of a failed one."""
        self._update(run_id, run_id=by)

    def done(self, run_id: str) -> None:
        """Note that the task took the result of its run."""
        self._update(run_id, done=True)

    def _update(self, recorded: str, **changes: Any) -> None:
        with _best_effort(recorded):
            if (record := self.read()) is not None and record.run_id == recorded:
                self._write(replace(record, **changes))

    def _write(self, record: StartRecord) -> None:
        if self._store is not None:
            self._store.set(self._key, asdict(replace(record, run_started=record.run_started or self._run_started)))


@contextmanager
def _best_effort(run_id: str) -> Iterator[None]:
    """
    Store optional information: no task fails because of it.

    What was stored before the start says that it was sent, so the next try searches for its run.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001  whatever keeps Airflow's API server from answering
        log.warning("Skyvern run %s: Airflow could not store its state for the next try: %s", run_id, error)
