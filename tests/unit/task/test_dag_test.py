"""What `dag.test()` does with our operators: all in one process, without a scheduler, on each Airflow."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_skyvern.compat.since_3_0 import is_airflow_3
from tests.support import dag_test_walk
from tests.support.dag_test_world import ERRORS

RUNS = {"ordinary": 1, "deferred": 1, "mapped": 3, "subclass": 1, "prompted": 1, "function": 2}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What became of the DAGs; tests/unit/conftest.py has started the walk through them."""
    return dag_test_walk.results_in(dag_test_walk.home_of(tmp_path_factory))


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
