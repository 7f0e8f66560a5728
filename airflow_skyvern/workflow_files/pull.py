"""Writes Skyvern's workflows into files."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_skyvern.client import api
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.workflow_files.checks import ADVICE
from airflow_skyvern.workflow_files.differences import differences
from airflow_skyvern.workflow_files.form import are_equal
from airflow_skyvern.workflow_files.outcome import Outcome
from airflow_skyvern.workflow_files.ownership import FILE_TAG, Owned, Record, find, note, tags_of
from airflow_skyvern.workflow_files.publish import version_of
from airflow_skyvern.workflow_files.secret_fields import secrets_of
from airflow_skyvern.workflow_files.text import SUFFIXES, parsed, read, store, written

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_skyvern.client.session import Send

LONGEST_NAME = 80


@dataclass(frozen=True)
class Pull:
    """
    How workflows are pulled.

    :param folder: Where the files are.
    :param suffix: The extension of new files.
    :param force: Whether to replace files with changes that were not pushed.
    :param dry_run: Whether only to report what would be done.
    """

    send: Send
    folder: Path
    suffix: str = ".yaml"
    force: bool = False
    dry_run: bool = False

    def pull(self, workflow_id: str) -> Outcome:
        """
        Write the newest version of a workflow into its file, unless the file says the same already.

        :raises SkyvernConfigError: the file has unpushed changes, or the workflow holds a secret.
        :raises SkyvernNotFoundError: there is no such workflow.
        """
        workflow = self.send(api.get_workflow(workflow_id))
        tags = tags_of(self.send, [workflow_id]).get(workflow_id, {})
        owned = Owned(workflow, Record.of(tags))
        name = _own_name(tags) or self._free_name(owned)
        return self._write(owned, name, is_noted=tags.get(FILE_TAG) == name)

    def _free_name(self, owned: Owned) -> str:
        """Return a name that belongs to no other workflow."""
        stem, number = slug(owned.workflow.title), 1
        while True:
            name = f"{stem}{'' if number == 1 else f'-{number}'}{self.suffix}"
            owner = find(self.send, name)
            if owner is None or owner.workflow_id == owned.workflow_id:
                return name
            number += 1

    def _write(self, owned: Owned, name: str, *, is_noted: bool) -> Outcome:
        path, form = self.folder / name, owned.form
        if secrets := list(secrets_of(form)):
            raise SkyvernConfigError(
                f"{owned.workflow_id}: not pulled, as it holds a secret: {', '.join(secrets)}. {ADVICE}"
            )
        text = written(name, form)
        changes, action = [], "created"
        if path.exists():
            old = read(path)
            changes = differences(old.form, form)
            action = "unchanged" if are_equal(old.form, form) else "updated"
            if action == "updated" and not (self.force or self._may_replace(owned, path)):
                raise SkyvernConfigError(
                    f"{path}: has changes that are not in Skyvern: push them, or pull with --force, which drops them."
                )
        if not self.dry_run:
            if action != "unchanged":
                store(path, text)
            self._note(owned, name, parsed(name, text).digest, is_noted=is_noted)
        return Outcome(str(path), owned.workflow_id, owned.version, action, tuple(changes))

    def _may_replace(self, owned: Owned, path: Path) -> bool:
        """Return whether a file's content is in Skyvern's history."""
        file = read(path)
        return file.digest == file.base or version_of(self.send, owned, file) is not None

    def _note(self, owned: Owned, name: str, digest: str, *, is_noted: bool) -> None:
        record = owned.record
        if is_noted and record is not None and (record.version, record.digest) == (owned.version, digest):
            return
        note(self.send, owned.workflow_id, name, Record(owned.version, "pulled", digest))


def slug(title: str) -> str:
    """Return a title as the name of a file."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "_", plain).strip("_")[:LONGEST_NAME] or "workflow"


def _own_name(tags: dict[str, Any]) -> str | None:
    """Return the name of the file that a workflow belongs to; a tag that is not a plain name leads nowhere."""
    name = tags.get(FILE_TAG, "")
    is_plain = name.lower().endswith(SUFFIXES) and not re.search(r"[/\\\0]", name) and not name.startswith(".")
    return name if is_plain else None
