"""
An Airflow on several machines against a real Skyvern, under kills, stalls and repeated messages.

`make test SUITE=distributed`. CeleryExecutor, Redis, PostgreSQL, two schedulers, triggerers, API servers and workers.
Ten tasks wait while everything dies once; others are interrupted at a given moment. Then both servers are asked
what happened, as by `make faults` (`tests/faults/verdict.py` defines the columns): one run per task, none left.

SEED= chooses the order, WAITS= how many wait (10), ONLY= and EVENTS= are parts of names, separated by |, as of
`make faults`; KEEP= names a folder that stays. With DURABLE=0, which turns the operator's protection off, there *are*
duplicates: the suite can see them. Nineteen minutes on two cores that are busy with others.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from random import Random
from typing import TYPE_CHECKING

import pytest

from dev.process import wait_until
from tests.distributed.catalogue import EACH, EVENTS, WAITING
from tests.distributed.cluster import TIMEOUT, Cluster, cluster
from tests.distributed.users import SLOW, User, finished_run
from tests.faults import run
from tests.faults.driver import name_of, say

if TYPE_CHECKING:
    from tests.faults.catalogue import Fault, Way
    from tests.faults.driver import Event, Execution

SEED = int(os.environ.get("SEED") or 1)
WAITS = int(os.environ.get("WAITS") or 10)
DURABLE = os.environ.get("DURABLE", "1") == "1"
LONGEST = 1800.0
PATIENCE = 420.0
PAUSE = 3.0
AT_A_TIME = 6
"""How many of the others are in flight: a worker that is down cannot be struck."""

ROUNDS = 3
"""How often a fault is dealt until it has struck: another one may have ended its worker first."""


def plan(rng: Random) -> list[tuple[Way, Fault]]:
    """Return the waits, then each fault once in one of its ways, in any order."""
    chosen = [fault for fault in EACH if run.named(fault.name, os.environ.get("ONLY", ""))]
    faults = [(rng.choice(fault.ways), fault) for fault in chosen for _ in range(fault.weight)]
    waits: list[tuple[Way, Fault]] = [("deferred", WAITING[place % 2]) for place in range(WAITS)]
    return waits + rng.sample(faults, len(faults))


def chosen_events() -> list[tuple[str, Event]]:
    return [event for event in EVENTS if run.named(event[0], os.environ.get("EVENTS", ""))]


def let_all_happen(driver: Cluster, waits: list[str], ended: threading.Event) -> None:
    """Begin with the events once most of the waits are deferred."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and not ended.is_set():
        if sum(driver.executions[name].row.state == "deferred" for name in waits) >= len(waits) * 0.8:
            break
        time.sleep(1)
    wanted = chosen_events()
    for name, event in driver.rng.sample(wanted, len(wanted)):
        if ended.wait(PAUSE):
            return
        driver.start_what_has_ended()
        driver.befall(name, event)


def spared(driver: Cluster) -> list[Execution]:
    """Return an execution of each fault that has struck none."""
    executions = driver.executions.values()
    struck = {one.fault.name for one in executions if one.hits}
    planned = [one for one in executions if one.fault.hooks or one.fault.orders or one.fault.when_deferred]
    return list({one.fault.name: one for one in planned if one.fault.name not in struck}.values())


@pytest.fixture(scope="module")
def driver() -> Iterator[Cluster]:
    rng = Random(SEED)
    dealt = plan(rng)
    own = [name_of(number) for number, (way, _) in enumerate(dealt) if way == "own"]
    say(f"SEED={SEED}: {len(dealt)} executions")
    with cluster(rng, own, durable=DURABLE) as driver:
        names, ended = driver.plan(dealt), threading.Event()
        events = threading.Thread(target=let_all_happen, args=(driver, names[:WAITS], ended), daemon=True)
        waits = threading.Thread(target=driver.run, args=(names[:WAITS], [], LONGEST), daemon=True)
        waits.start()
        events.start()
        driver.run(names[WAITS:], [], LONGEST, AT_A_TIME)
        for _ in range(ROUNDS - 1):
            again: list[tuple[Way, Fault]] = [(one.way, one.fault) for one in spared(driver) if one.way != "own"]
            driver.run(driver.plan(again, len(driver.executions)), [], LONGEST, AT_A_TIME)
        waits.join()
        ended.set()
        events.join(180)
        run.wait_for_the_last_cancels(driver)
        driver.leaks.look_into_database()
        driver.leaks.look_into_files()
        yield driver


def test_every_task_has_one_run_and_its_result_and_none_is_left(driver: Cluster) -> None:
    assert run.report(driver, durable=DURABLE, deadline=TIMEOUT) == 0


def test_all_that_was_planned_has_happened(driver: Cluster) -> None:
    assert not driver.went_wrong
    assert {name for name, _ in chosen_events()} <= {name for name, _ in driver.event_log}
    assert not [f"{one.run_id} {one.fault.name}: {one.journal}" for one in spared(driver)]


def test_tasks_have_run_on_both_workers_and_those_of_the_queue_on_its_own(driver: Cluster) -> None:
    hosts = driver.hosts()
    say(f"{hosts}")
    deferred = (found for dag_id, found in hosts.items() if dag_id.startswith("faults_deferred"))
    assert set().union(*deferred) == set(driver.cluster.workers)
    assert hosts["faults_queue"] == {"worker-2"}


@pytest.mark.parametrize("api_server", ["api-server", "api-server-2"])
def test_run_page_mark_and_approval_through_each_api_server(driver: Cluster, api_server: str) -> None:
    user = User(driver, api_server)
    waits, asks = user.start("waits", "long_wait"), user.start("asks", "human")
    run_id, asked = user.run_of("waits", waits), user.run_of("asks", asks)
    for path in (f"/ti/waits/{waits}/run/-1", f"/dag_run/waits/{waits}", "/runs"):
        assert run_id in user.airflow.page(path)
    user.airflow.mark("waits", waits, "run", "failed")
    user.wait_status(run_id, "canceled", 30)
    user.approve("asks", asks)
    assert user.airflow.wait_run("asks", asks, timeout=SLOW) == "success"
    assert user.status(asked) == "completed"


def test_a_webhook_that_reaches_both_api_servers_starts_one_dag_run(driver: Cluster) -> None:
    run = finished_run(driver)
    users = [User(driver, name) for name in driver.cluster.api_servers]
    say(f"webhook: {[user.deliver(run) for user in users for _ in range(2)]}")
    runs = "/dags/hooked/dagRuns"
    wait_until("a DAG run", lambda: driver.airflow.request("GET", runs).json()["total_entries"] > 0, SLOW)
    time.sleep(10)
    assert driver.airflow.request("GET", runs).json()["total_entries"] == 1
