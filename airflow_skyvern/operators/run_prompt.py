"""Run a prompt: say in words what a browser is to do, without a workflow in Skyvern."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.operators.run_workflow import SkyvernRunWorkflowOperator
from airflow_skyvern.results.contract import TextContract, check_json_schema
from airflow_skyvern.task.arguments import is_dynamic

if TYPE_CHECKING:
    from airflow_skyvern.client.run_request import RunRequest
    from airflow_skyvern.models import Run
    from airflow_skyvern.results.contract import Contract
    from airflow_skyvern.results.output import OutputOptions
    from airflow_skyvern.runs.prompt_workflow import Shape

BLOCK = "task"
"""The label of the block that runs the prompt, as :mod:`airflow_skyvern.runs.prompt_workflow` has it."""

PROMPT_WORKFLOW = "prompt"
"""Stands for the workflow until that is found or made."""

OWN_NAMES = frozenset({"prompt", "url", "schema", "values", BLOCK})
"""What the workflow of prompts calls its own parameters and its block."""

ENGINES = ("skyvern-1.0", "skyvern-3.0", "openai-cua", "anthropic-cua", "ui-tars", "yutori-navigator")
"""The engines of a workflow's block. ``skyvern-2.0`` makes its own workflow and takes no schema."""

NO_WEB_ADDRESS = re.compile(
    r"\s*(?!https?://)([a-z][a-z0-9+.-]*://|(javascript|data|mailto|file|blob):)", re.IGNORECASE
)
TEMPLATE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)

NOT_OF_PROMPTS = ("workflow_id", "workflow_file", "output_from", "check_parameters", "code")
"""Arguments of the operator that runs a workflow of the author's, which mean nothing here."""


class SkyvernRunPromptOperator(SkyvernRunWorkflowOperator):
    """
    Do in a browser what a prompt says, and return the data that it asks for.

    Skyvern calls this a task. It is run as a workflow of one block, so it has all features of
    :class:`~airflow_skyvern.operators.SkyvernRunWorkflowOperator`, and takes its other arguments. That workflow is
    made when it is needed, once for all prompts with the same ``engine``, ``error_code_mapping`` and names in
    ``upload``, and is hidden in Skyvern.

    XCom: as with that operator. ``return_value`` is the extracted data, in the form of ``output_schema``; without
    one, the answer as a text, or None.

    :param prompt: What to do, and what to return, in words. ``{name}`` is replaced by the value of that name in
        ``parameters``. (templated)
    :param url: The page to begin at; ``{name}`` is replaced here, too. Default: the page that
        ``browser_session_id`` is at, or an empty one. (templated)
    :param output_schema: What the data has to look like: a pydantic model class (or ``list[Model]``), a JSON Schema
        as a mapping, or the path of a JSON Schema file next to the DAG file. It is sent with the prompt, and the data
        is checked against it: data that does not fit fails the task, without a retry; with
        ``rerun_on_invalid_output=True``, a retry starts a new run. Default: a text.
    :param parameters: Values for ``{name}`` in prompt and URL. The browser's model also gets them separately from the
        prompt. (templated)
    :param engine: Skyvern's name of the engine that runs the prompt: ``skyvern-1.0``, ``skyvern-3.0``,
        ``openai-cua``, ``anthropic-cua``, ``ui-tars``, ``yutori-navigator``. Default: Skyvern's. (templated)
    :param error_code_mapping: Codes of errors → when to report them, in words: ``{"BAD_LOGIN": "the password is
        refused"}``. A run that ends badly has them in its ``errors``. (templated)
    :param upload: Files to send for the run: a name for the model → absolute path or address. (templated)
    :raises SkyvernConfigError: an argument is wrong, or is one of a workflow; when the DAG is parsed if it can be
        known then.
    """

    template_fields: Sequence[str] = (
        *(name for name in SkyvernRunWorkflowOperator.template_fields if not name.startswith("workflow_")),
        "prompt",
        "url",
        "engine",
        "error_code_mapping",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **SkyvernRunWorkflowOperator.template_fields_renderers,
        "prompt": "md",
        "error_code_mapping": "json",
    }

    def __init__(
        self,
        *,
        prompt: str,
        url: str | None = None,
        output_schema: type[Any] | Mapping[str, Any] | str | None = None,
        engine: str | None = None,
        error_code_mapping: Mapping[str, str] | str | None = None,
        **kwargs: Any,
    ) -> None:
        task_id = kwargs.get("task_id", "")
        if unusable := sorted(set(NOT_OF_PROMPTS) & set(kwargs)):
            raise SkyvernConfigError(
                f"Task {task_id!r}: {', '.join(unusable)}: belongs to SkyvernRunWorkflowOperator. A prompt has no "
                "workflow of yours, whose block could take a code, and its value is the data that it extracts."
            )
        super().__init__(
            workflow_id=PROMPT_WORKFLOW,
            check_parameters=False,
            output_from=BLOCK,
            output_schema=output_schema,
            **kwargs,
        )
        self.prompt = prompt
        self.url = url
        self.engine = engine
        self.error_code_mapping = error_code_mapping
        check_json_schema(self.task_id, output_schema)
        try:
            self._check()
            _check_names((prompt, url), self.parameters)
        except SkyvernConfigError as error:
            raise SkyvernConfigError(f"Task {self.task_id!r}: {error}") from None

    def _check(self) -> None:
        _check_text("prompt", self.prompt, required=True)
        _check_text("url", self.url)
        _check_address(self.url)
        if not is_dynamic(self.engine) and self.engine not in (None, "", *ENGINES):
            raise SkyvernConfigError(f"engine: {self.engine!r} cannot run a prompt here; use {', '.join(ENGINES)}.")
        _check_codes(self.error_code_mapping)
        if taken := sorted(OWN_NAMES & set(self.upload or {})):
            raise SkyvernConfigError(f"upload.{taken[0]}: the prompt itself uses this name; choose another one.")

    def _shape(self) -> Shape:
        from airflow_skyvern.client.run_request import decoded
        from airflow_skyvern.runs.prompt_workflow import Shape

        codes = decoded("error_code_mapping", self.error_code_mapping) or {}
        return Shape(self.engine or None, bool(self.url), codes, tuple(sorted(self.upload or {})))

    @cached_property
    def _output_options(self) -> OutputOptions:
        from airflow_skyvern.results.output import OutputOptions

        options = OutputOptions.of(self)
        return options if options.contract else replace(options, contract=TextContract())

    def _request(self) -> RunRequest:
        """Build the request; its workflow is only known right before the start, so it is not part of the key."""
        from airflow_skyvern.runs.prompt_workflow import parameters_of

        self._check()
        request = super()._request()
        given, names = request.parameters or {}, frozenset(self.upload or {})
        parameters = parameters_of(
            self.prompt,
            self.url or None,
            values={name: value for name, value in given.items() if name not in names},
            uploads={name: value for name, value in given.items() if name in names},
            schema=self._contract.json_schema(),
        )
        return request.model_copy(update={"workflow_id": PROMPT_WORKFLOW, "parameters": parameters})

    @property
    def _contract(self) -> Contract:
        return self._output_options.contract or TextContract()

    @property
    def _workflow_is_found(self) -> bool:
        return True

    def _with_workflow(self, request: RunRequest) -> RunRequest:
        """Find the workflow of the prompt's shape, or make it."""
        from airflow_skyvern.runs.prompt_workflow import find_or_create

        self.workflow_id = find_or_create(self.hook.send, self._shape())
        self._active_run.stop_if_killed()
        return request.model_copy(update={"workflow_id": self.workflow_id})

    def _fetch_of(self, run_id: str) -> Callable[[], Run]:
        """Return what fetches a run, and warns when its one block nears the limit of steps."""
        fetch, limits = super()._fetch_of(run_id), self._limits()
        if limits is None or limits.max_steps is None:
            return fetch
        from airflow_skyvern.runs.cost import warning_of_steps

        return warning_of_steps(fetch, limits.max_steps, self.log)

    def _parameters_of(self, run: Run) -> Mapping[str, Any]:
        """Return prompt, URL and values; the schema says nothing about the run."""
        from airflow_skyvern.runs.prompt_workflow import given_to

        return given_to(run)

    def _replacement_of(self, run: Run) -> Run | None:
        """Return None: Skyvern replaces a failed run by another one only with another credential."""
        return None


def _check_text(name: str, value: Any, *, required: bool = False) -> None:
    if is_dynamic(value) or (value is None and not required):
        return
    if not isinstance(value, str) or (required and not value.strip()):
        raise SkyvernConfigError(f"{name}: must be a text{', and not empty' if required else ''}.")


def _check_address(url: Any) -> None:
    if isinstance(url, str) and not is_dynamic(url) and NO_WEB_ADDRESS.match(url):
        raise SkyvernConfigError("url: must be an address of the web: https://…")


def _check_names(texts: Sequence[Any], parameters: Any) -> None:
    """Find a ``{name}`` that is probably a misspelt name of a value: it would stay in the text as it is."""
    if not isinstance(parameters, Mapping) or not all(isinstance(text, str) for text in texts if text is not None):
        return
    from airflow_skyvern.client.suggestions import did_you_mean
    from airflow_skyvern.runs.prompt_workflow import PLACEHOLDER

    named = {name for text in texts if text is not None for name in PLACEHOLDER.findall(TEMPLATE.sub("", text))}
    unused = [name for name in parameters if name not in named and isinstance(name, str)]
    for name in sorted(named - set(parameters)):
        if meant := did_you_mean(name, unused):
            raise SkyvernConfigError(f"parameters: prompt and url name {{{name}}}, which has no value. {meant}")


def _check_codes(codes: Any) -> None:
    if codes is None or is_dynamic(codes):
        return
    from airflow_skyvern.client.run_request import decoded

    known = decoded("error_code_mapping", codes)
    if not (isinstance(known, Mapping) and all(isinstance(text, str) for pair in known.items() for text in pair)):
        raise SkyvernConfigError("error_code_mapping: must map codes to when to report them, all of them texts.")
