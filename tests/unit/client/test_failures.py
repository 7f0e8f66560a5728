"""What a message says of requests that went wrong: against real sockets where the words come from below httpx."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.client import api
from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.client.sender import SkyvernClient
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.exceptions import (
    SkyvernAPIError,
    SkyvernConnectionError,
    SkyvernError,
    SkyvernNotFoundError,
    SkyvernResponseError,
)
from airflow_skyvern.testing.fake.skyvern import API_KEY, FakeSkyvern

if TYPE_CHECKING:
    from airflow_skyvern.testing.loopback import Loopback

ONCE = RetryPolicy(attempts=1)
TLS_ALERT = b"\x15\x03\x01\x00\x02\x02\x46"  # "protocol version": what OpenSSL answers to plain http


@contextmanager
def listening(answer: bytes | None) -> Iterator[str]:
    """A port that answers every connection with these bytes, or never."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def serve() -> None:
            connection, _ = server.accept()
            kept.append(connection)
            connection.recv(65536)
            if answer is not None:
                connection.sendall(answer)
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        for connection in kept:
            connection.close()


def message_of(base_url: str, kind: type[SkyvernError], **settings: Any) -> str:
    with (
        SkyvernClient(Settings(API_KEY, base_url=base_url, **settings), retry=ONCE) as client,
        pytest.raises(kind) as caught,
    ):
        client.send(api.get_version())
    assert type(caught.value) is kind
    return str(caught.value)


def test_https_to_a_server_that_speaks_http_is_said(loopback: Loopback, fake: FakeSkyvern) -> None:
    loopback.fake = fake
    address = loopback.url.removeprefix("http://")
    message = message_of(f"https://{address}", SkyvernConnectionError)
    assert f"The server speaks plain http there, or the proxy does: use http://{address} as the base URL" in message


def test_http_to_a_server_that_speaks_https_is_said() -> None:
    with listening(TLS_ALERT) as address:
        message = message_of(f"http://{address}", SkyvernConnectionError)
    assert f"The server speaks https there: use https://{address} as the base URL" in message


@pytest.mark.parametrize(
    "body", ["400 The plain HTTP request was sent to HTTPS port", "Client sent an HTTP request to an HTTPS server.\n"]
)
def test_the_ways_in_which_servers_say_so_themselves_are_known(body: str) -> None:
    error = failure("http://skyvern.example.com", lambda _: httpx.Response(400, text=body))
    assert "speaks https there: use https://skyvern.example.com" in str(error)
    assert error.transient  # as before: what is not Skyvern's proves nothing


def failure(base_url: str, handler: Callable[[httpx.Request], httpx.Response], **settings: Any) -> SkyvernError:
    transport = httpx.MockTransport(handler)
    with SkyvernClient(Settings(API_KEY, base_url=base_url, **settings), retry=ONCE, transport=transport) as client:
        try:
            client.send(api.probe())
        except SkyvernError as error:
            return error
    raise AssertionError("it did not fail")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (httpx.Response(404, html="<h1>404</h1>"), SkyvernResponseError),
        (httpx.Response(405, html="<h1>405 Not Allowed</h1>"), SkyvernResponseError),
        (httpx.Response(200, html="<div id=app></div>"), SkyvernResponseError),
        (httpx.Response(404, json={"detail": "Not Found"}), SkyvernNotFoundError),
        (httpx.Response(405, json={"detail": "Method Not Allowed"}), SkyvernAPIError),
    ],
)
def test_where_no_skyvern_api_is_the_message_says_so(answer: httpx.Response, kind: type[SkyvernError]) -> None:
    error = failure("https://example.com/ui", lambda _: answer)
    assert type(error) is kind
    assert "There is no Skyvern API at this base URL (the host field of the Airflow connection)" in str(error)
    assert ": https://example.com/ui. " in str(error)


def test_a_404_of_something_that_is_not_there_is_no_wrong_address() -> None:
    answer = httpx.Response(404, json={"detail": "Workflow not found. workflow_permanent_id=wpid_1"})
    error = failure("https://example.com", lambda _: answer)
    assert "There is no Skyvern API" not in str(error)
    assert "workflow ids start with wpid_" in str(error)


@pytest.mark.parametrize(
    ("kind", "seconds", "words"),
    [
        (httpx.ConnectTimeout, 60.0, "(ConnectTimeout: not connected within 10 s); the request was not sent"),
        (httpx.ConnectTimeout, 5.0, "not connected within 5 s, see the timeout field of the Airflow connection)"),
        (httpx.ReadTimeout, 60.0, "(ReadTimeout: nothing was received for 60 s, see the timeout field"),
        (httpx.WriteTimeout, 2.5, "(WriteTimeout: the request was not taken for 2.5 s, see the timeout field"),
        (httpx.PoolTimeout, 60.0, "(PoolTimeout: no free connection of this process within 60 s, see the timeout"),
    ],
)
def test_a_timeout_says_which_limit_is_over_and_how_long_it_is(
    kind: type[httpx.TimeoutException], seconds: float, words: str
) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise kind("timed out", request=request)

    assert words in str(failure("https://example.com", handler, timeout=seconds))


@pytest.mark.slow
def test_a_server_that_never_answers_runs_into_the_limit_that_is_named() -> None:
    with listening(None) as address:
        message = message_of(f"http://{address}", SkyvernConnectionError, timeout=0.2)
    assert "(ReadTimeout: nothing was received for 0.2 s, see the timeout field" in message
