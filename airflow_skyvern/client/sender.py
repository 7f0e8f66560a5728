"""
Sending calls to a Skyvern server, from ordinary code and from an event loop.

Whether a failed call is sent again is one pure decision, :meth:`~airflow_skyvern.client.retry.RetryPolicy.delay`.
tenacity carries it out in both senders; only the sending itself is written twice. This module and
:mod:`airflow_skyvern.client.streaming`, for bodies that are too large to hold, and
:mod:`airflow_skyvern.client.failures` are the only ones that know httpx.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import tenacity
from pydantic import ValidationError
from typing_extensions import Self

from airflow_skyvern import __version__
from airflow_skyvern.client.calls import OtherAnswer
from airflow_skyvern.client.environment import (
    Proxy,
    Trust,
    check_trust,
    proxy_for,
    trust_of,
    unreadable_certificates,
)
from airflow_skyvern.client.failures import (
    NO_ANSWER,
    is_page,
    is_page_instead_of_file,
    no_answer,
    refused,
    unreadable,
)
from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.client.streaming import Incoming, request_headers
from airflow_skyvern.client.versions import Server
from airflow_skyvern.exceptions import (
    SkyvernAnswerTooLarge,
    SkyvernAPIError,
    SkyvernConfigError,
    SkyvernError,
    SkyvernResponseError,
)
from airflow_skyvern.models import RunSnapshot

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call
    from airflow_skyvern.client.settings import Settings
    from airflow_skyvern.client.versions import Asking

T = TypeVar("T")
Observe = Callable[["SkyvernError | None"], object]
"""Called after each request, with its error, if any; must be quick and not raise."""

IDLE, IDLE_FOR_LISTS = 8, 4
"""
How many connections an event loop keeps: as many as a poller has requests at once, eight runs and four pages.

With fewer, httpx closes each one that is idle while others are busy, and the next request makes another. With more,
it checks more of them for each request.
"""

WRITING = frozenset({"http11.send_request_headers.started", "http11.send_request_body.started"})
"""What httpcore reports right before it writes: without its body, a request that has one does nothing."""

A_PAGE = OtherAnswer("it is a web page")

MAX_ERROR_BYTES = 2**16
"""How many bytes of a non-2xx response to a download are read."""


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
        self.fingerprint = _, trust = settings.fingerprint
        self._observe = observe or _ignore
        self._server = Server()
        options = _options(settings) | _way(settings, trust)
        if transport is not None:
            options |= {"transport": transport, "proxy": None}
        self._http = httpx.Client(**options)
        self._repeat = tenacity.Retrying(**(retry or RetryPolicy()).repeating(), sleep=sleep)

    def send(self, call: Call[T]) -> T:
        """
        Send the call, again where that is safe, and return its result; lists are read to the end.

        :raises SkyvernAPIError: a non-2xx response.
        :raises SkyvernConnectionError: no answer came.
        """
        if call.needs:
            self.check(call)
        result = rows = self._repeated(call)
        page = call
        while (following := page.next_page(rows)) is not None:
            before, page, rows = rows, following, self._repeated(following)
            if rows == before:
                break  # an old server has no pages here, and gives all each time
            result = _joined(result, rows)
        return result if call.keeps is None else call.kept(result)

    @contextmanager
    def stream(self, call: Call[Any], start: int = 0) -> Iterator[Incoming]:
        """
        Send the call once, and hand over its answer as it arrives.

        :param start: The first byte that is wanted; a server may send all of them nevertheless.
        :raises SkyvernAPIError: a non-2xx response.
        :raises SkyvernConnectionError: no answer came, or only a part of it.
        """
        request = _request(self.settings, call) | {"headers": request_headers(start)}
        try:
            with self._http.stream(call.method, **request) as response:
                if not response.is_success:
                    raise refused(call, response, _start_of(response), self.settings)
                if is_page_instead_of_file(response):
                    raise unreadable(call, response, len(_start_of(response)), A_PAGE, self.settings)
                yield Incoming.of(response, start)
        except httpx.HTTPError as error:
            raise no_answer(call, error, self.settings) from error

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def close_when_unused(self) -> None:
        """Close the connections when the last user of this client, in any thread, has released it."""
        _when_unused(self, self._http.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _repeated(self, call: Call[T]) -> T:
        result: T = self._repeat.copy()(self._send_once, call)
        return result

    def check(self, call: Call[Any]) -> None:
        """
        Find out whether the server has what a call needs.

        :raises SkyvernTooOld: it does not.
        """
        self.ask(self._server.check(call))

    def ask(self, asking: Asking) -> Any:
        """Send what is asked, one after the other, and return what is found out."""
        answer: Any = None
        while True:
            try:
                call = asking.send(answer)
            except StopIteration as end:
                return end.value
            try:
                answer = self._repeated(call)
            except SkyvernError as error:
                answer = error

    def _send_once(self, call: Call[T]) -> T:
        if self._server.refuses:
            call = self._server.suited(call)
        try:
            return self._observed(call)
        except SkyvernError as error:
            if (other := self._server.instead(call, error)) is None:
                raise
            refusal = error
        try:
            return self._observed(other)
        except SkyvernAPIError:
            raise refusal from None

    def _observed(self, call: Call[T]) -> T:
        try:
            result = self._exchange(call)
        except SkyvernError as error:
            self._observe(error)
            raise
        self._observe(None)
        return result

    def _exchange(self, call: Call[T]) -> T:
        settings = _settings_for(call, self.settings)
        try:
            with self._http.stream(call.method, **_request(settings, call), extensions=_checked(call)) as response:
                body = _Body(call, response, settings.max_answer_bytes)
                for chunk in response.iter_bytes():
                    body.add(chunk)
        except NO_ANSWER as error:
            raise no_answer(call, error, settings) from error
        return _result(call, response, body.taken(), settings)


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
        self.fingerprint = _, trust = settings.fingerprint
        self._observe = observe or _ignore
        self._server = Server()
        options = _options(settings)
        self._connections = _Connections(_way(settings, trust), keep, transport)
        self._http = httpx.AsyncClient(**options, transport=self._connections, trust_env=False)
        self._get_request = lru_cache(maxsize=128)(partial(_get_request, self._http, settings.base_url))
        policy = retry or RetryPolicy()
        self._repeat = tenacity.AsyncRetrying(**policy.repeating(), sleep=sleep) if policy.attempts > 1 else None

    async def send(self, call: Call[T]) -> T:
        """Send the call, again where that is safe; see :meth:`SkyvernClient.send`."""
        if call.needs:
            await self.check(call)
        result = rows = await self._repeated(call)
        page = call
        while (following := page.next_page(rows)) is not None:
            before, page, rows = rows, following, await self._repeated(following)
            if rows == before:
                break  # an old server has no pages here, and gives all each time
            result = _joined(result, rows)
        return result if call.keeps is None else call.kept(result)

    async def open(self, call: Call[Any], headers: Mapping[str, str]) -> httpx.Response:
        """
        Send the call once and return its answer, of whatever status, before its body has arrived: close it.

        :param headers: More headers, such as ``range``.
        :raises SkyvernConnectionError: no answer came.
        """
        options = _request(self.settings, call) | {"headers": dict(headers)}
        request = self._http.build_request(call.method, **options)
        try:
            return await self._http.send(request, stream=True)
        except NO_ANSWER as error:
            raise no_answer(call, error, self.settings) from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def close_when_unused(self) -> None:
        """Close the connections when the last user of this client has released it, if its event loop still runs."""
        _when_unused(self, _close_in, asyncio.get_running_loop(), self._http)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def _repeated(self, call: Call[T]) -> T:
        if self._repeat is None:  # tenacity takes a twentieth of a request
            return await self._send_once(call)
        # A copy, as tenacity keeps the state of the call in it and many waits share this client.
        return await self._repeat.copy()(self._send_once, call)

    async def check(self, call: Call[Any]) -> None:
        """See :meth:`SkyvernClient.check`."""
        asking, answer = self._server.check(call), None
        while True:
            try:
                asked = asking.send(answer)
            except StopIteration:
                return
            try:
                answer = await self._repeated(asked)
            except SkyvernError as error:
                answer = error

    async def _send_once(self, call: Call[T]) -> T:
        if self._server.refuses:
            call = self._server.suited(call)
        try:
            return await self._observed(call)
        except SkyvernError as error:
            if (other := self._server.instead(call, error)) is None:
                raise
            refusal = error
        try:
            return await self._observed(other)
        except SkyvernAPIError:
            raise refusal from None

    async def _observed(self, call: Call[T]) -> T:
        try:
            result = await self._exchange(call)
        except SkyvernError as error:
            self._observe(error)
            raise
        self._observe(None)
        return result

    async def _exchange(self, call: Call[T]) -> T:
        settings = _settings_for(call, self.settings)
        try:
            with self._connections.used_for(call) as connections:
                # Not self._http.send(): it keeps cookies and follows redirects, which takes a sixth of a request.
                response = await connections.handle_async_request(self._built(call, settings))
                try:
                    body = _Body(call, response, settings.max_answer_bytes)
                    async for chunk in response.aiter_bytes():
                        body.add(chunk)
                finally:
                    await response.aclose()
        except NO_ANSWER as error:
            raise no_answer(call, error, settings) from error
        return _result(call, response, body.taken(), settings)

    def _built(self, call: Call[Any], settings: Settings) -> httpx.Request:
        if self._http.is_closed:
            raise RuntimeError("this client has been closed")  # its connections would be made again, and left
        if call.is_address_only:
            return self._get_request(call.path, str(httpx.QueryParams(call.query)))
        return self._http.build_request(call.method, **_request(settings, call), extensions=_checked_async(call))


def _get_request(http: httpx.AsyncClient, base_url: str, path: str, query: str) -> httpx.Request:
    """Build a GET request once: waits ask for the same pages every few seconds, and it takes a tenth of a request."""
    return http.build_request("GET", _address(base_url, path, query))


class _Connections(httpx.AsyncBaseTransport):
    """
    The connections of an event loop: some for one list of runs at a time, as thousands of waits send little else.

    For each request, httpx checks every idle connection of its pool, which takes longer than the request itself where
    there are a dozen.

    :param way: The arguments of httpx for the way to the server.
    :param keep: Seconds for which an idle connection is kept.
    :param transport: What carries all requests instead.
    """

    def __init__(
        self, way: Mapping[str, Any], keep: float, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        self._way = way
        self._keep = keep
        self._for_all = transport or self._pool(IDLE)
        self._most_for_lists = IDLE_FOR_LISTS if transport is None else 0
        self._for_lists: list[httpx.AsyncBaseTransport] = []
        self._free: list[httpx.AsyncBaseTransport] = []

    @contextmanager
    def used_for(self, call: Call[Any]) -> Iterator[httpx.AsyncBaseTransport]:
        """Return what to send a call with, and keep lists of runs off it meanwhile."""
        connection = self._free_for_a_list() if call.path == "/v1/runs" else None
        if connection is None:
            yield self._for_all
            return
        try:
            yield connection
        finally:
            self._free.append(connection)

    def _free_for_a_list(self) -> httpx.AsyncBaseTransport | None:
        if self._free:
            return self._free.pop()  # the last one used
        if len(self._for_lists) == self._most_for_lists:
            return None
        self._for_lists.append(connection := self._for_a_list())
        return connection

    def _pool(self, idle: int) -> httpx.AsyncBaseTransport:
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=idle, keepalive_expiry=self._keep)
        return httpx.AsyncHTTPTransport(**self._way, limits=limits)

    def _for_a_list(self) -> httpx.AsyncBaseTransport:
        own_loop = isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop)  # an API server has uvloop
        if self._way["proxy"] is not None or not own_loop:
            return self._pool(1)
        from airflow_skyvern.client.list_connections import ListTransport  # few waits send no list

        return ListTransport(self._way["verify"], self._keep)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._for_all.handle_async_request(request)

    async def aclose(self) -> None:
        for pool in (self._for_all, *self._for_lists):
            await pool.aclose()


def _when_unused(client: object, close: Callable[..., object], *args: object) -> None:
    """Close when the client is collected, but not at the end of the process, which may be a fork of another."""
    weakref.finalize(client, close, *args).atexit = False  # type: ignore[misc]  # it may be set, says its documentation


def _close_in(loop: asyncio.AbstractEventLoop, http: httpx.AsyncClient) -> None:
    """Close a client in its event loop; one that has ended has taken its connections with it."""

    def start() -> None:
        closing = loop.create_task(http.aclose())
        _CLOSING.add(closing)
        closing.add_done_callback(_CLOSING.discard)

    if not http.is_closed and loop.is_running():
        loop.call_soon_threadsafe(start)


_CLOSING: set[asyncio.Task[None]] = set()
"""Clients that are closing; without a reference the event loop may drop them."""


def _ignore(error: SkyvernError | None) -> None:
    """Observe nothing."""


def tls_context(settings: Settings) -> ssl.SSLContext:
    """
    Make the TLS context, once per process and file of certificates: it takes more than 20 ms of the event loop.

    :raises SkyvernConfigError: certificates cannot be read; names the field or the environment variable.
    """
    return _tls_context(trust_of(settings.verify))


@cache
def _tls_context(trust: Trust) -> ssl.SSLContext:
    check_trust(trust)
    if trust.file is None and trust.directory is None:
        context = httpx.create_ssl_context(verify=trust.verify, trust_env=False)
        if trust.verify and trust.key_log:
            context.keylog_filename = trust.key_log  # httpx 0.27 leaves it to itself
        return context
    try:
        return ssl.create_default_context(cafile=trust.file, capath=trust.directory)
    except OSError as error:
        raise unreadable_certificates(trust, error) from error


def way_through(proxy: Proxy | None, context: ssl.SSLContext) -> dict[str, Any]:
    """
    Return the arguments of httpx for this way to a server: httpx itself reads nothing of the environment.

    :raises SkyvernConfigError: the proxy cannot be used; names the field or the variable.
    """
    return {"verify": context, "proxy": proxy and _proxy(proxy), "trust_env": False}


def _proxy(proxy: Proxy) -> httpx.Proxy:
    try:
        url = httpx.URL(scheme=proxy.scheme, host=proxy.host, port=proxy.port)
    except httpx.InvalidURL:
        raise SkyvernConfigError(f"{proxy.source} is not an address such as http://proxy.example.com:3128.") from None
    context = _tls_context(trust_of(verify=True)) if proxy.scheme == "https" else None
    return httpx.Proxy(url, auth=proxy.auth, ssl_context=context)


def _check_address(settings: Settings) -> None:
    """
    Check that httpx can read the address.

    :raises SkyvernConfigError: names the field.
    """
    try:
        httpx.URL(settings.base_url)
    except httpx.InvalidURL as error:
        raise SkyvernConfigError(f"the base URL (host field) is not an address: {error}") from None


def _quiet() -> None:
    """Keep httpx from logging a line per request into the task's log, unless a user has set its level."""
    if (log := logging.getLogger("httpx")).level == logging.NOTSET:
        log.setLevel(logging.WARNING)


def _options(settings: Settings) -> dict[str, Any]:
    _quiet()
    _check_address(settings)
    return {
        "headers": {
            "x-api-key": settings.api_key,
            "user-agent": f"airflow-provider-skyvern/{__version__}",
        },
        "timeout": _timeout(settings),
    }


def _way(settings: Settings, trust: Trust) -> dict[str, Any]:
    return way_through(proxy_for(settings.base_url, settings.proxy), _tls_context(trust))


def _settings_for(call: Call[Any], settings: Settings) -> Settings:
    """Return the settings with the limit of a call, if it has one."""
    settings = settings if call.slow is None else settings.at_least(call.slow)
    return settings if call.within is None else settings.within(call.within)


def _timeout(settings: Settings) -> httpx.Timeout:
    return httpx.Timeout(settings.timeout, connect=settings.connect_timeout)


def _request(settings: Settings, call: Call[Any]) -> dict[str, Any]:
    limit = {} if call.within is call.slow is None else {"timeout": _timeout(settings)}
    return limit | {
        "url": _address(settings.base_url, call.path, str(httpx.QueryParams(call.query))),
        "json": call.body,
        "files": call.files,
        "data": call.form,
        "content": call.text,
        "headers": dict(call.headers),
    }


def _checked(call: Call[Any]) -> dict[str, Any]:
    """Have httpcore run ``before_sending`` right before the request: pauses and connections may take long."""
    if (check := call.before_sending) is None:
        return {}

    def trace(event: str, _: Mapping[str, Any]) -> None:
        if event in WRITING:
            check()

    return {"trace": trace}


def _checked_async(call: Call[Any]) -> dict[str, Any]:
    if not (checked := _checked(call)):
        return {}

    async def trace(event: str, info: Mapping[str, Any]) -> None:
        checked["trace"](event, info)

    return {"trace": trace}


def _address(base_url: str, path: str, query: str) -> httpx.URL:
    address = base_url.rstrip("/") + path
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

        :raises SkyvernAnswerTooLarge: the body exceeds the limit, and would do so again.
        :raises SkyvernResponseError: the same for a web page, and for a start, which may have started something.
        """
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size > self._limit:
            promised = self._response.is_success and self._call.repeatable and not is_page(self._response)
            kind = SkyvernAnswerTooLarge if promised else SkyvernResponseError
            message = f"Could not {self._call.what}: the answer is larger than {self._limit:,} bytes."
            raise kind(f"{message} {kind.advice}", status_code=self._response.status_code)

    def taken(self) -> bytes:
        """Return the body without keeping it, as a large one is in memory twice already."""
        chunks, self._chunks = self._chunks, []
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _result(call: Call[T], response: httpx.Response, body: bytes, settings: Settings) -> T:
    if not response.is_success:
        raise refused(call, response, body, settings)
    if call.parse is bytes and is_page_instead_of_file(response):
        raise unreadable(call, response, len(body), A_PAGE, settings)
    try:
        result = call.result_of(body)
    except (ValidationError, OtherAnswer) as error:
        raise unreadable(call, response, len(body), error, settings) from None
    return with_own_page(result, settings)


def with_own_page(result: T, settings: Settings) -> T:
    """Give a run the address of its page as the connection says it: here, so that nothing shows another one."""
    if settings.app_url is None or not isinstance(result, RunSnapshot):
        return result
    return result.model_copy(update={"app_url": settings.run_page(result.app_url)})


def _start_of(response: httpx.Response) -> bytes:
    """Read the part of a non-2xx response that a message quotes; its body may be of any kind and size."""
    body = b""
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > MAX_ERROR_BYTES:
            break
    return body


def _joined(rows: Any, more: Any) -> Any:
    """Append a page; rows that moved here from the page before, as newer ones came in, stay single."""
    known = {row.model_dump_json() for row in rows[-len(more) :]} if more else set()
    return rows + [row for row in more if row.model_dump_json() not in known]
