"""The services whose jobs ``make bench RIG=latency`` ends: one TLS server on loopback, in a thread of its process."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Collection
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.apis import NOT_FOUND, Answer, Request, apis, service_of
from benchmarks.jobs import StartedJobs
from benchmarks.server import listen

if TYPE_CHECKING:
    from typing_extensions import Self

START_SECONDS = 10.0
LISTS = ("/v1/runs",)
"""Lists of active jobs: what they show may be a moment old, and they show no end."""


class JobServer:
    """
    Start with ``with JobServer(names, certificate) as server:``.

    :param names: The services, as their contenders are called.
    :param certificate: File with the server's certificate and key.
    """

    def __init__(self, names: Collection[str], certificate: Path) -> None:
        self.jobs = {name: StartedJobs() for name in names}
        self.noticed: dict[tuple[str, int], float] = {}
        """When each job was first reported as ended, by service and number."""
        self.refused: Counter[str] = Counter()
        self.address = ""
        self._apis = apis()
        self._certificate = certificate
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        listening = asyncio.run_coroutine_threadsafe(listen(self, self._certificate), self._loop)
        self._server, port = listening.result(START_SECONDS)
        self.address = f"127.0.0.1:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(START_SECONDS)

    def answer(self, request: Request, *, first: bool) -> Answer:
        """Answer a request, and note which ends it was the first to report."""
        service = service_of(request.path)
        answer = self._apis[service](request, self.jobs[service]) if service in self.jobs else NOT_FOUND
        if answer.status != HTTPStatus.OK:
            self.refused[f"{request.method} {request.path}?{request.query}: {answer.status}"] += 1
        elif service is not None and request.path not in LISTS:
            self._note(service, answer, request.now)
        return answer

    def _note(self, service: str, answer: Answer, now: float) -> None:
        for number in answer.polled:
            if self.jobs[service].has_ended(number, now):
                self.noticed.setdefault((service, number), now)
