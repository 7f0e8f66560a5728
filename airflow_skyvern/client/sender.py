"""
Sending calls to a Skyvern server, from ordinary code and from an event loop.

Whether a failed call is sent again is one pure decision, :meth:`~airflow_skyvern.client.retry.RetryPolicy.delay`.
tenacity carries it out in both senders; only the sending itself is written twice. This module and
:mod:`airflow_skyvern.client.streaming`, for bodies that are too large to hold, are the only ones that know httpx.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import httpx
import tenacity
from pydantic import ValidationError
from typing_extensions import Self

from airflow_skyvern import __version__
from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.client.streaming import Incoming, request_headers
from airflow_skyvern.exceptions import (
    SkyvernAnswerTooLarge,
    SkyvernAPIError,
    SkyvernConfigError,
    SkyvernConnectionError,
    SkyvernError,
    SkyvernResponseError,
    detail_of,
    error_of_answer,
    is_skyverns,
    shorten,
)

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call
    from airflow_skyvern.client.settings import Settings

T = TypeVar("T")
Observe = Callable[["Call[Any]", SkyvernError | None], object]
"""What is called with each request that was sent and the error it ended with, if any; must be quick and not raise."""

CONNECT_TIMEOUT = 10.0

IDLE = 4
"""How many idle connections an event loop keeps: httpx checks all of them for each request."""

MAX_ERROR_BYTES = 2**16
"""How much is read of an answer to a download that is no success."""

NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol, UnicodeError)
HUNG_UP = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)
NO_ANSWER = (httpx.HTTPError, UnicodeError)  # the latter for a host name that no resolver takes


class SkyvernClient:
    """
    Sends calls and waits for their answers.

    :param transport: What carries the requests; the network if not given.
    :param sleep: How to pause between repetitions.
    :param observe: Called after each request; for metrics.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        retry: RetryPolicy | None = None,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
        observe: Observe | None = None,
    ) -> None:
        self.settings = settings
        self._observe = observe or _ignore
        self._http = httpx.Client(**_options(settings), transport=transport)
        self._repeat = tenacity.Retrying(**(retry or RetryPolicy()).repeating(), sleep=sleep)

    def send(self, call: Call[T]) -> T:
        """
        Send the call, again where that is safe, and return its result; lists are read to the end.

        :raises SkyvernAPIError: the server answered with a status that is no success.
        :raises SkyvernConnectionError: no answer came.
        """
        result = rows = self._repeated(call)
        page = call
        while (following := page.next_page(rows)) is not None:
            page, rows = following, self._repeated(following)
            result = _joined(result, rows)
        return result

    @contextmanager
    def stream(self, call: Call[Any], start: int = 0) -> Iterator[Incoming]:
        """
        Send the call once, and hand over its answer as it arrives.

        :param start: The first byte that is wanted; a server may send all of them nevertheless.
        :raises SkyvernAPIError: the server answered with a status that is no success.
        :raises SkyvernConnectionError: no answer came, or only a part of it.
        """
        request = _request(self.settings, call) | {"headers": request_headers(start)}
        try:
            with self._http.stream(call.method, **request) as response:
                if not response.is_success:
                    raise _error_of(call, response, _start_of(response))
                yield Incoming.of(response, start)
        except httpx.HTTPError as error:
            raise _no_answer(call, error, self.settings) from error

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _repeated(self, call: Call[T]) -> T:
        result: T = self._repeat.copy()(self._send_once, call)
        return result

    def _send_once(self, call: Call[T]) -> T:
        try:
            result = self._exchange(call)
        except SkyvernError as error:
            self._observe(call, error)
            raise
        self._observe(call, None)
        return result

    def _exchange(self, call: Call[T]) -> T:
        try:
            with self._http.stream(call.method, **_request(self.settings, call)) as response:
                body = _Body(call, response, self.settings.max_answer_bytes)
                for chunk in response.iter_bytes():
                    body.add(chunk)
        except NO_ANSWER as error:
            raise _no_answer(call, error, self.settings) from error
        return _result(call, response, body.taken())


class AsyncSkyvernClient:
    """
    :class:`SkyvernClient` for an event loop; belongs to the loop it is first used in.

    :param transport: What carries the requests; the network if not given.
    :param sleep: How to pause between repetitions.
    :param keep: Seconds for which an idle connection is kept. Longer than httpx's 5 only for calls that may be
        repeated: the server may close a connection in the moment it is used again.
    :param observe: Called after each request; for metrics.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        retry: RetryPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        keep: float = 5.0,
        observe: Observe | None = None,
    ) -> None:
        self.settings = settings
        self._observe = observe or _ignore
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=IDLE, keepalive_expiry=keep)
        self._http = httpx.AsyncClient(**_options(settings), transport=transport, limits=limits)
        policy = retry or RetryPolicy()
        self._repeat = tenacity.AsyncRetrying(**policy.repeating(), sleep=sleep) if policy.attempts > 1 else None

    async def send(self, call: Call[T]) -> T:
        """Send the call, again where that is safe; see :meth:`SkyvernClient.send`."""
        result = rows = await self._repeated(call)
        page = call
        while (following := page.next_page(rows)) is not None:
            page, rows = following, await self._repeated(following)
            result = _joined(result, rows)
        return result

    async def open(self, call: Call[Any], headers: Mapping[str, str]) -> httpx.Response:
        """
        Send the call once and return its answer, of whatever status, before its body has arrived: close it.

        :param headers: More headers, such as ``range``.
        :raises SkyvernConnectionError: no answer came.
        """
        request = self._http.build_request(call.method, **_request(self.settings, call), headers=dict(headers))
        try:
            return await self._http.send(request, stream=True)
        except NO_ANSWER as error:
            raise _no_answer(call, error, self.settings) from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _repeated(self, call: Call[T]) -> T:
        if self._repeat is None:  # tenacity takes a twentieth of a request
            return await self._send_once(call)
        # A copy, as tenacity keeps the state of the call in it and many waits share this client.
        return await self._repeat.copy()(self._send_once, call)

    async def _send_once(self, call: Call[T]) -> T:
        try:
            result = await self._exchange(call)
        except SkyvernError as error:
            self._observe(call, error)
            raise
        self._observe(call, None)
        return result

    async def _exchange(self, call: Call[T]) -> T:
        try:
            async with self._http.stream(call.method, **_request(self.settings, call)) as response:
                body = _Body(call, response, self.settings.max_answer_bytes)
                async for chunk in response.aiter_bytes():
                    body.add(chunk)
        except NO_ANSWER as error:
            raise _no_answer(call, error, self.settings) from error
        return _result(call, response, body.taken())


def _ignore(call: Call[Any], error: SkyvernError | None) -> None:
    """Observe nothing."""


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Make the TLS context, once per process and file of certificates: it takes more than 20 ms of the event loop."""
    return _tls_context(settings.verify, settings.certificates_changed_at)


@cache
def _tls_context(verify: bool | str, _changed_at: float | None) -> ssl.SSLContext:  # noqa: FBT001  a setting
    if isinstance(verify, bool):
        return httpx.create_ssl_context(verify=verify)
    try:
        return ssl.create_default_context(cafile=verify)
    except OSError as error:
        raise SkyvernConfigError(f"verify: cannot read certificates from {verify}: {error}") from error


def _check_addresses(settings: Settings) -> None:
    """
    Check that httpx can read the addresses.

    :raises SkyvernConfigError: names the field, and for the proxy nothing else: httpx quotes parts of its password.
    """
    try:
        httpx.URL(settings.base_url)
    except httpx.InvalidURL as error:
        raise SkyvernConfigError(f"the base URL (host field) is not an address: {error}") from None
    try:
        httpx.URL(settings.proxy or "")
    except httpx.InvalidURL:
        raise SkyvernConfigError(
            "proxy is not an address; if its password holds one of /?#@:, percent-encode it."
        ) from None


def _quiet() -> None:
    """Keep httpx from logging a line per request into the task's log, unless a user has set its level."""
    if (log := logging.getLogger("httpx")).level == logging.NOTSET:
        log.setLevel(logging.WARNING)


def _options(settings: Settings) -> dict[str, Any]:
    _quiet()
    _check_addresses(settings)
    return {
        "headers": {
            "x-api-key": settings.api_key,
            "user-agent": f"airflow-provider-skyvern/{__version__}",
        },
        "timeout": httpx.Timeout(settings.timeout, connect=min(CONNECT_TIMEOUT, settings.timeout)),
        "verify": tls_context(settings),
        "proxy": settings.proxy,
    }


def _request(settings: Settings, call: Call[Any]) -> dict[str, Any]:
    return {
        "url": _parsed(settings.base_url.rstrip("/") + call.path, str(httpx.QueryParams(call.query))),
        "json": call.body,
        "files": call.files,
        "data": call.form,
    }


@lru_cache(maxsize=128)
def _parsed(address: str, query: str) -> httpx.URL:
    """Read an address once: waits ask for the same pages every few seconds, and it takes a tenth of a request."""
    return httpx.URL(address, query=query.encode()) if query else httpx.URL(address)


class _Body:
    """The body of an answer, decompressed; 290 kB of gzip may be 618 MB."""

    def __init__(self, call: Call[Any], response: httpx.Response, limit: int) -> None:
        self._call = call
        self._response = response
        self._limit = limit
        self._chunks: list[bytes] = []
        self._size = 0

    def add(self, chunk: bytes) -> None:
        """
        Add what has arrived.

        :raises SkyvernAnswerTooLarge: the body is larger than any that is read, and would be so again.
        :raises SkyvernResponseError: the same for an error page, and for a start, which may have started something.
        """
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > self._limit:
            kind = (
                SkyvernAnswerTooLarge if self._response.is_success and self._call.repeatable else SkyvernResponseError
            )
            message = f"Could not {self._call.what}: the answer is larger than {self._limit:,} bytes."
            raise kind(f"{message} {kind.advice}", status_code=self._response.status_code)

    def taken(self) -> bytes:
        """Return the body and keep nothing of it, as a large one is in memory twice already."""
        chunks, self._chunks = self._chunks, []
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _result(call: Call[T], response: httpx.Response, body: bytes) -> T:
    if not response.is_success:
        raise _error_of(call, response, body)
    try:
        return call.parse(body)
    except ValidationError as error:
        raise _unreadable(call, response, len(body), error) from None


def _error_of(call: Call[Any], response: httpx.Response, body: bytes) -> SkyvernAPIError:
    text = body.decode(errors="replace")
    return error_of_answer(
        call.what,
        response.status_code,
        _redirect(response) or detail_of(text),
        retry_after=_retry_after(response.headers.get("retry-after")),
        by_skyvern=is_skyverns(text),
    )


def _start_of(response: httpx.Response) -> bytes:
    """Read what a message quotes of an answer that is no success, which may be any body of any size."""
    body = b""
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > MAX_ERROR_BYTES:
            break
    return body


def _unreadable(call: Call[Any], response: httpx.Response, size: int, error: ValidationError) -> SkyvernResponseError:
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    field_path = ".".join(str(part) for part in first["loc"])
    kind = response.headers.get("content-type", "no content type")
    detail = f"{field_path}: {first['msg']}" if field_path else first["msg"]
    return SkyvernResponseError(
        f"Could not {call.what}: the answer ({response.status_code}, {kind}, {size} bytes) "
        f"is not what the Skyvern API promises: {shorten(detail)}. {SkyvernResponseError.advice}",
        status_code=response.status_code,
        detail=detail,
    )


def _no_answer(call: Call[Any], error: Exception, settings: Settings) -> SkyvernConnectionError:
    never_sent = isinstance(error, NEVER_SENT)
    reason = f"{type(error).__name__}: {shorten(str(error))}" if str(error) else type(error).__name__
    sure = "the request was not sent" if never_sent else "the request may have arrived"
    return SkyvernConnectionError(
        f"Could not {call.what}: no answer from {settings.base_url} ({reason}); {sure}. "
        "Check the base URL, the proxy and the network of this Airflow component.",
        never_sent=never_sent,
        hung_up=isinstance(error, HUNG_UP),
    )


def _redirect(response: httpx.Response) -> str | None:
    if not response.has_redirect_location:
        return None
    try:
        target = urlsplit(response.headers["location"])._replace(query="", fragment="").geturl()
    except ValueError:
        target = "an address that cannot be read"
    return f"redirected to {shorten(target)}; put the final address into the connection's base URL"


def _retry_after(value: str | None) -> float | None:
    """Read a Retry-After header: seconds, or a date."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _joined(rows: Any, more: Any) -> Any:
    """Append a page; rows that moved here from the page before, as newer ones came in, stay single."""
    known = {row.model_dump_json() for row in rows[-len(more) :]} if more else set()
    return rows + [row for row in more if row.model_dump_json() not in known]
