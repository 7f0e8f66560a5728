"""Runs the executions: starts DAG runs, applies their faults, and lets events befall everything that is in flight."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import secrets
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, ClassVar

import httpx
import sqlalchemy
import tenacity

from dev.airflow_server import DATABASE, AirflowServer
from dev.process import MARK, RigError
from tests.faults.catalogue import (
    GATEWAY,
    HELD,
    ITEM,
    LATE,
    LONG,
    MEDIUM,
    NOT_SKYVERNS,
    ROAD,
    SHORT,
    STEADY,
    WAITS,
    Effect,
    Fault,
    Hook,
    Kind,
    UserAction,
    Way,
    by_gateway,
)
from tests.faults.kinds import ITEM_PARAMETER, kind_of, made, without_browser, write_file
from tests.faults.leaks import Leaks

if TYPE_CHECKING:
    from dev.fault_proxy import Exchange, FaultProxy
    from dev.postgres import PostgresServer
    from dev.skyvern_server import SkyvernServer

PATIENTLY = tenacity.Retrying(
    retry=tenacity.retry_if_exception_type(httpx.ConnectError),
    wait=tenacity.wait_fixed(1),
    stop=tenacity.stop_after_delay(180),
    reraise=True,
)
"""For a request of the suite's own, while the server that was killed starts again; nothing was sent then."""

TASK = "run"
CONNECTION = "skyvern_default"
OVER = ("success", "failed", "skipped", "upstream_failed", "removed")
RUN_SECONDS = {SHORT: 10, MEDIUM: 60, STEADY: 110, LATE: 140, WAITS: 240, HELD: 400, LONG: 900}
OPERATOR_TIMEOUT = 80.0
LOST_START_TIMEOUT = 20.0
CLIENT_TIMEOUT = 8.0
LONGEST = 600.0
"""Seconds for an execution, all tries and faults included, after which it counts as stuck."""

WITNESSES = 8
FEW = 3
PAUSE = 4.0
PATIENCE = 10.0
"""Seconds between two events, and for which the next one waits for so many executions to be in flight."""

KILL_SECONDS = 10.0
"""Seconds after which a worker's task has heard of a kill, been asked to end, and been ended."""

STALL_SECONDS = 200.0
"""Seconds after which a process that stands still is woken, even if no retry has acted beside it."""

ABANDONED_SECONDS = 45.0
"""Seconds after which an execution is over whose DAG is gone: Airflow does not end its task."""

SPOILED_LISTS = 0.3
"""The part of the lists of active runs, by which triggers wait, that meets a fault on the road."""

STABLE_SECONDS = 3.0
"""Seconds for which a task has to stay as it is before it counts as over."""

LOGIN_PARAMETER = {"parameter_type": "workflow", "key": "login", "workflow_parameter_type": "credential_id"}
CLOSES_WITHIN = 240.0
"""Seconds in which the last teardowns end: a close is retried for three minutes."""

SPOILERS: list[Effect] = [*ROAD.values(), *(by_gateway(given) for given in GATEWAY.values())]

ROOT = Path(__file__).parents[2]
DAGS = Path(__file__).parent / "dags"
SETTINGS = {
    "CORE__PARALLELISM": "24",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    "SCHEDULER__SCHEDULER_ZOMBIE_TASK_THRESHOLD": "30",
    "SCHEDULER__ZOMBIE_DETECTION_INTERVAL": "5",
    "SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "5",
    "SKYVERN__INSTALLATION": "faults",
}


@dataclass(frozen=True)
class TaskRow:
    """A task instance as the metadata database has it."""

    state: str | None
    try_number: int
    max_tries: int


@dataclass
class Execution:
    """One task execution, its fault, and what became of it; the catalogue's effects see it as their scene."""

    name: str
    way: Way
    fault: Fault
    rng: Random
    driver: Driver
    what: Kind = "workflow"
    began: float = 0.0
    row: TaskRow = TaskRow(None, 0, 0)
    since: float = 0.0
    left: list[tuple[Hook, int]] = field(default_factory=list)
    until: dict[int, float] = field(default_factory=dict)
    stalls: dict[str, tuple[float, list[int]]] = field(default_factory=dict)
    acted: float = 0.0
    hits: int = 0
    marked: UserAction | None = None
    cleared: bool = False
    marked_while: str | None = None
    clicked: float = 0.0
    deferred: float = 0.0
    events: list[str] = field(default_factory=list)
    journal: list[str] = field(default_factory=list)
    user_due: float | None = None
    busy: int = 0
    tries: dict[int, float] = field(default_factory=dict)
    struck: float = math.inf
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    started_again: asyncio.Event = field(default_factory=asyncio.Event)
    credential: str = ""
    open_sessions: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.left = [(hook, hook.times) for hook in self.fault.hooks]

    @property
    def dag_id(self) -> str:
        kind = "" if self.what == "workflow" else f"_{self.what}"
        return f"faults_own_{self.name}" if self.way == "own" else f"faults_{self.way}{kind}"

    @property
    def run_id(self) -> str:
        return f"f_{self.name}"

    @property
    def long_workflow(self) -> str:
        return self.driver.workflow_ids[LONG]

    @property
    def over(self) -> bool:
        if self.way == "own" and self.marked and time.time() - self.clicked > OPERATOR_TIMEOUT + ABANDONED_SECONDS:
            return True
        return self.row.state in OVER and self.busy == 0 and time.time() - self.since > STABLE_SECONDS

    def note(self, text: str) -> None:
        """Write down what happened, for the report."""
        self.journal.append(f"{time.time() - self.began:6.1f} s  {text}")

    @property
    def credential_name(self) -> str:
        return f"portal {self.name}"

    def rename_credential(self) -> None:
        name = {"name": f"once {self.credential_name}"}
        status, answer = self.driver.skyvern.request("PATCH", f"/v1/credentials/{self.credential}", name)
        self.driver.create_credential(self.credential_name)
        self.note(f"credential renamed: {status} {answer if status >= 300 else ''}")

    def by_worker(self, pid: int | None) -> bool:
        return pid is not None and self.driver.is_worker(pid)

    async def user(self, action: UserAction) -> None:
        await asyncio.to_thread(self.act, action)

    def later(self, work: Awaitable[None]) -> None:
        self.driver.in_background(work)

    def act(self, action: UserAction) -> None:
        """Click."""
        self.busy += 1
        try:
            state = self.driver.rows()[self.run_id].state
            self.clicked = time.time()
            self.driver.airflow_action(self, action)
            self.note(f"{action} while {state}")
            if action == "clear":
                self.cleared = True
            elif action != "queue":
                self.marked, self.marked_while = action, state
            self.hits += 1
        except Exception as error:  # noqa: BLE001  what Airflow refuses is part of the report
            self.note(f"{action} refused: {error}")
        finally:
            self.busy -= 1

    def update(self, row: TaskRow) -> None:
        """Take note of the task's state."""
        if row != self.row:
            self.note(f"Airflow: {row.state}, try {row.try_number} of group {row.max_tries}")
            self.row, self.since = row, time.time()
            if row.state == "running":
                self.tries.setdefault(row.try_number, self.since)
            if row.state == "deferred":
                self.deferred = self.since
            if row.state == "deferred" and self.fault.when_deferred and self.user_due is None:
                self.user_due = time.time() + self.rng.uniform(0.5, 4)

    async def on_request(self, exchange: Exchange) -> None:
        """Let the first effect that is due have this request."""
        if exchange.kind in ("find", "cancel"):
            self.asked.set()
        if exchange.kind == "start" and exchange.number > 1:
            self.later(self._start_again())
        if exchange.of_task and exchange.kind in ("start", "get"):
            self.acted = time.time()
        for index, (hook, times) in enumerate(self.left):
            begun = time.time() < self.until.get(index, 0.0)
            if not hook.is_for(exchange.kind, begun=begun) or not (times or begun):
                continue
            if begun or exchange.number > hook.after:
                self.left[index] = (hook, 0 if hook.seconds else times - 1)
                if await self._struck(hook, exchange):
                    self._begin(index, hook)
                    self._hit()
                    self.note(f"{exchange.kind} {exchange.number} {exchange.run_id or ''}: {self.fault.name}")
                else:
                    self.left[index] = (hook, times)
                return

    def _hit(self) -> None:
        self.hits += 1
        self.struck = min(self.struck, time.time())

    def seconds_of_later_try(self, when: float) -> float | None:
        """Return for how long a try had run then that began after the fault struck; None if there was none."""
        begun = [began for began in self.tries.values() if self.struck < began <= when]
        return when - max(begun) if begun else None

    def _begin(self, index: int, hook: Hook) -> None:
        if hook.seconds is not None and index not in self.until:
            self.until[index] = time.time() + self.rng.uniform(*hook.seconds)

    async def _start_again(self) -> None:
        await asyncio.sleep(2)
        self.started_again.set()

    def order(self) -> None:
        """Order what happens inside the task's processes."""
        for point, what in self.fault.orders.items():
            (self.driver.orders / f"{self.name}.{point}").write_text(what)

    def wake_all(self) -> None:
        """Let everything go on that still stands still."""
        for _, pids in self.stalls.values():
            wake(pids)

    def look_at_orders(self) -> None:
        """Note which orders were carried out, and wake what stands still when the retry has acted."""
        for point, what in self.fault.orders.items():
            done = self.driver.orders / f"{self.name}.{point}.done"
            if point not in self.stalls and done.exists():
                self.stalls[point] = (time.time(), [int(pid) for pid in done.read_text().split()])
                self._hit()
                self.note(f"{point}: {what}")
                self.busy += what == "stop"
            elif what == "stop" and point in self.stalls and self.stalls[point][1]:
                stopped, pids = self.stalls[point]
                retried = self.acted > stopped + 1 and time.time() > self.acted + 1
                if retried or time.time() > stopped + STALL_SECONDS:
                    self.stalls[point] = (stopped, [])
                    self.note(f"{point}: woken {time.time() - stopped:.0f} s later")
                    self.busy -= 1
                    wake(pids)

    async def _struck(self, hook: Hook, exchange: Exchange) -> bool:
        self.busy += 1
        try:
            return await hook.effect(exchange, self)
        except Exception as error:  # noqa: BLE001  a mistake of the suite has to be seen in the report
            self.note(f"{exchange.kind} {exchange.number}: the suite failed: {error!r}")
            return False
        finally:
            self.busy -= 1


Event = Callable[["Driver"], None]


class Driver:
    """Drives a plan of executions through both servers."""

    longest: ClassVar[float] = LONGEST

    def __init__(
        self, airflow: AirflowServer, skyvern: SkyvernServer, proxy: FaultProxy, rng: Random, window: int
    ) -> None:
        self.airflow = airflow
        self.skyvern = skyvern
        self.proxy = proxy
        self.rng = rng
        self.window = window
        self.executions: dict[str, Execution] = {}
        self.leaks = Leaks(airflow, {skyvern.api_key})
        self.lists = Execution("lists", "deferred", Fault("lists"), Random(rng.random()), self)
        self.events_begun = 0
        self.instead: Effect | None = None
        self.instead_of_starts: Effect | None = None
        self.calm = False
        self.orders = airflow.home / "orders"
        self.orders.mkdir(exist_ok=True)
        self.outages: list[tuple[float, float]] = []
        self.event_log: list[tuple[str, int]] = []
        self.went_wrong: list[str] = []
        self.workflow_ids = {name: self._workflow(seconds) for name, seconds in RUN_SECONDS.items()}
        self.workflow_ids[ITEM] = skyvern.create_workflow("faults item", self._echo())
        self.login_ids = {name: self._workflow(RUN_SECONDS[name], LOGIN_PARAMETER) for name in (SHORT, MEDIUM, LONG)}
        assert airflow.postgres is not None
        self._database = sqlalchemy.create_engine(airflow.postgres.url(DATABASE), pool_pre_ping=True)
        self._background: set[asyncio.Future[None]] = set()
        self._pool = ThreadPoolExecutor(8, thread_name_prefix="driver")

    def _workflow(self, seconds: int, *more: Mapping[str, str]) -> str:
        block = {"block_type": "wait", "label": "pause", "wait_sec": seconds}
        definition = {"workflow_definition": {"parameters": [ITEM_PARAMETER, *more], "blocks": [block]}}
        return self.skyvern.create_workflow(f"faults {seconds} s", definition)

    def _echo(self) -> dict[str, Any]:
        """Return the workflow whose output repeats its parameter."""
        url = f"{self.skyvern.peer_url}/echo"
        block = {"block_type": "http_request", "label": "echo", "method": "POST", "url": url, "timeout": 10}
        echo = {**block, "parameter_keys": ["item"], "body": {"item": "{{ item }}"}}
        return {"workflow_definition": {"parameters": [ITEM_PARAMETER], "blocks": [echo]}}

    @property
    def workflows(self) -> list[str]:
        """The ids of those that the suite has made, and of those that tasks have."""
        return [
            *self.workflow_ids.values(),
            *self.login_ids.values(),
            *(row["workflow_permanent_id"] for row in made(self.skyvern)),
        ]

    # --- the executions ----------------------------------------------------------------------------------

    def plan(self, dealt: list[tuple[Way, Fault]], first: int = 0) -> list[str]:
        """Make executions of what was dealt, numbered from the first, and return their names."""
        new = [
            Execution(name_of(number), way, fault, Random(self.rng.random()), self, kind_of(number, way, fault))
            for number, (way, fault) in enumerate(dealt, first)
        ]
        self.executions |= {execution.name: execution for execution in new}
        return [execution.name for execution in new]

    def run(self, names: list[str], events: list[tuple[str, Event]], longest: float, window: int = 0) -> None:
        """Run these executions, with the events spread over them; not more at a time than the window, if given."""
        todo = [self.executions[name] for name in names]
        stop = threading.Event()
        eventful = threading.Thread(target=self._happen, args=(events, stop), name="events", daemon=True)
        deadline = time.monotonic() + longest
        eventful.start()
        flying: list[Execution] = []
        shown = 0.0
        while (todo or flying) and time.monotonic() < deadline:
            to_come = len(events) - self.events_begun
            spare = len(todo) - len(names) * to_come // (len(events) + 1)
            if len(flying) < WITNESSES:
                spare = max(spare, len(todo) - FEW * to_come)
            fresh = todo[: max(0, min(3, spare, (window or self.window) - len(flying)))]
            del todo[: len(fresh)]
            flying += fresh
            list(self._pool.map(self._start, fresh))
            self._look(flying)
            for one in flying:
                one.look_at_orders()
            flying = [one for one in flying if not one.over and time.time() - one.began < self.longest]
            if time.monotonic() - shown > 15:
                shown = time.monotonic()
                say(f"{len(todo)} to do; in flight: {dict(Counter(str(one.row.state) for one in flying))}")
            time.sleep(0.5)
        stop.set()
        eventful.join(180)
        for one in self.executions.values():
            one.wake_all()
        for one in flying:
            one.note("not over in time")

    def _start(self, execution: Execution) -> None:
        execution.began = execution.since = time.time()
        workflows = [self._run_by(execution, name) for name in execution.fault.workflows]
        conf = {"x": execution.name, "workflows": workflows, "breaks": execution.fault.breaks}
        execution.order()
        try:
            if execution.way == "reschedule":
                conf["run_id"] = self._start_for_sensor(execution, workflows[0])
            if execution.way == "login":
                self._create_credentials(execution)
            self.airflow.trigger(execution.dag_id, conf, run_id=execution.run_id)
        except (RigError, OSError) as error:
            execution.note(f"not started: {error}")

    def _run_by(self, execution: Execution, length: str) -> str:
        """Return what a run of this length is of: a workflow's id, a file, or the page that a prompt opens."""
        if execution.what == "workflow":
            return (self.login_ids if execution.way == "login" else self.workflow_ids)[length]
        seconds = RUN_SECONDS[length]
        if execution.what == "prompt":
            return f"{self.skyvern.peer_url}/slow?s={seconds}"
        return str(write_file(self.airflow.home / "files", int(execution.name), execution.fault, seconds))

    def _start_for_sensor(self, execution: Execution, workflow: str) -> str:
        metadata = {"x": execution.name, "group": "4"}
        body = {"workflow_id": workflow, "run_metadata": metadata}
        send = PATIENTLY.wraps(self.skyvern.request)  # it may have just been killed, and starts again
        status, run = send("POST", "/v1/run/workflows", body)
        if status >= 300:
            raise RigError(f"no run for the sensor: {status} {run}")
        self.proxy.run_owner[run["run_id"]] = execution.name
        return str(run["run_id"])

    def _create_credentials(self, execution: Execution) -> None:
        """Make the credential that the execution names, and some that a search for its name finds, too."""
        name = execution.credential_name
        self.create_credential(f"{name} of others")
        self.create_credential(f"of others {execution.name}", user=name)
        made = [self.create_credential(name) for _ in range(execution.fault.namesakes)]
        execution.credential = made[0] if len(made) == 1 else ""

    def create_credential(self, name: str, *, user: str = "bot") -> str:
        """Make a credential in Skyvern, and return its id."""
        body = {"username": user, "password": secrets.token_hex(8)}
        asked = {"name": name, "credential_type": "password", "credential": body}
        status, made = PATIENTLY.wraps(self.skyvern.request)("POST", "/v1/credentials", asked)
        if status >= 300:
            raise RigError(f"no credential {name!r}: {status} {made}")
        return str(made["credential_id"])

    def _look(self, flying: list[Execution]) -> None:
        rows = self.rows()
        for execution in flying:
            if (row := rows.get(execution.run_id)) is not None:
                execution.update(row)
            elif execution.marked:
                execution.update(TaskRow("removed", execution.row.try_number, execution.row.max_tries))
            if execution.user_due and execution.user_due < time.time() and execution.row.state == "deferred":
                execution.user_due = float("inf")
                assert execution.fault.when_deferred is not None
                self._pool.submit(execution.act, execution.fault.when_deferred)

    def rows(self) -> dict[str, TaskRow]:
        """Return the state of every task of the suite by DAG run."""
        query = sqlalchemy.text(
            "SELECT run_id, state, try_number, max_tries FROM task_instance WHERE task_id = :task"
        )
        with self._database.connect() as connection:
            found = connection.execute(query, {"task": TASK}).fetchall()
        return {row[0]: TaskRow(row[1], row[2], row[3]) for row in found}

    def wait_for_teardowns(self) -> None:
        """Wait until the DAG runs with a session have ended, and note which sessions are open."""
        query = sqlalchemy.text(
            "SELECT count(*) FROM dag_run WHERE dag_id LIKE 'faults_session%' AND state IN ('queued', 'running')"
        )
        until = time.monotonic() + CLOSES_WITHIN
        while time.monotonic() < until:
            with self._database.connect() as connection:
                if not connection.execute(query).scalar():
                    return
            time.sleep(1)

    def find_open_sessions(self) -> list[str]:
        """Note which sessions are open, and return those that nobody could have known."""
        status, rows = self.skyvern.request("GET", "/v1/browser_sessions")
        assert status == 200, rows
        found = {str(row["browser_session_id"]) for row in rows}
        owners = self.proxy.session_owner
        known = {one: owners[one] for one in found - self.proxy.unknown_sessions if one in owners}
        for session_id, name in known.items():
            self.executions[name].open_sessions.append(session_id)
        return sorted(found - set(known))

    def heartbeat_lost(self, execution: Execution) -> bool:
        """Return whether Airflow has ended the last try of a task as no heartbeat came, whatever the task did."""
        query = sqlalchemy.text(
            "SELECT count(*) FROM log WHERE event = 'heartbeat timeout' AND task_id = :task AND run_id = :run_id "
            "AND try_number = :number"
        )
        given = {"task": TASK, "run_id": execution.run_id, "number": execution.row.try_number}
        with self._database.connect() as connection:
            return bool(connection.execute(query, given).scalar())

    def unreachable(self, execution: Execution) -> bool:
        """Return whether Skyvern, or the key, was away in the seconds that Airflow leaves a killed task."""
        clicked = execution.clicked
        return any(began < clicked + KILL_SECONDS and clicked < ended for began, ended in self.outages)

    def was_away(self, began: float, ended: float) -> bool:
        """Return whether Skyvern, or the key, was away from before the one moment until after the other."""
        return any(first <= began and ended <= last for first, last in self.outages)

    def seconds_there(self, began: float, ended: float) -> float:
        """Return for how long, between two moments, Skyvern could be reached with the key."""
        cut = sorted((max(began, first), min(ended, last)) for first, last in self.outages)
        there, at = ended - began, began
        for first, last in cut:
            there -= max(0.0, last - max(at, first))
            at = max(at, last)
        return there

    def airflow_action(self, execution: Execution, action: UserAction) -> None:
        """Do in Airflow what a user does there."""
        dag_id, run_id = execution.dag_id, execution.run_id
        airflow = self.airflow.for_a_user()
        if action == "clear":
            airflow.clear(dag_id, run_id, TASK)
        elif action == "queue":
            airflow.mark_run(dag_id, run_id, "queued")
        elif action == "remove_file":
            (self.airflow.dags / f"{dag_id}.py").unlink()
        elif action == "delete_dag":
            (self.airflow.dags / f"{dag_id}.py").unlink()
            airflow.delete_dag(dag_id)
        else:
            airflow.mark(dag_id, run_id, TASK, action.removeprefix("mark_"))

    async def on_request(self, exchange: Exchange) -> None:
        """Hand a request to its execution; spoil some of the lists, which are of all that wait."""
        if exchange.kind == "create":
            exchange.body = without_browser(exchange.body)
        instead = self.instead_of_starts if exchange.kind == "start" else self.instead
        if instead is not None:
            await instead(exchange, self.lists)
            return
        if exchange.kind == "list" and not self.calm and self.lists.rng.random() < SPOILED_LISTS:
            self.lists.hits += 1
            await self.lists.rng.choice(SPOILERS)(exchange, self.lists)
        execution = self.executions.get(exchange.execution or "")
        if execution is not None:
            if exchange.kind in ("start", "cancel", "find", "create", "update"):
                execution.note(f"{exchange.kind} {exchange.number} {exchange.run_id or ''} arrives")
            await execution.on_request(exchange)

    def is_worker(self, pid: int) -> bool:
        """Return whether a process is a task's."""
        with contextlib.suppress(OSError):
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            return any(f"{MARK}={mark}".encode() in variables for mark in self.airflow.worker_marks)
        return False

    def in_background(self, work: Awaitable[None]) -> None:
        """Run a coroutine beside the request that is being handled."""
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    # --- keys --------------------------------------------------------------------------------------------

    def new_key(self, *, first: bool = False) -> None:
        """Give Airflow another key, and refuse the old one."""
        key = f"key-{secrets.token_hex(20)}"
        old = set(self.proxy.keys)
        self.leaks.keys.add(key)
        self.proxy.keys.add(key)
        self.store_connection(key, first=first)
        self.proxy.keys -= old

    def store_connection(self, key: str, *, first: bool = False) -> None:
        """Write Airflow's connection: the key, and the address at which the proxy listens."""
        body = {
            "connection_id": CONNECTION,
            "conn_type": "skyvern",
            "host": self.proxy.url,
            "password": key,
            "extra": json.dumps({"timeout": CLIENT_TIMEOUT}),
        }
        if first:
            self.airflow.create_connection(body)
        else:
            self.airflow.change_connection(body)

    # --- events ------------------------------------------------------------------------------------------

    def _happen(self, events: list[tuple[str, Event]], stop: threading.Event) -> None:
        few = max(1, min(WITNESSES, len(self.executions) // (len(events) + 1) // 2))
        for name, event in events:
            if stop.wait(PAUSE):
                return
            patience = time.monotonic() + PATIENCE
            while len(self._in_flight()) < few and time.monotonic() < patience and not stop.wait(0.5):
                pass
            self.events_begun += 1
            self.befall(name, event)

    def befall(self, name: str, event: Event) -> None:
        """Let an event happen to everything that is in flight."""
        hit = self._witnesses(name)
        say(f"event: {name}, in flight: {hit}")
        try:
            event(self)
        except Exception as error:  # noqa: BLE001  the report has to be printed nevertheless
            say(f"event {name} went wrong: {error}")
            self.went_wrong.append(f"{name}: {error}")
        self._witnesses(f"{name}, over")
        self.event_log.append((name, hit))

    def _witnesses(self, name: str) -> int:
        found = self._in_flight()
        for one in found:
            one.note(f"event: {name}")
            one.events.append(name)
        return len(found)

    def _in_flight(self) -> list[Execution]:
        return [one for one in self.executions.values() if one.row.state in ("running", "deferred")]


def wake(pids: list[int]) -> None:
    """Let processes go on that stand still."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def triggerer_killed(driver: Driver) -> None:
    """One triggerer dies and comes back; the other has taken over or it continues itself."""
    victim = driver.airflow.processes[driver.rng.choice(driver.airflow.triggerers)]
    victim.kill()
    time.sleep(3)
    victim.start()
    time.sleep(15)


def triggerer_terminated(driver: Driver) -> None:
    """One triggerer is shut down in order and comes back."""
    victim = driver.airflow.processes[driver.rng.choice(driver.airflow.triggerers)]
    victim.stop(20)
    time.sleep(2)
    victim.start()
    time.sleep(10)


def triggerer_stopped(driver: Driver) -> None:
    """One triggerer stands still for 40 s, loses its triggers to the other, and wakes up."""
    victim = driver.airflow.processes[driver.rng.choice(driver.airflow.triggerers)]
    victim.signal(signal.SIGSTOP)
    try:
        time.sleep(40)
    finally:
        victim.signal(signal.SIGCONT)
    time.sleep(10)


def skyvern_killed(driver: Driver) -> None:
    """The server dies; its runs stay active for ever."""
    began = time.time()
    driver.skyvern.kill()
    time.sleep(1)
    driver.skyvern.start()
    driver.outages.append((began, time.time()))


def connections_refused(driver: Driver) -> None:
    """Nobody listens for some seconds."""
    began = time.time()
    driver.proxy.refuse(driver.rng.uniform(3, 8))
    driver.outages.append((began, time.time()))


def skyvern_frozen(driver: Driver) -> None:
    """The server stands still for some seconds, with requests in it that it answers in any order when it wakes up."""
    began = time.time()
    os.killpg(driver.skyvern.pid, signal.SIGSTOP)
    try:
        time.sleep(driver.rng.uniform(10, 25))
    finally:
        os.killpg(driver.skyvern.pid, signal.SIGCONT)
    driver.outages.append((began, time.time()))


def answers_of_an_ingress(driver: Driver) -> None:
    """For 12 s a proxy answers instead of the server: an ingress during a deployment, or a WAF."""
    began = time.time()
    driver.instead = driver.rng.choice(list(NOT_SKYVERNS.values()))
    try:
        time.sleep(12)
    finally:
        driver.instead = None
    driver.outages.append((began, time.time()))


def gateway(name: str, seconds: float, *, acted: bool) -> Event:
    """Return the event that a gateway answers everything instead of the server, which may get the starts."""

    def event(driver: Driver) -> None:
        began = time.time()
        say(f"gateway: {name}, starts {'acted' if acted else 'not arrived'}")
        driver.instead_of_starts = by_gateway(GATEWAY[name], acted=acted)
        driver.instead = by_gateway(GATEWAY[name])
        try:
            time.sleep(seconds)
        finally:
            driver.instead = driver.instead_of_starts = None
        driver.outages.append((began, time.time()))

    return event


def any_gateway(driver: Driver) -> None:
    """For half a minute a gateway answers everything."""
    acted = driver.rng.random() < 0.5
    gateway(driver.rng.choice(list(GATEWAY)), driver.rng.uniform(25, 30), acted=acted)(driver)


def key_refused(driver: Driver) -> None:
    """Skyvern refuses the key for some time, and a triggerer is started again meanwhile."""
    began = time.time()
    victim = driver.airflow.processes[driver.rng.choice(driver.airflow.triggerers)]
    keys = set(driver.proxy.keys)
    driver.proxy.keys -= keys
    try:
        victim.kill()
        victim.start()
        time.sleep(driver.rng.uniform(20, 50))
    finally:
        driver.proxy.keys |= keys
    driver.outages.append((began, time.time()))


def skyvern_moved(driver: Driver) -> None:
    """Skyvern has another address, and the connection is edited."""
    began = time.time()
    driver.proxy.move()
    driver.store_connection(next(iter(driver.proxy.keys)))
    driver.outages.append((began, time.time()))


def api_server_away(driver: Driver) -> None:
    """Airflow's API server is away for longer than its workers are patient."""
    server = driver.airflow.processes["api-server"]
    server.signal(signal.SIGSTOP)
    try:
        time.sleep(45)
    finally:
        server.signal(signal.SIGCONT)
    time.sleep(5)


def trigger_class_missing(driver: Driver) -> None:
    """A triggerer is deployed with a package whose triggers cannot be imported, and then with the right one."""
    victim = driver.airflow.processes[driver.rng.choice(driver.airflow.triggerers)]
    module = driver.airflow.home / "code" / "airflow_skyvern" / "triggers" / "run.py"
    text = module.read_text()
    broken = "import sys\nif 'triggerer' in sys.argv:\n    raise ImportError('this deployment is half done')\n"
    module.write_text(text.replace("\nimport asyncio\n", f"\n{broken}import asyncio\n", 1))
    try:
        victim.stop(20)
        victim.start()
        time.sleep(15)
    finally:
        module.write_text(text)
    victim.stop(20)
    victim.start()
    time.sleep(10)


def key_rotated(driver: Driver) -> None:
    """Airflow gets another key, the old one is refused; killed tasks have only the old one."""
    began = time.time()
    driver.new_key()
    driver.outages.append((began, time.time()))


EVENTS: list[tuple[str, Event]] = [
    ("triggerer SIGKILL", triggerer_killed),
    ("Skyvern SIGKILL", skyvern_killed),
    ("triggerer SIGSTOP 40 s", triggerer_stopped),
    ("API key rotated", key_rotated),
    ("triggerer SIGTERM", triggerer_terminated),
    ("connections refused", connections_refused),
    ("Skyvern SIGSTOP", skyvern_frozen),
    ("answers that are not Skyvern's", answers_of_an_ingress),
    ("Skyvern moved", skyvern_moved),
    ("trigger class missing", trigger_class_missing),
    ("gateway, half a minute", any_gateway),
    ("key refused, triggerer restarted", key_refused),
]

EVENTS_OF_3: list[tuple[str, Event]] = [
    ("API server SIGSTOP 45 s", api_server_away),
]
"""Airflow 2's workers use the database."""


def name_of(number: int) -> str:
    """Return the name of an execution of the plan."""
    return f"{number:03d}"


def say(text: str) -> None:
    """Print a line with the time."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


@contextlib.contextmanager
def airflow_of_the_suite(
    home: Path,
    postgres: PostgresServer,
    python_bin: Path,
    *,
    durable: bool,
    own: Collection[str] = (),
    timeout: float = OPERATOR_TIMEOUT,
) -> Iterator[AirflowServer]:
    """
    Start the Airflow that the suite torments, with a copy of the package: it may be edited meanwhile.

    :param own: The executions that have a DAG of their own, which they lose.
    :param timeout: The operators' ``timeout``.
    """
    env = settings_of_the_suite(home, durable=durable, timeout=timeout)
    files = write_dags(home, own)
    with AirflowServer(home, files, env, python_bin, postgres=postgres, triggerers=2) as airflow:
        for file in files:
            airflow.wait_dag("faults_deferred" if file.parent == DAGS else file.stem, 120)
        yield airflow


def settings_of_the_suite(home: Path, *, durable: bool, timeout: float) -> dict[str, str]:
    """Return an Airflow's settings, with a copy of the package on its path."""
    shutil.copytree(ROOT / "airflow_skyvern", home / "code" / "airflow_skyvern", dirs_exist_ok=True)
    return {
        **{f"AIRFLOW__{name}": value for name, value in SETTINGS.items()},
        "PYTHONPATH": str(home.resolve() / "code"),
        "FAULTS_DURABLE": str(int(durable)),
        "FAULTS_TIMEOUT": str(timeout),
        "FAULTS_ORDERS": str(home.resolve() / "orders"),
        "FAULTS_LOST_START_TIMEOUT": str(LOST_START_TIMEOUT),
    }


def write_dags(home: Path, own: Collection[str]) -> list[Path]:
    """Return the suite's DAG files, with one of its own for each of these executions."""
    return [*DAGS.glob("*.py"), *_own_dags(home / "own", own)]


def _own_dags(folder: Path, executions: Collection[str]) -> list[Path]:
    """Write a DAG file for each of these executions."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"faults_own_{name}.py" for name in executions]
    for file in files:
        shutil.copyfile(DAGS / "faults_dags.py", file)
    return files
