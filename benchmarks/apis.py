"""
What the five services answer when a trigger asks after a job: shape and size as their API references show them.

An API is a function from a request to an answer and the jobs that were looked at. It has no state but the
:class:`Jobs`, which end when the plan says so.
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

from dev.fake.checks import STATUSES, Refusal, check_statuses, page_of
from dev.fake.records import Run, Seen, Workflow
from dev.fake.skyvern import MOST_PAGES, MOST_ROWS
from dev.fake.views import row, view

if TYPE_CHECKING:
    from benchmarks.plan import Plan

FIRST_ID = 700_000_000
"""Id of the first job; every other one adds its number."""

LIST_IS_NEW = 0.02
"""Seconds for which the list of active runs is made once: at most this late is an end in the list."""

_BEGAN = "2026-11-22T20:24:47"
_LONG_AGO = "2026-11-21T08:00:00Z"
_NOW = "2026-11-23T08:00:00Z"


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: str
    body: bytes
    now: float


@dataclass(frozen=True)
class Answer:
    """What is said, and about which jobs."""

    body: bytes
    status: int = HTTPStatus.OK
    looked: Sequence[int] = ()


def _answer(value: Any, *looked: int) -> Answer:
    return Answer(json.dumps(value).encode(), looked=looked)


NOT_FOUND = Answer(b'{"detail":"Not Found"}', HTTPStatus.NOT_FOUND)


class Jobs:
    """The jobs of one measurement as the server sees them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._born = [plan.zero + job.born for job in plan.jobs]
        self._ends = [plan.zero + job.ends for job in plan.jobs]

    def __len__(self) -> int:
        return len(self._ends)

    def over(self, number: int, now: float) -> bool:
        """Tell whether a job has ended."""
        return now >= self._ends[number]

    def active(self, now: float) -> list[int]:
        """Return the jobs that run, newest first."""
        both = zip(self._born, self._ends, strict=True)
        return [number for number, (born, ends) in enumerate(both) if born <= now < ends][::-1]

    def number(self, identifier: str | int) -> int | None:
        """Return the number of the job with an id."""
        number = int(identifier) - FIRST_ID
        return number if 0 <= number < len(self) else None


Api = Callable[[Asked, Jobs], Answer]


def dbt_cloud(asked: Asked, jobs: Jobs) -> Answer:
    """GET /api/v2/accounts/{account_id}/runs/{run_id}/."""
    found = re.fullmatch(r"/api/v2/accounts/\d+/runs/(\d+)/", asked.path)
    if found is None or (number := jobs.number(found[1])) is None:
        return NOT_FOUND
    over = jobs.over(number, asked.now)
    data: dict[str, Any] = {
        **dict.fromkeys(_DBT_EMPTY),
        **dict.fromkeys(_DBT_DURATIONS, "00:00:07"),
        "id": FIRST_ID + number,
        "trigger_id": 7,
        "account_id": 1,
        "environment_id": 2,
        "project_id": 3,
        "job_definition_id": 4,
        "status": 10 if over else 3,
        "status_humanized": "Success" if over else "Running",
        "dbt_version": "1.9.0-latest",
        "git_branch": "main",
        "git_sha": "0" * 40,
        "created_at": f"{_BEGAN}+00:00",
        "updated_at": f"{_BEGAN}+00:00",
        "started_at": f"{_BEGAN}+00:00",
        "finished_at": f"{_BEGAN}+00:00" if over else None,
        "href": f"https://127.0.0.1/deploy/1/projects/3/runs/{FIRST_ID + number}/",
        "in_progress": not over,
        "is_complete": over,
        "is_success": over,
        "is_error": False,
        "is_cancelled": False,
        "run_steps": [],
    }
    status = {"code": 200, "is_success": True, "user_message": "Success!", "developer_message": ""}
    return _answer({"status": status, "data": data}, number)


_DBT_EMPTY = (
    *("status_message", "trigger", "job", "environment", "repository", "deferring_run_id", "artifact_s3_path"),
    *("owner_thread_id", "executed_by_thread_id", "notifications_sent", "blocked_by", "scribe_enabled"),
    *("dequeued_at", "last_checked_at", "last_heartbeat_at", "should_start_at", "has_docs_generated"),
)
_DBT_DURATIONS = ("duration", "queued_duration", "run_duration", "duration_humanized", "run_duration_humanized")


def databricks(asked: Asked, jobs: Jobs) -> Answer:
    """GET /api/2.2/jobs/runs/get."""
    identifier = json.loads(asked.body or b"{}").get("run_id")
    if asked.path != "/api/2.2/jobs/runs/get" or identifier is None or (number := jobs.number(identifier)) is None:
        return NOT_FOUND
    over = jobs.over(number, asked.now)
    state = {
        "life_cycle_state": "TERMINATED" if over else "RUNNING",
        **({"result_state": "SUCCESS"} if over else {}),
        "state_message": "" if over else "In run",
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


def airbyte(asked: Asked, jobs: Jobs) -> Answer:
    """GET /v1/jobs/{jobId}, and POST /v1/applications/token before."""
    if (asked.method, asked.path) == ("POST", "/v1/applications/token"):
        return _answer({"access_token": "made-up", "token_type": "Bearer", "expires_in": 900})
    found = re.fullmatch(r"/v1/jobs/(\d+)", asked.path)
    if found is None or (number := jobs.number(found[1])) is None:
        return NOT_FOUND
    over = jobs.over(number, asked.now)
    return _answer(
        {
            "jobId": FIRST_ID + number,
            "status": "succeeded" if over else "running",
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


def fivetran(asked: Asked, jobs: Jobs) -> Answer:
    """GET /v1/connectors/{connector_id}."""
    found = re.fullmatch(r"/v1/connectors/connector_(\d+)", asked.path)
    if found is None or (number := jobs.number(found[1])) is None:
        return NOT_FOUND
    over = jobs.over(number, asked.now)
    data = {
        "id": f"connector_{FIRST_ID + number}",
        "service": "postgres",
        "schema": "a_schema",
        "paused": False,
        "status": {
            "setup_state": "connected",
            "schema_status": "ready",
            "sync_state": "scheduled" if over else "syncing",
            "update_state": "on_schedule",
            "is_historical_sync": False,
            "tasks": [],
            "warnings": [],
        },
        "config": {"host": "database.example.com", "port": 5432, "user": "a", "update_method": "XMIN"},
        "daily_sync_time": "14:00",
        "succeeded_at": _NOW if over else _LONG_AGO,
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
    GET /v1/runs/{run_id} and GET /v1/runs.

    Written by the views, and refused by the checks, of the fake that tests/contract compares with a real server.
    """

    def __init__(self) -> None:
        self._known: tuple[Jobs, SkyvernRuns] | None = None

    def __call__(self, asked: Asked, jobs: Jobs) -> Answer:
        """Answer; the runs are made when a measurement's first request arrives."""
        if self._known is None or self._known[0] is not jobs:
            self._known = jobs, SkyvernRuns(jobs)
        runs = self._known[1]
        try:
            if asked.path == "/v1/runs":
                return runs.listed(asked)
            return runs.one(asked)
        except Refusal as refusal:
            return Answer(refusal.response.content, refusal.response.status_code)


class SkyvernRuns:
    """The runs of one measurement, each written down once per status."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._rows: dict[tuple[int, bool], bytes] = {}
        self._views: dict[tuple[int, bool], bytes] = {}
        self._active: tuple[float, list[int]] = (-1.0, [])

    @cached_property
    def _workflow(self) -> Workflow:
        output = {"fetch_output": {"status_code": 200}, "extracted_information": [{"invoice": "4711"}]}
        made = datetime(2026, 11, 22, 20, 0, tzinfo=timezone.utc)
        return Workflow("wpid_600000000000000001", "fetch invoices", ("running", "completed"), output, made)

    def _run(self, number: int, *, over: bool) -> Run:
        made = self._workflow
        run_id = f"wr_{FIRST_ID + number}"
        parameters = {"vendor": "ACME", "month": "2026-10"}
        return Run(run_id, made, parameters, {}, None, made.created_at, request={}, step=1 if over else 0)

    def one(self, asked: Asked) -> Answer:
        """Answer GET /v1/runs/{run_id}."""
        found = re.fullmatch(r"/v1/runs/wr_(\d+)", asked.path)
        if found is None or (number := self._jobs.number(found[1])) is None:
            return NOT_FOUND
        over = self._jobs.over(number, asked.now)
        if (number, over) not in self._views:
            self._views[number, over] = json.dumps(view(self._run(number, over=over))).encode()
        return Answer(self._views[number, over], looked=(number,))

    def listed(self, asked: Asked) -> Answer:
        """Answer GET /v1/runs; of its filters this server has the status alone."""
        query = parse_qs(asked.query)
        if set(query) - {"page", "page_size", "status"}:
            return Answer(b'{"detail":"this server has no such filter"}', HTTPStatus.NOT_IMPLEMENTED)
        seen = Seen(asked.method, asked.path, query, {}, asked.body)
        page, size = page_of(seen, MOST_PAGES, MOST_ROWS)
        check_statuses(seen, STATUSES)
        if not query.get("status") or "completed" in query["status"]:
            return Answer(b'{"detail":"this server lists active runs only"}', HTTPStatus.NOT_IMPLEMENTED)
        active = self._active_at(asked.now) if "running" in query["status"] else []
        chosen = active[(page - 1) * size : page * size]
        return Answer(b"[%s]" % b",".join(map(self._row, chosen)), looked=chosen)

    def _active_at(self, now: float) -> list[int]:
        if now - self._active[0] > LIST_IS_NEW:
            self._active = now, self._jobs.active(now)
        return self._active[1]

    def _row(self, number: int) -> bytes:
        if (number, False) not in self._rows:
            self._rows[number, False] = json.dumps(row(self._run(number, over=False))).encode()
        return self._rows[number, False]


ROUTES = (
    (re.compile(r"/v1/runs(/.*)?|/v1/workflows.*"), "skyvern"),
    (re.compile(r"/api/v2/accounts/.*"), "dbt-cloud"),
    (re.compile(r"/api/2\.\d/.*"), "databricks"),
    (re.compile(r"/v1/jobs/.*|/v1/applications/token"), "airbyte"),
    (re.compile(r"/v1/connectors/.*"), "fivetran"),
)


def whose(path: str) -> str | None:
    """Tell which service a path belongs to."""
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
