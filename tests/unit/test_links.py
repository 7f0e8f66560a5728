from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.compat.sdk import AirflowFailException, XCom
from airflow_skyvern.exceptions import SkyvernRunFailed
from airflow_skyvern.links import SkyvernRunLink
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.sensors import SkyvernRunSensor
from tests.support.tasks import run_task

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern


@pytest.fixture
def xcoms(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[str, str], str]:
    """Airflow's XComs, which a test has no database or supervisor for."""
    stored: dict[tuple[str, str], str] = {}

    def get_value(*, key: str, ti_key: str) -> Any:
        return stored.get((ti_key, key))

    monkeypatch.setattr(XCom, "get_value", get_value)
    return stored


def test_the_link_leads_to_the_run_of_this_task(xcoms: dict[tuple[str, str], str]) -> None:
    xcoms["this", "app_url"] = "https://app.skyvern.com/runs/wr_1"
    xcoms["other", "app_url"] = "https://app.skyvern.com/runs/wr_2"
    operator: Any = SkyvernRunWorkflowOperator(task_id="t", workflow_id="wpid_1")
    key: Any = "this"
    assert SkyvernRunLink().get_link(operator, ti_key=key) == "https://app.skyvern.com/runs/wr_1"


def test_there_is_no_link_before_there_is_a_run(xcoms: dict[tuple[str, str], str]) -> None:
    operator: Any = SkyvernRunSensor(task_id="t", run_id="wr_1")
    key: Any = "this"
    assert SkyvernRunLink().get_link(operator, ti_key=key) == ""


def test_operator_and_sensor_have_the_link() -> None:
    operator = SkyvernRunWorkflowOperator(task_id="t", workflow_id="wpid_1")
    sensor = SkyvernRunSensor(task_id="t", run_id="wr_1")
    for task in (operator, sensor):
        [link] = task.operator_extra_links
        assert isinstance(link, SkyvernRunLink)
        assert link.name == "Skyvern run"


def test_a_start_that_failed_asks_airflow_for_no_address(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Airflow logs an error for an XCom that is not there: `dags test` showed two errors for one."""

    def get_value(**_: Any) -> Any:
        raise AssertionError("asked")

    monkeypatch.setattr(XCom, "get_value", get_value)
    operator: Any = SkyvernRunWorkflowOperator(task_id="t", workflow_id="wpid_unknown", deferrable=False)
    with pytest.raises(AirflowFailException):
        run_task(lambda: operator)
    key: Any = "this"
    assert SkyvernRunLink().get_link(operator, ti_key=key) == ""


def test_a_run_that_was_started_has_its_link_whatever_follows(
    skyvern: FakeSkyvern, xcoms: dict[tuple[str, str], str]
) -> None:
    xcoms["this", "app_url"] = "https://app.skyvern.com/runs/wr_1"
    workflow = skyvern.workflow(plan=("running", "failed"))
    operator: Any = SkyvernRunWorkflowOperator(
        task_id="t", workflow_id=workflow, deferrable=False, poll_interval=0.01
    )
    with pytest.raises(SkyvernRunFailed):
        run_task(lambda: operator)
    key: Any = "this"
    assert SkyvernRunLink().get_link(operator, ti_key=key) == "https://app.skyvern.com/runs/wr_1"
