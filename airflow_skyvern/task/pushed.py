"""
What tasks have pushed, read from Airflow's database: for the API server, the scheduler and the command line.

A custom XCom backend stores something other than the value, such as an address in an object store. Only the backend
can read that, and it may take a request; so what is found is read when it is used, not in the transaction.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_skyvern import compat
from airflow_skyvern.task.deferral import decoded

if TYPE_CHECKING:
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

    @cached_property
    def value(self) -> Any:
        """The value; None where the backend cannot read it here."""
        try:
            return decoded(compat.read_xcom(self._row))
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

    table = compat.xcom_table()
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


def value_of(pushed: Mapping[str, Pushed], key: str) -> Any:
    """Read one of the XComs of a task instance; None if it has not pushed it."""
    return pushed[key].value if key in pushed else None


def values_of(pushed: Mapping[str, Pushed]) -> dict[str, Any]:
    """Read the XComs of a task instance."""
    return {key: one.value for key, one in pushed.items()}
