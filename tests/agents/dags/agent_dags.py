"""Agents whose model is scripted by a function, on a real Airflow."""

import json
import os
from datetime import datetime, timedelta
from functools import cached_property

from airflow.providers.common.ai.hooks.pydantic_ai import PydanticAIHook
from airflow.providers.common.ai.operators.agent import AgentOperator
from airflow.sdk import DAG
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import FunctionModel

from airflow_skyvern.hooks import SkyvernHook


class ScriptedAgent(AgentOperator):
    """Calls its tools with the arguments in its prompt, all in one turn; fails until its last try after that."""

    @cached_property
    def llm_hook(self):
        hook = PydanticAIHook("no_connection")
        hook.get_conn = lambda: FunctionModel(self.answer)
        return hook

    def answer(self, messages, _):
        said = [part.content for message in messages for part in message.parts if isinstance(part, ToolReturnPart)]
        if not said:
            return ModelResponse(parts=[ToolCallPart("run", given) for given in json.loads(self.prompt)])
        if self.fails_until and not os.path.exists(self.fails_until):
            open(self.fails_until, "w").close()
            raise ConnectionError("the model is away")
        return ModelResponse(parts=[TextPart(json.dumps(said))])

    fails_until = ""

    def pre_execute(self, context):
        self.fails_until = (context["dag_run"].conf or {}).get("fails_until", "")


with DAG("agents", start_date=datetime(2026, 1, 1), schedule=None, params={"calls": "[]"}):
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

with DAG("long_agents", start_date=datetime(2026, 1, 1), schedule=None):
    ScriptedAgent(
        task_id="killed",
        prompt='[{"note": "a"}, {"note": "b"}]',
        llm_conn_id="no_connection",
        toolsets=[SkyvernHook().agent(os.environ["AGENTS_LONG_WORKFLOW"], poll_interval=1).toolset("run")],
        retries=2,
    )
