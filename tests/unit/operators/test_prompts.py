"""Prompts: the hidden workflow, made once, and all that a workflow's run has."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from pydantic import BaseModel

from airflow_skyvern.compat.sdk import DAG, AirflowFailException, AirflowSkipException, BaseOperator
from airflow_skyvern.compat.since_3_0 import is_airflow_3
from airflow_skyvern.exceptions import (
    SkyvernConfigError,
    SkyvernOutputError,
    SkyvernRunCanceled,
    SkyvernRunFailed,
    SkyvernServerError,
    SkyvernWaitTimeout,
)
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.operators import SkyvernRunPromptOperator
from airflow_skyvern.operators.run_prompt import BLOCK, OWN_NAMES
from airflow_skyvern.results.contract import TypeContract
from airflow_skyvern.runs.prompt_workflow import LABEL, MOST_REPLACEMENTS, Shape, filled, find_or_create
from airflow_skyvern.testing.fake.skyvern import LOST, FakeSkyvern
from tests.support.run_workflow_tasks import extracted
from tests.support.tasks import FakeTaskInstance, context_of, deferral, resumed, run_task

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.records import Run, Workflow
    from tests.unit.conftest import TaskLog

START = "/v1/run/workflows"
CREATE = "/v1/workflows"
ROWS = [{"number": "INV-1", "amount": 2.5}]


class Invoice(BaseModel):
    number: str
    amount: float


@pytest.fixture(autouse=True)
def _answers(fake: FakeSkyvern) -> None:
    fake.created_output = extracted({"answer": "Two invoices are open."})


def make(**more: Any) -> SkyvernRunPromptOperator:
    given = {"task_id": "t", "prompt": "How many invoices are open?", "url": "https://portal.example.com"}
    return SkyvernRunPromptOperator(**{**given, "poll_interval": 0.01, "timeout": 20, **more})


def attempt(number: int, max_tries: int = 2, map_index: int = -1) -> FakeTaskInstance:
    ti = FakeTaskInstance(map_index=map_index)
    ti.try_number, ti.max_tries = number, max_tries
    return ti


def hidden(skyvern: FakeSkyvern) -> Workflow:
    """The only workflow that there is."""
    [made] = skyvern.workflows.values()
    return made


def started(skyvern: FakeSkyvern) -> Run:
    """The only run that there is."""
    [run] = skyvern.runs.values()
    return run


@pytest.fixture(params=[False, True], ids=["on the worker", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_a_prompt_without_a_schema_returns_the_answer_as_text(skyvern: FakeSkyvern, deferrable: bool) -> None:
    ti = FakeTaskInstance()
    assert run_task(lambda: make(deferrable=deferrable), ti) == "Two invoices are open."
    run = started(skyvern)
    assert ti.xcoms["run_id"] == run.run_id
    assert run.parameters["prompt"] == "How many invoices are open?"
    assert run.parameters["url"] == "https://portal.example.com"
    assert "answer" in json.loads(run.parameters["schema"])["required"]
    assert run.tags["airflow_task_id"] == "t"


def test_the_workflow_is_hidden_and_holds_nothing_of_the_prompt(skyvern: FakeSkyvern) -> None:
    run_task(make)
    definition = hidden(skyvern).definitions[0]
    assert definition["status"] == "auto_generated"
    assert definition["run_with"] == "agent", "code that was cached for one prompt must not run another"
    [block] = definition["workflow_definition"]["blocks"]
    goals = ("navigation_goal", "data_extraction_goal", "url", "data_schema")
    assert [block[name] for name in goals] == ["{{ prompt }}", "{{ prompt }}", "{{ url }}", "{{ schema }}"]
    assert "open" not in json.dumps(definition)


def test_no_parameter_has_the_name_of_the_block_which_its_templates_would_take_for_the_block() -> None:
    names = {row["key"] for row in Shape().definition["workflow_definition"]["parameters"]}
    assert LABEL == BLOCK
    assert names | {LABEL} == OWN_NAMES
    assert LABEL not in names


@pytest.mark.parametrize("schema", [list[Invoice], TypeContract(list[Invoice]).json_schema()], ids=["type", "JSON"])
def test_the_schema_is_sent_and_the_value_is_the_extracted_data(
    skyvern: FakeSkyvern, deferrable: bool, schema: Any
) -> None:
    given = TypeContract(list[Invoice]).json_schema()
    if isinstance(schema, dict):
        schema = {"type": "array", "items": {"$ref": "#/$defs/Invoice"}, "$defs": given["$defs"]}
    skyvern.created_output = extracted(ROWS)
    assert run_task(lambda: make(output_schema=schema, deferrable=deferrable)) == ROWS
    sent = json.loads(started(skyvern).parameters["schema"])
    assert sent["$defs"]["Invoice"]["properties"].keys() == {"number", "amount"}


def test_the_schema_may_be_a_file_beside_the_dag(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('{"type": "array"}')
    skyvern.created_output = extracted(ROWS)
    with DAG("d", schedule=None, template_searchpath=[str(tmp_path)]):
        operator = make(output_schema="rows.json")
    assert operator.execute(context_of(FakeTaskInstance())) == ROWS
    assert json.loads(started(skyvern).parameters["schema"]) == {"type": "array"}


@pytest.mark.parametrize("data", [[{"number": "INV-1"}], {"answer": "none"}, None])
def test_data_that_does_not_fit_fails_without_a_retry(skyvern: FakeSkyvern, data: Any) -> None:
    skyvern.created_output = extracted(data)
    with pytest.raises(AirflowFailException, match="does not match output_schema"):
        run_task(lambda: make(output_schema=list[Invoice]))


@pytest.mark.parametrize("data", [None, {"answer": None}, {}])
def test_a_prompt_that_has_nothing_to_answer_succeeds(skyvern: FakeSkyvern, data: Any) -> None:
    skyvern.created_output = extracted(data)
    assert run_task(make) is None


@pytest.mark.parametrize("data", [{"answer": 5}, [1]])
def test_a_model_that_answers_no_text_fails(skyvern: FakeSkyvern, data: Any) -> None:
    skyvern.created_output = extracted(data)
    with pytest.raises(AirflowFailException, match="holds no text"):
        run_task(make)


@pytest.mark.slow
def test_data_that_does_not_fit_is_worth_another_run_where_that_is_wanted(skyvern: FakeSkyvern) -> None:
    skyvern.created_output = lambda _: extracted(ROWS[0] if len(skyvern.runs) > 1 else [])
    given: dict[str, Any] = {"output_schema": Invoice, "rerun_on_invalid_output": True, "retries": 2}
    with pytest.raises(SkyvernOutputError):
        run_task(lambda: make(**given), attempt(1))
    assert run_task(lambda: make(**given), attempt(2)) == ROWS[0]
    assert len(skyvern.runs) == 2
    assert len(skyvern.workflows) == 1


def test_values_fill_in_the_prompt_and_are_given_to_the_model_too(skyvern: FakeSkyvern) -> None:
    given = {"prompt": 'Bills of {vendor}, as {"no": {1}} {other}', "url": "https://{vendor}.example.com"}
    run_task(lambda: make(**given, parameters={"vendor": "acme"}))
    sent = started(skyvern).parameters
    assert sent["prompt"] == 'Bills of acme, as {"no": {1}} {other}'
    assert sent["url"] == "https://acme.example.com"
    assert sent["values"] == {"vendor": "acme"}


def test_a_value_that_holds_braces_is_not_filled_in_again() -> None:
    assert filled("{a}", {"a": "{b}", "b": "x"}) == "{b}"


@pytest.mark.slow
def test_a_thousand_mapped_prompts_have_one_workflow(skyvern: FakeSkyvern) -> None:
    for index in range(12):
        run_task(lambda index=index: make(prompt=f"Bill {index}"), FakeTaskInstance(map_index=index))  # type: ignore[misc]  # a default holds the value
    assert len(skyvern.workflows) == 1
    assert {run.parameters["prompt"] for run in skyvern.runs.values()} == {f"Bill {index}" for index in range(12)}


@pytest.mark.slow
def test_twenty_that_need_it_at_once_get_the_same_workflow(skyvern: FakeSkyvern) -> None:
    with ThreadPoolExecutor(20) as pool:
        found = set(pool.map(lambda _: find_or_create(SkyvernHook().send, Shape()), range(20)))
    assert found == {hidden(skyvern).workflow_id}


@pytest.mark.slow
@pytest.mark.skipif(not is_airflow_3(), reason="Airflow 2 executes tasks in its main thread only")
def test_twenty_tasks_at_once_have_twenty_runs_of_one_workflow(skyvern: FakeSkyvern) -> None:
    def run(index: int) -> Any:
        return run_task(lambda: make(prompt=f"Bill {index}"), FakeTaskInstance(map_index=index))

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(run, range(20))) == ["Two invoices are open."] * 20
    assert (len(skyvern.workflows), len(skyvern.runs)) == (1, 20)
    assert hidden(skyvern).version == 1


@pytest.mark.slow
def test_another_creation_that_has_not_ended_yet_is_waited_for(skyvern: FakeSkyvern) -> None:
    words = "Workflow creation with this idempotency key is still in progress."
    skyvern.next("POST", CREATE, httpx.Response(409, json={"detail": words}))
    assert run_task(make) == "Two invoices are open."
    assert len(skyvern.sent("POST", CREATE)) == 2


@pytest.mark.slow
def test_the_lost_answer_of_a_creation_makes_one_workflow(skyvern: FakeSkyvern) -> None:
    skyvern.next("POST", CREATE, LOST)
    assert run_task(make) == "Two invoices are open."
    assert len(skyvern.sent("POST", CREATE)) == 2
    assert (len(skyvern.workflows), len(skyvern.runs)) == (1, 1)


def test_the_lost_answer_of_a_start_makes_one_run(skyvern: FakeSkyvern) -> None:
    skyvern.next("POST", START, LOST)
    assert run_task(make) == "Two invoices are open."
    assert (len(skyvern.workflows), len(skyvern.runs)) == (1, 1)


@pytest.mark.slow
def test_a_creation_that_fails_starts_nothing_and_is_worth_a_retry(skyvern: FakeSkyvern) -> None:
    skyvern.next("POST", CREATE, *[httpx.Response(503, json={"error": "Database temporarily unavailable"})] * 5)
    with pytest.raises(SkyvernServerError):
        run_task(lambda: make(retries=2), attempt(1))
    assert skyvern.runs == {}
    assert run_task(lambda: make(retries=2, lost_start_timeout=0.1), attempt(2)) == "Two invoices are open."
    assert len(skyvern.runs) == 1


def edited(skyvern: FakeSkyvern, workflow: Workflow) -> None:
    workflow.definitions.append({**workflow.definitions[0], "title": "mine now"})


def deleted(skyvern: FakeSkyvern, workflow: Workflow) -> None:
    workflow.deleted = True


@pytest.mark.slow
@pytest.mark.parametrize("change", [edited, deleted])
def test_a_workflow_that_a_person_has_changed_is_left_alone_and_replaced(skyvern: FakeSkyvern, change: Any) -> None:
    run_task(make)
    first = hidden(skyvern)
    change(skyvern, first)
    versions = first.version
    run_task(make, FakeTaskInstance("second"))
    run_task(make, FakeTaskInstance("third"))
    assert len(skyvern.workflows) == 2
    assert [run.workflow is first for run in skyvern.runs.values()] == [True, False, False]
    assert first.version == versions


@pytest.mark.slow
def test_workflows_that_are_changed_again_and_again_are_an_error(skyvern: FakeSkyvern) -> None:
    def edit() -> None:
        list(skyvern.workflows.values())[-1].deleted = True

    skyvern.next("POST", CREATE, *[edit] * MOST_REPLACEMENTS)
    with pytest.raises(AirflowFailException, match="were edited or deleted in Skyvern"):
        run_task(make)
    assert skyvern.runs == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        {"engine": "openai-cua"},
        {"engine": "skyvern-1.0"},
        {"error_code_mapping": {"BAD_LOGIN": "the password is refused"}},
        {"url": None},
    ],
)
def test_another_shape_has_another_workflow(skyvern: FakeSkyvern, more: dict[str, Any]) -> None:
    run_task(make)
    run_task(lambda: make(**more), FakeTaskInstance("other"))
    assert len(skyvern.workflows) == 2
    [block] = list(skyvern.workflows.values())[1].definitions[0]["workflow_definition"]["blocks"]
    wanted = {"engine_pinned": True, **more} if "engine" in more else more
    assert {name: block.get(name) for name in wanted} == wanted


def test_a_prompt_may_begin_where_a_session_is(skyvern: FakeSkyvern) -> None:
    run_task(lambda: make(url=None, output_schema={}))
    assert started(skyvern).parameters["url"] == ""


def test_a_file_is_sent_for_the_run_and_known_by_its_name(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    (tmp_path / "receipt.pdf").write_bytes(b"%PDF")
    run_task(lambda: make(upload={"receipt": str(tmp_path / "receipt.pdf")}, parameters={"a": 1}))
    run = started(skyvern)
    assert run.parameters["receipt"].startswith("file_")
    assert run.parameters["values"] == {"a": 1}
    assert run.request["file_ids"] == [run.parameters["receipt"]]
    definition = hidden(skyvern).definitions[0]["workflow_definition"]
    assert definition["blocks"][0]["parameter_keys"] == ["values", "receipt"]
    assert definition["parameters"][-1] == {
        "parameter_type": "workflow",
        "key": "receipt",
        "workflow_parameter_type": "file_url",
    }


@pytest.mark.slow
def test_the_limit_of_steps_is_sent_with_the_start_and_makes_no_other_workflow(skyvern: FakeSkyvern) -> None:
    run_task(lambda: make(max_steps=7))
    run_task(lambda: make(max_steps="8", run_options={"max_elapsed_time_minutes": 5}), FakeTaskInstance("other"))
    run_task(make, FakeTaskInstance("third"))
    headers = [seen.headers.get("x-max-steps-override") for seen in skyvern.sent("POST", START)]
    assert headers == ["7", "8", None]
    assert "max_steps" not in skyvern.sent("POST", START)[0].json
    assert len(skyvern.workflows) == 1


@pytest.mark.slow
def test_a_retry_resumes_the_run_of_the_try_before_and_makes_nothing(skyvern: FakeSkyvern) -> None:
    skyvern.created_plan = ("running", "running", "running", "completed")
    deferral(make(retries=2, deferrable=True), attempt(1))
    created = len(skyvern.sent("POST", CREATE))
    assert run_task(lambda: make(retries=2), attempt(2)) == "Two invoices are open."
    assert len(skyvern.runs) == 1
    assert len(skyvern.sent("POST", CREATE)) == created


@pytest.mark.slow
def test_a_retry_of_a_mapped_prompt_resumes_its_run(skyvern: FakeSkyvern) -> None:
    skyvern.created_plan = ("running", "running", "running", "completed")
    deferral(make(retries=2, deferrable=True), attempt(1, map_index=3))
    assert run_task(lambda: make(retries=2), attempt(2, map_index=3)) == "Two invoices are open."
    assert len(skyvern.runs) == 1


def test_a_failed_run_fails_the_task_and_is_not_searched_for_a_replacement(
    skyvern: FakeSkyvern, deferrable: bool
) -> None:
    skyvern.created_plan = ("running", "failed")
    asked = len(skyvern.sent("GET", "/v1/workflows/.*"))
    with pytest.raises(SkyvernRunFailed):
        run_task(lambda: make(deferrable=deferrable))
    assert len(skyvern.sent("GET", "/v1/workflows/.*")) == asked + 1, "only to see whether anybody edited it"


def test_a_bad_ending_may_skip_the_task(skyvern: FakeSkyvern) -> None:
    skyvern.created_plan = ("running", "terminated")
    with pytest.raises(AirflowSkipException):
        run_task(lambda: make(skip_on={"terminated"}))


@pytest.mark.slow
def test_a_late_run_is_canceled(skyvern: FakeSkyvern) -> None:
    skyvern.created_plan = ("running",)
    with pytest.raises(SkyvernWaitTimeout):
        run_task(lambda: make(timeout=0.1))
    assert skyvern.status(started(skyvern).run_id) == "canceled"


def test_a_killed_task_cancels_its_run(skyvern: FakeSkyvern) -> None:
    class Killed(SkyvernRunPromptOperator):
        def _fetch_of(self, run_id: str) -> Any:
            self.on_kill()
            return super()._fetch_of(run_id)

    skyvern.created_plan = ("running",)
    with pytest.raises(SkyvernRunCanceled):
        Killed(task_id="t", prompt="Wait.", url="https://x").execute(context_of(FakeTaskInstance()))
    assert skyvern.status(started(skyvern).run_id) == "canceled"


@pytest.mark.slow
def test_files_that_the_run_downloads_are_stored(skyvern: FakeSkyvern, deferrable: bool, tmp_path: Path) -> None:
    run_task(make, FakeTaskInstance("first"))
    hidden(skyvern).artifacts = {"a.pdf": b"%PDF"}
    ti = FakeTaskInstance()
    run_task(lambda: make(deferrable=deferrable, files_to=str(tmp_path), expect_files=["*.pdf"]), ti)
    [file] = ti.xcoms["files"]
    assert Path(file["path"]).read_bytes() == b"%PDF"


def test_the_whole_run_says_what_it_was_for(skyvern: FakeSkyvern, deferrable: bool) -> None:
    value = run_task(
        lambda: make(
            prompt="Bills of {vendor}", parameters={"vendor": "ACME"}, return_run=True, deferrable=deferrable
        )
    )
    assert value["output"] == "Two invoices are open."
    url = "https://portal.example.com"
    assert value["parameters"] == {"vendor": "ACME", "prompt": "Bills of ACME", "url": url}


@pytest.mark.slow
def test_without_tags_in_use_each_try_starts_a_run_of_its_own(skyvern: FakeSkyvern) -> None:
    run_task(lambda: make(durable=False))
    run_task(lambda: make(durable=False), attempt(2))
    assert (len(skyvern.workflows), len(skyvern.runs)) == (1, 2)


def test_the_log_names_the_workflow(skyvern: FakeSkyvern, task_log: TaskLog) -> None:
    run_task(make)
    assert f"of workflow {hidden(skyvern).workflow_id}: started" in task_log()


def test_lineage_knows_the_workflow_of_a_run_that_another_process_has_started(skyvern: FakeSkyvern) -> None:
    first, other = make(deferrable=True), make(deferrable=True)
    deferred = deferral(first)
    run = started(skyvern)
    run.step = 0
    event = {"run_id": run.run_id, "reason": "ended", "status": "completed", "message": ""}
    resumed(other, deferred, event, context_of(FakeTaskInstance()))
    assert other._origin_of_files() == first._origin_of_files()
    assert hidden(skyvern).workflow_id in str(other._origin_of_files())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"prompt": " "}, "Task 't': prompt: must be a text, and not empty"),
        ({"prompt": None}, "Task 't': prompt: must be a text"),
        ({"url": 5}, "Task 't': url: must be a text"),
        ({"url": "ftp://shop.example.com"}, "Task 't': url: must be an address of the web"),
        ({"url": "javascript:alert(1)"}, "Task 't': url: must be an address of the web"),
        (
            {"prompt": "read {invoice}", "parameters": {"invoce": 1}},
            r"Task 't': parameters: prompt and url name {invoice}, which has no value. Did you mean invoce\?",
        ),
        (
            {"url": "https://example.com/{moth}", "parameters": {"month": "{{ ds }}"}},
            r"prompt and url name {moth}, which has no value. Did you mean month\?",
        ),
        ({"engine": "skyvern-2.0"}, "Task 't': engine: 'skyvern-2.0' cannot run a prompt here; use skyvern-1.0"),
        ({"error_code_mapping": {"A": 1}}, "Task 't': error_code_mapping: must map codes"),
        ({"error_code_mapping": "no json"}, "Task 't': error_code_mapping: must be a mapping"),
        ({"upload": {"url": "/x"}}, "Task 't': upload.url: the prompt itself uses this name"),
        ({"max_steps": 0}, "max_steps: Input should be greater than or equal to 1"),
        ({"max_steps": 5, "run_options": "{{ params.o }}"}, "Task 't': max_steps: run_options is a template"),
        ({"workflow_id": "wpid_1"}, "Task 't': workflow_id: belongs to SkyvernRunWorkflowOperator"),
        ({"output_from": "a"}, "Task 't': output_from: belongs to SkyvernRunWorkflowOperator"),
        ({"output_schema": {"type": "nonsense"}}, "Task 't': output_schema: is not a valid JSON Schema"),
        ({"output_schema": list[type[Any]]}, "Task 't': output_schema: it has no JSON Schema"),
        ({"parameters": {"when": object()}}, "Task 't': parameters.when: object is not valid JSON"),
    ],
)
def test_a_mistake_is_found_when_the_dag_is_parsed(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SkyvernConfigError, match=complaint):
        make(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"url": "shop.example.com"},
        {"url": "localhost:8080/shop"},
        {"url": "HTTP://127.0.0.1"},
        {"url": "about:blank"},
        {"url": "{{ params.url }}", "prompt": "as {json}", "parameters": {"month": 1}},
        {"prompt": "{{ params.mont }} of {month}", "parameters": {"month": 1, "mont": 2}},
        {"prompt": "for {month}", "parameters": "{{ params.p }}"},
        {"prompt": "for {month} and {mont}", "parameters": {"month": 1}},
    ],
    ids=str,
)
def test_what_may_be_meant_so_is_no_mistake(arguments: dict[str, Any]) -> None:
    make(**arguments)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"prompt": "{{ params.nothing }}"}, "prompt: must be a text, and not empty"),
        ({"engine": "{{ params.engine }}"}, "engine: 'warp' cannot run a prompt here"),
        ({"error_code_mapping": "{{ params.engine }}"}, "error_code_mapping: must be a mapping"),
        ({"max_steps": "{{ params.zero }}"}, "run_options.max_steps: Input should be greater"),
    ],
)
def test_what_a_template_gives_is_checked_before_anything_is_sent(
    skyvern: FakeSkyvern, arguments: dict[str, Any], complaint: str
) -> None:
    with DAG("d", schedule=None):
        operator = make(**arguments)
    operator.render_template_fields({"params": {"nothing": "", "engine": "warp", "zero": 0}})
    with pytest.raises(AirflowFailException, match=complaint):
        operator.execute(context_of(FakeTaskInstance()))
    assert skyvern.requests == []


def test_what_comes_late_is_known_only_when_the_task_runs() -> None:
    with DAG("d", schedule=None):
        first = BaseOperator(task_id="first")
        operator = make(prompt=first.output, url="{{ params.url }}", max_steps=first.output, engine="{{ params.e }}")
        assert operator.upstream_task_ids == {"first"}
        SkyvernRunPromptOperator.partial(task_id="mapped", url="https://x").expand(prompt=["a", "b"])
        SkyvernRunPromptOperator.partial(task_id="values", prompt="{v}").expand(parameters=first.output)


def test_everything_that_is_sent_can_be_a_template() -> None:
    fields = set(make().template_fields)
    assert {"prompt", "url", "engine", "error_code_mapping", "run_options", "parameters", "upload"} <= fields
    assert "workflow_id" not in fields


def test_a_model_further_down_in_the_file_is_no_mistake() -> None:
    class Later(BaseModel):
        item: Further

    make(output_schema=Later)


def test_the_key_of_a_secret_is_in_no_log(skyvern: FakeSkyvern, task_log: TaskLog) -> None:
    run_task(lambda: make(parameters={"password": "hunter-2"}, prompt="log in"))
    assert "hunter-2" not in task_log()


class Further(BaseModel):
    name: str
