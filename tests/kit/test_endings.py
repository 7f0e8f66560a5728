"""Each ending that a test can script, as the DAG meets it: on its worker, and deferred."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.compat.sdk import DAG, task
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.sensors import SkyvernRunSensor
from airflow_skyvern.testing import (
    Ending,
    canceled,
    completed,
    failed,
    gone,
    paused,
    retried,
    slow,
    terminated,
    timed_out,
)

if TYPE_CHECKING:
    from airflow_skyvern.testing import Skyvern

OUTPUT = {"read_output": {"extracted_information": [{"amount": 2.5}, {"amount": 4.0}]}}
START = datetime(2026, 1, 1)  # noqa: DTZ001  as authors write it

both = pytest.mark.parametrize("deferrable", [False, True], ids=["on a worker", "deferred"])

TOTALS: list[float] = []


def invoices(*, deferrable: bool, **more: Any) -> Any:
    """Make a DAG inside of a test, as its author would."""
    with DAG("invoices", schedule=None, start_date=START) as dag:
        fetch = SkyvernRunWorkflowOperator(
            task_id="fetch", workflow_id="wpid_123", parameters={"vendor": "ACME"}, deferrable=deferrable, **more
        )

        @task
        def total(output: Any) -> None:
            TOTALS.append(sum(row["amount"] for row in output["read_output"]["extracted_information"]))

        total(fetch.output)
    return dag


@both
def test_a_completed_run_gives_its_output_to_the_next_task(skyvern: Skyvern, deferrable: bool) -> None:
    TOTALS.clear()
    skyvern.workflow("wpid_123", output=OUTPUT)
    run = invoices(deferrable=deferrable).test()
    assert run.state == "success"
    assert TOTALS == [6.5]
    assert [started.parameters for started in skyvern.started("wpid_123")] == [{"vendor": "ACME"}]


@both
def test_its_files_are_stored(skyvern: Skyvern, deferrable: bool, tmp_path: Any) -> None:
    skyvern.workflow("wpid_123", output=OUTPUT, files={"a.pdf": b"%PDF-1.7", "b.csv": b"1;2"})
    invoices(deferrable=deferrable, files_to=str(tmp_path), expect_files=2).test()
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {"a.pdf": b"%PDF-1.7", "b.csv": b"1;2"}


@both
@pytest.mark.parametrize(
    ("ending", "status"),
    [
        (failed("wrong password", error_code="LOGIN"), "failed"),
        (terminated("no invoices"), "terminated"),
        (timed_out(), "timed_out"),
        (canceled(), "canceled"),
        (slow(), "canceled"),
        (paused(), "canceled"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.plan[-1],
)
def test_a_run_that_ends_badly_fails_the_task(
    skyvern: Skyvern, deferrable: bool, ending: Ending, status: str
) -> None:
    skyvern.workflow("wpid_123", ending)
    run = invoices(deferrable=deferrable).test()
    assert run.state == "failed"
    assert [started.status for started in skyvern.started()] == [status]


@both
def test_a_run_that_skyvern_denies_fails_the_task(skyvern: Skyvern, deferrable: bool) -> None:
    skyvern.workflow("wpid_123", gone())
    assert invoices(deferrable=deferrable).test().state == "failed"
    assert len(skyvern.started()) == 1


@both
@pytest.mark.parametrize(
    "ending",
    [slow(completed(OUTPUT)), paused(completed(OUTPUT)), retried(completed(OUTPUT))],
    ids=["slow", "paused", "retried"],
)
def test_a_run_that_takes_its_time_completes(skyvern: Skyvern, deferrable: bool, ending: Ending) -> None:
    skyvern.workflow("wpid_123", ending)
    assert invoices(deferrable=deferrable).test().state == "success"


@both
def test_a_server_that_is_away_ends_no_wait(skyvern: Skyvern, deferrable: bool) -> None:
    skyvern.workflow("wpid_123", output=OUTPUT)
    skyvern.away()
    assert invoices(deferrable=deferrable).test().state == "success"
    assert len(skyvern.started()) == 1


@both
def test_a_task_is_retried_at_once_and_starts_another_run(skyvern: Skyvern, deferrable: bool) -> None:
    skyvern.workflow("wpid_123", failed("try again"), completed(OUTPUT))
    dag = invoices(deferrable=deferrable, retries=1, retry_delay=timedelta(hours=1))
    assert dag.test().state == "success"
    assert [started.status for started in skyvern.started()] == ["failed", "completed"]
    assert dag.get_task("fetch").retry_delay == timedelta(hours=1)


@both
@pytest.mark.parametrize("ending", [completed(OUTPUT), failed(), slow()], ids=["completed", "failed", "slow"])
def test_a_sensor_finds_a_run_that_something_else_has_started(
    skyvern: Skyvern, deferrable: bool, ending: Ending
) -> None:
    skyvern.run("wr_7", ending)
    with DAG("waits", schedule=None, start_date=START) as dag:
        SkyvernRunSensor(task_id="wait", run_id="wr_7", deferrable=deferrable)
    assert dag.test().state == ("success" if ending == completed(OUTPUT) else "failed")
    assert skyvern.started() == []


def test_endings_can_depend_on_the_parameters(skyvern: Skyvern) -> None:
    def ending(parameters: dict[str, Any]) -> Ending:
        return failed() if parameters["vendor"] == "Globex" else completed(OUTPUT)

    skyvern.workflow("wpid_123", ending)
    with DAG("mapped", schedule=None, start_date=START) as dag:
        SkyvernRunWorkflowOperator.partial(task_id="fetch", workflow_id="wpid_123", deferrable=True).expand(
            parameters=[{"vendor": name} for name in ("ACME", "Globex", "Initech")]
        )
    assert dag.test().state == "failed"
    assert {run.parameters["vendor"]: run.status for run in skyvern.started()} == {
        "ACME": "completed",
        "Globex": "failed",
        "Initech": "completed",
    }
