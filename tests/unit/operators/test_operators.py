from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.client import retry
from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.compat.sdk import (
    DAG,
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    AirflowTaskTimeout,
    BaseOperator,
    TaskDeferred,
)
from airflow_skyvern.compat.since_3_0 import is_airflow_3
from airflow_skyvern.exceptions import (
    SkyvernConfigError,
    SkyvernConnectionError,
    SkyvernCreditError,
    SkyvernError,
    SkyvernRunCanceled,
    SkyvernRunError,
    SkyvernRunFailed,
    SkyvernRunTerminated,
    SkyvernRunTimedOut,
    SkyvernStartUnknown,
    SkyvernWaitInterrupted,
    SkyvernWaitTimeout,
)
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.operators import DEFAULT_TIMEOUT, SkyvernRunWorkflowOperator
from airflow_skyvern.runs import cancel, lookup
from airflow_skyvern.runs.key import ENDS_WITH_TASK_TAG
from airflow_skyvern.task.deadlines import BACKSTOP
from airflow_skyvern.testing.fake.skyvern import API_KEY, LOST, FakeSkyvern
from tests.support.tasks import FakeTaskInstance, context_of, deferral, resumed, run_task

if TYPE_CHECKING:
    from tests.unit.conftest import Connect, TaskLog

START = "/v1/run/workflows"
CANCEL = "/v1/runs/[^/]+/cancel"
LOOK = "/v1/runs/wr_[^/]+"


def make(workflow_id: str = "wpid_1", **more: Any) -> SkyvernRunWorkflowOperator:
    given: dict[str, Any] = {"task_id": "t", "workflow_id": workflow_id, "poll_interval": 0.01, "timeout": 20, **more}
    return SkyvernRunWorkflowOperator(**given)


def execute(operator: SkyvernRunWorkflowOperator, ti: FakeTaskInstance | None = None) -> Any:
    return operator.execute(context_of(ti or FakeTaskInstance()))


@pytest.fixture(params=[False, True], ids=["on the worker", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"workflow_id": ""}, "Task 't': workflow_id: String should have at least 1 character"),
        ({"parameters": {"when": object()}}, "Task 't': parameters.when: object is no JSON"),
        ({"parameters": {"day": "{{ ds }}", "when": [object()]}}, r"parameters.when\[0\]: object is no JSON"),
        ({"parameters": {"day": "{{ ds }}"}, "proxy_location": "MARS"}, "Task 't': proxy_location: no such location"),
        ({"parameters": "not json"}, "Task 't': parameters: must be a mapping"),
        ({"run_options": {"ai_fallbck": True}}, "Task 't': run_options.ai_fallbck: no such option. Did you mean"),
        ({"run_options": {"run_with": "magic"}}, "Task 't': run_options.run_with"),
        ({"run_options": {"run_metadata": {"airflow_key": "x"}}}, "airflow_key is used by the provider"),
        ({"skip_on": {"failed", "completed"}}, "Task 't': skip_on: completed is no ending; use failed"),
        ({"skip_on": "completed"}, "Task 't': skip_on: completed is no ending; use failed"),
        ({"skip_on": {"failed": True}}, "Task 't': skip_on must be endings such as"),
        ({"skip_on": ["failed", 1]}, "Task 't': skip_on: 1 is no ending"),
        ({"poll_interval": 0}, "poll_interval must be a positive number"),
        ({"timeout": "an hour"}, "timeout must be a positive number"),
        ({"lost_start_timeout": -1}, "lost_start_timeout must be a positive number"),
        ({"parameters": "{{ a }}", "run_options": {"run_with": "magic"}}, "run_options.run_with"),
    ],
)
def test_a_mistake_is_found_when_the_dag_is_parsed(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SkyvernConfigError, match=complaint):
        make(**arguments)


def test_what_only_a_run_can_tell_is_not_checked_before() -> None:
    with DAG("d", schedule=None):
        first = BaseOperator(task_id="first")
        for arguments in (
            {"workflow_id": "{{ params.id }}", "parameters": "{{ params.parameters }}"},
            {"parameters": {"a": "{{ ds }}", "b": first.output}},
            {"parameters": first.output, "run_options": first.output},
            {"run_options": {"max_elapsed_time_minutes": "{{ params.minutes }}", "ai_fallback": True}},
            {"run_options": "{{ params.options }}"},
            {"proxy_location": {"country": "{{ params.country }}"}},
        ):
            make(**arguments, task_id=f"t{id(arguments)}")


def test_durations_may_be_timedeltas() -> None:
    operator = make(poll_interval=timedelta(seconds=5), timeout=timedelta(hours=1))
    assert (operator.poll_interval, operator.timeout) == (5.0, 3600.0)
    assert SkyvernRunWorkflowOperator(task_id="t", workflow_id="w").timeout == DEFAULT_TIMEOUT.total_seconds()


def test_a_task_can_be_mapped() -> None:
    with DAG("d", schedule=None) as dag:
        SkyvernRunWorkflowOperator.partial(task_id="t", workflow_id="wpid_1").expand(
            parameters=[{"vendor": "ACME"}, {"vendor": "EMCA"}]
        )
    assert dag.task_ids == ["t"]


def test_every_argument_that_is_sent_can_be_a_template() -> None:
    sent = {"workflow_id", "parameters", "title", "proxy_location", "webhook_url", "browser_session_id"}
    own = {"skyvern_conn_id", "files_to", "files_conn_id", "file_name", "output_from", "output_to", "output_conn_id"}
    own |= {"upload", "upload_conn_id"}
    assert sent | {"browser_profile_id", "run_options"} | own == set(make().template_fields)
    assert isinstance(SkyvernRunWorkflowOperator.template_fields, tuple)


def rendered(folder: Path, native: bool = False, **arguments: Any) -> SkyvernRunWorkflowOperator:
    with DAG("d", schedule=None, template_searchpath=[str(folder)], render_template_as_native_obj=native):
        operator = make(**arguments)
    operator.render_template_fields({"params": {"vendor": "ACME", "n": 3}})
    return operator


def test_parameters_may_be_a_json_file_which_is_a_template_too(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    (tmp_path / "invoices.json").write_text('{"vendor": "{{ params.vendor }}", "pages": [1, {{ params.n }}]}')
    workflow = skyvern.workflow(parameters={"vendor": "string", "pages": "json"})
    execute(rendered(tmp_path, workflow_id=workflow, parameters="invoices.json"))
    [start] = skyvern.sent("POST", START)
    assert start.json["parameters"] == {"vendor": "ACME", "pages": [1, 3]}


def test_names_of_files_among_the_values_are_values(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    parameters = {"file": "report.json", "deep": ["{{ params.vendor }}.json"]}
    workflow = skyvern.workflow(parameters={"file": "file_url", "deep": "json"})
    execute(rendered(tmp_path, workflow_id=workflow, parameters=parameters))
    assert skyvern.sent("POST", START)[0].json["parameters"] == {"file": "report.json", "deep": ["ACME.json"]}


def test_a_text_that_a_mapped_task_gets_from_another_is_no_file(tmp_path: Path) -> None:
    """Airflow hands over the ids of such values; here was a way to read files of the worker."""
    (tmp_path / "secret.json").write_text("the content")
    with DAG("d", schedule=None, template_searchpath=[str(tmp_path)]):
        operator = make(parameters="secret.json")
    mapped = operator.render_template(operator.parameters, {}, operator.get_template_env(), {id(operator.parameters)})
    assert mapped == "secret.json"
    assert operator.render_template(operator.parameters, {}, operator.get_template_env(), set()) == "the content"


@pytest.mark.parametrize("native", [False, True])
def test_parameters_may_be_rendered_from_one_template(skyvern: FakeSkyvern, tmp_path: Path, *, native: bool) -> None:
    template = "{{ {'vendor': params.vendor, 'n': params.n} | tojson }}"
    workflow = skyvern.workflow(parameters={"vendor": "string", "n": "integer"})
    execute(rendered(tmp_path, native, workflow_id=workflow, parameters=template))
    assert skyvern.sent("POST", START)[0].json["parameters"] == {"vendor": "ACME", "n": 3}


def test_a_template_that_renders_to_nonsense_fails_without_a_retry(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    with pytest.raises(AirflowFailException, match="parameters: must be a mapping"):
        execute(rendered(tmp_path, parameters="{{ params.vendor }}"))
    with pytest.raises(AirflowFailException, match="max_elapsed_time_minutes"):
        execute(rendered(tmp_path, run_options={"max_elapsed_time_minutes": "{{ params.vendor }}"}))
    assert skyvern.requests == []


def test_everything_that_was_given_is_sent(skyvern: FakeSkyvern) -> None:
    arguments: dict[str, Any] = {
        "parameters": {"vendor": "ACME"},
        "title": "ACME in October",
        "proxy_location": "RESIDENTIAL_DE",
        "webhook_url": "https://example.com/hook",
    }
    options = {"max_elapsed_time_minutes": 30, "run_metadata": {"team": "ops"}}
    workflow = skyvern.workflow(parameters={"vendor": "string"})
    execute(make(workflow, **arguments, run_options=options, durable=False))
    assert skyvern.sent("POST", START)[0].json == {"workflow_id": workflow, **arguments, **options}


def test_the_output_of_a_completed_run_is_returned(skyvern: FakeSkyvern, *, deferrable: bool) -> None:
    output = {"fetch_output": {"n": 42}, "extracted_information": []}
    workflow = skyvern.workflow(plan=("queued", "running", "completed"), output=output)
    assert run_task(lambda: make(workflow, deferrable=deferrable)) == output
    assert len(skyvern.sent("POST", START)) == 1
    assert skyvern.sent("POST", CANCEL) == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("failed", SkyvernRunFailed),
        ("terminated", SkyvernRunTerminated),
        ("timed_out", SkyvernRunTimedOut),
        ("canceled", SkyvernRunCanceled),
    ],
)
def test_a_run_that_ends_badly_fails_the_task_with_the_run_in_the_error(
    skyvern: FakeSkyvern, status: str, kind: type[SkyvernRunError], *, deferrable: bool
) -> None:
    errors = [{"error_code": "OUT"}]
    workflow = skyvern.workflow(plan=("running", status), failure_reason="no stock", errors=errors)
    with pytest.raises(kind) as caught:
        run_task(lambda: make(workflow, deferrable=deferrable))
    assert caught.value.run is not None
    assert caught.value.run.status == status
    assert f"ended as {status}" in str(caught.value)
    assert str(caught.value.run.app_url) in str(caught.value)
    assert skyvern.sent("POST", CANCEL) == []


def test_a_run_that_skyvern_runs_again_is_waited_for(skyvern: FakeSkyvern, *, deferrable: bool) -> None:
    pending = {"status": "failed", "retry_pending": True}
    workflow = skyvern.workflow(plan=("running", pending, {"status": "running", "attempt": 2}, "completed"))
    assert run_task(lambda: make(workflow, deferrable=deferrable)) is not None


def test_the_run_is_published_before_anything_is_waited_for(skyvern: FakeSkyvern, *, deferrable: bool) -> None:
    ti = FakeTaskInstance()
    asked: dict[str, list[str]] = {}
    ti.on_push = lambda key: asked.setdefault(key, [seen.method for seen in skyvern.requests])
    run_task(lambda: make(skyvern.workflow(), deferrable=deferrable), ti)
    pushed = ti.xcoms.pop("connection_and_run_key")
    assert asked.pop("connection_and_run_key", []) == []
    assert list(asked.items()) == [("run_id", ["POST"]), ("app_url", ["POST"])]
    [run_id] = skyvern.runs
    assert ti.xcoms == {"run_id": run_id, "app_url": f"http://localhost:8080/runs/{run_id}"}
    group = skyvern.runs[run_id].tags["airflow_key"]
    assert pushed == {"skyvern_conn_id": "skyvern_default", "group": group}


@pytest.mark.parametrize("arguments", [{"cancel_on_kill": False}, {"wait_for_completion": False}], ids=str)
def test_a_run_that_is_not_to_be_canceled_is_not_published_for_it(
    skyvern: FakeSkyvern, arguments: dict[str, bool], *, deferrable: bool
) -> None:
    ti = FakeTaskInstance()
    run_task(lambda: make(skyvern.workflow(), deferrable=deferrable, **arguments), ti)
    assert "connection_and_run_key" not in ti.xcoms
    [run] = skyvern.runs.values()
    assert ENDS_WITH_TASK_TAG not in run.tags


def test_a_run_that_is_canceled_with_its_task_says_so(skyvern: FakeSkyvern, *, deferrable: bool) -> None:
    run_task(lambda: make(skyvern.workflow(), deferrable=deferrable))
    [run] = skyvern.runs.values()
    assert run.tags[ENDS_WITH_TASK_TAG] == "yes"


def test_a_run_need_not_be_waited_for(skyvern: FakeSkyvern, *, deferrable: bool) -> None:
    ti = FakeTaskInstance()
    operator = make(skyvern.workflow(), wait_for_completion=False, deferrable=deferrable)
    run_id = execute(operator, ti)
    assert list(skyvern.runs) == [run_id]
    assert ti.xcoms["run_id"] == run_id
    assert [seen.method for seen in skyvern.requests] == ["POST"]


def test_a_run_whose_workflow_is_deleted_meanwhile_is_seen_to_its_end(
    skyvern: FakeSkyvern, *, deferrable: bool
) -> None:
    workflow = skyvern.workflow(plan=("running", "running", "completed"), output={"sum": 1})
    skyvern.next("GET", LOOK, lambda: setattr(skyvern.workflows[workflow], "deleted", True))
    assert run_task(lambda: make(workflow, deferrable=deferrable)) == {"sum": 1}


def test_a_person_who_is_awaited_is_told_where(skyvern: FakeSkyvern, *, deferrable: bool) -> None:
    ti = FakeTaskInstance()

    def check_stop(key: str) -> None:
        if key == "awaiting_person":
            SkyvernHook().continue_run(ti.xcoms["run_id"])

    ti.on_push = check_stop
    run_task(lambda: make(skyvern.workflow(plan=("running", "paused", "completed")), deferrable=deferrable), ti)
    [run_id] = skyvern.runs
    assert ti.xcoms["awaiting_person"] == {"run_id": run_id, "app_url": f"http://localhost:8080/runs/{run_id}"}
    assert len(skyvern.sent("POST", ".*/continue")) == 1


def test_the_reason_of_a_bad_ending_is_logged_in_lines_that_can_be_read(
    skyvern: FakeSkyvern, task_log: TaskLog, *, deferrable: bool
) -> None:
    """Before the traceback, at whose end Airflow logs it as one long line."""
    reason = "The page asked for a second factor that no one has configured, " * 6
    workflow = skyvern.workflow(plan=("running", "failed"), failure_reason=reason)
    with pytest.raises(SkyvernRunFailed):
        run_task(lambda: make(workflow, deferrable=deferrable))
    [run_id] = skyvern.runs
    lines = [line for line in task_log().splitlines() if "second factor" in line]
    assert len(lines) >= 4
    assert any(f"Skyvern run {run_id} ended as failed in block pause: The page asked" in line for line in lines)
    assert not any(reason[:200] in line for line in lines)


@pytest.mark.parametrize("status", ["failed", "terminated"])
def test_endings_can_skip_the_task(skyvern: FakeSkyvern, status: str, *, deferrable: bool) -> None:
    workflow = skyvern.workflow(plan=("running", status), failure_reason="no stock")
    expected = AirflowSkipException if status == "terminated" else SkyvernRunFailed
    with pytest.raises(expected, match="no stock"):
        run_task(lambda: make(workflow, deferrable=deferrable, skip_on=["terminated"]))


def test_one_ending_may_be_written_without_a_list(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("running", "terminated"))
    with pytest.raises(AirflowSkipException):
        run_task(lambda: make(workflow, skip_on="terminated"))


@pytest.mark.parametrize(
    ("arguments", "answer", "message"),
    [
        ({"workflow_id": "wpid_123"}, None, "404: Workflow not found. workflow_permanent_id=wpid_123"),
        ({}, None, "400: Missing value for parameter vendor"),
        ({"parameters": {"vendor": "A"}, "proxy_location": "RESIDENTIAL_XX"}, None, "422: proxy_location"),
        ({}, httpx.Response(403, json={"detail": "Could not validate credentials"}), "403: Could not validate"),
    ],
)
def test_what_no_retry_can_cure_fails_at_once(
    skyvern: FakeSkyvern, arguments: dict[str, Any], answer: httpx.Response | None, message: str
) -> None:
    if answer is not None:
        skyvern.next("POST", START, answer)
    workflow = skyvern.workflow(parameters={"vendor": "string"})
    with pytest.raises(AirflowFailException, match=message):
        execute(make(**{"workflow_id": workflow, **arguments}))
    assert len(skyvern.sent("POST", START)) == 1
    assert skyvern.runs == {}


def test_a_connection_that_is_wrong_fails_at_once_and_keeps_its_key(connect: Connect, task_log: TaskLog) -> None:
    connect(password="s3cr3t", extra={"timeout": "soon"})
    with pytest.raises(AirflowFailException, match="connection 'skyvern_default': timeout") as caught:
        execute(make())
    assert "s3cr3t" not in str(caught.value) + task_log()


def test_errors_that_may_pass_keep_the_tasks_retries(skyvern: FakeSkyvern) -> None:
    skyvern.next("POST", START, httpx.Response(429))
    operator = make(skyvern.workflow(), lost_start_timeout=0.01)
    operator.hook = SkyvernHook(retry=RetryPolicy(attempts=1))
    with pytest.raises(SkyvernError) as caught:
        execute(operator)
    assert caught.value.transient


def test_no_credit_is_an_error_of_its_own_once_no_run_of_the_start_was_found(skyvern: FakeSkyvern) -> None:
    """Only Skyvern Cloud says so, in words that are not known here: so it may be anybody's."""
    skyvern.next("POST", START, httpx.Response(402, json={"detail": "Out of credit"}))
    with pytest.raises(SkyvernCreditError, match=r"402: Out of credit\. Add credit in Skyvern under Billing"):
        execute(make(skyvern.workflow(), lost_start_timeout=0.01))
    assert len(skyvern.sent("GET", "/v1/runs")) >= 1


def test_a_start_whose_answer_was_lost_is_found_and_never_sent_twice(
    skyvern: FakeSkyvern, *, deferrable: bool
) -> None:
    skyvern.next("POST", START, LOST)
    workflow = skyvern.workflow(output={"sum": 1})
    assert run_task(lambda: make(workflow, deferrable=deferrable)) == {"sum": 1}
    assert len(skyvern.sent("POST", START)) == 1
    assert len(skyvern.runs) == 1


def test_a_start_that_cannot_be_found_is_left_to_the_next_try(skyvern: FakeSkyvern) -> None:
    skyvern.next("POST", START, httpx.ReadTimeout("lost on its way"))
    with pytest.raises(SkyvernStartUnknown, match="The next try searches again before it starts anything"):
        execute(make(skyvern.workflow(), lost_start_timeout=1e-6))
    assert len(skyvern.sent("POST", START)) == 1


def test_without_durable_a_lost_answer_is_an_error_and_nothing_is_tagged(skyvern: FakeSkyvern) -> None:
    skyvern.next("POST", START, LOST)
    with pytest.raises(SkyvernConnectionError, match="may have arrived"):
        execute(make(skyvern.workflow(), durable=False))
    [start] = skyvern.requests
    assert "run_metadata" not in start.json


def try_number(number: int, max_tries: int = 2) -> FakeTaskInstance:
    ti = FakeTaskInstance()
    ti.try_number, ti.max_tries = number, max_tries
    return ti


def test_a_retry_goes_on_with_the_run_of_the_try_before(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("running", "running", "completed"), output={"sum": 1})
    deferral(make(workflow, retries=2, deferrable=True), try_number(1))
    assert run_task(lambda: make(workflow, retries=2), try_number(2)) == {"sum": 1}
    assert len(skyvern.runs) == 1


def test_a_retry_takes_the_output_of_a_run_that_completed_meanwhile(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("completed",), output={"sum": 1})
    deferral(make(workflow, retries=2, deferrable=True), try_number(1))
    [run] = skyvern.runs.values()
    run.look()
    assert run_task(lambda: make(workflow, retries=2, deferrable=True), try_number(2)) == {"sum": 1}
    assert len(skyvern.runs) == 1


def test_a_retry_after_a_failed_run_starts_another(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("failed",))
    for number in (1, 2):
        with pytest.raises(SkyvernRunFailed):
            run_task(lambda: make(workflow, retries=2), try_number(number))
    assert len(skyvern.runs) == 2


@pytest.mark.parametrize("deferrable", [True, False])
def test_a_task_waits_for_the_run_that_skyvern_starts_with_a_fallback_credential(
    skyvern: FakeSkyvern, deferrable: bool
) -> None:
    workflow = skyvern.workflow(plan=("failed",), fallback_plan=("running", "completed"), output={"sum": 1})
    ti = FakeTaskInstance()
    assert run_task(lambda: make(workflow, deferrable=deferrable), ti) == {"sum": 1}
    failed, replacement = skyvern.runs
    assert (ti.xcoms["run_id"], len(skyvern.sent("POST", START))) == (replacement, 1)
    assert skyvern.runs[replacement].retried_from == failed


def test_a_run_fails_its_task_when_the_fallback_credential_fails_too(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "REPLACEMENT_DELAY", 1)
    workflow = skyvern.workflow(plan=("failed",), fallback_plan=("terminated",))
    with pytest.raises(SkyvernRunTerminated):
        execute(make(workflow))
    assert len(skyvern.runs) == 2


def test_a_failed_run_fails_its_task_although_skyvern_does_not_tell_what_replaces_it(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("failed",), fallback_plan=("completed",))
    refused = httpx.Response(403, json={"detail": "Could not validate credentials"})
    skyvern.next("GET", "/v1/workflows/runs/.*", refused)
    with pytest.raises(SkyvernRunFailed):
        execute(make(workflow))


def test_a_run_with_a_fallback_credential_counts_for_no_start(
    skyvern: FakeSkyvern, task_log: TaskLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two runs of the first try do not answer for the lost start of the second one; below Airflow 3.3."""
    monkeypatch.setattr(lookup, "REPLACEMENT_DELAY", 1)  # less than what is measured below
    workflow = skyvern.workflow(plan=("failed",), fallback_plan=("failed",))
    with pytest.raises(SkyvernRunFailed):
        run_task(lambda: make(workflow, retries=2), try_number(1))
    assert len(skyvern.runs) == 2
    operator = make(workflow, retries=2, lost_start_timeout=3)
    before = time.monotonic()
    with pytest.raises(SkyvernRunFailed):
        operator.execute(context_of(try_number(3)))
    assert time.monotonic() - before >= 3


def test_a_cleared_task_starts_anew_and_cancels_what_it_had_started(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("running",))
    deferral(make(workflow, deferrable=True), try_number(1, max_tries=0))
    deferral(make(workflow, deferrable=True), try_number(2, max_tries=1))
    before, after = skyvern.runs
    assert (skyvern.status(before), skyvern.status(after)) == ("canceled", "created")


def test_the_event_of_an_earlier_try_does_not_end_this_one(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("running", "completed"), output={"sum": 1})
    stale = deferral(make(workflow, deferrable=True), try_number(1))
    event = {"run_id": "wr_of_another_time", "reason": "ended", "status": "completed", "message": None}
    assert resumed(make(workflow), stale, event, context_of(try_number(2))) == {"sum": 1}
    assert len(skyvern.runs) == 1


def test_the_visits_of_a_worker_cost_few_requests_and_one_look_at_the_connection_each(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[str] = []

    class Env(dict[str, str]):
        def get(self, key: str, default: Any = None) -> Any:
            looked_up.append(key)
            return super().get(key, default)

    ti, workflow = FakeTaskInstance(), skyvern.workflow(plan=("completed",), output={"sum": 1})
    monkeypatch.setattr("os.environ", Env(os.environ))
    deferred = deferral(make(workflow, deferrable=True), ti)
    assert [(seen.method, seen.path) for seen in skyvern.requests] == [("POST", START)]
    assert looked_up.count("AIRFLOW_CONN_SKYVERN_DEFAULT") == 1
    skyvern.requests.clear()
    looked_up.clear()
    run_id = ti.xcoms["run_id"]
    event = {"run_id": run_id, "reason": "ended", "status": "completed", "message": None}
    assert resumed(make(workflow), deferred, event, context_of(ti)) == {"sum": 1}
    search_for_twins = ("GET", "/v1/runs")
    assert [(seen.method, seen.path) for seen in skyvern.requests] == [
        ("GET", f"/v1/runs/{run_id}"),
        search_for_twins,
    ]
    assert looked_up.count("AIRFLOW_CONN_SKYVERN_DEFAULT") == 1


def test_a_deferral_says_what_the_trigger_needs_and_no_secret(skyvern: FakeSkyvern) -> None:
    before = time.time()
    deferred = deferral(make(skyvern.workflow(), deferrable=True, poll_interval=7, timeout=600))
    [run_id] = skyvern.runs
    _, kwargs = deferred.trigger.serialize()
    assert (kwargs["run_id"], kwargs["poll_interval"]) == (run_id, 7.0)
    assert before + 600 <= kwargs["deadline"] <= time.time() + 600
    note = {
        "run_id": run_id,
        "skyvern_conn_id": "skyvern_default",
        "app_url": f"http://localhost:8080/runs/{run_id}",
        "group": skyvern.runs[run_id].tags["airflow_key"],
    }
    assert deferred.kwargs == {"deadline": kwargs["deadline"], "try_number": 1, "skyvern": note}
    assert deferred.method_name == "execute_complete"
    assert deferred.timeout is not None
    assert timedelta(seconds=595) + BACKSTOP < deferred.timeout <= timedelta(seconds=600) + BACKSTOP
    assert API_KEY not in json.dumps(kwargs)


def test_the_deadline_leaves_time_before_the_execution_timeout(skyvern: FakeSkyvern) -> None:
    operator = make(skyvern.workflow(), deferrable=True, timeout=3600, execution_timeout=timedelta(minutes=10))
    _, kwargs = deferral(operator).trigger.serialize()
    assert kwargs["deadline"] == pytest.approx(time.time() + 570, abs=5)


def test_the_execution_timeout_counts_from_the_start_of_the_task(skyvern: FakeSkyvern) -> None:
    ti = FakeTaskInstance()
    ti.start_date = datetime.now(timezone.utc) - timedelta(minutes=2)
    operator = make(skyvern.workflow(), deferrable=True, timeout=3600, execution_timeout=timedelta(minutes=10))
    _, kwargs = deferral(operator, ti).trigger.serialize()
    assert kwargs["deadline"] == pytest.approx(time.time() + 450, abs=5)


def test_a_start_that_took_the_whole_execution_timeout_cancels_at_once(skyvern: FakeSkyvern) -> None:
    ti = FakeTaskInstance()
    ti.start_date = datetime.now(timezone.utc) - timedelta(seconds=35)
    operator = make(skyvern.workflow(plan=("running",)), deferrable=True, execution_timeout=timedelta(minutes=1))
    with pytest.raises(SkyvernWaitTimeout, match="it is canceled now"):
        execute(operator, ti)


@pytest.mark.parametrize("event", [None, {}, "ended", {"run_id": "wr_1", "reason": "success"}, {"reason": "ended"}])
def test_a_missing_or_malformed_event_fails_loudly(skyvern: FakeSkyvern, event: Any) -> None:
    workflow = skyvern.workflow(plan=("completed",))
    deferred = deferral(make(workflow, deferrable=True))
    with pytest.raises(SkyvernError, match="without a valid event"):
        resumed(make(workflow), deferred, event, context_of(FakeTaskInstance()))


@pytest.mark.parametrize(("max_tries", "canceled"), [(0, 1), (1, 0)])
@pytest.mark.parametrize("noted", [True, False], ids=["noted in the deferral", "deferred by an older version"])
def test_an_invalid_event_cancels_the_run_unless_a_retry_will_resume_it(
    skyvern: FakeSkyvern, *, noted: bool, max_tries: int, canceled: int
) -> None:
    workflow = skyvern.workflow(plan=("running",))
    ti = FakeTaskInstance()
    ti.max_tries = max_tries
    deferred = deferral(make(workflow, deferrable=True), ti)
    assert deferred.kwargs is not None
    if not noted:
        del deferred.kwargs["skyvern"]
    with pytest.raises(SkyvernError, match="without a valid event"):
        resumed(make(workflow), deferred, {"reason": "unheard of"}, context_of(ti))
    assert len(skyvern.sent("POST", CANCEL)) == canceled


def test_a_trigger_that_gave_up_is_replaced_by_the_worker(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("running", "completed"), output={"sum": 1})
    deferred = deferral(make(workflow, deferrable=True))
    [run_id] = skyvern.runs
    event = {"run_id": run_id, "reason": "error", "status": None, "message": "the key did not work there"}
    assert resumed(make(workflow), deferred, event, context_of(FakeTaskInstance())) == {"sum": 1}


def test_the_result_of_a_run_that_is_over_is_fetched_with_patience(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("completed",), output={"sum": 1})
    deferred = deferral(make(workflow, deferrable=True, timeout=0.001))
    [run_id] = skyvern.runs
    skyvern.next("GET", LOOK, *[httpx.Response(503)] * 6)
    operator = make(workflow)
    operator.hook = SkyvernHook(retry=RetryPolicy(attempts=2, base=0))
    time.sleep(0.002)
    event = {"run_id": run_id, "reason": "ended", "status": "completed", "message": None}
    assert resumed(operator, deferred, event, context_of(FakeTaskInstance())) == {"sum": 1}


def fail(operator: SkyvernRunWorkflowOperator, ti: FakeTaskInstance, error: str = "Trigger timeout") -> Any:
    return operator.resume_execution("__fail__", {"error": error}, context_of(ti))


@pytest.mark.parametrize("map_index", [-1, 2])
@pytest.mark.parametrize("error", ["Trigger timeout", "Trigger/execution timeout"])
def test_a_deferral_that_airflow_timed_out_cancels_the_run(skyvern: FakeSkyvern, map_index: int, error: str) -> None:
    workflow = skyvern.workflow(plan=("running",))
    ti = FakeTaskInstance(map_index=map_index)
    deferral(make(workflow, deferrable=True), ti)
    with pytest.raises(SkyvernWaitTimeout, match="it is canceled now"):
        fail(make(workflow), ti, error)
    assert len(skyvern.sent("POST", CANCEL)) == 1


def test_a_trigger_that_failed_leaves_the_run_alone_and_is_replaced_by_another(skyvern: FakeSkyvern) -> None:
    """Its class cannot be loaded during a rolling deployment, for example."""
    workflow = skyvern.workflow(plan=("running",))
    ti = FakeTaskInstance()
    first = deferral(make(workflow, deferrable=True), ti)
    operator = make(workflow, deferrable=True)
    operator.trigger_failed_wait = 0.05  # type: ignore[misc]  # of this object only
    with pytest.raises(TaskDeferred) as again:
        fail(operator, ti, "Trigger failure")
    assert again.value.trigger.serialize()[1]["run_id"] == first.trigger.serialize()[1]["run_id"]
    assert skyvern.sent("POST", CANCEL) == []


def test_a_task_whose_trigger_cannot_be_imported_starts_nothing(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "airflow_skyvern.triggers", None)
    with pytest.raises(ImportError):
        execute(make(skyvern.workflow(), deferrable=True))
    assert skyvern.requests == []


def test_a_worker_finishes_what_a_failed_trigger_did_not(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("running", "completed"), output={"sum": 1})
    ti = FakeTaskInstance()
    deferral(make(workflow, deferrable=True), ti)
    assert fail(make(workflow, deferrable=True), ti, "Trigger failure") == {"sum": 1}


def test_a_failed_trigger_does_not_move_the_deadline(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("running",))
    ti = FakeTaskInstance()
    ti.start_date = datetime.now(timezone.utc) - timedelta(hours=2)
    deferral(make(workflow, deferrable=True), ti)
    with pytest.raises(SkyvernWaitTimeout, match="it is canceled now"):
        fail(make(workflow, deferrable=True, execution_timeout=timedelta(hours=1)), ti, "Trigger failure")


def test_a_run_that_completed_without_an_event_is_not_lost(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("completed",), output={"sum": 1})
    ti = FakeTaskInstance()
    deferral(make(workflow, deferrable=True), ti)
    assert fail(make(workflow), ti) == {"sum": 1}


def test_a_deferral_of_nothing_fails_as_airflow_says(skyvern: FakeSkyvern) -> None:
    with pytest.raises(AirflowException, match="Trigger timeout"):
        fail(make(), FakeTaskInstance())
    assert skyvern.requests == []


def test_a_run_that_takes_too_long_is_canceled_once(skyvern: FakeSkyvern, *, deferrable: bool) -> None:
    workflow = skyvern.workflow(plan=("running",))
    with pytest.raises(SkyvernWaitTimeout, match="did not end in time; it is canceled now") as caught:
        run_task(lambda: make(workflow, deferrable=deferrable, timeout=0.1))
    assert len(skyvern.sent("POST", CANCEL)) == 1
    assert caught.value.run is not None
    assert caught.value.run.status == "canceled"
    assert str(caught.value.run.app_url) in str(caught.value)


def not_found(what: str, skyvern: FakeSkyvern) -> httpx.Response:
    """Deny the only run in Skyvern's own words."""
    [run_id] = skyvern.runs
    return httpx.Response(404, json={"detail": f"{what} not found {run_id}"})


def test_a_run_that_completes_while_it_is_being_canceled_is_a_success(skyvern: FakeSkyvern) -> None:
    plan = (*["running"] * 1000, "completed")

    def complete() -> None:
        for run in skyvern.runs.values():
            run.step = len(plan) - 1

    skyvern.next("POST", CANCEL, complete)
    assert execute(make(skyvern.workflow(plan=plan, output={"sum": 1}), timeout=0.05)) == {"sum": 1}


def test_a_cancel_that_stays_refused_says_that_the_run_may_still_run(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancel, "DEADLINE_PATIENCE", 0.0)
    skyvern.next("POST", CANCEL, lambda: not_found("Run", skyvern))
    with pytest.raises(SkyvernWaitTimeout, match=r"may still be running: .*Run not found.* See http://localhost"):
        execute(make(skyvern.workflow(plan=("running",)), timeout=0.05))


def test_killing_a_waiting_task_cancels_its_run_once(skyvern: FakeSkyvern, task_log: TaskLog) -> None:
    operator = make(skyvern.workflow(plan=("running",)), poll_interval=60)
    skyvern.next("GET", LOOK, operator.on_kill)
    with pytest.raises(SkyvernRunCanceled):
        execute(operator)
    operator.on_kill()
    [run_id] = skyvern.runs
    assert skyvern.status(run_id) == "canceled"
    assert len(skyvern.sent("POST", CANCEL)) == 1
    assert f"Skyvern run {run_id}: canceled, as the task was killed" in task_log()


def test_a_killed_task_never_succeeds_even_when_its_run_does(skyvern: FakeSkyvern) -> None:
    operator = make(skyvern.workflow(plan=("completed",)))
    skyvern.next("GET", LOOK, operator.on_kill)
    with pytest.raises(SkyvernRunCanceled, match="must not succeed"):
        execute(operator)


@pytest.mark.parametrize("durable", [True, False])
def test_killing_a_task_whose_start_is_not_answered_yet_cancels_the_run(
    skyvern: FakeSkyvern, *, durable: bool
) -> None:
    operator = make(skyvern.workflow(plan=("running",)), durable=durable)
    skyvern.next("POST", START, operator.on_kill)
    with pytest.raises(SkyvernRunCanceled):
        execute(operator)
    [run_id] = skyvern.runs
    assert skyvern.status(run_id) == "canceled"


@pytest.mark.parametrize(
    ("state", "retries", "durable", "canceled"),
    [
        ("failed", 2, True, True),
        ("success", 2, True, True),
        ("skipped", 2, True, True),
        ("removed", 2, True, True),
        ("restarting", 2, True, True),
        ("running", 2, True, False),
        (None, 2, True, False),
        ("queued", 2, True, False),
        ("scheduled", 2, True, False),
        ("up_for_retry", 2, True, False),
        ("deferred", 2, True, False),
        ("running", 0, True, True),
        ("running", 2, False, True),
    ],
)
def test_a_stopped_worker_cancels_its_run_only_for_a_user_or_when_no_retry_will_come(
    skyvern: FakeSkyvern, state: str | None, retries: int, *, durable: bool, canceled: bool
) -> None:
    """Airflow sends the same signal for a mark and for a shutdown of the worker."""
    ti = try_number(1, retries)
    workflow = skyvern.workflow(plan=("running",))
    operator = make(workflow, durable=durable, retries=retries)

    def kill() -> None:
        ti.state = state
        operator.on_kill()

    skyvern.next("GET", LOOK, kill)
    with pytest.raises(SkyvernRunCanceled if canceled else SkyvernWaitInterrupted):
        execute(operator, ti)
    [run_id] = skyvern.runs
    assert skyvern.status(run_id) == ("canceled" if canceled else "running")


@pytest.mark.parametrize(("retries", "canceled"), [(0, True), (2, False)])
def test_a_worker_that_gets_no_answer_from_airflow_leaves_the_run_to_a_retry(
    skyvern: FakeSkyvern, retries: int, *, canceled: bool
) -> None:
    ti = try_number(1, retries)
    operator = make(skyvern.workflow(plan=("running",)), retries=retries)

    def kill() -> None:
        ti.answers_after = 30
        began = time.monotonic()
        operator.on_kill()
        assert time.monotonic() - began < 5

    skyvern.next("GET", LOOK, kill)
    with pytest.raises(SkyvernRunCanceled if canceled else SkyvernWaitInterrupted):
        execute(operator, ti)
    assert len(skyvern.sent("POST", CANCEL)) == int(canceled)


def test_the_retry_of_a_stopped_worker_resumes_its_run(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("running", "running", "completed"), output={"sum": 1})
    stopped = make(workflow, retries=2)
    skyvern.next("POST", START, stopped.on_kill)
    with pytest.raises(SkyvernWaitInterrupted):
        execute(stopped, try_number(1))
    assert run_task(lambda: make(workflow, retries=2), try_number(2)) == {"sum": 1}
    assert len(skyvern.runs) == 1


def test_an_execution_timeout_cancels_the_run_although_a_retry_will_come(skyvern: FakeSkyvern) -> None:
    operator = make(skyvern.workflow(plan=("running",)), retries=2)

    def time_out() -> None:
        try:
            raise AirflowTaskTimeout  # noqa: TRY301  as Airflow does
        except AirflowTaskTimeout:
            operator.on_kill()

    skyvern.next("GET", LOOK, time_out)
    with pytest.raises(SkyvernRunCanceled):
        execute(operator, try_number(1))
    [run_id] = skyvern.runs
    assert skyvern.status(run_id) == "canceled"


@pytest.mark.parametrize("state", ["scheduled", "queued", "up_for_retry", None])
def test_a_state_that_no_user_has_set_does_not_keep_a_task_from_deferring(
    skyvern: FakeSkyvern, state: str | None
) -> None:
    """`airflow dags test` leaves a running task `scheduled` on Airflow 2."""
    ti = FakeTaskInstance()
    ti.state = state
    deferral(make(skyvern.workflow(plan=("running",)), deferrable=True), ti)
    assert skyvern.sent("POST", CANCEL) == []


@pytest.mark.parametrize(("retries", "durable", "canceled"), [(0, True, True), (2, True, False), (2, False, True)])
def test_a_task_that_fails_for_any_reason_leaves_no_run_that_nobody_will_resume(
    skyvern: FakeSkyvern, retries: int, *, durable: bool, canceled: bool
) -> None:
    ti = try_number(1, retries)

    def fail_to_push(key: str) -> None:
        raise RuntimeError("the XCom backend is away")

    ti.on_push = lambda key: fail_to_push(key) if key == "run_id" else None
    with pytest.raises(RuntimeError):
        execute(make(skyvern.workflow(plan=("running",)), durable=durable, retries=retries), ti)
    [run_id] = skyvern.runs
    assert skyvern.status(run_id) == ("canceled" if canceled else "created")


def test_a_permanent_error_during_the_wait_leaves_no_run(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "REFUSAL_PATIENCE", 0.0)
    skyvern.next("GET", LOOK, lambda: not_found("Task run", skyvern))
    with pytest.raises(AirflowFailException):
        execute(make(skyvern.workflow(plan=("running",)), retries=2), try_number(1))
    [run_id] = skyvern.runs
    assert skyvern.status(run_id) == "canceled"


def test_killing_a_resumed_task_cancels_its_run(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("running",))
    deferred = deferral(make(workflow, deferrable=True))
    [run_id] = skyvern.runs
    operator = make(workflow)
    skyvern.next("GET", LOOK, operator.on_kill)
    event = {"run_id": run_id, "reason": "error", "status": None, "message": ""}
    with pytest.raises(SkyvernRunCanceled):
        resumed(operator, deferred, event, context_of(FakeTaskInstance()))
    assert len(skyvern.sent("POST", CANCEL)) == 1


def test_a_task_that_is_killed_before_it_is_resumed_cancels_its_run(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(plan=("running",))
    deferred = deferral(make(workflow, deferrable=True))
    [run_id] = skyvern.runs
    operator = make(workflow)
    operator.on_kill()
    event = {"run_id": run_id, "reason": "error", "status": None, "message": ""}
    with pytest.raises(SkyvernRunCanceled):
        resumed(operator, deferred, event, context_of(FakeTaskInstance()))
    assert skyvern.status(run_id) == "canceled"
    assert len(skyvern.sent("POST", CANCEL)) == 1


def test_killing_a_task_that_has_started_nothing_asks_nothing(skyvern: FakeSkyvern) -> None:
    make().on_kill()
    assert skyvern.requests == []


def test_killing_a_task_that_is_over_asks_nothing(skyvern: FakeSkyvern) -> None:
    operator = make(skyvern.workflow())
    execute(operator)
    asked = len(skyvern.requests)
    operator.on_kill()
    assert len(skyvern.requests) == asked


def test_a_cancel_whose_answer_is_lost_is_seen_to_by_looking(skyvern: FakeSkyvern) -> None:
    operator = make(skyvern.workflow(plan=("running",)))
    skyvern.next("GET", LOOK, operator.on_kill)
    skyvern.next("POST", CANCEL, LOST)
    with pytest.raises(SkyvernRunCanceled):
        execute(operator)
    [run_id] = skyvern.runs
    assert skyvern.status(run_id) == "canceled"


def test_a_run_can_be_left_alone_when_its_task_is_killed(skyvern: FakeSkyvern) -> None:
    operator = make(skyvern.workflow(plan=("running",)), cancel_on_kill=False)
    skyvern.next("GET", LOOK, operator.on_kill)
    with pytest.raises(SkyvernRunCanceled, match="must not succeed"):
        execute(operator)
    assert skyvern.sent("POST", CANCEL) == []


@pytest.mark.parametrize(
    ("durable", "options", "complaint"),
    [
        (True, {"run_metadata": {f"k{n}": "v" for n in range(16)}}, "at most 14 entries"),
        (False, {"run_metadata": {f"k{n}": "v" for n in range(21)}}, "at most 20"),
        (True, {"run_metadata": {"airflow_key": "v"}}, "airflow_key is used by the provider"),
        (True, {"run_metadata": {"k" * 65: "v"}}, "at most 64 characters"),
        (True, {"run_metadata": {"k": "v" * 257}}, "at most 256 characters"),
        (True, {"max_elapsed_time_minutes": 481}, "less than or equal to 480"),
        (True, {"totp_url": "https://x/".ljust(2084, "a")}, "at most 2083 characters"),
        (True, {"file_ids": ["file_1"] * 51}, "at most 50"),
        (True, {"run_metdata": {}}, "Did you mean run_metadata"),
    ],
)
@pytest.mark.parametrize("as_text", [True, False])
def test_what_templates_bring_is_checked_before_anything_is_sent(
    skyvern: FakeSkyvern, *, durable: bool, options: dict[str, Any], complaint: str, as_text: bool
) -> None:
    operator = make(skyvern.workflow(), run_options="{{ something }}", durable=durable)
    operator.run_options = json.dumps(options) if as_text else options  # type: ignore[assignment]
    with pytest.raises(AirflowFailException, match=complaint):
        execute(operator)
    assert skyvern.requests == []


def test_an_address_that_a_template_makes_too_long_is_refused_before_anything_is_sent(skyvern: FakeSkyvern) -> None:
    operator = make(skyvern.workflow(), webhook_url="{{ something }}")
    operator.webhook_url = "https://x/".ljust(2084, "a")
    with pytest.raises(AirflowFailException, match="webhook_url: String should have at most 2083 characters"):
        execute(operator)
    assert skyvern.requests == []


class OuterTask(BaseOperator):
    """Something that executes an operator of ours, as a function decorated with ``@task`` may."""


def inside(outer: BaseOperator) -> Any:
    context = context_of(FakeTaskInstance())
    context["ti"].task = outer
    return context


@pytest.mark.parametrize("durable", [True, False])
def test_an_operator_inside_another_task_refuses_before_anything_is_started(
    skyvern: FakeSkyvern, *, durable: bool
) -> None:
    operator = make(skyvern.workflow(), durable=durable)
    with pytest.raises(AirflowFailException, match=r"'t' was executed inside task 'outer', so nothing.*\.expand\(\)"):
        operator.execute(inside(OuterTask(task_id="outer")))
    assert skyvern.requests == []


def test_an_operator_inside_another_one_refuses_also_under_its_name(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow()
    with pytest.raises(AirflowFailException, match="inside task 't'"):
        make(workflow).execute(inside(make(workflow)))
    assert skyvern.requests == []


def test_a_context_by_hand_names_its_task_too(skyvern: FakeSkyvern) -> None:
    context: Any = {**context_of(FakeTaskInstance()), "task": OuterTask(task_id="outer")}
    with pytest.raises(AirflowFailException, match="inside task 'outer'"):
        make(skyvern.workflow()).execute(context)


@pytest.mark.skipif(not is_airflow_3(), reason="Airflow 2.11 itself executes no operator in a thread")
def test_a_subclass_may_execute_what_it_extends_also_in_a_thread(skyvern: FakeSkyvern) -> None:
    class Extended(SkyvernRunWorkflowOperator):
        def execute(self, context: Any) -> Any:
            with ThreadPoolExecutor(1) as threads:
                return {"extended": threads.submit(super().execute, context).result()}

    operator = Extended(task_id="t", workflow_id=skyvern.workflow(), poll_interval=0.01)
    context = inside(operator)
    assert "extended" in operator.execute(context)


def test_a_subclass_that_executes_twice_in_one_try_starts_one_run(skyvern: FakeSkyvern) -> None:
    class Looping(SkyvernRunWorkflowOperator):
        def execute(self, context: Any) -> Any:
            return [self._with(vendor, context) for vendor in "ABC"]

        def _with(self, vendor: str, context: Any) -> Any:
            self.parameters = {"vendor": vendor}
            return super().execute(context)

    workflow = skyvern.workflow(parameters={"vendor": "string"})
    operator = Looping(task_id="t", workflow_id=workflow, poll_interval=0.01)
    with pytest.raises(AirflowFailException, match="already started a run in this try, so nothing was started"):
        execute(operator)
    assert [start.json["parameters"] for start in skyvern.sent("POST", START)] == [{"vendor": "A"}]


def test_one_object_may_be_executed_in_each_try(skyvern: FakeSkyvern) -> None:
    operator, ti = make(skyvern.workflow(plan=("failed",))), FakeTaskInstance()
    ti.max_tries = 1
    for ti.try_number in (1, 2):
        with pytest.raises(SkyvernRunFailed):
            execute(operator, ti)
    assert len(skyvern.sent("POST", START)) == 2


@pytest.mark.skipif(not is_airflow_3(), reason="Airflow 2.11 tells what its database calls the DAG run")
def test_the_store_keeps_the_key_when_the_dag_run_is_queued_again(skyvern: FakeSkyvern) -> None:
    """Its start is another one then; the store belongs to the DAG run."""
    operator, ti = make(skyvern.workflow(), wait_for_completion=False), FakeTaskInstance()
    ti.max_tries = 1
    stored: dict[str, Any] = {}
    store = SimpleNamespace(get=stored.get, set=stored.__setitem__)
    run_ids = []
    for ti.try_number in (1, 2):
        context: Any = {**context_of(ti), "task_state_store": store}
        run_ids.append(operator.execute(context))
        ti.run_started += timedelta(minutes=1)
    assert run_ids[0] == run_ids[1]
    assert len(skyvern.sent("POST", START)) == 1
