"""Checks of operator arguments at DAG parse; templated values are checked when the task runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any

from airflow_skyvern.compat import internals
from airflow_skyvern.exceptions import BAD_ENDINGS, SkyvernConfigError

if TYPE_CHECKING:
    from airflow_skyvern.client.run_request import RunRequest


def check_arguments(
    task_id: str, fields: Mapping[str, Any], run_options: Any, *, skip_on: Collection[str] | str, durable: bool
) -> None:
    """
    Check the arguments of a run, as far as they are known before templates and XComs are.

    :raises SkyvernConfigError: names the task, every field that is wrong, and what would be right.
    """
    try:
        if not is_dynamic(skip_on):
            endings_of("skip_on", skip_on)
        _check_request(fields, run_options, durable=durable)
    except SkyvernConfigError as error:
        raise SkyvernConfigError(f"Task {task_id!r}: {error}") from None


def endings_of(name: str, endings: Any) -> frozenset[str]:
    """
    Return bad endings of a run, given as one or as several.

    :raises SkyvernConfigError: one of them is not a failure status.
    """
    chosen = [endings] if isinstance(endings, str) else endings
    if not isinstance(chosen, list | tuple | AbstractSet):
        raise SkyvernConfigError(f"{name} must be endings such as ['terminated'], not {endings!r}.")
    if unknown := sorted(str(ending) for ending in chosen if str(ending) not in BAD_ENDINGS):
        raise SkyvernConfigError(
            f"{name}: {', '.join(unknown)} is not a failure status; use {', '.join(BAD_ENDINGS)}."
        )
    return frozenset(chosen)


def _check_request(fields: Mapping[str, Any], run_options: Any, *, durable: bool) -> None:
    from airflow_skyvern.client.json_values import json_of

    if is_dynamic(fields.get("parameters")) and isinstance(fields["parameters"], Mapping):
        json_of(fields["parameters"], "parameters", skip=is_dynamic)
    known = {name: value for name, value in fields.items() if not is_dynamic(value)}
    if _is_json_file(known.get("parameters")):
        del known["parameters"]
    options = run_options
    if isinstance(options, Mapping):
        options = {name: value for name, value in options.items() if not is_dynamic(value)}
    options = None if is_dynamic(options) else options
    checked_request({"workflow_id": "known later", **known}, options, durable=durable)


def checked_request(fields: Mapping[str, Any], run_options: Any, *, durable: bool) -> RunRequest:
    """
    Build a request from arguments and check them: known values at DAG parse, all once templates are rendered.

    :raises SkyvernConfigError: names every field that is wrong and what would be right.
    """
    from airflow_skyvern.client.run_request import RunRequest

    request = RunRequest.of_arguments(fields, run_options)
    if durable and request.run_metadata:
        from airflow_skyvern.runs.key import check_metadata

        check_metadata(request.run_metadata)
    return request


def with_limits(task_id: str, run_options: Any, **limits: int | str | None) -> Any:
    """
    Add the limits that are separate arguments to the options, which are checked and sent together.

    :raises SkyvernConfigError: one is given twice, or the options are a template as a whole.
    """
    given = {name: value for name, value in limits.items() if value is not None}
    if not given:
        return run_options
    names = ", ".join(given)
    if run_options is not None and not isinstance(run_options, Mapping):
        raise SkyvernConfigError(f"Task {task_id!r}: {names}: run_options is a template; put {names} in there.")
    if twice := sorted(set(given) & set(run_options or {})):
        raise SkyvernConfigError(f"Task {task_id!r}: {twice[0]}: is in run_options, too; give it once.")
    return {**(run_options or {}), **given}


def included(parameters: Any) -> Any:
    """
    Let Jinja include a ``.json`` file.

    ``template_ext`` would do that to every text that ends in ``.json``, also to file names and addresses among
    the parameters' values.
    """
    return f"{{% include {parameters!r} %}}" if _is_json_file(parameters) else parameters


def run_id_of(run_id: Any) -> str:
    """
    Check the id of a run, which may come from another task.

    :raises SkyvernConfigError: there is none; Jinja renders the XCom of a task that pushed nothing as ``None``.
    """
    if not isinstance(run_id, str) or run_id.strip() in ("", "None"):
        raise SkyvernConfigError(
            f"run_id: is {run_id!r}. The task it comes from has not pushed it: check its task id and XCom key, and "
            "that it succeeded."
        )
    return run_id


def _is_json_file(parameters: Any) -> bool:
    return isinstance(parameters, str) and parameters.endswith(".json") and not is_dynamic(parameters)


def is_dynamic(value: Any) -> bool:
    """Return whether a value is, or holds, a template or an XCom: known only when the task runs."""
    if isinstance(value, str):
        return "{{" in value or "{%" in value
    if value is None or isinstance(value, bool | int | float):
        return False
    if isinstance(value, Mapping):
        return any(is_dynamic(item) for pair in value.items() for item in pair)
    if isinstance(value, list | tuple | AbstractSet):
        return any(is_dynamic(item) for item in value)
    return internals.is_reference(value)


def refuse_late_values(**given: Any) -> None:
    """
    Refuse templates and XComs in values that are not arguments of a task.

    :raises SkyvernConfigError: names the argument.
    """
    if (complaint := complaint_about(given)) is not None:
        raise SkyvernConfigError(complaint)


def complaint_about(values: Mapping[str, Any], annotations: Mapping[str, Any] | None = None) -> str | None:
    """
    Return the error in the first wrong value; nothing renders these values.

    :param annotations: The types in the signature: a switch must be True or False, not just truthy.
    """
    complaints = (_complaint(name, value, (annotations or {}).get(name)) for name, value in values.items())
    return next((complaint for complaint in complaints if complaint is not None), None)


def _complaint(name: str, value: Any, annotation: Any) -> str | None:
    if is_dynamic(value):
        return (
            f"{name} is not templated: it takes no template, XCom or value of a mapped task group, but what is known "
            "when the DAG is parsed."
        )
    if annotation in ("bool", bool) and not isinstance(value, bool):
        return f"{name} must be True or False, not {value!r}."
    if annotation == "MaskOutput" and not isinstance(value, bool | Mapping):
        return f"{name} must be True, False, or a mapping of paths to keep and to add, not {value!r}."
    return None
