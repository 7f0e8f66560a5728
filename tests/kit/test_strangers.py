"""Three DAGs as strangers write them, tested as they would."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.testing import completed, extracted, failed, slow, terminated

if TYPE_CHECKING:
    from airflow_skyvern.testing import Ending, Skyvern
    from tests.kit.conftest import DagOf

DAGS = Path(__file__).parent / "dags"


def states(run: Any) -> dict[str, str]:
    return {ti.task_id: str(getattr(ti.state, "value", ti.state)) for ti in run.get_task_instances()}


def test_the_order_is_for_the_number_that_was_found(skyvern: Skyvern, dag_of: DagOf) -> None:
    skyvern.workflow("wpid_lookup", output={"find_output": extracted({"number": "K-17"})})
    skyvern.workflow("wpid_order", output={"place_output": {"confirmation": "ok"}}, parameters={"number": "string"})
    run = dag_of(DAGS / "two_portals.py").test(run_conf={"customer": "ACME"})
    assert states(run) == {"look_up": "success", "order": "success", "confirm": "success"}
    assert skyvern.started("wpid_lookup")[0].parameters == {"customer": "ACME"}
    assert skyvern.started("wpid_order")[0].parameters == {"number": "K-17"}


def test_nothing_is_ordered_when_nothing_is_found(skyvern: Skyvern, dag_of: DagOf) -> None:
    skyvern.workflow("wpid_lookup", failed(), failed(), failed())
    skyvern.workflow("wpid_order")
    run = dag_of(DAGS / "two_portals.py").test(run_conf={"customer": "ACME"})
    assert states(run)["order"] == "upstream_failed"
    assert skyvern.started("wpid_order") == []


@pytest.mark.parametrize(
    "ending", [completed({"report_output": {"extracted_information": [1, 2]}}), failed(), slow()]
)
def test_the_report_is_used_or_skipped(skyvern: Skyvern, dag_of: DagOf, ending: Ending) -> None:
    skyvern.connection("skyvern_eu")
    skyvern.workflow("wpid_report", ending)
    run = dag_of(DAGS / "hook_in_a_task.py").test()
    completes = ending.plan[-1] == "completed"
    assert states(run)["use"] == ("success" if completes else "skipped")
    assert skyvern.started()[0].parameters == {"year": 2026}


@pytest.mark.parametrize(
    ("ending", "publish", "tell"),
    [
        (completed(), "success", "skipped"),
        (failed(), "upstream_failed", "success"),
        (terminated(), "skipped", "skipped"),
    ],
)
def test_somebody_is_told_when_the_portal_was_down(
    skyvern: Skyvern, dag_of: DagOf, ending: Ending, publish: str, tell: str
) -> None:
    skyvern.workflow("wpid_scrape", ending)
    run = dag_of(DAGS / "branch_on_failure.py").test()
    assert (states(run)["publish"], states(run)["tell_somebody"]) == (publish, tell)
