"""
The ends of a DAG run with a browser session, on a real Airflow and a real Skyvern: which sessions are open then.

``make test SUITE=sessions AIRFLOW=2.11 TIMES=5``: on another Airflow, each end so often.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from dev.process import RigError, wait_until
from dev.skyvern_server import workflows
from tests.sessions.conftest import PATIENCE

if TYPE_CHECKING:
    from tests.sessions.conftest import Rig

SOON = 60.0
TIMES = int(os.environ.get("TIMES", "1"))
OPEN, CLOSE, ENDS = "open_browser_session", "close_browser_session", "ends"


class End:
    """A DAG run whose first task has runs of a workflow of its own, which is one of the rig's."""

    def __init__(self, rig: Rig, name: str, number: int, *, dag_id: str = ENDS, runs: str = "ok_wait") -> None:
        self.rig, self.dag_id, self.name = rig, dag_id, f"{name}_{number}"
        self.workflow = rig.skyvern.create_workflow(self.name, workflows(rig.skyvern.peer_url)[runs])
        then = "wait_30" if dag_id == "killed" else "ok_wait"
        conf = {"workflow_id": self.workflow, "then": rig.skyvern.workflow(then)}
        self.dag_run = rig.airflow.trigger(dag_id, conf, run_id=self.name, timeout=PATIENCE)

    def session(self) -> str:
        """Return the session, once a run is in it."""
        wait_until(f"a run of {self.name}", lambda: self.runs().total() > 0, PATIENCE)
        return str(self.rig.airflow.xcom(self.dag_id, self.dag_run, OPEN))

    def runs(self) -> Counter[str]:
        """Return how many runs the first task has in Skyvern, by status."""
        return Counter(str(run["status"]) for run in self.rig.skyvern.runs_of(self.workflow))

    def wait_run(self) -> str:
        return self.rig.airflow.wait_run(self.dag_id, self.dag_run, timeout=PATIENCE)

    def clear(self, task_id: str = "work") -> None:
        self.rig.airflow.clear(self.dag_id, self.dag_run, task_id)

    def clear_under_way(self) -> dict[str, int]:
        """
        Clear a task that runs, or one that is deferred, and return the runs that the first task has at the end.

        On Airflow 2.11.2 the rig's clear of a running task has no effect, whatever the operator: it runs on.
        """
        if self.rig.airflow.is_3:
            self.clear()
            return {"canceled": 1, "completed": 1}
        self.rig.airflow.wait_task(self.dag_id, self.dag_run, "more", "deferred", timeout=PATIENCE)
        self.clear("more")
        return {"completed": 1}

    def delete_dag_run(self) -> list[str]:
        """Delete the running DAG run, which Airflow 3 refuses, and return the session that nobody knows any more."""
        session = self.session()
        answer = self.rig.airflow.request("DELETE", f"/dags/{self.dag_id}/dagRuns/{self.dag_run}")
        assert answer.status_code == (409 if self.rig.airflow.is_3 else 204), answer.text
        return [] if self.rig.airflow.is_3 else [session]

    def has(self, state: str | None, **runs: int) -> None:
        """Check how the DAG run and the runs of its task have ended, and print it."""
        found = self.wait_run()
        with contextlib.suppress(RigError):  # a cancel takes some seconds
            wait_until("the runs", lambda: dict(self.runs()) == runs, SOON)
        print(f"{self.name}: DAG run {found}, runs of its task {dict(self.runs())}")
        assert state in (None, found)
        assert dict(self.runs()) == runs


@pytest.mark.parametrize("number", range(TIMES))
def test_no_end_of_a_dag_run_leaves_its_session_open(rig: Rig, number: int) -> None:
    """All at once: success, failure, marks, dagrun_timeout, clears, a deletion, an opening that fails."""
    times_out = End(rig, "times_out", number, dag_id="times_out", runs="long_wait")
    left = times_out.session()
    deleted = End(rig, "deleted", number, runs="wait_30")
    unknown = deleted.delete_dag_run()
    succeeds, fails = End(rig, "succeeds", number), End(rig, "fails", number, runs="fail_http")
    marked, run_marked = (End(rig, name, number, runs="long_wait") for name in ("marked", "run_marked"))
    cleared, open_fails = (
        End(rig, "cleared", number, runs="wait_30"),
        End(rig, "open_fails", number, dag_id="open_fails"),
    )

    before = cleared.session()
    runs_of_cleared = cleared.clear_under_way()
    marked.session()
    rig.airflow.mark(ENDS, marked.dag_run, "work", "failed")
    run_marked.session()
    rig.airflow.mark_run(ENDS, run_marked.dag_run, "failed")

    succeeds.has("success", completed=1)
    first = succeeds.session()
    succeeds.clear()
    fails.has("failed", failed=1)
    marked.has("failed", canceled=1)
    run_marked.has(None, canceled=1)  # its teardown may succeed, and with it the DAG run
    times_out.has("failed", canceled=1)
    open_fails.has("failed")
    assert rig.airflow.task_states("times_out", times_out.dag_run)[CLOSE, -1] != "success"
    rig.closes(left, before)
    cleared.has("success", **runs_of_cleared)
    assert cleared.session() != before
    succeeds.has("success", completed=2)  # its task was cleared when it had ended
    assert succeeds.session() != first
    if not unknown:
        deleted.has("success", completed=1)
    wait_until("no other session is open", lambda: rig.open_sessions == unknown, PATIENCE)
    print(f"sessions open afterwards: {len(rig.open_sessions)}, of a deleted DAG run: {len(unknown)}")
    for session in unknown:
        assert rig.skyvern.request("POST", f"/v1/browser_sessions/{session}/close")[0] == 200


@pytest.mark.parametrize("killed", ["triggerer", "scheduler"])
def test_what_is_killed_inside_of_a_session_leaves_none_open(rig: Rig, killed: str) -> None:
    """SIGKILL: of the scheduler while a task runs, of another task with its supervisor, of a triggerer that waits."""
    end = End(rig, f"{killed}_killed", 0, dag_id="killed", runs="wait_30")
    session = end.session()
    if killed == "triggerer":
        rig.airflow.wait_task("killed", end.dag_run, "more", "deferred", timeout=PATIENCE)
    rig.airflow.processes[killed].kill()
    rig.airflow.processes[killed].start()
    end.has("success", completed=1)
    rig.closes(session)
    wait_until("no session is open", lambda: rig.open_sessions == [], PATIENCE)
