"""Tries of one task instance on Airflow 2.11, which share a row: executed twice, overtaken."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

import pytest
from airflow.models.taskinstance import TaskInstance

from airflow_skyvern.compat import internals
from airflow_skyvern.compat.sdk import AirflowException, AirflowFailException, BaseOperator, TaskDeferred
from airflow_skyvern.compat.since_3_0 import is_airflow_3
from airflow_skyvern.exceptions import SkyvernConnectionError
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.runs.orphans import Place
from airflow_skyvern.task.endings import marks_stay
from airflow_skyvern.task.task_try import TaskTry
from tests.support.metadata_database import PLACE, MetadataDatabase, metadata_database

if is_airflow_3():
    pytest.skip("Airflow 3 gives each try a row of its own", allow_module_level=True)

OTHER = Place("d", "r", "another")


class Left(BaseException):
    """The process has ended, without Airflow's code being called."""


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetadataDatabase]:
    with metadata_database(monkeypatch) as database:
        monkeypatch.setattr("airflow.settings.engine", database.engine)
        yield database


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The first try of a task, which this process executes for job 7; to end this process raises ``Left``."""

    def leave(code: int) -> None:
        raise Left(code)

    make: Any = TaskInstance
    ti = make(BaseOperator(task_id=PLACE.task_id), run_id=PLACE.run_id)
    ti.dag_id, ti.try_number, ti.job_id = PLACE.dag_id, 1, 7
    monkeypatch.setattr(internals, "current_context", lambda: {"ti": ti})
    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(logging, "shutdown", lambda: None)
    return ti


def task_try(ti: Any) -> TaskTry:
    context: Any = {"ti": ti}
    return TaskTry(context)


def test_a_first_try_that_has_failed_before_searches_for_its_run(database: MetadataDatabase, executed: Any) -> None:
    """An overloaded Airflow has executed it twice: without a search, each starts a run."""
    database.task("running", try_number=1, job_id=7)
    database.earlier_try(1)
    assert task_try(executed).earlier_tries == 1
    assert not task_try(executed).is_after_clear(0)


def test_a_first_try_is_the_first(database: MetadataDatabase, executed: Any) -> None:
    database.task("running", try_number=1, job_id=7)
    database.task("running", OTHER, try_number=1)
    database.earlier_try(1, OTHER)
    assert task_try(executed).earlier_tries == 0


@pytest.mark.parametrize(("number", "max_tries", "retries"), [(2, 1, 0), (3, 4, 2), (3, 3, 3)])
def test_a_later_try_that_has_failed_before_counts_its_own_execution(
    database: MetadataDatabase, executed: Any, number: int, max_tries: int, retries: int
) -> None:
    """The first one after a clear among them: a start of its first execution may be on its way."""
    for earlier in range(1, number + 1):
        database.earlier_try(earlier)
    executed.try_number, executed.max_tries = number, max_tries
    assert task_try(executed).earlier_tries == number
    assert not task_try(executed).is_after_clear(retries)


def test_a_try_after_a_clear_is_not_taken_for_one_that_is_executed_again(
    database: MetadataDatabase, executed: Any
) -> None:
    database.task("running", try_number=2, job_id=7)
    database.earlier_try(1)
    executed.try_number, executed.max_tries = 2, 1
    assert task_try(executed).is_after_clear(0)


def ending(error: BaseException) -> type[BaseException]:
    """Return how a try ends whose code raises an error."""
    with pytest.raises(BaseException) as caught, marks_stay():  # noqa: PT011  any is wanted
        raise error
    return caught.type


ERRORS = [SkyvernConnectionError("no answer"), AirflowFailException("over"), ValueError("a bug"), SystemExit(1)]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize(
    ("state", "try_number", "job_id"), [("running", 2, 8), ("up_for_retry", 1, 7), ("success", 2, 8)]
)
def test_a_try_that_was_overtaken_ends_before_airflow_writes_its_end_into_the_row_of_the_other(
    database: MetadataDatabase, executed: Any, state: str, try_number: int, job_id: int, error: BaseException
) -> None:
    database.job("LocalTaskJob", 7)
    database.task(state, try_number=try_number, job_id=job_id)
    assert ending(error) is Left


def test_a_log_that_cannot_be_closed_does_not_keep_it(
    database: MetadataDatabase, executed: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as one in a bucket."""

    def fail() -> None:
        raise ConnectionError("no bucket")

    monkeypatch.setattr(logging, "shutdown", fail)
    database.job("LocalTaskJob", 7)
    database.task("running", try_number=2, job_id=8)
    assert ending(ValueError("a bug")) is Left


def test_a_signal_ends_it_before_airflow_writes_its_end(database: MetadataDatabase, executed: Any) -> None:
    """Airflow's handler calls ``on_kill`` wherever the try is, also outside our code, and fails the task next."""
    database.job("LocalTaskJob", 7)
    database.task("running", try_number=2, job_id=8)
    with pytest.raises(Left):
        SkyvernRunWorkflowOperator(task_id=PLACE.task_id, workflow_id="wpid_1").on_kill()


@pytest.mark.parametrize("error", ERRORS)
def test_the_current_try_ends_as_ever(database: MetadataDatabase, executed: Any, error: BaseException) -> None:
    database.job("LocalTaskJob", 7)
    database.task("running", try_number=1, job_id=7)
    assert ending(error) is type(error)


@pytest.mark.parametrize("job_type", ["SchedulerJob", None])
def test_a_process_that_has_more_to_do_goes_on(
    database: MetadataDatabase, executed: Any, job_type: str | None
) -> None:
    """The executor for debugging executes all tasks in the scheduler."""
    if job_type:
        database.job(job_type, 7)
    database.task("running", try_number=2, job_id=8)
    assert ending(ValueError("a bug")) is ValueError


def test_a_task_that_is_only_tried_ends_as_ever(database: MetadataDatabase, executed: Any) -> None:
    database.job("LocalTaskJob", 7)
    database.task("running", try_number=2, job_id=8)
    executed.test_mode = True
    assert ending(ValueError("a bug")) is ValueError


def test_a_deferral_is_no_end(database: MetadataDatabase, executed: Any) -> None:
    database.job("LocalTaskJob", 7)
    database.task("running", try_number=2, job_id=8)
    trigger: Any = object()
    assert ending(TaskDeferred(trigger=trigger, method_name="execute_complete")) is TaskDeferred


def test_a_mark_of_a_user_stays(database: MetadataDatabase, executed: Any) -> None:
    database.job("LocalTaskJob", 7)
    database.task("success", try_number=1, job_id=7)
    assert ending(SkyvernConnectionError("no answer")) is AirflowException


def test_without_a_database_the_error_is_seen(executed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow.settings.engine", None)
    assert ending(ValueError("a bug")) is ValueError
