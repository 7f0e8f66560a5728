"""Tries that end before their run, on a real Airflow: when the run is canceled, and when the next try resumes it."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import create_engine, text

from airflow_skyvern.compat.since_3_0 import is_airflow_3
from dev.process import wait_until
from dev.skyvern_server import workflows

if TYPE_CHECKING:
    from tests.system.conftest import Rig

pytestmark = pytest.mark.core
SLOW = 240.0


class Task:
    """The only task of a DAG run, with a workflow of its own, so that its runs can be counted."""

    def __init__(self, rig: Rig, dag_id: str, hold: str = "") -> None:
        self.rig, self.airflow, self.dag_id = rig, rig.airflow, dag_id
        name = f"{dag_id} {hold}".strip().replace(" ", "_")
        self.workflow = rig.skyvern.create_workflow(name, workflows(rig.skyvern.peer_url)["long_wait"])
        self.dag_run = self.airflow.trigger(
            dag_id, {"workflow_id": self.workflow, "hold": hold}, run_id=f"test_{name}"
        )

    def xcom(self, key: str) -> Any:
        """Wait for an XCom of the task."""
        found: list[Any] = []

        def there() -> bool:
            with suppress(KeyError):
                found.append(self.airflow.xcom(self.dag_id, self.dag_run, "run", key=key))
            return bool(found)

        wait_until(f"XCom {key} of {self.dag_run}", there, SLOW)
        return found[0]

    def wait(self, state: str, try_number: int) -> None:
        self.airflow.wait_task(self.dag_id, self.dag_run, "run", state, timeout=SLOW, try_number=try_number)

    @property
    def statuses(self) -> list[str]:
        return [run["status"] for run in self.rig.skyvern.runs_of(self.workflow)]


@pytest.mark.parametrize("last", [False, True], ids=["a retry follows", "no retry follows"])
def test_a_retry_that_is_stopped_before_it_has_found_its_run(rig: Rig, *, last: bool) -> None:
    held = 3 if last else 2
    task = Task(rig, "held_worker", f"started {held}")
    for number in range(1, held):
        task.wait("running", number)
        run_id = task.xcom("run_id")
        os.kill(task.xcom(f"process_{number}"), signal.SIGKILL)
    os.kill(task.xcom("held"), signal.SIGTERM)
    if last:
        rig.wait_run_status(run_id, "canceled", timeout=60)
        task.wait("failed", 3)
    else:
        task.xcom("process_3")
        assert task.xcom("run_id") == run_id
        assert task.statuses == ["running"]
        rig.cancel(run_id)
    assert len(task.statuses) == 1


@pytest.mark.skipif(is_airflow_3(), reason="Airflow 3 gives each try a row of its own")
def test_a_first_try_that_is_executed_twice_keeps_its_run(rig: Rig) -> None:
    """An overloaded Airflow 2.11 does so: its row is set back after the retry was queued."""
    task = Task(rig, "executed_twice")
    task.wait("running", 1)
    run_id = task.xcom("run_id")
    first = task.xcom("process_1")
    os.kill(first, signal.SIGKILL)
    task.wait("up_for_retry", 1)
    assert rig.airflow.postgres is not None
    set_back = "UPDATE task_instance SET try_number = 0 WHERE dag_id = 'executed_twice'"
    with create_engine(rig.airflow.postgres.url("airflow")).begin() as connection:
        connection.execute(text(set_back))
    wait_until("executed again", lambda: task.xcom("process_1") != first, SLOW)
    task.wait("running", 1)
    assert task.xcom("run_id") == run_id
    assert task.statuses == ["running"]
    rig.cancel(run_id)


def test_a_task_that_is_stopped_while_it_is_resumed_at_its_deadline_leaves_the_run_to_its_retry(rig: Rig) -> None:
    task = Task(rig, "held_deferred", "resumed 1")
    run_id = task.xcom("run_id")
    os.kill(task.xcom("held"), signal.SIGTERM)
    task.wait("deferred", 2)
    assert task.xcom("run_id") == run_id
    assert task.statuses == ["running"]
    rig.wait_run_status(run_id, "canceled", timeout=SLOW)  # at the deadline of the second try
    assert len(task.statuses) == 1


def test_a_deferred_task_whose_dag_is_deleted_cancels_its_run(rig: Rig) -> None:
    task = Task(rig, "deleted")
    run_id = task.xcom("run_id")
    task.wait("deferred", 1)
    # A DAG that is deleted before the triggerer has begun is for `airflow-skyvern runs orphans`.
    rig.wait_for_trigger("deleted", task.dag_run)
    response = task.airflow.request("DELETE", "/dags/deleted")
    assert response.status_code in (200, 204), response.text
    rig.wait_run_status(run_id, "canceled", timeout=30)
