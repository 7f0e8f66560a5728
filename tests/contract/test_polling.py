"""What the poller builds on: the list of active runs, and that a real server's runs are waited for by it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

import pytest

from airflow_skyvern.client import api
from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.client.sender import AsyncSkyvernClient
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.exceptions import SkyvernRequestError
from airflow_skyvern.limits import LAST_RUNS_PAGE
from airflow_skyvern.polling.poller import RunPoller
from airflow_skyvern.runs.wait import Wait

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call
    from airflow_skyvern.models import ListedRun, RunSnapshot
    from dev.skyvern_server import SkyvernServer
    from tests.contract.conftest import Side

T = TypeVar("T")

ENDINGS = {"wait_5": "completed", "ok_http": "completed", "fail_http": "failed", "terminate": "terminated"}


def active(side: Side) -> dict[str, ListedRun]:
    return {row["run_id"]: row for row in side.send(api.list_active_runs(1))}


def test_a_list_of_active_runs_says_what_waits_read_and_forgets_what_is_over(side: Side) -> None:
    run, over = side.start("long_wait"), side.completed("ok_http")
    side.see(run, "running")
    listed = active(side)
    assert listed[run.run_id] == {
        "run_id": run.run_id,
        "status": "running",
        "attempt": 1,
        "retry_pending": False,
    }
    assert over.run_id not in listed
    snapshot = side.send(api.get_run_snapshot(over.run_id))
    assert (snapshot.status, snapshot.is_final) == ("completed", True)
    assert not hasattr(snapshot, "output")
    side.send(api.cancel_run(run.run_id))
    assert run.run_id not in active(side)
    assert side.send(api.get_run_snapshot(run.run_id)).status == "canceled"


def test_a_run_that_waits_for_its_retry_is_not_listed_as_active(side: Side) -> None:
    run = side.start("retry_policy")
    side.see(run, "failed", when=lambda seen: seen.retry_pending)
    assert run.run_id not in active(side)
    assert not side.send(api.get_run_snapshot(run.run_id)).is_final
    side.send(api.cancel_run(run.run_id))


def test_pages_are_limited_as_the_poller_takes_them_to_be(side: Side) -> None:
    assert side.send(api.list_active_runs(LAST_RUNS_PAGE)) == []
    with pytest.raises(SkyvernRequestError):
        side.send(api.list_active_runs(LAST_RUNS_PAGE + 1))


async def test_the_poller_waits_for_many_runs_of_a_real_server(server: SkyvernServer) -> None:
    started: dict[str, str] = {}
    for workflow, ending in ENDINGS.items():
        for _ in range(8):
            body = {"workflow_id": server.workflow(workflow)}
            status, run = await asyncio.to_thread(server.request, "POST", "/v1/run/workflows", body)
            assert status == 200, run
            started[run["run_id"]] = ending
    sent: Counter[str] = Counter()

    async def connect() -> Settings:
        return Settings(server.api_key, server.base_url)

    class CountingClient(AsyncSkyvernClient):
        async def _exchange(self, call: Call[T]) -> T:
            sent["list" if call.path == "/v1/runs" else "look"] += 1
            return await super()._exchange(call)

    def counting_client(settings: Settings) -> AsyncSkyvernClient:
        return CountingClient(settings, retry=RetryPolicy(attempts=1))

    watcher = RunPoller(connect, make_client=counting_client)
    log, deadline = logging.getLogger(__name__), time.time() + 120

    async def ended(run_id: str) -> RunSnapshot | None:
        return await watcher.wait(Wait(run_id, poll_interval=1, deadline=deadline, log=log))

    runs = await asyncio.gather(*map(ended, started))
    assert {run.run_id: run.status for run in runs if run is not None} == started
    assert sent["list"] >= 1
    assert sent["look"] <= 2 * len(started)
