"""Turns a run's output into the value of its task, alone or in one value that also describes the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernOutputError
from airflow_skyvern.results.contract import Misfit, contract_of
from airflow_skyvern.results.destination import OutputFile, check_output_to, written
from airflow_skyvern.results.fitting import into_xcom
from airflow_skyvern.results.mask_rules import MaskRules

if TYPE_CHECKING:
    from airflow_skyvern.models import Run
    from airflow_skyvern.results.contract import Contract
    from airflow_skyvern.runs.cost import Cost
    from airflow_skyvern.runs.wait import Log

BROWSER_BLOCK = frozenset({"task_id", "status", "extracted_information"})
"""The keys that identify the entry of a block that has used the browser."""


class TaskWithOutput(Protocol):
    """The required attributes of a task: its arguments about the output."""

    task_id: str
    output_from: str | None
    output_schema: Any
    output_to: str | None
    output_conn_id: str | None
    mask_output: Any

    def get_template_env(self) -> Any:
        """Return the environment that renders its templates."""


@dataclass(frozen=True)
class OutputOptions:
    """
    How the output of a run becomes the value of its task.

    :param source: The block whose output is used; None for the whole output.
    :param contract: Its required form.
    :param rerun: Whether an output that does not fit causes another run.
    :param mask: Which secrets in it are masked.
    :param file: The file that it is written to; None to push it as it is.
    """

    source: str | None = None
    contract: Contract | None = None
    rerun: bool = False
    mask: MaskRules = field(default_factory=MaskRules)
    file: OutputFile | None = None

    @classmethod
    def of(cls, task: TaskWithOutput) -> OutputOptions:
        """
        Read the options of an operator or a sensor, with the file that holds its schema.

        :raises SkyvernConfigError: the schema cannot be read, or is not a schema; ``output_to`` does not name a file.
        """
        if task.output_to is not None:
            check_output_to(task.task_id, task.output_to)
        schema = task.output_schema
        contract = None if schema is None else contract_of(schema, lambda path: _read_beside_dag(task, path))
        rerun = getattr(task, "rerun_on_invalid_output", False)
        if contract is not None:
            contract.check()
        columns = getattr(task, "output_run_columns", False)
        replaces = getattr(task, "if_exists", None) in (None, "replace")
        file = None if task.output_to is None else OutputFile(task.output_to, task.output_conn_id, columns, replaces)
        mask = MaskRules() if task.mask_output is True else MaskRules.of(task.mask_output)
        return cls(source=task.output_from, contract=contract, rerun=rerun, mask=mask, file=file)

    def agreed(self, run: Run, log: Log) -> Any:
        """
        Return the validated output, masked; this changes the output of the run itself.

        :raises SkyvernOutputError: the output does not fit its contract.
        """
        value = self._agreed(run)
        return self._masked(value, run, log) if self.mask.on else value

    def pushed(self, value: Any, run_id: str, log: Log) -> Any:
        """
        Return the value that the task pushes for an output: the output, or a reference to its file.

        :raises SkyvernOutputTooLarge: it is too large for XCom.
        :raises SkyvernFileConflict: the file holds something else, and may not be replaced.
        """
        return into_xcom(value, run_id, log) if self.file is None else written(value, run_id, self.file, log)

    def _masked(self, value: Any, run: Run, log: Log) -> Any:
        from airflow_skyvern.results.masking import mask_output
        from airflow_skyvern.secret_values import secrets_in

        known = set(secrets_in(run.run_request or {}))
        try:
            return mask_output(value, self.mask, run.run_id, log, known=known, contract=self.contract)
        except Misfit as misfit:
            raise self._error(run, misfit, transient=False) from None

    def rejects(self, run: Run) -> bool:
        """Return whether a run completed with an output that requires another run."""
        if not (self.rerun and run.succeeded):
            return False
        try:
            self._agreed(run)
        except SkyvernOutputError:
            return True
        return False

    def _agreed(self, run: Run) -> Any:
        try:
            value = _taken_from(run, self.source)
            return value if self.contract is None else self.contract.validated(value)
        except Misfit as misfit:
            raise self._error(run, misfit, transient=self.rerun) from None

    def _error(self, run: Run, misfit: Misfit, *, transient: bool) -> SkyvernOutputError:
        where = f" of block {self.source}" if self.source else ""
        link = f" See {run.app_url}" if run.app_url else ""
        return SkyvernOutputError(
            f"Skyvern run {run.run_id} completed, but its output{where} does not match output_schema "
            f"and output_from: {misfit}.{link}",
            run,
            transient=transient,
        )


def _taken_from(run: Run, label: str | None) -> Any:
    """
    Return the output of one block, or all of it.

    An entry is named after its block, with the suffix ``_output``. For a block that has used the browser, only the
    extracted data is the output; the rest describes how the block went.

    :raises Misfit: there is no such block.
    """
    if label is None:
        return run.output
    if run.is_task:
        raise Misfit(iter([("", "a run of a prompt has no blocks; leave output_from out")]))
    entries = run.output if isinstance(run.output, Mapping) else {}
    name = next((name for name in (f"{label}_output", label) if name in entries), None)
    if name is None:
        there = ", ".join(str(name).removesuffix("_output") for name in entries) or "none"
        raise Misfit(iter([("", f"the output has no block {label}; it has: {there}")]))
    entry = entries[name]
    if isinstance(entry, Mapping) and entry.keys() >= BROWSER_BLOCK:
        return entry["extracted_information"]
    return entry


def _read_beside_dag(task: TaskWithOutput, path: str) -> str:
    """Read a file like the templates of its DAG: next to the DAG file, or in its ``template_searchpath``."""
    from jinja2 import BaseLoader, TemplateNotFound

    try:
        if Path(path).is_absolute():
            return Path(path).read_text()
        environment = task.get_template_env()
        text: str = (environment.loader or BaseLoader()).get_source(environment, path)[0]
    except (OSError, RuntimeError, TemplateNotFound) as error:
        raise SkyvernConfigError(
            f"output_schema: cannot read {path}: {error}. It is read beside the DAG file and in the DAG's "
            "template_searchpath."
        ) from None
    return text


def whole_run(
    run: Run, parameters: Mapping[str, Any] | None, output: Any, files: Sequence[Any], cost: Cost, *, mask: bool
) -> dict[str, Any]:
    """
    Return a run as plain JSON, with its input and its output: one value that holds it all, to map over.

    :param parameters: The parameters that it was started with, as JSON.
    :param output: The value that the task would otherwise have returned.
    :param files: The files that the task has stored.
    :param cost: The steps and credits that it has used.
    :param mask: Whether to mask parameters whose names denote secrets.
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
        "steps": cost.steps,
        "credits": cost.credits,
    }


def json_copy(value: Any) -> Any:
    """Copy a JSON value: masking changes values in place, and the parameters belong to the operator."""
    if isinstance(value, Mapping):
        return {name: json_copy(item) for name, item in value.items()}
    return [json_copy(item) for item in value] if isinstance(value, list) else value
