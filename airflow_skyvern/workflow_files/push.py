"""Pushes files into Skyvern's workflows: finds the differences, and creates a version if there are any."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_skyvern.client.retry import while_transient
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.workflow_files.checks import check
from airflow_skyvern.workflow_files.differences import Difference, differences
from airflow_skyvern.workflow_files.form import digest_of
from airflow_skyvern.workflow_files.outcome import Outcome
from airflow_skyvern.workflow_files.ownership import Owned, Record, create, find, note
from airflow_skyvern.workflow_files.publish import PATIENCE, make_version
from airflow_skyvern.workflow_files.text import SUFFIXES, WorkflowFile, read, store, with_base

if TYPE_CHECKING:
    from airflow_skyvern.client.session import Send


@dataclass(frozen=True)
class Plan:
    """
    What a push of a file would do.

    :param owned: The workflow of the file; None if it would be created.
    :param changes: The differences, from the workflow to the file.
    :param refusal: Why it must not be pushed; None if it may be.
    :param warnings: Problems that do not prevent the push.
    """

    path: Path
    file: WorkflowFile
    owned: Owned | None
    changes: tuple[Difference, ...] = ()
    refusal: str | None = None
    warnings: list[str] = field(default_factory=list)

    @property
    def action(self) -> str:
        """What would be done."""
        if self.owned is None and not self.refusal:
            return "created"
        return "refused" if self.refusal else "updated" if self.changes else "unchanged"

    @property
    def outcome(self) -> Outcome:
        """The outcome of a plan that is not carried out."""
        workflow_id = self.owned.workflow_id if self.owned else None
        version = self.owned.version if self.owned else None
        return Outcome(str(self.path), workflow_id, version, self.action, self.changes, self.refusal)


def plan(send: Send, path: Path, *, force: bool = False, unknown_keys: bool = False) -> Plan:
    """
    Compare a file with its workflow.

    :param force: Whether to push although the newest version is not the one that the file was pulled from.
    :param unknown_keys: Whether unknown keys only cause warnings.
    :raises SkyvernConfigError: the file cannot be read, or is not a definition that Skyvern accepts.
    """
    file = read(path)
    warnings = check(file, keys=not unknown_keys)
    owned = find(send, file.name)
    if owned is None:
        return Plan(path, file, None, warnings=warnings)
    if owned.holds(file):
        return Plan(path, file, owned, warnings=warnings)
    changes = tuple(differences(owned.form, file.form))
    refusal = None if force or is_based_on(file, owned) else _edited(path, owned)
    return Plan(path, file, owned, changes, refusal, warnings)


def is_based_on(file: WorkflowFile, owned: Owned) -> bool:
    """
    Return whether the newest version is one that the file may follow: nobody has edited it in Skyvern since.

    That is the version that the file was pulled from, or one created from an earlier state of the file: Git decides
    which state is the right one, also when it goes back.
    """
    if file.base == digest_of(owned.form):
        return True
    record = owned.record
    return record is not None and record.version == owned.version and (record.how == "pushed" or file.base is None)


def _edited(path: Path, owned: Owned) -> str:
    return (
        f"{path}: not pushed. Version {owned.version} of workflow {owned.workflow_id}, the newest, is not the one "
        f"that the file was pulled from: it was edited in Skyvern. `airflow-skyvern workflows diff {path}` shows "
        f"what differs. Pull it to have these edits, or push with --force: their version stays in the history."
    )


def carry_out(send: Send, plan: Plan, *, sleep: Callable[[float], Any] = time.sleep) -> Outcome:
    """
    Carry out a plan, if nothing has changed since; a simultaneous push of the same content is not a change.

    :raises SkyvernRequestError: Skyvern does not accept the definition.
    """
    if plan.action in ("refused", "unchanged"):
        return plan.outcome
    tries = count()
    retrying = while_transient(PATIENCE, sleep=sleep)
    outcome: Outcome = retrying(lambda: _attempt(send, plan if next(tries) == 0 else _seen_again(send, plan)))
    return outcome


def _attempt(send: Send, plan: Plan) -> Outcome:
    if plan.refusal:
        return plan.outcome
    file, owned = plan.file, plan.owned or create(send, plan.file)
    version = owned.version if owned.holds(file) else make_version(send, owned, file)
    note(send, owned.workflow_id, file.name, Record(version, "pushed", file.digest))
    if file.base is not None and file.base != file.digest:
        store(plan.path, with_base(file.text, file.digest))
    return Outcome(str(plan.path), owned.workflow_id, version, plan.action, plan.changes)


def _seen_again(send: Send, plan: Plan) -> Plan:
    """Return the plan with the workflow's current state; it is refused if the workflow has changed since the plan."""
    owned = find(send, plan.file.name)
    planned = plan.owned.version if plan.owned else 0
    if owned is None or owned.version == planned or owned.holds(plan.file):
        return replace(plan, owned=owned)
    refusal = f"{plan.path}: not pushed: somebody else has just changed workflow {owned.workflow_id}."
    return replace(plan, owned=owned, refusal=refusal)


def files_in(paths: Iterable[str]) -> list[Path]:
    """
    Return the named files, and the files in named folders.

    :raises SkyvernConfigError: a file does not exist, or two have the same name: a name has one workflow.
    """
    found = list(dict.fromkeys(file for path in paths for file in _files(Path(path))))
    names = [file.name for file in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        where = ", ".join(str(file) for file in found if file.name == twice)
        raise SkyvernConfigError(f"{twice}: {where}: files with the same name have the same workflow. Rename one.")
    return found


def _files(path: Path) -> Iterator[Path]:
    if not path.exists():
        raise SkyvernConfigError(f"{path}: there is no such file.")
    if not path.is_dir():
        yield path
        return
    for file in sorted(path.rglob("*")):
        is_ours = file.suffix.lower() in SUFFIXES and file.is_file() and not file.name.startswith(".")
        if is_ours and "workflow_definition" in file.read_text(errors="replace"):
            yield file
