"""How a call ends: what the calling model may mend, what nobody can, and what the task's retry may."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from airflow.providers.common.ai.exceptions import ManagedAgentInvocationError, ManagedAgentRejected
from airflow.providers.common.ai.managed_agents.base import (
    BaseManagedAgentHook,
    ManagedAgentCapabilities,
    ManagedAgentClient,
    ManagedAgentRef,
    ManagedAgentRequest,
)
from airflow.providers.common.ai.managed_agents.failover import FailoverManagedAgentClient
from pydantic import BaseModel

from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernRunFailed, SkyvernServerError
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.testing import canceled, completed, extracted, failed, terminated, timed_out
from tests.agents.scripted import raises

if TYPE_CHECKING:
    from airflow_skyvern.testing.endings import Ending
    from airflow_skyvern.testing.skyvern import Skyvern


class Price(BaseModel):
    item: str
    price: float


def invoke(agent: Any, prompt: str = "{}") -> Any:
    return agent.invoke(ManagedAgentRequest(prompt=prompt))


@pytest.mark.parametrize(
    ("ending", "expected", "says"),
    [
        (terminated("there is no such vendor"), ManagedAgentRejected, "there is no such vendor"),
        (failed("the portal is down"), SkyvernRunFailed, "the portal is down"),
        (canceled(), ManagedAgentInvocationError, "canceled"),
        (timed_out(), ManagedAgentInvocationError, "timed_out"),
    ],
)
def test_a_run_that_ends_badly(skyvern: Skyvern, ending: Ending, expected: type[Exception], says: str) -> None:
    skyvern.workflow("wpid_1", ending, parameters={})
    error = raises(Exception, lambda: invoke(SkyvernHook().agent("wpid_1")))
    assert type(error) is expected
    assert says in str(error)


def test_an_answer_as_agreed_is_structured(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_1", output={"read_output": extracted({"item": "Ink", "price": 4})}, parameters={})
    found = invoke(SkyvernHook().agent("wpid_1", output_from="read", output_schema=Price))
    assert found.structured == {"item": "Ink", "price": 4.0}
    assert found.text == '{"item": "Ink", "price": 4.0}'


def test_an_answer_that_is_not_as_agreed_is_the_workflows_fault_or_the_prompts(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_1", output={"item": "Ink"}, parameters={})
    error = raises(Exception, lambda: invoke(SkyvernHook().agent("wpid_1", output_schema=Price)))
    assert type(error) is ManagedAgentInvocationError
    skyvern.prompts(output={"item": "Ink"})
    prompts = SkyvernHook().agent(sites=["shop.example.com"], output_schema=Price)
    assert "price" in str(raises(ManagedAgentRejected, lambda: invoke(prompts, "The price of ink")))


def test_a_server_in_trouble_is_for_the_retry(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_1", parameters={})
    skyvern.next("GET", "/v1/workflows/wpid_1", *[httpx.Response(500, json={"detail": "x"})] * 5)
    raises(SkyvernServerError, lambda: invoke(SkyvernHook().agent("wpid_1")))
    skyvern.unforeseen.clear()


def test_a_refused_key_and_a_missing_connection_are_terminal(skyvern: Skyvern) -> None:
    skyvern.connection("wrong", password="no key")
    raises(ManagedAgentInvocationError, lambda: invoke(SkyvernHook("wrong").agent("wpid_1")))
    raises(ManagedAgentInvocationError, lambda: invoke(SkyvernHook("nowhere").agent("wpid_1")))
    skyvern.unforeseen.clear()


def test_what_skyvern_itself_refuses_of_the_arguments_may_be_mended(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_1", parameters={"n": "integer"})
    refusal = "Invalid workflow parameter. Expected parameter type: integer. Value: 7."
    skyvern.next("POST", "/v1/run/workflows", httpx.Response(400, json={"detail": refusal}))
    error = raises(ManagedAgentRejected, lambda: invoke(SkyvernHook().agent("wpid_1"), '{"n": 7}'))
    assert "parameters.n" in str(error)
    skyvern.unforeseen.clear()


def test_the_contract_of_airflows_ai_provider(skyvern: Skyvern) -> None:
    hook = SkyvernHook()
    agent = hook.agent("wpid_1")
    assert isinstance(hook, BaseManagedAgentHook)
    assert isinstance(agent, ManagedAgentClient)
    assert agent.ref == hook.resolve_agent("wpid_1") == ManagedAgentRef("skyvern.browser", "wpid_1")
    assert agent.capabilities == hook.get_agent_capabilities("wpid_1")
    assert agent.capabilities == ManagedAgentCapabilities(structured_output=True, trace=True)
    assert not hook.agent(sites=["a.example.com"]).capabilities.structured_output
    assert skyvern.requests == []  # none of this asks anybody
    skyvern.workflow("wpid_1", output={"x": 1}, parameters={})
    assert hook.invoke_agent("wpid_1", ManagedAgentRequest(prompt="{}")).structured == {"x": 1}


def test_what_the_contract_refuses_is_refused(skyvern: Skyvern) -> None:
    agent = SkyvernHook().agent("wpid_1")
    for request in (
        ManagedAgentRequest(prompt="{}", session_id="s"),
        ManagedAgentRequest(prompt="{}", vendor_options={"skyvern_conn_id": "other"}),
        ManagedAgentRequest(prompt="{}", vendor_options={"workflow_id": "wpid_2"}),
    ):
        raises(ValueError, partial(agent.invoke, request))
    raises(ManagedAgentRejected, lambda: agent.invoke(ManagedAgentRequest(messages=[{"role": "user"}])))
    assert skyvern.started() == []


def test_a_standby_answers_for_a_run_that_failed(skyvern: Skyvern) -> None:
    skyvern.workflow("wpid_1", failed("down"), parameters={})
    skyvern.workflow("wpid_2", completed({"x": 2}), parameters={})
    hook = SkyvernHook()
    both = FailoverManagedAgentClient([hook.agent("wpid_1"), hook.agent("wpid_2")])
    assert both.invoke(ManagedAgentRequest(prompt="{}")).structured == {"x": 2}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "either a workflow's id, or sites"),
        ({"workflow_id": "wpid_1", "sites": ["a.example.com"]}, "either"),
        ({"workflow_id": ""}, "must be the id"),
        ({"workflow_id": "wpid_1", "url": "https://a.example.com"}, "url belongs to prompts"),
        ({"workflow_id": "wpid_1", "max_step": 3}, "Did you mean"),
        ({"workflow_id": "wpid_1", "max_steps": 0}, "max_steps"),
        ({"workflow_id": "wpid_1", "engine": "skyvern-1.0"}, "engine: no such option here"),
        ({"workflow_id": "wpid_1", "deferrable": True}, "deferrable: no such option here"),
        ({"workflow_id": "wpid_1", "parameters": {"a": "{{ var.value.x }}"}}, "parameters is not templated"),
        ({"workflow_id": "wpid_1", "output_schema": 3}, "output_schema"),
        ({"workflow_id": "wpid_1", "timeout": -1}, "timeout"),
        ({"sites": "a.example.com"}, "list of sites"),
        ({"sites": ["a b"]}, "must be a host name"),
        ({"sites": ["ftp://a.example.com"]}, "neither a host name"),
        ({"sites": ["a.example.com"], "url": "https://b.example.com"}, "on none of the sites"),
        ({"sites": ["a.example.com"], "parameters": {"a": 1}}, "parameters belong to a workflow"),
        ({"sites": ["a.example.com"], "output_from": "x"}, "output_from belongs to a workflow"),
        ({"sites": ["a.example.com"], "engine": "skyvern-2.0"}, "engine"),
    ],
)
def test_a_wrong_argument_is_named_when_the_dag_is_parsed(given: dict[str, Any], says: str) -> None:
    error = raises(SkyvernConfigError, lambda: SkyvernHook().agent(**given))
    assert says in str(error)
    assert "Task" not in str(error)
