"""The task instances of a real Airflow, and how long their visits occupy a worker."""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dev.process import RigError, wait_until

if TYPE_CHECKING:
    from dev.airflow_server import AirflowServer

ROWS = 100
"""Rows of a page."""

_FINISHED = re.compile(r"Workload finished.*?duration=([\d.]+).*?final_state=(\w+).*?workload_id=(\S+)")
_COLORS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class Visit:
    """How long a visit of a task occupied a worker, and the state in which it left the task."""

    task_instance: str
    seconds: float
    state: str


def rows(airflow: AirflowServer, path: str) -> list[dict[str, Any]]:
    """Return all task instances that an endpoint of the REST API lists."""
    found: list[dict[str, Any]] = []
    while True:
        page = airflow.request("GET", path, params={"limit": ROWS, "offset": len(found)}).raise_for_status()
        found += page.json()["task_instances"]
        if len(page.json()["task_instances"]) < ROWS:
            return found


def visits(airflow: AirflowServer, ids: Collection[str], expected: int) -> list[Visit]:
    """
    Return the visits of some task instances, from the executor's log.

    :param expected: How many visits to wait for; the last ones are logged a little late.
    """
    found: list[Visit] = []

    def all_logged() -> bool:
        log = _COLORS.sub("", airflow.processes["scheduler"].log_path.read_text(errors="replace"))
        found[:] = [Visit(ti, float(seconds), state) for seconds, state, ti in _FINISHED.findall(log) if ti in ids]
        return len(found) == expected

    with suppress(RigError):  # a missing visit is a finding, reported beside the others
        wait_until(f"{expected} visits in the scheduler's log", all_logged, 30)
    return found
