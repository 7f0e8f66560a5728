"""Finding runs: one by its id, also when its workflow was deleted, and all that carry a tag."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_skyvern.client import api
from airflow_skyvern.exceptions import SkyvernAuthError, SkyvernNotFoundError

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call
    from airflow_skyvern.models import Run

Send = Callable[["Call[Any]"], Any]


class TagsRefused(Exception):
    """This organization has no run tags, or the server does not know the filter; the message says which."""


@dataclass(frozen=True)
class TaggedRun:
    """A run that was found by a tag, and all its tags."""

    run_id: str
    is_final: bool
    succeeded: bool
    tags: Mapping[str, str]


def fetch_run(send: Send, run_id: str) -> Run:
    """Fetch a run with its output, also when its workflow was deleted while it runs."""
    try:
        run: Run = send(api.get_run(run_id))
    except SkyvernNotFoundError as error:
        run = send(api.get_run_despite(error, run_id))
    return run


def tagged_runs(send: Send, tag: str, value: str) -> list[TaggedRun]:
    """
    Return what the server gives for a tag, newest first, with all tags.

    A server that does not know the filter ignores it and returns foreign runs, which the tags show.
    """
    rows = send(api.find_runs({tag: value}))
    if not rows:
        return []
    tags = send(api.get_run_tags(row.run_id for row in rows))
    return [TaggedRun(row.run_id, row.is_final, row.succeeded, tags.of(row.run_id)) for row in rows]


def find_tagged(send: Send, tag: str, value: str) -> list[TaggedRun]:
    """
    Find the runs with this tag, newest first.

    :raises TagsRefused: runs cannot be found by tags here.
    """
    try:
        found = tagged_runs(send, tag, value)
    except SkyvernNotFoundError as error:
        raise TagsRefused(str(error)) from error
    except SkyvernAuthError as error:
        send(api.probe())  # raises when it is the key that is refused, not the tags
        raise TagsRefused(str(error)) from error
    if any(run.tags.get(tag) != value for run in found):
        raise TagsRefused("The server ignores the filter.")
    return found


def choose_resumable(runs: list[TaggedRun]) -> TaggedRun | None:
    """Choose the run that a retry resumes: an active one, else a completed one, whose result it takes."""
    active = next((run for run in runs if not run.is_final), None)
    return active or next((run for run in runs if run.succeeded), None)
