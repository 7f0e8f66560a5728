"""What this suite drives: an Airflow on several machines, a Skyvern on PostgreSQL, the fault proxy between them."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import sqlalchemy
from sqlalchemy.exc import DBAPIError

from dev.distributed_airflow import DistributedAirflow
from dev.fault_proxy import Exchange, FaultProxy
from dev.postgres import PostgresServer
from dev.process import signal_marked
from dev.redis_server import RedisServer
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer
from tests.distributed.messages import Messages
from tests.faults.driver import TASK, Driver, TaskRow, say, settings_of_the_suite, write_dags

if TYPE_CHECKING:
    from dev.process import Process

DAGS = Path(__file__).parent / "dags"
START_SECONDS = 300.0
WINDOW = 200
LONGEST = 1200.0
"""Seconds for an execution, all tries included."""

TIMEOUT = 600.0
"""The operators' `timeout`: longer than any stall."""

HEARTBEAT = 60
"""Seconds without a heartbeat after which Airflow gives up a task: longer than two busy cores need to start one."""

SETTINGS = {
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": str(HEARTBEAT),
    "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "20",
    "SCHEDULER__TASK_QUEUED_TIMEOUT": "180",  # of messages that a killed worker took; a token lasts as long
    "SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "10",
    "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "20",
    "SKYVERN__WEBHOOK_CONNECTIONS": "skyvern_default",
    "CELERY__OPERATION_TIMEOUT": "60",
    "WORKERS__EXECUTION_API_TIMEOUT": "30",
}
GRACE = 40.0
"""Seconds after which a worker that was asked to end is killed, as Kubernetes does."""


class Cluster(Driver):
    """Drives executions through an Airflow on several machines."""

    longest = LONGEST

    def __init__(
        self, airflow: DistributedAirflow, skyvern: SkyvernServer, proxy: FaultProxy, rng: Random, messages: Messages
    ) -> None:
        self.cluster = airflow
        self.messages = messages
        self.down: set[str] = set()
        super().__init__(airflow, skyvern, proxy, rng, WINDOW)
        self.calm = True

    def rows(self) -> dict[str, TaskRow]:
        """Return the state of every task, as soon as PostgreSQL is there."""
        until = time.monotonic() + 60
        while time.monotonic() < until:
            with contextlib.suppress(DBAPIError):
                return super().rows()
            time.sleep(1)
        return super().rows()

    def worker_of(self, pid: int) -> str | None:
        """Return the worker that a task's process belongs to."""
        with contextlib.suppress(OSError):
            variables = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
            return next((name for name in self.cluster.workers if self.process(name).mark in variables), None)
        return None

    def process(self, name: str) -> Process:
        return self.cluster.processes[name]

    def bring_back(self, name: str) -> None:
        """Start a worker again that was asked to end, once it has; one that takes too long is killed."""
        began = time.monotonic()
        process = self.process(name)
        process.join(GRACE)
        say(f"{name} ended after {time.monotonic() - began:.0f} s")
        process.start()

    def pause(self, names: Iterable[str], seconds: float) -> None:
        """Let components stand still for some seconds, with everything that they have started."""
        marks = [self.process(name).mark for name in names]
        say(f"standing still for {seconds:.0f} s: {', '.join(names)}")
        for mark in marks:
            signal_marked(mark, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            for mark in marks:
                signal_marked(mark, signal.SIGCONT)

    def start_what_has_ended(self) -> None:
        """Start the components again that have given up, as whatever runs them does."""
        for name, process in self.cluster.processes.items():
            if not process.running and name not in self.down:
                say(f"{name} has ended, and is started again")
                process.kill()
                process.start()

    def hosts(self) -> dict[str, set[str]]:
        """Return on which workers the tasks of each DAG have run, as far as Airflow has noted it."""
        query = sqlalchemy.text("SELECT dag_id, hostname FROM task_instance WHERE task_id = :task AND hostname != ''")
        names = {host: name for name, host in self.cluster.hosts.items()}
        found: dict[str, set[str]] = defaultdict(set)
        with self._database.connect() as connection:
            for dag_id, host in connection.execute(query, {"task": TASK}):
                found[dag_id].add(names.get(host, host))
        return found


@contextlib.contextmanager
def cluster(rng: Random, own: Collection[str], *, durable: bool) -> Iterator[Cluster]:
    """
    Start everything.

    :param own: The executions that have a DAG of their own.
    :param durable: Whether retries find the runs of their tasks.
    """
    drivers: list[Cluster] = []

    async def on_request(exchange: Exchange) -> None:
        if drivers:
            await drivers[0].on_request(exchange)

    with contextlib.ExitStack() as stack:
        home = stack.enter_context(_folder())
        postgres, of_skyvern = stack.enter_context(PostgresServer()), stack.enter_context(PostgresServer())
        redis = stack.enter_context(RedisServer())
        skyvern = stack.enter_context(SkyvernServer(home / "skyvern", SKYVERN_VENV, postgres=of_skyvern))
        say("Skyvern is up")
        proxy = stack.enter_context(FaultProxy(skyvern.base_url, skyvern.api_key, on_request))
        airflow_home = home / "airflow"
        env = settings_of_the_suite(airflow_home, durable=durable, timeout=TIMEOUT)
        env |= {f"AIRFLOW__{name}": value for name, value in SETTINGS.items()}
        env["DISTRIBUTED_HOOKED"] = skyvern.workflow("ok_http")
        files = [*write_dags(airflow_home, own), *DAGS.glob("*.py")]
        airflow = stack.enter_context(
            DistributedAirflow(airflow_home, files, env, Path(sys.executable).parent, redis=redis, postgres=postgres)
        )
        for dag_id in ("faults_deferred", "asks", "hooked", *(f"faults_own_{name}" for name in own)):
            airflow.wait_dag(dag_id, START_SECONDS)
        messages = stack.enter_context(Messages(redis.url))
        driver = Cluster(airflow, skyvern, proxy, rng, messages)
        drivers.append(driver)
        driver.new_key(first=True)
        say("everything is up")
        yield driver


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """Return a folder that goes away, unless KEEP names one."""
    kept = os.environ.get("KEEP")
    home = Path(kept or tempfile.mkdtemp(prefix="distributed-")).resolve()
    home.mkdir(parents=True, exist_ok=True)
    try:
        yield home
    finally:
        if not kept:
            shutil.rmtree(home, ignore_errors=True)
