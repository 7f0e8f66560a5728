"""
The format of an output's file, by extension: ``.json``, ``.jsonl``, ``.csv``, ``.parquet``, and ``.gz`` after them.

The items of a list are rows. Any other value is one row, and a row that is not an object has one column, ``value``:
the run is paid for, so its output is written in any case.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import chain
from typing import IO, Any

from airflow_skyvern.exceptions import SkyvernConfigError

ROWS = 1_000
"""How many items of a long list are written at once."""

RUN_ID_COLUMN, LOADED_AT_COLUMN = "_skyvern_run_id", "_loaded_at"
"""The columns that ``output_run_columns`` adds to each row."""

_MOMENT = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")

_TAIL = 64
"""How many bytes at the end of a file contain the time of its last row."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Format:
    """
    How an output is written.

    :param name: The extension, without ``.gz``.
    :param gzip: Whether it is compressed.
    """

    name: str
    gzip: bool = False

    @classmethod
    def of(cls, file_name: str) -> Format:
        """Return the format for a file's name; unknown extensions mean JSON."""
        name = file_name.casefold()
        gzip = name.endswith(".gz")
        extension = name.removesuffix(".gz").rpartition(".")[2]
        return cls({"ndjson": "jsonl"}.get(extension, extension if extension in _WRITERS else "json"), gzip)

    @property
    def has_rows(self) -> bool:
        """Whether it holds rows."""
        return self.name != "json"

    def check(self) -> None:
        """
        Check that this worker can write it.

        :raises SkyvernConfigError: pyarrow is missing.
        """
        if self.name == "parquet" and find_spec("pyarrow") is None:
            raise SkyvernConfigError(
                "output_to: this worker has no pyarrow, which writes .parquet files. Install "
                '"airflow-provider-skyvern[parquet]", or write .jsonl.'
            )

    def loaded_at(self, file: IO[bytes]) -> str | None:
        """Return when a file of this format was written, if its rows say so: files may differ in that time alone."""
        with suppress(OSError, EOFError, KeyError, ValueError, zlib.error):
            if self.name == "parquet":
                return _loaded_at_in_parquet(file)
            with gzip.open(file) if self.gzip else nullcontext(file) as text:
                found = _MOMENT.findall(_end_of(text))
            return found[-1].decode() if found else None
        return None

    def pieces(self, value: Any, columns: Row | None = None) -> Iterator[bytes]:
        """
        Write a value.

        :param value: Plain JSON, see :mod:`airflow_skyvern.results.fitting`.
        :param columns: The columns to add to each row.
        """
        written = _WRITERS[self.name](_rows(value, columns) if self.has_rows or columns else value)
        return _compressed(written) if self.gzip else written


def json_pieces(value: Any) -> Iterator[bytes]:
    """Write a value as JSON in pieces: a large one, written at once, would be in memory two more times."""
    from pydantic_core import to_json

    if isinstance(value, dict) and value:
        yield from _enclosed(b"{}", _entries(value))
    elif isinstance(value, list) and value:
        yield from _enclosed(b"[]", _items(value))
    else:
        yield to_json(value)


def _enclosed(brackets: bytes, parts: Iterator[Iterable[bytes]]) -> Iterator[bytes]:
    yield brackets[:1]
    for number, part in enumerate(parts):
        if number:
            yield b","
        yield from part
    yield brackets[1:]


def _entries(value: dict[str, Any]) -> Iterator[Iterable[bytes]]:
    from pydantic_core import to_json

    for name, item in value.items():
        yield chain((to_json(name), b":"), json_pieces(item))


def _items(value: list[Any]) -> Iterator[Iterable[bytes]]:
    """Write the items of a list; in a long list, which holds rows, many items make a piece."""
    from pydantic_core import to_json

    if len(value) < ROWS:
        yield from map(json_pieces, value)
    else:
        for start in range(0, len(value), ROWS):
            yield (to_json(value[start : start + ROWS])[1:-1],)


def _rows(value: Any, columns: Row | None) -> list[Row]:
    items = value if isinstance(value, list) else [value]
    return [{**(item if isinstance(item, dict) else {"value": item}), **(columns or {})} for item in items]


def _jsonl(rows: list[Row]) -> Iterator[bytes]:
    from pydantic_core import to_json

    for start in range(0, len(rows), ROWS):
        yield b"".join(to_json(row) + b"\n" for row in rows[start : start + ROWS])


def _csv(rows: list[Row]) -> Iterator[bytes]:
    """Write the columns of all rows, in the order in which they appear; lists and objects are JSON texts."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _names(rows), lineterminator="\n")
    writer.writeheader()
    for start in range(0, max(len(rows), 1), ROWS):
        writer.writerows({name: _cell(item) for name, item in row.items()} for row in rows[start : start + ROWS])
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()


def _parquet(rows: list[Row]) -> Iterator[bytes]:
    import pyarrow as pa
    from pyarrow import parquet

    columns = {name: _column(pa, [row.get(name) for row in rows]) for name in _names(rows)}
    file = io.BytesIO()
    parquet.write_table(pa.table(columns), file)
    yield file.getvalue()


def _column(pa: Any, values: list[Any]) -> Any:
    """Return the values in their own type; mixed types, and values too large for their type, become texts."""
    with suppress(pa.ArrowException, OverflowError, TypeError, ValueError):
        column = pa.array(values)
        if _is_writable(pa, column.type):
            return column
    return pa.array([None if item is None else item if isinstance(item, str) else _json(item) for item in values])


def _is_writable(pa: Any, kind: Any) -> bool:
    """Return whether Parquet can represent a type: it cannot represent an object without any names."""
    if pa.types.is_struct(kind) and not kind.num_fields:
        return False
    return all(_is_writable(pa, kind.field(index).type) for index in range(kind.num_fields))


def _loaded_at_in_parquet(file: IO[bytes]) -> str | None:
    from pyarrow import parquet

    table = parquet.read_table(io.BytesIO(file.read()), columns=[LOADED_AT_COLUMN])
    return str(table.column(0)[0]) if table.num_rows and table.num_columns else None


def _end_of(file: Any) -> bytes:
    end = b""
    while piece := file.read(2**20):
        end = (end + piece)[-_TAIL:]
    return end


def _names(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _cell(item: Any) -> Any:
    if isinstance(item, bool | dict | list):
        return _json(item)
    return item


def _json(item: Any) -> str:
    return json.dumps(item, ensure_ascii=False)


def _compressed(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Compress without a time in the header, so that the same output makes the same file."""
    compressor = zlib.compressobj(wbits=31)
    for piece in pieces:
        if compressed := compressor.compress(piece):
            yield compressed
    yield compressor.flush()


_WRITERS: dict[str, Callable[[Any], Iterator[bytes]]] = {
    "json": json_pieces,
    "jsonl": _jsonl,
    "csv": _csv,
    "parquet": _parquet,
}
