"""A set-up in which everything is as it should be, and the command that checks it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.cli import main
from airflow_skyvern.compat.since_3_0 import is_airflow_3
from tests.support.metadata_database import MetadataDatabase, metadata_database
from tests.support.servers import answering

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
    from tests.unit.conftest import Connect

SECTION = "API" if is_airflow_3() else "WEBSERVER"
BASE_URL = f"AIRFLOW__{SECTION}__BASE_URL"

Check = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetadataDatabase]:
    with metadata_database(monkeypatch) as database:
        yield database


@pytest.fixture
def page() -> Iterator[str]:
    """The address of Skyvern's UI."""
    with answering(lambda path, headers: (200, {"content-type": "text/html"}, b"<html>")) as address:
        yield address


@pytest.fixture
def in_order(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, connect: Connect, page: str, monkeypatch: pytest.MonkeyPatch
) -> FakeSkyvern:
    """Let everything be in order."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
    monkeypatch.setenv(BASE_URL, "https://airflow.example.com")
    monkeypatch.setattr("airflow.plugins_manager.get_plugin_info", lambda _: [{"name": "skyvern"}])
    airflow.triggerer(datetime.now(timezone.utc))
    connect(extra={"app_url": page})
    skyvern.run()
    return skyvern


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Check:
    """Run the command, and return its exit status and its lines."""

    def run(*arguments: str) -> tuple[int, list[dict[str, Any]]]:
        status = main(["check", "-o", "json", *arguments])
        printed = capsys.readouterr().out
        return status, json.loads(printed[printed.index("[{") :])

    return run
