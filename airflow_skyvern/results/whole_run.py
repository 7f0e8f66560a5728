"""A task's value that says which run it is of, with what input: one value that holds it all, to map over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_skyvern.models import Run


def whole_run(
    run: Run, parameters: Mapping[str, Any] | None, output: Any, files: Sequence[Any], *, mask: bool
) -> dict[str, Any]:
    """
    Return a run as plain JSON.

    :param parameters: The parameters that it was started with, as JSON has them.
    :param output: What the task would have returned otherwise.
    :param files: The files that the task has stored.
    :param mask: Whether to mask what is a secret by its name among the parameters.
    """
    given = json_copy(parameters or {})
    if mask:
        from airflow_skyvern.results.masking import OutputMasker

        given = OutputMasker().masked(given)
    return {
        "run_id": run.run_id,
        "status": run.status,
        "app_url": run.app_url,
        "parameters": given,
        "output": output,
        "files": [file.as_xcom() for file in files],
    }


def json_copy(value: Any) -> Any:
    """Copy what JSON holds: masking changes values in place, and the parameters are the operator's own."""
    if isinstance(value, Mapping):
        return {name: json_copy(item) for name, item in value.items()}
    return [json_copy(item) for item in value] if isinstance(value, list) else value
