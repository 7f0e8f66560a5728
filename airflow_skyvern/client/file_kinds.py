"""Detects what a file is by its first bytes; its name and the server's header may be wrong."""

from __future__ import annotations

TELLING_BYTES = 16
"""More than any of the marks takes."""

MARKS = {
    b"\x89PNG\r\n\x1a\n": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"\x1a\x45\xdf\xa3": ".webm",
    b"PK\x03\x04": ".zip",
}
"""How files begin; an MP4 has its mark after the first four bytes."""

PICTURES = {".png": "image/png", ".jpg": "image/jpeg"}
VIDEOS = {".webm": "video/webm", ".mp4": "video/mp4"}
"""The types of files that a page may show."""


def extension_of(start: bytes | bytearray) -> str | None:
    """
    Return the extension that a file should have, with its dot; None for a kind that is not known.

    :param start: Its first bytes, :data:`TELLING_BYTES` of them if it has as many.
    """
    if start[4:8] == b"ftyp":
        return ".mp4"
    return next((extension for mark, extension in MARKS.items() if start.startswith(mark)), None)
