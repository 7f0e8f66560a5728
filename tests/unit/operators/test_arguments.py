from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.compat.sdk import (
    DAG,
    AirflowFailException,
    BaseOperator,
)
from airflow_skyvern.exceptions import (
    SkyvernConfigError,
)
from airflow_skyvern.operators import DEFAULT_TIMEOUT, SkyvernRunWorkflowOperator
from tests.support.run_workflow_tasks import START, execute, make

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"workflow_id": ""}, "Task 't': workflow_id: String should have at least 1 character"),
        ({"parameters": {"when": object()}}, "Task 't': parameters.when: object is not valid JSON"),
        ({"parameters": {"day": "{{ ds }}", "when": [object()]}}, r"parameters.when\[0\]: object is not valid JSON"),
        ({"parameters": {"day": "{{ ds }}"}, "proxy_location": "MARS"}, "Task 't': proxy_location: no such location"),
        ({"parameters": "not json"}, "Task 't': parameters: must be a mapping"),
        ({"run_options": {"ai_fallbck": True}}, "Task 't': run_options.ai_fallbck: no such option. Did you mean"),
        ({"run_options": {"run_with": "magic"}}, "Task 't': run_options.run_with"),
        ({"run_options": {"run_metadata": {"airflow_key": "x"}}}, "airflow_key is used by the provider"),
        ({"skip_on": {"failed", "completed"}}, "Task 't': skip_on: completed is not a failure status; use failed"),
        ({"skip_on": "completed"}, "Task 't': skip_on: completed is not a failure status; use failed"),
        ({"skip_on": {"failed": True}}, "Task 't': skip_on must be endings such as"),
        ({"skip_on": ["failed", 1]}, "Task 't': skip_on: 1 is not a failure status"),
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
    own |= {"upload", "upload_conn_id", "workflow_file", "workflow_version", "max_steps", "max_elapsed_time_minutes"}
    own |= {"manifest_to"}
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


def test_an_address_that_a_template_makes_too_long_is_refused_before_anything_is_sent(skyvern: FakeSkyvern) -> None:
    operator = make(skyvern.workflow(), webhook_url="{{ something }}")
    operator.webhook_url = "https://x/".ljust(2084, "a")
    with pytest.raises(AirflowFailException, match="webhook_url: String should have at most 2083 characters"):
        execute(operator)
    assert skyvern.requests == []
