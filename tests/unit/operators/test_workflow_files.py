"""The operator whose workflow is a file: what the file says is run, and nothing else."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.client import workflow_api
from airflow_skyvern.compat import internals
from airflow_skyvern.compat.sdk import DAG, AirflowFailException, TaskDeferred
from airflow_skyvern.compat.since_3_0 import is_airflow_3
from airflow_skyvern.decorators import skyvern_task
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernNotFoundError
from airflow_skyvern.operators import SkyvernRunPromptOperator, SkyvernRunWorkflowOperator
from airflow_skyvern.testing.fake.skyvern import LOST, FakeSkyvern
from tests.support.tasks import FakeTaskInstance, context_of, run_task

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.records import Run
    from tests.unit.conftest import TaskLog

INVOICES = """\
title: Invoices
workflow_definition:
  parameters:
    - {parameter_type: workflow, key: month, workflow_parameter_type: string}
    - {parameter_type: workflow, key: pages, workflow_parameter_type: integer, default_value: 3}
  blocks:
    - {block_type: wait, label: pause, wait_sec: 5}
"""


@pytest.fixture
def invoices(tmp_path: Path) -> Path:
    (path := tmp_path / "invoices.yaml").write_text(INVOICES)
    return path


def operator(path: Path | str, **more: Any) -> SkyvernRunWorkflowOperator:
    given = {"task_id": "t", "parameters": {"month": "2026-10"}, "poll_interval": 0.01, **more}
    return SkyvernRunWorkflowOperator(workflow_file=path, **given)


def edit(path: Path, seconds: int) -> None:
    path.write_text(INVOICES.replace("wait_sec: 5", f"wait_sec: {seconds}"))


def seconds_of(run: Run) -> int:
    """What the version says that a run is of."""
    definition = run.workflow.definitions[(run.workflow_version or 0) - 1]
    return int(definition["workflow_definition"]["blocks"][0]["wait_sec"])


def client(fake: FakeSkyvern) -> Any:
    from airflow_skyvern.hooks import SkyvernHook

    return SkyvernHook().send


@pytest.mark.parametrize("deferrable", [True, False])
def test_the_version_that_the_file_says_is_run_and_published(
    skyvern: FakeSkyvern, invoices: Path, *, deferrable: bool
) -> None:
    ti = FakeTaskInstance()
    output = run_task(partial(operator, invoices, deferrable=deferrable), ti)
    assert output == skyvern.created_output
    ((workflow_id, made),) = skyvern.workflows.items()
    (run,) = skyvern.runs.values()
    assert (run.workflow_version, run.parameters) == (1, {"month": "2026-10"})
    note = ti.xcoms["workflow_version"]
    assert (note["file"], note["workflow_id"], note["version"]) == ("invoices.yaml", workflow_id, 1)
    assert ti.xcoms["app_url"] == f"http://localhost:8080/runs/{run.run_id}"
    assert made.tags["airflow_file"] == "invoices.yaml"


@pytest.mark.slow
def test_each_run_is_of_what_its_file_says_then(skyvern: FakeSkyvern, invoices: Path) -> None:
    for index, seconds in enumerate((5, 6, 5, 6)):
        edit(invoices, seconds)
        ti = FakeTaskInstance()
        ti.run_id = f"manual__{index}"
        run_task(partial(operator, invoices), ti)
    assert [seconds_of(run) for run in skyvern.runs.values()] == [5, 6, 5, 6]
    assert [made.version for made in skyvern.workflows.values()] == [2]


def test_what_somebody_has_edited_in_skyvern_is_not_run(skyvern: FakeSkyvern, invoices: Path) -> None:
    def edited_in_the_ui() -> None:
        (made,) = skyvern.workflows.values()
        made.definitions.append({**made.definitions[0], "title": "edited"})

    skyvern.next("POST", "/v1/workflows/[^/]+/tags", edited_in_the_ui)  # between push and start
    run_task(partial(operator, invoices))
    (run,) = skyvern.runs.values()
    assert (run.workflow.version, run.workflow_version) == (2, 1)


@pytest.mark.slow
def test_a_workflow_that_is_deleted_right_before_the_start_is_made_again_by_a_retry(
    skyvern: FakeSkyvern, invoices: Path
) -> None:
    def deleted() -> None:
        for made in skyvern.workflows.values():
            made.deleted = True

    skyvern.next("POST", "/v1/workflows/[^/]+/tags", lambda: None, deleted)
    ti = FakeTaskInstance()
    ti.max_tries = 1
    with pytest.raises(SkyvernNotFoundError, match="a retry makes it again") as caught:
        operator(invoices, retries=1).execute(context_of(ti))
    assert caught.value.transient
    assert skyvern.runs == {}
    ti.try_number = 2
    run_task(partial(operator, invoices, retries=1, lost_start_timeout=0.01), ti)
    assert len(skyvern.runs) == 1
    assert len(skyvern.workflows) == 2


@pytest.mark.parametrize("broken", [False, True])
def test_a_retry_resumes_its_run_although_the_file_has_changed(
    skyvern: FakeSkyvern, invoices: Path, *, broken: bool
) -> None:
    ti = FakeTaskInstance()
    ti.max_tries = 1
    first = operator(invoices, deferrable=True, retries=1)
    with pytest.raises(TaskDeferred):
        first.execute(context_of(ti))
    second = operator(invoices, retries=1)
    if broken:
        invoices.unlink()
    else:
        edit(invoices, 60)
    ti.try_number = 2
    digest = ti.xcoms.pop("workflow_version")["digest"]  # as Airflow does before a try
    second.execute(context_of(ti))
    (run,) = skyvern.runs.values()
    assert seconds_of(run) == 5
    assert [made.version for made in skyvern.workflows.values()] == [1]
    assert ti.xcoms["workflow_version"]["digest"] == digest


def test_a_start_whose_answer_is_lost_is_found(skyvern: FakeSkyvern, invoices: Path) -> None:
    skyvern.next("POST", "/api/v1/workflows/[^/]+/run", LOST)
    assert run_task(partial(operator, invoices)) == skyvern.created_output
    assert len(skyvern.runs) == 1


@pytest.mark.slow
@pytest.mark.skipif(not is_airflow_3(), reason="Airflow 2.11 itself executes no operator in a thread")
def test_twenty_mapped_tasks_make_one_workflow_and_one_version(skyvern: FakeSkyvern, invoices: Path) -> None:
    def run(index: int) -> Any:
        ti = FakeTaskInstance(map_index=index)
        return run_task(partial(operator, invoices, parameters={"month": f"2026-{index:02}"}), ti)

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(run, range(20))) == [skyvern.created_output] * 20
    assert [made.version for made in skyvern.workflows.values()] == [1]
    assert len(skyvern.runs) == 20


def test_run_options_reach_the_older_address(skyvern: FakeSkyvern, invoices: Path) -> None:
    options = {"max_steps": 7, "max_elapsed_time_minutes": 9, "totp_url": "https://example.com/otp"}
    run_task(partial(operator, invoices, run_options=options, webhook_url="https://example.com/hook"))
    (start,) = skyvern.sent("POST", "/api/v1/workflows/[^/]+/run")
    assert start.headers["x-max-steps-override"] == "7"
    assert start.query == {"version": ["1"]}
    assert start.json["data"] == {"month": "2026-10"}
    assert start.json["webhook_callback_url"] == "https://example.com/hook"
    assert start.json["totp_verification_url"] == "https://example.com/otp"
    assert start.json["max_elapsed_time_minutes"] == 9
    assert "workflow_id" not in start.json


@pytest.mark.parametrize(
    ("text", "parameters", "complaint"),
    [
        (
            INVOICES,
            {"mont": "10"},
            r"Task 't': The parameters .* parameters.mont: no such parameter. Did you mean month\?",
        ),
        (INVOICES, None, "parameters.month: missing"),
        (INVOICES, {"month": "10", "pages": "many"}, "parameters.pages: must be a whole number"),
        (INVOICES, {"month": "{{ ds }}", "pages": "many"}, "parameters.pages: must be a whole number"),
        (INVOICES, '{"mont": "10"}', "parameters.mont: no such parameter"),
        (
            INVOICES.replace("wait_sec", "wait_secs"),
            {"month": "1"},
            r"wait_secs: no such key. Did you mean wait_sec\?",
        ),
        (INVOICES.replace("title: Invoices", ""), {"month": "1"}, "title: is missing"),
        (INVOICES + "  extra: [", {"month": "1"}, r"invoices.yaml, line \d+: is not YAML"),
    ],
)
def test_mistakes_are_named_when_the_dag_is_parsed_without_a_request(
    skyvern: FakeSkyvern, invoices: Path, text: str, parameters: Any, complaint: str
) -> None:
    invoices.write_text(text)
    with pytest.raises(SkyvernConfigError, match=complaint):
        operator(invoices, parameters=parameters)
    assert skyvern.requests == []


@pytest.mark.parametrize("parameters", [{"month": "{{ ds }}"}, "{{ params.all }}", "values.json", {"{{ a }}": 1}])
def test_what_is_known_later_is_checked_later(invoices: Path, parameters: Any) -> None:
    operator(invoices, parameters=parameters)


def test_rendered_parameters_are_checked_before_anything_is_sent(skyvern: FakeSkyvern, invoices: Path) -> None:
    task = operator(invoices, parameters={"month": "10", "pages": "{{ params.pages }}"})
    task.parameters = {"month": "10", "pages": "many"}
    with pytest.raises(AirflowFailException, match="must be a whole number"):
        task.execute(context_of(FakeTaskInstance()))
    assert skyvern.workflows == {}


def test_checks_of_keys_and_parameters_can_be_turned_off(
    skyvern: FakeSkyvern, invoices: Path, task_log: TaskLog
) -> None:
    invoices.write_text(INVOICES + "a_setting_of_tomorrow: 1\n")
    run_task(partial(operator, invoices, check_parameters=False, parameters={"month": "1", "more": "x"}))
    assert len(skyvern.runs) == 1
    assert "a_setting_of_tomorrow" in task_log()


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"workflow_id": "wpid_1"}, "give either workflow_id or workflow_file"),
        ({"upload": {"month": "/tmp/x.csv"}, "parameters": {}}, "upload: workflow_file runs a certain version"),
        ({"run_options": {"file_ids": ["f_1"]}}, "run_options.file_ids: workflow_file runs a certain version"),
    ],
)
def test_arguments_that_do_not_go_together(invoices: Path, more: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SkyvernConfigError, match=complaint):
        operator(invoices, **more)


def test_a_file_that_is_not_there_is_named_with_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SkyvernConfigError, match=r"workflow_file: .*/gone.yaml: No such file.*relative to the DAG's"):
        operator(tmp_path / "gone.yaml")
    with pytest.raises(SkyvernConfigError, match="is relative, and the task has no DAG"):
        operator("invoices.yaml")
    with pytest.raises(SkyvernConfigError, match="give either workflow_id or workflow_file"):
        SkyvernRunWorkflowOperator(task_id="t")
    with pytest.raises(SkyvernConfigError, match="workflow_file: belongs to SkyvernRunWorkflowOperator"):
        SkyvernRunPromptOperator(task_id="t", prompt="x", workflow_file="x.yaml")


def test_a_relative_path_is_relative_to_the_file_of_the_dag(invoices: Path) -> None:
    with DAG("d", schedule=None) as dag:
        dag.fileloc = str(invoices.parent / "dag.py")
        assert operator("invoices.yaml").workflow_file == "invoices.yaml"
        (invoices.parent / "flows").mkdir()
        (invoices.parent / "flows" / "bills.yaml").write_text(INVOICES)
        operator("flows/bills.yaml", task_id="other")
        with pytest.raises(SkyvernConfigError, match=r"/bills.yaml: No such file"):
            operator("bills.yaml", task_id="third")
    with DAG("e", schedule=None, template_searchpath=[str(invoices.parent / "flows")]) as dag:
        dag.fileloc = str(invoices.parent / "dag.py")
        operator("bills.yaml")


def test_a_secret_in_the_file_is_refused_when_the_dag_is_parsed(invoices: Path) -> None:
    invoices.write_text(INVOICES + "extra_http_headers: {Authorization: Bearer s3cr3t-W4rd-77}\n")
    with pytest.raises(SkyvernConfigError, match="holds a secret") as caught:
        operator(invoices)
    assert "s3cr3t" not in str(caught.value)


@pytest.mark.usefixtures("skyvern")
def test_the_page_of_rendered_arguments_shows_file_and_version(
    invoices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, ti = operator(invoices, deferrable=True), FakeTaskInstance()
    task.render_template_fields(context := context_of(ti))
    content = task.workflow_version or ""
    assert content.startswith("invoices.yaml, content ")
    with pytest.raises(TaskDeferred) as deferred:
        task.execute(context)
    shown = f"{content}: version 1 of workflow {ti.xcoms['workflow_version']['workflow_id']}"
    assert (task.workflow_version, task.overwrite_rtif_after_execution) == (shown, True)
    edit(invoices, 60)
    ti.next_method, ti.next_kwargs = "execute_complete", deferred.value.kwargs
    resumed = operator(invoices, deferrable=True)
    context = context_of(ti)
    monkeypatch.setattr(internals, "current_context", lambda: context)  # this process executes the task
    resumed.render_template_fields(context)
    assert resumed.workflow_version == shown


def test_a_definition_that_skyvern_refuses_fails_without_a_retry(skyvern: FakeSkyvern, invoices: Path) -> None:
    skyvern.next("POST", "/v1/workflows", httpx.Response(422, json={"detail": "Block 'pause' is an orphan"}))
    with pytest.raises(AirflowFailException, match="is an orphan"):
        operator(invoices).execute(context_of(FakeTaskInstance()))
    assert skyvern.runs == {}


@pytest.mark.usefixtures("skyvern")
def test_the_start_of_a_file_tells_what_it_does(
    invoices: Path, task_log: TaskLog, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    run_task(partial(operator, invoices))
    assert "invoices.yaml: made version 1 of workflow wpid_" in task_log()


def test_the_decorator_takes_a_file(invoices: Path) -> None:
    def parameters() -> dict[str, str]:
        return {"mont": "10"}  # known when the task runs

    with DAG("d", schedule=None) as dag:
        dag.fileloc = str(invoices.parent / "dag.py")
        skyvern_task(parameters, workflow_file="invoices.yaml")()
        with pytest.raises(SkyvernConfigError, match="give one of workflow_id, workflow_file and prompt"):
            skyvern_task(parameters, workflow_file="invoices.yaml", prompt="x")
        with pytest.raises(SkyvernConfigError, match=r"gone\.yaml: No such file"):
            skyvern_task(parameters, workflow_file="gone.yaml")()


@pytest.mark.slow
def test_a_workflow_that_was_pulled_is_the_one_that_is_run(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    from airflow_skyvern.workflow_files.pull import Pull

    send = client(skyvern)
    definition = {"parameters": [], "blocks": [{"block_type": "wait", "label": "pause", "wait_sec": 5}]}
    made = send(workflow_api.create_workflow({"title": "Bills", "workflow_definition": definition}))
    path = Path(Pull(send, tmp_path).pull(made.workflow_permanent_id).file)
    run_task(partial(operator, path, parameters=None))
    assert list(skyvern.workflows) == [made.workflow_permanent_id]
