"""Answers that are read as they arrive: files, which may be larger than the memory of a worker."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
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
    The body of an answer, on its way.

    :param start: The position of its first byte in the file: 0 where the server does not do ranges.
    :param total: The size of the whole file in bytes; None if the server does not say.
    :param chunks: The body in pieces of at most 64 KiB. Raises the errors of httpx.
    """

    start: int
    total: int | None
    chunks: Iterator[bytes]

    @classmethod
    def of(cls, response: httpx.Response, requested: int) -> Self:
        """
        Read the headers of an answer to a request for the bytes from ``requested`` on.

        :raises SkyvernResponseError: the answer holds other bytes.
        """
        chunks = response.iter_bytes()
        if response.status_code != HTTPStatus.PARTIAL_CONTENT:
            length = response.headers.get("content-length", "")
            plain = "content-encoding" not in response.headers
            return cls(0, int(length) if length.isdecimal() and plain else None, chunks)
        found = CONTENT_RANGE.match(response.headers.get("content-range", ""))
        if found is None or int(found[1]) != requested:
            raise SkyvernResponseError(f"The server sent other bytes of a file than those from {requested} on.")
        return cls(requested, int(found[2]), chunks)


def request_headers(start: int) -> dict[str, str]:
    """Return the headers that ask for a file from a byte on, as it is: what is compressed cannot be continued."""
    headers = {"accept-encoding": "identity"}
    return {**headers, "range": f"bytes={start}-"} if start else headers
