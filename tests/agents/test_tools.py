"""Airflow's AgentOperator with our tool, without a model: the tool's form, retries, durable replay, refusals."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.common.ai.managed_agents.base import ManagedAgentRequest
from airflow.providers.common.ai.toolsets.hook import HookToolset
from airflow.providers.common.ai.toolsets.managed_agent import ManagedAgentToolset
from pydantic_ai import Agent
from pydantic_ai.exceptions import UnexpectedModelBehavior
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.function import AgentInfo, FunctionModel
from pydantic_ai.models.test import TestModel

from airflow_skyvern.compat.sdk import DAG
from airflow_skyvern.compat.since_3_2 import threads_may_ask_airflow
from airflow_skyvern.exceptions import SkyvernRunFailed
from airflow_skyvern.hooks import SkyvernHook, _Method
from airflow_skyvern.testing import completed, failed, terminated
from tests.agents.scripted import Task, agent, model_of, raises, returned

if TYPE_CHECKING:
    from airflow_skyvern.testing.skyvern import Skyvern

ALL_TYPES = {
    "vendor": "string",
    "year": "integer",
    "limit": "float",
    "strict": "boolean",
    "rows": "json",
    "file": "file_url",
    "login": "credential_id",
}


@pytest.fixture
def _journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place for what `durable=True` keeps, which it needs below Airflow 3.3."""
    monkeypatch.setenv("AIRFLOW__COMMON_AI__DURABLE_CACHE_PATH", f"file://{tmp_path}/journal")


def dag_of(*tasks: Callable[[], Any], retries: int = 0) -> Any:
    arguments = {"retries": retries, "retry_delay": timedelta(0)}
    with DAG(
        "agents", start_date=datetime(2026, 1, 1, tzinfo=timezone.utc), schedule=None, default_args=arguments
    ) as dag:
        for task in tasks:
            task()
    return dag


def value(run: Any, task_id: str = "ask") -> Any:
    (found,) = [ti for ti in run.get_task_instances() if ti.task_id == task_id]
    pulled = found.xcom_pull(task_ids=task_id, key="return_value")
    return json.loads(pulled) if isinstance(pulled, str) else pulled


async def tool_of(toolset: Any) -> Any:
    """What the model is told of a tool."""
    model = TestModel(call_tools=[])
    await Agent(model, toolsets=[toolset]).run("x")
    assert model.last_model_request_parameters is not None
    (tool,) = model.last_model_request_parameters.function_tools
    return tool


async def test_the_parameters_of_a_workflow_are_the_typed_arguments_of_its_tool(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_1", parameters=ALL_TYPES, defaults={"limit": 1.5}, title="Read invoices")
    tool = await tool_of(SkyvernHook().agent("wpid_1", parameters={"login": "cred_1"}).toolset("read_invoices"))
    assert tool.name == "read_invoices"
    assert "Read invoices" in tool.description
    schema = tool.parameters_json_schema
    assert {name: one.get("type") for name, one in schema["properties"].items()} == {
        "vendor": "string",
        "year": "integer",
        "limit": None,
        "strict": "boolean",
        "rows": None,
        "file": "string",
    }
    assert schema["properties"]["limit"] == {"anyOf": [{"type": "number"}, {"type": "null"}]}
    assert sorted(schema["required"]) == ["file", "rows", "strict", "vendor", "year"]


async def test_an_own_description_stands_for_the_workflows(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_1", parameters={})
    tool = await tool_of(SkyvernHook().agent("wpid_1").toolset("read", description="Reads."))
    assert tool.description == "Reads."


async def test_a_login_is_nothing_that_a_model_chooses(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_1", parameters={"login": "credential_id"})
    with pytest.raises(Exception, match="the model may not choose a login"):
        await tool_of(SkyvernHook().agent("wpid_1").toolset("read"))


@pytest.mark.parametrize("own", [True, False])
def test_a_model_that_fills_in_what_it_is_told_gets_an_answer(skyvern: Skyvern, own: bool) -> None:
    """With our tool each parameter has its type; the AI provider's own knows a prompt only, which is one of ours."""
    skyvern.workflow("wpid_1", parameters={"vendor": "string"}, output={"x": 1})
    found = SkyvernHook().agent("wpid_1")
    toolset = found.toolset("read") if own else ManagedAgentToolset(found, tool_name="read")
    run = dag_of(lambda: agent("ask", toolset, model=TestModel())).test()
    assert run.state == "success"
    assert value(run) == {"read": '{"x": 1}'}
    assert [started.parameters for started in skyvern.started()] == [{"vendor": "a"}]


@pytest.mark.usefixtures("_journal")
@pytest.mark.parametrize("durable", [True, False])
def test_a_task_that_is_retried_starts_no_run_twice(skyvern: Skyvern, durable: bool) -> None:
    skyvern.workflow("wpid_1", lambda given: completed({"of": given["vendor"]}), parameters={"vendor": "string"})
    tries: list[int] = []
    calls = [("read", {"vendor": "ACME"}), ("read", {"vendor": "Oak"}), ("read", {"vendor": "ACME"})]

    def answer(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
        said = sum(isinstance(message, ModelResponse) for message in messages)
        if said == 0:
            return ModelResponse(parts=[ToolCallPart(name, given) for name, given in calls])
        tries.append(said)
        if len(tries) < 3:
            raise ConnectionError("the model is away")
        return ModelResponse(parts=[TextPart(json.dumps(returned(messages)))])

    toolset = SkyvernHook().agent("wpid_1").toolset("read")
    dag = dag_of(lambda: agent("ask", toolset, model=FunctionModel(answer), durable=durable), retries=2)
    run = dag.test()
    assert run.state == "success"
    assert value(run) == ['{"of": "ACME"}', '{"of": "Oak"}', '{"of": "ACME"}']
    assert sorted(started.parameters["vendor"] for started in skyvern.started()) == ["ACME", "ACME", "Oak"]


@pytest.mark.usefixtures("_journal")
def test_a_failed_run_is_for_the_retry_of_the_task_which_keeps_the_others(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_1", output={"x": 1}, parameters={})
    skyvern.workflow("wpid_2", failed("the portal is down"), completed({"x": 2}), parameters={})
    tools = [SkyvernHook().agent(f"wpid_{n}").toolset(f"read_{n}") for n in (1, 2)]
    model = model_of([("read_1", {})], [("read_2", {})])
    run = dag_of(lambda: agent("ask", *tools, model=model, durable=True), retries=1).test()
    assert value(run) == ['{"x": 1}', '{"x": 2}']
    assert [len(skyvern.started(f"wpid_{n}")) for n in (1, 2)] == [1, 2]


@pytest.mark.skipif(not threads_may_ask_airflow(), reason="parallel calls run one after another")
def test_the_failure_of_one_call_ends_the_waits_of_the_others(skyvern: Skyvern) -> None:
    """Without that, the process of a task that has failed would live as long as their runs."""
    skyvern.workflow("wpid_1", completed().after(*["running"] * 20_000), parameters={})
    skyvern.workflow("wpid_2", failed("down").after(*["running"] * 40), parameters={})
    tools = [SkyvernHook().agent(f"wpid_{n}").toolset(f"read_{n}") for n in (1, 2)]
    asked = Agent(model_of([("read_1", {}), ("read_2", {})]), toolsets=tools)
    with Task(retries=0).runs():
        raises(SkyvernRunFailed, lambda: asyncio.run(asked.run("x")))
    assert [run.status for run in skyvern.started("wpid_1")] == ["canceled"]


def test_a_model_whose_call_is_refused_may_try_again(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_1", terminated("no such vendor"), completed({"x": 1}), parameters={"vendor": "string"})

    def answer(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
        said = returned(messages)
        if said and "no such vendor" not in said[-1]:
            return ModelResponse(parts=[TextPart(json.dumps(said))])
        return ModelResponse(parts=[ToolCallPart("read", {"vendor": "ACME Inc." if said else "ACME"})])

    toolset = SkyvernHook().agent("wpid_1").toolset("read")
    run = dag_of(lambda: agent("ask", toolset, model=FunctionModel(answer))).test()
    refused, answered = value(run)
    assert "no such vendor" in refused
    assert answered == '{"x": 1}'


def test_arguments_of_other_types_never_reach_skyvern(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_1", parameters={"year": "integer"})
    model = model_of([("read", {"year": "soon"})], [("read", {"year": 2026, "login": "cred_1"})])
    toolset = SkyvernHook().agent("wpid_1").toolset("read", max_retries=1)
    assert dag_of(lambda: agent("ask", toolset, model=model)).test().state == "failed"
    assert skyvern.started() == []


def test_a_tool_in_mapped_tasks(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_1", lambda given: completed({"of": given["vendor"]}), parameters={"vendor": "string"})

    def model(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
        said = returned(messages)
        prompt = str(messages[0].parts[-1].content)
        return ModelResponse(parts=[TextPart(json.dumps(said)) if said else ToolCallPart("read", {"vendor": prompt})])

    from tests.agents.scripted import ScriptedAgent

    ScriptedAgent.model = FunctionModel(model)
    toolset = SkyvernHook().agent("wpid_1").toolset("read")

    def task() -> None:
        ScriptedAgent.partial(task_id="ask", llm_conn_id="none", toolsets=[toolset]).expand(prompt=["ACME", "Oak"])

    run = dag_of(task).test()
    assert run.state == "success"
    assert {started.tags["airflow_task_id"] for started in skyvern.started()} == {"ask[0]", "ask[1]"}
    assert len({started.tags["airflow_task_key"] for started in skyvern.started()}) == 2


def test_the_connection_of_a_tool_is_rendered_for_each_task(skyvern: Skyvern) -> None:
    skyvern.connection("skyvern_eu")
    skyvern.workflow("wpid_1", output={"x": 1}, parameters={})
    hook = SkyvernHook("skyvern_{{ params.region }}")
    tools = [hook.agent("wpid_1").toolset("read"), HookToolset(hook, allowed_methods=["list_workflow_runs"])]
    model = model_of([("read", {})], [("list_workflow_runs", {"workflow_id": "wpid_1"})])
    run = dag_of(lambda: agent("ask", *tools, model=model, params={"region": "eu"})).test()
    assert run.state == "success"
    assert skyvern.started()[0].run_id in value(run)[1]
    assert hook.skyvern_conn_id == "skyvern_{{ params.region }}"


def test_a_model_runs_a_workflow_by_a_method_of_the_hook(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_1", output={"x": 1}, parameters={"vendor": "string"})
    toolset = HookToolset(SkyvernHook(), allowed_methods=["run_workflow", "get_run"])
    start = ("run_workflow", {"workflow_id": "wpid_1", "parameters": {"vendor": "ACME"}, "max_steps": 7})
    run = dag_of(lambda: agent("ask", toolset, model=model_of([start]))).test()
    (started,) = skyvern.started()
    assert started.parameters == {"vendor": "ACME"}
    assert json.loads(value(run)[0])["run_id"] == started.run_id


METHODS = [name for name, made in vars(SkyvernHook).items() if isinstance(made, _Method)]


@pytest.mark.parametrize("method", METHODS)
async def test_each_method_of_the_hook_has_a_form_that_a_model_can_fill_in(method: str) -> None:
    tool = await tool_of(HookToolset(SkyvernHook(), allowed_methods=[method]))
    properties = tool.parameters_json_schema["properties"]
    assert [name for name, one in properties.items() if not _is_clear(one)] == []
    assert tool.description


def _is_clear(schema: dict[str, Any]) -> bool:
    if "anyOf" in schema:
        return all(_is_clear(choice) for choice in schema["anyOf"])
    return "type" in schema and ("items" not in schema or _is_clear(schema["items"]) or schema["items"] == {})


def test_the_output_of_a_page_cannot_bring_in_a_secret_of_airflow(skyvern: Skyvern) -> None:
    from airflow_skyvern.compat import since_3_1

    since_3_1.mask_secret("zebra-passphrase-7")
    skyvern.workflow(
        "wpid_1", output={"text": "it is zebra-passphrase-7", "password": "s3cr3t-of-the-page"}, parameters={}
    )
    run = dag_of(
        lambda: agent("ask", SkyvernHook().agent("wpid_1").toolset("read"), model=model_of([("read", {})]))
    ).test()
    said = str(value(run))
    assert "zebra" not in said
    assert "s3cr3t-of-the-page" not in said


@pytest.mark.parametrize("module", ["airflow_skyvern.hooks", "airflow_skyvern.operators", "airflow_skyvern.plugin"])
def test_nobody_who_uses_no_agent_loads_the_ai_provider(module: str) -> None:
    code = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if "pydantic_ai" in name or "common.ai." in name}
    assert loaded <= {"airflow.providers.common.ai.get_provider_info"}  # which Airflow asks for


def test_python_code_in_a_task_may_ask_an_agent_too(skyvern: Skyvern) -> None:
    from airflow.sdk import task

    skyvern.workflow("wpid_1", output={"x": 1}, parameters={})
    tries: list[str] = []

    @task(retries=1, retry_delay=timedelta(0))
    def ask() -> str:
        found = SkyvernHook().agent("wpid_1").invoke(ManagedAgentRequest(prompt="{}"))
        tries.append(found.trace_ref)
        if len(tries) == 1:
            raise ValueError("later")
        return json.dumps(found.structured)

    run = dag_of(ask).test()
    assert value(run) == {"x": 1}
    assert tries == [skyvern.started()[0].run_id] * 2


async def test_a_model_that_rephrases_too_often_ends_the_agent(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_1", terminated("no such vendor"), parameters={})
    toolset = SkyvernHook().agent("wpid_1").toolset("read", max_retries=0)
    with pytest.raises(UnexpectedModelBehavior):
        await Agent(model_of([("read", {})]), toolsets=[toolset]).run("x")


async def test_a_failed_run_carries_its_run(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_1", failed("down"), parameters={})
    agent_ = SkyvernHook().agent("wpid_1")
    error = raises(SkyvernRunFailed, lambda: agent_.invoke(ManagedAgentRequest(prompt="{}")))
    assert isinstance(error, SkyvernRunFailed)
    assert error.run is not None
