"""
What the five services answer when a trigger polls a job: shape and size as in their API references.

An API is a function from a request to an answer, which names the jobs that the request polled. Its only state is the
:class:`~benchmarks.jobs.Jobs`. Skyvern, Databricks and dbt Cloud also answer when an operator starts a job.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from airflow_skyvern.testing.fake.checks import STATUSES, Refusal, check_statuses, page_of
from airflow_skyvern.testing.fake.records import Run, Seen, Workflow
from airflow_skyvern.testing.fake.run_details import timeline
from airflow_skyvern.testing.fake.skyvern import MOST_PAGES, MOST_ROWS
from airflow_skyvern.testing.fake.views import row, view, workflow_view
from benchmarks.jobs import FIRST_ID

if TYPE_CHECKING:
    from benchmarks.jobs import Jobs

LIST_IS_NEW = 0.02
"""Seconds for which a list of active runs is reused: an end shows in the list at most this late."""

WORKFLOW = "wpid_600000000000000001"
"""The workflow of every run in Skyvern."""

BLOCKS = [
    {
        "label": f"block_{number}",
        "block_type": "navigation",
        "duration": 12.5,
        "actions": [{"action_type": "click", "reasoning": "The button leads on. " * 8} for _ in range(5)],
    }
    for number in range(5)
]
"""The blocks of every run, the last one of which is at work."""

_BEGAN = "2026-11-22T20:24:47"
_LONG_AGO = "2026-11-21T08:00:00Z"
_NOW = "2026-11-23T08:00:00Z"


@dataclass(frozen=True)
class Request:
    """One request."""

    method: str
    path: str
    query: str
    body: bytes
    now: float


@dataclass(frozen=True)
class Answer:
    """One answer, and the numbers of the jobs that it is about."""

    body: bytes
    status: int = HTTPStatus.OK
    polled: Sequence[int] = ()


def _answer(value: Any, *polled: int) -> Answer:
    return Answer(json.dumps(value).encode(), polled=polled)


NOT_FOUND = Answer(b'{"detail":"Not Found"}', HTTPStatus.NOT_FOUND)


Api = Callable[[Request, "Jobs"], Answer]


def dbt_cloud(request: Request, jobs: Jobs) -> Answer:
    """GET /api/v2/accounts/{account_id}/runs/{run_id}/, and POST …/jobs/{job_id}/run/ before."""
    if (number := _dbt_number(request, jobs)) is None:
        return NOT_FOUND
    ended = jobs.has_ended(number, request.now)
    data: dict[str, Any] = {
        **dict.fromkeys(_DBT_EMPTY),
        **dict.fromkeys(_DBT_DURATIONS, "00:00:07"),
        "id": FIRST_ID + number,
        "trigger_id": 7,
        "account_id": 1,
        "environment_id": 2,
        "project_id": 3,
        "job_definition_id": 4,
        "status": 10 if ended else 3,
        "status_humanized": "Success" if ended else "Running",
        "dbt_version": "1.9.0-latest",
        "git_branch": "main",
        "git_sha": "0" * 40,
        "created_at": f"{_BEGAN}+00:00",
        "updated_at": f"{_BEGAN}+00:00",
        "started_at": f"{_BEGAN}+00:00",
        "finished_at": f"{_BEGAN}+00:00" if ended else None,
        "href": f"https://127.0.0.1/deploy/1/projects/3/runs/{FIRST_ID + number}/",
        "in_progress": not ended,
        "is_complete": ended,
        "is_success": ended,
        "is_error": False,
        "is_cancelled": False,
        "run_steps": [],
    }
    status = {"code": 200, "is_success": True, "user_message": "Success!", "developer_message": ""}
    return _answer({"status": status, "data": data}, number)


def _dbt_number(request: Request, jobs: Jobs) -> int | None:
    if request.method == "POST":
        known = re.fullmatch(r"/api/v2/accounts/\d+/jobs/\d+/run/", request.path)
        return jobs.start(request.now) if known else None
    found = re.fullmatch(r"/api/v2/accounts/\d+/runs/(\d+)/", request.path)
    return jobs.number(found[1]) if found else None


_DBT_EMPTY = (
    *("status_message", "trigger", "job", "environment", "repository", "deferring_run_id", "artifact_s3_path"),
    *("owner_thread_id", "executed_by_thread_id", "notifications_sent", "blocked_by", "scribe_enabled"),
    *("dequeued_at", "last_checked_at", "last_heartbeat_at", "should_start_at", "has_docs_generated"),
)
_DBT_DURATIONS = ("duration", "queued_duration", "run_duration", "duration_humanized", "run_duration_humanized")


def databricks(request: Request, jobs: Jobs) -> Answer:
    """GET /api/2.2/jobs/runs/get, and POST /api/2.2/jobs/runs/submit before."""
    if (request.method, request.path) == ("POST", "/api/2.2/jobs/runs/submit"):
        started = jobs.start(request.now)
        return NOT_FOUND if started is None else _answer({"run_id": FIRST_ID + started})
    identifier = _databricks_id(request)
    if request.path != "/api/2.2/jobs/runs/get" or identifier is None or (number := jobs.number(identifier)) is None:
        return NOT_FOUND
    ended = jobs.has_ended(number, request.now)
    state = {
        "life_cycle_state": "TERMINATED" if ended else "RUNNING",
        **({"result_state": "SUCCESS"} if ended else {}),
        "state_message": "" if ended else "In run",
        "user_cancelled_or_timedout": False,
    }
    times = {"start_time": 1, "setup_duration": 1, "execution_duration": 1, "cleanup_duration": 0, "end_time": 0}
    task = {
        "run_id": FIRST_ID + number,
        "task_key": "main",
        "notebook_task": {"notebook_path": "/Users/a@example.com/notebook", "source": "WORKSPACE"},
        "cluster_instance": {"cluster_id": "1122-202447-abcdefgh", "spark_context_id": "1234567890123456789"},
        "existing_cluster_id": "1122-202447-abcdefgh",
        "run_if": "ALL_SUCCESS",
        "attempt_number": 0,
        "state": state,
        **times,
    }
    return _answer(
        {
            "job_id": 1,
            "run_id": FIRST_ID + number,
            "number_in_job": FIRST_ID + number,
            "state": state,
            "tasks": [task],
            "run_name": "a run",
            "run_page_url": f"https://127.0.0.1/?o=1#job/1/run/{FIRST_ID + number}",
            "run_type": "SUBMIT_RUN",
            "trigger": "ONE_TIME",
            "creator_user_name": "a@example.com",
            "format": "MULTI_TASK",
            **times,
        },
        number,
    )


def _databricks_id(request: Request) -> str | int | None:
    """Return the id of the run: the hook has it in the query, its asynchronous half in the body."""
    sent = json.loads(request.body or b"{}")
    return sent.get("run_id") or next(iter(parse_qs(request.query).get("run_id", [])), None)


def airbyte(request: Request, jobs: Jobs) -> Answer:
    """GET /v1/jobs/{jobId}, and POST /v1/applications/token before."""
    if (request.method, request.path) == ("POST", "/v1/applications/token"):
        return _answer({"access_token": "made-up", "token_type": "Bearer", "expires_in": 900})
    found = re.fullmatch(r"/v1/jobs/(\d+)", request.path)
    if found is None or (number := jobs.number(found[1])) is None:
        return NOT_FOUND
    ended = jobs.has_ended(number, request.now)
    return _answer(
        {
            "jobId": FIRST_ID + number,
            "status": "succeeded" if ended else "running",
            "jobType": "sync",
            "startTime": f"{_BEGAN}Z",
            "connectionId": "9924bcd0-99be-453d-ba47-c2c9766f7da5",
            "lastUpdatedAt": f"{_BEGAN}Z",
            "duration": "PT8M15S",
            "bytesSynced": 1234,
            "rowsSynced": 12,
        },
        number,
    )


def fivetran(request: Request, jobs: Jobs) -> Answer:
    """GET /v1/connectors/{connector_id}."""
    found = re.fullmatch(r"/v1/connectors/connector_(\d+)", request.path)
    if found is None or (number := jobs.number(found[1])) is None:
        return NOT_FOUND
    ended = jobs.has_ended(number, request.now)
    data = {
        "id": f"connector_{FIRST_ID + number}",
        "service": "postgres",
        "schema": "a_schema",
        "paused": False,
        "status": {
            "setup_state": "connected",
            "schema_status": "ready",
            "sync_state": "scheduled" if ended else "syncing",
            "update_state": "on_schedule",
            "is_historical_sync": False,
            "tasks": [],
            "warnings": [],
        },
        "config": {"host": "database.example.com", "port": 5432, "user": "a", "update_method": "XMIN"},
        "daily_sync_time": "14:00",
        "succeeded_at": _NOW if ended else _LONG_AGO,
        "failed_at": None,
        "connected_by": "a_person",
        "sync_frequency": 1440,
        "schedule_type": "manual",
        "group_id": "a_group",
        "created_at": _LONG_AGO,
        "pause_after_trial": False,
        "data_delay_threshold": 0,
        "data_delay_sensitivity": "NORMAL",
        "setup_tests": [],
    }
    return _answer({"code": "Success", "message": "Operation performed.", "data": data}, number)


class Skyvern:
    """
    GET /v1/runs/{run_id} and GET /v1/runs; for the blocks GET /v1/runs/{run_id}/timeline and the run's workflow.

    An operator starts a run with POST /v1/run/workflows, after GET /v1/workflows/{workflow_id}.
    The views and checks are those of the fake that tests/contract compares with a real server.
    """

    def __init__(self) -> None:
        self._known: tuple[Jobs, SkyvernRuns] | None = None

    def __call__(self, request: Request, jobs: Jobs) -> Answer:
        """Answer a request; the first one of a measurement creates the runs."""
        if self._known is None or self._known[0] is not jobs:
            self._known = jobs, SkyvernRuns(jobs)
        runs = self._known[1]
        fixed = {"/v1/runs": runs.listed, "/v1/run/workflows": runs.start, f"/v1/workflows/{WORKFLOW}": runs.workflow}
        try:
            if request.path in fixed:
                return fixed[request.path](request)
            if request.path.endswith("/timeline"):
                return Answer(runs.timeline)
            return Answer(runs.definition) if request.path.startswith("/v1/workflows/runs/") else runs.one(request)
        except Refusal as refusal:
            return Answer(refusal.response.content, refusal.response.status_code)


class SkyvernRuns:
    """The runs of one measurement, each encoded once per status."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._rows: dict[tuple[int, bool], bytes] = {}
        self._views: dict[tuple[int, bool], bytes] = {}
        self._active: tuple[float, list[int]] = (-1.0, [])
        self._tags: dict[int, set[str]] = {}

    @cached_property
    def _workflow(self) -> Workflow:
        output = {"fetch_output": {"status_code": 200}, "extracted_information": [{"invoice": "4711"}]}
        made = datetime(2026, 11, 22, 20, 0, tzinfo=timezone.utc)
        plan = ({"status": "running", "blocks": len(BLOCKS)}, "completed")
        return Workflow(WORKFLOW, "fetch invoices", plan, output, made, blocks=BLOCKS)

    @cached_property
    def timeline(self) -> bytes:
        """A timeline as that of a run with a browser: 40 kB."""
        return json.dumps(timeline(self._run(0, ended=False))).encode()

    @cached_property
    def definition(self) -> bytes:
        """A run with its workflow."""
        return json.dumps({**view(self._run(0, ended=False)), "workflow": workflow_view(self._workflow)}).encode()

    def _run(self, number: int, *, ended: bool) -> Run:
        made = self._workflow
        run_id = f"wr_{FIRST_ID + number}"
        parameters = {"vendor": "ACME", "month": "2026-10"}
        return Run(run_id, made, parameters, {}, None, made.created_at, request={}, step=1 if ended else 0)

    def workflow(self, request: Request) -> Answer:
        """Answer GET /v1/workflows/{workflow_id}."""
        return Answer(json.dumps(workflow_view(self._workflow)).encode())

    def start(self, request: Request) -> Answer:
        """Answer POST /v1/run/workflows."""
        if (number := self._jobs.start(request.now)) is None:
            return NOT_FOUND
        tags = json.loads(request.body).get("run_metadata") or {}
        self._tags[number] = {f"{key}:{value}" for key, value in tags.items()}
        return Answer(json.dumps(view(self._run(number, ended=False))).encode())

    def one(self, request: Request) -> Answer:
        """Answer GET /v1/runs/{run_id}."""
        found = re.fullmatch(r"/v1/runs/wr_(\d+)", request.path)
        if found is None or (number := self._jobs.number(found[1])) is None:
            return NOT_FOUND
        ended = self._jobs.has_ended(number, request.now)
        if (number, ended) not in self._views:
            self._views[number, ended] = json.dumps(view(self._run(number, ended=ended))).encode()
        return Answer(self._views[number, ended], polled=(number,))

    def listed(self, request: Request) -> Answer:
        """Answer GET /v1/runs; the status, and the tags of started runs, are the only filters of this server."""
        query = parse_qs(request.query)
        wanted = set(query.get("tags", ()))
        if set(query) - {"page", "page_size", "status", "tags"} or (wanted and not self._tags):
            return Answer(b'{"detail":"this server has no such filter"}', HTTPStatus.NOT_IMPLEMENTED)
        seen = Seen(request.method, request.path, query, {}, request.body)
        page, size = page_of(seen, MOST_PAGES, MOST_ROWS)
        check_statuses(seen, STATUSES)
        if not query.get("status") or "completed" in query["status"]:
            return Answer(b'{"detail":"this server lists active runs only"}', HTTPStatus.NOT_IMPLEMENTED)
        active = self._active_at(request.now) if "running" in query["status"] else []
        if wanted:
            active = [number for number in active if wanted <= self._tags[number]]
        chosen = active[(page - 1) * size : page * size]
        return Answer(b"[%s]" % b",".join(map(self._row, chosen)), polled=chosen)

    def _active_at(self, now: float) -> list[int]:
        if now - self._active[0] > LIST_IS_NEW:
            self._active = now, self._jobs.active(now)
        return self._active[1]

    def _row(self, number: int) -> bytes:
        if (number, False) not in self._rows:
            self._rows[number, False] = json.dumps(row(self._run(number, ended=False))).encode()
        return self._rows[number, False]


ROUTES = (
    (re.compile(r"/v1/runs(/.*)?|/v1/workflows.*|/v1/run/workflows"), "skyvern"),
    (re.compile(r"/api/v2/accounts/.*"), "dbt-cloud"),
    (re.compile(r"/api/2\.\d/.*"), "databricks"),
    (re.compile(r"/v1/jobs/.*|/v1/applications/token"), "airbyte"),
    (re.compile(r"/v1/connectors/.*"), "fivetran"),
)


def service_of(path: str) -> str | None:
    """Return the service that a path belongs to, or None."""
    return next((name for pattern, name in ROUTES if pattern.fullmatch(path)), None)


def apis() -> dict[str, Api]:
    """Return every service's API by the name of its contender."""
    return {
        "skyvern": Skyvern(),
        "dbt-cloud": dbt_cloud,
        "databricks": databricks,
        "airbyte": airbyte,
        "fivetran": fivetran,
    }
