"""Answers that are read as they arrive: files, which may be larger than the memory of a worker."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

from airflow_skyvern.exceptions import SkyvernResponseError

if TYPE_CHECKING:
    import httpx
    from typing_extensions import Self

CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)$")


@dataclass(frozen=True)
class Incoming:
    """
    The body of an answer while it arrives.

    :param start: The position of its first byte in the file: 0 where the server does not do ranges.
    :param total: The size of the whole file in bytes; None if the server does not say.
    :param chunks: The body in pieces of at most 64 KiB. Raises the errors of httpx.
    :param sent_at: When the answer was sent, by the clock of the server, to the second; None if it does not say.
    """

    start: int
    total: int | None
    chunks: Iterator[bytes]
    sent_at: datetime | None = None

    @classmethod
    def of(cls, response: httpx.Response, requested: int) -> Self:
        """
        Read the headers of an answer to a request for the bytes from ``requested`` on.

        :raises SkyvernResponseError: the answer holds other bytes.
        """
        chunks, sent_at = response.iter_bytes(), _date(response)
        if response.status_code != HTTPStatus.PARTIAL_CONTENT:
            length = response.headers.get("content-length", "")
            plain = "content-encoding" not in response.headers
            return cls(0, int(length) if length.isdecimal() and plain else None, chunks, sent_at)
        found = CONTENT_RANGE.match(response.headers.get("content-range", ""))
        if found is None or int(found[1]) != requested:
            raise SkyvernResponseError(f"The server sent other bytes of a file than those from {requested} on.")
        return cls(requested, int(found[2]), chunks, sent_at)


def _date(response: httpx.Response) -> datetime | None:
    try:
        sent = parsedate_to_datetime(response.headers.get("date", ""))
    except (TypeError, ValueError):
        return None
    return sent if sent.tzinfo else sent.replace(tzinfo=timezone.utc)


def request_headers(start: int) -> dict[str, str]:
    """Return the headers that request a file from a byte on, uncompressed: compressed data cannot be resumed."""
    headers = {"accept-encoding": "identity"}
    return {**headers, "range": f"bytes={start}-"} if start else headers
