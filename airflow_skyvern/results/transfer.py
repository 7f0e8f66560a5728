"""Transfers one file: in pieces, resumed after an interruption, and compared with Skyvern's description."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_skyvern.client.retry import RETRY_INTERVAL, while_transient
from airflow_skyvern.exceptions import SkyvernError, SkyvernTransferError

if TYPE_CHECKING:
    from airflow_skyvern.client.streaming import Incoming
    from airflow_skyvern.runs.wait import Log

PATIENCE = 120.0
"""Seconds without a new byte after which a transfer fails, and with it this try of the task."""

PROGRESS_INTERVAL = 10.0
"""Seconds between two log lines about a file in transfer."""

SHA256_DIGITS = 64

Open = Callable[[int], AbstractContextManager["Incoming"]]
"""Opens a file at a byte offset."""


@dataclass(frozen=True)
class Received:
    """The received data of a file: size in bytes, sha256 in hexadecimal digits, and the seconds it took."""

    size: int
    checksum: str
    seconds: float

    @property
    def rate(self) -> str:
        """How fast, in words."""
        return f"{self.size / 1e6 / max(self.seconds, 1e-6):.1f} MB/s"


class OtherContent(SkyvernTransferError):
    """The data differs from Skyvern's list, or from the data before an interruption; reading it again may help."""


class _FileChanged(Exception):
    """The server sends another file than before the interruption."""


class Transfer:
    """
    Transfers one file from a source to a writer.

    An interrupted transfer resumes where it stopped. If the server cannot do that, it sends the file again, and the
    data that had already arrived is compared and skipped.

    :param open_: Opens the file from a byte on.
    :param label: Describes the file in messages.
    :param size: The size in bytes, if Skyvern gives it.
    :param checksum: The sha256, if Skyvern gives it.
    :param check_stop: Called for each piece; raises when the task has to stop.
    :param patience: Seconds without a new byte after which the transfer fails.
    """

    def __init__(
        self,
        open_: Open,
        *,
        label: str,
        size: int | None,
        checksum: str | None,
        log: Log,
        check_stop: Callable[[], object] = lambda: None,
        patience: float = PATIENCE,
        sleep: Callable[[float], Any] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._open = open_
        self._label = label
        self._size = size
        self._checksum = checksum.lower() if checksum and len(checksum) == SHA256_DIGITS else None
        self._log = log
        self._check_stop = check_stop
        self._patience = patience
        self._sleep = sleep
        self._clock = clock
        self._digest = hashlib.sha256()
        self._received = 0
        self._total: int | None = None
        self._complete = False

    def into(self, write: Callable[[bytes], object]) -> Received:
        """
        Read the file to its end.

        :param write: Takes the next piece of the file.
        :raises OtherContent: the data does not match Skyvern's description.
        :raises SkyvernTransferError: no more data arrived in time.
        :raises SkyvernError: the file cannot be read at all.
        """
        began = self._last_line = self._clock()
        try:
            while not self._complete:
                while_transient(self._patience, sleep=self._sleep, clock=self._clock)(self._continue, write)
        except _FileChanged:
            raise OtherContent(f"{self._label}: it changed while it was read.") from None
        except SkyvernError as error:
            if not error.transient:
                raise
            raise SkyvernTransferError(
                f"{self._label}: {self._received} bytes arrived, and no more within {self._patience:.0f} s. {error}"
            ) from error
        self._check()
        return Received(self._received, self._digest.hexdigest(), self._clock() - began)

    def _continue(self, write: Callable[[bytes], object]) -> None:
        """Read until the end or an interruption; return after an interruption if anything new arrived before it."""
        before = self._received
        try:
            with self._open(before) as incoming:
                self._read(incoming, write)
            self._complete = True
        except SkyvernError as error:
            if not error.transient or self._received == before:
                raise
            self._log.info("%s: cut after %d bytes, continuing there. %s", self._label, self._received, error)
            self._sleep(RETRY_INTERVAL)

    def _read(self, incoming: Incoming, write: Callable[[bytes], object]) -> None:
        self._note_total(incoming.total)
        known = self._received - incoming.start
        repeated = hashlib.sha256()
        for piece in incoming.chunks:
            self._check_stop()
            new = piece
            if known:
                repeated.update(piece[:known])
                new, known = piece[known:], max(0, known - len(piece))
                if not known and repeated.digest() != self._digest.digest():
                    raise _FileChanged
            if new:
                self._take(new, write)
        if known:
            raise _FileChanged

    def _take(self, piece: bytes, write: Callable[[bytes], object]) -> None:
        write(piece)
        self._digest.update(piece)
        self._received += len(piece)
        if self._clock() - self._last_line >= PROGRESS_INTERVAL:
            self._last_line = self._clock()
            of = f" of {self._total / 1e6:.1f}" if self._total is not None else ""
            self._log.info("%s: %.1f%s MB so far", self._label, self._received / 1e6, of)

    def _note_total(self, total: int | None) -> None:
        if total is None:
            return
        if self._total is not None and total != self._total:
            raise _FileChanged
        self._total = total

    def _check(self) -> None:
        for name, said in (("the server announced", self._total), ("Skyvern lists", self._size)):
            if said is not None and said != self._received:
                raise OtherContent(f"{self._label}: {self._received} bytes arrived, and {name} {said}.")
        if self._checksum is not None and self._digest.hexdigest() != self._checksum:
            raise OtherContent(
                f"{self._label}: what arrived is not what Skyvern lists: its sha256 is {self._digest.hexdigest()}, "
                f"not {self._checksum}."
            )
