"""
Finds or creates a version in Skyvern with exactly the content of a file.

Versions of a workflow never change, and a run may use any of them. So the file's content is run, regardless of the
newest version, which somebody may have edited in Skyvern, or another Airflow may have created from a newer file. A
version is created only if no version has this content yet, and only if the newest is still the one that was compared:
Skyvern refuses it otherwise, and everything is compared again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_skyvern.client import workflow_api
from airflow_skyvern.client.retry import while_transient
from airflow_skyvern.client.versions import is_missing_route
from airflow_skyvern.exceptions import SkyvernAPIError, SkyvernError, SkyvernNotFoundError
from airflow_skyvern.workflow_files.form import are_equal, form_of, to_send
from airflow_skyvern.workflow_files.ownership import Owned, Record, create, find, note

if TYPE_CHECKING:
    from airflow_skyvern.client.session import Send
    from airflow_skyvern.models import Workflow
    from airflow_skyvern.runs.wait import Log
    from airflow_skyvern.workflow_files.text import WorkflowFile

PATIENCE = 120.0
"""Seconds for which it is retried while Skyvern is unreachable, or others update the same workflow."""


@dataclass(frozen=True)
class Published:
    """
    The version of a workflow that has the content of a file.

    :param made: Whether it was created now.
    """

    workflow_id: str
    version: int
    made: bool


def ensure_version(
    send: Send,
    file: WorkflowFile,
    log: Log,
    *,
    sleep: Callable[[float], Any] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Published:
    """
    Return the version with the content of a file, created now if none exists.

    :raises SkyvernRequestError: Skyvern does not accept the definition.
    :raises SkyvernConfigError: several workflows belong to the file.
    """
    retrying = while_transient(
        PATIENCE,
        sleep=sleep,
        clock=clock,
        refusals=lambda error: PATIENCE if _is_of_a_gateway(error) else 0.0,
        on_error=lambda error: log.info("%s: Skyvern is asked again for its workflow. %s", file.name, error),
    )
    published: Published = retrying(_ensure, send, file, log)
    return published


def _ensure(send: Send, file: WorkflowFile, log: Log) -> Published:
    owned = find(send, file.name)
    is_new = owned is None
    owned = owned or create(send, file)
    if (version := version_of(send, owned, file)) is not None:
        if version == owned.version and (owned.record is None or owned.record.version != version):
            _note(send, owned.workflow_id, file, version, log)
        return Published(owned.workflow_id, version, made=is_new)
    if owned.record is not None and owned.record.version != owned.version:
        log.warning(
            "%s: version %d of workflow %s was edited in Skyvern; it stays in the history there",
            file.name,
            owned.version,
            owned.workflow_id,
        )
    made = make_version(send, owned, file)
    _note(send, owned.workflow_id, file, made, log)
    return Published(owned.workflow_id, made, made=True)


def _is_of_a_gateway(error: SkyvernError) -> bool:
    """Return whether this may be a gateway that does not know its server: Skyvern has all these endpoints."""
    return isinstance(error, SkyvernAPIError) and is_missing_route(error)


def version_of(send: Send, owned: Owned, file: WorkflowFile) -> int | None:
    """Return the number of the newest version with the content of a file; None if no version has it."""
    if owned.holds(file):
        return owned.version
    if owned.version == 1:
        return None
    record = owned.record
    if record is not None and record.digest == file.digest and _is_there(send, owned.workflow_id, record.version):
        return record.version
    versions: list[Workflow] = send(workflow_api.list_workflow_versions(owned.workflow_id))
    forms = ((one.version, form_of(one.model_dump(mode="json"))) for one in versions)
    return next((number for number, form in forms if are_equal(form, file.form)), None)


def make_version(send: Send, owned: Owned, file: WorkflowFile) -> int:
    """
    Create a version from a file, if nothing has changed since the newest version was read.

    :raises SkyvernAPIError: another version was created meanwhile (409), or the workflow was deleted (404).
    """
    call = workflow_api.update_workflow(owned.workflow_id, to_send(file.raw), expected_version=owned.version)
    made: Workflow = send(call)
    return made.version or owned.version + 1


def _is_there(send: Send, workflow_id: str, version: int) -> bool:
    try:
        send(workflow_api.get_workflow_version(workflow_id, version))
    except SkyvernNotFoundError:
        return False
    return True


def _note(send: Send, workflow_id: str, file: WorkflowFile, version: int, log: Log) -> None:
    """Record it on the workflow; without the record, the version is found by its content."""
    try:
        note(send, workflow_id, file.name, Record(version, "pushed", file.digest))
    except SkyvernError as error:
        log.warning("%s: could not note its version at workflow %s. %s", file.name, workflow_id, error)
