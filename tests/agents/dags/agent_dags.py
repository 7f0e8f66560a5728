"""Agents whose model is scripted by a function, on a real Airflow."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

from airflow.providers.common.ai.hooks.pydantic_ai import PydanticAIHook
from airflow.providers.common.ai.operators.agent import AgentOperator
from airflow.sdk import DAG
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import FunctionModel

from airflow_skyvern.hooks import SkyvernHook

START = datetime(2026, 1, 1, tzinfo=timezone.utc)


class ScriptedAgent(AgentOperator):
    """Calls its tools with the arguments in its prompt, all in one turn; its first try fails after that."""

    marker: Path | None = None

    @cached_property
    def llm_hook(self) -> Any:
        """Return a hook that asks no connection."""
        hook = PydanticAIHook("no_connection")
        hook.get_conn = lambda: FunctionModel(self.answer)
        return hook

    def answer(self, messages: Any, _: Any) -> ModelResponse:
        """Say what the model says."""
        said = [part.content for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
        if not said:
            return ModelResponse(parts=[ToolCallPart("run", given) for given in json.loads(self.prompt)])
        if self.marker is not None and not self.marker.exists():
            self.marker.touch()
            raise ConnectionError("the model is away")
        return ModelResponse(parts=[TextPart(json.dumps(said))])

    def pre_execute(self, context: Any) -> None:
        """Read where to note that a try has failed."""
        folder = (context["dag_run"].conf or {}).get("fails_until")
        self.marker = Path(folder) / self.task_id if folder else None


with DAG("agents", start_date=START, schedule=None, params={"calls": "[]"}):
    for durable in (True, False):
        ScriptedAgent(
            task_id="durable" if durable else "again",
            prompt="{{ params.calls }}",
            llm_conn_id="no_connection",
            toolsets=[SkyvernHook().agent(os.environ["AGENTS_WORKFLOW"], poll_interval=1).toolset("run")],
            durable=durable,
            retries=1,
            retry_delay=timedelta(seconds=1),
        )

with DAG("long_agents", start_date=START, schedule=None):
    ScriptedAgent(
        task_id="killed",
        prompt='[{"note": "a"}, {"note": "b"}]',
        llm_conn_id="no_connection",
        toolsets=[SkyvernHook().agent(os.environ["AGENTS_LONG_WORKFLOW"], poll_interval=1).toolset("run")],
        retries=2,
    )
