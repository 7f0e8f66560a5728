"""
Converts values so that they fit into Airflow's database, or into a JSON file.

A run is paid for by the time its output is pushed, so values that Airflow's serializer or database would refuse are
converted first, and each place is named in the log. docs/output.md has the table of conversions.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from airflow_skyvern.compat.sdk import conf
from airflow_skyvern.exceptions import SkyvernOutputTooLarge, shorten

if TYPE_CHECKING:
    from airflow_skyvern.runs.wait import Log

SMALLEST_INT, LARGEST_INT = -(2**63), 2**64 - 1
"""What Airflow 3 sends from a task to its supervisor; beyond, its encoder raises."""

MOST_BITS = 10_000
"""Of an integer in a JSON file: Python itself reads and writes no more than 4,300 digits."""

DEEPEST = 64
"""Levels of lists and objects within each other. Each takes several frames of Airflow's recursive serializer."""

RESERVED = frozenset({"__classname__", "__id__", "__type"})
"""Keys by which Airflow's serializer marks what it has encoded itself."""

REPLACEMENT = "\ufffd"

MOST_NAMED = 20
"""How many paths a log line names."""

LARGE = 2**20
"""The size in bytes from which on an output in XCom is worth a warning."""

MAX_XCOM_BYTES = 32 * 2**20
"""On Airflow 3.3 with PostgreSQL, 20 MB took 21 s on a busy machine, and 64 MB exceeded the worker's timeouts."""

REMEDY = 'output_to="s3://…/{{ run_id }}.json" writes it into a file instead.'

_SURROGATES = re.compile("[\ud800-\udfff]")
_NOT_IN_DATABASE = re.compile("[\x00\ud800-\udfff]")

Change = tuple[str, str]
"""The path of a changed value, and how it was changed."""


def fitted(value: Any, changes: list[Change], *, xcom: bool) -> Any:
    """
    Return the value in a form that can be stored; lists and objects are changed in place.

    :param changes: Collects the changes.
    :param xcom: Whether it goes into XCom, which accepts less than a JSON file.
    """
    return _Fitting(changes, xcom=xcom).fitted(value, ())


def fitted_for_xcom(value: Any, run_id: str, log: Log) -> Any:
    """Return the value in its form for XCom, and log the changes."""
    changes: list[Change] = []
    value = fitted(value, changes, xcom=True)
    log_changes(changes, run_id, "XCom", log)
    return value


def flattened(value: Any) -> Any:
    """Write values nested too deeply for Airflow's serializer as JSON text; without recursion."""
    stack = [(value, 1)]
    while stack:
        current, depth = stack.pop()
        for key, item in _entries(current):
            if not isinstance(item, dict | list):
                continue
            if depth >= DEEPEST:
                current[key] = _json(item)
            else:
                stack.append((item, depth + 1))
    return value


def into_xcom(value: Any, run_id: str, log: Log) -> Any:
    """
    Return the output of a run in its form for XCom.

    :param value: Plain JSON.
    :raises SkyvernOutputTooLarge: it is larger than the limit for XCom.
    """
    from airflow_skyvern.results.formats import json_pieces

    value = fitted_for_xcom(value, run_id, log)
    _check_size(sum(map(len, json_pieces(value))), run_id, log)
    return value


def _check_size(size: int, run_id: str, log: Log) -> None:
    largest = conf.getint("skyvern", "max_xcom_bytes", fallback=MAX_XCOM_BYTES)
    if size > largest:
        raise SkyvernOutputTooLarge(
            f"Skyvern run {run_id}: the output has {size / 1e6:.1f} MB, more than goes into Airflow's database "
            f"([skyvern] max_xcom_bytes: {largest:,}). {REMEDY} A retry takes the same run."
        )
    if size > LARGE:
        log.warning(
            "Skyvern run %s: the output has %.1f MB, and Airflow stores it in its database. %s",
            run_id,
            size / 1e6,
            REMEDY,
        )


def log_changes(changes: list[Change], run_id: str, place: str, log: Log) -> None:
    """Name the changed values by path, without the values."""
    if not changes:
        return
    named = "; ".join(f"{path or 'the value'}: {what}" for path, what in changes[:MOST_NAMED])
    more = f"; and {len(changes) - MOST_NAMED} more" if len(changes) > MOST_NAMED else ""
    log.warning("Skyvern run %s: changed in the output so that it fits into %s: %s%s", run_id, place, named, more)


class _Fitting:
    def __init__(self, changes: list[Change], *, xcom: bool) -> None:
        self._changes = changes
        self._xcom = xcom
        self._refused_text = _NOT_IN_DATABASE if xcom else _SURROGATES

    def fitted(self, value: Any, path: tuple[Any, ...]) -> Any:  # noqa: PLR0911  one line per type of JSON
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._text(value, path)
        if isinstance(value, int):
            return self._integer(value, path)
        if isinstance(value, float):
            return self._number(value, path)
        if isinstance(value, dict | list) and len(path) >= DEEPEST:
            return self._as_text(value, path, f"deeper than {DEEPEST} levels, became JSON text")
        if isinstance(value, dict):
            return self._object(value, path)
        if isinstance(value, list):
            for index, item in enumerate(value):
                value[index] = self.fitted(item, (*path, index))
            return value
        return self._other(value, path)

    def _text(self, text: str, path: tuple[Any, ...]) -> str:
        if not self._refused_text.search(text):
            return text
        self._note(path, "characters that cannot be stored became U+FFFD")
        return self._refused_text.sub(REPLACEMENT, text)

    def _integer(self, value: int, path: tuple[Any, ...]) -> Any:
        if SMALLEST_INT <= value <= LARGEST_INT or (not self._xcom and value.bit_length() <= MOST_BITS):
            return value
        self._note(
            path,
            "an integer beyond 64 bits became text"
            if self._xcom
            else "an integer of thousands of digits became text",
        )
        return _digits(value)

    def _number(self, value: float, path: tuple[Any, ...]) -> float | None:
        if math.isfinite(value):
            return value
        self._note(path, "NaN or an infinity became null")
        return None

    def _object(self, value: dict[Any, Any], path: tuple[Any, ...]) -> Any:
        if self._xcom and RESERVED & value.keys():
            return self._as_text(value, path, "an object with a key that Airflow reserves became JSON text")
        for key in list(value):
            item = self.fitted(value[key], (*path, key))
            if (name := self._name(key, path)) is key:
                value[key] = item
            else:
                del value[key]
                value[_free(name, value)] = item
        return value

    def _name(self, key: Any, path: tuple[Any, ...]) -> str:
        if isinstance(key, str):
            return self._text(key, path)
        self._note((*path, key), "a key that is not text became text")
        return key if isinstance(key, str) else self._text(_json(key) if _is_plain(key) else str(key), path)

    def _as_text(self, value: Any, path: tuple[Any, ...], what: str) -> str:
        self._note(path, what)
        inner: list[Change] = []
        text = _json(_shallow(value, inner))
        return self._refused_text.sub(REPLACEMENT, text)

    def _other(self, value: Any, path: tuple[Any, ...]) -> Any:
        """Convert what a model's own serializer has not: tuples, sets, dates, decimals, anything."""
        from pydantic_core import to_jsonable_python

        self._note(path, f"{type(value).__name__} became what JSON has for it")
        return self.fitted(to_jsonable_python(value, fallback=str, serialize_unknown=True), path)

    def _note(self, path: tuple[Any, ...], what: str) -> None:
        self._changes.append((shorten(_SURROGATES.sub("?", ".".join(str(part) for part in path)), 200), what))


def _shallow(value: Any, changes: list[Change]) -> Any:
    """Fit a value that is written as text: as in a file, at any depth, without our own recursion."""
    stack = [value]
    while stack:
        current = stack.pop()
        for key, item in _entries(current):
            if isinstance(item, dict | list):
                stack.append(item)
            elif not isinstance(item, int):
                current[key] = fitted(item, changes, xcom=False)
    return value


def _entries(value: Any) -> Iterator[tuple[Any, Any]]:
    return iter(list(value.items() if isinstance(value, Mapping) else enumerate(value)))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _is_plain(key: Any) -> bool:
    return key is None or isinstance(key, bool | int | float)


def _digits(value: int) -> str:
    try:
        return str(value)
    except ValueError:  # more digits than Python converts
        return hex(value)


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """Keep two keys distinct that become the same text."""
    return name if name not in taken else f"{name} ({len(taken)})"
