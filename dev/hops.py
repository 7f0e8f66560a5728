"""
How far a deferred run goes through the package: the modules, classes and functions that it enters, and how often it
moves from one module to another.

``python -m dev.hops`` runs a task with parameters against the fake, from its operator in a worker over its trigger to
the output that another worker returns, and prints what each module is entered for, and the counts. A move is a call
into another module of the package than the nearest caller of the package is in. What a library calls back, as
pydantic does for each field of an answer, is one move however often it does; ``calls and callbacks`` counts each.
Imports do not count, nor does what the fake server uses of the package.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from types import CodeType, FrameType, SimpleNamespace
from typing import Any
from uuid import UUID

import httpx

from airflow_skyvern.testing.fake.skyvern import API_KEY, FakeSkyvern
from airflow_skyvern.testing.serving import serve_in_thread

PACKAGE = f"{Path(__file__).parents[1] / 'airflow_skyvern'}{os.sep}"
STAND_IN = f"{PACKAGE}testing{os.sep}"

WITHOUT_NAME = frozenset({"<lambda>", "<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>"})
"""Code within a function; which of it is code of its own differs between Pythons."""

RESUMED = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR
"""Code that is called each time it is resumed; only the first time counts."""


@dataclass
class Hops:
    """What was entered, by module without the package's name."""

    calls: dict[str, Counter[str]] = field(default_factory=dict)
    moves: Counter[tuple[str, str]] = field(default_factory=Counter)
    calls_and_callbacks: Counter[tuple[str, str]] = field(default_factory=Counter)
    _frames: set[FrameType] = field(default_factory=set)
    _called_back: set[tuple[str, CodeType]] = field(default_factory=set)

    @property
    def counts(self) -> dict[str, int]:
        """The sums."""
        functions = {(module, name) for module, called in self.calls.items() for name in called}
        classes = {(module, name.rpartition(".")[0]) for module, name in functions if "." in name}
        return {
            "modules": len(self.calls),
            "classes": len(classes),
            "functions": len(functions),
            "moves": self.moves.total(),
            "calls and callbacks": self.calls_and_callbacks.total(),
        }

    @contextmanager
    def counting(self) -> Iterator[None]:
        """Count what this thread does, and those that it starts."""
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)
        try:
            yield
        finally:
            sys.setprofile(None)
            threading.setprofile(None)

    def _profile(self, frame: FrameType, event: str, _: object) -> None:
        if event != "call" or not _is_ours(frame) or frame.f_code.co_name in WITHOUT_NAME or frame in self._frames:
            return
        if frame.f_code.co_flags & RESUMED:
            self._frames.add(frame)
        callers = [caller for caller in _callers(frame) if _is_ours(caller)]
        if any(caller.f_code.co_name in ("<module>", "__getattr__") for caller in [frame, *callers]):
            return  # it is being imported, or a name of it
        if any(caller.f_code.co_filename.startswith(STAND_IN) for caller in _callers(frame)):
            return  # the fake server calls it
        module = _module(frame)
        self.calls.setdefault(module, Counter())[_name(frame)] += 1
        if not callers or (source := _module(callers[0])) == module:
            return
        self.calls_and_callbacks[source, module] += 1
        if frame.f_back is callers[0] or (source, frame.f_code) not in self._called_back:
            self.moves[source, module] += 1
        if frame.f_back is not callers[0]:
            self._called_back.add((source, frame.f_code))


def _callers(frame: FrameType) -> Iterator[FrameType]:
    while (caller := frame.f_back) is not None:
        yield caller
        frame = caller


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename.startswith(PACKAGE) and not frame.f_code.co_filename.startswith(STAND_IN)


def _module(frame: FrameType) -> str:
    path = frame.f_code.co_filename.removeprefix(PACKAGE).removesuffix(".py")
    return path.removesuffix("__init__").strip(os.sep).replace(os.sep, ".")


def _name(frame: FrameType) -> str:
    """Return the name with its class, which below Python 3.11 only the object of a method knows."""
    name: str = getattr(frame.f_code, "co_qualname", "")
    if not name:
        owner = f"{type(frame.f_locals['self']).__name__}." if "self" in frame.f_locals else ""
        name = owner + frame.f_code.co_name
    return name


class _TaskInstance:
    """What a task on a worker gets from Airflow."""

    dag_id, run_id, task_id, map_index = "a_dag", "manual__1", "run_it", -1
    id = UUID(int=7)
    try_number, max_tries = 1, 0
    start_date = datetime(2026, 11, 22, 12, tzinfo=timezone.utc)
    next_method: str | None = None
    next_kwargs: dict[str, Any] | None = None

    def __init__(self) -> None:
        self.xcoms: dict[str, Any] = {}

    def xcom_push(self, key: str, value: Any) -> None:
        """Keep an XCom."""
        self.xcoms[key] = json.loads(json.dumps(value))

    def xcom_pull(self, key: str, **_: Any) -> Any:
        """Return an XCom."""
        return self.xcoms.get(key)

    def get_task_states(self, dag_id: str, **_: Any) -> Any:
        """Answer as Airflow 3 does."""
        return {self.run_id: {self.task_id: "running"}}

    def current_state(self) -> str:
        """Answer as Airflow 2 does."""
        return "running"


def run_a_task(address: str, workflow_id: str, on_deferral: Callable[[], object]) -> Any:
    """Run a task as two workers and a triggerer do, and return what it returns."""
    os.environ["AIRFLOW_CONN_SKYVERN_DEFAULT"] = json.dumps(
        {"conn_type": "skyvern", "host": address, "password": API_KEY}
    )
    from airflow_skyvern.compat.sdk import TaskDeferred
    from airflow_skyvern.operators import SkyvernRunWorkflowOperator
    from airflow_skyvern.triggers import SkyvernRunTrigger

    def operator() -> Any:
        return SkyvernRunWorkflowOperator(
            task_id="run_it",
            workflow_id=workflow_id,
            parameters={"vendor": "ACME"},
            deferrable=True,
            poll_interval=0.05,
        )

    async def event_of(path_and_kwargs: tuple[str, dict[str, Any]]) -> Any:
        trigger = SkyvernRunTrigger(**json.loads(json.dumps(path_and_kwargs[1])))
        trigger.first_poll_delay = 0.0  # type: ignore[misc]  # of the class for all others
        (event,) = [event async for event in trigger.run()]
        return event.payload

    ti = _TaskInstance()
    context: Any = {"ti": ti, "task_instance": ti, "dag_run": SimpleNamespace(start_date=ti.start_date)}
    try:
        operator().execute(context)
    except TaskDeferred as deferred:
        on_deferral()
        event = asyncio.run(event_of(deferred.trigger.serialize()))
        kwargs = json.loads(json.dumps({**(deferred.kwargs or {}), "event": event}))
        return operator().resume_execution(deferred.method_name, kwargs, context)
    raise AssertionError("the task was not deferred")


class _Handler(BaseHTTPRequestHandler):
    """Answers as the fake does, which the server holds."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        """Answer a request."""
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        address = f"http://{self.headers['host']}{self.path}"
        answer = self.server.fake.handle(
            httpx.Request(self.command, address, headers=dict(self.headers), content=body)
        )
        self.send_response(answer.status_code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    do_POST = do_GET  # noqa: N815  the standard library's name

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, fake: FakeSkyvern) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fake = fake
        self.connections = 0

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Count a connection."""
        self.connections += 1
        super().finish_request(request, client_address)


def counted() -> tuple[Hops, dict[str, int]]:
    """Run the task; return where it went, and the sums."""
    fake, hops = FakeSkyvern(), Hops()
    clients = 0

    def count_clients() -> None:
        nonlocal clients
        clients = hops.calls["client.sender"]["SkyvernClient.__init__"]

    workflow_id = fake.workflow(plan=("completed",), parameters={"vendor": "string"})
    fake.workflows[workflow_id].plan = [{"status": "running"}, {"status": "completed"}]
    with _Server(fake) as server:
        serve_in_thread(server)
        import_module("airflow_skyvern.operators.run_workflow")  # Airflow asks all providers what they have
        with hops.counting():
            run_a_task(f"http://127.0.0.1:{server.server_port}", workflow_id, count_clients)
        server.shutdown()
    return hops, {**hops.counts, "clients before the start": clients, "connections": server.connections}


def main() -> None:
    """Print the counts as the last line, as JSON."""
    hops, counts = counted()
    if "--counts" not in sys.argv:
        for module, called in hops.calls.items():
            print(f"{module} ({called.total()}):", ", ".join(called))
        for (source, target), times in hops.moves.most_common():
            print(f"{times:4} {source} → {target}")
    print(json.dumps(counts))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {
            "AIRFLOW_HOME": home,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        main()
