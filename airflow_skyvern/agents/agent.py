"""A workflow, or prompts on some sites, as an agent of Airflow's AI provider."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_skyvern.agents.call import OPTIONS, NoTask, OfAgent, operator_of
from airflow_skyvern.agents.contract import (
    ARGUMENTS,
    BaseManagedAgentHook,
    ManagedAgentCapabilities,
    ManagedAgentRef,
    ManagedAgentRejected,
    ManagedAgentRequest,
    ManagedAgentResponse,
)
from airflow_skyvern.agents.endings import errors_for_agents
from airflow_skyvern.agents.targets import target_of, unknown_options
from airflow_skyvern.client.suggestions import did_you_mean
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.task.arguments import refuse_late_values
from airflow_skyvern.task.tool_calls import ToolCalls

if TYPE_CHECKING:
    from airflow_skyvern.agents.toolset import SkyvernAgentToolset
    from airflow_skyvern.models import Workflow

BaseManagedAgentHook.register(SkyvernHook)

NOTHING = "The run completed, and returned nothing."
POLL_INTERVAL = 5.0


class SkyvernAgent:
    """
    A workflow, or prompts on some sites, as an agent; :meth:`SkyvernHook.agent` makes it.

    It is a client of Airflow's AI provider: :meth:`toolset` makes a tool of it with typed arguments, and
    ``ManagedAgentToolset``, a failover group and Python code take it, too.
    """

    def __init__(
        self,
        hook: SkyvernHook,
        workflow_id: str | None = None,
        *,
        sites: Sequence[str] = (),
        url: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        output_from: str | None = None,
        output_schema: Any = None,
        timeout: timedelta | float = timedelta(hours=1),
        **options: Any,
    ) -> None:
        self.hook = hook
        refuse_late_values(
            workflow_id=workflow_id, sites=sites, url=url, parameters=parameters, output_from=output_from, **options
        )
        self._target = target_of(workflow_id, sites, url, parameters, self._definition)
        if unknown := unknown_options(self._target, options, OPTIONS):
            hint = did_you_mean(unknown[0], sorted(OPTIONS)) or f"There are {', '.join(sorted(OPTIONS))}."
            raise SkyvernConfigError(f"agent(): {unknown[0]}: no such option here. {hint}")
        given = {"output_schema": output_schema, "timeout": timeout, **options}
        if not self._target.takes_prompts:
            given["output_from"] = output_from
        elif output_from is not None:
            raise SkyvernConfigError("agent(): output_from belongs to a workflow.")
        self._options = {"poll_interval": POLL_INTERVAL, **given}
        self._has_schema = output_schema is not None
        self._fetching = threading.Lock()
        self._check()

    def _check(self) -> None:
        """Check the options when the DAG is parsed: with placeholders for the model's arguments."""
        example = {"prompt": "…", "url": "https://example.com"} if self._target.takes_prompts else {}
        try:
            operator_of(
                self._target.kind, {**self._target.operator_arguments(example), **self._options}, self.hook, None
            )
        except SkyvernConfigError as error:
            raise SkyvernConfigError(f"agent(): {error}") from None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_fetching"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._fetching = threading.Lock()

    @property
    def ref(self) -> ManagedAgentRef:
        """Which agent it is; asks nobody."""
        return ManagedAgentRef(platform=SkyvernHook.agent_platform, name=self._target.name)

    @property
    def capabilities(self) -> ManagedAgentCapabilities:
        """What it can do: a run has an id, and no memory of another run."""
        structured = self._has_schema or not self._target.takes_prompts
        return ManagedAgentCapabilities(sessions=False, structured_output=structured, usage=False, trace=True)

    def toolset(self, tool_name: str, *, description: str | None = None, max_retries: int = 1) -> SkyvernAgentToolset:
        """
        Make a tool of it, with the workflow's parameters, or prompt and address, as arguments.

        :param tool_name: The name that the calling model sees: a verb and what it is about, as ``read_invoices``.
        :param description: When to use it. Default: title and description of the workflow; the sites.
        :param max_retries: How often the calling model may try other arguments after a rejection.
        """
        from airflow_skyvern.agents.toolset import SkyvernAgentToolset

        return SkyvernAgentToolset(self, tool_name=tool_name, description=description, max_retries=max_retries)

    def with_connection(self, skyvern_conn_id: str) -> SkyvernAgent:
        """Return the same agent at another connection."""
        other = copy.deepcopy(self)
        other.hook.skyvern_conn_id = skyvern_conn_id
        other._target.forget()  # noqa: SLF001  its own class
        return other

    def describe(self) -> tuple[str, dict[str, Any]]:
        """
        Return the description and the JSON Schema of the arguments that a calling model reads.

        :raises ManagedAgentInvocationError: the workflow does not exist, or the key is refused.
        """
        with self._fetching, errors_for_agents(takes_prompts=False):
            return self._target.description, self._target.schema()

    def invoke(self, request: ManagedAgentRequest) -> ManagedAgentResponse:
        """
        Run it once, wait for the end, and return the answer; one run, also when the calling task is retried.

        :param request: Its ``prompt`` is the prompt, or the arguments as a JSON object; the option ``arguments`` has
            them as a mapping. ``timeout`` is in seconds.
        :raises ManagedAgentRejected: other arguments are needed, or the workflow says that it cannot do this.
        :raises ManagedAgentInvocationError: neither other arguments nor a retry helps.
        :raises SkyvernError: a retry of the task may help.
        """
        return self.begin(request)()

    def begin(self, request: ManagedAgentRequest) -> Call:
        """Prepare a call; it is made when it is called."""
        if request.session_id is not None:
            raise ValueError(f"{self._target.name} does not keep a conversation, so session_id cannot be used.")
        if others := sorted(set(request.vendor_options) - {ARGUMENTS}):
            raise ValueError(f"vendor_options: {others[0]}: the hook sets what is run, and where.")
        return Call(self, request)

    def answer(self, request: ManagedAgentRequest, call: Call) -> ManagedAgentResponse:
        """Run what a call asks for; see :meth:`invoke`."""
        with errors_for_agents(takes_prompts=self._target.takes_prompts):
            with self._fetching:
                arguments = self._target.checked(self._arguments_of(request))
            calls = ToolCalls.of_this_task()
            options = self._options if request.timeout is None else {**self._options, "timeout": request.timeout}
            given = {**self._target.operator_arguments(arguments), **options}
            operator = operator_of(self._target.kind, given, self.hook, calls)
            task_try = NoTask() if calls is None else calls.begin(self._target.name, arguments)
            with ExitStack() as stack:
                if calls is not None:
                    stack.enter_context(calls.active(operator))
                call.is_made_by(operator)
                value = operator.answer(task_try)
        return _response(operator, value)

    def _arguments_of(self, request: ManagedAgentRequest) -> Mapping[str, Any]:
        given = request.vendor_options.get(ARGUMENTS)
        if isinstance(given, Mapping):
            return given
        if request.prompt is None:
            raise ManagedAgentRejected("Ask in one prompt: this agent does not keep a conversation.")
        return self._target.arguments_in(request.prompt)

    def _definition(self) -> Workflow:
        found: Workflow = self.hook.get_workflow(self._target.name)
        return found


class Call:
    """
    One call of an agent, which another thread may stop.

    :param agent: The agent.
    :param request: The request to the agent.
    """

    def __init__(self, agent: SkyvernAgent, request: ManagedAgentRequest) -> None:
        self._agent = agent
        self._request = request
        self._operator: OfAgent | None = None
        self._stopped = False

    def __call__(self) -> ManagedAgentResponse:
        """Make the call."""
        return self._agent.answer(self._request, self)

    def is_made_by(self, operator: OfAgent) -> None:
        """Note what waits for the run."""
        self._operator = operator
        if self._stopped:
            operator.interrupt()

    def stop(self) -> None:
        """Stop waiting: nobody needs the answer any more."""
        self._stopped = True
        if self._operator is not None:
            self._operator.interrupt()


def _response(operator: OfAgent, value: Any) -> ManagedAgentResponse:
    run = operator.ended_run
    text = NOTHING if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return ManagedAgentResponse(
        text=text,
        raw=run,
        structured=None if isinstance(value, str) else value,
        trace_ref=None if run is None else run.run_id,
    )
