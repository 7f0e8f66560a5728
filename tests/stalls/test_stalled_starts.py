"""
A try that stalls at its start past its heartbeat, and wakes up when the retry has started: one run.

On real servers: the task's process and its supervisor are stopped by SIGSTOP. ``make test SUITE=stalls``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dev.airflow_server import AirflowServer
from dev.postgres import PostgresServer
from dev.process import wait_until
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer

DAGS = Path(__file__).parent / "dags"
DAG_ID, TASK = "stalled", "run"
STALLS = ("at first", "before the check", "before the start", "on the connection", "after the start")
HEARTBEAT_TIMEOUT = 20
DETECTION_INTERVAL = "10"
"""2.11 finds a lost task again until its DAG processor has failed it, and each time fails whatever try there is."""
SETTINGS = {
    "CORE__PARALLELISM": "12",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(HEARTBEAT_TIMEOUT),
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": DETECTION_INTERVAL,
    "SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": str(HEARTBEAT_TIMEOUT),
    "SCHEDULER__ZOMBIE_DETECTION_INTERVAL": DETECTION_INTERVAL,
}
AFTERWARDS = 15.0
"""Seconds for which the woken try may do something."""


class Rig:
    """Both servers, the stalls that have been caused, and what Skyvern has of them."""

    def __init__(self, airflow: AirflowServer, skyvern: SkyvernServer, folder: Path) -> None:
        self.airflow, self.skyvern, self.folder = airflow, skyvern, folder
        self.run_ids: dict[str, str] = {}
        self.woken = False

    def start(self, stall: str) -> None:
        conf = {"workflow_id": self.skyvern.workflow("long_wait"), "folder": str(self.folder), "stall": stall}
        self.run_ids[stall] = self.airflow.trigger(DAG_ID, conf, run_id=f"stall_{stall.replace(' ', '_')}")

    def wake(self, stall: str) -> None:
        for pid in self._stopped(stall).read_text().split():
            os.kill(int(pid), signal.SIGCONT)

    def _stopped(self, stall: str) -> Path:
        return self.folder / f"{self.run_ids[stall]}.txt"

    def is_stopped(self, stall: str) -> bool:
        return self._stopped(stall).exists()

    def runs(self, stall: str) -> list[dict[str, Any]]:
        """Return the Skyvern runs of the stalled task, whoever has started them."""
        status, rows = self.skyvern.request("GET", f"/v1/runs?tags=airflow_run_id:{self.run_ids[stall]}")
        assert status == 200, rows
        return list(rows)

    def task(self, stall: str) -> tuple[str, int]:
        """Return the state of the task and the number of its newest try."""
        task = self.airflow.task(DAG_ID, self.run_ids[stall], TASK)
        return task["state"], task["try_number"]

    def retry_has_run(self, stall: str) -> bool:
        state, number = self.task(stall)
        return number > 1 and state == "deferred" and bool(self.runs(stall))


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    home, folder = tmp_path_factory.mktemp("stalls"), tmp_path_factory.mktemp("stopped")
    with PostgresServer() as postgres, SkyvernServer(home / "skyvern", SKYVERN_VENV) as skyvern:
        env = {f"AIRFLOW__{name}": value for name, value in SETTINGS.items()}
        env["AIRFLOW_CONN_SKYVERN_DEFAULT"] = json.dumps(skyvern.connection)
        python_bin = os.environ.get("STALLS_PYTHON_BIN")
        chosen = Path(python_bin) if python_bin else None
        with AirflowServer(home / "airflow", DAGS, env, chosen, postgres=postgres) as airflow:
            rig = Rig(airflow, skyvern, folder)
            try:
                for stall in STALLS:
                    rig.start(stall)
                yield rig
            finally:
                for stall in filter(rig.is_stopped, rig.run_ids):
                    with_nobody_left(rig, stall)


def with_nobody_left(rig: Rig, stall: str) -> None:
    """End the stopped processes of a test that failed before it woke them."""
    for pid in (rig.folder / f"{rig.run_ids[stall]}.txt").read_text().split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)


@pytest.mark.parametrize("stall", STALLS)
def test_a_try_that_stalls_at_its_start_and_was_overtaken_starts_no_second_run(rig: Rig, stall: str) -> None:
    wait_until(f"stalled {stall}", lambda: rig.is_stopped(stall), 180)
    wait_until("the retry has its run", lambda: rig.retry_has_run(stall), 300)
    [run] = rig.runs(stall)
    waits = rig.task(stall)
    rig.wake(stall)
    until = time.monotonic() + AFTERWARDS
    while time.monotonic() < until:
        time.sleep(1)
        assert [row["run_id"] for row in rig.runs(stall)] == [run["run_id"]]
        assert rig.runs(stall)[0]["status"] == "running"
        assert rig.task(stall) == waits  # 2.11 would write the end of the woken try into the row of the retry
    assert rig.airflow.xcom(DAG_ID, rig.run_ids[stall], TASK, "run_id") == run["run_id"]
