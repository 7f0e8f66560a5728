"""What becomes of a run's output: which part of it, whether it is what was agreed, and what a retry does if not."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import BaseModel

from airflow_skyvern.compat.sdk import DAG, AirflowFailException
from airflow_skyvern.exceptions import SkyvernOutputError, SkyvernStartUnknown
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.sensors import SkyvernRunSensor
from tests.support.tasks import FakeTaskInstance, run_task

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
    from tests.unit.conftest import TaskLog

START = "/v1/run/workflows"
SECRET = "s3cr3t-W4rd"

BROWSER_ENTRY: dict[str, Any] = {
    "task_id": "tsk_1", "status": "completed", "extracted_information": {"total": 12.5}, "failure_reason": None,
    "errors": [], "failure_category": None, "downloaded_files": [], "downloaded_file_urls": None,
    "task_screenshots": None, "workflow_screenshots": None,
}  # fmt: skip
OUTPUT = {
    "extract_invoice_output": BROWSER_ENTRY,
    "compute_output": {"total": 45, "text": "hello"},
    "parse_output": [{"total": "1"}, {"total": "2"}],
    "extracted_information": [{"total": 12.5}],
}
GOOD, BAD = {"total": 1.5}, {"total": SECRET}


class Total(BaseModel):
    total: float


def make(workflow_id: str, **more: Any) -> SkyvernRunWorkflowOperator:
    given: dict[str, Any] = {"task_id": "t", "workflow_id": workflow_id, "poll_interval": 0.01, "timeout": 20, **more}
    return SkyvernRunWorkflowOperator(**given)


@pytest.fixture(params=[False, True], ids=["on the worker", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize(
    ("source", "pushed"),
    [
        (None, OUTPUT),
        ("extract_invoice", {"total": 12.5}),
        ("compute", {"total": 45, "text": "hello"}),
        ("compute_output", {"total": 45, "text": "hello"}),
        ("parse", [{"total": "1"}, {"total": "2"}]),
        ("extracted_information", [{"total": 12.5}]),
    ],
)
def test_one_block_can_be_the_output(skyvern: FakeSkyvern, source: str | None, pushed: Any) -> None:
    workflow_id = skyvern.workflow(output=OUTPUT)
    assert run_task(lambda: make(workflow_id, output_from=source)) == pushed
    run_id = next(iter(skyvern.runs))
    assert run_task(lambda: SkyvernRunSensor(task_id="t", run_id=run_id, output_from=source)) == pushed


def test_the_validated_output_is_pushed(skyvern: FakeSkyvern, *, deferrable: bool) -> None:
    workflow_id = skyvern.workflow(output=OUTPUT)
    given = {"output_from": "parse", "output_schema": list[Total], "deferrable": deferrable}
    assert run_task(lambda: make(workflow_id, **given)) == [{"total": 1.0}, {"total": 2.0}]


@pytest.mark.slow
def test_an_output_that_does_not_fit_fails_without_a_retry_and_without_its_values(
    skyvern: FakeSkyvern, task_log: TaskLog, *, deferrable: bool
) -> None:
    workflow_id = skyvern.workflow(output={"extract_output": {**BROWSER_ENTRY, "extracted_information": BAD}})
    given = {"output_from": "extract", "output_schema": Total, "deferrable": deferrable}
    with pytest.raises(AirflowFailException) as failed:
        run_task(lambda: make(workflow_id, **given))
    run_id = next(iter(skyvern.runs))
    assert str(failed.value) == (
        f"Skyvern run {run_id} completed, but its output of block extract does not match output_schema and "
        "output_from: total: Input should be a valid number, unable to parse string as a number. "
        f"See http://localhost:8080/runs/{run_id}"
    )
    assert SECRET not in task_log()
    assert skyvern.sent("POST", ".*/cancel") == []


def test_a_block_that_is_missing_fails_the_task(skyvern: FakeSkyvern) -> None:
    workflow_id = skyvern.workflow(output=OUTPUT)
    with pytest.raises(AirflowFailException, match="has no block extract; it has: extract_invoice, compute, parse, "):
        run_task(lambda: make(workflow_id, output_from="extract", check_parameters=False))


def test_the_sensor_fails_without_a_retry_too(skyvern: FakeSkyvern, *, deferrable: bool) -> None:
    run_id = skyvern.run(output=BAD)
    with pytest.raises(AirflowFailException, match="total: Input should be a valid number") as failed:
        run_task(
            lambda: SkyvernRunSensor(
                task_id="t", run_id=run_id, output_schema=Total, deferrable=deferrable, poke_interval=0.01
            )
        )
    assert isinstance(failed.value.__cause__, SkyvernOutputError)
    assert failed.value.__cause__.run is not None


@pytest.mark.slow
def test_a_schema_is_read_beside_the_dag(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "total.json").write_text('{"properties": {"total": {"type": "number"}}}')
    workflow_id = skyvern.workflow(output=BAD)

    def operator(path: str = "schemas/total.json") -> SkyvernRunWorkflowOperator:
        with DAG("d", schedule=None, template_searchpath=str(tmp_path)):
            return make(workflow_id, output_schema=path)

    for path in ("schemas/total.json", str(tmp_path / "schemas" / "total.json")):
        with pytest.raises(AirflowFailException, match="total: is not of type number"):
            run_task(lambda path=path: operator(path))  # type: ignore[misc]


@pytest.mark.parametrize("durable", [False, True])
def test_a_schema_that_is_missing_starts_no_run(skyvern: FakeSkyvern, *, durable: bool) -> None:
    with pytest.raises(AirflowFailException, match=r"output_schema: cannot read total\.json: .* beside the DAG file"):
        run_task(lambda: make(skyvern.workflow(), output_schema="total.json", durable=durable))
    assert skyvern.runs == {}


def attempt(skyvern: FakeSkyvern, workflow_id: str, ti: FakeTaskInstance, **more: Any) -> Any:
    """One try of a task that wants a new run after an output that does not fit."""
    given = {"output_schema": Total, "rerun_on_invalid_output": True, "retries": 3, "lost_start_timeout": 0.1, **more}
    try:
        return run_task(lambda: make(workflow_id, **given), ti)
    finally:
        ti.try_number += 1


@pytest.fixture
def ti() -> FakeTaskInstance:
    instance = FakeTaskInstance()
    instance.max_tries = 3
    return instance


def improve(skyvern: FakeSkyvern, run_id: str) -> None:
    run = skyvern.runs[run_id]
    run.workflow = replace(run.workflow, output=GOOD)


@pytest.mark.slow
def test_each_retry_starts_one_run_until_the_output_fits(
    skyvern: FakeSkyvern, ti: FakeTaskInstance, *, deferrable: bool
) -> None:
    workflow_id = skyvern.workflow(output=BAD)
    for tries in (1, 2):
        with pytest.raises(SkyvernOutputError):
            attempt(skyvern, workflow_id, ti, deferrable=deferrable)
        assert len(skyvern.runs) == tries
    skyvern.workflows[workflow_id].output = GOOD
    for run in skyvern.runs.values():
        run.workflow = replace(run.workflow, output=BAD)
    assert attempt(skyvern, workflow_id, ti, deferrable=deferrable) == GOOD
    assert len(skyvern.runs) == 3


def test_without_that_option_a_retry_takes_the_completed_run(skyvern: FakeSkyvern, ti: FakeTaskInstance) -> None:
    workflow_id = skyvern.workflow(output=BAD)
    for _ in range(2):
        with pytest.raises(AirflowFailException):
            attempt(skyvern, workflow_id, ti, rerun_on_invalid_output=False)
    assert len(skyvern.runs) == 1


@pytest.mark.slow
def test_a_retry_takes_a_completed_run_whose_output_fits(skyvern: FakeSkyvern, ti: FakeTaskInstance) -> None:
    workflow_id = skyvern.workflow(output=BAD)
    with pytest.raises(SkyvernOutputError):
        attempt(skyvern, workflow_id, ti)
    improve(skyvern, next(iter(skyvern.runs)))
    assert attempt(skyvern, workflow_id, ti) == GOOD
    assert len(skyvern.runs) == 1


@pytest.mark.slow
def test_a_second_run_whose_start_was_not_answered_is_found_in_the_same_try(
    skyvern: FakeSkyvern, ti: FakeTaskInstance
) -> None:
    workflow_id = skyvern.workflow(output=BAD)
    with pytest.raises(SkyvernOutputError):
        attempt(skyvern, workflow_id, ti)

    def lose() -> httpx.Response:
        improve(skyvern, list(skyvern.runs)[-1])
        return httpx.Response(502)

    skyvern.next("POST", START, lose)
    assert attempt(skyvern, workflow_id, ti) == GOOD
    assert len(skyvern.runs) == 2


@pytest.mark.slow
def test_a_second_run_whose_start_was_lost_is_found_by_the_third_try(
    skyvern: FakeSkyvern, ti: FakeTaskInstance
) -> None:
    workflow_id = skyvern.workflow(output=BAD)
    with pytest.raises(SkyvernOutputError):
        attempt(skyvern, workflow_id, ti)
    hidden: dict[str, Any] = {}

    def hide() -> httpx.Response:
        """Freeze: the run exists, and no search shows it yet."""
        hidden.update([skyvern.runs.popitem()])
        return httpx.Response(502)

    skyvern.next("POST", START, hide)
    with pytest.raises(SkyvernStartUnknown):
        attempt(skyvern, workflow_id, ti)
    skyvern.runs.update(hidden)
    improve(skyvern, next(iter(hidden)))
    assert attempt(skyvern, workflow_id, ti) == GOOD
    assert len(skyvern.runs) == 2


@pytest.mark.slow
def test_a_retry_waits_for_a_second_run_that_may_still_appear(skyvern: FakeSkyvern, ti: FakeTaskInstance) -> None:
    """One rejected run for two earlier tries: a start of one of them may be on its way."""
    workflow_id = skyvern.workflow(output=BAD)
    with pytest.raises(SkyvernOutputError):
        attempt(skyvern, workflow_id, ti)
    skyvern.next("POST", START, httpx.ReadTimeout("lost on its way"))
    with pytest.raises(SkyvernStartUnknown):
        attempt(skyvern, workflow_id, ti)
    searches = len(skyvern.sent("GET", "/v1/runs"))
    with pytest.raises(SkyvernOutputError):
        attempt(skyvern, workflow_id, ti, lost_start_timeout=2)
    assert len(skyvern.sent("GET", "/v1/runs")) - searches > 2
    assert len(skyvern.runs) == 2
