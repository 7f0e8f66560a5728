"""The fake and a real Skyvern server on this machine, behind the same client: every question goes to both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import pytest

from airflow_skyvern.client import api
from airflow_skyvern.client.run_request import RunRequest
from airflow_skyvern.client.sender import SkyvernClient
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer, version_in, workflows
from tests.contract.differences import difference_for

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call
    from airflow_skyvern.models import Run

T = TypeVar("T")

ROOT = Path(__file__).parents[2]
REFUSED = {"body": {"error": "as you asked"}, "response_body": {"error": "as you asked"}, "status_code": 500}


def _ended(label: str, value: Any) -> dict[str, Any]:
    return {f"{label}_output": value, "extracted_information": []}


def _fetched(body: Any) -> dict[str, Any]:
    return _ended("fetch", {"status_code": 200, "body": body, "response_body": body})


def _echo(parameters: Mapping[str, Any]) -> dict[str, Any]:
    defaults = {"count": 3, "flag": False, "ratio": 0.5, "items": ["a", "b"]}
    got = {key: str(value) for key, value in {**defaults, **parameters}.items()}
    return _ended("echo", {"status_code": 200, "body": {"got": got}, "response_body": {"got": got}})


def _loops() -> dict[str, Any]:
    http = {"block_type": "http_request"}

    def month(number: int) -> dict[str, Any]:
        return {**http, "label": "fetch", "current_index": number, "current_value": ("10", "11")[number]}

    def vendor(number: int) -> tuple[dict[str, Any], dict[str, Any]]:
        here = {"current_index": number, "current_value": ("ACME", "Oak")[number]}
        loop = {"block_type": "for_loop", "label": "each_month", "loop_values": ["10", "11"], **here}
        return {**http, "label": "hello", **here}, {**loop, "children": [month(0), month(1)]}

    loop = {"block_type": "for_loop", "label": "each_vendor", "loop_values": ["ACME", "Oak"]}
    return {**loop, "children": [*vendor(0), *vendor(1)]}


FAILED = "http_request block failed. failure reason: HTTP 500: {'error': 'as you asked'}"
SIMULATED: dict[str, dict[str, Any]] = {
    "ok_wait": {"plan": ("running", "completed"), "output": _ended("pause", {"success": True})},
    "ok_http": {"plan": ("running", "completed"), "output": _fetched({"ok": True, "n": 42})},
    "params_http": {
        "plan": ("running", "completed"),
        "output": _echo,
        "parameters": {"name": "string", "count": "integer", "flag": "boolean", "ratio": "float", "items": "json"},
        "defaults": {"count": 3, "flag": False, "ratio": 0.5, "items": ["a", "b"]},
    },
    "fail_http": {
        "plan": ("running", "failed"),
        "output": _ended("refused", REFUSED),
        "failure_reason": FAILED,
        "blocks": [
            {
                "block_type": "http_request",
                "label": "refused",
                "failure_reason": "HTTP 500: {'error': 'as you asked'}",
                "output": REFUSED,
            }
        ],
    },
    "terminate": {
        "plan": ("running", "terminated"),
        "output": {
            "pause_output": {"success": True},
            "stop_output": {"reason": "not today"},
            "extracted_information": [],
        },
        "failure_reason": "terminate block terminated. Reason: not today",
        "errors": [{"error_code": "STOPPED", "reasoning": "not today", "confidence_float": 1.0}],
        "labels": ("pause", "stop"),
    },
    "long_wait": {"plan": ("running",), "parameters": {"note": "string"}, "defaults": {"note": ""}},
    "human": {
        "plan": ("running", "paused", "running", "completed"),
        "output": _ended("ask", {"success": True}),
        "parameters": {"invoice": "string"},
        "defaults": {"invoice": "INV-1"},
        "blocks": [
            {
                "block_type": "human_interaction",
                "label": "ask",
                "recipients": ["a@example.com"],
                "subject": "Invoice INV-1",
                "body": "Please decide.",
                "instructions": "May INV-1 be paid?",
                "positive_descriptor": "Pay",
                "negative_descriptor": "Stop",
            }
        ],
    },
    "loops": {"plan": ("running", "completed"), "output": {}, "blocks": [_loops()]},
    "login_code": {
        "plan": ("running", "failed"),
        "blocks": [{"block_type": "login", "label": "sign_in", "totp_identifier": "ops@example.com"}],
    },
    "retry_policy": {
        "plan": (
            "running",
            {"status": "failed", "retry_pending": True, "next_attempt_at": "2026-11-22T20:19:43.119691"},
        ),
        "output": _ended("refused", REFUSED),
        "failure_reason": FAILED,
    },
    "file_out": {
        "plan": ("running", "completed"),
        "output": _ended("fetch", {"file_name": "report.txt", "file_size": 11, "file_path": "/report.txt"}),
        "artifacts": {"report.txt": b"hello file\n"},
        "blocks": [{"block_type": "http_request", "label": "fetch"}],
    },
}


MOMENT = 15.0
"""Seconds after the end of a run within which its files are listed; an old server never lists them by id."""


@dataclass
class Side:
    """One of the two, and what differs between them."""

    client: SkyvernClient
    http: httpx.Client
    client_with_key: Callable[[str], SkyvernClient]
    new_workflow: Callable[[str], str]
    delete_workflow: Callable[[str], None]
    hook_url: str
    pause: float
    known: dict[str, str]

    def workflow(self, name: str) -> str:
        if name not in self.known:
            self.known[name] = self.new_workflow(name)
        return self.known[name]

    def send(self, call: Call[T]) -> T:
        return self.client.send(call)

    def start(self, name: str, /, options: Mapping[str, Any] | None = None, **parameters: Any) -> Run:
        fields = {"workflow_id": self.workflow(name), "parameters": parameters or None}
        return self.send(api.start_run(RunRequest.of(fields, options)))

    def see(self, run: Run, *statuses: str, when: Callable[[Run], object] = lambda run: True) -> Run:
        """Look until the run is in one of these statuses, and for a moment more until it is as it should be."""
        limit = time.monotonic() + 60
        seen = False
        while (run := self.send(api.get_run(run.run_id))).status not in statuses or not when(run):
            if run.status in statuses and not seen:
                seen, limit = True, min(limit, time.monotonic() + MOMENT)
            is_another_end = run.is_final and run.status not in statuses  # files come a moment after the right one
            has_time = time.monotonic() < limit and not is_another_end
            assert has_time, f"{run.run_id} is {run.status}, not one of {statuses}: {run.failure_reason}"
            time.sleep(self.pause)
        return run

    def until(self, holds: Callable[[], bool]) -> None:
        """Ask until it is so."""
        deadline = time.monotonic() + 10
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(self.pause)

    def completed(self, name: str, /, **parameters: Any) -> Run:
        return self.see(self.start(name, **parameters), "completed", "failed", "terminated")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expect of an older server what it is known to answer otherwise; such a test fails if it does not fail."""
    version = version_in(SKYVERN_VENV)
    for item in items:
        if "/contract/" in item.nodeid and (found := difference_for(item.nodeid, version)) is not None:
            reason = f"Skyvern {version} lacks {found.lacks}"
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SkyvernServer]:
    """A real server; its start takes some 15 seconds."""
    with SkyvernServer(tmp_path_factory.mktemp("skyvern"), SKYVERN_VENV) as running:
        yield running


def _simulated() -> Side:
    fake = FakeSkyvern()

    def client(key: str) -> SkyvernClient:
        return SkyvernClient(Settings(key), transport=httpx.MockTransport(fake.handle))

    return Side(
        client=client(fake.api_key),
        http=httpx.Client(
            base_url="http://skyvern",
            transport=httpx.MockTransport(fake.handle),
            headers={"x-api-key": fake.api_key},
        ),
        client_with_key=client,
        new_workflow=lambda name: fake.workflow(f"rig {name}", **SIMULATED[name]),
        delete_workflow=lambda workflow_id: setattr(fake.workflows[workflow_id], "deleted", True),
        hook_url="http://127.0.0.1:1/hook",
        pause=0,
        known={},
    )


def _real(server: SkyvernServer) -> Side:
    def client(key: str) -> SkyvernClient:
        return SkyvernClient(Settings(key, base_url=server.base_url))

    def new_workflow(name: str) -> str:
        return server.create_workflow(f"rig {name}", workflows(server.peer_url)[name])

    def delete_workflow(workflow_id: str) -> None:
        status, body = server.request("POST", f"/v1/agents/{workflow_id}/delete")
        assert status == 200, body

    return Side(
        client=client(server.api_key),
        http=httpx.Client(base_url=server.base_url, trust_env=False, headers={"x-api-key": server.api_key}),
        client_with_key=client,
        new_workflow=new_workflow,
        delete_workflow=delete_workflow,
        hook_url=f"{server.peer_url}/hook",
        pause=0.1,
        known={},
    )


@pytest.fixture(scope="session", params=["fake", "real"])
def side(request: pytest.FixtureRequest) -> Iterator[Side]:
    chosen = _simulated() if request.param == "fake" else _real(request.getfixturevalue("server"))
    with chosen.client, chosen.http:
        yield chosen


@pytest.fixture
def real(server: SkyvernServer) -> Iterator[Side]:
    """The real server only, for what the fake need not know."""
    side = _real(server)
    with side.client:
        yield side
