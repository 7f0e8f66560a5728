"""The operators that are compared on a real Airflow, each in DAG files of its own."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from benchmarks.imports import OPERATORS

DAGS = Path(__file__).resolve().parent / "dags"
INTERVAL = 5
"""Seconds between two polls in the DAGs that wait alike."""

KINDS = ("same", "default")
"""The DAGs of each provider: with the same interval as the others, and with its default."""


@dataclass(frozen=True)
class Provider:
    """
    A contender's operator.

    :param name: The name of the contender.
    :param interval: Its argument for the seconds between two polls.
    :param job_id: The XCom that has the id of the job.
    """

    name: str
    interval: str
    job_id: str = "run_id"

    @property
    def dag_file(self) -> Path:
        """The file with its DAGs: one per provider, as its imports count for its tasks only."""
        return DAGS / f"latency_{self.name.replace('-', '_')}.py"

    def conn_id(self, kind: str) -> str:
        """Return the connection of a DAG of some kind: the operator's default connection, or another one."""
        return f"{self.name.replace('-', '_')}_{kind}"

    def seconds(self, kind: str) -> float:
        """Return the seconds between two polls, in a DAG of some kind."""
        module, operator_name = OPERATORS[self.name]
        operator = getattr(import_module(module), operator_name)
        return INTERVAL if kind == "same" else float(inspect.signature(operator).parameters[self.interval].default)


PROVIDERS = {
    one.name: one
    for one in (
        Provider("skyvern", "poll_interval"),
        Provider("databricks", "polling_period_seconds"),
        Provider("dbt-cloud", "check_interval", "job_run_id"),
    )
}
