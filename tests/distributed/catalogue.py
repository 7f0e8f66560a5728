"""What is done to an Airflow on several machines: to the worker of one execution, and to whatever is in flight."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.distributed.cluster import HEARTBEAT, Cluster
from tests.faults.catalogue import FAULTS, FINAL, HELD, MEDIUM, SHORT, WAITS, Effect, Fault, Hook, Scene, Way
from tests.faults.driver import (
    Driver,
    Event,
    Execution,
    api_server_away,
    say,
    triggerer_killed,
    triggerer_stopped,
    triggerer_terminated,
)

if TYPE_CHECKING:
    from dev.fault_proxy import Exchange

DEFERRED: tuple[Way, ...] = ("deferred",)
WORKER: tuple[Way, ...] = ("worker",)
BOTH: tuple[Way, ...] = ("deferred", "worker")
STALL = HEARTBEAT + 15.0
"""Seconds for which something stands still: past every heartbeat."""

OF_ALL = (
    "stalled before the start",
    "task killed POST answered",
    "supervisor killed POST answered",
    "supervisor killed completing",
    "DAG file removed",
    "DAG deleted",
    "mark failed, deferred",
    "mark success, deferred",
    "clear, deferred",
    "mark failed, running",
    "clear, running",
    "session",
    "session opens, task killed, answered",
    "session closes, task killed",
    "session in use, supervisor killed, POST answered",
    "session in use, clear",
    "session in use, mark failed",
)
"""Faults of `make faults` that meet an Airflow on several machines in another way. Here a supervisor is a process of
Celery's pool."""


# --- the worker of one execution --------------------------------------------------------------------------


def worker_signaled(number: signal.Signals, *, group: bool = False, only_final: bool = False) -> Effect:
    """
    Send a signal to the worker whose task sent a request, before it is answered; the worker comes back.

    :param group: Not to the worker's main process alone, but to all that it has started, as systemd does.
    :param only_final: Only where the run has ended: the task has been resumed, or is about to end.
    """

    async def effect(exchange: Exchange, scene: Scene) -> bool:
        assert isinstance(scene, Execution)
        assert isinstance(scene.driver, Cluster)
        driver, pid = scene.driver, await asyncio.to_thread(exchange.client_pid)
        name = driver.worker_of(pid) if pid is not None else None
        given = await exchange.forward() if only_final else None
        if name is None or name in driver.down or (given and (given.document or {}).get("status") not in FINAL):
            await exchange.reply(given or await exchange.forward())
            return False
        driver.down.add(name)
        scene.note(f"{name} gets {number.name}, {'with its group' if group else 'alone'}")
        process = driver.process(name)
        (process.signal if group else lambda sent: os.kill(process.pid, sent))(number)
        scene.later(asyncio.to_thread(_bring_back, driver, name, scene.fault.name))
        await asyncio.sleep(scene.rng.uniform(0, 1))
        await exchange.reply(given or await exchange.forward())
        return True

    return effect


def _bring_back(driver: Cluster, name: str, why: str) -> None:
    driver.befall(why, lambda _: driver.bring_back(name))
    driver.down.discard(name)


MOMENTS: list[tuple[str, str, int, bool, tuple[Way, ...]]] = [
    ("during a start", "start", 0, False, BOTH),
    ("while waiting", "get", 1, False, WORKER),
    ("at resumption", "get", 0, True, DEFERRED),
]
"""When a worker is signaled: at which request, after how many, whether only at the run's end, in which ways."""


def _worker_faults() -> list[Fault]:
    terms = [
        Fault(
            f"worker SIGTERM {moment}, {'group' if group else 'process'}",
            (Hook(kind, worker_signaled(signal.SIGTERM, group=group, only_final=final), after=after),),
            ways,
            (MEDIUM if kind == "get" and not final else SHORT,),
            patient=True,
        )
        for moment, kind, after, final, ways in MOMENTS
        for group in (False, True)
    ]
    others = [
        ("SIGQUIT", "while waiting", signal.SIGQUIT, False),
        ("SIGKILL", "while waiting", signal.SIGKILL, True),
    ]
    quits = [
        Fault(
            f"worker {name} {when}",
            (Hook("get", worker_signaled(number, group=group), after=1),),
            WORKER,
            (MEDIUM,),
            patient=True,
        )
        for name, when, number, group in others
    ]
    killed_at_start = Hook("start", worker_signaled(signal.SIGKILL, group=True))
    return [
        *terms,
        *quits,
        Fault("worker SIGKILL during a start", (killed_at_start,), BOTH, (MEDIUM,)),
        Fault("worker SIGKILL during a start, in a session", (killed_at_start,), ("session",), (MEDIUM,)),
    ]


WAITING = [Fault("wait", workflows=(length,), ways=DEFERRED) for length in (WAITS, HELD)]
"""Some end while things die, some when all is over."""

EACH: list[Fault] = [
    Fault("dedicated queue", ways=("queue",)),
    Fault("main path", weight=2),
    Fault("long", ways=WORKER, workflows=(MEDIUM,)),
    *_worker_faults(),
    *(fault for fault in FAULTS if fault.name in OF_ALL),
]


# --- what is in flight ------------------------------------------------------------------------------------


def of_cluster(happens: Callable[[Cluster], None]) -> Event:
    """Return an event that needs to know of several machines."""

    def event(driver: Driver) -> None:
        assert isinstance(driver, Cluster)
        happens(driver)

    return event


def messages_again(driver: Cluster) -> None:
    """Every task's newest message is delivered once more, whatever the task does now."""
    sent = [one for one in driver.executions.values() if driver.messages.send_again(one.run_id)]
    say(f"messages sent again: {dict(Counter(str(one.row.state) for one in sent))}")
    for one in sent:
        one.note("its message again")


def messages_again_while_queued(driver: Cluster) -> None:
    """The same, while no worker takes anything, so that resumptions are queued."""
    driver.pause(driver.cluster.workers, 25)
    messages_again(driver)


def scheduler_killed(driver: Cluster) -> None:
    """One scheduler dies; the other one adopts its tasks."""
    process = driver.process(driver.rng.choice(driver.cluster.schedulers))
    process.kill()
    time.sleep(10)
    process.start()


def scheduler_stopped(driver: Cluster) -> None:
    """One scheduler stands still past its heartbeat, and wakes up beside the one that has taken over."""
    driver.pause([driver.rng.choice(driver.cluster.schedulers)], 45)


def worker_stopped(driver: Cluster) -> None:
    """A worker with all its tasks stands still past their heartbeats, and wakes up beside the retries."""
    driver.pause([driver.rng.choice(list(driver.cluster.workers))], STALL)


def api_server_killed(driver: Cluster) -> None:
    """One API server dies; the balancer knows of it by refused connections."""
    process = driver.process(driver.rng.choice(list(driver.cluster.api_servers)))
    process.kill()
    time.sleep(10)
    process.start()


def api_server_killed_in_a_push(driver: Cluster) -> None:
    """An API server dies right when a task pushes an XCom, before or after it has got it."""
    late, killed = driver.rng.random() < 0.5, list[str]()

    async def watch(server: str, chunk: bytes) -> None:
        if killed or not (chunk.startswith(b"POST /execution/xcoms/")):
            return
        killed.append(server)
        if late:
            asyncio.get_running_loop().call_later(0.03, driver.process(server).signal, signal.SIGKILL)
        else:
            driver.process(server).signal(signal.SIGKILL)

    driver.cluster.balancer.watch = watch
    until = time.monotonic() + 60
    while not killed and time.monotonic() < until:
        time.sleep(0.5)
    say(f"killed in a push, {'after' if late else 'before'} the server has it: {killed}")
    for name in killed:
        time.sleep(5)
        driver.process(name).kill()
        driver.process(name).start()
    if not killed:
        raise RuntimeError("no task has pushed anything")


def redis_restarted(driver: Cluster) -> None:
    """The broker is restarted, and workers connect to it again."""
    driver.cluster.redis.restart()
    time.sleep(5)


def redis_killed(driver: Cluster) -> None:
    """The broker dies and comes back with what it had written."""
    driver.cluster.redis.restart(kill=True)
    time.sleep(5)


def postgres_restarted(driver: Cluster) -> None:
    """Airflow's database ends all connections and comes back."""
    assert driver.cluster.postgres is not None
    driver.cluster.postgres.restart()
    time.sleep(15)
    driver.start_what_has_ended()


EVENTS: list[tuple[str, Event]] = [
    ("triggerer SIGKILL", triggerer_killed),
    ("messages again", of_cluster(messages_again)),
    ("triggerer SIGSTOP 40 s", triggerer_stopped),
    ("worker SIGSTOP past the heartbeat", of_cluster(worker_stopped)),
    ("Redis restarted", of_cluster(redis_restarted)),
    ("PostgreSQL restarted", of_cluster(postgres_restarted)),
    ("API server SIGKILL in an XCom push", of_cluster(api_server_killed_in_a_push)),
    ("messages again while queued", of_cluster(messages_again_while_queued)),
    ("scheduler SIGKILL", of_cluster(scheduler_killed)),
    ("scheduler SIGSTOP", of_cluster(scheduler_stopped)),
    ("Redis SIGKILL", of_cluster(redis_killed)),
    ("API server SIGKILL", of_cluster(api_server_killed)),
    ("API server SIGSTOP 45 s", api_server_away),
    ("triggerer SIGTERM", triggerer_terminated),
]
"""In the order of the harm that they could do; a seed shuffles them."""
