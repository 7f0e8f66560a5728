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
