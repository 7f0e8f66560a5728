"""
Pictures, recordings and downloaded files of a run, passed on from Skyvern.

Their kind is detected from their first bytes and not taken from the server: a page shows only PNG, JPEG, WebM and
MP4. A downloaded file may be anything, also HTML or SVG with scripts, which must never run on Airflow's origin: it is
always saved to disk. All other files of a run (HAR files with cookies and passwords, prompts, scraped HTML)
is not passed on.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import tenacity
from fastapi import HTTPException
from fastapi.responses import Response, StreamingResponse

from airflow_skyvern.client import api
from airflow_skyvern.client.file_kinds import PICTURES, TELLING_BYTES, VIDEOS, extension_of
from airflow_skyvern.ui.cache import SharedCache
from airflow_skyvern.ui.concealment import visible

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Mapping

    from starlette.types import Receive, Scope, Send

    from airflow_skyvern.models import Artifact
    from airflow_skyvern.ui.lookup import RunRef
    from airflow_skyvern.ui.reader import Clients

log = logging.getLogger(__name__)

MAX_PICTURE = 10 * 2**20
"""Bytes of a picture; a screenshot of a whole page has about 2 MB."""

PICTURES_KEPT = 32 * 2**20
"""Bytes of the pictures that are kept for other viewers."""

PICTURE_TTL = 120.0
"""Seconds for which a picture is kept."""

MAX_STREAMS = 16
"""Recordings and files sent at the same time, in one process."""

MAX_STREAMS_OF_USER = 4
"""Of these, the number for one user: browsers open two or three for a video."""

REPLACING = 5.0
"""Seconds for which a recording may be missing after its run: Skyvern names the MP4 before it is there."""

STREAM_PATIENCE = 5.0
"""Seconds that a request waits for a free stream."""

CHUNK = 65536

PASSED_ON = ("content-length", "content-range", "accept-ranges", "etag", "last-modified")
RANGE = re.compile(r"bytes=\d*-\d*$")

HEADERS = {
    "cache-control": "private, no-store",
    "content-security-policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "content-encoding": "identity",  # Airflow 3.1 compresses videos otherwise, and drops their length
}


class ClosingResponse(StreamingResponse):
    """A stream that is closed with its response, not at garbage collection, because it holds a connection."""

    def __init__(self, stream: AsyncGenerator[Any, None], status_code: int, headers: Mapping[str, str]) -> None:
        super().__init__(stream, status_code, headers)
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the response; if Skyvern breaks off, break off too, as the status is already sent."""
        try:
            await super().__call__(scope, receive, send)
        except httpx.HTTPError as error:
            log.info("Skyvern broke off while it sent a recording or a file: %r", error)
        finally:
            await self._stream.aclose()


@dataclass(frozen=True)
class Picture:
    """A picture, small enough to be kept."""

    content: bytes
    media_type: str


class StreamLimit:
    """Bounds how many streams there are at a time, for all users and for each."""

    def __init__(self, total: int = MAX_STREAMS, each: int = MAX_STREAMS_OF_USER) -> None:
        self._free, self._each = asyncio.Semaphore(total), each
        self._of_user: Counter[str] = Counter()

    @asynccontextmanager
    async def slot(self, user_id: str) -> AsyncIterator[None]:
        """
        Hold one of the streams.

        :raises HTTPException: 429 if the user has as many as allowed, 503 if there is none.
        """
        if self._of_user[user_id] >= self._each:
            raise HTTPException(429, "You have several recordings or files open.", {"retry-after": "2"})
        self._of_user[user_id] += 1
        try:
            await self._wait()
            try:
                yield
            finally:
                self._free.release()
        finally:
            self._of_user[user_id] -= 1
            self._of_user += Counter()  # drops the zeros

    async def _wait(self) -> None:
        try:
            await asyncio.wait_for(self._free.acquire(), STREAM_PATIENCE)
        except asyncio.TimeoutError:
            raise HTTPException(503, "Too many recordings and files are open.", {"retry-after": "5"}) from None


class Media:
    """
    Passes media on.

    :param clients: The clients of the connections.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._pictures: SharedCache[Picture] = SharedCache(
            lambda _: PICTURE_TTL, size=lambda picture: len(picture.content), capacity=PICTURES_KEPT
        )
        self._video_types: SharedCache[str] = SharedCache(lambda _: PICTURE_TTL)
        self._stream_limit = StreamLimit()

    async def picture(self, ref: RunRef, artifact: Artifact) -> Response:
        """Answer with a picture."""
        key = (ref.skyvern_conn_id, artifact.artifact_id)
        found = await self._pictures.get(key, lambda: self._fetch_picture(ref, artifact))
        return Response(found.content, media_type=found.media_type, headers=HEADERS)

    async def recording(self, ref: RunRef, artifact: Artifact, user_id: str, wanted: str | None) -> Response:
        """Answer with a recording, or with the part of it that a player requests."""
        key = (ref.skyvern_conn_id, artifact.artifact_id, str(artifact.modified_at))
        media_type = await self._video_types.get(
            key, lambda: _once_there(404, 416)(self._fetch_video_type, ref, artifact)
        )
        headers = {"content-type": media_type}
        answer: Response = await _once_there(404)(self._streamed, ref, artifact, user_id, wanted, headers)
        return answer

    async def download(
        self, ref: RunRef, artifact: Artifact, user_id: str, wanted: str | None, filename: str
    ) -> Response:
        """Answer with a file to save."""
        headers = {
            "content-type": "application/octet-stream",
            "content-disposition": disposition(filename),
        }
        return await self._streamed(ref, artifact, user_id, wanted, headers)

    async def _fetch_picture(self, ref: RunRef, artifact: Artifact) -> Picture:
        async with self._opened(ref, artifact) as answer:
            content = bytearray()
            async for chunk in answer.aiter_raw(CHUNK):
                content += chunk
                if len(content) > MAX_PICTURE:
                    break
        media_type = PICTURES.get(extension_of(content[:TELLING_BYTES]) or "")
        if media_type is None or len(content) > MAX_PICTURE:
            raise HTTPException(404, "This artifact is not a picture.")
        return Picture(bytes(content), media_type)

    async def _fetch_video_type(self, ref: RunRef, artifact: Artifact) -> str:
        start = b""
        async with self._opened(ref, artifact, {"range": f"bytes=0-{TELLING_BYTES - 1}"}) as answer:
            async for chunk in answer.aiter_raw(TELLING_BYTES):
                start += chunk
                if len(start) >= TELLING_BYTES:
                    break
        found = VIDEOS.get(extension_of(start) or "")
        if found is None:
            raise HTTPException(404, "This artifact is not a recording.")
        return found

    async def _streamed(
        self, ref: RunRef, artifact: Artifact, user_id: str, wanted: str | None, headers: Mapping[str, str]
    ) -> Response:
        """Open the stream first, so that a failure gets its own status, and pass it on."""
        asked = {"range": wanted} if wanted and RANGE.match(wanted) else {}
        stream = self._chunks(ref, artifact, user_id, asked)
        answer = await anext(stream)
        passed = {name: answer.headers[name] for name in PASSED_ON if name in answer.headers}
        return ClosingResponse(stream, answer.status_code, {**HEADERS, **passed, **headers})

    async def _chunks(
        self, ref: RunRef, artifact: Artifact, user_id: str, asked: Mapping[str, str]
    ) -> AsyncGenerator[Any, None]:
        """Yield the answer, then its body; a reader that stops closes both."""
        async with self._stream_limit.slot(user_id), self._opened(ref, artifact, asked) as answer:
            yield answer
            async for chunk in answer.aiter_raw(CHUNK):
                yield chunk

    @asynccontextmanager
    async def _opened(
        self, ref: RunRef, artifact: Artifact, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[httpx.Response]:
        client = await self._clients.get(ref.skyvern_conn_id)
        call = api.get_artifact_content(artifact.artifact_id)
        answer = await client.open(call, {"accept-encoding": "identity", **(headers or {})})
        try:
            _check(answer)
            yield answer
        finally:
            await answer.aclose()


def _once_there(*statuses: int) -> tenacity.AsyncRetrying:
    """Return a retrier for a function that fails with one of these statuses: 404 is missing, 416 still empty."""
    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception(lambda e: isinstance(e, HTTPException) and e.status_code in statuses),
        stop=tenacity.stop_after_delay(REPLACING),
        wait=tenacity.wait_fixed(0.5),
        sleep=asyncio.sleep,
        reraise=True,
    )


def _check(answer: httpx.Response) -> None:
    if answer.status_code == HTTPStatus.NOT_FOUND:
        raise HTTPException(404, "Skyvern no longer has it.")
    if answer.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        raise HTTPException(416, "It has no such part.")
    if not answer.is_success or answer.headers.get("content-encoding", "identity") != "identity":
        raise HTTPException(502, f"Skyvern does not give it out (status {answer.status_code}).")


def disposition(filename: str) -> str:
    """Return the header that lets a browser save a file under its name, with any characters in it."""
    name = re.sub(r"[\x00-\x1f\x7f/\\:*?\"<>|]", "_", visible(filename)).strip(". ")[:150] or "file"
    plain = re.sub(r"[^A-Za-z0-9._ -]", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
