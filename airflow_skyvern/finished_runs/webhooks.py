"""
The receiver of Skyvern's webhooks in Airflow's API server: ``POST /skyvern/webhooks/<connection id>``.

It is off unless ``[skyvern] webhook_connections`` names connections. Airflow puts neither authentication nor
limits before it, so they are here, in this order: a bound on the rate, on the size and on the time of a request,
then the signature over the raw bytes. Only then is the body understood, and only
:mod:`airflow_skyvern.finished_runs.registry` does anything.

https://www.skyvern.com/docs/developers/webhooks
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache, partial
from typing import Any

from airflow.configuration import conf
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import AliasChoices, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from airflow_skyvern.client.session import Kept
from airflow_skyvern.compat import teams
from airflow_skyvern.connection_list import webhook_connections
from airflow_skyvern.finished_runs import registry
from airflow_skyvern.finished_runs.registry import Delivered, DeliveryResult
from airflow_skyvern.finished_runs.uri import FinishedRun
from airflow_skyvern.hooks import settings_of
from airflow_skyvern.models import RunBase, UtcDatetime

log = logging.getLogger(__name__)

SIGNATURE = "x-skyvern-signature"
READ_TIMEOUT = 10.0
"""Seconds for the whole body to arrive."""

MAX_BYTES_HELD = 64 * 1024 * 1024
"""Bytes of all bodies that are in memory at the same time."""

KEY_MAX_AGE = 30.0
"""Seconds for which a key is kept. One that no longer fits is read again at once, but once a second at the most."""

REQUEUE_DELAY = 5.0
"""Seconds after which a DAG is started for events that Airflow has passed over; see dag_run_queue."""

MAX_BATCH = 100
"""How many runs are registered in one transaction."""

MAX_ID_LENGTH = 200

PRINTABLE = r"^[^\x00-\x1f\x7f]*$"
"""What ids consist of: PostgreSQL stores no NUL."""

PARSE_IN_THREAD_BYTES = 100_000
"""Bodies from this size on are parsed in a thread: 8 MB take 50 ms."""

REFUSED_AFTER = 0.5
"""
Seconds from the end of the body to the refusal of a wrong signature. For a connection that takes webhooks the key is
read again first, as it may be a new one; a shorter time would show which connections do.
"""

MAX_CLIENTS = 1000
"""Clients whose unsigned requests are counted."""


class Refused(Exception):
    """
    An answer that ends a request: a status and what to say.

    :param answer_at: When to send it, by the monotonic clock, if not at once.
    """

    def __init__(
        self, status: int, detail: str, headers: dict[str, str] | None = None, *, answer_at: float = 0.0
    ) -> None:
        super().__init__(detail)
        self.answer_at = answer_at
        self.response = JSONResponse({"detail": detail}, status, headers)


class Delivery(RunBase):
    """What a webhook says of a run; the rest of its body, the output twice, becomes no objects."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    run_id: str = Field(
        validation_alias=AliasChoices("run_id", "workflow_run_id"),
        min_length=1,
        max_length=MAX_ID_LENGTH,
        pattern=PRINTABLE,
    )
    workflow_id: str | None = Field(default=None, max_length=MAX_ID_LENGTH, pattern=PRINTABLE)
    created_at: UtcDatetime
    finished_at: UtcDatetime | None = None
    app_url: str | None = None

    @property
    def ended(self) -> datetime:
        """Return when the run ended, or what is known to be before."""
        return self.finished_at or self.created_at

    @property
    def run(self) -> FinishedRun:
        """Return the run as events carry it."""
        return FinishedRun(
            run_id=self.run_id,
            status=self.status,
            workflow_id=self.workflow_id or "",
            finished_at=self.finished_at.isoformat() if self.finished_at else None,
            app_url=self.app_url,
        )


@dataclass(frozen=True)
class Limits:
    """What ``[skyvern]`` in Airflow's configuration says; :mod:`airflow_skyvern.provider_info` explains each."""

    connections: frozenset[str]
    max_bytes: int = 8 * 1024 * 1024
    rate: float = 100.0
    max_age: float = 7 * 86400.0

    @classmethod
    def configured(cls) -> Limits:
        """Read the configuration."""
        return cls(
            webhook_connections(),
            conf.getint("skyvern", "webhook_max_bytes", fallback=cls.max_bytes),
            conf.getfloat("skyvern", "webhook_rate", fallback=cls.rate),
            conf.getfloat("skyvern", "webhook_max_age", fallback=cls.max_age),
        )


class TokenBucket:
    """Lets ``rate`` requests a second pass, and twice as many at once."""

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.rate, self._clock = rate, clock
        self._left, self._seen = 2 * rate, clock()

    @property
    def is_empty(self) -> bool:
        """Whether nothing may pass now."""
        return self._left + (self._clock() - self._seen) * self.rate < 1

    def take(self) -> bool:
        """Return whether one more may pass."""
        now = self._clock()
        self._left = min(2 * self.rate, self._left + (now - self._seen) * self.rate)
        self._seen = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class SigningKeys:
    """The API keys of the connections, with which Skyvern signs."""

    def __init__(self, read: Callable[[str], bytes | None]) -> None:
        self._read = read
        self._no_key = secrets.token_bytes(32)
        self._known: dict[str, Kept[bytes]] = {}

    async def signed(self, conn_id: str | None, body: bytes | bytearray, signature: str) -> bool:
        """
        Return whether the body is signed with the connection's key, in the same time whatever differs.

        :param conn_id: The connection, or None for one that takes no webhooks and is not looked up.
        """
        if conn_id is None:
            return is_signed_with(self._no_key, body, signature) and False
        kept = self._known.setdefault(conn_id, Kept(partial(self._read_key, conn_id)))
        key = await kept.get(KEY_MAX_AGE)
        if is_signed_with(key, body, signature):
            return True
        newer = await kept.get(1.0)
        return newer is not key and is_signed_with(newer, body, signature)

    async def _read_key(self, conn_id: str) -> bytes:
        key: bytes | None = await run_in_threadpool(self._read, conn_id)
        return key or self._no_key


def is_signed_with(key: bytes, body: bytes | bytearray, signature: str) -> bool:
    """Compare a signature in constant time with the right one: HMAC-SHA256 of the raw body, in hex."""
    expected = hmac.new(key, body, hashlib.sha256).hexdigest().encode()
    return hmac.compare_digest(expected, signature.strip().lower().encode(errors="replace"))


def read_api_key(conn_id: str) -> bytes | None:
    """Read the API key of a connection; problems are logged, not sent to the caller."""
    try:
        return settings_of(teams.read_connection(conn_id)).api_key.encode()
    except Exception as error:  # noqa: BLE001  a secrets backend may raise anything
        # No traceback: it may hold secrets.
        log.error("Webhooks of the Skyvern connection %r are refused: %s", conn_id, error)
        return None


Register = Callable[[Sequence[Delivered]], list[DeliveryResult]]


class RegisterQueue:
    """
    Hands runs over, in a thread: one batch at a time, with all that have come in the meantime.

    :param register: Says for each run of a batch what has become of it.
    """

    def __init__(self, register: Register) -> None:
        self._register = register
        self._waiting: list[tuple[Delivered, asyncio.Future[DeliveryResult]]] = []
        self._work: asyncio.Task[None] | None = None

    async def put(self, delivered: Delivered) -> DeliveryResult:
        """Add a finished run, and return the result once its batch is registered."""
        answer: asyncio.Future[DeliveryResult] = asyncio.get_running_loop().create_future()
        self._waiting.append((delivered, answer))
        if self._work is None or self._work.done():
            self._work = asyncio.create_task(self._drain())
        return await answer

    async def _drain(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            try:
                results = await run_in_threadpool(self._register, [delivered for delivered, _ in batch])
            except Exception as error:  # noqa: BLE001  the deliveries of this batch get it
                for _, answer in batch:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), result in zip(batch, results, strict=True):
                if not answer.done():
                    answer.set_result(result)


class Receiver:
    """
    Takes webhooks.

    :param read_key: Returns the API key of a connection, or None; it is called in a thread.
    :param register: See :class:`RegisterQueue`.
    """

    def __init__(
        self,
        limits: Limits,
        read_key: Callable[[str], bytes | None] = read_api_key,
        register: Register | None = None,
    ) -> None:
        self.limits = limits
        self._keys = SigningKeys(read_key)
        self._bucket = TokenBucket(limits.rate)
        self._unsigned: dict[str, TokenBucket] = {}
        self._held = 0
        self._queue = RegisterQueue(register or partial(registry.register, max_age=limits.max_age))
        self._requeues: dict[tuple[str, str], asyncio.Task[None]] = {}

    async def receive(self, conn_id: str, request: Request) -> JSONResponse:
        """Answer a delivery."""
        try:
            return await self._taken(conn_id, await self._verified(conn_id, request))
        except Refused as refused:
            await asyncio.sleep(max(0.0, refused.answer_at - time.monotonic()))
            return refused.response

    async def _verified(self, conn_id: str, request: Request) -> Delivery:
        """Read a body and check its signature."""
        body = bytearray()
        client = request.client.host if request.client else ""
        try:
            await self._read(body, request, self._unsigned_of(client))
            return await self._checked(conn_id, body, request.headers.get(SIGNATURE, ""), client)
        finally:
            self._held -= len(body)
            body.clear()  # an error's traceback holds the frames, and so the body, until the garbage is collected

    def _unsigned_of(self, client: str) -> TokenBucket:
        """Return how many more unsigned requests a client may send; the clients seen last are remembered."""
        bucket = self._unsigned.pop(client, None) or TokenBucket(self.limits.rate)
        self._unsigned[client] = bucket
        if len(self._unsigned) > MAX_CLIENTS:
            del self._unsigned[next(iter(self._unsigned))]
        return bucket

    async def _read(self, body: bytearray, request: Request, unsigned: TokenBucket) -> None:
        """Read the body within the limits, whatever the request says of its length."""
        if unsigned.is_empty:
            raise Refused(429, "Too many requests with a wrong signature", {"retry-after": "1"})
        try:
            await asyncio.wait_for(self._read_all(body, request), READ_TIMEOUT)
        except ClientDisconnect:
            raise Refused(400, "The client closed the connection") from None
        except asyncio.TimeoutError:
            raise Refused(408, "The body did not arrive in time", {"connection": "close"}) from None

    async def _read_all(self, body: bytearray, request: Request) -> None:
        async for chunk in request.stream():
            body += chunk
            self._held += len(chunk)
            if len(body) > self.limits.max_bytes:
                raise Refused(413, f"More than {self.limits.max_bytes} bytes", {"connection": "close"})
            if self._held > max(MAX_BYTES_HELD, self.limits.max_bytes):
                raise Refused(503, "Too many requests at once", {"retry-after": "5", "connection": "close"})

    async def _checked(self, conn_id: str, body: bytearray, signature: str, client: str) -> Delivery:
        began = time.monotonic()
        known = conn_id if conn_id in self.limits.connections else None
        if not await self._keys.signed(known, body, signature):
            self._unsigned_of(client).take()
            raise Refused(401, "Invalid signature", answer_at=began + REFUSED_AFTER)
        if not self._bucket.take():
            raise Refused(429, "Too many requests", {"retry-after": "1"})
        if len(body) < PARSE_IN_THREAD_BYTES:
            return parse_delivery(body)
        delivery: Delivery = await run_in_threadpool(parse_delivery, body)
        return delivery

    async def _taken(self, conn_id: str, delivery: Delivery) -> JSONResponse:
        if not delivery.is_final:
            return _answer("not finished", delivery)
        if not delivery.workflow_id:
            return _answer("not of a workflow", delivery)
        result = await self._queue.put(Delivered(conn_id, delivery.run, delivery.ended))
        log.info("Skyvern run %s (%s): webhook, %s", delivery.run_id, delivery.status, result)
        if result == "no asset":
            raise Refused(404, f"No DAG is scheduled on the runs of {delivery.workflow_id} of this connection")
        if result == "in the future":
            raise Refused(
                400, "The run ended in the future: the clocks of Skyvern and Airflow differ by a day or more"
            )
        if result == "event created":
            self._requeue_soon(conn_id, delivery.workflow_id)
        return _answer(result, delivery)

    def _requeue_soon(self, conn_id: str, workflow_id: str) -> None:
        """See to it, once the burst is over, that no event was passed over."""
        key = (conn_id, workflow_id)
        if (earlier := self._requeues.get(key)) is not None:
            earlier.cancel()
        self._requeues[key] = asyncio.create_task(self._requeue(key))

    async def _requeue(self, key: tuple[str, str]) -> None:
        await asyncio.sleep(REQUEUE_DELAY)
        try:
            await run_in_threadpool(registry.requeue_dags, *key)
        except Exception:  # the next delivery tries again
            log.exception("Skyvern webhooks: could not requeue DAGs for %s", key)
        self._requeues.pop(key, None)


def parse_delivery(body: bytes | bytearray) -> Delivery:
    """Read a body that is signed."""
    try:
        return Delivery.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False, include_context=False)[0]
        field_path = ".".join(str(part) for part in first["loc"])
        raise Refused(400, f"Not the webhook of a run: {field_path or 'JSON'}: {first['msg']}") from None


def _answer(result: str, delivery: Delivery) -> JSONResponse:
    return JSONResponse({"result": result, "run_id": delivery.run_id})


def app(receiver: Receiver) -> FastAPI:
    """Make the app, which shows no documentation of itself."""
    made = FastAPI(title="Skyvern webhooks", openapi_url=None)
    route: Callable[..., Awaitable[Any]] = receiver.receive
    made.add_api_route("/webhooks/{conn_id:path}", route, methods=["POST"], response_model=None)
    return made


@cache
def receiver() -> FastAPI:
    """Return the app of this process, as configured."""
    return app(Receiver(Limits.configured()))
