from __future__ import annotations

from datetime import timedelta
from importlib.util import find_spec

import pytest

from airflow_skyvern.exceptions import (
    BAD_ENDINGS,
    SkyvernConfigError,
    SkyvernConnectionError,
    SkyvernError,
    error_of_ending,
)
from airflow_skyvern.models import Run

if find_spec("airflow.sdk") is None or find_spec("airflow.sdk.definitions.retry_policy") is None:
    pytest.skip("retry policies came with Airflow 3.3", allow_module_level=True)

from airflow.sdk.definitions.retry_policy import RetryAction

from airflow_skyvern.retries import skyvern_retry_policy


def ending(status: str) -> SkyvernError:
    return error_of_ending(Run(run_id="wr_1", status=status))


@pytest.mark.parametrize(
    ("status", "action"),
    [
        ("failed", RetryAction.RETRY),
        ("timed_out", RetryAction.RETRY),
        ("terminated", RetryAction.FAIL),
        ("canceled", RetryAction.FAIL),
    ],
)
def test_endings_that_may_go_well_next_time_are_retried(status: str, action: RetryAction) -> None:
    decision = skyvern_retry_policy().evaluate(ending(status), try_number=1, max_tries=3)
    assert decision.action is action
    assert decision.reason == f"the Skyvern run ended as {status}"


REACHED = [
    Run(run_id="wr_1", status="failed", failure_reason="failure reason: Reached the maximum steps (7)."),
    Run(run_id="wr_1", status="failed", failure_reason="Reached the max number of 10 steps. Possible …"),
    Run(run_id="wr_1", status="failed", errors=[{"error_code": "REACH_MAX_STEPS"}]),
    Run(
        run_id="wr_1",
        status="timed_out",
        failure_reason="Workflow run exceeded max elapsed runtime limit of 1 minute.",
    ),
]


@pytest.mark.parametrize("run", REACHED)
@pytest.mark.parametrize("retry_on", [("failed", "timed_out"), "failed", "timed_out"])
def test_a_run_is_not_retried_into_the_limit_that_has_ended_it(run: Run, retry_on: str) -> None:
    error = error_of_ending(run)
    decision = skyvern_retry_policy(retry_on).evaluate(error, try_number=1, max_tries=3)
    assert decision.action is RetryAction.FAIL
    assert decision.reason == f"the Skyvern run reached {run.limit_reached}"


@pytest.mark.parametrize("run", REACHED)
def test_an_author_may_want_it_nevertheless(run: Run) -> None:
    policy = skyvern_retry_policy(retry_at_limit=True)
    assert policy.evaluate(error_of_ending(run), try_number=1, max_tries=3).action is RetryAction.RETRY


def test_errors_that_are_no_ending_keep_airflows_rules() -> None:
    decision = skyvern_retry_policy().evaluate(SkyvernConnectionError("x"), try_number=1, max_tries=3)
    assert decision.action is RetryAction.DEFAULT


def test_what_is_retried_and_when_can_be_chosen() -> None:
    policy = skyvern_retry_policy(["terminated"], retry_delay=timedelta(minutes=5))
    decisions = {status: policy.evaluate(ending(status), try_number=1, max_tries=3) for status in BAD_ENDINGS}
    retried = [status for status, decision in decisions.items() if decision.action is RetryAction.RETRY]
    assert retried == ["terminated"]
    assert decisions["terminated"].retry_delay == timedelta(minutes=5)
    assert decisions["failed"].retry_delay is None


def test_an_ending_that_does_not_exist_is_refused() -> None:
    with pytest.raises(SkyvernConfigError, match="retry_on: completed is not a failure status; use failed"):
        skyvern_retry_policy(["completed"])
