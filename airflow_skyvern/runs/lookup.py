"""Finds runs by tag, and the run that replaces a failed one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import tenacity

from airflow_skyvern.client import api
from airflow_skyvern.client.answers import NO_TAGS
from airflow_skyvern.client.retry import poll_until
from airflow_skyvern.client.session import fetch_run
from airflow_skyvern.client.versions import BEFORE_VERSIONS, GET_VERSION, RUN_TAGS, TAGS_PROBE, is_missing_route
from airflow_skyvern.exceptions import (
    SkyvernAPIError,
    SkyvernRequestError,
    SkyvernResponseError,
)

if TYPE_CHECKING:
    from airflow_skyvern.client.session import Send
    from airflow_skyvern.models import Run

REPLACED_STATUSES = frozenset({"failed", "terminated", "timed_out"})
"""The statuses after which Skyvern may start another run with a fallback credential."""

REPLACEMENT_DELAY = 10
"""Seconds within which the replacement of a failed run exists: Skyvern starts it while it cleans up."""


BY_PERSONS = frozenset({"manual", "mcp"})
"""Skyvern's types of runs started from its UI or by an assistant; with an API key, as ours are, it is ``api``."""


class TagsRefused(Exception):
    """
    This organization has no run tags, or the server does not know the filter; the message says which.

    :param reason: Which of the two, in words that fit after "as".
    """

    def __init__(self, message: str, reason: str = "this Skyvern organization has no run tags") -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class TaggedRun:
    """
    A run that was found by a tag, and all its tags.

    :param by_person: Whether a person has started it, in Skyvern or through an assistant: it has the tags of the run
        that it repeats. Runs that Skyvern itself starts to replace a failed one do not count.
    """

    run_id: str
    is_final: bool
    succeeded: bool
    tags: Mapping[str, str]
    by_person: bool = False


def tagged_runs(send: Send, tag: str, value: str) -> list[TaggedRun]:
    """
    Return the server's runs for a tag, newest first, with all tags.

    A server that does not know the filter ignores it and returns unrelated runs, which the tags show.
    """
    rows = send(api.find_runs({tag: value}).as_answered())
    if not rows:
        return []
    tags = send(api.get_run_tags(row.run_id for row in rows))
    return [
        TaggedRun(row.run_id, row.is_final, row.succeeded, tags.of(row.run_id), row.trigger_type in BY_PERSONS)
        for row in rows
    ]


def find_tagged(send: Send, tag: str, value: str) -> list[TaggedRun]:
    """
    Find the runs with this tag, newest first, without those that a person has repeated.

    Only Skyvern's own words prove that runs cannot be found by tags: a proxy's 403, or another list, proves nothing.

    :raises TagsRefused: runs cannot be found by tags here.
    """
    try:
        found = tagged_runs(send, tag, value)
    except SkyvernAPIError as error:
        if has_no_tags(error):
            raise TagsRefused(str(error)) from error
        if not is_missing_route(error):
            raise
        _check_filter(send, error)
        raise
    if any(run.tags.get(tag) != value for run in found):
        foreign = SkyvernResponseError("Could not find runs by tag: the answer holds other runs.")
        _check_filter(send, foreign)
        raise foreign
    return [run for run in found if not run.by_person]


def has_no_tags(error: SkyvernAPIError) -> bool:
    """Return whether Skyvern itself says that the organization has no run tags, and does not refuse the key."""
    return error.detail == NO_TAGS and not error.transient


def _check_filter(send: Send, error: SkyvernAPIError) -> None:
    """
    Find out whether this server lacks tags, as Skyvern before 1.0.48 does, or a proxy has answered.

    :raises TagsRefused: it ignores a filter that newer servers refuse, as a tag without a name.
    """
    try:
        rows = send(TAGS_PROBE)
    except SkyvernRequestError:
        return
    if rows:
        raise TagsRefused(f"The server ignores the filter. {error}", _reason(send)) from error


def _reason(send: Send) -> str:
    """Name the version of a server without run tags."""
    try:
        version = f" {send(GET_VERSION).version}"
    except SkyvernAPIError as error:
        version = f" {BEFORE_VERSIONS}" if is_missing_route(error) else ""
    return f"this Skyvern{version} has no run tags, which came with {RUN_TAGS.since}"


def resumable(runs: list[TaggedRun]) -> list[TaggedRun]:
    """Return the runs that a retry may resume, best first: active ones, then completed ones for their result."""
    active = [run for run in runs if not run.is_final]
    return active + [run for run in runs if run.succeeded]


def find_replacement(
    send: Send, run: Run, workflow_id: str, sleep: Callable[[float], None] = time.sleep
) -> Run | None:
    """
    Return the run that Skyvern itself has started in place of a failed one, if there is one.

    Skyvern Cloud runs a workflow with fallback credentials again, under another login, when a run of it fails. Unlike
    an attempt of a retry policy, that is a run of its own, with the tags of the failed one.

    :param workflow_id: The workflow of the run.
    """
    if run.status not in REPLACED_STATUSES or not send(api.get_workflow(workflow_id)).has_fallback_credentials:
        return None
    replacement: str | None = poll_until(
        lambda: send(api.get_run_of_deleted_workflow(run.run_id)).retried_by,
        lambda found: found is not None,
        stop=tenacity.stop_after_attempt(1 + REPLACEMENT_DELAY),
        sleep=sleep,
    )
    return None if replacement is None else fetch_run(send, replacement)


def replaces_another(send: Send, run_id: str) -> bool:
    """Return whether Skyvern itself has started this run in place of a failed one."""
    run: Run = send(api.get_run_of_deleted_workflow(run_id))
    return run.retried_from is not None
