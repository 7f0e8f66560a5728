"""Skyvern's test of webhooks, and the receiver itself behind a real socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import airflow
import pytest

if airflow.__version__.startswith("2."):
    pytest.skip("the API server came with Airflow 3", allow_module_level=True)

import uvicorn

from airflow_skyvern.finished_runs.webhooks import Limits, Receiver, app
from airflow_skyvern.testing.fake.skyvern import API_KEY

if TYPE_CHECKING:
    from tests.unit.checks.conftest import Check


def refused(batch: Any) -> Any:
    raise AssertionError(f"an event came of a test: {batch}")


@contextmanager
def receiver(key: str) -> Iterator[str]:
    """Serve the receiver with a key, and yield its address."""
    limits = Limits(frozenset({"skyvern_default"}))
    made = app(Receiver(limits, read_key=lambda _: key.encode(), register=refused))
    server = uvicorn.Server(uvicorn.Config(made, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/webhooks/skyvern_default"
    server.should_exit = True
    thread.join()


@pytest.mark.slow
@pytest.mark.usefixtures("in_order")
@pytest.mark.parametrize(
    ("key", "state", "part"),
    [(API_KEY, "ok", "its signature is right"), ("another", "problem", "signs with another key")],
)
def test_skyvern_reaches_the_receiver(check: Check, key: str, state: str, part: str) -> None:
    with receiver(key) as address:
        _, lines = check("--only", "webhooks", "--webhook-url", address)
    (line,) = lines
    assert line["state"] == state
    assert part in line["fact"]
