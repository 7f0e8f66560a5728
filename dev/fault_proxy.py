"""
A proxy between Airflow and Skyvern that injects the faults of the driver.

A small HTTP proxy on loopback with its own event loop. Each request is an :class:`Exchange`, which knows the kind of
request and its execution: a start names it (``x`` of its ``run_metadata``), everything else follows from the ids and
keys of the starts. A start is of the newest version of a workflow or, at Skyvern's older address, of a certain one. A
coroutine of the driver handles each exchange; one that it does not answer is forwarded. Connections are closed after
each answer, so that no fault affects the next request.

A process of a task may name its execution itself, in the header :data:`EXECUTION_HEADER`, which goes no further.

The proxy also decides which API keys are valid: Airflow never gets the server's own key. Whoever follows a redirect
to :data:`ELSEWHERE` is remembered: no client may send a key there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

import httpx
import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Self

HTML = b"<html><body><h1>Bad gateway</h1><p>The upstream server is not available.</p></body></html>"
RUN_PATH = re.compile(r"^/v1/(?:workflows/)?runs/([^/]+)(/cancel)?$")
START_PATH = re.compile(r"^(/v1/run/workflows|/api/v1/workflows/[^/]+/run)$")
KINDS = (
    (re.compile(r"^POST /v1/workflows$"), "create"),
    (re.compile(r"^PUT /api/v1/workflows/[^/]+$"), "update"),
    (re.compile(r"^\w+ /v1/workflows/[^/]+$"), "workflow"),
    (re.compile(r"^\w+ /v1/artifacts/[^/]+/content$"), "content"),
    (re.compile(r"^\w+ /v1/credentials$"), "credentials"),
)
"""The kinds of requests that say themselves what they are."""

SESSIONS, SESSION_PATH = "/v1/browser_sessions", re.compile(r"^/v1/browser_sessions/([^/]+)(/close)?")
KEPT_HEADERS = ("retry-after", "accept-ranges", "content-range")
EXECUTION_HEADER = "x-execution"
ELSEWHERE = "/elsewhere"
"""Where redirects of the proxy lead."""

UPSTREAM_SECONDS = 60.0
REFUSED = (403, b'{"detail":"Could not validate credentials"}', "application/json")


@dataclass(frozen=True)
class Answer:
    """An answer to Airflow."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def document(self) -> Any:
        """The decoded body, or None."""
        with contextlib.suppress(ValueError):
            return json.loads(self.body)
        return None

    def encoded(self) -> bytes:
        lines = [
            f"HTTP/1.1 {self.status} Status",
            f"content-type: {self.content_type}",
            f"content-length: {len(self.body)}",
            "connection: close",
            *(f"{name}: {value}" for name, value in self.headers.items()),
        ]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


class Exchange:
    """One request, and the ways to handle it."""

    def __init__(
        self, proxy: FaultProxy, writer: asyncio.StreamWriter, head: tuple[str, str, dict[str, str]], body: bytes
    ) -> None:
        self.method, self.target, self.headers = head
        self.body = body
        self.kind = "other"
        self.execution: str | None = None
        self.run_id: str | None = None
        self.session_id: str | None = None
        self.number = 0
        self.answered = False
        self.of_task = EXECUTION_HEADER in self.headers
        self._proxy = proxy
        self._writer = writer

    @property
    def was_polled(self) -> bool:
        """Whether the server has answered a request for the same run before."""
        return self.run_id in self._proxy.polled

    async def forward(self) -> Answer:
        """Forward the request, and return the server's answer without sending it to Airflow."""
        answer = await self._proxy.ask_server(self, self.body)
        self._proxy.learn(self, answer)
        return answer

    async def repeat(self, **changed: Any) -> Answer:
        """
        Send the start that this is to the server, on the gateway's own account.

        :param changed: What is different in its body.
        """
        body = json.dumps({**json.loads(self.body), **changed}).encode()
        answer = await self._proxy.ask_server(self, body)
        self._proxy.learn(self, answer, by_gateway=True)
        return answer

    async def reply(self, answer: Answer) -> None:
        """Send an answer to Airflow, which may have disconnected."""
        self.answered = True
        with contextlib.suppress(OSError):
            self._writer.write(answer.encoded())
            await self._writer.drain()
            if self.session_id is not None and session_in(answer) == self.session_id:
                self._proxy.unknown_sessions.discard(self.session_id)

    async def half(self, answer: Answer) -> None:
        """Send half of an answer and close the connection."""
        await self.first(answer, len(answer.body) // 2)

    async def first(self, answer: Answer, size: int) -> None:
        """Send the first bytes of an answer, which ends there: at once, or later if the handler does not return."""
        self.answered = True
        whole = answer.encoded()
        end = len(whole) - len(answer.body) + min(size, len(answer.body) - 1)
        with contextlib.suppress(OSError):
            self._writer.write(whole[:end])
            await self._writer.drain()

    def was_for_nobody(self) -> None:
        """Note that whoever was answered had no time to store the answer."""
        if self.session_id is not None:
            self._proxy.unknown_sessions.add(self.session_id)

    def finish(self) -> None:
        """Close the connection, while the handler continues."""
        self._writer.close()

    def hang_up(self, *, reset: bool) -> None:
        """End the connection without an answer, with a FIN or with an RST."""
        self.answered = True
        if reset and (connection := self._writer.get_extra_info("socket")) is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()

    def client_pid(self) -> int | None:
        """Return the process that sent this request."""
        host, port = self._writer.get_extra_info("peername")[:2]
        return owner_of(host, port, self._proxy.port)


Handler = Callable[[Exchange], Awaitable[None]]


class FaultProxy:
    """Start with `with FaultProxy(upstream, key, handler) as proxy:`."""

    def __init__(self, upstream: str, api_key: str, handler: Handler) -> None:
        self.port = 0
        self.keys: set[str] = set()
        self.requests: Counter[str] = Counter()
        self.run_owner: dict[str, str] = {}
        self.starts: list[tuple[float, str, str | None]] = []
        self.repeated: set[str] = set()
        """The runs of starts that the proxy has sent on its own account."""
        self.canceled: set[str] = set()
        """The runs whose cancel has reached the server."""
        self.polled: set[str] = set()
        """The runs about which the server has answered."""
        self.session_owner: dict[str, str] = {}
        self.unknown_sessions: set[str] = set()
        """The browser sessions whose opening was not answered."""
        self.followed: list[str] = []
        """The redirects that were followed with a key."""
        self._key_owner: dict[str, str] = {}
        self._seen: Counter[tuple[str, str]] = Counter()
        self._upstream = upstream
        self._api_key = api_key
        self._handler = handler
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault proxy", daemon=True)
        self._server: asyncio.Server | None = None
        self._busy: set[asyncio.Task[None]] = set()
        self._client: httpx.AsyncClient | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self._open())
        return self

    def __exit__(self, *_: object) -> None:
        self.run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def run(self, work: Any, timeout: float = 60) -> Any:
        """Run a coroutine in the proxy's event loop, from another thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout)

    def move(self) -> None:
        """Listen on another port from now on, and refuse connections to the old one."""
        self.run(self._stop_listening())
        self.port = 0
        self.run(self._listen())

    def refuse(self, seconds: float) -> None:
        """Refuse connections for some seconds."""
        self.run(self._stop_listening())
        time.sleep(seconds)
        self.run(self._listen())

    async def _open(self) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=5)
        self._client = httpx.AsyncClient(
            base_url=self._upstream, timeout=UPSTREAM_SECONDS, trust_env=False, limits=limits
        )
        await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", self.port, backlog=256, reuse_address=True
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _close(self) -> None:
        await self._stop_listening()
        for task in list(self._busy):
            task.cancel()
        await asyncio.gather(*self._busy, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._busy.add(task)
        try:
            await self._exchange(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._busy.discard(task)
            with contextlib.suppress(OSError):
                writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = _parsed((await reader.readuntil(b"\r\n\r\n")).decode("latin-1"))
        body = await reader.readexactly(int(head[2].get("content-length", "0")))
        exchange = Exchange(self, writer, head, body)
        if exchange.target.startswith(ELSEWHERE) and "x-api-key" in exchange.headers:
            self.followed.append(f"{exchange.method} {exchange.target}")
        if exchange.headers.get("x-api-key", "") not in self.keys:
            await exchange.reply(Answer(*REFUSED))
            return
        self._classify(exchange)
        await self._handler(exchange)
        if not exchange.answered:
            await exchange.reply(await exchange.forward())

    async def ask_server(self, exchange: Exchange, body: bytes) -> Answer:
        """Forward a request; a server that is down looks like one behind a gateway."""
        headers = {**exchange.headers, "x-api-key": self._api_key}
        for name in ("host", "connection", "accept-encoding", "content-length", EXECUTION_HEADER):
            headers.pop(name, None)
        assert self._client is not None
        try:
            response = await self._client.request(
                exchange.method, exchange.target, content=body or None, headers=headers
            )
        except httpx.HTTPError:
            return Answer(502, HTML, "text/html")
        kept = {name: response.headers[name] for name in KEPT_HEADERS if name in response.headers}
        return Answer(
            response.status_code, response.content, response.headers.get("content-type", "text/plain"), kept
        )

    def learn(self, exchange: Exchange, answer: Answer, *, by_gateway: bool = False) -> None:
        """Record which execution the run of a start belongs to, and what was canceled."""
        if exchange.kind == "cancel" and exchange.run_id is not None and answer.status < 300:
            self.canceled.add(exchange.run_id)
        if exchange.kind == "get" and exchange.run_id is not None and answer.status < 300:
            self.polled.add(exchange.run_id)
        if exchange.kind == "open" and exchange.execution is not None:
            self._learn_session(exchange, session_in(answer))
        if exchange.kind != "start" or exchange.execution is None:
            return
        document = answer.document
        document = document if isinstance(document, dict) and answer.status < 300 else {}
        run_id = document.get("run_id") or document.get("workflow_run_id")
        self.starts.append((time.time(), exchange.execution, run_id))
        if run_id is not None:
            self.run_owner[run_id] = exchange.execution
            if by_gateway:
                self.repeated.add(run_id)
            else:
                exchange.run_id = run_id

    def _learn_session(self, exchange: Exchange, session_id: str | None) -> None:
        if session_id is not None and exchange.execution is not None:
            exchange.session_id = session_id
            self.session_owner[session_id] = exchange.execution
            self.unknown_sessions.add(session_id)

    def _classify(self, exchange: Exchange) -> None:
        url = urlsplit(exchange.target)
        query = parse_qs(url.query)
        if found := RUN_PATH.match(url.path):
            exchange.run_id = found[1]
            exchange.kind = "cancel" if found[2] else "get"
            exchange.execution = self.run_owner.get(found[1])
        elif url.path.startswith(SESSIONS):
            self._classify_session(exchange, url.path)
        elif START_PATH.match(url.path):
            self._classify_start(exchange)
        elif url.path == "/v1/runs" and "tags" in query:
            exchange.kind = "find"
            exchange.execution = self._first(self._key_owner, query["tags"])
        elif url.path == "/v1/runs":
            exchange.kind = "list"
        elif url.path == "/v1/run-tags":
            exchange.kind = "tags"
            exchange.execution = self._first(self.run_owner, query.get("workflow_run_ids", [""])[0].split(","))
        else:
            said = f"{exchange.method} {url.path}"
            exchange.kind = next((kind for pattern, kind in KINDS if pattern.match(said)), exchange.kind)
        self.requests[exchange.kind] += 1
        exchange.execution = exchange.headers.get(EXECUTION_HEADER) or exchange.execution
        if exchange.execution is not None:
            self._seen[exchange.execution, exchange.kind] += 1
            exchange.number = self._seen[exchange.execution, exchange.kind]

    def _classify_session(self, exchange: Exchange, path: str) -> None:
        if found := SESSION_PATH.match(path):
            exchange.kind = "close" if found[2] else "session"
            exchange.execution = self.session_owner.get(found[1])
        elif exchange.method == "POST":
            exchange.kind = "open"

    def _classify_start(self, exchange: Exchange) -> None:
        exchange.kind = "start"
        metadata = json.loads(exchange.body).get("run_metadata") or {}
        exchange.execution = metadata.get("x")
        if exchange.execution is not None:
            for key in ("airflow_key", "airflow_task_key"):
                if key in metadata:
                    self._key_owner[f"{key}:{metadata[key]}"] = exchange.execution

    @staticmethod
    def _first(owners: Mapping[str, str], names: Iterable[str]) -> str | None:
        return next((owners[name] for name in names if name in owners), None)


def session_in(answer: Answer) -> str | None:
    """Return the browser session that an answer is about."""
    return answer.document.get("browser_session_id") if isinstance(answer.document, dict) else None


def _parsed(head: str) -> tuple[str, str, dict[str, str]]:
    first, *lines = head.split("\r\n")
    method, target, _ = first.split(" ")
    headers = dict(line.split(":", 1) for line in lines if ":" in line)
    return method, target, {name.strip().lower(): value.strip() for name, value in headers.items()}


def owner_of(host: str, port: int, server_port: int) -> int | None:
    """Return the process that holds the client's end of a TCP connection."""
    ends = ((host, port), (host, server_port))
    connections = psutil.net_connections("tcp4")
    return next((connection.pid for connection in connections if (connection.laddr, connection.raddr) == ends), None)
