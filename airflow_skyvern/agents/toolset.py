"""A tool with typed arguments for an agent of Airflow's AI provider."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from airflow.providers.common.ai.exceptions import ManagedAgentRejected
from airflow.providers.common.ai.managed_agents.base import ManagedAgentRef, ManagedAgentRequest
from airflow.providers.common.ai.toolsets.managed_agent import BaseManagedAgentToolset
from airflow.providers.common.ai.utils.tool_definition import build_args_validator
from pydantic_ai.exceptions import ModelRetry

from airflow_skyvern.agents.contract import ARGUMENTS
from airflow_skyvern.compat import since_3_2

if TYPE_CHECKING:
    from airflow.providers.common.ai.managed_agents.base import ManagedAgentResponse
    from pydantic_ai.tools import RunContext
    from pydantic_ai.toolsets.abstract import ToolsetTool

    from airflow_skyvern.hooks import SkyvernHook


class StoppableCall(Protocol):
    """A call that another thread may stop."""

    def __call__(self) -> ManagedAgentResponse:
        """Make the call."""

    def stop(self) -> None:
        """Stop waiting for its answer."""


class Agent(Protocol):
    """The interface of an agent: :class:`~airflow_skyvern.agents.agent.SkyvernAgent`."""

    hook: SkyvernHook

    @property
    def ref(self) -> ManagedAgentRef:
        """Which agent it is."""

    def describe(self) -> tuple[str, dict[str, Any]]:
        """Return what it does, and the form of its arguments."""

    def begin(self, request: ManagedAgentRequest) -> StoppableCall:
        """Prepare a call."""

    def with_connection(self, skyvern_conn_id: str) -> Agent:
        """Return the same agent at another connection."""


class SkyvernAgentToolset(BaseManagedAgentToolset):  # type: ignore[misc]  # not installed where types are checked
    """
    One tool that runs a workflow, or a prompt, in a browser.

    :meth:`~airflow_skyvern.agents.agent.SkyvernAgent.toolset` makes it. Durable execution calls it again in each try
    of a task, which finds the run of that call: none is started twice, and a run that has ended costs one request.

    :param agent: The agent.
    :param tool_name: As :meth:`~airflow_skyvern.agents.agent.SkyvernAgent.toolset` takes it, like the others.
    """

    agent_template_fields: Sequence[str] = ("conn_id",)

    def __init__(self, agent: Agent, *, tool_name: str, description: str | None = None, max_retries: int = 1) -> None:
        super().__init__(tool_name=tool_name, description=description, max_retries=max_retries)
        self._agent = agent
        self._is_described = bool((description or "").strip())

    @property
    def client(self) -> Agent:
        """The agent."""
        return self._agent

    @property
    def agent_ref(self) -> ManagedAgentRef:
        """Which agent it is."""
        return self._agent.ref

    @property
    def conn_id(self) -> str:
        """The connection, which a task renders."""
        return self._agent.hook.skyvern_conn_id

    @conn_id.setter
    def conn_id(self, value: str) -> None:
        self._agent = self._agent.with_connection(value)

    async def get_tools(self, ctx: RunContext[Any]) -> dict[str, ToolsetTool[Any]]:
        """Return the tool, with the arguments that the workflow has now."""
        (name, tool), *_ = (await super().get_tools(ctx)).items()
        said, schema = await asyncio.to_thread(self._agent.describe)
        definition = replace(
            tool.tool_def,
            description=tool.tool_def.description if self._is_described else said,
            parameters_json_schema=copy.deepcopy(schema),
            sequential=not since_3_2.threads_may_ask_airflow(),
        )
        return {name: replace(tool, tool_def=definition, args_validator=build_args_validator(schema))}

    async def execute_tool(
        self, name: str, tool_args: dict[str, Any], *, ctx: RunContext[Any], tool: ToolsetTool[Any]
    ) -> Any:
        """Make the call; the base class logs and counts it."""
        return await super().execute_tool(name, {"prompt": json.dumps(tool_args)}, ctx=ctx, tool=tool)

    async def invoke(self, prompt: str) -> str:
        """Run it in a thread, which stops when nobody waits for it any more."""
        request = ManagedAgentRequest(
            prompt=prompt, timeout=self.timeout, vendor_options={ARGUMENTS: json.loads(prompt)}
        )
        call = self._agent.begin(request)
        try:
            answer = await asyncio.to_thread(call)
        except ManagedAgentRejected as error:
            raise ModelRetry(str(error)) from error
        except asyncio.CancelledError:
            call.stop()
            raise
        text: str = answer.text
        return text
