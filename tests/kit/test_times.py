"""What a test costs, in seconds of a processor: ``python -m pytest -q -rP tests/kit/test_times.py``, alone."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from airflow_skyvern.compat.sdk import DAG
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.testing import extracted

if TYPE_CHECKING:
    from airflow_skyvern.testing import Skyvern
    from tests.kit.conftest import DagOf

DAGS = Path(__file__).parent / "dags"

WARM = 10.0
"""Five times what an idle machine takes: beside other tests, on a slow one, a second of a processor does less."""


@pytest.mark.parametrize("state", ["cold", "warm", "warm again"])
def test_a_test_is_quick_but_for_the_first_one(skyvern: Skyvern, state: str) -> None:
    cold = not SEEN
    SEEN.append(state)
    began = 0.0 if cold else time.process_time()
    skyvern.workflow("wpid_123")
    with DAG("quick", schedule=None, start_date=datetime(2026, 1, 1)) as dag:  # noqa: DTZ001  as authors write it
        SkyvernRunWorkflowOperator(task_id="run", workflow_id="wpid_123", deferrable=True)
    assert dag.test().state == "success"
    seconds = time.process_time() - began
    print(f"{state}: {seconds:.1f} s")
    assert cold or state == "cold" or seconds < WARM


def _two_portals(skyvern: Skyvern) -> dict[str, str]:
    skyvern.workflow("wpid_lookup", output={"find_output": extracted({"number": "K-17"})})
    skyvern.workflow("wpid_order", output={"place_output": {"confirmation": "ok"}})
    return {"customer": "ACME"}


def _hook_in_a_task(skyvern: Skyvern) -> dict[str, str]:
    skyvern.connection("skyvern_eu")
    skyvern.workflow("wpid_report", output={"report_output": extracted([1, 2])})
    return {}


def _branch_on_failure(skyvern: Skyvern) -> dict[str, str]:
    skyvern.workflow("wpid_scrape")
    return {}


SEEN: list[str] = []
"""The tests that this process has run: of pytest-xdist's processes, each may begin with any of them."""

STRANGERS = {"two_portals": _two_portals, "hook_in_a_task": _hook_in_a_task, "branch_on_failure": _branch_on_failure}


@pytest.mark.parametrize("state", ["first", "again"])
@pytest.mark.parametrize("name", STRANGERS)
def test_a_test_of_a_strangers_dag_is_quick(skyvern: Skyvern, dag_of: DagOf, name: str, state: str) -> None:
    """``-k "two_portals"``: alone in a process, the first one is cold."""
    cold = not SEEN
    SEEN.append(name)
    began = 0.0 if cold else time.process_time()
    conf = STRANGERS[name](skyvern)
    dag = dag_of(DAGS / f"{name}.py")
    assert dag.test(run_conf=conf).state == "success"
    seconds = time.process_time() - began
    print(f"{name}, {len(dag.tasks)} tasks, {'cold' if cold else state}: {seconds:.1f} s")
    assert cold or state == "first" or seconds < WARM
