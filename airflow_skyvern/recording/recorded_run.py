"""The parts of a run that a test repeats, without its secrets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow_skyvern.client.file_kinds import MARKS
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.models import FINAL_STATUSES
from airflow_skyvern.runs.blocks import HUMAN_INTERACTION, blocks_of
from airflow_skyvern.runs.prompt_workflow import LABEL, PROMPT, SCHEMA, VALUES
from airflow_skyvern.runs.wait import PAUSED
from airflow_skyvern.secret_values import MASK, looks_secret, masked_text, names_secret

if TYPE_CHECKING:
    from airflow_skyvern.models import Run, TimelineItem

SHORTEST_SECRET = 4
"""A shorter value of a secret name is not looked for elsewhere: it would be found everywhere."""

KNOWN_STARTS = (b"%PDF-1.7", *MARKS)
"""How files of known kinds begin; a placeholder begins so, too."""


@dataclass(frozen=True)
class RecordedRun:
    """
    A run as a test scripts it.

    :param parameters: What it was started with; for a prompt, Skyvern's parameters of it.
    :param files: The contents of what it has downloaded, by name.
    :param placeholders: Those of these names that have another content than the run's.
    :param errors: The codes of its errors, with the reasons.
    :param asked_person: Whether a person has answered it.
    :param first_reason: Why its first attempt failed, where Skyvern itself tried again.
    """

    run_id: str
    workflow_id: str
    status: str
    parameters: Mapping[str, Any]
    output: Any = None
    files: Mapping[str, bytes] = field(default_factory=dict)
    placeholders: Sequence[str] = ()
    reason: str | None = None
    errors: Sequence[Mapping[str, Any]] = ()
    asked_person: bool = False
    first_reason: str | None = None

    @property
    def is_prompt(self) -> bool:
        """Whether it is a run of a prompt, whose workflow the provider itself makes."""
        return {PROMPT, SCHEMA, VALUES} <= self.parameters.keys()

    @property
    def data(self) -> Any:
        """What a prompt has extracted, which is its whole output in a test."""
        block = self.output.get(f"{LABEL}_output") if isinstance(self.output, dict) else None
        return block.get("extracted_information") if isinstance(block, dict) else None


@dataclass(frozen=True)
class FileContent:
    """
    A file that a run has downloaded.

    :param content: All of it, or its beginning.
    :param whole: Whether that is all.
    """

    name: str
    content: bytes
    whole: bool


def workflow_of(run: Run) -> str:
    """
    Return the id of the workflow of a run.

    :raises SkyvernConfigError: it is not over, or not a run of a workflow.
    """
    if run.status != PAUSED and not (run.status in FINAL_STATUSES and run.is_final):
        raise SkyvernConfigError(f"Skyvern run {run.run_id} is {run.status}: record it when it is over.")
    found = (run.run_request or {}).get("workflow_id") or (run.model_extra or {}).get("workflow_id")
    if not found:
        raise SkyvernConfigError(
            f"Skyvern run {run.run_id} is of type {run.run_type}: only runs of workflows, and prompts of this "
            "provider, can be recorded."
        )
    return str(found)


def recorded(
    run: Run, timeline: Sequence[TimelineItem], files: Sequence[FileContent], mask_output: Callable[[Any], Any]
) -> RecordedRun:
    """
    Make of a run what a test repeats.

    :param mask_output: Masks what certainly is a secret in an output, in place.
    """
    workflow_id, sent = workflow_of(run), (run.run_request or {}).get("parameters")
    given = sent if isinstance(sent, dict) else {}
    secrets = sorted({*secret_values(given)}, key=len, reverse=True)

    def hide(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, MASK)
        return masked_text(text)

    return RecordedRun(
        run_id=run.run_id,
        workflow_id=workflow_id,
        status=run.status,
        parameters={hide(name): _hidden(name, value, hide) for name, value in given.items()},
        output=_everywhere(mask_output(deepcopy(run.output)), hide),
        files={file.name: _content(file, hide) for file in files},
        placeholders=[file.name for file in files if not file.whole],
        reason=hide(run.failure_reason) if run.failure_reason else None,
        errors=[_error(error, hide) for error in run.errors if error.get("error_code")],
        asked_person=any(
            block.block_type == HUMAN_INTERACTION and block.status not in ("running", "skipped")
            for block in blocks_of(timeline)
        ),
        first_reason=_first_reason(run, hide),
    )


def secret_values(parameters: Mapping[str, Any]) -> Iterator[str]:
    """Yield the values of parameters that are kept out of a file, and so wherever a run repeats them."""
    for name, value in parameters.items():
        yield from (text for text in _secrets(name, value) if len(text) >= SHORTEST_SECRET)


def _secrets(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _secrets(name if names_secret(name) else str(key), item)
    elif isinstance(value, list):
        for item in value:
            yield from _secrets(name, item)
    elif looks_secret(name, value):
        yield str(value)


def _hidden(name: str, value: Any, hide: Callable[[str], str]) -> Any:
    """Mask a parameter whose name or value shows a secret, and what it repeats of others."""
    if isinstance(value, dict):
        return {
            hide(str(key)): _hidden(name if names_secret(name) else str(key), item, hide)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_hidden(name, item, hide) for item in value]
    if looks_secret(name, value):
        return MASK
    return hide(value) if isinstance(value, str) else value


def _everywhere(value: Any, hide: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return hide(value)
    if isinstance(value, dict):
        return {hide(str(key)): _everywhere(item, hide) for key, item in value.items()}
    return [_everywhere(item, hide) for item in value] if isinstance(value, list) else value


def _content(file: FileContent, hide: Callable[[str], str]) -> bytes:
    """Return a file as a test keeps it: all of it without its secrets, or a placeholder of its kind."""
    if not file.whole:
        start = next((mark for mark in KNOWN_STARTS if file.content.startswith(mark[:5])), b"")
        return start + b"placeholder"
    try:
        return hide(file.content.decode()).encode()
    except UnicodeDecodeError:
        return file.content


def _error(error: Mapping[str, Any], hide: Callable[[str], str]) -> dict[str, Any]:
    return {"error_code": str(error["error_code"]), "reasoning": hide(str(error.get("reasoning") or ""))}


def _first_reason(run: Run, hide: Callable[[str], str]) -> str | None:
    """Return why the first of several attempts failed."""
    if len(run.attempts) < 2 and (run.attempt or 1) < 2:  # noqa: PLR2004  the second attempt is a retry
        return None
    first = min(run.attempts, key=lambda attempt: attempt.attempt_number, default=None)
    return hide((first and first.failure_reason) or "the first attempt failed")
