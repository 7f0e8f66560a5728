"""What an agent runs: a workflow whose parameters are the tool's arguments, or prompts on some sites."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from airflow_skyvern.agents.call import OF_PROMPTS, OfAgent, PromptOfAgent, WorkflowOfAgent
from airflow_skyvern.agents.contract import ManagedAgentRejected
from airflow_skyvern.agents.sites import Sites
from airflow_skyvern.client.workflow_parameters import check_parameters
from airflow_skyvern.exceptions import SkyvernConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_skyvern.models import Workflow, WorkflowParameter

JSON_TYPES: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "integer": {"type": "integer"},
    "float": {"type": "number"},
    "boolean": {"type": "boolean"},
    "json": {"anyOf": [{"type": "object"}, {"type": "array", "items": {}}]},
    "file_url": {"type": "string", "description": "The address of a file."},
}
"""Skyvern's types, as a calling model reads them; one that Skyvern adds later may be anything."""

ONLY_THESE = "Visit no other sites than these: {sites}. If that is not enough, stop, and say so as the reason."
MOST_NAMED = 5


class Target(Protocol):
    """What an agent runs."""

    kind: type[OfAgent]
    takes_prompts: bool

    @property
    def name(self) -> str:
        """Its name, which a retry finds its runs by."""

    @property
    def description(self) -> str:
        """What it does, as a calling model reads it."""

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of its arguments."""

    def arguments_in(self, text: str) -> Mapping[str, Any]:
        """
        Read the arguments that somebody has written as a text.

        :raises ManagedAgentRejected: it is not clear which text is meant for what.
        """

    def checked(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """
        Return what of these arguments names the call.

        :raises ManagedAgentRejected: others are needed.
        """

    def operator_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return them as the operator takes them."""

    def forget(self) -> None:
        """Forget what another server has said of it."""


class WorkflowTarget:
    """
    A workflow.

    :param workflow_id: Its id.
    :param fixed: The parameters that the calling model does not set.
    :param fetch: Fetches its definition.
    """

    kind: type[OfAgent] = WorkflowOfAgent
    takes_prompts = False

    def __init__(self, workflow_id: str, fixed: Mapping[str, Any], fetch: Callable[[], Workflow]) -> None:
        self._workflow_id = workflow_id
        self._fixed = dict(fixed)
        self._fetch = fetch

    @property
    def name(self) -> str:
        """The workflow's id."""
        return self._workflow_id

    @cached_property
    def _workflow(self) -> Workflow:
        return self._fetch()

    @property
    def description(self) -> str:
        """The workflow's title and description, as Skyvern has them."""
        texts = (self._workflow.title, self._workflow.description)
        return "Run a workflow in a browser: " + ". ".join(text.strip(" .") for text in texts if text) + "."

    def schema(self) -> dict[str, Any]:
        """Return one property for each parameter that is not fixed."""
        free = self._free()
        properties = {parameter.key: _schema_of(parameter, given) for parameter, given in free}
        needed = [parameter.key for parameter, _ in free if parameter.is_required]
        return {"type": "object", "properties": properties, "required": needed}

    def _free(self) -> list[tuple[WorkflowParameter, Mapping[str, Any]]]:
        """
        Return the parameters that the calling model sets, and what the definition says of them.

        :raises SkyvernConfigError: a login is among them that has to be there: a model chooses none.
        """
        rows = self._workflow.workflow_definition.get("parameters") or []
        pairs = list(zip(self._workflow.parameters, rows, strict=True))
        free = [pair for pair in pairs if pair[0].is_settable and pair[0].key not in self._fixed]
        logins = [
            parameter.key for parameter, _ in free if parameter.is_credential and parameter.default_value is None
        ]
        if logins:
            raise SkyvernConfigError(
                f"agent({self.name!r}): {', '.join(logins)}: the model may not choose a login. Give it in "
                f"parameters={{{logins[0]!r}: …}}."
            )
        return [pair for pair in free if not pair[0].is_credential]

    def arguments_in(self, text: str) -> Mapping[str, Any]:
        """Read a JSON object; or take the text for the only parameter there is."""
        try:
            found = json.loads(text)
        except ValueError:
            found = None
        if isinstance(found, Mapping):
            return found
        schema = self.schema()
        texts = [name for name, one in schema["properties"].items() if one.get("type") == "string"]
        if len(texts) == 1 and set(schema["required"]) <= set(texts):
            return {texts[0]: text}
        raise ManagedAgentRejected(f"Write a JSON object of this form: {json.dumps(schema)}")

    def checked(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Check them by the definition; those that a model leaves empty are left out."""
        given = {name: value for name, value in arguments.items() if value is not None}
        free = [parameter.key for parameter, _ in self._free()]
        if others := sorted(set(given) - set(free)):
            known = ", ".join(free) or "none"
            raise ManagedAgentRejected(f"parameters.{others[0]}: cannot be set here. These can: {known}.")
        check_parameters(self._workflow, {**self._fixed, **given})
        return given

    def operator_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the workflow and all its parameters."""
        return {"workflow_id": self._workflow_id, "parameters": {**self._fixed, **arguments} or None}

    def forget(self) -> None:
        """Forget its definition."""
        vars(self).pop("_workflow", None)


def _schema_of(parameter: WorkflowParameter, row: Mapping[str, Any]) -> dict[str, Any]:
    schema = dict(JSON_TYPES.get(parameter.workflow_parameter_type or "", {}))
    if isinstance(said := row.get("description"), str) and said.strip():
        schema["description"] = said.strip()
    if parameter.is_required:
        return schema
    return {"anyOf": [*schema.get("anyOf", [schema]), {"type": "null"}]} | _said(schema)


def _said(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": schema["description"]} if "description" in schema else {}


class PromptTarget:
    """
    Prompts on some sites.

    :param sites: Where they may begin.
    :param url: Where all of them begin; None if the calling model chooses.
    """

    kind: type[OfAgent] = PromptOfAgent
    takes_prompts = True

    def __init__(self, sites: Sequence[str], url: str | None) -> None:
        self._sites = Sites(sites)
        self._url = url
        if url is not None and self._sites.allowed_address(url) is None:
            raise SkyvernConfigError(f"agent(): url: {url!r} is on none of the sites: {self._sites}.")

    @property
    def name(self) -> str:
        """The sites."""
        return f"prompt: {self._sites}"

    @property
    def description(self) -> str:
        """What it does, and where."""
        return f"Do something in a web browser, and return what was asked for. Only on these sites: {self._sites}."

    def schema(self) -> dict[str, Any]:
        """Return the prompt, and where to begin if that is not fixed."""
        what = "What to do there, and what to return, complete and step by step: it sees nothing else."
        properties = {"prompt": {"type": "string", "description": what}}
        if self._url is None:
            where = f"The address to begin at, on one of these sites: {self._sites}. Default: {self._sites.start}"
            properties["url"] = {"anyOf": [{"type": "string"}, {"type": "null"}], "description": where}  # type: ignore[dict-item]  # JSON
        return {"type": "object", "properties": properties, "required": ["prompt"]}

    def arguments_in(self, text: str) -> Mapping[str, Any]:
        """Take the whole text for the prompt."""
        return {"prompt": text}

    def checked(self, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
        """Check where the browser is sent: by the address, and by what the prompt names."""
        prompt, url = arguments.get("prompt"), arguments.get("url") if self._url is None else None
        if not isinstance(prompt, str) or not prompt.strip():
            raise ManagedAgentRejected("prompt: must be a text that says what to do.")
        start = self._url or self._sites.start if url in (None, "") else url
        allowed = self._sites.allowed_address(start) if isinstance(start, str) else None
        if allowed is None:
            raise ManagedAgentRejected(f"url: that site may not be visited. These may be: {self._sites}.")
        if others := self._sites.others_in(prompt):
            named = ", ".join(others[:MOST_NAMED])
            raise ManagedAgentRejected(
                f"prompt: {named}: looks like a site that may not be visited. These may be: {self._sites}. If it is "
                "none, write it otherwise."
            )
        return {"prompt": prompt, "url": allowed}

    def operator_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return prompt and address; the prompt names the sites for the browser's model."""
        rule = ONLY_THESE.format(sites=self._sites)
        return {"prompt": f"{arguments['prompt']}\n\n{rule}", "url": arguments["url"]}

    def forget(self) -> None:
        """Do nothing: no server has said anything."""


def target_of(
    workflow_id: str | None,
    sites: Sequence[str],
    url: str | None,
    parameters: Mapping[str, Any] | None,
    fetch: Callable[[], Workflow],
) -> Target:
    """
    Return what an agent runs.

    :raises SkyvernConfigError: it is not clear what that is.
    """
    if (workflow_id is None) == (not sites):
        raise SkyvernConfigError("agent(): give either a workflow's id, or sites that prompts may be about.")
    if workflow_id is None:
        if parameters:
            raise SkyvernConfigError("agent(): parameters belong to a workflow.")
        return PromptTarget(sites, url)
    if url is not None:
        raise SkyvernConfigError("agent(): url belongs to prompts, with sites.")
    given: object = workflow_id  # an author's, of any type
    if not isinstance(given, str) or not given.strip():
        raise SkyvernConfigError(f"agent(): {workflow_id!r} must be the id of a workflow, wpid_….")
    return WorkflowTarget(workflow_id, parameters or {}, fetch)


def unknown_options(target: Target, options: Mapping[str, Any], known: frozenset[str]) -> list[str]:
    """Return which options there are not for what an agent runs."""
    usable = known if target.takes_prompts else known - OF_PROMPTS
    return sorted(set(options) - usable)
