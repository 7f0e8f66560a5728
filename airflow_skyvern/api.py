"""
The endpoints of the Skyvern API as values.

``get_run("wr_1")`` does nothing but say what to send and what will come back: a frozen :class:`Call`. The two
senders in :mod:`airflow_skyvern.client` are the only ones who talk to a server. A new endpoint is a model (if
what it answers is new), a function here, and a line in :mod:`airflow_skyvern.hooks`.

API reference: https://www.skyvern.com/docs/api-reference
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote

from pydantic import TypeAdapter

from airflow_skyvern.models import (
    ACTIVE_STATUSES,
    Artifact,
    BulkCancel,
    ListedRun,
    Run,
    RunGlance,
    RunSummary,
    RunTags,
    ServerVersion,
    TimelineItem,
    UploadedFile,
    WebhookReplay,
    Workflow,
)

if TYPE_CHECKING:
    from airflow_skyvern.run_request import RunRequest

T = TypeVar("T")

PAGE_SIZE = 100
"""Rows per page of a list; the most that ``/v1/runs`` allows."""

LAST_RUNS_PAGE = 100
"""``/v1/runs`` refuses pages beyond this one."""


@dataclass(frozen=True)
class Call(Generic[T]):
    """
    One request to Skyvern, as a value.

    :param what: The request in words that fit behind "Could not": ``"get run wr_1"``.
    :param parse: Makes the result from the bytes of the answer.
    :param repeatable: Whether sending it twice does no more than sending it once. When False, it is sent
        again only after a failure that provably did nothing.
    :param last_page: For paged lists, the last page that may be asked for; ``None`` for all else.
    """

    method: str
    path: str
    what: str
    parse: Callable[[bytes], T]
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Mapping[str, Any] | None = None
    files: Mapping[str, tuple[str, bytes]] | None = None
    form: Mapping[str, str] | None = None
    repeatable: bool = True
    last_page: int | None = None

    def next_page(self, rows: Any) -> Call[T] | None:
        """Return the call for the rows after these, or None when these were the last."""
        page = self.query.get("page", 1)
        if self.last_page is None or len(rows) < PAGE_SIZE or page >= self.last_page:
            return None
        return replace(self, query={**self.query, "page": page + 1})


def run_workflow(request: RunRequest) -> Call[Run]:
    """
    Start a run of a workflow.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/run-workflow
    """
    what = f"start workflow {request.workflow_id}"
    return _post("/v1/run/workflows", what, Run, body=request.body(), repeatable=False)


def get_run(run_id: str) -> Call[Run]:
    """
    Get a run with its output. The answer grows with the output: lists are lighter.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/get-run
    """
    return _get(f"/v1/runs/{_id(run_id)}", f"get run {run_id}", Run)


def get_orphaned_run(run_id: str) -> Call[Run]:
    """Get a run whose workflow was deleted meanwhile: :func:`get_run` answers 404 for it."""
    return _get(f"/v1/workflows/runs/{_id(run_id)}", f"get run {run_id} of a deleted workflow", Run)


def glance_at_run(run_id: str, *, orphaned: bool = False) -> Call[RunGlance]:
    """
    Get a run without keeping its output: what waits ask with.

    :param orphaned: Whether its workflow was deleted meanwhile, see :func:`get_orphaned_run`.
    """
    call = get_orphaned_run(run_id) if orphaned else get_run(run_id)
    return _get(call.path, call.what, RunGlance)


def list_active_runs(page: int) -> Call[list[ListedRun]]:
    """List one page of the organization's runs that are not over, newest first, for waits."""
    query = {"status": sorted(ACTIVE_STATUSES), "page": page, "page_size": PAGE_SIZE}
    return _get("/v1/runs", "list active runs", list[ListedRun], query)


def cancel_run(run_id: str) -> Call[None]:
    """
    Cancel a run. For a run that is over this changes nothing, but its webhook is sent again.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/cancel-run
    """
    return _post(f"/v1/runs/{_id(run_id)}/cancel", f"cancel run {run_id}", Any)


def cancel_runs(run_ids: Iterable[str]) -> Call[BulkCancel]:
    """
    Cancel up to 100 runs at once.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/bulk-cancel-runs
    """
    ids = list(run_ids)
    return _post("/v1/runs/cancel", f"cancel {len(ids)} runs", BulkCancel, body={"run_ids": ids})


def retry_run(run_id: str) -> Call[Run]:
    """
    Start a run that is over once more, with the same parameters, as a new run.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/retry-run
    """
    path = f"/v1/workflows/runs/{_id(run_id)}/retry"
    return _post(path, f"retry run {run_id}", Run, repeatable=False)


def continue_run(run_id: str) -> Call[None]:
    """Let a paused run go on: it waits for a person in a human interaction block."""
    path = f"/v1/workflows/runs/{_id(run_id)}/continue"
    return _post(path, f"continue run {run_id}", Any, repeatable=False)


def list_runs(
    status: Iterable[str] = (),
    workflow_id: str | None = None,
    search_key: str | None = None,
    tags: Mapping[str, str] | None = None,
) -> Call[list[RunSummary]]:
    """
    List the organization's runs, newest first, at most 10,000.

    :param status: Only runs in these statuses.
    :param search_key: At least three characters of a parameter's value, a title or an id.
    :param tags: Only runs whose ``run_metadata`` holds all of these.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/get-runs
    """
    query = {
        "status": sorted(status),
        "workflow_permanent_id": workflow_id,
        "search_key": search_key,
        "tags": _tags(tags),
    }
    return _list("/v1/runs", "list runs", RunSummary, query, last_page=LAST_RUNS_PAGE)


def find_runs(tags: Mapping[str, str]) -> Call[list[RunSummary]]:
    """
    Find the newest runs, at most 100, whose ``run_metadata`` holds all of these.

    A server that does not know tags ignores the filter: check the result with :func:`get_run_tags`.
    """
    return _get("/v1/runs", "find runs by tag", list[RunSummary], {"tags": _tags(tags), "page_size": PAGE_SIZE})


def get_run_tags(run_ids: Iterable[str]) -> Call[RunTags]:
    """Get the tags of up to 100 runs: their ``run_metadata``."""
    query = {"workflow_run_ids": ",".join(run_ids)}
    return _get("/v1/run-tags", "get the tags of runs", RunTags, query)


def list_workflow_runs(
    workflow_id: str,
    status: Iterable[str] = (),
    tags: Mapping[str, str] | None = None,
    created_at_start: datetime | None = None,
) -> Call[list[RunSummary]]:
    """
    List the runs of one workflow, newest first. For an unknown workflow the list is empty.

    :param status: Only runs in these statuses.
    :param tags: Only runs whose ``run_metadata`` holds all of these.
    :param created_at_start: Only runs created then or later.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/get-workflow-runs
    """
    start = created_at_start.astimezone(timezone.utc).isoformat() if created_at_start else None
    query = {"status": sorted(status), "tags": _tags(tags), "created_at_start": start}
    path = f"/v1/workflows/{_id(workflow_id)}/runs"
    return _list(path, f"list the runs of workflow {workflow_id}", RunSummary, query)


def get_run_timeline(run_id: str) -> Call[list[TimelineItem]]:
    """
    Get what the run did, block by block.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/get-run-timeline
    """
    path = f"/v1/runs/{_id(run_id)}/timeline"
    return _get(path, f"get the timeline of run {run_id}", list[TimelineItem])


def list_run_artifacts(run_id: str) -> Call[list[Artifact]]:
    """
    List what the run left behind. For an unknown run the list is empty.

    https://www.skyvern.com/docs/api-reference/api-reference/artifacts/get-run-artifacts
    """
    path = f"/v1/runs/{_id(run_id)}/artifacts"
    return _get(path, f"list the artifacts of run {run_id}", list[Artifact])


def get_artifact_content(artifact_id: str) -> Call[bytes]:
    """
    Download an artifact.

    https://www.skyvern.com/docs/api-reference/api-reference/artifacts/get-artifact-content
    """
    path = f"/v1/artifacts/{_id(artifact_id)}/content"
    return Call("GET", path, f"download artifact {artifact_id}", bytes)


def list_workflows(search_key: str | None = None) -> Call[list[Workflow]]:
    """
    List the organization's workflows, all pages.

    :param search_key: A part of the title or of a parameter.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/get-workflows
    """
    return _list("/v1/workflows", "list workflows", Workflow, {"search_key": search_key})


def probe() -> Call[list[Workflow]]:
    """Ask for one workflow: the cheapest question that needs a valid API key."""
    return _get("/v1/workflows", "list workflows", list[Workflow], {"page_size": 1})


def get_workflow(workflow_id: str) -> Call[Workflow]:
    """
    Get the newest version of a workflow.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/get-workflow
    """
    return _get(f"/v1/workflows/{_id(workflow_id)}", f"get workflow {workflow_id}", Workflow)


def upload_file(
    file: str | Path | bytes, filename: str | None = None, retention_days: int | None = None
) -> Call[UploadedFile]:
    """
    Upload a file for runs to use: pass its ``file_id`` in ``file_ids`` or its address as a parameter.

    :param file: The path of the file, or its content.
    :param filename: The name to give it; needed with content, else the path's name.
    :param retention_days: Days after which Skyvern deletes it; by the organization's policy if not given.

    https://www.skyvern.com/docs/api-reference/api-reference/files/upload-file
    """
    content = file if isinstance(file, bytes) else Path(file).read_bytes()
    name = filename or ("file" if isinstance(file, bytes) else Path(file).name)
    form = None if retention_days is None else {"retention_days": str(retention_days)}
    return Call(
        "POST",
        "/v1/upload_file",
        f"upload {name}",
        _parser(UploadedFile),
        files={"file": (name, content)},
        form=form,
        repeatable=False,
    )


def retry_webhook(run_id: str, webhook_url: str | None = None) -> Call[WebhookReplay]:
    """
    Send the webhook of a run again, to the run's own address or another.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/retry-run-webhook
    """
    return _post(
        f"/v1/runs/{_id(run_id)}/retry_webhook",
        f"retry the webhook of run {run_id}",
        WebhookReplay,
        body={"webhook_url": webhook_url} if webhook_url else None,
        repeatable=False,
    )


def get_version() -> Call[ServerVersion]:
    """Get the server's version. Needs no valid key, so it proves only that a server is there."""
    return _get("/v1/version", "get the server's version", ServerVersion)


def _get(path: str, what: str, result: Any, query: Mapping[str, Any] | None = None) -> Call[Any]:
    return Call("GET", path, what, _parser(result), query=query or {})


def _post(
    path: str, what: str, result: Any, *, body: Mapping[str, Any] | None = None, repeatable: bool = True
) -> Call[Any]:
    return Call("POST", path, what, _parser(result), body=body, repeatable=repeatable)


def _list(path: str, what: str, row: Any, query: Mapping[str, Any], *, last_page: int = 1_000_000) -> Call[Any]:
    given = {key: value for key, value in query.items() if value}
    return Call(
        "GET",
        path,
        what,
        _parser(list[row]),
        query={**given, "page": 1, "page_size": PAGE_SIZE},
        last_page=last_page,
    )


@cache
def _parser(result: Any) -> Callable[[bytes], Any]:
    return TypeAdapter(result).validate_json


def _id(part: str) -> str:
    return quote(part, safe="")


def _tags(tags: Mapping[str, str] | None) -> list[str]:
    return [f"{key}:{value}" for key, value in (tags or {}).items()]
