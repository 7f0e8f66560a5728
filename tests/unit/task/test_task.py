from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from airflow_skyvern.compat import since_3_0
from airflow_skyvern.compat.sdk import DAG, AirflowFailException, BaseOperator
from airflow_skyvern.durations import interval_of, moment_of, seconds_of
from airflow_skyvern.exceptions import (
    SkyvernAuthError,
    SkyvernConfigError,
    SkyvernConnectionError,
    SkyvernError,
    SkyvernNotFoundError,
    SkyvernRateLimitError,
    SkyvernRequestError,
    SkyvernResponseError,
    SkyvernRunFailed,
    SkyvernServerError,
    SkyvernWaitTimeout,
)
from airflow_skyvern.models import Run
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.sensors import SkyvernRunSensor
from airflow_skyvern.task.arguments import is_dynamic
from airflow_skyvern.task.deferral import deadline_after
from airflow_skyvern.task.endings import no_retry_for_permanent_errors
from airflow_skyvern.task.task_try import TaskTry
from airflow_skyvern.triggers import SkyvernApprovalTrigger, SkyvernRunTrigger
from tests.support.tasks import FakeTaskInstance, context_of


@pytest.mark.parametrize(
    "kind",
    [SkyvernAuthError, SkyvernNotFoundError, SkyvernRequestError, SkyvernConfigError],
)
def test_what_no_retry_can_cure_fails_without_one(kind: type[SkyvernError]) -> None:
    with pytest.raises(AirflowFailException, match="what happened") as caught, no_retry_for_permanent_errors():
        raise kind("what happened")
    assert isinstance(caught.value.__cause__, kind)


@pytest.mark.parametrize(
    "kind",
    [
        SkyvernConnectionError,
        SkyvernRateLimitError,
        SkyvernServerError,
        SkyvernResponseError,
        SkyvernRunFailed,
        SkyvernWaitTimeout,
        KeyError,
    ],
)
def test_everything_else_keeps_its_type_and_its_retries(kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught, no_retry_for_permanent_errors():
        raise kind("what happened")
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("timeout", "execution_timeout", "expected"),
    [
        (60, None, 60),
        (timedelta(minutes=1), None, 60),
        (60, timedelta(hours=1), 60),
        (7200, timedelta(hours=1), 3570),
        (7200, timedelta(seconds=40), 20),
        (7200, timedelta(seconds=60), 30),
    ],
)
def test_the_deadline_is_the_earlier_limit_with_time_left_to_cancel(
    timeout: timedelta | float, execution_timeout: timedelta | None, expected: float
) -> None:
    assert deadline_after(1000.0, timeout, execution_timeout) == 1000.0 + expected


@pytest.mark.parametrize(("execution_timeout", "expected"), [(None, 60), (3600, 60), (100, 30), (60, -10)])
def test_airflow_counts_the_execution_timeout_from_the_start_of_the_task(
    execution_timeout: float | None, expected: float
) -> None:
    limit = None if execution_timeout is None else timedelta(seconds=execution_timeout)
    assert deadline_after(1000.0, 60, limit, started_at=960.0) == 1000.0 + expected


@pytest.mark.parametrize("value", [1, 0.5, timedelta(seconds=3), timedelta(days=1)])
def test_durations_are_seconds_or_timedeltas(value: Any) -> None:
    expected = value.total_seconds() if isinstance(value, timedelta) else value
    assert seconds_of("timeout", value) == expected
    assert isinstance(seconds_of("timeout", value), float)


@pytest.mark.parametrize("value", [0, -1, True, "10", None, float("inf"), float("nan"), timedelta(0), timedelta(-1)])
def test_other_durations_are_refused_by_name(value: Any) -> None:
    with pytest.raises(SkyvernConfigError, match="poll_interval must be a positive number of seconds"):
        seconds_of("poll_interval", value)


@pytest.mark.parametrize("value", [timedelta.max, 1e12, 10**30, timedelta(days=4000)])
def test_a_wait_that_nobody_lives_to_see_is_refused(value: Any) -> None:
    with pytest.raises(SkyvernConfigError, match="timeout must be between 0 and 316,224,000 seconds"):
        seconds_of("timeout", value)


@pytest.mark.parametrize("value", [1e-9, 0.009, timedelta(microseconds=1), timedelta(days=2), timedelta.max])
def test_a_pause_between_two_polls_is_neither_busy_nor_endless(value: Any) -> None:
    with pytest.raises(SkyvernConfigError, match=r"poll_interval must be between 0\.01 and 86,400 seconds"):
        interval_of("poll_interval", value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "soon", None, True, 1e30, -1e30])
def test_a_deadline_is_a_moment(value: Any) -> None:
    with pytest.raises(SkyvernConfigError, match="deadline must be a number of seconds since the epoch"):
        moment_of("deadline", value)
    assert moment_of("deadline", 0) == 0.0


@pytest.mark.parametrize("value", [timedelta.max, 1e-9, float("nan"), float("inf"), 0, -1, True, "10", "{{ x }}"])
def test_every_duration_of_a_task_or_trigger_has_limits(value: Any) -> None:
    trigger: dict[str, Any] = {"run_id": "wr_1", "skyvern_conn_id": "c", "poll_interval": 1, "deadline": 1.0}
    makers: list[Callable[[], object]] = [
        lambda: SkyvernRunWorkflowOperator(task_id="t", workflow_id="wpid_1", poll_interval=value),
        lambda: SkyvernRunSensor(task_id="t", run_id="wr_1", poke_interval=value),
        lambda: SkyvernRunTrigger(**{**trigger, "poll_interval": value}),
        lambda: SkyvernApprovalTrigger(**{**trigger, "poll_interval": value}, ti_id="1"),
    ]
    if value != 1e-9:
        makers += [
            lambda: SkyvernRunWorkflowOperator(task_id="t", workflow_id="wpid_1", timeout=value),
            lambda: SkyvernRunWorkflowOperator(task_id="t", workflow_id="wpid_1", lost_start_timeout=value),
        ]
    for make in makers:
        with pytest.raises(SkyvernConfigError, match=r"must be|is not templated"):
            make()


@pytest.mark.parametrize("value", [timedelta.max, 1e12])
def test_a_sensor_does_not_wait_for_ever(value: Any) -> None:
    with pytest.raises(SkyvernConfigError, match="timeout must be between"):
        SkyvernRunSensor(task_id="t", run_id="wr_1", timeout=value)


def test_templates_and_xcoms_are_known_only_when_the_task_runs() -> None:
    with DAG("d", schedule=None):
        output: Any = BaseOperator(task_id="first").output
    for value in (
        "{{ ds }}",
        "{% if a %}",
        output,
        output["a"],
        [output],
        {"a": ["{{ ds }}"]},
        {"{{ k }}": 1},
        (output,),
    ):
        assert is_dynamic(value), value
    for value in ("plain", "{ not one }", 1, None, ["a"], {"a": {"b": ("c",)}}):
        assert not is_dynamic(value), value


def test_the_run_is_published_with_its_address_where_it_has_one() -> None:
    ti = FakeTaskInstance()
    TaskTry(context_of(ti)).publish_run(Run(run_id="wr_1", status="created", app_url=None))
    assert ti.xcoms == {"run_id": "wr_1"}
    TaskTry(context_of(ti)).publish_run(Run(run_id="wr_1", status="created", app_url="https://app"))
    assert ti.xcoms == {"run_id": "wr_1", "app_url": "https://app"}


@pytest.mark.parametrize("map_index", [-1, 0, 3])
def test_a_task_finds_its_own_run_id_also_when_it_is_mapped(map_index: int) -> None:
    ti = FakeTaskInstance(map_index=map_index)
    assert TaskTry(context_of(ti)).published_run_id() is None
    ti.xcom_push("run_id", "wr_1")
    assert TaskTry(context_of(ti)).published_run_id() == "wr_1"


@pytest.mark.parametrize(
    ("installation", "base_url", "expected"),
    [
        ("production", "https://airflow.example.com", "production"),
        ("", "https://airflow.example.com", "https://airflow.example.com"),
        ("production", "", "production"),
        ("", "http://localhost:8080", ""),
        ("", "", ""),
    ],
)
def test_an_installation_is_named_by_its_setting_or_else_by_an_address_of_its_own(
    installation: str, base_url: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__SKYVERN__INSTALLATION", installation)
    section = "API" if since_3_0.is_airflow_3() else "WEBSERVER"
    monkeypatch.setenv(f"AIRFLOW__{section}__BASE_URL", base_url)
    assert since_3_0.installation() == expected
