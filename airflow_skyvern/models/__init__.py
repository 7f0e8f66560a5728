"""
The responses of the Skyvern API, as values.

Unknown fields are kept and unknown statuses are accepted, so that a newer server never breaks a wait. What is
known about a run is a property of the run: ``run.is_final``, ``run.succeeded``, ``run.duration``.

Field by field: https://www.skyvern.com/docs/api-reference/api-reference/workflows/get-run
"""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from enum import Enum
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, ConfigDict, Field
from typing_extensions import NotRequired, TypedDict

from airflow_skyvern.models.base import NULL_AS_LIST, NULL_AS_MAPPING, Answer, Flag, UtcDatetime
from airflow_skyvern.models.resources import (
    BrowserProfile,
    BrowserProfileUsage,
    BrowserSession,
    BrowserType,
    Credential,
    Folder,
    Script,
    Tag,
    TagHistory,
    Tags,
    TotpCode,
    WorkflowTags,
)
from airflow_skyvern.models.timeline import Action, Artifact, Block, BlockRow, BlockTask, TimelineItem, TimelineRow
from airflow_skyvern.models.workflow import RunCost, RunDefinition, StartedRun, Workflow, WorkflowParameter

__all__ = [
    "ACTIVE_STATUSES",
    "FINAL_STATUSES",
    "Action",
    "Answer",
    "Artifact",
    "Block",
    "BlockRow",
    "BlockTask",
    "BrowserProfile",
    "BrowserProfileUsage",
    "BrowserSession",
    "BrowserType",
    "BulkCancel",
    "Credential",
    "Deleted",
    "DownloadedFile",
    "Folder",
    "ListedRun",
    "ListedSchedule",
    "Run",
    "RunAttempt",
    "RunBase",
    "RunCost",
    "RunDefinition",
    "RunSnapshot",
    "RunStatus",
    "RunSummary",
    "RunTag",
    "RunTags",
    "Schedule",
    "ScheduleDetails",
    "SchedulePage",
    "Schedules",
    "Script",
    "ServerVersion",
    "StartedRun",
    "Status",
    "Tag",
    "TagHistory",
    "Tags",
    "TimelineItem",
    "TimelineRow",
    "TotpCode",
    "UploadedFile",
    "UtcDatetime",
    "WebhookReplay",
    "Workflow",
    "WorkflowParameter",
    "WorkflowTags",
]

log = logging.getLogger(__name__)


class RunStatus(str, Enum):
    """The statuses of a run that this version knows; others may come and count as not final."""

    CREATED = "created"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    TERMINATED = "terminated"
    TIMED_OUT = "timed_out"
    CANCELED = "canceled"


MAX_STEPS_CODE = "REACH_MAX_STEPS"
"""The code of Skyvern's own error about a limit of steps."""

_ABOUT_STEPS = re.compile(r"reached the max(imum)?\b[^.]*\bsteps\b", re.IGNORECASE)
_ABOUT_TIME = re.compile(r"exceeded (max elapsed runtime limit|its remaining runtime)", re.IGNORECASE)

ACTIVE_STATUSES = frozenset({"created", "queued", "running", "paused"})
FINAL_STATUSES = frozenset(status.value for status in RunStatus) - ACTIVE_STATUSES


@cache
def _note_unknown_status(status: str) -> None:
    log.warning(
        "Skyvern reports the status %r, which this version of the provider does not know. "
        "It is treated as not finished; a newer airflow-provider-skyvern may know it.",
        status,
    )


def _known_or_noted(status: str) -> str:
    if status not in FINAL_STATUSES and status not in ACTIVE_STATUSES:
        _note_unknown_status(status)
    return status


Status = Annotated[str, AfterValidator(_known_or_noted)]


class RunBase(Answer):
    """
    What every view of a run contains: its id and its progress.

    A final status is not always the end: with a retry policy in the workflow, Skyvern runs it again under the
    same id and says so in ``retry_pending``. Servers before 1.0.51 do not have that field.
    """

    run_id: str = Field(validation_alias=AliasChoices("run_id", "workflow_run_id"))
    status: Status
    attempt: int | None = None
    retry_pending: Flag = False
    next_attempt_at: UtcDatetime | None = None

    def is_about(self, run_id: str) -> bool:
        """Whether this describes that run."""
        return self.run_id == run_id

    @property
    def is_final(self) -> bool:
        """Whether nothing more will happen to the run."""
        return self.status in FINAL_STATUSES and not self.retry_pending

    @property
    def succeeded(self) -> bool:
        """Whether the run is over and completed."""
        return self.is_final and self.status == RunStatus.COMPLETED.value


class RunOverview(RunBase):
    """What Skyvern's own views of a run also contain: why it failed, and its times."""

    failure_reason: str | None = None
    created_at: UtcDatetime | None = None
    started_at: UtcDatetime | None = None
    finished_at: UtcDatetime | None = None

    @property
    def duration(self) -> timedelta | None:
        """From the request to the end, or None while the run is not over."""
        if self.created_at is None or self.finished_at is None:
            return None
        return self.finished_at - self.created_at


class RunAttempt(Answer):
    """One attempt of a run whose workflow has a retry policy."""

    attempt_number: int
    status: Status
    failure_reason: str | None = None
    error_codes: Annotated[list[str], NULL_AS_LIST] = []
    started_at: UtcDatetime | None = None
    finished_at: UtcDatetime | None = None
    retry_decision: str | None = None
    decision_reason: str | None = None
    next_attempt_at: UtcDatetime | None = None


class DownloadedFile(Answer):
    """A file that the run downloaded. ``url`` may be a signed address: treat it as a secret."""

    url: str
    filename: str | None = None
    checksum: str | None = None
    file_size: int | None = None
    modified_at: UtcDatetime | None = None
    artifact_id: str | None = None


class RunSnapshot(RunOverview):
    """The fields of a run that a wait needs: all except its output and its files, which may be large."""

    model_config = ConfigDict(extra="ignore")

    app_url: str | None = None


class Run(RunSnapshot):
    """One run of a workflow, as ``GET /v1/runs/{run_id}`` returns it."""

    model_config = ConfigDict(extra="allow")

    run_type: str | None = None
    output: Any = Field(default=None, validation_alias=AliasChoices("output", "outputs"))
    downloaded_files: Annotated[list[DownloadedFile], NULL_AS_LIST] = []
    recording_url: str | None = None
    screenshot_urls: Annotated[list[str], NULL_AS_LIST] = []
    errors: Annotated[list[dict[str, Any]], NULL_AS_LIST] = []
    attempts: Annotated[list[RunAttempt], NULL_AS_LIST] = []
    modified_at: UtcDatetime | None = None
    queued_at: UtcDatetime | None = None
    browser_session_id: str | None = None
    browser_profile_id: str | None = None
    retried_from: str | None = Field(default=None, validation_alias="retried_from_workflow_run_id")
    retried_by: str | None = Field(default=None, validation_alias="retried_by_workflow_run_id")
    step_count: int | None = None
    run_request: dict[str, Any] | None = None

    def is_of(self, workflow_id: str) -> bool:
        """Whether this is a run of that workflow, as far as it says of which one."""
        return bool((self.run_request or {}).get("workflow_id", workflow_id) == workflow_id)

    @property
    def error_codes(self) -> list[str]:
        """The codes of the run's errors, as its workflow defines them."""
        return [str(error["error_code"]) for error in self.errors if error.get("error_code")]

    @property
    def is_task(self) -> bool:
        """Whether it is a run of Skyvern's endpoint for prompts: it has no timeline, tags or known credits."""
        return self.run_id.startswith("tsk_")

    @property
    def limit_reached(self) -> Literal["max_steps", "max_elapsed_time_minutes"] | None:
        """The limit that ended the run, regardless of who set it; None if no limit did."""
        reason = self.failure_reason or ""
        if self.status == RunStatus.FAILED.value and (
            MAX_STEPS_CODE in self.error_codes or _ABOUT_STEPS.search(reason)
        ):
            return "max_steps"
        if self.status == RunStatus.TIMED_OUT.value and _ABOUT_TIME.search(reason):
            return "max_elapsed_time_minutes"
        return None


class RunSummary(RunOverview):
    """One row of a list of runs: no output, but light."""

    title: str | None = Field(default=None, validation_alias=AliasChoices("title", "workflow_title"))
    workflow_permanent_id: str | None = None
    workflow_deleted: Flag = False
    trigger_type: str | None = None
    created_by: str | None = None
    workflow_schedule_id: str | None = None


class ListedRun(TypedDict):
    """
    The fields that a wait reads from a row of a list of runs.

    A mapping, not a model: thousands of rows are read every few seconds, and this is parsed in 2 µs.
    """

    run_id: str
    status: str
    attempt: NotRequired[int | None]
    retry_pending: NotRequired[bool | None]


class RunTag(Answer):
    """One tag of a run."""

    key: str | None = None
    value: str | None = None


class RunTags(Answer):
    """The tags of several runs; one without tags has an empty list."""

    run_tags: dict[str, list[RunTag]]

    def is_about(self, run_ids: str) -> bool:
        """Whether this has an entry for each of these comma-separated ids: Skyvern also lists runs without tags."""
        return self.run_tags.keys() >= set(filter(None, run_ids.split(",")))

    def of(self, run_id: str) -> dict[str, str]:
        """Return the tags of one run as it was given them."""
        return {tag.key: tag.value or "" for tag in self.run_tags.get(run_id, []) if tag.key}


class BulkCancel(Answer):
    """What a bulk cancel did; runs that were over already count as canceled."""

    cancelled: list[str]
    failed: list[str]


class UploadedFile(Answer):
    """A file put into Skyvern's storage for runs to use. ``presigned_url`` is a secret."""

    s3_uri: str
    presigned_url: str
    file_id: str | None = None
    expires_at: UtcDatetime | None = None


class WebhookReplay(Answer):
    """The result of sending a run's webhook again."""

    run_id: str
    target_webhook_url: str | None = None
    status_code: int | None = None
    latency_ms: int | None = None
    error: str | None = None

    def is_about(self, run_id: str) -> bool:
        """Whether this is about that run's webhook."""
        return self.run_id == run_id


class ServerVersion(Answer):
    """The version of the server."""

    version: str


class Schedule(Answer):
    """
    A schedule of a workflow.

    It fires by a cron expression, each so many seconds (``interval_seconds``), or once (``run_at``).
    ``parameters`` may hold secrets, which is why its representation leaves them out.
    """

    workflow_schedule_id: str
    workflow_permanent_id: str
    cron_expression: str | None = None
    interval_seconds: int | None = None
    first_fire_at: UtcDatetime | None = None
    run_at: UtcDatetime | None = None
    timezone: str = "UTC"
    enabled: bool
    parameters: Annotated[dict[str, Any], NULL_AS_MAPPING] = Field(default={}, repr=False)
    name: str | None = None
    description: str | None = None
    created_at: UtcDatetime
    modified_at: UtcDatetime

    @property
    def cadence(self) -> str:
        """When it fires, in words of one column."""
        if self.cron_expression is not None:
            return self.cron_expression
        if self.interval_seconds is not None:
            return f"every {timedelta(seconds=self.interval_seconds)}"
        return f"once at {self.run_at:%Y-%m-%d %H:%M} UTC" if self.run_at else "unknown"


class ListedSchedule(Schedule):
    """A schedule as the organization's list shows it, with its workflow's title."""

    workflow_title: str = ""
    next_run: UtcDatetime | None = None


class ScheduleDetails(Answer):
    """A schedule, and when it will fire next (also said of a disabled one, as if it were enabled)."""

    schedule: Schedule
    next_runs: tuple[UtcDatetime, ...] = ()

    def is_about(self, schedule_id: str) -> bool:
        """Whether this describes that schedule."""
        return self.schedule.workflow_schedule_id == schedule_id


class Schedules(Answer):
    """The schedules of a workflow."""

    schedules: list[Schedule]


class SchedulePage(Answer):
    """One page of the organization's schedules."""

    schedules: list[ListedSchedule]


class Deleted(Answer):
    """Whether it was deleted."""

    ok: bool
