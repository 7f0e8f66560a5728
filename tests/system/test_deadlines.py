"""A DAG run that misses its deadline: Airflow has the provider name and cancel its Skyvern run; Airflow 3.1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dev.skyvern_server import workflows

if TYPE_CHECKING:
    from tests.system.conftest import Rig

PATIENCE = 240.0


def test_an_overdue_run_is_named_and_canceled(rig: Rig) -> None:
    if rig.airflow.version < (3, 1):
        pytest.skip("deadlines came with Airflow 3.1")
    workflow = rig.skyvern.create_workflow("overdue", workflows(rig.skyvern.peer_url)["long_wait"])
    dag_run = rig.airflow.trigger("overdue", {"workflow_id": workflow}, run_id="test_overdue")
    rig.airflow.wait_task("overdue", dag_run, "run", "deferred", timeout=PATIENCE)
    run_id = rig.airflow.xcom("overdue", dag_run, "run", "run_id")
    rig.wait_run_status(run_id, "canceled", PATIENCE)
    assert rig.airflow.wait_run("overdue", dag_run, timeout=PATIENCE) == "failed"
    said = f"DAG overdue: run {dag_run} has missed its deadline; task run has Skyvern run {run_id} (canceled now)"
    assert said in (rig.airflow.home / "triggerer.log").read_text(errors="replace")
