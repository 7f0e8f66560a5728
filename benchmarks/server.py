"""
One TLS server on loopback that speaks for all five services, and counts.

Run as ``python -m benchmarks.server CERTIFICATE``; it prints its port. It is told of a measurement by
``POST /_plan`` (a :class:`~benchmarks.plan.Plan`) and tells what it saw by ``GET /_seen/<contender>``. Several
measurements may go on at once, as each service has paths of its own.
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
from typing import cast

from benchmarks.apis import NOT_FOUND, Answer, Asked, Jobs, apis, whose
from benchmarks.plan import PHASES, Plan

BACKLOG = 4096


class Seen:
    """What one measurement's triggers were seen to do."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.jobs = Jobs(plan)
        self.requests: Counter[str | None] = Counter()
        self.connections: Counter[str | None] = Counter()
        self.refused: Counter[str] = Counter()
        self.looks: dict[str, list[int]] = {phase: [0] * len(self.jobs) for phase in PHASES}
        self._busy: dict[str, tuple[float, float, float]] = {}
        loop = asyncio.get_running_loop()
        for phase, moment in zip((*PHASES, "end"), plan.boundaries, strict=True):
            loop.call_later(moment - time.time(), self._note_cpu, phase)

    def _note_cpu(self, boundary: str) -> None:
        self._busy[boundary] = busy_seconds()

    def note(self, asked: Asked, answer: Answer) -> None:
        """Count a request and the looks it was."""
        phase = self.plan.phase(asked.now)
        self.requests[phase] += 1
        if answer.status != HTTPStatus.OK:
            self.refused[f"{asked.method} {asked.path}?{asked.query}: {answer.status}"] += 1
        if phase is not None:
            looks = self.looks[phase]
            for number in answer.looked:
                looks[number] += 1

    def to_json(self) -> bytes:
        """Tell everything, CPU seconds of this server, of the whole machine and of its host included."""
        busy = [self._busy.get(boundary, busy_seconds()) for boundary in (*PHASES, "end")]
        own, machine, stolen = (
            [after - before for before, after in pairwise(kind)] for kind in zip(*busy, strict=True)
        )
        return json.dumps(
            {
                "requests": {phase: self.requests[phase] for phase in PHASES},
                "connections": {phase: self.connections[phase] for phase in PHASES},
                "refused": dict(self.refused.most_common(5)),
                "looks": self.looks,
                "server_cpu": dict(zip(PHASES, own, strict=True)),
                "machine_cpu": dict(zip(PHASES, machine, strict=True)),
                "stolen_cpu": dict(zip(PHASES, stolen, strict=True)),
            }
        ).encode()


class Service:
    """What all connections share."""

    def __init__(self) -> None:
        self._apis = apis()
        self._seen: dict[str, Seen] = {}
        self.strays: Counter[str] = Counter()

    def answer(self, asked: Asked, *, first: bool) -> Answer:
        """Answer a request, the first one of its connection or a later one."""
        if asked.path.startswith("/_"):
            return self._told(asked)
        contender = whose(asked.path)
        if contender is None or contender not in self._seen:
            self.strays[f"{asked.method} {asked.path}"] += 1
            return NOT_FOUND
        seen = self._seen[contender]
        answer = self._apis[contender](asked, seen.jobs)
        seen.note(asked, answer)
        if first:
            seen.connections[seen.plan.phase(asked.now)] += 1
        return answer

    def _told(self, asked: Asked) -> Answer:
        if asked.path == "/_plan":
            plan = Plan.from_json(asked.body.decode())
            self._seen[plan.contender] = Seen(plan)
            gc.collect()
            return Answer(b"{}")
        if asked.path == "/_strays":
            return Answer(json.dumps(self.strays).encode())
        contender = asked.path.removeprefix("/_seen/")
        return Answer(self._seen[contender].to_json()) if contender in self._seen else NOT_FOUND


class Connection(asyncio.Protocol):
    """One connection: HTTP/1.1, kept alive, one request after the other."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._buffer = b""
        self._first = True
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember where answers go."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Answer every request that has arrived as a whole."""
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
        answer = self._service.answer(Asked(method, path, query, body, time.time()), first=self._first)
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
    """Return the CPU seconds so far of this process, of this whole machine, and those that its host kept from it."""
    user, nice, system, _, _, irq, softirq, steal, *_ = map(int, Path("/proc/stat").read_text().split()[1:11])
    ticks = os.sysconf("SC_CLK_TCK")
    return time.process_time(), (user + nice + system + irq + softirq) / ticks, steal / ticks


def allow_many_files() -> None:
    """Raise the limit of open files to what is allowed: some triggers keep one connection each."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def end_with_parent() -> None:
    """End this process when whoever started it is gone, however that came about."""

    def wait() -> None:
        sys.stdin.read()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


async def serve(certificate: str) -> None:
    """Serve until the process is ended."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    service = Service()
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(service), "127.0.0.1", 0, ssl=tls, backlog=BACKLOG
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    gc.freeze()
    await server.serve_forever()


if __name__ == "__main__":
    allow_many_files()
    end_with_parent()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(sys.argv[1]))
