"""What is written to Airflow's metrics, read from a statsd socket."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_skyvern import metrics
from airflow_skyvern.compat import internals, since_3_2
from airflow_skyvern.exceptions import SkyvernRunFailed
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.models import FINAL_STATUSES
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.testing.fake.skyvern import LOST, FakeSkyvern
from airflow_skyvern.triggers.run import SkyvernRunTrigger
from tests.support.tasks import FakeTaskInstance, context_of, first_event, run_task

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"
DASHBOARD = PAGE.parent / "assets" / "grafana-dashboard.json"
KINDS = {"c": "counter", "ms": "timer", "g": "gauge"}


class Statsd:
    """A statsd server that keeps what it gets: a name, its kind, its value."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.2)
        self.port = self._socket.getsockname()[1]

    def close(self) -> None:
        self._socket.close()

    def received(self) -> list[tuple[str, str, float]]:
        """Return our metrics that have come since the last call."""
        found: list[tuple[str, str, float]] = []
        while True:
            try:
                packet = self._socket.recv(65536).decode()
            except TimeoutError:
                return found
            for line in packet.splitlines():
                match = re.fullmatch(r"airflow\.(skyvern\.[^:]+):([-\d.]+)\|(\w+)", line)
                if match:
                    found.append((match[1], match[3], float(match[2])))

    def counts(self) -> dict[str, float]:
        """Return how much was counted since the last call, by name."""
        sums: dict[str, float] = {}
        for name, kind, value in self.received():
            if kind == "c":
                sums[name] = sums.get(name, 0) + value
        return sums


@pytest.fixture
def statsd(monkeypatch: pytest.MonkeyPatch) -> Iterator[Statsd]:
    server = Statsd()
    for name, value in {"ON": "True", "HOST": "127.0.0.1", "PORT": str(server.port)}.items():
        monkeypatch.setenv(f"AIRFLOW__METRICS__STATSD_{name}", value)
    forget_stats()
    yield server
    server.close()
    monkeypatch.undo()
    forget_stats()


def forget_stats() -> None:
    """Let Airflow read its configuration of metrics anew, as another process does."""
    since_3_2.stats.cache_clear()
    try:
        state: Any = import_module("airflow.sdk._shared.observability.metrics.stats")
        state._factory = state._backend = None
    except ImportError:
        stats: Any = import_module("airflow.stats").Stats
        stats.instance = None
        del type(stats).factory
        type(stats).__init__(stats)


def operator(workflow_id: str, **arguments: Any) -> SkyvernRunWorkflowOperator:
    defaults: dict[str, Any] = {"task_id": "t", "deferrable": True, "poll_interval": 0.01, "timeout": 10}
    return SkyvernRunWorkflowOperator(workflow_id=workflow_id, **(defaults | arguments))


@pytest.mark.slow
def test_a_run_is_counted_from_its_start_to_its_end(skyvern: FakeSkyvern, statsd: Statsd) -> None:
    workflow = skyvern.workflow(plan=("running", "completed"))
    run_task(lambda: operator(workflow))
    written = statsd.received()
    names = {(name, kind) for name, kind, _ in written}
    host = internals.hostname()
    assert names == {
        ("skyvern.run.started", "c"),
        ("skyvern.run.ended.completed", "c"),
        ("skyvern.run.duration", "ms"),
        ("skyvern.run.end_noticed", "ms"),
        ("skyvern.waits", "g"),
        (f"skyvern.waits.{host}", "g"),
        ("skyvern.request.sent", "c"),
    }
    assert sum(value for name, _, value in written if name == "skyvern.request.sent") == len(skyvern.requests)


@pytest.mark.slow
def test_the_steps_and_credits_of_a_run_are_counted(skyvern: FakeSkyvern, statsd: Statsd) -> None:
    used = {"status": "failed", "step_count": 9, "credits_used": 30, "cached_credits_used": 4}
    workflow = skyvern.workflow(plan=("running", used))
    with pytest.raises(SkyvernRunFailed):
        run_task(lambda: operator(workflow))
    counts = statsd.counts()
    assert (counts["skyvern.run.steps"], counts["skyvern.run.credits"]) == (9, 34)


@pytest.mark.slow
def test_a_run_that_fails_is_counted_as_failed(skyvern: FakeSkyvern, statsd: Statsd) -> None:
    workflow = skyvern.workflow(plan=("running", "failed"))
    with pytest.raises(SkyvernRunFailed):
        run_task(lambda: operator(workflow))
    assert statsd.counts()["skyvern.run.ended.failed"] == 1


@pytest.mark.slow
def test_a_retry_that_finds_its_run_counts_as_resumed(skyvern: FakeSkyvern, statsd: Statsd) -> None:
    workflow, ti = skyvern.workflow(plan=("running", "completed")), FakeTaskInstance()
    ti.max_tries = 1
    operator(workflow, wait_for_completion=False, retries=1).execute(context_of(ti))
    assert statsd.counts()["skyvern.run.started"] == 1
    ti.try_number = 2
    operator(workflow, wait_for_completion=False, retries=1).execute(context_of(ti))
    counts = statsd.counts()
    assert counts["skyvern.run.resumed"] == 1
    assert "skyvern.run.started" not in counts


@pytest.mark.slow
def test_a_start_whose_answer_was_lost_is_a_start(skyvern: FakeSkyvern, statsd: Statsd) -> None:
    workflow = skyvern.workflow(plan=("completed",))
    skyvern.next("POST", "/v1/run/workflows", LOST)
    run_task(lambda: operator(workflow, deferrable=False))
    counts = statsd.counts()
    assert counts["skyvern.run.started"] == 1
    assert counts["skyvern.request.failed"] == 1


def test_the_dashboard_shows_metrics_that_there_are() -> None:
    shown = set(re.findall(r"airflow_(skyvern_[a-z_]+)", DASHBOARD.read_text()))
    ends = {f"{metrics.RUN_ENDED}.{status}" for status in FINAL_STATUSES}
    names = {value for value in vars(metrics).values() if isinstance(value, str) and value.startswith("skyvern.")}
    known = {name.replace(".", "_") for name in (names - {metrics.RUN_ENDED}) | ends}
    assert shown == known


@pytest.mark.slow
def test_failed_requests_are_counted_each_time(skyvern: FakeSkyvern, statsd: Statsd) -> None:
    run_id = skyvern.run(plan=("completed",))
    skyvern.next("GET", "/v1/runs/.*", httpx.Response(503, json={"error": "busy"}))
    SkyvernHook().get_run(run_id)
    assert statsd.counts() == {"skyvern.request.sent": 2, "skyvern.request.failed": 1}


@pytest.mark.slow
def test_an_end_is_noticed_late_by_what_passed_since_it_and_since_the_wait_began(
    skyvern: FakeSkyvern, statsd: Statsd
) -> None:
    run = SkyvernHook().get_run(skyvern.run(plan=("completed",)))
    assert run.finished_at is not None
    ended = run.finished_at.timestamp()
    metrics.end_noticed("c", run)
    metrics.end_noticed("c", run, waiting_since=time.time())
    late, not_late = (value for name, _, value in statsd.received() if name == "skyvern.run.end_noticed")
    assert late == pytest.approx((time.time() - ended) * 1000, abs=1000)
    assert not_late < 1000


@pytest.mark.slow
async def test_the_waits_of_a_triggerer_are_a_gauge(
    skyvern: FakeSkyvern, statsd: Statsd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "GAUGE_INTERVAL", 0.1)
    trigger = SkyvernRunTrigger(skyvern.run(plan=("running",)), "skyvern_default", 5.0, time.time() + 60)
    waits = [asyncio.create_task(first_event(trigger)) for _ in range(3)]
    await asyncio.sleep(1.3)
    gauges = [value for name, _, value in statsd.received() if name == "skyvern.waits"]
    assert len(gauges) >= 2
    assert set(gauges) == {3.0}
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    assert [value for name, _, value in statsd.received() if name == "skyvern.waits"][-1] == 0.0


def test_metrics_that_cannot_be_written_harm_nobody(skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Any:
        raise OSError("no metrics today")

    monkeypatch.setattr(since_3_2, "stats", broken)
    workflow = skyvern.workflow(plan=("completed",), output={"sum": 1})
    assert run_task(lambda: operator(workflow)) == {"sum": 1}


def test_the_page_lists_every_metric_and_no_other() -> None:
    listed = {
        re.sub(r"\.<\w+>", "", name) for name in re.findall(r"^\| `(skyvern\.[^`]+)`", PAGE.read_text(), re.MULTILINE)
    }
    written = {value for name, value in vars(metrics).items() if name.isupper() and str(value).startswith("skyvern.")}
    assert listed == written
