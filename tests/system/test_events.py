"""Finished runs start DAGs: found by the watcher, reported by webhooks, or both."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.events_rig import EventsRig
    from tests.system.conftest import Rig

SLOW = 240.0


pytestmark = pytest.mark.core


@pytest.fixture(scope="module")
def events(rig: Rig) -> EventsRig:
    if not rig.airflow.is_3:
        pytest.skip("assets with watchers came with Airflow 3")
    for dag_id in ("watched", "watched_failures", "hooked", "both"):
        rig.airflow.wait_dag(dag_id)
    return rig.events


@pytest.fixture(scope="module")
def watched(events: EventsRig) -> list[str]:
    """
    Two runs that somebody else has started, one of them canceled; the watcher must be at work before they end.

    The first has a webhook, too: the receiver must leave it to the watcher.
    """
    log = events.airflow.home / "triggerer.log"
    until = time.monotonic() + SLOW
    while log.read_text().count("watching for finished runs") < 3:
        assert time.monotonic() < until, "the watchers do not start"
        time.sleep(0.5)
    completed, canceled = events.start_run("watched", webhook=True), events.start_run("watched")
    status, body = events.skyvern.request("POST", f"/v1/runs/{canceled}/cancel")
    assert status == 200, body
    return [completed, canceled]


def test_a_watcher_starts_its_dag_for_runs_that_somebody_else_started(events: EventsRig, watched: list[str]) -> None:
    events.wait_handed_over("watched", watched, SLOW)
    assert not set(watched) & set(events.handed_over("watched_failures"))


def test_the_tasks_of_that_dag_read_the_list_of_runs(events: EventsRig, watched: list[str]) -> None:
    events.wait_handed_over("watched", watched, SLOW)
    noted: list[str] = []
    for dag_run_id in events.events_of("watched"):
        assert events.airflow.wait_run("watched", dag_run_id, timeout=SLOW) == "success"
        noted += events.airflow.xcom("watched", dag_run_id, "note")
    assert sorted(noted) == sorted(watched)


def test_a_webhook_of_the_real_server_starts_its_dag_once_also_when_it_is_repeated(events: EventsRig) -> None:
    run_id = events.start_run("hooked", webhook=True)
    events.wait_handed_over("hooked", [run_id], SLOW)
    again = events.skyvern.request("POST", f"/v1/runs/{run_id}/retry_webhook", {"webhook_url": events.receiver})
    assert again[0] == 200, again
    assert again[1]["status_code"] == 200
    assert "duplicate" in again[1]["response_body"]
    canceled, _ = events.skyvern.request("POST", f"/v1/runs/{run_id}/cancel")  # which sends the webhook, too
    assert canceled == 200
    events.stays(lambda: events.handed_over("hooked"), seconds=3)


def test_forged_malformed_and_foreign_deliveries_start_nothing(events: EventsRig) -> None:
    run_id = events.start_run("hooked")
    run = {**events.finish(run_id), "workflow_id": events.workflows["hooked"]}
    before = events.handed_over("hooked")
    answers = [
        events.deliver(run, key="not-the-key"),
        events.deliver(run, path="/skyvern/webhooks/skyvern_wrong_key"),
        events.deliver(run, path="/skyvern/webhooks/nobody"),
        events.deliver(b"{", key="not-the-key"),
    ]
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.text for answer in answers} == {'{"detail":"Invalid signature"}'}
    assert events.deliver(b"{").status_code == 400
    assert events.deliver({**run, "workflow_id": "wpid_unknown"}).status_code == 404
    assert events.deliver(b" " * (8 * 1024 * 1024 + 1)).status_code == 413
    old = {**run, "finished_at": "2026-01-01T00:00:00"}
    assert events.deliver(old).json()["result"] == "too old"
    events.stays(lambda: events.handed_over("hooked"), seconds=3)
    assert events.handed_over("hooked") == before
    assert events.deliver(run).json()["result"] == "event created"
    events.wait_handed_over("hooked", [run_id], SLOW)


def test_watcher_and_webhook_together_start_a_dag_once_per_run(events: EventsRig) -> None:
    """The second run has no webhook of its own: the watcher finds it, and lets Skyvern send one."""
    runs = [events.start_run("both", webhook=True), events.start_run("both")]
    dag_ids = ["both", "both_each"] if events.airflow.version >= (3, 3) else ["both"]
    for dag_id in dag_ids:
        events.wait_handed_over(dag_id, runs, SLOW)
    events.stays(lambda: [events.handed_over(dag_id) for dag_id in dag_ids], seconds=8)
    if "both_each" in dag_ids:
        assert [len(run_ids) for run_ids in events.events_of("both_each").values()] == [1, 1]
