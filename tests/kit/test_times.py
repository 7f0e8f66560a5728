"""What a test costs, in seconds of a processor: ``python -m pytest -q -rP tests/kit/test_times.py``, alone."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from airflow_skyvern.compat.sdk import DAG
from airflow_skyvern.operators import SkyvernRunWorkflowOperator

if TYPE_CHECKING:
    from airflow_skyvern.testing import Skyvern

WARM = 10.0
"""Five times what an idle machine takes: beside other tests, on a slow one, a second of a processor does less."""


@pytest.mark.parametrize("state", ["cold", "warm", "warm again"])
def test_a_test_is_quick_but_for_the_first_one(skyvern: Skyvern, state: str) -> None:
    began = 0.0 if state == "cold" else time.process_time()
    skyvern.workflow("wpid_123")
    with DAG("quick", schedule=None, start_date=datetime(2026, 1, 1)) as dag:  # noqa: DTZ001  as authors write it
        SkyvernRunWorkflowOperator(task_id="run", workflow_id="wpid_123", deferrable=True)
    assert dag.test().state == "success"
    seconds = time.process_time() - began
    print(f"{state}: {seconds:.1f} s")
    assert state == "cold" or seconds < WARM
