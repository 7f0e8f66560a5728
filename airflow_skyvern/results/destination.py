"""Where a task's value goes: into XCom as it is, or into a file, with a reference to it in XCom."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from airflow_skyvern.compat.sdk import conf
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernOutputTooLarge
from airflow_skyvern.task.arguments import is_dynamic

if TYPE_CHECKING:
    from airflow_skyvern.runs.wait import Log

LARGE = 2**20
"""The size in bytes from which on an output in XCom is worth a warning."""

MAX_XCOM_BYTES = 32 * 2**20
"""On Airflow 3.3 with PostgreSQL, 20 MB took 21 s on a busy machine, and 64 MB exceeded the worker's timeouts."""

NUL = rb"\u0000"

ROWS = 1_000
"""How many items of a long list are written at once."""

REMEDY = 'output_to="s3://…/{{ run_id }}.json" writes it into a file instead.'

RUN_ID = "{skyvern_run_id}"
"""What stands for Skyvern's id of the run in ``output_to``; ``{{ run_id }}`` is Airflow's id of the DAG run."""


@dataclass(frozen=True)
class OutputFile:
    """
    The file that an output is written to.

    :param address: An absolute path, or the address of an object such as ``s3://bucket/folder/name.json``.
    :param conn_id: The Airflow connection for the store.
    """

    address: str
    conn_id: str | None = None

    def write(self, pieces: Iterable[bytes], run_id: str) -> dict[str, Any]:
        """
        Write the file, in the place of one that an earlier try has written, and return the reference to it.

        It appears when it is complete, or not at all.
        """
        from airflow_skyvern.results.stores import store_at

        folder, _, name = self.address.replace(RUN_ID, run_id).rpartition("/")
        store = store_at(folder or "/", self.conn_id)
        digest, size = hashlib.sha256(), 0
        with store.sink(name, overwrite=True) as sink:
            for piece in pieces:
                sink.write(piece)
                digest.update(piece)
                size += len(piece)
        return {"path": store.address(name), "size": size, "checksum": digest.hexdigest()}


def check_output_to(task_id: str, address: Any, *, has_output: bool = True) -> None:
    """
    Check an ``output_to``, before or after its templates are rendered.

    :param has_output: Whether the task gets the output at all.
    :raises SkyvernConfigError: names the task and what would be right.
    """
    if address is None:
        return
    if not has_output:
        raise SkyvernConfigError(
            f"Task {task_id!r}: output_to: this task does not wait for an output; give it to the one that does."
        )
    if is_dynamic(address):
        return
    if not isinstance(address, str) or address.endswith("/") or not (address.startswith("/") or "://" in address):
        raise SkyvernConfigError(
            f"Task {task_id!r}: output_to must be the absolute path of a file or the address of an object, such as "
            f"s3://bucket/folder/{{{{ run_id }}}}.json, not {address!r}."
        )


def delivered(value: Any, run_id: str, file: OutputFile | None, log: Log) -> Any:
    """
    Return what is pushed: the value itself, or the reference to the file that now holds it.

    :param value: Plain JSON.
    :raises SkyvernOutputTooLarge: it is larger than what may go into XCom.
    """
    if file is None:
        sizes, nuls = zip(*((len(piece), NUL in piece) for piece in json_pieces(value)), strict=True)
        _check_size(sum(sizes), run_id, log)
        return _without_nul(value) if any(nuls) else value
    reference = file.write(json_pieces(value), run_id)
    log.info("Skyvern run %s: output of %d bytes written to %s", run_id, reference["size"], reference["path"])
    return reference


def json_pieces(value: Any) -> Iterator[bytes]:
    """Write a value as JSON in pieces: all of a large one at once would be in memory twice more."""
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
    """Write the items of a list; many of a long one, which is one of rows, make a piece."""
    from pydantic_core import to_json

    if len(value) < ROWS:
        yield from map(json_pieces, value)
    else:
        for start in range(0, len(value), ROWS):
            yield (to_json(value[start : start + ROWS])[1:-1],)


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


def _without_nul(value: Any) -> Any:
    """Replace NUL characters, as in texts of damaged PDFs: PostgreSQL refuses them, and with them the whole XCom."""
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd")
    if isinstance(value, list):
        return [_without_nul(item) for item in value]
    if isinstance(value, dict):
        return {_without_nul(name): _without_nul(item) for name, item in value.items()}
    return value
