"""
Persons and accidents, TIMES each: how the task ends, how many runs there were, and whether any request is left open.

On a real Airflow (3.1 or newer) and a real Skyvern: ``make test SUITE=approvals TIMES=20``.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dev.airflow_server import AirflowServer
from dev.postgres import PostgresServer
from dev.process import wait_until
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer, workflows

ROOT = Path(__file__).parents[2]
DAGS = [Path(__file__).parent / "dags" / "approval_dags.py"]
TIMES = int(os.environ.get("TIMES", "3"))
SLOW = 240.0 + 15.0 * TIMES
THINKING = 15.0
"""Seconds after which a person answers: a task that resumes at once may meet a race of Airflow's scheduler."""


@dataclass
class Rig:
    """Both servers."""

    airflow: AirflowServer
    skyvern: SkyvernServer


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    home = tmp_path_factory.mktemp("approvals")
    with PostgresServer() as postgres, SkyvernServer(home / "skyvern", SKYVERN_VENV) as skyvern:
        env = {"AIRFLOW_CONN_SKYVERN_DEFAULT": json.dumps(skyvern.connection)}
        with AirflowServer(home / "airflow", DAGS, env, postgres=postgres) as airflow:
            yield Rig(airflow, skyvern)


class Scenario:
    """TIMES DAG runs of one DAG, each with a run of one workflow, which asks a person."""

    def __init__(self, rig: Rig, name: str, dag_id: str = "asks") -> None:
        self.rig, self.dag_id = rig, dag_id
        self.workflow = rig.skyvern.create_workflow(name, workflows(rig.skyvern.peer_url)["human"])
        conf = {"workflow_id": self.workflow}
        self.dag_runs = [rig.airflow.trigger(dag_id, conf, run_id=f"{name}_{number}") for number in range(TIMES)]

    def when_asked(self, act: Callable[[str], object], try_number: int = 1) -> None:
        """
        Do this to each DAG run when its task has asked for a while.

        Not to all when the last one has asked: without a browser Skyvern ends a run that has waited for five minutes.
        """
        asked: dict[str, float] = {}
        done: set[str] = set()
        until = time.monotonic() + SLOW
        while len(done) < len(self.dag_runs):
            for dag_run in (run for run in self.dag_runs if run not in done):
                if dag_run not in asked and self._asks(dag_run, try_number):
                    asked[dag_run] = time.monotonic()
                elif time.monotonic() - asked.get(dag_run, math.inf) > THINKING:
                    act(dag_run)
                    done.add(dag_run)
            assert time.monotonic() < until, f"only {len(asked)} have asked, {len(done)} were answered"
            time.sleep(1)

    def approve(self, dag_run: str) -> None:
        self._answer(dag_run, 0)

    def reject(self, dag_run: str) -> None:
        self._answer(dag_run, 1)

    def approve_in_skyvern(self, dag_run: str) -> None:
        run_id = self.rig.airflow.xcom(self.dag_id, dag_run, "run", "run_id")
        status, body = self.rig.skyvern.request("POST", f"/v1/workflows/runs/{run_id}/continue")
        assert status == 200, body

    def clear(self, dag_run: str) -> None:
        self.rig.airflow.clear(self.dag_id, dag_run, "run")

    def mark_failed(self, dag_run: str) -> None:
        self.rig.airflow.mark(self.dag_id, dag_run, "run", "failed")

    def _answer(self, dag_run: str, number: int) -> None:
        """Answer a request in Airflow, as its UI does; the first option approves."""
        body = {"chosen_options": [self._detail(dag_run)["options"][number]], "params_input": {}}
        answered = self.rig.airflow.request("PATCH", self._path(dag_run), body)
        assert answered.status_code == 200, answered.text

    def runs(self) -> list[dict[str, Any]]:
        """Return the runs of the workflow in Skyvern."""
        return self.rig.skyvern.runs_of(self.workflow)

    def ended(self) -> Counter[str]:
        """Wait for the ends of the DAG runs' tasks, and count their states."""
        states: Counter[str] = Counter()
        for dag_run in self.dag_runs:
            self.rig.airflow.wait_run(self.dag_id, dag_run, timeout=SLOW)
            states[str(self.rig.airflow.task(self.dag_id, dag_run, "run")["state"])] += 1
        return states

    def check(self, name: str, states: dict[str, int], runs: dict[str, int]) -> None:
        """Compare the ends with what is expected, and print them."""
        found, statuses = self.ended(), Counter(str(run["status"]) for run in self.runs())
        closed = self.open_requests()
        print(f"{name}: {TIMES} times: tasks {dict(found)}, Skyvern runs {dict(statuses)}, open requests {closed}")
        assert (dict(found), dict(statuses), closed) == (states, runs, 0), self._logs(states)

    def open_requests(self) -> int:
        """Count the requests that still wait for an answer."""
        return sum(self._detail(dag_run)["response_received"] is False for dag_run in self.dag_runs)

    def approval(self, dag_run: str) -> Any:
        """Return the XCom that says who answered."""
        return self.rig.airflow.xcom(self.dag_id, dag_run, "run", "approval")

    def _asks(self, dag_run: str, try_number: int) -> bool:
        task = self.rig.airflow.task(self.dag_id, dag_run, "run")
        if task["state"] in ("failed", "success", "skipped"):
            raise AssertionError(f"{dag_run} is {task['state']}: {self._log(dag_run)}")
        answer = self.rig.airflow.request("GET", self._path(dag_run))
        asked = answer.status_code == 200 and answer.json()["response_received"] is False
        if not (asked and task["state"] == "deferred" and task["try_number"] == try_number):
            return False  # a clear leaves the request of the try before
        return "asks in Airflow" in self.rig.airflow.log(self.dag_id, dag_run, "run", try_number)

    def _detail(self, dag_run: str) -> Any:
        return self.rig.airflow.request("GET", self._path(dag_run)).json()

    def _path(self, dag_run: str) -> str:
        return f"/dags/{self.dag_id}/dagRuns/{dag_run}/taskInstances/run/-1/hitlDetails"

    def _log(self, dag_run: str) -> str:
        task = self.rig.airflow.task(self.dag_id, dag_run, "run")
        return self.rig.airflow.log(self.dag_id, dag_run, "run", max(1, task["try_number"]))[-3000:]

    def _logs(self, wanted: dict[str, int]) -> str:
        wrong = [
            run for run in self.dag_runs if self.rig.airflow.task(self.dag_id, run, "run")["state"] not in wanted
        ]
        return "\n".join(self._log(run) for run in wrong[:2] or self.dag_runs[:1])


def test_approved_in_airflow(rig: Rig) -> None:
    scenario = Scenario(rig, "approved")
    scenario.when_asked(scenario.approve)
    scenario.check("approve", {"success": TIMES}, {"completed": TIMES})
    notes = [scenario.approval(dag_run) for dag_run in scenario.dag_runs]
    assert all(note["approved"] and note["answered_in"] == "airflow" and note["answered_by"] for note in notes), notes


def test_rejected_in_airflow(rig: Rig) -> None:
    scenario = Scenario(rig, "rejected")
    scenario.when_asked(scenario.reject)
    scenario.check("reject", {"failed": TIMES}, {"canceled": TIMES})


def test_rejected_in_airflow_and_skipped(rig: Rig) -> None:
    scenario = Scenario(rig, "skipped", "skips")
    scenario.when_asked(scenario.reject)
    scenario.check("reject, on_reject='skip'", {"skipped": TIMES}, {"canceled": TIMES})


def test_answered_in_skyvern(rig: Rig) -> None:
    scenario = Scenario(rig, "in_skyvern")
    scenario.when_asked(scenario.approve_in_skyvern)
    scenario.check("answer in Skyvern", {"success": TIMES}, {"completed": TIMES})
    assert {scenario.approval(dag_run)["answered_in"] for dag_run in scenario.dag_runs} == {"skyvern"}


def test_nobody_answers(rig: Rig) -> None:
    scenario = Scenario(rig, "nobody", "asks_briefly")
    scenario.check("time out", {"failed": TIMES}, {"canceled": TIMES})


def test_cleared_while_a_person_is_asked(rig: Rig) -> None:
    scenario = Scenario(rig, "cleared")
    scenario.when_asked(scenario.clear)
    scenario.when_asked(scenario.approve, try_number=2)
    scenario.check("clear while waiting", {"success": TIMES}, {"completed": TIMES, "canceled": TIMES})


def test_marked_while_a_person_is_asked(rig: Rig) -> None:
    scenario = Scenario(rig, "marked")
    scenario.when_asked(scenario.mark_failed)
    wait_until("canceled", lambda: {run["status"] for run in scenario.runs()} == {"canceled"}, SLOW)
    wait_until("closed", lambda: scenario.open_requests() == 0, SLOW)
    scenario.check("mark failed", {"failed": TIMES}, {"canceled": TIMES})


def test_the_triggerer_is_killed_while_a_person_is_asked(rig: Rig) -> None:
    triggerer = rig.airflow.processes["triggerer"]
    asked: list[str] = []
    scenario = Scenario(rig, "killed")

    def kill_after_the_last(dag_run: str) -> None:
        asked.append(dag_run)
        if len(asked) == TIMES:
            triggerer.kill()
            for run in asked:
                scenario.approve(run)
            time.sleep(2)
            triggerer.start()

    scenario.when_asked(kill_after_the_last)
    scenario.check("kill of the triggerer", {"success": TIMES}, {"completed": TIMES})
