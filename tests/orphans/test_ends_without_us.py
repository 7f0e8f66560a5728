"""
Ends of tasks that reach no code of the provider, on a real Airflow and a real Skyvern: who cancels the run, and when.

``runs orphans --cancel`` leaves none, and touches none that somebody waits for.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dev.airflow_server import AirflowServer
from dev.postgres import PostgresServer
from dev.process import wait_until
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer

DAGS = Path(__file__).parent / "dags" / "orphan_dags.py"
OVER = ("success", "failed", "skipped")
ENDED = ("completed", "failed", "terminated", "timed_out", "canceled")
PATIENCE = 240.0


class Rig:
    """Both servers."""

    def __init__(self, airflow: AirflowServer, skyvern: SkyvernServer) -> None:
        self.airflow, self.skyvern = airflow, skyvern
        self.started: dict[str, str] = {}
        self.runs: dict[str, str] = {}

    def start(self, dag_id: str, workflow: str = "long_wait") -> None:
        conf = {"workflow_id": self.skyvern.workflow(workflow)}
        self.started[dag_id] = self.airflow.trigger(dag_id, conf, run_id=f"test_{dag_id}", timeout=PATIENCE)

    def run_of(self, dag_id: str) -> str:
        """Return the Skyvern run of a DAG's task, once it has one."""
        if dag_id not in self.runs:
            wait_until(f"run of {dag_id}", lambda: self._has_run(dag_id), PATIENCE)
        return self.runs[dag_id]

    def _has_run(self, dag_id: str) -> bool:
        try:
            self.runs[dag_id] = self.airflow.xcom(dag_id, self.started[dag_id], "run", key="run_id")
        except KeyError:
            return False
        return True

    def status(self, run_id: str) -> str:
        return str(self.skyvern.request("GET", f"/v1/runs/{run_id}")[1]["status"])

    def state(self, dag_id: str) -> str | None:
        return self.airflow.task_states(dag_id, self.started[dag_id])["run", -1]

    def wait_state(self, dag_id: str, state: str) -> None:
        self.airflow.wait_task(dag_id, self.started[dag_id], "run", state, timeout=PATIENCE)

    def orphans(self, *arguments: str, **env: str) -> tuple[int, dict[str, dict[str, Any]]]:
        command = [str(self.airflow.bin / "airflow-skyvern"), "runs", "orphans", "-o", "json", *arguments]
        done = subprocess.run(
            command, env={**self.airflow.env, **env}, capture_output=True, text=True, timeout=200, check=False
        )
        rows = [line for line in done.stdout.splitlines() if line.startswith("[{") or line == "[]"]
        assert rows, done.stdout + done.stderr
        return done.returncode, {row["run_id"]: row for row in json.loads(rows[-1])}


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    home = tmp_path_factory.mktemp("orphans")
    with PostgresServer() as postgres, SkyvernServer(home / "skyvern", SKYVERN_VENV) as skyvern:
        env = {
            "AIRFLOW_CONN_SKYVERN_DEFAULT": json.dumps(skyvern.connection),
            "AIRFLOW__SKYVERN__INSTALLATION": "orphans",
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
            "AIRFLOW__SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": "30",
            "AIRFLOW__SCHEDULER__PARSING_CLEANUP_INTERVAL": "5",
            "AIRFLOW__DAG_PROCESSOR__STALE_DAG_THRESHOLD": "5",
        }
        airflow = AirflowServer(home / "airflow", [DAGS], env, postgres=postgres)
        flag = home / "airflow" / "dags" / "with_the_removed_dag"
        flag.touch()
        with airflow:
            rig = Rig(airflow, skyvern)
            for dag_id in ("timed_out_between_tries", "deleted", "healthy", "fire_and_forget", "file_removed"):
                rig.start(dag_id)
            rig.start("ends_in_the_triggerer", "wait_5")
            rig.run_of("file_removed")
            flag.unlink()
            yield rig


def test_dags_that_end_in_the_triggerer_work_beside_the_listener(rig: Rig) -> None:
    """Airflow refuses them where the DAG processor has a listener."""
    assert rig.airflow.import_errors() == []
    dag_id = "ends_in_the_triggerer"
    ended = rig.airflow.wait_task(dag_id, rig.started[dag_id], "wait", OVER, timeout=PATIENCE)
    assert ended["state"] == "success"


def test_a_dagrun_timeout_between_two_tries_cancels_the_run(rig: Rig) -> None:
    run_id = rig.run_of("timed_out_between_tries")
    dag_run = rig.started["timed_out_between_tries"]
    assert rig.airflow.wait_run("timed_out_between_tries", dag_run, timeout=PATIENCE) == "failed"
    assert rig.state("timed_out_between_tries") == "skipped"
    wait_until("canceled", lambda: rig.status(run_id) == "canceled", 60)


def test_the_command_line_cancels_what_a_deletion_and_a_removed_file_leave_and_nothing_else(rig: Rig) -> None:
    rig.wait_state("deleted", "deferred")
    rig.wait_state("healthy", "deferred")
    deleted, removed = rig.run_of("deleted"), rig.run_of("file_removed")
    rig.wait_state("file_removed", "up_for_retry")
    kept = [rig.run_of("healthy"), rig.run_of("fire_and_forget")]
    rig.wait_state("fire_and_forget", "success")
    _, before = rig.orphans("--min-age", "0s")
    assert not any(before[run_id]["orphan"] for run_id in (deleted, kept[0]))
    assert kept[1] not in before
    rig.airflow.request("DELETE", "/dags/deleted")

    def both_are_orphans_or_over() -> bool:
        _, rows = rig.orphans("--min-age", "1s")
        return all(rig.status(run_id) in ENDED or rows[run_id]["orphan"] for run_id in (deleted, removed))

    wait_until("both are orphans", both_are_orphans_or_over, PATIENCE)
    assert rig.orphans("--min-age", "1s", AIRFLOW__SKYVERN__INSTALLATION="staging")[0] == 0
    status, rows = rig.orphans("--cancel", "--min-age", "1s")
    assert status == 0, rows
    assert [rig.status(run_id) for run_id in (deleted, removed)] == ["canceled"] * 2
    assert not {rig.status(run_id) for run_id in kept} & set(ENDED)
    assert rig.state("healthy") == "deferred"
    status, rows = rig.orphans("--min-age", "0s")
    assert (status, [row["dag_id"] for row in rows.values()]) == (0, ["healthy"])
