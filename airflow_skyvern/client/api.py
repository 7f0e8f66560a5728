"""
The endpoints of the Skyvern API as values.

``get_run("wr_1")`` only describes the request and the expected response, as a frozen :class:`Call`. Only the two
senders in :mod:`airflow_skyvern.client.sender` talk to a server. A new endpoint is a model (if its response is new),
a function here, and a line in :mod:`airflow_skyvern.hooks`.

API reference: https://www.skyvern.com/docs/api-reference
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from airflow_skyvern.client import answers
from airflow_skyvern.client.answers import is_unreadable_pause, knows_no_pause
from airflow_skyvern.client.calls import (
    Call,
    Otherwise,
    check_at_most,
    delete,
    get,
    given,
    paged,
    parser_of,
    path_segment,
    post,
)
from airflow_skyvern.client.versions import GET_VERSION, RETENTION, RUN_OPTIONS, RUN_TAGS, WORKFLOW_TAGS
from airflow_skyvern.client.workflow_api import tags_body
from airflow_skyvern.limits import (
    LAST_RUNS_PAGE,
    LAST_SEARCH_PAGE,
    MOST_RUNS_OF_TAGS,
    MOST_TAGS,
    MOST_WORKFLOWS,
    PAGE_SIZE,
)
from airflow_skyvern.models import (
    ACTIVE_STATUSES,
    Artifact,
    BulkCancel,
    ListedRun,
    Run,
    RunCost,
    RunDefinition,
    RunSnapshot,
    RunSummary,
    RunTags,
    ServerVersion,
    StartedRun,
    TagHistory,
    Tags,
    TimelineItem,
    TimelineRow,
    UploadedFile,
    WebhookReplay,
    Workflow,
)

if TYPE_CHECKING:
    from airflow_skyvern.client.run_request import RunRequest
    from airflow_skyvern.exceptions import SkyvernNotFoundError


def run_workflow(
    workflow_id: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    title: str | None = None,
    max_steps: int | None = None,
    max_elapsed_time_minutes: int | None = None,
    proxy_location: str | Mapping[str, str] | None = None,
    webhook_url: str | None = None,
    browser_session_id: str | None = None,
    browser_profile_id: str | None = None,
    workflow_version: int | None = None,
    run_options: Mapping[str, Any] | None = None,
) -> Call[Run]:
    """
    Start a run of a workflow on every call, without waiting for the run to end.

    :param workflow_id: The workflow: wpid_…
    :param parameters: The workflow's parameters, by their names.
    :param title: A title for the run; runs can be searched by title.
    :param max_steps: Maximum number of steps for each block that uses the browser.
    :param max_elapsed_time_minutes: Minutes after which Skyvern ends the run.
    :param proxy_location: Where the browser's requests come from: the name of a location, or its country.
    :param webhook_url: The address that Skyvern calls when the run has ended.
    :param browser_session_id: The browser session that the run uses: pbs_…
    :param browser_profile_id: The browser profile that the run begins with: bp_…
    :param workflow_version: The version of the workflow. Default: the newest.
    :param run_options: The rarer options of a run, by Skyvern's names.
    :raises SkyvernConfigError: names every argument that is wrong and what would be right.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/run-workflow
    """
    from airflow_skyvern.client.run_request import RunRequest

    fields = given(
        workflow_id=workflow_id,
        parameters=parameters,
        title=title,
        max_steps=max_steps,
        max_elapsed_time_minutes=max_elapsed_time_minutes,
        proxy_location=proxy_location,
        webhook_url=webhook_url,
        browser_session_id=browser_session_id,
        browser_profile_id=browser_profile_id,
        workflow_version=workflow_version,
    )
    return start_run(RunRequest.of(fields, run_options))


def start_run(request: RunRequest) -> Call[Run]:
    """Start a run, as :func:`run_workflow`; of a request that was checked when the DAG was parsed."""
    what, body = f"start workflow {request.workflow_id}", request.body()
    about: Any = {"known": answers.START, "subject": request.workflow_id, "fits": Run.is_of}
    about["needs"] = tuple(feature for option, feature in RUN_OPTIONS.items() if option in body)
    headers = _limit_of_steps(request.max_steps)
    if request.workflow_version is not None:
        return _run_version(request, request.workflow_version, headers, about)
    return post("/v1/run/workflows", what, Run, body=body, headers=headers, repeatable=False, **about)


def _run_version(request: RunRequest, version: int, headers: dict[str, str], about: dict[str, Any]) -> Call[Run]:
    """Start a run of a given version: only Skyvern's older endpoint supports this, and it returns only ids."""
    path = f"/api/v1/workflows/{path_segment(request.workflow_id)}/run"
    what = f"start version {version} of workflow {request.workflow_id}"
    body = request.body_for_version()
    call: Call[Run] = post(path, what, Run, body=body, headers=headers, repeatable=False, **about)
    return replace(call.with_query({"version": version}), parse=_run_of_ids)


def _run_of_ids(answer: bytes) -> Run:
    ids = parser_of(StartedRun)(answer)
    request = {"workflow_id": ids["workflow_id"]}
    return Run.model_validate({"run_id": ids["workflow_run_id"], "status": "created", "run_request": request})


def get_run(run_id: str) -> Call[Run]:
    """
    Get a run with its output. The answer grows with the output: lists are lighter.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/get-run
    """
    about: Any = {"known": answers.GET_RUN, "subject": run_id, "fits": Run.is_about}
    about["otherwise"] = _where_paused(lambda: get_run_of_deleted_workflow(run_id))
    return get(f"/v1/runs/{path_segment(run_id)}", f"get run {run_id}", Run, large=True, **about)


def _where_paused(other: Callable[[], Call[Any]]) -> Otherwise:
    """Use another endpoint when :func:`get_run` fails, as it does before 1.0.48 while the run is paused."""
    return Otherwise(after=is_unreadable_pause, instead=lambda _: other())


def get_run_of_deleted_workflow(run_id: str) -> Call[Run]:
    """
    Get a run whose workflow was deleted meanwhile: :func:`get_run` answers 404 for it.

    Unlike :func:`get_run` it also returns which run replaced this one, and which one it replaces; for any workflow.
    """
    about: Any = {"known": answers.GET_RUN_OF_DELETED_WORKFLOW, "subject": run_id, "fits": Run.is_about}
    path = f"/v1/workflows/runs/{path_segment(run_id)}"
    return get(path, f"get run {run_id} of a deleted workflow", Run, large=True, **about)


def get_run_despite(error: SkyvernNotFoundError, run_id: str) -> Call[Run]:
    """
    Return the call that fetches a run although :func:`get_run` failed this way.

    :raises SkyvernNotFoundError: the error itself, unless it says that only the run's workflow is gone.
    """
    if not error.workflow_gone:
        raise error
    return get_run_of_deleted_workflow(run_id)


def get_run_snapshot(run_id: str, *, workflow_deleted: bool = False) -> Call[RunSnapshot]:
    """
    Get a run without keeping its output; waits poll with this.

    :param workflow_deleted: Whether its workflow was deleted meanwhile, see :func:`get_run_of_deleted_workflow`.
    """
    call: Call[Any] = get_run_of_deleted_workflow(run_id) if workflow_deleted else get_run(run_id)
    other = None if workflow_deleted else _where_paused(lambda: get_run_snapshot(run_id, workflow_deleted=True))
    return replace(call, parse=parser_of(RunSnapshot), fits=RunSnapshot.is_about, otherwise=other)


def list_active_runs(page: int) -> Call[list[ListedRun]]:
    """List one page of the organization's active runs, newest first, for waits."""
    query = {"status": sorted(ACTIVE_STATUSES), "page": page, "page_size": PAGE_SIZE}
    about: Any = {"known": answers.LIST_RUNS, "otherwise": WITHOUT_PAUSED}
    return get("/v1/runs", "list active runs", list[ListedRun], query, **about)


def _without_paused(call: Call[Any]) -> Call[Any] | None:
    others = [status for status in call.query["status"] if status != "paused"]
    return replace(call, query={**call.query, "status": others}, otherwise=None) if others else None


WITHOUT_PAUSED = Otherwise(after=knows_no_pause, instead=_without_paused, name="status=paused")
"""How to list runs by status on a server before 1.0.48: paused runs are missing, and have to be fetched."""


def cancel_run(run_id: str) -> Call[None]:
    """
    Cancel a run. For a run that is over this changes nothing, but its webhook is sent again.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/cancel-run
    """
    about: Any = {"known": answers.CANCEL, "subject": run_id, "fits": answers.is_null}
    return post(f"/v1/runs/{path_segment(run_id)}/cancel", f"cancel run {run_id}", Any, **about)


def cancel_runs(run_ids: Iterable[str]) -> Call[BulkCancel]:
    """
    Cancel up to 100 runs at once.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/bulk-cancel-runs
    """
    ids = list(run_ids)
    body = {"run_ids": ids}
    return post("/v1/runs/cancel", f"cancel {len(ids)} runs", BulkCancel, body=body, known=answers.CANCEL)


def retry_run(run_id: str, max_steps: int | None = None) -> Call[Run]:
    """
    Run a finished run again, with the same parameters, as a new run.

    :param max_steps: Maximum number of steps for each block that uses the browser: Skyvern does not keep the first
        run's limit.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/retry-run
    """
    path = f"/v1/workflows/runs/{path_segment(run_id)}/retry"
    return post(path, f"retry run {run_id}", Run, headers=_limit_of_steps(max_steps), repeatable=False)


def _limit_of_steps(max_steps: int | None) -> dict[str, str]:
    return {} if max_steps is None else {"x-max-steps-override": str(max_steps)}


def continue_run(run_id: str) -> Call[None]:
    """Continue a paused run: it waits for a person in a human interaction block."""
    path = f"/v1/workflows/runs/{path_segment(run_id)}/continue"
    about: Any = {"known": answers.CONTINUE, "subject": run_id, "fits": answers.is_null}
    return post(path, f"continue run {run_id}", Any, repeatable=False, **about)


def list_runs(
    status: Iterable[str] = (),
    workflow_id: str | None = None,
    search_key: str | None = None,
    tags: Mapping[str, str] | None = None,
    *,
    workflow_ids: Iterable[str] = (),
    page: int | None = None,
    last_page: int = LAST_RUNS_PAGE,
) -> Call[list[RunSummary]]:
    """
    List the organization's runs, newest first: at most 10,000, and 1,000 of a search or of chosen workflows.

    :param status: Only runs in these statuses.
    :param workflow_id: Only runs of this workflow.
    :param search_key: At least three characters of a parameter's value, a title or an id.
    :param tags: Only runs whose ``run_metadata`` holds all of these, at most 20. Needs Skyvern 1.0.48.
    :param workflow_ids: Only runs of these workflows, at most 50.
    :param page: Only this page of 100 runs. Default: all pages.
    :param last_page: The last page to read, if that is not beyond Skyvern's own limit.
    :raises SkyvernConfigError: more workflows or tags than Skyvern takes.
    :raises SkyvernTooOld: this Skyvern has no run tags.

    Before Skyvern 1.0.48, runs of a workflow are picked here from the newest 1,000 of the organization, and a list by
    status has no paused ones.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/get-runs
    """
    workflows = [workflow_id] if workflow_id else list(workflow_ids)
    check_at_most(MOST_WORKFLOWS, workflows, "workflow_ids")
    statuses = sorted(status)
    query = {
        "status": statuses,
        "workflow_permanent_id": workflow_id or workflows,
        "search_key": search_key,
        "tags": tags_query(tags),
    }
    about: Any = {
        "known": answers.LIST_RUNS,
        "needs": (RUN_TAGS,) if tags else (),
        "keeps": _is_of(frozenset(workflows)) if workflows else None,
        "otherwise": WITHOUT_PAUSED if "paused" in statuses else None,
    }
    if page is None:
        limit = LAST_SEARCH_PAGE if search_key or workflows else LAST_RUNS_PAGE
        last = min(last_page, limit)
        return paged("/v1/runs", "list runs", RunSummary, query, last_page=last, **about)
    given = {key: value for key, value in query.items() if value}
    rows = {**given, "page": page, "page_size": PAGE_SIZE}
    return get("/v1/runs", "list runs", list[RunSummary], rows, **about)


def _is_of(workflow_ids: Collection[str]) -> Callable[[RunSummary], bool]:
    return lambda row: row.workflow_permanent_id in workflow_ids


def find_runs(tags: Mapping[str, str]) -> Call[list[RunSummary]]:
    """
    Find the newest runs, at most 100, whose ``run_metadata`` holds all of these.

    :raises SkyvernTooOld: this Skyvern has no run tags, which came with 1.0.48.
    """
    query = {"tags": tags_query(tags), "page_size": PAGE_SIZE}
    about: Any = {"known": answers.LIST_RUNS, "needs": (RUN_TAGS,)}
    return get("/v1/runs", "find runs by tag", list[RunSummary], query, **about)


def apply_run_tags(run_id: str, tags: Mapping[str, str], remove: Iterable[str] = ()) -> Call[Tags]:
    """
    Set tags of a run; tags that are not named stay. Do not change tags that begin with ``airflow_``.

    :param remove: Keys of tags to remove.
    """
    return post(_tags_path(run_id), f"tag run {run_id}", Tags, body=tags_body(tags, remove))


def list_run_tags(run_id: str) -> Call[Tags]:
    """Get the tags of one run, with the time at which each was set."""
    return get(_tags_path(run_id), f"get the tags of run {run_id}", Tags)


def delete_run_tag(run_id: str, key: str) -> Call[Tags]:
    """Remove a tag of a run."""
    return delete(f"{_tags_path(run_id)}/{path_segment(key)}", f"remove tag {key} of run {run_id}", Tags)


def get_run_tag_history(run_id: str, key: str | None = None, since: datetime | None = None) -> Call[TagHistory]:
    """Get the history of a run's tags, newest first."""
    query = given(key=key, since=since and _in_utc(since))
    return get(f"{_tags_path(run_id)}/history", f"get the tag history of run {run_id}", TagHistory, query)


def _tags_path(run_id: str) -> str:
    return f"/v1/runs/{path_segment(run_id)}/tags"


def get_run_tags(run_ids: Iterable[str]) -> Call[RunTags]:
    """
    Get the tags of up to 200 runs: their ``run_metadata``.

    :raises SkyvernConfigError: more runs.
    """
    ids = list(run_ids)
    check_at_most(MOST_RUNS_OF_TAGS, ids, "run_ids")
    joined = ",".join(ids)
    about: Any = {"known": answers.GET_RUN_TAGS, "subject": joined, "fits": RunTags.is_about}
    return get("/v1/run-tags", "get the tags of runs", RunTags, {"workflow_run_ids": joined}, **about)


def list_workflow_runs(
    workflow_id: str,
    status: Iterable[str] = (),
    tags: Mapping[str, str] | None = None,
    created_at_start: datetime | None = None,
    created_at_end: datetime | None = None,
) -> Call[list[RunSummary]]:
    """
    List the runs of one workflow, newest first. For an unknown workflow the list is empty.

    :param status: Only runs in these statuses.
    :param tags: Only runs whose ``run_metadata`` holds all of these.
    :param created_at_start: Only runs created then or later.
    :param created_at_end: Only runs created before.
    :raises SkyvernTooOld: ``tags`` on a Skyvern that has no run tags.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/get-workflow-runs
    """
    query = {
        "status": sorted(status),
        "tags": tags_query(tags),
        "created_at_start": _in_utc(created_at_start),
        "created_at_end": _in_utc(created_at_end),
    }
    path = f"/v1/workflows/{path_segment(workflow_id)}/runs"
    about: Any = {
        "known": answers.LIST_RUNS,
        "needs": (RUN_TAGS,) if tags else (),
        "keeps": _was_created_within(created_at_start, created_at_end),
    }
    return paged(path, f"list the runs of workflow {workflow_id}", RunSummary, query, **about)


def _was_created_within(start: datetime | None, end: datetime | None) -> Callable[[RunSummary], bool] | None:
    """Filter rows by time, because servers before 1.0.45 do not; a row without a time is kept."""
    if start is None is end:
        return None

    def keeps(row: RunSummary) -> bool:
        created = row.created_at
        return created is None or ((start is None or created >= start) and (end is None or created < end))

    return keeps


def _in_utc(moment: datetime | None) -> str | None:
    return moment.astimezone(timezone.utc).isoformat() if moment else None


def get_run_timeline(run_id: str) -> Call[list[TimelineItem]]:
    """
    Get what the run did, block by block.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/get-run-timeline
    """
    path = f"/v1/runs/{path_segment(run_id)}/timeline"
    about: Any = {"known": answers.GET_TIMELINE, "subject": run_id}
    return get(path, f"get the timeline of run {run_id}", list[TimelineItem], **about)


def list_block_rows(run_id: str) -> Call[list[TimelineRow]]:
    """Get the timeline of a run without the agent's actions and the blocks' output, for waits."""
    call = get_run_timeline(run_id)
    return get(call.path, call.what, list[TimelineRow], known=call.known, subject=run_id)


def get_run_definition(run_id: str) -> Call[RunDefinition]:
    """Get the workflow of a run as it was when the run started, for waits."""
    call = get_run_of_deleted_workflow(run_id)
    return get(call.path, f"get the workflow of run {run_id}", RunDefinition, known=call.known, subject=run_id)


def get_run_cost(run_id: str) -> Call[RunCost]:
    """Get the steps and credits that a run has used, for the run page."""
    call = get_run_of_deleted_workflow(run_id)
    return get(call.path, f"get the cost of run {run_id}", RunCost, known=call.known, subject=run_id)


def list_run_artifacts(run_id: str, artifact_type: Iterable[str] = ()) -> Call[list[Artifact]]:
    """
    List what the run left behind. For an unknown run the list is empty.

    :param artifact_type: Only artifacts of these types, for example ``screenshot_final``.

    https://www.skyvern.com/docs/api-reference/api-reference/artifacts/get-run-artifacts
    """
    path = f"/v1/runs/{path_segment(run_id)}/artifacts"
    query = {"artifact_type": sorted(artifact_type)} if artifact_type else {}
    return get(
        path, f"list the artifacts of run {run_id}", list[Artifact], query, known=answers.GET_RUN, subject=run_id
    )


def get_artifact_content(artifact_id: str) -> Call[bytes]:
    """
    Download an artifact.

    https://www.skyvern.com/docs/api-reference/api-reference/artifacts/get-artifact-content
    """
    path = f"/v1/artifacts/{path_segment(artifact_id)}/content"
    about: Any = {"known": answers.GET_ARTIFACT, "subject": artifact_id}
    return Call("GET", path, f"download artifact {artifact_id}", bytes, **about)


def list_workflows(
    search_key: str | None = None,
    tags: Mapping[str, str] | None = None,
    folder_id: str | None = None,
    status: Iterable[str] = (),
) -> Call[list[Workflow]]:
    """
    List the organization's workflows, all pages.

    :param search_key: A part of the title or of a parameter.
    :param tags: Only workflows that have all of these tags. Needs Skyvern 1.0.40.
    :param folder_id: Only workflows in this folder.
    :param status: ``published``, ``draft``, ``auto_generated``. Default: all but the last.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/get-workflows
    """
    query = {"search_key": search_key, "tags": tags_query(tags), "folder_id": folder_id, "status": sorted(status)}
    needs = (WORKFLOW_TAGS,) if tags else ()
    return paged("/v1/workflows", "list workflows", Workflow, query, needs=needs)


def probe() -> Call[list[Workflow]]:
    """Request one workflow: the cheapest request that needs a valid API key."""
    return get("/v1/workflows", "list workflows", list[Workflow], {"page_size": 1})


def get_workflow(workflow_id: str) -> Call[Workflow]:
    """
    Get the newest version of a workflow.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/get-workflow
    """
    about: Any = {"known": answers.GET_WORKFLOW, "subject": workflow_id, "fits": Workflow.is_about}
    return get(f"/v1/workflows/{path_segment(workflow_id)}", f"get workflow {workflow_id}", Workflow, **about)


def upload_file(
    file: str | Path | bytes | IO[bytes], filename: str | None = None, retention_days: int | None = None
) -> Call[UploadedFile]:
    """
    Upload a file for runs to use: pass its ``file_id`` in ``file_ids`` or its address as a parameter.

    :param file: The path of the file, its content, or the open file, which is sent piece by piece.
    :param filename: Its name in Skyvern; required with content. Default: the path's name.
    :param retention_days: Days after which Skyvern deletes it; by the organization's policy if not given.

    https://www.skyvern.com/docs/api-reference/api-reference/files/upload-file
    """
    content = Path(file).read_bytes() if isinstance(file, str | Path) else file
    name = filename or (Path(file).name if isinstance(file, str | Path) else "file")
    form = None if retention_days is None else {"retention_days": str(retention_days)}
    return Call(
        "POST",
        "/v1/upload_file",
        f"upload {name}",
        parser_of(UploadedFile),
        files={"file": (name, content)},
        form=form,
        repeatable=False,
        needs=() if retention_days is None else (RETENTION,),
    )


def delete_file(file_id: str) -> Call[None]:
    """
    Delete a file that was uploaded.

    https://www.skyvern.com/docs/api-reference/api-reference/files/delete-file
    """
    return delete(f"/v1/files/{path_segment(file_id)}", f"delete file {file_id}")


def retry_webhook(run_id: str, webhook_url: str | None = None) -> Call[WebhookReplay]:
    """
    Send the webhook of a run again, to the run's own address or another.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/retry-run-webhook
    """
    return post(
        f"/v1/runs/{path_segment(run_id)}/retry_webhook",
        f"retry the webhook of run {run_id}",
        WebhookReplay,
        body={"webhook_url": webhook_url} if webhook_url else None,
        repeatable=False,
        subject=run_id,
        fits=WebhookReplay.is_about,
    )


def get_version() -> Call[ServerVersion]:
    """Get the server's version. Needs no valid key, so it proves only that a server is there."""
    return GET_VERSION


def tags_query(tags: Mapping[str, str] | None) -> list[str]:
    """Return the filter for runs or workflows that have all of these tags."""
    check_at_most(MOST_TAGS, tags or {}, "tags")
    return [f"{key}:{value}" for key, value in (tags or {}).items()]
