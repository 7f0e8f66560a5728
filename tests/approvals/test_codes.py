"""
Codes that a person has, on a real Airflow; Skyvern is simulated, as a real one needs a browser to wait for a code.

SIGKILL of the worker right before and right after its request in Required Actions, and of both triggerers while a
person is asked: one run, one code, no request left open, and the code nowhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from airflow_skyvern.testing.fake.skyvern import API_KEY, FakeSkyvern
from airflow_skyvern.testing.loopback import Loopback
from dev.airflow_server import AirflowServer
from dev.postgres import PostgresServer
from dev.process import wait_until
from tests.faults.leaks import Leaks
from tests.support.ui_rig import OUR_PAGE

DAGS = [Path(__file__).parent / "dags" / "code_dags.py"]
DAG, TASK, CODE, WRONG = "asks_for_code", "run", "ZEBRA-7731", "HERON-5502"
LOGIN = {"label": "sign_in", "block_type": "login", "totp_identifier": "ops@example.com", "code": CODE}
PATIENCE = 300.0


@dataclass
class Rig:
    airflow: AirflowServer
    fake: FakeSkyvern

    def start(self, name: str, killed: str) -> str:
        workflow = self.fake.workflow(blocks=[LOGIN], plan=("running", "completed"), output={"invoices": 3})
        return self.airflow.trigger(DAG, {"workflow_id": workflow, "killed": killed}, run_id=name, timeout=PATIENCE)

    def wait_until_asked(self, name: str, try_number: int) -> None:
        self.airflow.wait_task(DAG, name, TASK, "deferred", timeout=PATIENCE, try_number=try_number)
        wait_until(f"{name} asks", lambda: self.is_open(name) and self._has_asked(name, try_number), PATIENCE)

    def _has_asked(self, name: str, try_number: int) -> bool:
        waits = self.airflow.task(DAG, name, TASK)["state"] == "deferred"
        return waits and "waits for a code at block" in self.airflow.log(DAG, name, TASK, try_number)

    def is_open(self, name: str) -> bool:
        found = self.airflow.request("GET", f"/dags/{DAG}/dagRuns/{name}/taskInstances/{TASK}/-1/hitlDetails")
        return found.status_code == 200 and found.json()["response_received"] is False

    def send(self, name: str, code: str) -> int:
        """Type a code on the page of the run."""
        token = {"authorization": f"Bearer {self.airflow.token}", "accept": "*/*"}
        url = f"{self.airflow.ui_url}/skyvern/ti/{DAG}/{name}/{TASK}/-1/code"
        return self.airflow.client.post(url, json={"code": code}, headers={**token, **OUR_PAGE}).status_code


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    home = tmp_path_factory.mktemp("codes")
    with PostgresServer() as postgres, Loopback() as loopback:
        loopback.fake = FakeSkyvern()
        env: dict[str, Any] = {
            "AIRFLOW_CONN_SKYVERN_DEFAULT": json.dumps(
                {"conn_type": "skyvern", "host": loopback.url, "password": API_KEY}
            ),
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
        }
        with AirflowServer(home / "airflow", DAGS, env, postgres=postgres, triggerers=2) as airflow:
            yield Rig(airflow, loopback.fake)


def test_codes_reach_their_runs_though_workers_and_triggerers_are_killed(rig: Rig) -> None:
    """All at once: killed before the request, after it, and not; then both triggerers; wrong, right, twice, late."""
    names = [rig.start(killed, killed) for killed in ("before", "after", "never")]
    for name in names:
        rig.wait_until_asked(name, 1 if name == "never" else 2)
    for triggerer in rig.airflow.triggerers:
        rig.airflow.processes[triggerer].kill()
    assert rig.send("before", WRONG) == 200  # no triggerer is needed for that
    assert rig.send("after", CODE) == 200
    for triggerer in rig.airflow.triggerers:
        rig.airflow.processes[triggerer].start()
    rig.wait_until_asked("before", 2)
    assert rig.send("before", CODE) == 200
    assert rig.send("never", CODE) == 200
    assert rig.send("never", CODE) == 409  # twice
    assert {rig.airflow.wait_run(DAG, name, timeout=PATIENCE) for name in names} == {"success"}
    assert {rig.send(name, CODE) for name in names} == {409}  # late
    assert [rig.is_open(name) for name in names] == [False] * 3
    typed = sorted([code for _, code in run.typed] for run in rig.fake.runs.values())
    print(f"{len(names)} tasks, {len(rig.fake.runs)} runs, codes typed in: {typed}")
    assert typed == sorted([[CODE], [CODE], [WRONG, CODE]])
    leaks = Leaks(rig.airflow, {CODE, WRONG})
    leaks.look_into_database()
    leaks.look_into_files()
    assert leaks.found == set()
