"""
One TLS server on loopback that implements all five services, and counts requests and polls.

Run as ``python -m benchmarks.server CERTIFICATE``; it prints its port. ``POST /_plan`` announces a measurement
(a :class:`~benchmarks.plan.Plan`), ``GET /_seen/<contender>`` returns the counts. Several measurements can run at
once, as each service has its own paths.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import resource
import ssl
import sys
import threading
import time
from collections import Counter
from http import HTTPStatus
from itertools import pairwise
from pathlib import Path
from typing import Protocol, cast

from benchmarks.apis import NOT_FOUND, Answer, Request, apis, service_of
from benchmarks.jobs import Jobs
from benchmarks.plan import PHASES, Plan

BACKLOG = 4096


class Seen:
    """The requests of one measurement."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.jobs = Jobs(plan)
        self.requests: Counter[str | None] = Counter()
        self.connections: Counter[str | None] = Counter()
        self.refused: Counter[str] = Counter()
        self.polls: dict[str, list[int]] = {phase: [0] * len(self.jobs) for phase in PHASES}
        self._busy: dict[str, tuple[float, float, float]] = {}
        loop = asyncio.get_running_loop()
        for phase, moment in zip((*PHASES, "end"), plan.boundaries, strict=True):
            loop.call_later(moment - time.time(), self._note_cpu, phase)

    def _note_cpu(self, boundary: str) -> None:
        self._busy[boundary] = busy_seconds()

    def note(self, request: Request, answer: Answer) -> None:
        """Count a request and the jobs it polled."""
        phase = self.plan.phase(request.now)
        self.requests[phase] += 1
        if answer.status != HTTPStatus.OK:
            self.refused[f"{request.method} {request.path}?{request.query}: {answer.status}"] += 1
        if phase is not None:
            polls = self.polls[phase]
            for number in answer.polled:
                polls[number] += 1

    def to_json(self) -> bytes:
        """Return all counts, with the CPU seconds of this server, of the whole machine and of its host."""
        busy = [self._busy.get(boundary, busy_seconds()) for boundary in (*PHASES, "end")]
        own, machine, stolen = (
            [after - before for before, after in pairwise(kind)] for kind in zip(*busy, strict=True)
        )
        return json.dumps(
            {
                "requests": {phase: self.requests[phase] for phase in PHASES},
                "connections": {phase: self.connections[phase] for phase in PHASES},
                "refused": dict(self.refused.most_common(5)),
                "polls": self.polls,
                "server_cpu": dict(zip(PHASES, own, strict=True)),
                "machine_cpu": dict(zip(PHASES, machine, strict=True)),
                "stolen_cpu": dict(zip(PHASES, stolen, strict=True)),
            }
        ).encode()


class Service:
    """The state that all connections share."""

    def __init__(self) -> None:
        self._apis = apis()
        self._seen: dict[str, Seen] = {}
        self.strays: Counter[str] = Counter()

    def answer(self, request: Request, *, first: bool) -> Answer:
        """Answer a request; `first` says that it is the first one of its connection."""
        if request.path.startswith("/_"):
            return self._control(request)
        contender = service_of(request.path)
        if contender is None or contender not in self._seen:
            self.strays[f"{request.method} {request.path}"] += 1
            return NOT_FOUND
        seen = self._seen[contender]
        answer = self._apis[contender](request, seen.jobs)
        seen.note(request, answer)
        if first:
            seen.connections[seen.plan.phase(request.now)] += 1
        return answer

    def _control(self, request: Request) -> Answer:
        if request.path == "/_plan":
            plan = Plan.from_json(request.body.decode())
            self._seen[plan.contender] = Seen(plan)
            gc.collect()
            return Answer(b"{}")
        if request.path == "/_strays":
            return Answer(json.dumps(self.strays).encode())
        contender = request.path.removeprefix("/_seen/")
        return Answer(self._seen[contender].to_json()) if contender in self._seen else NOT_FOUND


class Answers(Protocol):
    """What answers the requests of all connections."""

    def answer(self, request: Request, *, first: bool) -> Answer:
        """Answer a request; `first` says that it is the first one of its connection."""


class Connection(asyncio.Protocol):
    """One connection: HTTP/1.1, kept alive, one request after the other."""

    def __init__(self, service: Answers) -> None:
        self._service = service
        self._buffer = b""
        self._first = True
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport for the answers."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every request that has arrived completely."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].decode("latin-1").split("\r\n")
            headers = dict(_header(line) for line in head[1:])
            length = int(headers.get("content-length", 0))
            if len(self._buffer) < end + 4 + length:
                return
            body = self._buffer[end + 4 : end + 4 + length]
            self._buffer = self._buffer[end + 4 + length :]
            self._answer(head[0], body, close=headers.get("connection", "").lower() == "close")

    def _answer(self, line: str, body: bytes, *, close: bool) -> None:
        assert self._transport is not None
        method, target, _ = line.split(" ")
        path, _, query = target.partition("?")
        answer = self._service.answer(Request(method, path, query, body, time.time()), first=self._first)
        self._first = False
        head = (
            f"HTTP/1.1 {answer.status:d} {HTTPStatus(answer.status).phrase}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(answer.body)}\r\n\r\n"
        )
        self._transport.write(head.encode() + answer.body)
        if close:
            self._transport.close()


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip().lower(), value.strip()


def busy_seconds() -> tuple[float, float, float]:
    """Return the CPU seconds so far of this process, of this machine, and those that the host gave to others."""
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, Path("/proc/stat").read_text().split()[1:11])
    ticks = os.sysconf("SC_CLK_TCK")
    return time.process_time(), (user + nice + system + irq + softirq) / ticks, steal / ticks


def allow_many_files() -> None:
    """Raise the limit of open files to the maximum: some triggers keep one connection each."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def end_with_parent() -> None:
    """End this process when its parent has ended, for any reason."""

    def wait() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


async def listen(service: Answers, certificate: str | Path) -> tuple[asyncio.Server, int]:
    """Listen on a free port of loopback, and return the port."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(service), "127.0.0.1", 0, ssl=tls, backlog=BACKLOG
    )
    return server, int(server.sockets[0].getsockname()[1])


async def serve(certificate: str) -> None:
    """Serve until the process is ended."""
    server, port = await listen(Service(), certificate)
    print(port, flush=True)
    gc.freeze()
    await server.serve_forever()


if __name__ == "__main__":
    allow_many_files()
    end_with_parent()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(sys.argv[1]))
