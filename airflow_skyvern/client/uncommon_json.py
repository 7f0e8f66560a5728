"""JSON that Python can read, but not pydantic: nested deeply, with half a surrogate pair, with endless numbers."""

from __future__ import annotations

import json
import re
from typing import Any

DEEPEST = 100
"""Levels of lists and objects; what is deeper is read as the text of its JSON. pydantic refuses 201, Python 1,000."""

MOST_DIGITS = 4300
"""Digits of the longest integer that Python converts."""

REPLACEMENT = "\\ufffd"
"""The replacement for half a surrogate pair, escaped as in JSON."""

_BRACKET_OR_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_ESCAPE = re.compile(
    r"(?P<whole>\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


def read(body: bytes) -> Any:
    """
    Return the value of an answer, as far as Python can represent it.

    :raises ValueError: it is not JSON.
    """
    text = _ESCAPE.sub(lambda found: found["whole"] or REPLACEMENT, body.decode("utf-8", "replace"))
    return json.loads(_shallow(text), parse_int=_integer)


def _shallow(text: str) -> str:
    """Write values that are nested too deeply as the text of their JSON."""
    pieces: list[str] = []
    depth = copied = start = 0
    for found in _BRACKET_OR_TEXT.finditer(text):
        if found[0] in ("[", "{"):
            depth += 1
            start = found.start() if depth == DEEPEST + 1 else start
        elif found[0] in ("]", "}"):
            if depth == DEEPEST + 1:
                pieces += [text[copied:start], json.dumps(text[start : found.end()])]
                copied = found.end()
            depth -= 1
    return "".join([*pieces, text[copied:]])


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= MOST_DIGITS else digits
