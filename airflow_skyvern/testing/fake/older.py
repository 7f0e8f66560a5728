"""
What an older Skyvern does otherwise than the newest one: its missing endpoints, and what it drops or ignores.

The words are those of servers of these versions (1.0.30, 1.0.40, 1.0.45, 1.0.48, 1.0.55).
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx

from airflow_skyvern.client.versions import (
    CLEAN_REFUSALS,
    FILES_BY_ID,
    RUN_OPTIONS,
    RUN_TAGS,
    SCHEDULES,
    SINGLE_CREATION,
    feature_of,
    is_older,
)
from airflow_skyvern.testing.fake.checks import STATUSES, check_statuses, detail

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_skyvern.testing.fake.records import Run, Seen

WITHOUT_PAUSED = tuple(status for status in ("created", *STATUSES[1:]) if status != "paused")
NO_SCHEDULES = (
    "Workflow schedules are disabled in this Skyvern build. Use Skyvern Cloud or override AgentFunction with a "
    "scheduling backend."
)
SINCE_OF_FILTERS = {
    "tags": RUN_TAGS.since,
    "workflow_permanent_id": "1.0.48",
    "created_at_start": "1.0.45",
    "created_at_end": "1.0.45",
}
PAUSES_ARE_READ = "1.0.48"


def has_route(version: str, method: str, path: str) -> bool:
    """Return whether this version has this endpoint."""
    feature = feature_of(method, path)
    return feature is None or not is_older(version, feature.since)


def as_taken(version: str, seen: Seen) -> Seen:
    """
    Return a request without what this version ignores.

    :raises Refusal: it does not know a value.
    """
    if is_older(version, SCHEDULES.since) and "schedules" in seen.path:
        raise detail(501, NO_SCHEDULES)
    if seen.path == "/v1/runs" and is_older(version, PAUSES_ARE_READ):
        check_statuses(seen, WITHOUT_PAUSED)
    ignored = {name for name, since in SINCE_OF_FILTERS.items() if is_older(version, since)}
    query = {name: value for name, value in seen.query.items() if name not in ignored or "runs" not in seen.path}
    headers = dict(seen.headers)
    if is_older(version, SINGLE_CREATION.since):
        headers.pop("idempotency-key", None)
    return replace(seen, query=query, headers=headers, content=_content(version, seen))


def _content(version: str, seen: Seen) -> bytes:
    if seen.method == "POST" and seen.path == "/v1/run/workflows":
        return _without(seen.content, _dropped(version))
    if seen.method == "PUT" and "/schedules/" in seen.path and is_older(version, "1.0.48"):
        return json.dumps({"enabled": True, **json.loads(seen.content)}).encode()
    return seen.content


def _dropped(version: str) -> Iterable[str]:
    yield from (name for name, feature in RUN_OPTIONS.items() if is_older(version, feature.since))
    if is_older(version, RUN_TAGS.since):
        yield "run_metadata"


def _without(content: bytes, names: Iterable[str]) -> bytes:
    try:
        body = json.loads(content)
    except ValueError:
        return content
    dropped = set(names)
    return json.dumps({key: value for key, value in body.items() if key not in dropped}).encode()


def unreadable_pause(version: str, run: Run) -> httpx.Response | None:
    """Return how a version fails that cannot return a paused run."""
    if run.state["status"] != "paused" or not is_older(version, PAUSES_ARE_READ):
        return None
    old = is_older(version, "1.0.45")
    words = "<WorkflowRunStatus.paused: 'paused'> is not a valid RunStatus" if old else "ValueError"
    return httpx.Response(500, json={"error": f"Unexpected error: {words}"})


def with_files(version: str, view: dict[str, Any]) -> dict[str, Any]:
    """Return a run as this version lists its files: by address only."""
    if not is_older(version, FILES_BY_ID.since):
        return view
    return {**view, "downloaded_files": [{**file, "artifact_id": None} for file in view["downloaded_files"] or ()]}


def leaves_a_failed_run(version: str) -> bool:
    """Return whether a start whose parameters are refused leaves a run."""
    return is_older(version, CLEAN_REFUSALS.since)
