"""
Finds the Skyvern workflow that belongs to a file, by a tag on the workflow.

So the same file has its own workflow in each organization, such as staging and production. A file without a workflow
gets one with a key of its name, so that any number of tasks, and of Airflows, create the same one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow_skyvern.client import api, workflow_api
from airflow_skyvern.client.versions import WORKFLOW_FILES
from airflow_skyvern.exceptions import SkyvernAPIError, SkyvernConfigError, SkyvernNotFoundError
from airflow_skyvern.runs.key import tag_value
from airflow_skyvern.runs.lookup import has_no_tags
from airflow_skyvern.workflow_files.form import are_equal, form_of, to_send

if TYPE_CHECKING:
    from airflow_skyvern.client.session import Send
    from airflow_skyvern.models import Workflow
    from airflow_skyvern.workflow_files.text import WorkflowFile

FILE_TAG = "airflow_file"
VERSION_TAG = "airflow_file_version"
"""The version that file and workflow had in common last: number, how, digest of its content."""

ALL_STATUSES = ("published", "draft", "auto_generated")
MOST_DELETED = 50
"""How many workflows of a file may have been deleted."""

RECORD = re.compile(r"(\d+) (pulled|pushed) ([0-9a-f]{16})")


@dataclass(frozen=True)
class Record:
    """
    The record on a workflow.

    :param how: ``pushed`` if the file created this version, ``pulled`` if the file was created from it.
    """

    version: int
    how: str
    digest: str

    @classmethod
    def of(cls, tags: Mapping[str, str]) -> Record | None:
        """Read the tag."""
        found = RECORD.fullmatch(tags.get(VERSION_TAG, ""))
        return cls(int(found[1]), found[2], found[3]) if found else None

    def __str__(self) -> str:
        return f"{self.version} {self.how} {self.digest}"


@dataclass(frozen=True)
class Owned:
    """A workflow that belongs to a file: its newest version, and the record on it."""

    workflow: Workflow
    record: Record | None = None

    @property
    def workflow_id(self) -> str:
        """Its permanent id."""
        return self.workflow.workflow_permanent_id

    @property
    def version(self) -> int:
        """The number of its newest version."""
        return self.workflow.version or 1

    @property
    def form(self) -> dict[str, Any]:
        """Its newest version, in the form of files."""
        return form_of(self.workflow.model_dump(mode="json"))

    def holds(self, file: WorkflowFile) -> bool:
        """Return whether its newest version has the content of a file, by comparison or by its record."""
        if are_equal(self.form, file.form):
            return True
        record = self.record
        return record is not None and record == Record(self.version, "pushed", file.digest)


def find(send: Send, name: str) -> Owned | None:
    """
    Return the workflow of a file, or None if it has none yet.

    :param name: The file's name.
    :raises SkyvernConfigError: several have its tag.
    """
    try:
        listed = send(api.list_workflows(tags={FILE_TAG: tag_value(name)}, status=ALL_STATUSES).as_answered())
        tags = tags_of(send, [row.workflow_permanent_id for row in listed])  # an old Skyvern ignores the filter
    except SkyvernAPIError as error:
        if not has_no_tags(error):
            raise
        return None  # then the key of the name has to do
    owned = [row for row in listed if tags.get(row.workflow_permanent_id, {}).get(FILE_TAG) == tag_value(name)]
    if len(owned) > 1:
        ids = ", ".join(sorted(row.workflow_permanent_id for row in owned))
        raise SkyvernConfigError(
            f"{name}: several workflows of this organization have the tag {FILE_TAG}: {ids}. Remove it in Skyvern "
            "from all but one, or rename the file."
        )
    return newest(send, owned[0].workflow_permanent_id, tags[owned[0].workflow_permanent_id]) if owned else None


def newest(send: Send, workflow_id: str, tags: Mapping[str, str]) -> Owned | None:
    """Return the current state of a workflow; None if it was deleted a moment ago."""
    try:
        return Owned(send(api.get_workflow(workflow_id)), Record.of(tags))
    except SkyvernNotFoundError:
        return None


def tags_of(send: Send, workflow_ids: list[str]) -> dict[str, dict[str, str]]:
    """Return the tags of workflows, by their ids."""
    if not workflow_ids:
        return {}
    found = send(workflow_api.get_tags_of_workflows(workflow_ids)).workflow_tags
    return {one: {tag.key: tag.value or "" for tag in rows if tag.key} for one, rows in found.items()}


def create(send: Send, file: WorkflowFile) -> Owned:
    """
    Return the workflow created with the file's key; it may exist already, with other content.

    A workflow that somebody has deleted stays deleted, and another one replaces it.

    :raises SkyvernConfigError: too many were deleted.
    """
    name, folder = hashlib.sha256(file.name.encode()).hexdigest(), file.raw.get("folder_id")
    for deleted in range(MOST_DELETED):
        key = f"airflow-file-{name}-{deleted}"
        call = workflow_api.create_workflow(to_send(file.raw), folder, idempotency_key=key)
        made: Workflow = send(replace(call, needs=(WORKFLOW_FILES,)))
        if (there := newest(send, made.workflow_permanent_id, {})) is not None:
            note(send, there.workflow_id, file.name)
            return there
    raise SkyvernConfigError(f"{file.name}: {MOST_DELETED} workflows of it were deleted in Skyvern. Rename the file.")


def note(send: Send, workflow_id: str, name: str, record: Record | None = None) -> None:
    """Record on a workflow which file it belongs to, and which version they have in common."""
    tags = {FILE_TAG: tag_value(name)} | ({VERSION_TAG: str(record)} if record else {})
    try:
        send(workflow_api.apply_workflow_tags(workflow_id, tags))
    except SkyvernAPIError as error:
        if not has_no_tags(error):
            raise
