"""
One Skyvern server in memory, which answers as a real one (1.0.56) does; tests/contract proves it.

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
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qs, unquote

import httpx

API_KEY = "made-up-key-of-the-fake"
VERSION = "1.0.56"
FINAL = ("completed", "failed", "terminated", "timed_out", "canceled")
STATUSES = (
    "created",
    "queued",
    "running",
    "paused",
    "timed_out",
    "failed",
    "terminated",
    "completed",
    "canceled",
)
STATUSES_OF_A_WORKFLOW = (
    *("created", "queued", "running", "failed", "terminated", "canceled", "timed_out", "completed", "paused"),
)
ORGANIZATION = "o_599983462807843814"
MOST_PAGES = MOST_ROWS = MOST_CANCELED = 100

PROXY_LOCATIONS = (
    *("RESIDENTIAL", "US-CA", "US-NY", "US-TX", "US-FL", "US-WA", "RESIDENTIAL_ES", "RESIDENTIAL_IE"),
    *(
        "RESIDENTIAL_GB",
        "RESIDENTIAL_IN",
        "RESIDENTIAL_JP",
        "RESIDENTIAL_FR",
        "RESIDENTIAL_DE",
        "RESIDENTIAL_NZ",
    ),
    *(
        "RESIDENTIAL_ZA",
        "RESIDENTIAL_AR",
        "RESIDENTIAL_AU",
        "RESIDENTIAL_BR",
        "RESIDENTIAL_TR",
        "RESIDENTIAL_CA",
    ),
    *(
        "RESIDENTIAL_MX",
        "RESIDENTIAL_IT",
        "RESIDENTIAL_NL",
        "RESIDENTIAL_PH",
        "RESIDENTIAL_KR",
        "RESIDENTIAL_SA",
    ),
    *("RESIDENTIAL_ISP", "NONE"),
)

Step = str | Mapping[str, Any]
Handler = Callable[..., httpx.Response]


class _Lost:
    """Do what was asked, and lose the answer."""


LOST = _Lost()
Outcome = httpx.Response | Exception | _Lost | Callable[[], object]
"""
An answer, a failure, or what happens when the request is done and its answer is on its way; where that returns a
response, it takes the place of the answer.
"""


@dataclass
class Workflow:
    """
    A workflow and what its runs will do.

    :param parameters: Types by name; those without a default are required.
    :param plan: The statuses that a run goes through, or mappings with more fields; the last one stays.
    :param output: The output of a run, or a function that makes it from the parameters.
    """

    workflow_id: str
    title: str
    plan: Sequence[Step]
    output: Any
    created_at: datetime
    parameters: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    failure_reason: str | None = None
    errors: Sequence[Mapping[str, Any]] = ()
    labels: Sequence[str] = ("pause",)
    artifacts: Mapping[str, bytes] = field(default_factory=dict)
    webhook_url: str | None = None
    deleted: bool = False


@dataclass
class Run:
    """A run on its way along the plan of its workflow."""

    run_id: str
    workflow: Workflow
    parameters: dict[str, Any]
    tags: dict[str, str]
    webhook_url: str | None
    created_at: datetime
    request: dict[str, Any]
    step: int = -1
    canceled: bool = False
    told_to_go_on: bool = False

    @property
    def state(self) -> dict[str, Any]:
        """Tell status and all that the plan says of this step."""
        if self.step < 0:
            planned: Step = "canceled" if self.canceled else "created"
        else:
            planned = self.workflow.plan[self.step]
        state: dict[str, Any] = {"status": planned} if isinstance(planned, str) else dict(planned)
        state = {"attempt": 1, "retry_pending": False, "next_attempt_at": None, **state}
        if self.canceled:
            state["retry_pending"] = False
            state["status"] = state["status"] if state["status"] in FINAL else "canceled"
        return state

    @property
    def is_over(self) -> bool:
        """Tell whether nothing more will happen."""
        return self.state["status"] in FINAL and not self.state["retry_pending"]

    def look(self) -> None:
        """Go one step further, unless the run is over or waits for a person."""
        paused = self.state["status"] == "paused" and not self.told_to_go_on
        if not self.canceled and not paused and self.step < len(self.workflow.plan) - 1:
            self.step += 1


@dataclass(frozen=True)
class Seen:
    """A request that arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.content)


@dataclass
class _Script:
    method: str
    path: re.Pattern[str]
    outcomes: list[Outcome]


class _Answer(Exception):
    def __init__(self, status: int, body: Any) -> None:
        super().__init__(status)
        self.response = httpx.Response(status, json=body)


def _detail(status: int, detail: Any) -> _Answer:
    return _Answer(status, {"detail": detail})


def _complaint(kind: str, loc: list[Any], msg: str, given: Any, **ctx: Any) -> _Answer:
    """Answer 422 as FastAPI does, which repeats what it was given."""
    item = {"type": kind, "loc": loc, "msg": msg, "input": given}
    return _detail(422, [{**item, "ctx": ctx} if ctx else item])


def _json(value: Any) -> httpx.Response:
    """Answer with JSON, also with null, which httpx takes for no body."""
    return httpx.Response(200, content=json.dumps(value), headers={"content-type": "application/json"})


def _choices(values: Sequence[str]) -> str:
    quoted = [f"'{value}'" for value in values]
    return f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def _stamp(moment: datetime | None) -> str | None:
    return None if moment is None else moment.replace(tzinfo=None).isoformat(timespec="microseconds")


class FakeSkyvern:
    """See the module."""

    def __init__(self) -> None:
        self.api_key = API_KEY
        self.workflows: dict[str, Workflow] = {}
        self.runs: dict[str, Run] = {}
        self.requests: list[Seen] = []
        self.uploads: dict[str, tuple[str, bytes]] = {}
        self.replays: list[str] = []
        self._scripts: list[_Script] = []
        self._lock = threading.RLock()
        self._last_id = 600_000_000_000_000_000
        self._now = datetime(2026, 11, 22, 20, 0, tzinfo=timezone.utc)

    # What tests arrange and ask.

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

    def next(self, method: str, path: str, *outcomes: Outcome) -> None:
        """Play these outcomes, in turn, for the next requests to this path (a regular expression)."""
        self._scripts.append(_Script(method, re.compile(path), list(outcomes)))

    def sent(self, method: str, path: str) -> list[Seen]:
        """Return the requests to this path (a regular expression) so far."""
        return [seen for seen in self.requests if seen.method == method and re.fullmatch(path, seen.path)]

    def status(self, run_id: str) -> str:
        """Return a run's status without moving it on."""
        return str(self.runs[run_id].state["status"])

    @property
    def unused(self) -> list[str]:
        """The scripted outcomes that nothing asked for."""
        return [
            f"{script.method} {script.path.pattern}: {left!r}" for script in self._scripts for left in script.outcomes
        ]

    # The server.

    def handle(self, request: httpx.Request) -> httpx.Response:
        """Answer a request, as httpx.MockTransport and the loopback server want it."""
        with self._lock:
            path, _, query = request.url.raw_path.decode().partition("?")
            content = request.read()
            seen = Seen(request.method, path, parse_qs(query), dict(request.headers), content)
            self.requests.append(seen)
            outcome = self._scripted(seen)
            if isinstance(outcome, httpx.Response):
                return httpx.Response(outcome.status_code, headers=outcome.headers, content=outcome.content)
            if isinstance(outcome, Exception):
                raise outcome
            answer = self._answer(seen)
        if isinstance(outcome, _Lost):
            raise httpx.ReadTimeout("the answer was lost", request=request)
        instead = outcome() if outcome is not None else None
        return instead if isinstance(instead, httpx.Response) else answer

    def _scripted(self, seen: Seen) -> Outcome | None:
        for script in self._scripts:
            if script.method == seen.method and script.path.fullmatch(seen.path) and script.outcomes:
                return script.outcomes.pop(0)
        return None

    def _answer(self, seen: Seen) -> httpx.Response:
        handlers = [
            (method, getattr(self, name), match.groups())
            for method, pattern, name in _ROUTES
            if (match := re.fullmatch(pattern, seen.path))
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
            result = handler(seen, *(unquote(part) for part in parts))
        except _Answer as answer:
            return answer.response
        return result if isinstance(result, httpx.Response) else _json(result)

    def _check_key(self, key: str | None) -> None:
        if not key:
            raise _detail(403, "Invalid credentials")
        if key != self.api_key:
            raise _detail(403, "Could not validate credentials")

    # Runs.

    def _post_run(self, seen: Seen) -> Any:
        body = _checked_body(seen.content)
        found = self.workflows.get(body["workflow_id"])
        if found is None or found.deleted:
            raise _detail(404, f"Workflow not found. workflow_permanent_id={body['workflow_id']}")
        _check_webhook(
            body.get("webhook_url"), "webhook_url", "Use an HTTP or HTTPS URL with at most 2083 characters."
        )
        if session := body.get("browser_session_id"):
            raise _detail(404, f"Browser session {session} does not exist or is not live.")
        if profile := body.get("browser_profile_id"):
            raise _detail(404, f"Browser profile {profile} not found for organization {ORGANIZATION}")
        if unknown := sorted(set(body.get("file_ids") or ()) - set(self.uploads)):
            raise _detail(
                422,
                "These file ids are not available to attach — each must name a file uploaded by this "
                f"organization that is not deleted and not already attached to another run: "
                f"{', '.join(unknown)}",
            )
        _check_parameters(found, body.get("parameters") or {})
        run = self._start(found, body.get("parameters") or {}, body)
        return self._view(run)

    def _start(self, workflow: Workflow, parameters: dict[str, Any], body: dict[str, Any]) -> Run:
        tags = {
            key: value for key, value in (body.get("run_metadata") or {}).items() if not key.startswith("skyvern.")
        }
        webhook_url = body.get("webhook_url") or workflow.webhook_url
        run = Run(self._id("wr"), workflow, parameters, tags, webhook_url, self._tick(), body)
        self.runs[run.run_id] = run
        return run

    def _get_run(self, seen: Seen, run_id: str) -> Any:
        run = self._run(run_id, f"Task run not found {run_id}")
        if run.workflow.deleted:
            raise _detail(404, f"Workflow not found. workflow_permanent_id={run.workflow.workflow_id}")
        run.look()
        return self._view(run)

    def _get_orphan(self, seen: Seen, run_id: str) -> Any:
        run = self._run(run_id, f"Workflow run not found {run_id}")
        run.look()
        view = self._view(run)
        own = {"workflow_id": run.workflow.workflow_id, "workflow_run_id": view.pop("run_id")}
        return {**own, "outputs": view.pop("output"), **view}

    def _run_tags(self, seen: Seen) -> Any:
        ids = [run_id for given in seen.query.get("workflow_run_ids", []) for run_id in given.split(",")]
        known = [self.runs[run_id] for run_id in ids if run_id in self.runs]
        return {
            "run_tags": {
                run.run_id: [{"key": key, "value": value} for key, value in sorted(run.tags.items())] for run in known
            }
        }

    def _cancel(self, seen: Seen, run_id: str) -> Any:
        run = self._run(run_id, f"Run not found {run_id}")
        if run.is_over and run.webhook_url:
            self.replays.append(run.run_id)
        run.canceled = True
        return None

    def _cancel_many(self, seen: Seen) -> Any:
        ids = list(dict.fromkeys(seen.json["run_ids"]))
        if len(ids) > MOST_CANCELED:
            msg = f"List should have at most {MOST_CANCELED} items after validation, not {len(ids)}"
            ctx = {"field_type": "List", "max_length": MOST_CANCELED, "actual_length": len(ids)}
            raise _complaint("too_long", ["body", "run_ids"], msg, ids, **ctx)
        known = [run_id for run_id in ids if run_id in self.runs]
        for run_id in known:
            self._cancel(seen, run_id)
        return {"cancelled": sorted(known), "failed": [run_id for run_id in ids if run_id not in self.runs]}

    def _retry(self, seen: Seen, run_id: str) -> Any:
        run = self._run(run_id, f"Workflow run not found {run_id}")
        if run.workflow.deleted:
            raise _detail(404, f"Workflow not found for run {run_id}")
        if run.state["status"] not in FINAL:
            raise _detail(400, "Only terminal workflow runs can be retried")
        return self._view(self._start(run.workflow, run.parameters, run.request))

    def _continue(self, seen: Seen, run_id: str) -> Any:
        run = self.runs.get(run_id)
        if run is None or run.state["status"] != "paused":
            raise _detail(404, f"Workflow run not found {run_id}")
        run.told_to_go_on = True
        run.look()
        return None

    def _timeline(self, seen: Seen, run_id: str) -> Any:
        run = self._run(run_id, f"Run not found {run_id}")
        return [self._block(run, label) for label in reversed(run.workflow.labels)]

    def _artifacts(self, seen: Seen, run_id: str) -> Any:
        run = self.runs.get(run_id)
        return [] if run is None else [self._artifact(run, name) for name in run.workflow.artifacts]

    def _artifact_content(self, seen: Seen, artifact_id: str) -> Any:
        for run in self.runs.values():
            for name, content in run.workflow.artifacts.items():
                if artifact_id == self._artifact(run, name)["artifact_id"]:
                    return httpx.Response(200, content=content, headers={"content-type": "application/octet-stream"})
        raise _detail(404, f"Artifact not found {artifact_id}")

    def _retry_webhook(self, seen: Seen, run_id: str) -> Any:
        run = self._run(run_id, f"Run {run_id} not found")
        asked = seen.json["webhook_url"] if seen.content else None
        if not run.is_over:
            status = run.state["status"]
            raise _detail(400, f"Run {run_id} has not reached a terminal state (status={status}).")
        target = asked or run.webhook_url
        if target is None:
            raise _detail(400, "No webhook URL configured for the run.")
        if "://" not in target:
            raise _detail(400, "Invalid url: malformed.")
        self.replays.append(run_id)
        answer = {"run_id": run_id, "run_type": "workflow_run", "default_webhook_url": run.webhook_url}
        answered = {"status_code": 200, "latency_ms": 3, "response_body": "{}", "error": None}
        return {**answer, "target_webhook_url": target, "payload": "{}", "headers": {}, **answered}

    # Lists.

    def _list_runs(self, seen: Seen) -> Any:
        page, size = _page(seen, MOST_PAGES, MOST_ROWS)
        _check_statuses(seen, STATUSES)
        search = (seen.query.get("search_key") or [""])[0]
        if search and len(search) < 3:
            msg = "String should have at least 3 characters"
            raise _complaint("string_too_short", ["query", "search_key"], msg, search, min_length=3)
        wanted = seen.query.get("workflow_permanent_id")
        rows = [
            run
            for run in self._chosen(seen)
            if not wanted or run.workflow.workflow_id in wanted
            if search in json.dumps(run.parameters) or search in (run.webhook_url or "")
        ]
        return [self._row(run) for run in rows[(page - 1) * size : page * size]]

    def _list_workflow_runs(self, seen: Seen, workflow_id: str) -> Any:
        page, size = _page(seen)
        _check_statuses(seen, STATUSES_OF_A_WORKFLOW)
        start = (seen.query.get("created_at_start") or ["2000-01-01T00:00:00+00:00"])[0]
        rows = [
            run
            for run in self._chosen(seen)
            if run.workflow.workflow_id == workflow_id and run.created_at >= datetime.fromisoformat(start)
        ]
        return [self._workflow_row(run) for run in rows[(page - 1) * size : page * size]]

    def _chosen(self, seen: Seen) -> list[Run]:
        statuses, tags = seen.query.get("status"), seen.query.get("tags") or []
        for tag in tags:
            if tag.startswith(":"):
                raise _detail(400, f"Invalid tag filter '{tag}'; expected 'label', 'key:*', or 'key:value'.")
        return [
            run
            for run in reversed(self.runs.values())
            if not statuses or run.state["status"] in statuses
            if all(_has_tag(run.tags, tag) for tag in tags)
        ]

    def _list_workflows(self, seen: Seen) -> Any:
        page, size = _page(seen)
        search = (seen.query.get("search_key") or [""])[0]
        rows = [made for made in reversed(self.workflows.values()) if search in made.title and not made.deleted]
        return [self._workflow_view(made) for made in rows[(page - 1) * size : page * size]]

    def _get_workflow(self, seen: Seen, workflow_id: str) -> Any:
        made = self.workflows.get(workflow_id)
        if made is None or made.deleted:
            raise _detail(404, f"Workflow not found. workflow_permanent_id={workflow_id}")
        return self._workflow_view(made)

    # The rest.

    def _upload(self, seen: Seen) -> Any:
        head = f"content-type: {seen.headers['content-type']}\r\n\r\n".encode()
        parts = {
            part.get_param("name", header="content-disposition"): part
            for part in email.message_from_bytes(head + seen.content, policy=email.policy.HTTP).iter_parts()
        }
        if "file" not in parts:
            raise _complaint("missing", ["body", "file"], "Field required", None)
        days = str(parts["retention_days"].get_payload()).strip() if "retention_days" in parts else None
        if days is not None and not 1 <= int(days) <= 365:
            raise _detail(422, "retention_days must be between 1 and 365")
        file_id, name = self._id("file"), str(parts["file"].get_filename())
        self.uploads[file_id] = (name, parts["file"].get_content())
        expires = _stamp(self._tick() + timedelta(days=int(days))) if days else None
        address = f"file:///artifacts/{file_id}_{name}"
        return {"s3_uri": address, "presigned_url": address, "file_id": file_id, "expires_at": expires}

    def _version(self, seen: Seen) -> Any:
        return {"version": VERSION}

    def _run(self, run_id: str, complaint: str) -> Run:
        if run_id not in self.runs:
            raise _detail(404, complaint)
        return self.runs[run_id]

    def _id(self, prefix: str) -> str:
        self._last_id += 1
        return f"{prefix}_{self._last_id}"

    def _tick(self) -> datetime:
        self._now += timedelta(seconds=1)
        return self._now

    # What the server says about things.

    def _view(self, run: Run) -> dict[str, Any]:
        state, made = run.state, run.workflow
        ended, looked = state["status"] in FINAL, run.step >= 0
        output = None
        if ended and state["status"] not in ("timed_out", "canceled"):
            output = made.output(run.parameters) if callable(made.output) else made.output
        files = [self._download(run, name) for name in made.artifacts] if ended else []
        badly = ended and state["status"] not in ("completed", "canceled")
        return {
            "run_id": run.run_id,
            "output": output,
            "downloaded_files": files if looked else None,
            "recording_url": None,
            "recording_archived": False,
            "screenshot_urls": None,
            "failure_reason": made.failure_reason if badly else None,
            **self._times(run),
            "app_url": f"http://localhost:8080/runs/{run.run_id}",
            "browser_session_id": None,
            "browser_profile_id": None,
            "max_screenshot_scrolls": None,
            "script_run": None,
            "errors": (list(made.errors) if badly else []) if looked else None,
            "step_count": 0 if looked else None,
            "run_type": "workflow_run",
            "attempts": [self._attempt(run)] if looked else [],
            "run_with": "agent",
            "ai_fallback": None,
            "script_id": None,
            "browser_seed_source": "fresh",
            "browser_settings_receipt": None,
            "run_request": {"workflow_id": made.workflow_id, "parameters": run.parameters, "title": made.title},
            **state,
        }

    def _times(self, run: Run) -> dict[str, str | None]:
        state, looked = run.state, run.step >= 0
        finished = run.created_at + timedelta(seconds=7) if state["status"] in FINAL else None
        return {
            "created_at": _stamp(run.created_at),
            "modified_at": _stamp(run.created_at),
            "queued_at": _stamp(run.created_at) if looked else None,
            "started_at": _stamp(run.created_at) if looked and state["status"] != "queued" else None,
            "finished_at": _stamp(finished),
        }

    def _attempt(self, run: Run) -> dict[str, Any]:
        state, times = run.state, self._times(run)
        return {
            "attempt_number": state["attempt"],
            "status": state["status"],
            "failure_reason": run.workflow.failure_reason if state["status"] in ("failed", "terminated") else None,
            "error_codes": [],
            "started_at": times["started_at"],
            "finished_at": times["finished_at"],
            "retry_decision": "retry" if state["retry_pending"] else None,
            "decision_reason": None,
            "next_attempt_at": state["next_attempt_at"],
            "webhook_sent_at": None,
        }

    def _row(self, run: Run) -> dict[str, Any]:
        times = self._times(run)
        return {
            "task_run_id": f"tr_{run.run_id[3:]}",
            "run_id": run.run_id,
            "task_run_type": "workflow_run",
            "title": run.workflow.title,
            "started_at": times["started_at"],
            "finished_at": times["finished_at"],
            "created_at": times["created_at"],
            "workflow_permanent_id": run.workflow.workflow_id,
            "workflow_deleted": run.workflow.deleted,
            "script_run": False,
            "trigger_type": "api",
            "created_by": None,
            **run.state,
        }

    def _workflow_row(self, run: Run) -> dict[str, Any]:
        badly = run.state["status"] in ("failed", "terminated", "timed_out")
        return {
            "workflow_run_id": run.run_id,
            "workflow_id": f"w_{run.workflow.workflow_id[5:]}",
            "workflow_permanent_id": run.workflow.workflow_id,
            "organization_id": ORGANIZATION,
            "attempts": [],
            "failure_reason": run.workflow.failure_reason if badly else None,
            "workflow_title": run.workflow.title,
            "trigger_type": "api",
            **self._times(run),
            **run.state,
        }

    def _workflow_view(self, made: Workflow) -> dict[str, Any]:
        parameters = [
            {"parameter_type": "workflow", "key": key, "workflow_parameter_type": kind}
            for key, kind in made.parameters.items()
        ]
        return {
            "workflow_id": f"w_{made.workflow_id[5:]}",
            "organization_id": ORGANIZATION,
            "title": made.title,
            "workflow_permanent_id": made.workflow_id,
            "version": 1,
            "is_saved_task": False,
            "description": None,
            "workflow_definition": {
                "version": 1,
                "parameters": parameters,
                "blocks": [{"label": made.labels[0]}],
            },
            "created_at": _stamp(made.created_at),
            "modified_at": _stamp(made.created_at),
        }

    def _block(self, run: Run, label: str) -> dict[str, Any]:
        block = {
            "workflow_run_id": run.run_id,
            "label": label,
            "status": run.state["status"],
            "error_codes": [],
        }
        times = {"created_at": _stamp(run.created_at), "modified_at": _stamp(run.created_at)}
        return {"type": "block", "attempt": 1, "block": block, "thought": None, "children": [], **times}

    def _artifact(self, run: Run, name: str) -> dict[str, Any]:
        address = f"file:///artifacts/downloads/{run.run_id}/{name}"
        return {
            "created_at": _stamp(run.created_at),
            "artifact_id": f"a_{run.run_id[3:]}{list(run.workflow.artifacts).index(name)}",
            "artifact_type": "download",
            "uri": address,
            "file_size": len(run.workflow.artifacts[name]),
            "run_id": run.run_id,
            "signed_url": address,
            "archived": False,
        }

    def _download(self, run: Run, name: str) -> dict[str, Any]:
        artifact = self._artifact(run, name)
        same = {key: artifact[key] for key in ("artifact_id", "file_size")}
        return {"url": artifact["uri"], "filename": name, "checksum": None, "modified_at": None, **same}


_ID = "([^/]+)"
_ROUTES = (
    ("POST", "/v1/run/workflows", "_post_run"),
    ("POST", "/v1/runs/cancel", "_cancel_many"),
    ("GET", f"/v1/runs/{_ID}", "_get_run"),
    ("GET", f"/v1/workflows/runs/{_ID}", "_get_orphan"),
    ("GET", "/v1/run-tags", "_run_tags"),
    ("POST", f"/v1/runs/{_ID}/cancel", "_cancel"),
    ("POST", f"/v1/workflows/runs/{_ID}/retry", "_retry"),
    ("POST", f"/v1/workflows/runs/{_ID}/continue", "_continue"),
    ("GET", f"/v1/runs/{_ID}/timeline", "_timeline"),
    ("GET", f"/v1/runs/{_ID}/artifacts", "_artifacts"),
    ("GET", f"/v1/artifacts/{_ID}/content", "_artifact_content"),
    ("POST", f"/v1/runs/{_ID}/retry_webhook", "_retry_webhook"),
    ("GET", "/v1/runs", "_list_runs"),
    ("GET", f"/v1/workflows/{_ID}/runs", "_list_workflow_runs"),
    ("GET", "/v1/workflows", "_list_workflows"),
    ("GET", f"/v1/workflows/{_ID}", "_get_workflow"),
    ("POST", "/v1/upload_file", "_upload"),
    ("GET", "/v1/version", "_version"),
)


def _checked_body(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except ValueError:
        raise _complaint("json_invalid", ["body", 0], "JSON decode error", {}, error="Expecting value") from None
    if not isinstance(body, dict):
        msg = "Input should be a valid dictionary or object to extract fields from"
        raise _complaint("model_attributes_type", ["body"], msg, body)
    if "workflow_id" not in body:
        raise _complaint("missing", ["body", "agent_id"], "Field required", body)
    if not isinstance(body["workflow_id"], str):
        raise _complaint(
            "string_type", ["body", "workflow_id"], "Input should be a valid string", body["workflow_id"]
        )
    _check_fields(body)
    return body


def _check_fields(body: dict[str, Any]) -> None:
    if not isinstance(parameters := body.get("parameters") or {}, dict):
        raise _complaint("dict_type", ["body", "parameters"], "Input should be a valid dictionary", parameters)
    location = body.get("proxy_location")
    if isinstance(location, str) and location not in PROXY_LOCATIONS:
        where = ["body", "proxy_location", "str-enum[ProxyLocation]"]
        raise _complaint("enum", where, f"Input should be {_choices(PROXY_LOCATIONS)}", location, expected="…")
    minutes = body.get("max_elapsed_time_minutes")
    if minutes is not None and minutes > 480:
        msg = "Input should be less than or equal to 480"
        raise _complaint("less_than_equal", ["body", "max_elapsed_time_minutes"], msg, minutes, le=480)
    for key, value in (body.get("run_metadata") or {}).items():
        if not isinstance(value, str):
            raise _complaint("string_type", ["body", "run_metadata", key], "Input should be a valid string", value)


def _check_parameters(workflow: Workflow, parameters: Mapping[str, Any]) -> None:
    for key, kind in workflow.parameters.items():
        value = parameters.get(key, workflow.defaults.get(key))
        if value is None:
            raise _detail(400, f"Missing value for parameter {key} in workflow {workflow.workflow_id}")
        if kind == "integer" and not str(value).lstrip("-").isdigit():
            raise _detail(400, f"Invalid workflow parameter. Expected parameter type: {kind}. Value: {value}.")


def _check_webhook(url: str | None, name: str, advice: str) -> None:
    if url is None:
        return
    if re.search(r"\s", url) or url.endswith("://"):
        raise _detail(400, f"Invalid {name}: malformed. {advice}")
    if "://" in url and not url.startswith(("http://", "https://")):
        raise _detail(400, f"Invalid {name}: unsupported scheme. {advice}")


def _check_statuses(seen: Seen, known: Sequence[str]) -> None:
    for index, status in enumerate(seen.query.get("status") or []):
        if status not in known:
            msg = f"Input should be {_choices(known)}"
            raise _complaint("enum", ["query", "status", index], msg, status, expected=_choices(known))


def _page(seen: Seen, most_pages: int | None = None, most_rows: int | None = None) -> tuple[int, int]:
    for name, most in (("page", most_pages), ("page_size", most_rows)):
        value = int((seen.query.get(name) or ["1"])[0])
        if value < 1:
            msg = "Input should be greater than or equal to 1"
            raise _complaint("greater_than_equal", ["query", name], msg, str(value), ge=1)
        if most is not None and value > most:
            msg = f"Input should be less than or equal to {most}"
            raise _complaint("less_than_equal", ["query", name], msg, str(value), le=most)
    return int((seen.query.get("page") or ["1"])[0]), int((seen.query.get("page_size") or ["10"])[0])


def _has_tag(tags: Mapping[str, str], wanted: str) -> bool:
    key, colon, value = wanted.partition(":")
    if not colon:
        return key in tags or key in tags.values()
    return key in tags and value in ("*", tags[key])
