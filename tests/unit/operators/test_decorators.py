"""``@task.skyvern``: a function's parameters, the operator's run."""

from __future__ import annotations

import itertools
import json
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.compat.sdk import DAG, AirflowFailException, AirflowSkipException, task
from airflow_skyvern.decorators import skyvern_task
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.operators import SkyvernRunPromptOperator, SkyvernRunWorkflowOperator
from tests.support.tasks import FakeTaskInstance, context_of, deferral, run_task

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

START = "/v1/run/workflows"
QUICK: dict[str, Any] = {"poll_interval": 0.01, "timeout": 20, "retries": 2}
NOW = itertools.count()


def operator_of(function: Callable[..., Any], *args: Any, op: Any = None, **options: Any) -> Any:
    """Return the operator of a decorated function that was called with these arguments."""
    with DAG("d", schedule=None):
        made: Any = skyvern_task(**QUICK, **options)(function)(*args, **(op or {}))
    return made.operator


def attempt(number: int, map_index: int = -1, task_id: str = "t") -> FakeTaskInstance:
    ti = FakeTaskInstance(task_id, map_index)
    ti.try_number, ti.max_tries = number, 2
    return ti


@pytest.fixture
def workflow(skyvern: FakeSkyvern) -> str:
    skyvern.created_output = {
        "task_output": {"task_id": "tsk", "status": "completed", "extracted_information": {"answer": "Two."}}
    }
    return skyvern.workflow(
        parameters={"vendor": "string", "month": "string"},
        defaults={"vendor": "-", "month": "-"},
        output={"sum": 3, "rows": [1]},
        plan=("running", "running", "completed"),
    )


@pytest.fixture(params=[False, True], ids=["on the worker", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def parameters(vendor: str, month: Any = "2026-10") -> dict[str, Any]:
    return {"vendor": vendor, "month": month}


def sent(skyvern: FakeSkyvern) -> list[dict[str, Any]]:
    return [seen.json["parameters"] for seen in skyvern.sent("POST", START)]


def test_airflow_knows_the_decorator() -> None:
    decorator: Any = task.skyvern
    with DAG("d", schedule=None):
        made = decorator(workflow_id="wpid_1")(parameters)("ACME")
    assert isinstance(made.operator, SkyvernRunWorkflowOperator)
    assert made.operator.task_id == "parameters"
    assert made.operator.operator_name == "@task.skyvern"


@pytest.mark.slow
def test_what_the_function_returns_is_what_the_run_is_started_with(
    skyvern: FakeSkyvern, workflow: str, deferrable: bool
) -> None:
    ti = FakeTaskInstance()
    made = lambda: operator_of(parameters, "ACME", workflow_id=workflow, deferrable=deferrable)  # noqa: E731
    assert run_task(made, ti) == {"sum": 3, "rows": [1]}
    assert sent(skyvern) == [{"vendor": "ACME", "month": "2026-10"}]
    assert ti.xcoms["run_id"] in skyvern.runs


def test_a_function_that_returns_nothing_runs_the_workflow_without_parameters(
    skyvern: FakeSkyvern, workflow: str
) -> None:
    def nothing() -> None:
        pass

    operator_of(nothing, workflow_id=workflow).execute(context_of(FakeTaskInstance()))
    assert "parameters" not in skyvern.sent("POST", START)[0].json


def test_a_prompt_is_filled_in_with_what_the_function_returns(skyvern: FakeSkyvern, workflow: str) -> None:
    made = operator_of(parameters, "ACME", prompt="Bills of {vendor}", url="https://{vendor}.example.com")
    assert isinstance(made, SkyvernRunPromptOperator)
    assert made.execute(context_of(FakeTaskInstance())) == "Two."
    [given] = sent(skyvern)
    assert (given["prompt"], given["url"]) == ("Bills of ACME", "https://ACME.example.com")
    assert given["values"] == {"vendor": "ACME", "month": "2026-10"}


@pytest.mark.slow
def test_the_function_gets_the_context_that_it_names(skyvern: FakeSkyvern, workflow: str) -> None:
    def of_context(vendor: str, ti: Any = None) -> dict[str, Any]:
        return {"vendor": vendor, "month": ti.run_id}

    operator_of(of_context, "ACME", workflow_id=workflow).execute(context_of(FakeTaskInstance()))
    assert sent(skyvern) == [{"vendor": "ACME", "month": "manual__1"}]


@pytest.mark.slow
def test_arguments_are_templates_and_what_the_function_returns_is_none(skyvern: FakeSkyvern, workflow: str) -> None:
    def with_braces(vendor: str) -> dict[str, Any]:
        return {"vendor": vendor, "month": "{{ broken"}

    made = operator_of(with_braces, op={"vendor": "{{ params.vendor }}"}, workflow_id=workflow)
    context = {**context_of(FakeTaskInstance()), "params": {"vendor": "ACME"}}
    made.render_template_fields(context)
    made.execute(context)
    made.render_template_fields(context)  # as `dags test` of 2.11 does on resume, with the same object
    assert sent(skyvern) == [{"vendor": "ACME", "month": "{{ broken"}]


@pytest.mark.slow
@pytest.mark.parametrize("map_index", [-1, 0])
def test_a_retry_finds_the_run_of_a_function_that_never_returns_the_same(
    skyvern: FakeSkyvern, workflow: str, map_index: int
) -> None:
    def of_now(vendor: str) -> dict[str, Any]:
        return {"vendor": vendor, "month": str(next(NOW))}

    def made() -> Any:
        return operator_of(of_now, "ACME", workflow_id=workflow, deferrable=True)

    deferral(made(), attempt(1, map_index))
    assert run_task(made, attempt(2, map_index)) == {"sum": 3, "rows": [1]}
    assert len(skyvern.runs) == 1


def test_another_item_at_the_same_index_is_not_resumed(skyvern: FakeSkyvern, workflow: str) -> None:
    def made(vendor: str) -> Any:
        return operator_of(parameters, vendor, workflow_id=workflow, deferrable=True)

    deferral(made("ACME"), attempt(1, 0))
    deferral(made("Globex"), attempt(2, 0))
    assert [given["vendor"] for given in sent(skyvern)] == ["ACME", "Globex"]


@pytest.mark.slow
@pytest.mark.parametrize("item", [date(2026, 10, 1), {"a": {1, 2}}, object(), [object()]])
def test_each_kind_of_argument_gives_a_key_that_a_retry_gives_again(
    skyvern: FakeSkyvern, workflow: str, item: Any
) -> None:
    def of_item(item: Any) -> dict[str, Any]:
        return {"vendor": type(item).__name__}

    def made() -> Any:
        other = type(item)() if type(item) is object else [object()] if isinstance(item, list) else item
        return operator_of(of_item, other, workflow_id=workflow, deferrable=True)

    deferral(made(), attempt(1, 0))
    run_task(made, attempt(2, 0))
    assert len(skyvern.runs) == 1


def test_the_function_is_called_once_in_a_try_and_not_after_a_deferral(skyvern: FakeSkyvern, workflow: str) -> None:
    calls = []

    def counted() -> dict[str, Any]:
        calls.append(1)
        return {"vendor": "ACME"}

    made = lambda: operator_of(counted, workflow_id=workflow, deferrable=True, return_run=True)  # noqa: E731
    value = run_task(made)
    assert len(calls) == 1
    assert value["parameters"]["vendor"] == "ACME"


@pytest.mark.parametrize("returned", ["text", [1], 5])
def test_a_function_that_returns_no_mapping_fails_without_a_retry(
    skyvern: FakeSkyvern, workflow: str, returned: Any
) -> None:
    def wrong() -> Any:
        return returned

    with pytest.raises(AirflowFailException, match=r"@task.skyvern: wrong: must return a mapping"):
        operator_of(wrong, workflow_id=workflow).execute(context_of(FakeTaskInstance()))
    assert skyvern.runs == {}


def test_parameters_that_do_not_fit_the_workflow_start_nothing(skyvern: FakeSkyvern, workflow: str) -> None:
    def typo() -> dict[str, Any]:
        return {"vendr": "ACME"}

    with pytest.raises(AirflowFailException, match=r"parameters.vendr: no such parameter. Did you mean vendor"):
        operator_of(typo, workflow_id=workflow).execute(context_of(FakeTaskInstance()))
    assert skyvern.runs == {}


def test_a_function_may_skip_its_task(skyvern: FakeSkyvern, workflow: str) -> None:
    def skip() -> None:
        raise AirflowSkipException

    with pytest.raises(AirflowSkipException):
        operator_of(skip, workflow_id=workflow).execute(context_of(FakeTaskInstance()))
    assert skyvern.runs == {}


def test_a_function_that_fails_for_good_cancels_the_run_of_an_earlier_try(
    skyvern: FakeSkyvern, workflow: str
) -> None:
    def broken(vendor: str) -> dict[str, Any]:
        raise ValueError(vendor)

    skyvern.workflows[workflow].plan = ("running",)
    deferral(operator_of(parameters, "ACME", workflow_id=workflow, deferrable=True), attempt(1))
    with pytest.raises(ValueError, match="ACME"):
        operator_of(broken, "ACME", workflow_id=workflow).execute(context_of(attempt(3)))
    [run] = skyvern.runs
    assert skyvern.status(run) == "canceled"


def test_an_annotation_of_the_parameters_says_nothing_about_the_output() -> None:
    assert operator_of(parameters, "ACME", workflow_id="wpid_1").multiple_outputs is False
    assert operator_of(parameters, "ACME", workflow_id="wpid_1", multiple_outputs=True).multiple_outputs is True


def test_it_can_be_mapped_overridden_and_fed_by_other_tasks() -> None:
    with DAG("d", schedule=None) as dag:

        @task
        def vendors() -> list[str]:
            return ["ACME"]

        decorated: Any = skyvern_task(workflow_id="wpid_1", pool="default_pool")(parameters)
        decorated.partial(month="2026-10").expand(vendor=vendors())
        other = decorated.override(task_id="other", workflow_id="{{ params.id }}")(vendors())
        prompted: Any = skyvern_task(prompt="Bills of {vendor}", task_id="prompted")(parameters)
        prompted.expand(vendor=["a", "b"])
    assert other.operator.workflow_id == "{{ params.id }}"
    assert other.operator.upstream_task_ids == {"vendors__1"}
    mapped: Any = dag.get_task("parameters")
    assert mapped.upstream_task_ids == {"vendors"}
    assert set(dag.task_ids) == {"vendors", "parameters", "other", "vendors__1", "prompted"}


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({}, "give one of workflow_id, workflow_file and prompt"),
        ({"workflow_id": "w", "prompt": "p"}, "give one of workflow_id, workflow_file and prompt"),
        ({"workflow_id": "w", "parameters": {}}, "parameters: the function returns them"),
        ({"workflow_id": "w", "run_options": {"max_steps": 0}}, "Task 'parameters': run_options.max_steps"),
        ({"prompt": "p", "engine": "skyvern-2.0"}, "cannot run a prompt here"),
    ],
)
def test_a_mistake_is_found_when_the_dag_is_parsed(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SkyvernConfigError, match=complaint):
        operator_of(parameters, "ACME", **options)


def test_an_override_cannot_make_a_prompt_of_a_workflow() -> None:
    decorated: Any = skyvern_task(prompt="Bills of {vendor}")(parameters)
    with DAG("d", schedule=None), pytest.raises(SkyvernConfigError, match="workflow_id: belongs to"):
        decorated.override(workflow_id="wpid_1")("ACME")


def test_an_async_function_is_refused() -> None:
    async def later() -> dict[str, Any]:
        return {}

    with pytest.raises(SkyvernConfigError, match="later: must not be an async function"):
        operator_of(later, workflow_id="wpid_1")


def test_a_dag_with_it_can_be_serialized() -> None:
    from importlib import import_module

    with DAG("d", schedule=None) as dag:
        made: Any = skyvern_task(workflow_id="wpid_1")(parameters)
        made.expand(vendor=["ACME"])
        made.override(task_id="other")("ACME")
    module = import_module("airflow.serialization.serialized_objects")
    serialization = getattr(module, "DagSerialization", None) or module.SerializedDAG
    assert "@task.skyvern" in json.dumps(serialization.to_dict(dag))
