"""Lists over connections of asyncio's own: what a server, a gateway or a network can do to them, as to all others."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typing_extensions import Self

from airflow_skyvern.client import api
from airflow_skyvern.client.list_connections import MOST_CHUNKS
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.exceptions import SkyvernAnswerTooLarge, SkyvernConnectionError, SkyvernError
from airflow_skyvern.polling.session import single_attempt_client
from dev.peer import write_certificate

if TYPE_CHECKING:
    from airflow_skyvern.client.sender import AsyncSkyvernClient

ROWS = [{"run_id": f"wr_{number}", "status": "running"} for number in range(100)]
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def head(length: int | None, *more: str) -> bytes:
    lines = ["HTTP/1.1 200 OK", "content-type: application/json", *more]
    lines += [] if length is None else [f"content-length: {length}"]
    return "\r\n".join([*lines, "", ""]).encode()


def rows(body: bytes = json.dumps(ROWS).encode()) -> bytes:
    return head(len(body)) + body


class Server:
    """A server that answers each request as it is told to; ``connections`` is how many it has had."""

    def __init__(
        self, answer: Answer, certificate: Path | None = None, *, end_of_request: bytes = b"\r\n\r\n"
    ) -> None:
        self._answer = answer
        self._certificate = certificate
        self._end_of_request = end_of_request
        self.connections = 0
        self.asked: list[str] = []
        self.writers: list[asyncio.StreamWriter] = []
        self._serving: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> Self:
        context = None
        if self._certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(self._certificate)
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=context)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"{'https' if context else 'http'}://127.0.0.1:{port}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self.writers:
            writer.transport.abort()
        for serving in self._serving:
            serving.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        if (task := asyncio.current_task()) is not None:
            self._serving.append(task)
        try:
            while request := await reader.readuntil(self._end_of_request):
                self.asked.append(request.split(b"\r\n")[0].decode())
                await self._answer(reader, writer)
        except (asyncio.IncompleteReadError, OSError):
            writer.close()


async def normal(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(rows())


def client_of(server: Server, certificate: Path | None = None, **more: Any) -> AsyncSkyvernClient:
    verify = True if certificate is None else str(certificate)
    return single_attempt_client(Settings("k", server.url, verify=verify, **more))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tls") / "certificate.pem"
    write_certificate(file)
    return file


async def one_error(client: AsyncSkyvernClient) -> SkyvernError:
    """Return the error of a list, after showing that a fetch of a run has the same."""
    with pytest.raises(SkyvernError) as fetched:
        await client.send(api.get_run_snapshot("wr_1"))
    with pytest.raises(SkyvernError) as listed:
        await client.send(api.list_active_runs(1))
    for attribute in ("never_sent", "hung_up", "transient"):
        assert getattr(listed.value, attribute, None) == getattr(fetched.value, attribute, None), attribute
    return listed.value


@pytest.mark.parametrize("tls", [False, True])
async def test_lists_one_after_another_share_a_connection_and_four_at_once_have_four(
    certificate: Path, tls: bool
) -> None:
    trusted = certificate if tls else None
    async with Server(normal, trusted) as server, client_of(server, trusted) as client:
        for page in range(1, 30):
            assert await client.send(api.list_active_runs(page)) == ROWS
        assert server.connections == 1
        for _ in range(10):
            pages = [client.send(api.list_active_runs(page)) for page in range(1, 5)]
            assert await asyncio.gather(*pages) == [ROWS] * 4
        assert server.connections == 4
        assert len(set(server.asked)) == 29


async def test_more_lists_than_connections_for_them_are_read_nevertheless() -> None:
    async with Server(normal) as server, client_of(server) as client:
        pages = [client.send(api.list_active_runs(page)) for page in range(1, 21)]
        assert await asyncio.gather(*pages) == [ROWS] * 20


@pytest.mark.parametrize("tls", [False, True])
async def test_an_answer_may_come_in_any_pieces_and_forms(certificate: Path, tls: bool) -> None:
    body = json.dumps(ROWS * 400).encode()  # 1.8 MB

    async def in_pieces(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head(None, "transfer-encoding: chunked", "content-encoding: gzip"))
        packed = gzip.compress(body, 0)
        for start in range(0, len(packed), 99_991):
            piece = packed[start : start + 99_991]
            writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    trusted = certificate if tls else None
    async with Server(in_pieces, trusted) as server, client_of(server, trusted) as client:
        for _ in range(3):
            assert await client.send(api.list_active_runs(1)) == ROWS * 400
        assert server.connections == 1


@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_connection_that_the_server_has_closed_is_replaced(how: str) -> None:
    async with Server(normal) as server, client_of(server) as client:
        for expected in (1, 2, 3):
            assert await client.send(api.list_active_runs(1)) == ROWS
            assert server.connections == expected
            getattr(server.writers[-1] if how == "close" else server.writers[-1].transport, how)()
            await asyncio.sleep(0.05)


async def test_what_comes_unasked_is_neither_kept_without_limit_nor_taken_for_an_answer() -> None:
    async with Server(normal) as server, client_of(server) as client:
        assert await client.send(api.list_active_runs(1)) == ROWS
        flood = asyncio.create_task(pour(server.writers[0]))
        await asyncio.sleep(0.2)
        [stream] = [stream for stream in streams(client) if stream is not None]
        assert len(stream._received) <= MOST_CHUNKS
        assert await client.send(api.list_active_runs(1)) == ROWS
        assert server.connections == 2
        flood.cancel()


async def pour(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(rows(b"[]") * 10_000)
        await writer.drain()


def streams(client: AsyncSkyvernClient) -> list[Any]:
    pools = [transport._pool for transport in client._connections._for_lists]  # type: ignore[attr-defined]  # httpx's
    return [one._connection._network_stream for pool in pools for one in pool.connections]


async def test_silence_ends_with_the_timeout() -> None:
    async def silent(*_: Any) -> None:
        await asyncio.sleep(30)

    async with Server(silent) as server, client_of(server, timeout=0.2) as client:
        error = await one_error(client)
        assert "nothing was received for 0.2 s" in str(error)


async def test_an_answer_that_stops_in_its_middle_ends_with_the_timeout() -> None:
    async def half(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(rows()[:-500])
        await asyncio.sleep(30)

    async with Server(half) as server, client_of(server, timeout=0.2) as client:
        assert "nothing was received for 0.2 s" in str(await one_error(client))


@pytest.mark.parametrize("sent", [0, 20, 600])
@pytest.mark.parametrize("how", ["close", "abort"])
async def test_a_server_that_hangs_up(sent: int, how: str) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(rows()[:sent])
        await writer.drain()
        getattr(writer if how == "close" else writer.transport, how)()

    async with Server(hang_up) as server, client_of(server) as client:
        error = await one_error(client)
        assert isinstance(error, SkyvernConnectionError)
        assert error.hung_up


async def test_nobody_listens() -> None:
    async with Server(normal) as server:
        pass
    async with client_of(server) as client:
        error = await one_error(client)
        assert isinstance(error, SkyvernConnectionError)
        assert error.never_sent


async def test_a_host_that_does_not_exist() -> None:
    async with single_attempt_client(Settings("k", "http://no-such-host.invalid")) as client:
        error = await one_error(client)
        assert isinstance(error, SkyvernConnectionError)
        assert error.never_sent


async def test_a_connection_that_is_not_made_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: Any, **__: Any) -> None:
        await asyncio.sleep(30)

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", never)
    async with single_attempt_client(Settings("k", "http://127.0.0.1:9", timeout=0.1)) as client:
        with pytest.raises(SkyvernConnectionError, match=r"not connected within 0.1 s") as caught:
            await client.send(api.list_active_runs(1))
        assert caught.value.never_sent


async def test_a_certificate_that_is_not_trusted(certificate: Path) -> None:
    async with Server(normal, certificate) as server, client_of(server) as client:
        error = await one_error(client)
        assert isinstance(error, SkyvernConnectionError)
        assert error.never_sent
        assert "CERTIFICATE_VERIFY_FAILED" in str(error)


async def test_plain_http_where_tls_is_expected_and_the_reverse(certificate: Path) -> None:
    async with Server(normal, end_of_request=b"\x03") as server:  # it answers what it cannot read, as nginx does
        server.url = server.url.replace("http", "https")
        async with client_of(server, certificate) as client:
            assert "use http://127.0.0.1" in str(await one_error(client))
    async with Server(normal, certificate) as server:
        server.url = server.url.replace("https", "http")
        async with client_of(server) as client:
            await one_error(client)


async def test_an_answer_that_is_too_large_ends_the_request_and_the_connection() -> None:
    async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head(10**9))
        while True:
            writer.write(b" " * 65_536)
            await writer.drain()

    async with Server(endless) as server, client_of(server, max_answer_bytes=1_000_000) as client:
        assert isinstance(await one_error(client), SkyvernAnswerTooLarge)
        assert streams(client) == []


async def test_a_list_that_is_canceled_leaves_nothing_for_the_next_one() -> None:
    silent = True

    async def slow(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if silent:
            await asyncio.sleep(30)
        writer.write(rows())

    async with Server(slow) as server, client_of(server) as client:
        canceled = asyncio.create_task(client.send(api.list_active_runs(1)))
        await asyncio.sleep(0.05)
        canceled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await canceled
        silent = False
        for _ in range(5):
            assert await client.send(api.list_active_runs(1)) == ROWS
        assert server.connections == 2


async def test_a_closed_client_makes_no_connection() -> None:
    async with Server(normal) as server:
        client = client_of(server)
        await client.send(api.list_active_runs(1))
        await client.aclose()
        await asyncio.sleep(0.05)
        assert streams(client) == []
        with pytest.raises(RuntimeError, match="closed"):
            await client.send(api.list_active_runs(1))
        with pytest.raises(RuntimeError, match="closed"):
            await client.send(api.get_run_snapshot("wr_1"))
        assert server.connections == 1


def test_an_event_loop_that_is_not_asyncios() -> None:
    uvloop = pytest.importorskip("uvloop")  # of Airflow's API server

    async def lists() -> None:
        async with Server(normal) as server, client_of(server) as client:
            for _ in range(3):
                assert await client.send(api.list_active_runs(1)) == ROWS
            assert server.connections == 1

    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(lists())
    finally:
        loop.close()
