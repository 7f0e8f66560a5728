"""
The second witness: what `airflow-skyvern runs orphans` says after all executions.

The suite itself compares what it did with what Skyvern has. The command knows nothing of the suite: it compares
Skyvern with Airflow's database, as a person or a cron job does.
"""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dev.airflow_server import AirflowServer

MIN_AGE = "15s"
"""The suite's runs are young: it asks when all is over, and no start is under way."""

PATIENCE = 300.0


@dataclass(frozen=True)
class Statement:
    """
    What the command says.

    :param orphans: Why nobody waits for a run, by its id.
    :param others: Why an active run is left alone.
    :param canceled: Which of the orphans it has canceled.
    :param problems: What it could not do.
    """

    orphans: dict[str, str]
    others: dict[str, str]
    canceled: frozenset[str]
    problems: str

    @classmethod
    def of(cls, rows: list[dict[str, Any]], problems: str = "") -> Statement:
        """Read the rows that the command prints as JSON."""
        reasons: dict[bool, dict[str, str]] = {True: {}, False: {}}
        for row in rows:
            reasons[row["orphan"]][row["run_id"]] = row["reason"]
        canceled = frozenset(row["run_id"] for row in rows if row["action"] == "canceled")
        return cls(reasons[True], reasons[False], canceled, problems)


def ask(airflow: AirflowServer, *, cancel: bool = False) -> Statement:
    """Ask the command which active runs nobody waits for; with `cancel`, let it cancel them."""
    more = ["--cancel"] if cancel else []
    done = _run(airflow, "runs", "orphans", "--min-age", MIN_AGE, "-o", "json", *more)
    try:
        rows = json.loads(done.stdout)
    except ValueError:
        return Statement({}, {}, frozenset(), f"exit status {done.returncode}: {done.stdout} {done.stderr[-2000:]}")
    return Statement.of(rows, done.stderr.strip() if done.returncode == 1 else "")


def _run(airflow: AirflowServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    command: Sequence[str] = [str(airflow.bin / "airflow-skyvern"), *arguments]
    return subprocess.run(
        command, env=airflow.env, cwd=airflow.home, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
