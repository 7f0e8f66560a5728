"""
The second witness: what `airflow-skyvern runs orphans` says after all executions.

The suite itself compares what it did with what Skyvern has. The command knows nothing of the suite: it compares
Skyvern with Airflow's database, as a person or a cron job does.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

from dev.process import RigError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dev.airflow_server import AirflowServer

REQUIRED = False
"""Whether the command must be there. False until it is merged: then its absence fails the suite."""

MIN_AGE = "15s"
"""The suite's runs are young: it asks when all is over, and no start is under way."""

PATIENCE = 300.0


def is_there(airflow: AirflowServer) -> bool:
    """Return whether this package has the command."""
    there = _run(airflow, "runs", "orphans", "--help").returncode == 0
    if REQUIRED and not there:
        raise RigError("airflow-skyvern has no command `runs orphans`")
    return there


def orphans(airflow: AirflowServer, *, cancel: bool = False) -> list[str]:
    """Return the runs that nobody waits for, as the command finds them; with `cancel`, those that it canceled."""
    more = ["--cancel"] if cancel else []
    done = _run(airflow, "runs", "orphans", "--min-age", MIN_AGE, "-o", "json", *more)
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise RigError(f"runs orphans: {done.returncode} {done.stdout[-2000:]} {done.stderr[-2000:]}") from None
    return run_ids(found)


def run_ids(found: Any) -> list[str]:
    """Return the ids in what the command prints: a list of rows, or a mapping that holds it."""
    rows = found if isinstance(found, list) else next(rows for rows in found.values() if isinstance(rows, list))
    return [str(row["run_id"]) for row in rows]


def _run(airflow: AirflowServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    command: Sequence[str] = [str(airflow.bin / "airflow-skyvern"), *arguments]
    return subprocess.run(
        command, env=airflow.env, cwd=airflow.home, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
