"""What `dag.test()` does with our operators: all in one process, without a scheduler, on each Airflow."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_skyvern.compat.since_3_0 import is_airflow_3
from tests.support.dag_test_world import ERRORS

ROOT = Path(__file__).parents[3]
RUNS = {"ordinary": 1, "deferred": 1, "mapped": 3, "subclass": 1, "prompted": 1, "function": 2}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What became of the DAGs; walking them takes a minute, so the first process of pytest-xdist does it for all."""
    base = tmp_path_factory.getbasetemp()
    home = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "dag_test"
    found = home / "results.json"
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not home.exists():
            _walk(home)
    assert found.exists(), (home / "log").read_text()[-15000:]
    results: dict[str, Any] = json.loads(found.read_text())
    return results


def _walk(home: Path) -> None:
    home.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
        "PYTHONPATH": str(ROOT),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
    }
    command = [sys.executable, "-m", "tests.support.dag_test_world"]
    with (home / "log").open("w") as log:
        subprocess.run(command, cwd=ROOT, env=env, stdout=log, stderr=log, timeout=900, check=False)


@pytest.mark.parametrize("name", RUNS)
def test_an_operator_that_is_a_task_starts_its_run(walked: dict[str, Any], name: str) -> None:
    assert walked[name] == {"state": "success", "starts": RUNS[name], "said": []}


def test_an_operator_inside_a_task_refuses_before_anything_is_started(walked: dict[str, Any]) -> None:
    nested = walked["nested"]
    assert (nested["state"], nested["starts"]) == ("failed", 0)
    assert len(nested["said"]) == 1, "AirflowFailException means that there is no retry"
    assert (
        "AirflowFailException: SkyvernRunWorkflowOperator 'A' was executed inside task 'outer'" in nested["said"][0]
    )


@pytest.mark.parametrize(
    "ended", [f"{word}_{retries}" for word in ("marked", "cleared", "deleted") for retries in (0, 1)]
)
def test_a_task_that_a_user_ends_while_it_waits_on_its_worker_cancels_its_run(
    walked: dict[str, Any], ended: str
) -> None:
    """The word "failed" in the database is a user's, or the last try's own; no other try has taken over."""
    assert walked[ended]["said"][0] == "canceled"


@pytest.mark.skipif(is_airflow_3(), reason="3.x itself refuses the state of a task that was marked")
@pytest.mark.parametrize("error", ERRORS)
def test_an_error_does_not_overwrite_the_mark_of_a_user(walked: dict[str, Any], error: str) -> None:
    assert walked[f"marked_before_{error}"]["state"] == "success"


def test_a_retry_closes_the_session_of_the_try_before_also_where_airflow_keeps_no_state(
    walked: dict[str, Any],
) -> None:
    """Two were opened; one is open for the tasks of the block, and none after their teardown."""
    assert walked["session"] == {"state": "success", "starts": 1, "said": [[2, 1], [2, 0]]}


def test_a_try_that_was_replaced_in_the_database_starts_nothing(walked: dict[str, Any]) -> None:
    assert walked["overtaken"]["starts"] == 0
    assert "SkyvernOvertaken: Another try of this task has taken over" in walked["overtaken"]["said"][0]
