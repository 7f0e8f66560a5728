"""
Many finished runs, and a triggerer that is killed; `make test SUITE=events`. Prints its counts.

POSTGRES=0 does the same on SQLite, KILLS=10 kills more often, SEED=2 at other moments.
"""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from dev.process import wait_until
from dev.skyvern_server import SKYVERN_VENV, workflows
from tests.support.events_rig import EventsRig, events_rig

ROOT = Path(__file__).parents[2]
SLOW = 300.0
DELIVERIES, SECONDS = 200, 10.0
FORGED, ROUNDS = 30, 5
KILLS = int(os.environ.get("KILLS", "3"))


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EventsRig]:
    home = tmp_path_factory.mktemp("events")
    with events_rig(home, SKYVERN_VENV, postgres=os.environ.get("POSTGRES") != "0") as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def scheduled(rig: EventsRig) -> str:
    """Skyvern's own schedule for the watched workflow: every five minutes, checked by the last test."""
    path = f"/v1/workflows/{rig.workflows['watched']}/schedules"
    body = {"cron_expression": "*/5 * * * *", "timezone": "UTC", "enabled": True, "name": "five"}
    status, made = rig.skyvern.request("POST", path, body)
    assert status == 200, made
    return path


def body_of(workflow_id: str, number: int) -> dict[str, Any]:
    now = datetime.now(timezone.utc).replace(tzinfo=None).isoformat()
    return {
        "run_id": f"wr_{number:018}",
        "status": "completed",
        "retry_pending": False,
        "workflow_id": workflow_id,
        "created_at": now,
        "finished_at": now,
        "app_url": f"http://localhost:8080/runs/wr_{number:018}",
        "outputs": {"data": "x" * 2000},
    }


@pytest.mark.parametrize("name", ["hooked", "each"])
def test_200_deliveries_in_10_seconds_each_start_one_dag_run(rig: EventsRig, name: str) -> None:
    """Every tenth is delivered twice at the same moment."""
    dag_id = {"hooked": "hooked", "each": "hooked_each"}[name]
    if dag_id == "hooked_each" and rig.airflow.version < (3, 3):
        pytest.skip("partitions by key came with Airflow 3.3")
    bodies = [body_of(rig.workflows[name], number) for number in range(DELIVERIES)]
    began = time.monotonic()

    def deliver(number: int) -> tuple[int, str, float]:
        time.sleep(max(0.0, began + number % DELIVERIES * SECONDS / DELIVERIES - time.monotonic()))
        sent = time.monotonic()
        answer = rig.deliver(bodies[number % DELIVERIES])
        return answer.status_code, answer.json()["result"], time.monotonic() - sent

    numbers = sorted([*range(DELIVERIES), *range(0, DELIVERIES, 10)])
    with ThreadPoolExecutor(len(numbers)) as pool:
        answers = list(pool.map(deliver, numbers))
    took = time.monotonic() - began
    said = Counter((status, result) for status, result, _ in answers)
    seconds = sorted(passed for _, _, passed in answers)
    wanted = [body["run_id"] for body in bodies]
    rig.wait_handed_over(dag_id, wanted, SLOW)
    dag_runs = [len(runs) for runs in rig.events_of(dag_id).values()]
    print(
        f"\n{name}: {len(numbers)} deliveries of {DELIVERIES} runs, answered after {took:.1f} s: {dict(said)}; "
        f"median {seconds[len(seconds) // 2]:.2f} s, slowest {seconds[-1]:.2f} s; {len(dag_runs)} DAG runs "
        f"with {sum(dag_runs)} runs, {time.monotonic() - began:.1f} s after the first delivery"
    )
    assert said == {(200, "event created"): DELIVERIES, (200, "duplicate"): DELIVERIES // 10}
    if name == "each":
        assert set(dag_runs) == {1}


def memory_of(pid: int) -> int:
    """Return how many bytes a process and its children hold for themselves."""
    process = psutil.Process(pid)
    return sum(one.memory_full_info().uss for one in [process, *process.children(recursive=True)])


def test_slow_bodies_with_a_wrong_signature_leave_nothing_in_memory(rig: EventsRig) -> None:
    """Rounds of 30 bodies of 8 MB, which took the API server from 300 MB to 1.45 GB once, for good."""
    body = b" " * (8 * 2**20 - 1)

    def forge(_: int) -> int:
        def slowly() -> Iterator[bytes]:
            for start in range(0, len(body), 2**20):
                time.sleep(0.3)
                yield body[start : start + 2**20]

        headers = {"x-skyvern-signature": "0" * 64, "content-type": "application/json"}
        return httpx.post(rig.receiver, content=slowly(), headers=headers, timeout=120, trust_env=False).status_code

    rig.deliver(b"{", key="not-the-key")  # what the first request loads does not count
    server = rig.airflow.processes["api-server"].pid
    before = memory_of(server)
    with ThreadPoolExecutor(FORGED) as pool:
        answers = Counter(status for _ in range(ROUNDS) for status in pool.map(forge, range(FORGED)))
    at_once = memory_of(server)
    time.sleep(60)
    after = memory_of(server)
    print(
        f"\n{ROUNDS} rounds of {FORGED} bodies: {dict(answers)}; API server {before / 1e6:.0f} MB before, "
        f"{at_once / 1e6:.0f} MB right after, {after / 1e6:.0f} MB a minute later"
    )
    assert set(answers) <= {401, 429, 503}
    assert after - before < 100e6


def test_a_replay_after_a_restart_of_the_api_server_starts_nothing(rig: EventsRig) -> None:
    run_id = rig.start_run("hooked", webhook=True)
    rig.wait_handed_over("hooked", [run_id], SLOW)
    replay = {**rig.finish(run_id), "workflow_id": rig.workflows["hooked"]}
    server = rig.airflow.processes["api-server"]
    server.kill()
    server.start()
    rig.airflow.wait_healthy()
    assert rig.deliver(replay).json()["result"] == "duplicate"
    rig.stays(lambda: rig.handed_over("hooked"), seconds=3)


def test_no_run_is_lost_when_the_triggerer_is_killed_at_any_moment(rig: EventsRig) -> None:
    if rig.airflow.version < (3, 3):
        pytest.skip("nothing is kept for a watcher below Airflow 3.3")
    chance, triggerer = random.Random(int(os.environ.get("SEED", "1"))), rig.airflow.processes["triggerer"]
    log = triggerer.log_path
    watched: list[str] = []
    for number in range(KILLS):
        before = log.read_text().count("runs have finished")
        watched += [rig.start_run("watched") for _ in range(3)]
        if number % 2 == 0:  # soon after an event has left the trigger, else at any moment

            def left(before: int = before) -> bool:
                return log.read_text().count("runs have finished") > before

            wait_until("an event", left, SLOW, interval=0.01)
            time.sleep(chance.uniform(0, 1.5))
        else:
            time.sleep(chance.uniform(0, 6))
        triggerer.kill()
        watched.append(rig.start_run("watched"))
        triggerer.start()
        rig.airflow.wait_healthy()
    wait_until("all handed over", lambda: set(watched) <= set(rig.handed_over("watched")), SLOW, interval=5)
    counts = Counter(run_id for run_id in rig.handed_over("watched") if run_id in watched)
    repeated = sum(number - 1 for number in counts.values())
    print(f"\n{KILLS} kills of the triggerer: {len(watched)} runs, 0 lost, {repeated} handed over again")


def test_a_run_that_skyvern_retries_is_handed_over_once_at_its_end(rig: EventsRig) -> None:
    """The workflow's next version retries; its runs fail after both attempts."""
    definition = workflows(rig.skyvern.peer_url)["retry_policy"]
    workflow_id = rig.workflows["hooked"]
    path = f"/v1/workflows/{workflow_id}"
    status, body = rig.skyvern.request("POST", path, {"json_definition": {"title": "events hooked", **definition}})
    assert status == 200, body
    run_id = rig.start_run("hooked", webhook=True)
    rig.wait_handed_over("hooked", [run_id], SLOW)
    run = rig.finish(run_id)
    assert (run["status"], run["attempt"]) == ("failed", 2)


def test_a_run_that_skyvern_scheduled_is_handed_over(rig: EventsRig, scheduled: str) -> None:
    def by_schedule() -> list[str]:
        return [
            row["workflow_run_id"]
            for row in rig.skyvern.runs_of(rig.workflows["watched"])
            if row["trigger_type"] == "scheduled"
        ]

    wait_until("a run by schedule", lambda: bool(by_schedule()), 400, interval=2)
    rig.wait_handed_over("watched", by_schedule()[-1:], SLOW)
