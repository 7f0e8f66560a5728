"""Finds in a task's log why it failed; the log is read as Airflow's own page reads it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from airflow.models.taskinstance import TaskInstance
from airflow.models.taskinstancehistory import TaskInstanceHistory
from airflow.utils.log.log_reader import TaskLogReader
from airflow.utils.session import create_session
from sqlalchemy import select
from sqlalchemy.orm import joinedload
from starlette.concurrency import run_in_threadpool

from airflow_skyvern.ui.cache import SharedCache

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy.orm import Session

    from airflow_skyvern.ui.lookup import TaskKey

log = logging.getLogger(__name__)

PATIENCE = 3.0
"""Seconds that a page waits for a log, which may be on a worker or in a store; the next refresh has it."""

LOG_TTL = 60.0
"""Seconds for which the error of a try that has ended is kept."""

MOST_LINES = 100_000
"""Lines of a log that are searched."""

MOST_AT_ONCE = 4
"""Logs read at the same time, in one process."""

FAILED = "Task failed with exception"
SKIPPED = "Skipping task."
"""The beginning of Airflow's line about why a task has ended."""

IN_WORDS = {
    "AirflowTaskTimeout": "The task took longer than its execution_timeout.",
    "TaskDeferralTimeout": "The task was deferred for longer than its timeout.",
}
"""Errors of Airflow with uninformative messages."""


class TaskErrors:
    """
    The errors that ended tries of tasks.

    :param read: Reads the error of a try from its log.
    """

    def __init__(self, read: Callable[[TaskKey, int], str] | None = None) -> None:
        self._read = read or read_error
        self._errors: SharedCache[str] = SharedCache(lambda _: LOG_TTL)
        self._free = asyncio.Semaphore(MOST_AT_ONCE)

    async def of(self, key: TaskKey, try_number: int) -> str | None:
        """Return the error of a finished try; empty if its log has none, None if reading takes too long."""
        try:
            return await asyncio.wait_for(
                self._errors.get((key, try_number), lambda: self._found(key, try_number)), PATIENCE
            )
        except asyncio.TimeoutError:
            return None

    async def _found(self, key: TaskKey, try_number: int) -> str:
        async with self._free:
            return await run_in_threadpool(self._read, key, try_number)


def read_error(key: TaskKey, try_number: int) -> str:
    """Read the log of a try, and return why it ended."""
    try:
        with create_session() as session:
            reader, row = TaskLogReader(), _row_of(session, key, try_number)
            if row is None or not reader.supports_read:
                return ""
            metadata: Any = {"download_logs": False}
            lines, _ = reader.read_log_chunks(row, try_number, metadata)
            return error_in(islice(lines, MOST_LINES))
    except Exception as error:  # noqa: BLE001  the handler of logs is anybody's code
        log.info("The log of %s could not be read: %r", key, error)
        return ""


def _row_of(session: Session, key: TaskKey, try_number: int) -> Any:
    for model in (TaskInstance, TaskInstanceHistory):
        row = session.scalar(
            select(model).where(*key.of(model), model.try_number == try_number).options(joinedload(model.dag_run))
        )
        if row is not None:
            return row
    return None


def error_in(lines: Iterable[Any]) -> str:
    """Return why a try ended: the reason that Airflow logged, else the last exception, else the last error."""
    found: dict[int, str] = {}
    for line in lines:
        said: Mapping[str, Any] = getattr(line, "model_extra", None) or {}
        event = str(getattr(line, "event", ""))
        if raised := _raised(said.get("error_detail")):
            found[0 if event == FAILED else 1] = raised
        elif event == SKIPPED and said.get("reason"):
            found[0] = str(said["reason"])
        elif str(said.get("level") or "").lower() in ("error", "critical"):
            found[2] = event
    return found[min(found)] if found else ""


def _raised(details: Any) -> str:
    """Return an exception as text: ours and Airflow's are sentences; others are prefixed with their class."""
    first = details[0] if isinstance(details, list) and details else None
    if not isinstance(first, Mapping):
        return ""
    kind, said = str(first.get("exc_type") or ""), str(first.get("exc_value") or "")
    if kind in IN_WORDS:
        return IN_WORDS[kind]
    return said if said and kind.startswith(("Airflow", "Skyvern")) else f"{kind}: {said}".strip(": ")
