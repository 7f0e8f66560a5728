"""A real S3 server, a real Skyvern behind a proxy that may cut what it sends, and Airflow's connections to them."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dev.fault_proxy import Exchange, FaultProxy
from dev.object_store import S3Server
from dev.peer import statement
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer

ROOT = Path(__file__).parents[2]
KEY = "made-up-key-of-airflow"
BUCKET = "invoices"
LARGE, HUGE = "30MB", "200MB"

Handler = Callable[[Exchange], Awaitable[None]]


async def forward(exchange: Exchange) -> None:
    """Do nothing, so the proxy forwards the request."""


@dataclass
class Rig:
    """The servers, and what the tests ask of them."""

    s3: S3Server
    skyvern: SkyvernServer
    proxy: FaultProxy
    connections: dict[str, str]
    on_content: Handler = forward

    @property
    def transfers(self) -> int:
        """How many files Airflow has asked for, or parts of files."""
        return self.proxy.requests["content"]

    def run_of(self, vendor: str, size: str) -> str:
        """Let Skyvern download a vendor's statement, and return the run when it is over."""
        parameters = {"vendor": vendor, "size": size}
        body = {"workflow_id": self.skyvern.workflow("vendor"), "parameters": parameters}
        status, run = self.skyvern.request("POST", "/v1/run/workflows", body)
        assert status == 200, run
        path, until = f"/v1/runs/{run['run_id']}", time.monotonic() + 120
        while (run := self.skyvern.request("GET", path)[1])["status"] not in {"completed", "failed"}:
            assert time.monotonic() < until, run["status"]
            time.sleep(0.2)
        assert run["status"] == "completed", run["failure_reason"]
        return str(run["run_id"])

    def checksum(self, name: str) -> str:
        return hashlib.sha256(self.s3.read(BUCKET, name)).hexdigest()


def expected(vendor: str, size: str) -> str:
    """The checksum of a vendor's statement."""
    return hashlib.sha256(statement(vendor, size)).hexdigest()


def connections(skyvern: str, s3: S3Server) -> dict[str, str]:
    """Return the environment that gives Airflow its connections."""
    given: dict[str, dict[str, Any]] = {
        "SKYVERN_DEFAULT": {"conn_type": "skyvern", "host": skyvern, "password": KEY},
        "S3": s3.connection,
        "AWS_DEFAULT": s3.connection,  # for addresses that name it
    }
    return {f"AIRFLOW_CONN_{name}": json.dumps(connection) for name, connection in given.items()}


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    with S3Server() as server:
        server.create(BUCKET)
        yield server


@pytest.fixture(scope="session")
def session_rig(s3: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    async def handle(exchange: Exchange) -> None:
        if exchange.kind == "content":
            await found.on_content(exchange)

    home = tmp_path_factory.mktemp("skyvern")
    with (
        pytest.MonkeyPatch.context() as patch,
        SkyvernServer(home, SKYVERN_VENV) as skyvern,
        FaultProxy(skyvern.base_url, skyvern.api_key, handle) as proxy,
    ):
        proxy.keys.add(KEY)
        found = Rig(s3, skyvern, proxy, connections(proxy.url, s3))
        for name, value in found.connections.items():
            patch.setenv(name, value)
        yield found


@pytest.fixture
def rig(session_rig: Rig) -> Rig:
    """The rig, whose proxy forwards everything."""
    session_rig.on_content = forward
    return session_rig


@pytest.fixture(scope="session")
def small_run(session_rig: Rig) -> str:
    """A run that has downloaded a file of 1 KB."""
    return session_rig.run_of("Small", "1KB")


@pytest.fixture(scope="session")
def large_run(session_rig: Rig) -> str:
    """A run that has downloaded a file of 30 MB: six parts of an upload."""
    return session_rig.run_of("Large", LARGE)


@pytest.fixture(scope="session")
def huge_run(session_rig: Rig) -> str:
    """A run that has downloaded a file of 200 MB."""
    return session_rig.run_of("Huge", HUGE)
