"""Agents whose model is scripted, and a task around a call that Airflow does not run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from importlib import import_module
from typing import Any
from uuid import uuid4

import pytest
from airflow.providers.common.ai.hooks.pydantic_ai import PydanticAIHook
from airflow.providers.common.ai.operators.agent import AgentOperator
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from airflow_skyvern.compat.sdk import BaseOperator
from airflow_skyvern.task import xcom
from tests.support.tasks import FakeTaskInstance, context_of

Call = tuple[str, dict[str, Any]]
Turn = Sequence[Call] | str | Exception
"""What the model says in one turn: tool calls, its answer, or what it fails with."""


class ScriptedAgent(AgentOperator):  # type: ignore[misc]  # not installed where types are checked
    """An agent with a model of the test's own."""

    model: Any = None

    @cached_property
    def llm_hook(self) -> PydanticAIHook:
        """Return a hook that asks no connection."""
        hook = PydanticAIHook("no_connection")
        hook.get_conn = lambda: self.model
        return hook


def agent(task_id: str, *toolsets: Any, model: Any, **arguments: Any) -> ScriptedAgent:
    """Make the task."""
    made = ScriptedAgent(
        task_id=task_id, prompt="Do it.", llm_conn_id="no_connection", toolsets=list(toolsets), **arguments
    )
    made.model = model
    return made


def model_of(*turns: Turn) -> FunctionModel:
    """Make a model that says this, turn by turn, and then all that the tools have answered, as JSON."""

    def answer(messages: list[ModelMessage], _: AgentInfo) -> ModelResponse:
        number = sum(isinstance(message, ModelResponse) for message in messages)
        turn: Turn = turns[number] if number < len(turns) else json.dumps(returned(messages))
        if isinstance(turn, Exception):
            raise turn
        if isinstance(turn, str):
            return ModelResponse(parts=[TextPart(turn)])
        return ModelResponse(parts=[ToolCallPart(name, arguments) for name, arguments in turn])

    return FunctionModel(answer)


def returned(messages: list[ModelMessage]) -> list[str]:
    """Return what the tools have answered."""
    return [str(part.content) for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]


class Task:
    """
    A task that makes calls; each try is another process in Airflow, and another id.

    :param retries: How often it may be retried.
    """

    def __init__(self, retries: int = 1, map_index: int = -1) -> None:
        self.retries = retries
        self.ti = FakeTaskInstance(map_index=map_index)
        self.ti.max_tries = retries
        self.store: dict[str, Any] | None = Store()
        self.killed: list[str] = []

    @contextmanager
    def runs(self, number: int = 1) -> Iterator[FakeTaskInstance]:
        """Run a try: what is called within is called by the task."""
        self.ti.id, self.ti.try_number, self.ti.xcoms = uuid4(), number, {}
        with self.resumes() as ti:
            yield ti

    @contextmanager
    def resumes(self) -> Iterator[FakeTaskInstance]:
        """Run the same try in another process."""
        operator = BaseOperator(task_id="t", retries=self.retries)
        operator.on_kill = lambda: self.killed.append("by Airflow")  # type: ignore[method-assign]  # somebody else's
        self.ti.task = operator  # type: ignore[attr-defined]  # as Airflow's own has it
        import_module("airflow_skyvern.task.tool_calls")._OF_TRIES.clear()
        context = {**context_of(self.ti), "task_state_store": self.store}
        with import_module("airflow.sdk.execution_time.context").set_current_context(context):
            yield self.ti

    def kill(self) -> None:
        """Call what Airflow calls in its signal handler."""
        self.ti.task.on_kill()  # type: ignore[attr-defined]  # as above

    @property
    def calls(self) -> list[dict[str, Any]]:
        """What the task has noted of its calls."""
        found: list[dict[str, Any]] = self.ti.xcoms[xcom.CONNECTION_AND_RUN_KEY]["calls"]
        return found


class Store(dict[str, Any]):
    """Airflow's task_state_store in miniature."""

    def set(self, key: str, value: Any, **_: Any) -> None:
        """Keep a value."""
        self[key] = value


def raises(error: type[BaseException], call: Callable[[], Any]) -> BaseException:
    """Return the error that a call ends with."""
    with pytest.raises(error) as caught:
        call()
    return caught.value
