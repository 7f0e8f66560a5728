"""
One Skyvern server in memory, which answers as a real one (1.0.56) does; tests/contract proves it.

With another ``version`` it answers as an older one, see :mod:`airflow_skyvern.testing.fake.older`.

It holds workflows and runs, moves a run one step along its plan at each look, records the requests, and
plays scripted answers: ``fake.next("GET", "/v1/runs/.*", httpx.Response(503), LOST)``.
"""

from __future__ import annotations

import email
import email.policy
import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs, unquote

import httpx

from airflow_skyvern.testing.fake import older, views
from airflow_skyvern.testing.fake.browsers import BROWSER_ROUTES, FakeBrowsers
from airflow_skyvern.testing.fake.checks import (
    STATUSES,
    STATUSES_OF_A_WORKFLOW,
    Refusal,
    check_credentials,
    check_number,
    check_run_parameters,
    check_statuses,
    check_webhook,
    checked_body,
    complaint,
    detail,
    page_of,
)
from airflow_skyvern.testing.fake.records import FINAL, Run, Seen, Step, Workflow, stamp
from airflow_skyvern.testing.fake.resources import RESOURCE_ROUTES, FakeResources
from airflow_skyvern.testing.fake.run_details import RUN_DETAIL_ROUTES, FakeRunDetails
from airflow_skyvern.testing.fake.schedules import SCHEDULE_ROUTES, FakeSchedules
from airflow_skyvern.testing.fake.webhook_test import sent_as_test

API_KEY = "made-up-key-of-the-fake"
VERSION = "1.0.56"
LATER_NAMES = {
    "data": "parameters",
    "webhook_callback_url": "webhook_url",
    "totp_verification_url": "totp_url",
}
STARTED_BY = {"skyvern-ui": "manual", "skyvern-mcp": "mcp"}
"""How the server knows a person's start."""
MOST_PAGES = MOST_ROWS = MOST_CANCELED = 100
MOST_MATCHES = 1000
MOST_TAGGED = 200
MOST_WORKFLOWS, MOST_TAGS = 50, 20


class _Lost:
    """Do what was asked, and lose the answer."""

    def __repr__(self) -> str:
        return "LOST"


LOST = _Lost()
Scripted = httpx.Response | Exception | _Lost | Callable[[], object]
"""
An answer, a failure, or what happens when the request is done and its answer is on its way; where that returns a
response, it takes the place of the answer.
"""


@dataclass
class _Script:
    method: str
    path: re.Pattern[str]
    answers: list[Scripted]


def _json(value: Any) -> httpx.Response:
    """Answer with JSON, also with null, which httpx takes for no body."""
    return httpx.Response(200, content=json.dumps(value), headers={"content-type": "application/json"})


class FakeSkyvern(FakeRunDetails, FakeSchedules, FakeResources, FakeBrowsers):
    """See the module."""

    def __init__(self, version: str = VERSION) -> None:
        self.version = version
        self.api_key = API_KEY
        self.workflows: dict[str, Workflow] = {}
        self.runs: dict[str, Run] = {}
        self.requests: list[Seen] = []
        self.uploads: dict[str, tuple[str, bytes]] = {}
        self.replays: list[str] = []
        self.schedules = {}
        self.sessions, self.profiles = {}, {}
        self.folders, self.credentials, self.idempotency_keys, self.totp_codes = {}, {}, {}, []
        self._scripts: list[_Script] = []
        self._lock = threading.RLock()
        self._last_id = 600_000_000_000_000_000
        self._now = datetime(2026, 11, 22, 20, 0, tzinfo=timezone.utc)

    def workflow(
        self, title: str = "a workflow", plan: Sequence[Step] = ("running", "completed"), **more: Any
    ) -> str:
        """Add a workflow and return its id."""
        more.setdefault("output", {"pause_output": {"success": True}, "extracted_information": []})
        made = Workflow(self._id("wpid"), title, plan, created_at=self._tick(), **more)
        self.workflows[made.workflow_id] = made
        return made.workflow_id

    def run(self, plan: Sequence[Step] = ("running", "completed"), **more: Any) -> str:
        """Add a run of a workflow of its own and return its id."""
        return self._start(self.workflows[self.workflow(plan=plan, **more)], {}, {}).run_id

    def task(self, plan: Sequence[Step] = ("queued", "running", "completed"), **more: Any) -> str:
        """Add a run of a prompt without a workflow and return its id."""
        more.setdefault("output", None)
        made = Workflow(self._id("wpid"), "a prompt", plan, created_at=self._tick(), **more)
        run = Run(self._id("tsk"), made, {}, {}, None, self._tick(), {"prompt": "say hello"})
        self.runs[run.run_id] = run
        return run.run_id

    def next(self, method: str, path: str, *answers: Scripted) -> None:
        """Play these answers, one after the other, for the next requests to this path (a regular expression)."""
        self._scripts.append(_Script(method, re.compile(path), list(answers)))

    def sent(self, method: str, path: str) -> list[Seen]:
        """Return the requests to this path (a regular expression) so far."""
        return [seen for seen in self.requests if seen.method == method and re.fullmatch(path, seen.path)]

    def status(self, run_id: str) -> str:
        """Return a run's status without moving it on."""
        return str(self.runs[run_id].state["status"])

    @property
    def unused(self) -> list[str]:
        """The scripted answers that nothing requested."""
        return [
            f"{script.method} {script.path.pattern}: {left!r}" for script in self._scripts for left in script.answers
        ]

    def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer a request, as httpx.MockTransport and the loopback server want it."""
        with self._lock:
            path, _, query = request.url.raw_path.decode().partition("?")
            content = request.read()
            seen = Seen(request.method, path, parse_qs(query), dict(request.headers), content)
            self.requests.append(seen)
            scripted = self._next_scripted(seen)
            if isinstance(scripted, httpx.Response):
                return httpx.Response(scripted.status_code, headers=scripted.headers, content=scripted.content)
            if isinstance(scripted, Exception):
                raise scripted
            answer = self._answer(seen)
            self._type_codes()
        if isinstance(scripted, _Lost):
            raise httpx.ReadTimeout("the answer was lost", request=request)
        instead = scripted() if scripted is not None else None
        return instead if isinstance(instead, httpx.Response) else answer

    def _type_codes(self) -> None:
        """Let each run that waits for a code take one that has been sent for it."""
        for run in self.runs.values() if self.totp_codes else ():
            run.take_codes(self.totp_codes, datetime.now(timezone.utc))

    def _next_scripted(self, seen: Seen) -> Scripted | None:
        for script in self._scripts:
            if script.method == seen.method and script.path.fullmatch(seen.path) and script.answers:
                return script.answers.pop(0)
        return None

    def _answer(self, seen: Seen) -> httpx.Response:
        handlers = [
            (method, getattr(self, name), match.groups())
            for method, pattern, name in _ROUTES
            if (match := re.fullmatch(pattern, unquote(seen.path)))
            and older.has_route(self.version, method, unquote(seen.path))
        ]
        chosen = [(handler, parts) for method, handler, parts in handlers if method == seen.method]
        if not chosen:
            return httpx.Response(
                405 if handlers else 404, json={"detail": "Method Not Allowed" if handlers else "Not Found"}
            )
        handler, parts = chosen[0]
        try:
            if seen.path != "/v1/version":
                self._check_key(seen.headers.get("x-api-key"))
            result = handler(older.as_taken(self.version, seen), *parts)
        except Refusal as answer:
            return answer.response
        return result if isinstance(result, httpx.Response) else _json(result)

    def _check_key(self, key: str | None) -> None:
        if not key:
            raise detail(403, "Invalid credentials")
        if key != self.api_key:
            raise detail(403, "Could not validate credentials")

    def _post_run(self, seen: Seen) -> Any:
        body = checked_body(seen.content)
        check_webhook(
            body.get("webhook_url"), "webhook_url", "Use an HTTP or HTTPS URL with at most 2083 characters."
        )
        found = self.workflows.get(body["workflow_id"])
        if found is None or found.deleted:
            raise detail(404, f"Workflow not found. workflow_permanent_id={body['workflow_id']}")
        self.check_browser(body)
        if unknown := sorted(set(body.get("file_ids") or ()) - set(self.uploads)):
            raise detail(
                422,
                "These file ids are not available to attach — each must name a file uploaded by this "
                f"organization that is not deleted and not already attached to another run: "
                f"{', '.join(unknown)}",
            )
        return views.view(self._run_of(found, body, seen))

    def _run_of(self, found: Workflow, body: dict[str, Any], seen: Seen, version: int | None = None) -> Run:
        parameters = body.get("parameters") or {}
        try:
            check_run_parameters(found, parameters, version)
        except Refusal:
            if older.leaves_a_failed_run(self.version):
                self._start(replace(found, plan=("failed",)), {}, body).look()
            raise
        check_credentials(found, parameters, self.credentials, version)
        run = self._start(found, parameters, body)
        run.workflow_version = version or found.version
        run.started_by = STARTED_BY.get(seen.headers.get("x-user-agent", ""), "api")
        return run

    def _post_run_of_version(self, seen: Seen, workflow_id: str) -> Any:
        """Skyvern's older address: it runs any version, and answers with ids only."""
        sent, version = json.loads(seen.content), int((seen.query.get("version") or ["0"])[0])
        body = {LATER_NAMES.get(name, name): value for name, value in sent.items()}
        found = self.workflows.get(workflow_id)
        if found is None or found.deleted or version > found.version:
            asked = f", version={version}" if version else ""
            raise detail(404, f"Workflow not found. workflow_permanent_id={workflow_id}{asked}")
        self.check_browser(body)
        run = self._run_of(found, {"workflow_id": workflow_id, **body}, seen, version or None)
        return {"workflow_id": workflow_id, "workflow_run_id": run.run_id}

    def _start(self, workflow: Workflow, parameters: dict[str, Any], body: dict[str, Any]) -> Run:
        tags = {
            key: value for key, value in (body.get("run_metadata") or {}).items() if not key.startswith("skyvern.")
        }
        webhook_url = body.get("webhook_url") or workflow.webhook_url
        run = Run(self._id("wr"), workflow, parameters, tags, webhook_url, self._tick(), body)
        run.occupied_by = self.occupier_of(body.get("browser_session_id"))
        self.runs[run.run_id] = run
        return run

    def _post_task(self, seen: Seen) -> Any:
        """Start a prompt; without a model the server fails it."""
        body = json.loads(seen.content)
        if "prompt" not in body:
            raise complaint("missing", ["body", "prompt"], "Field required", body)
        run = self.runs[self.task(("queued", "failed"), failure_reason="There is no model.")]
        run.request = body
        return views.task_view(run)

    def _get_run(self, seen: Seen, run_id: str) -> Any:
        run = self._run(run_id, f"Task run not found {run_id}")
        if run.workflow.deleted:
            raise detail(404, f"Workflow not found. workflow_permanent_id={run.workflow.workflow_id}")
        run.look()
        if failure := older.unreadable_pause(self.version, run):
            return failure
        return older.with_files(self.version, views.task_view(run) if run.is_task else views.view(run))

    def _get_orphan(self, seen: Seen, run_id: str) -> Any:
        run = self._run(run_id, f"Workflow not found for workflow run {run_id}")
        if run.is_task:
            raise detail(404, f"Workflow not found for workflow run {run_id}")
        run.look()
        view = views.view(run)
        own = {"workflow_id": run.workflow.workflow_id, "workflow_run_id": view.pop("run_id")}
        retried = {"retried_from_workflow_run_id": run.retried_from, "retried_by_workflow_run_id": run.retried_by}
        self._start_with_fallback_credential(run)
        definition = {"workflow": views.workflow_view(run.workflow, run.workflow_version)}
        cost = {"total_steps": view["step_count"], "total_cost": None, "credits_used": 0, "cached_credits_used": 0}
        return {**own, "outputs": view.pop("output"), **retried, **definition, **cost, **view}

    def _start_with_fallback_credential(self, run: Run) -> None:
        """Start another run in place of a failed one, a moment after it was first fetched."""
        failed = run.state["status"] in ("failed", "terminated", "timed_out")
        if failed and run.workflow.fallback_plan and not (run.retried_by or run.retried_from):
            other = self._start(run.workflow, run.parameters, run.request)
            other.retried_from, run.retried_by = run.run_id, other.run_id

    def _run_tags(self, seen: Seen) -> Any:
        ids = [run_id for given in seen.query.get("workflow_run_ids", []) for run_id in given.split(",")]
        if len(set(ids)) > MOST_TAGGED:
            raise detail(400, f"At most {MOST_TAGGED} workflow run IDs may be requested at once")
        tags = {run_id: self.runs[run_id].tags if run_id in self.runs else {} for run_id in ids}
        return {
            "run_tags": {
                run_id: [{"key": key, "value": value} for key, value in sorted(own.items())]
                for run_id, own in tags.items()
            }
        }

    def _cancel(self, seen: Seen, run_id: str) -> Any:
        run = self._run(run_id, f"Run not found {run_id}")
        if run.is_task and run.is_over:
            raise detail(400, _REFUSED_CANCEL[run.state["status"] == "canceled"].format(run.state["status"], run_id))
        if run.is_over and run.webhook_url:
            self.replays.append(run.run_id)
        run.canceled = True
        return None

    def _cancel_many(self, seen: Seen) -> Any:
        ids = list(dict.fromkeys(seen.json["run_ids"]))
        if len(ids) > MOST_CANCELED:
            msg = f"List should have at most {MOST_CANCELED} items after validation, not {len(ids)}"
            ctx = {"field_type": "List", "max_length": MOST_CANCELED, "actual_length": len(ids)}
            raise complaint("too_long", ["body", "run_ids"], msg, ids, **ctx)
        known = [run_id for run_id in ids if run_id in self.runs]
        for run_id in known:
            self._cancel(seen, run_id)
        return {"cancelled": sorted(known), "failed": [run_id for run_id in ids if run_id not in self.runs]}

    def _retry(self, seen: Seen, run_id: str) -> Any:
        run = self._run(run_id, f"Workflow run not found {run_id}")
        if run.workflow.deleted:
            raise detail(404, f"Workflow not found for run {run_id}")
        if run.state["status"] not in FINAL:
            raise detail(400, "Only terminal workflow runs can be retried")
        return views.view(self._start(run.workflow, run.parameters, run.request))

    def _continue(self, seen: Seen, run_id: str) -> Any:
        run = self.runs.get(run_id)
        if run is None or run.state["status"] != "paused":
            raise detail(404, f"Workflow run not found {run_id}")
        run.continued = True
        run.look()
        return None

    def _retry_webhook(self, seen: Seen, run_id: str) -> Any:
        run = self._run(run_id, f"Run {run_id} not found")
        asked = seen.json["webhook_url"] if seen.content else None
        if not run.is_over:
            status = run.state["status"]
            raise detail(400, f"Run {run_id} has not reached a terminal state (status={status}).")
        target = asked or run.webhook_url
        if target is None:
            raise detail(400, "No webhook URL configured for the run.")
        if "://" not in target:
            raise detail(400, "Invalid url: malformed.")
        self.replays.append(run_id)
        answer = {"run_id": run_id, "run_type": "workflow_run", "default_webhook_url": run.webhook_url}
        answered = {"status_code": 200, "latency_ms": 3, "response_body": "{}", "error": None}
        return {**answer, "target_webhook_url": target, "payload": "{}", "headers": {}, **answered}

    def _test_webhook(self, seen: Seen) -> Any:
        return sent_as_test(seen.json["webhook_url"], self.api_key)

    def _list_runs(self, seen: Seen) -> Any:
        page, size = page_of(seen, MOST_PAGES, MOST_ROWS)
        check_statuses(seen, STATUSES)
        search = (seen.query.get("search_key") or [""])[0]
        if search and len(search) < 3:
            msg = "String should have at least 3 characters"
            raise complaint("string_too_short", ["query", "search_key"], msg, search, min_length=3)
        check_number(seen, "workflow_permanent_id", MOST_WORKFLOWS)
        if (search or "workflow_permanent_id" in seen.query) and (page - 1) * size >= MOST_MATCHES:
            words = f"Search pagination is limited to the first {MOST_MATCHES} matches. Use a narrower search."
            raise detail(400, words)
        if "status" in seen.query and page == 1:  # a client that filters by status is polling
            for run in self.runs.values():
                run.look()
        wanted = seen.query.get("workflow_permanent_id")
        rows = [
            run
            for run in self._chosen(seen)
            if not wanted or run.workflow.workflow_id in wanted
            if search in json.dumps(run.parameters) or search in (run.webhook_url or "")
        ]
        return [views.row(run) for run in rows[(page - 1) * size : page * size]]

    def _list_workflow_runs(self, seen: Seen, workflow_id: str) -> Any:
        page, size = page_of(seen)
        check_statuses(seen, STATUSES_OF_A_WORKFLOW)
        start = (seen.query.get("created_at_start") or ["2000-01-01T00:00:00+00:00"])[0]
        end = (seen.query.get("created_at_end") or ["2100-01-01T00:00:00+00:00"])[0]
        rows = [
            run
            for run in self._chosen(seen)
            if run.workflow.workflow_id == workflow_id
            and datetime.fromisoformat(start) <= run.created_at < datetime.fromisoformat(end)
        ]
        return [views.workflow_row(run) for run in rows[(page - 1) * size : page * size]]

    def _chosen(self, seen: Seen) -> list[Run]:
        check_number(seen, "tags", MOST_TAGS)
        statuses, tags = seen.query.get("status"), seen.query.get("tags") or []
        for tag in tags:
            if tag.startswith(":"):
                raise detail(400, f"Invalid tag filter '{tag}'; expected 'label', 'key:*', or 'key:value'.")
        return [
            run
            for run in reversed(self.runs.values())
            if not statuses or run.state["status"] in statuses
            if all(_has_tag(run.tags, tag) for tag in tags)
        ]

    def _list_workflows(self, seen: Seen) -> Any:
        page, size = page_of(seen)
        search = (seen.query.get("search_key") or [""])[0]
        tags, folder = seen.query.get("tags") or [], (seen.query.get("folder_id") or [""])[0]
        inside = self.folders[folder].workflows if folder in self.folders else set()
        rows = [
            made
            for made in reversed(self.workflows.values())
            if search in made.title and not made.deleted
            if made.status in (seen.query.get("status") or ("published", "draft"))
            if all(_has_tag(made.tags, tag) for tag in tags)
            if not folder or made.workflow_id in inside
        ]
        return [views.workflow_view(made) for made in rows[(page - 1) * size : page * size]]

    def _get_workflow(self, seen: Seen, workflow_id: str) -> Any:
        made = self.workflows.get(workflow_id)
        if made is None or made.deleted:
            raise detail(404, f"Workflow not found. workflow_permanent_id={workflow_id}")
        version = int((seen.query.get("version") or ["0"])[0])
        if version > made.version:
            raise detail(404, f"Workflow not found. workflow_permanent_id={workflow_id} version={version}")
        return views.workflow_view(made, version or None)

    def _upload(self, seen: Seen) -> Any:
        head = f"content-type: {seen.headers['content-type']}\r\n\r\n".encode()
        parts = {
            part.get_param("name", header="content-disposition"): part
            for part in email.message_from_bytes(head + seen.content, policy=email.policy.HTTP).iter_parts()
        }
        if "file" not in parts:
            raise complaint("missing", ["body", "file"], "Field required", None)
        days = str(parts["retention_days"].get_payload()).strip() if "retention_days" in parts else None
        if days is not None and not 1 <= int(days) <= 365:
            raise detail(422, "retention_days must be between 1 and 365")
        file_id, name = self._id("file"), str(parts["file"].get_filename())
        self.uploads[file_id] = (name, bytes(parts["file"].get_payload(decode=True)))
        expires = stamp(self._tick() + timedelta(days=int(days))) if days else None
        address = f"file:///artifacts/{file_id}_{name}"
        return {"s3_uri": address, "presigned_url": address, "file_id": file_id, "expires_at": expires}

    def _version(self, seen: Seen) -> Any:
        return {"version": self.version}

    def _run(self, run_id: str, complaint: str) -> Run:
        if run_id not in self.runs:
            raise detail(404, complaint)
        return self.runs[run_id]

    def _id(self, prefix: str) -> str:
        self._last_id += 1
        return f"{prefix}_{self._last_id}"

    def _tick(self) -> datetime:
        self._now += timedelta(seconds=1)
        return self._now


_REFUSED_CANCEL = (
    "Invalid task status transition from {} to canceled for {}",
    "Invalid task status transition to {} for {} because task is already canceled",
)
_ID = "([^/]+)"
_ROUTES = (
    ("POST", "/v1/run/workflows", "_post_run"),
    ("POST", "/v1/run/tasks", "_post_task"),
    ("POST", f"/api/v1/workflows/{_ID}/run", "_post_run_of_version"),
    ("POST", "/v1/runs/cancel", "_cancel_many"),
    ("GET", f"/v1/runs/{_ID}", "_get_run"),
    ("GET", f"/v1/workflows/runs/{_ID}", "_get_orphan"),
    ("GET", "/v1/run-tags", "_run_tags"),
    ("POST", f"/v1/runs/{_ID}/cancel", "_cancel"),
    ("POST", f"/v1/workflows/runs/{_ID}/retry", "_retry"),
    ("POST", f"/v1/workflows/runs/{_ID}/continue", "_continue"),
    ("POST", f"/v1/runs/{_ID}/retry_webhook", "_retry_webhook"),
    ("POST", "/v1/internal/test-webhook", "_test_webhook"),
    ("GET", "/v1/runs", "_list_runs"),
    ("GET", f"/v1/workflows/{_ID}/runs", "_list_workflow_runs"),
    ("GET", "/v1/workflows", "_list_workflows"),
    ("GET", f"/v1/workflows/{_ID}", "_get_workflow"),
    ("POST", "/v1/upload_file", "_upload"),
    ("GET", "/v1/version", "_version"),
    *RUN_DETAIL_ROUTES,
    *SCHEDULE_ROUTES,
    *RESOURCE_ROUTES,
    *BROWSER_ROUTES,
)


def _has_tag(tags: Mapping[str, str], wanted: str) -> bool:
    key, colon, value = wanted.partition(":")
    if not colon:
        return key in tags or key in tags.values()
    return key in tags and value in ("*", tags[key])
