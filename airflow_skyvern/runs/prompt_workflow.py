"""
The hidden workflow that runs prompts: one block whose goal is a parameter.

Skyvern's own endpoint for prompts loses starts: it has no tags, and if its answer is lost, nothing finds the run. As
a workflow, a prompt has tags, a timeline and everything else that workflow runs have. What differs from prompt to
prompt are parameters, so that all prompts of one shape share a workflow.

A workflow is made with a key of its content, so that any number of tasks, and of Airflows, get the same one. It is
used as long as it is at its first version, which is what was made: one that a person has edited or deleted is left
alone, and another one takes its place.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_skyvern.client import api, workflow_api
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernNotFoundError

if TYPE_CHECKING:
    from airflow_skyvern.client.session import Send
    from airflow_skyvern.models import Run, Workflow

LABEL = "task"
"""
The label of the block, from which Skyvern derives the name of its output. In the block's own templates it does not
mean a parameter of that name, so no parameter may have it.
"""

PROMPT, URL, SCHEMA, VALUES = "prompt", "url", "schema", "values"

MOST_REPLACEMENTS = 20
"""How many workflows of a shape may have been edited or deleted before that counts as another problem."""

PLACEHOLDER = re.compile(r"\{([^\W\d]\w*)\}")


@dataclass(frozen=True)
class Shape:
    """
    The common part of prompts that share a workflow.

    :param engine: Skyvern's name of the engine; None for the server's default.
    :param has_url: Whether the browser opens a page first; otherwise it begins where its session is.
    :param error_codes: Descriptions of errors by the codes that the run reports them with.
    :param uploads: The names of the parameters that are files.
    """

    engine: str | None = None
    has_url: bool = True
    error_codes: Mapping[str, str] = field(default_factory=dict)
    uploads: tuple[str, ...] = ()

    @property
    def definition(self) -> dict[str, Any]:
        """The workflow for Skyvern's API; auto_generated keeps it out of Skyvern's list of workflows."""
        kinds = {PROMPT: "string", URL: "string", SCHEMA: "string", VALUES: "json"}
        kinds |= dict.fromkeys(self.uploads, "file_url")
        return {
            "title": f"Airflow prompt ({self.engine})" if self.engine else "Airflow prompt",
            "description": "Made by Apache Airflow, which runs its prompts with it. Do not edit.",
            "status": "auto_generated",
            "run_with": "agent",
            "workflow_definition": {
                "parameters": [_parameter(key, kind) for key, kind in kinds.items()],
                "blocks": [self._block],
            },
        }

    @property
    def _block(self) -> dict[str, Any]:
        block: dict[str, Any] = {
            "block_type": "task",
            "label": LABEL,
            "navigation_goal": f"{{{{ {PROMPT} }}}}",
            "data_extraction_goal": f"{{{{ {PROMPT} }}}}",
            "data_schema": f"{{{{ {SCHEMA} }}}}",
            "parameter_keys": [VALUES, *self.uploads],
            "include_action_history_in_verification": True,  # or it downloads a file again and again
            "disable_cache": True,
        }
        if self.has_url:
            block["url"] = f"{{{{ {URL} }}}}"
        if self.engine:
            block |= {"engine": self.engine, "engine_pinned": True}
        if self.error_codes:
            block["error_code_mapping"] = dict(self.error_codes)
        return block

    def key(self, replaced: int = 0) -> str:
        """Return the key for creating this content; ``replaced`` workflows of it must not be used any more."""
        text = json.dumps(self.definition, sort_keys=True)
        return f"airflow-prompt-{hashlib.sha256(text.encode()).hexdigest()}-{replaced}"


def _parameter(key: str, kind: str) -> dict[str, Any]:
    parameter = {"parameter_type": "workflow", "key": key, "workflow_parameter_type": kind}
    return parameter if kind == "file_url" else {**parameter, "default_value": {} if kind == "json" else ""}


def find_or_create(send: Send, shape: Shape) -> str:
    """
    Return the id of the workflow of a shape, created now if none exists.

    :raises SkyvernConfigError: all created ones have been edited or deleted.
    """
    for replaced in range(MOST_REPLACEMENTS):
        made: Workflow = send(workflow_api.create_workflow(shape.definition, idempotency_key=shape.key(replaced)))
        if _is_as_made(send, made.workflow_permanent_id):
            return made.workflow_permanent_id
    raise SkyvernConfigError(
        f"{MOST_REPLACEMENTS} workflows {shape.definition['title']!r} were edited or deleted in Skyvern. They run "
        "the prompts of Airflow: make sure that nothing changes them, and delete those that are left."
    )


def _is_as_made(send: Send, workflow_id: str) -> bool:
    """Return whether a workflow exists and is at its first version: each edit creates another one."""
    try:
        newest: Workflow = send(api.get_workflow(workflow_id))
    except SkyvernNotFoundError:
        return False
    return newest.version == 1


def parameters_of(
    prompt: str, url: str | None, *, values: Mapping[str, Any], uploads: Mapping[str, Any], schema: Mapping[str, Any]
) -> dict[str, Any]:
    """
    Return the parameters of a run of a prompt.

    :param values: The values of ``{name}`` in prompt and URL.
    :param uploads: The files, by the names that the prompt's model knows them by.
    :param schema: The JSON Schema of the data to extract. Skyvern passes a text to its model unchanged; in a mapping
        it would fill in missing fields, so that none would ever be missing.
    """
    texts = {PROMPT: filled(prompt, values), URL: filled(url or "", values), SCHEMA: json.dumps(schema)}
    return {**texts, VALUES: dict(values), **uploads}


def given_to(run: Run) -> dict[str, Any]:
    """Return a prompt run's input as its author gave it: values, files, prompt and URL."""
    sent = dict((run.run_request or {}).get("parameters") or {})
    sent.pop(SCHEMA, None)
    values = sent.pop(VALUES, None)
    return {**(values if isinstance(values, Mapping) else {}), **sent}


def filled(text: str, values: Mapping[str, Any]) -> str:
    """Replace ``{name}`` by the value of that name; braces around anything else stay."""
    return PLACEHOLDER.sub(lambda found: str(values.get(found[1], found[0])), text)
