from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import NoReturn

import pytest

from airflow_skyvern.client.streaming import Incoming
from airflow_skyvern.exceptions import SkyvernConnectionError, SkyvernNotFoundError, SkyvernTransferError
from airflow_skyvern.results.transfer import Received, Transfer

DATA = bytes(range(256)) * 40
CUT = SkyvernConnectionError("the connection was cut")
LOG = logging.getLogger("test")


class Server:
    """Sends a file as each plan says: where it is cut, whether it knows ranges, what it announces."""

    def __init__(self, *cuts: int | None, ranges: bool = True, total: int | None = len(DATA)) -> None:
        self.cuts = list(cuts)
        self.ranges = ranges
        self.total = total
        self.content = DATA
        self.asked: list[int] = []

    @contextmanager
    def open(self, start: int) -> Iterator[Incoming]:
        self.asked.append(start)
        first = start if self.ranges else 0
        yield Incoming(first, self.total, self._chunks(first))

    def _chunks(self, first: int) -> Iterator[bytes]:
        cut = self.cuts.pop(0) if self.cuts else None
        end = len(self.content) if cut is None else first + cut
        for position in range(first, end, 1000):
            yield self.content[position : min(position + 1000, end)]
        if cut is not None:
            raise CUT


def receive(server: Server, **more: object) -> tuple[bytes, Received]:
    pieces: list[bytes] = []
    clock = count()
    given = {"size": len(DATA), "checksum": hashlib.sha256(DATA).hexdigest(), "patience": 20.0, **more}
    transfer = Transfer(
        server.open,
        label="file x",
        log=LOG,
        sleep=lambda _: None,
        clock=lambda: float(next(clock)),
        **given,  # type: ignore[arg-type]  # a table of arguments
    )
    received = transfer.into(pieces.append)
    return b"".join(pieces), received


def test_a_file_arrives_with_its_size_and_checksum() -> None:
    data, received = receive(Server())
    assert data == DATA
    assert (received.size, received.checksum) == (len(DATA), hashlib.sha256(DATA).hexdigest())


def test_a_cut_transfer_continues_where_it_was_cut() -> None:
    server = Server(2500, 0, 3100)
    assert receive(server)[0] == DATA
    assert server.asked == [0, 2500, 2500, 5600]


def test_a_server_without_ranges_sends_again_and_nothing_is_written_twice() -> None:
    server = Server(2500, 700, 3100, ranges=False)
    assert receive(server)[0] == DATA
    assert server.asked == [0, 2500, 2500, 3100]


def test_another_file_after_a_cut_is_not_mixed_with_the_first() -> None:
    server = Server(2500, ranges=False)

    def change(_: float) -> None:
        server.content = DATA[::-1]

    with pytest.raises(SkyvernTransferError, match="it changed while it was read"):
        Transfer(server.open, label="file x", size=None, checksum=None, log=LOG, sleep=change).into(lambda _: None)


def test_another_size_after_a_cut_is_noticed() -> None:
    server = Server(2500)

    def grow(_: float) -> None:
        server.total = 99

    with pytest.raises(SkyvernTransferError, match="it changed while it was read"):
        Transfer(server.open, label="file x", size=None, checksum=None, log=LOG, sleep=grow).into(lambda _: None)


@pytest.mark.parametrize(
    ("more", "total", "complaint"),
    [
        ({"size": 7}, len(DATA), "10240 bytes arrived, and Skyvern lists 7"),
        ({"checksum": "0" * 64}, len(DATA), "its sha256 is"),
        ({}, 20_000, "10240 bytes arrived, and the server announced 20000"),
    ],
)
def test_a_lie_about_size_or_checksum_is_noticed(more: dict[str, object], total: int, complaint: str) -> None:
    with pytest.raises(SkyvernTransferError, match=complaint):
        receive(Server(total=total), **more)


def test_a_checksum_of_another_kind_is_not_compared() -> None:
    assert receive(Server(), checksum="d41d8cd98f00b204e9800998ecf8427e", size=None)[0] == DATA


def test_a_file_of_unknown_size_ends_where_the_server_ends_it() -> None:
    assert receive(Server(total=None), size=None, checksum=None)[0] == DATA


def test_patience_ends_when_nothing_new_arrives() -> None:
    with pytest.raises(SkyvernTransferError, match="2500 bytes arrived, and no more within 20 s"):
        receive(Server(2500, *[0] * 100))


def test_a_file_that_is_gone_is_not_asked_for_again() -> None:
    def gone(start: int) -> NoReturn:
        raise SkyvernNotFoundError("gone")

    with pytest.raises(SkyvernNotFoundError):
        Transfer(gone, label="file x", size=None, checksum=None, log=LOG).into(lambda _: None)


def test_a_long_transfer_logs_a_line_now_and_then(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    receive(Server())
    lines = [record.getMessage() for record in caplog.records]
    assert lines
    assert lines[0].startswith("file x: 0.0 of 0.0 MB so far")


def test_a_task_that_has_to_stop_stops_the_transfer() -> None:
    class Stop(Exception):
        pass

    def stop() -> None:
        raise Stop

    with pytest.raises(Stop):
        receive(Server(), check_stop=stop)
