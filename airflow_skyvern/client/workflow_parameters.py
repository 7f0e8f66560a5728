"""
Do these parameters fit the workflow? Skyvern drops names that a workflow does not have, and says so nowhere.

What Skyvern takes is its ``WorkflowParameterType.convert_value``; tests/contract compares. A type that it adds later
is taken as it comes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_skyvern.client.suggestions import did_you_mean
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernRequestError, shorten

if TYPE_CHECKING:
    from airflow_skyvern.models import Workflow, WorkflowParameter

REFUSED = "Invalid workflow parameter. Expected parameter type: "
"""The beginning of a refusal (400) by Skyvern that does not name the parameter."""


REFUSED_CREDENTIAL = "Invalid credential ID: "
HOW_NAMES_ARE_FOUND = (
    " Skyvern takes the id of a credential, cred_…. A name is looked up only where the definition of the workflow is "
    "known: with check_parameters=True."
)

NOT_LOOKED_UP = (
    "Nothing was done. It may be the name of a credential, which was not looked up, as the definition of the "
    "workflow could not be read. A retry does both."
)

CREDENTIAL_ID = "cred_"
"""How the ids of Skyvern's credentials begin; any other text is the name of one."""

BESIDE_BLOCKS = frozenset({"extracted_information"})
"""Other top-level keys of a run's output."""

LATER = object()
"""Stands for a value that is known only when the task runs."""


def check_parameters(workflow: Workflow, given: Mapping[str, Any]) -> None:
    """
    Check names, types, and that nothing is missing.

    :param given: The parameters as JSON has them; :data:`LATER` for a value that is not known yet.
    :raises SkyvernConfigError: names each parameter that does not fit, and what would; never its value.
    """
    if problems := [*_unknown(workflow, given), *_unfit(workflow, given)]:
        title = f" ({workflow.title})" if workflow.title else ""
        raise SkyvernConfigError(
            f"The parameters do not fit workflow {workflow.workflow_permanent_id}{title}; nothing was started. "
            f"{'; '.join(problems)}. check_parameters=False turns this check off."
        )


def check_block(workflow: Workflow, label: str) -> None:
    """
    Check that a run of the workflow may have the output of this block.

    A definition without any labels has a form that is not known here.

    :raises SkyvernConfigError: there is no such block; names the one that was probably meant.
    """
    labels = list(dict.fromkeys(_labels(workflow.workflow_definition.get("blocks"))))
    names = {*labels, *(f"{one}_output" for one in labels), *BESIDE_BLOCKS, *_output_keys(workflow)}
    if labels and label not in names:
        advice = did_you_mean(label, labels) or f"It has: {', '.join(labels)}."
        raise SkyvernConfigError(
            f"output_from: workflow {workflow.workflow_permanent_id} has no block {label!r}; nothing was started. "
            f"{advice} check_parameters=False turns this check off."
        )


def _labels(blocks: Any) -> Iterator[str]:
    """Yield the labels of blocks, also of those in loops and branches."""
    if isinstance(blocks, Mapping):
        if isinstance(label := blocks.get("label"), str) and "block_type" in blocks:
            yield label
        blocks = list(blocks.values())
    if isinstance(blocks, list):
        for block in blocks:
            yield from _labels(block)


def _output_keys(workflow: Workflow) -> Iterator[str]:
    for parameter in workflow.parameters:
        if parameter.parameter_type == "output":
            yield parameter.key


def credential_names(workflow: Workflow, given: Mapping[str, Any]) -> dict[str, str]:
    """
    Return which parameters of a run stand for credentials by a name and not by an id, and their names.

    :param given: The parameters; where one has no value, the default of the definition counts.
    """
    values = {
        parameter.key: parameter.default_value if given.get(parameter.key) is None else given[parameter.key]
        for parameter in workflow.parameters
        if parameter.is_credential
    }
    return {key: value for key, value in values.items() if _is_name(value)}


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and not value.startswith(CREDENTIAL_ID)


def name_refused(
    error: SkyvernRequestError, given: Mapping[str, Any], *, unread: bool = False
) -> SkyvernRequestError:
    """
    Return the error with the name of the parameter that Skyvern refused: it says only the type and the value.

    :param unread: Whether the definition was wanted and could not be read. Then names of credentials were not looked
        up, and a later try may start the run.
    """
    begin = next((words for words in (REFUSED, REFUSED_CREDENTIAL) if error.detail.startswith(words)), None)
    if begin is None:
        return error
    sign = "Value: {}." if begin == REFUSED else f"{begin}{{}}."
    refused = {name: value for name, value in given.items() if sign.format(_as_quoted(value)) in error.detail}
    if not refused:
        return error
    message = str(error).replace(begin, f"{' or '.join(f'parameters.{name}' for name in refused)}: {begin}")
    helps = begin == REFUSED_CREDENTIAL and unread and all(map(_is_name, refused.values()))
    if begin == REFUSED_CREDENTIAL:
        message = message.removesuffix(error.advice) + NOT_LOOKED_UP if helps else message + HOW_NAMES_ARE_FOUND
    return type(error)(
        message,
        status_code=error.status_code,
        detail=error.detail,
        retry_after=error.retry_after,
        transient=True if helps else None,
    )


def _as_quoted(value: Any) -> str:
    return shorten(json.dumps(value) if isinstance(value, dict | list) else str(value))


def _unknown(workflow: Workflow, given: Mapping[str, Any]) -> Iterator[str]:
    settable = sorted(parameter.key for parameter in workflow.parameters if parameter.is_settable)
    others = {parameter.key: parameter.parameter_type for parameter in workflow.parameters}
    for name in sorted(set(given) - set(settable)):
        if name in others:
            yield f"parameters.{name}: cannot be set, it is of type {others[name]}"
        else:
            hint = did_you_mean(name, settable) or f"The workflow has {', '.join(settable) or 'none'}"
            yield f"parameters.{name}: no such parameter. {hint}"


def _unfit(workflow: Workflow, given: Mapping[str, Any]) -> Iterator[str]:
    for parameter in workflow.parameters:
        if parameter.parameter_type != "workflow":
            continue
        value = given.get(parameter.key)
        if value is LATER:
            continue
        if _is_missing(parameter, value):
            if parameter.is_required:
                yield f"parameters.{parameter.key}: missing, and has no default ({_kind_of(parameter)})"
        elif not _fits(parameter, value):
            yield f"parameters.{parameter.key}: must be {_kind_of(parameter)}, not {_described(value)}"


def _is_missing(parameter: WorkflowParameter, value: Any) -> bool:
    """Skyvern takes null for missing, and blank text, too, where the type is not text."""
    blank = isinstance(value, str) and not value.strip()
    return value is None or (blank and parameter.workflow_parameter_type in TYPES)


def _fits(parameter: WorkflowParameter, value: Any) -> bool:
    _, fits = TYPES.get(parameter.workflow_parameter_type or "", ("", lambda _: True))
    return fits(value)


def _kind_of(parameter: WorkflowParameter) -> str:
    kind, _ = TYPES.get(parameter.workflow_parameter_type or "", (parameter.workflow_parameter_type or "text", None))
    return kind


def _described(value: Any) -> str:
    """Describe a value without repeating it: it may be a secret."""
    words: dict[type, str] = {str: "this text", dict: "a mapping", list: "a list", bool: "true or false"}
    return words.get(type(value), "this number")


def _is_whole(value: Any) -> bool:
    """Skyvern takes 7.0, too, but stores it as text that it cannot read: every request for the run fails then."""
    return not isinstance(value, bool | float) and _converts(int, value)


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and _converts(float, value)


def _is_boolean(value: Any) -> bool:
    return str(value).lower() in ("true", "false", "1", "0")


def _is_json(value: Any) -> bool:
    return isinstance(value, dict | list) or (isinstance(value, str) and _converts(json.loads, value))


def _is_file(value: Any) -> bool:
    return isinstance(value, str | dict)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _converts(convert: Callable[[Any], Any], value: Any) -> bool:
    try:
        convert(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "integer": ("a whole number", _is_whole),
    "float": ("a number", _is_number),
    "boolean": ("true or false", _is_boolean),
    "json": ("a mapping, a list or JSON text", _is_json),
    "file_url": ("the address of a file", _is_file),
    "credential_id": ("the name of a credential, or its id cred_…", _is_text),
}
"""The names of Skyvern's types in messages, and their values. A ``string`` accepts everything, as text."""
