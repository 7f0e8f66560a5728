"""The same questions for the fake and for a real Skyvern server: both have to answer alike."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import pytest

from airflow_skyvern import api
from airflow_skyvern.client import Settings, SkyvernClient
from airflow_skyvern.run_request import RunRequest
from dev.skyvern_server import SkyvernServer
from tests.support.fake_skyvern import API_KEY, FakeSkyvern

if TYPE_CHECKING:
    from airflow_skyvern.models import Run

T = TypeVar("T")
ROOT = Path(__file__).parents[2]


@dataclass
class Skyvern:
    """A server, fake or real."""

    client: SkyvernClient
    stranger: SkyvernClient
    """The same server asked with a wrong key."""
    workflow: Callable[[str], str]
    delete_workflow: Callable[[str], object]

    def send(self, call: api.Call[T]) -> T:
        return self.client.send(call)

    def start(self, workflow: str, parameters: Any = None, **options: Any) -> Run:
        fields = {"workflow_id": self.workflow(workflow), "parameters": parameters}
        return self.send(api.run_workflow(RunRequest.of(fields, options)))

    def end(self, workflow: str, parameters: Any = None, **options: Any) -> Run:
        """Run a workflow to its end."""
        run = self.start(workflow, parameters, **options)
        until = time.monotonic() + 60
        while not (seen := self.send(api.get_run(run.run_id))).is_final:
            assert time.monotonic() < until, f"{run.run_id} is {seen.status}"
            time.sleep(0.1)
        return seen

    def status(self, run_id: str) -> str:
        return self.send(api.get_run(run_id)).status


FAKE_WORKFLOWS: dict[str, dict[str, Any]] = {
    "ok_wait": {},
    "wait_5": {},
    "long_wait": {"plan": ["running"], "parameters": {"note": "string"}, "defaults": {"note": ""}},
    "params_http": {
        "parameters": {"name": "string", "count": "integer", "items": "json"},
        "defaults": {"count": 3, "items": ["a", "b"]},
        "output": lambda given: {"echo_output": {"body": {"got": given}}, "extracted_information": []},
        "labels": ["echo"],
    },
    "fail_http": {
        "plan": ["running", "failed"],
        "failure_reason": "http_request block failed. failure reason: HTTP 500: {'error': 'as you asked'}",
        "output": {"refused_output": {"status_code": 500}, "extracted_information": []},
        "labels": ["refused"],
    },
    "terminate": {
        "plan": ["running", "terminated"],
        "failure_reason": "terminate block terminated. Reason: not today",
        "errors": [{"error_code": "STOPPED", "reasoning": "not today", "confidence_float": 1.0}],
        "output": {"stop_output": {"reason": "not today"}, "extracted_information": []},
        "labels": ["stop"],
    },
    "human": {"plan": ["paused", "running", "completed"], "labels": ["ask"]},
    "file_out": {"artifacts": {"report.txt": b"hello file\n"}, "labels": ["fetch"]},
    "retry_policy": {"plan": ["running", {"status": "failed", "retry_pending": True, "next_attempt_at": None}]},
}


def of_fake() -> Skyvern:
    fake = FakeSkyvern()
    transport = httpx.MockTransport(fake.handle)
    ids: dict[str, str] = {}

    def workflow(name: str) -> str:
        if name not in ids:
            ids[name] = fake.workflow(f"rig {name}", **FAKE_WORKFLOWS[name])
        return ids[name]

    def delete(workflow_id: str) -> None:
        fake.workflows[workflow_id].deleted = True

    def client(key: str) -> SkyvernClient:
        return SkyvernClient(Settings(api_key=key), transport=transport, sleep=lambda _: None)

    return Skyvern(client(API_KEY), client("not-the-key"), workflow, delete)


def of_real(server: SkyvernServer) -> Skyvern:
    def client(key: str) -> SkyvernClient:
        return SkyvernClient(Settings(api_key=key, base_url=server.base_url))

    def delete(workflow_id: str) -> None:
        status, body = server.request("POST", f"/v1/agents/{workflow_id}/delete")
        assert status == 200, body

    return Skyvern(client(server.api_key), client("not-the-key"), server.workflow, delete)


@pytest.fixture(scope="session", params=["fake", "real"])
def skyvern(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Skyvern]:
    if request.param == "fake":
        yield of_fake()
        return
    venv = Path(os.environ.get("SKYVERN_VENV", ROOT / ".venvs" / "skyvern"))
    with SkyvernServer(tmp_path_factory.mktemp("skyvern"), venv) as server:
        yield of_real(server)
