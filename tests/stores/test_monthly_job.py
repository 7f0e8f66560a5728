"""The complete example and its backfill, in Berlin's time around the end of a month and a change of the clocks."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pendulum
import psycopg2
import pytest

from dev.airflow_server import AirflowServer
from dev.postgres import PostgresServer
from dev.process import RigError, wait_until

if TYPE_CHECKING:
    from tests.stores.conftest import Rig

ROOT = Path(__file__).parents[2]
EXAMPLE, AT_SIX = ROOT / "dags" / "monthly_statements.py", "skyvern_monthly_statements"
AT_MIDNIGHT = "monthly_at_midnight"
VENDORS = ["ACME", "Oak"]
DATES = ["--from-date", "2026-03-01T00:00+01:00", "--to-date", "2026-04-01T23:59+02:00"]
"""Two first days of a month; the clocks change on 29 March."""

WITHOUT_OFFSET = ["--from-date", "2026-03-01", "--to-date", "2026-04-01"]
MONTHS = ["2026-02", "2026-03"]


@dataclass
class Job:
    """One of the two DAGs."""

    airflow: AirflowServer
    rig: Rig
    dag_id: str
    folder: Path

    def backfill(self, *arguments: str) -> str:
        return self.airflow.cli("backfill", "create", "--dag-id", self.dag_id, "--max-active-runs", "2", *arguments)

    def can_backfill(self, *arguments: str) -> bool:
        """Create a backfill, once Airflow has noticed that the one before is over, which takes half a minute."""
        try:
            self.backfill(*arguments)
        except RigError as error:
            if "AlreadyRunningBackfill" in str(error):
                return False
            raise
        return True

    def dag_runs(self) -> dict[str, str]:
        """The state of each DAG run by its logical date."""
        answer = self.airflow.request("GET", f"/dags/{self.dag_id}/dagRuns").json()
        return {run["logical_date"]: run["state"] for run in answer["dag_runs"]}


def moments_in(dry_run: str) -> list[str]:
    """The runs that a dry run lists, in UTC, below the two dates that it was given."""
    return re.findall(r"2026-\d\d-\d\d \d\d:\d\d", dry_run.replace("T", " "))[2:]


def written(file: Path, changes: dict[str, str]) -> Path:
    """Copy the example as its user would, who replaces what is theirs."""
    text = EXAMPLE.read_text()
    for old, new in changes.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    file.write_text(text)
    return file


def newest_month(now: pendulum.DateTime, hour: int, minute: int) -> str:
    """The month that the newest tick in Berlin's time fetches: it runs when the DAG is unpaused."""
    tick = now.start_of("month").add(hours=hour, minutes=minute)
    return (tick if tick <= now else tick.subtract(months=1)).subtract(months=1).format("YYYY-MM")


@pytest.fixture(scope="module")
def warehouse() -> Iterator[str]:
    with PostgresServer() as postgres:
        yield postgres.uri("postgres")


def rows_in(warehouse: str) -> list[tuple[str, str, int]]:
    """Month, vendor and number of rows."""
    connection = psycopg2.connect(warehouse)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT month, vendor, count(*) FROM statements GROUP BY month, vendor ORDER BY 1, 2")
        rows: list[tuple[str, str, int]] = cursor.fetchall()
    connection.close()
    return rows


def without_rows(warehouse: str) -> None:
    """Remove what another DAG has stored: on the 1st of a month, they differ about the newest month."""
    connection = psycopg2.connect(warehouse)
    with connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS statements")
    connection.close()


@pytest.fixture(scope="module")
def airflow(session_rig: Rig, warehouse: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowServer]:
    home = tmp_path_factory.mktemp("monthly")
    ours = {
        '"wpid_123"': f'"{session_rig.skyvern.workflow("vendor")}"',
        '["ACME", "Globex", "Initech"]': str(VENDORS).replace("'", '"'),
        '"/tmp/statements"': f'"{home}/statements"',
    }
    changes = {AT_SIX: {}, AT_MIDNIGHT: {f'"{AT_SIX}"': f'"{AT_MIDNIGHT}"', '"0 6 1 * *"': '"30 0 1 * *"'}}
    files = [written(home / f"{dag_id}.py", {**ours, **own}) for dag_id, own in changes.items()]
    env = {**session_rig.connections, "AIRFLOW_CONN_WAREHOUSE": warehouse}
    with (
        PostgresServer() as postgres,
        AirflowServer(home / "airflow", files, env, postgres=postgres) as server,
    ):
        server.cli("pools", "set", "--include-deferred", "skyvern", "3", "Skyvern runs at a time")
        yield server


def test_a_date_without_an_offset_is_in_utc_as_the_documentation_warns(airflow: AirflowServer, rig: Rig) -> None:
    """A dry run leaves out dates that have a run, so this is the first test here."""
    airflow.wait_dag(AT_MIDNIGHT)
    listed = Job(airflow, rig, AT_MIDNIGHT, Path()).backfill(*WITHOUT_OFFSET, "--dry-run")
    assert moments_in(listed) == ["2026-03-31 22:30"]


@pytest.mark.parametrize(
    ("dag_id", "tick", "moments"),
    [
        (AT_SIX, (6, 0), ["2026-03-01 05:00", "2026-04-01 04:00"]),
        (AT_MIDNIGHT, (0, 30), ["2026-02-28 23:30", "2026-03-31 22:30"]),
    ],
)
def test_schedule_and_backfill_take_the_months_of_berlin(
    airflow: AirflowServer, rig: Rig, warehouse: str, dag_id: str, tick: tuple[int, int], moments: list[str]
) -> None:
    job = Job(airflow, rig, dag_id, Path(airflow.home).parent / "statements")
    shutil.rmtree(job.folder, ignore_errors=True)
    without_rows(warehouse)
    airflow.wait_dag(dag_id)
    assert moments_in(job.backfill(*DATES, "--dry-run")) == moments
    assert job.dag_runs() == {}

    newest = newest_month(pendulum.now("Europe/Berlin"), *tick)
    airflow.cli("dags", "unpause", dag_id)  # which runs the newest date at once
    job.backfill(*DATES)
    wait_until("all months", lambda: sorted(job.dag_runs().values()) == ["success"] * 3, 420)
    wanted = [(month, vendor) for month in sorted([*MONTHS, newest]) for vendor in VENDORS]
    files = sorted(str(path.relative_to(job.folder)) for path in job.folder.rglob("*.*"))
    assert files == [f"{month}/{vendor}.pdf" for month, vendor in wanted]
    assert rows_in(warehouse) == [(month, vendor, len(vendor)) for month, vendor in wanted]
    print(f"{dag_id}: {sorted(job.dag_runs())} became {[*MONTHS, newest]}")

    before = len(rig.skyvern.runs_of(rig.skyvern.workflow("vendor")))
    wait_until("the backfill is over", lambda: job.can_backfill(*DATES), 120)  # those dates have a run
    time.sleep(20)  # a scheduler that would start one does so within seconds
    assert sorted(job.dag_runs().values()) == ["success"] * 3
    assert len(rig.skyvern.runs_of(rig.skyvern.workflow("vendor"))) == before
