"""Where a task's value goes: into XCom as it is, or into a file, with a reference to it in XCom."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_skyvern.compat.sdk import conf
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernOutputTooLarge
from airflow_skyvern.task.arguments import is_dynamic

if TYPE_CHECKING:
    from airflow_skyvern.runs.wait import Log

LARGE = 2**20
"""The size in bytes from which on an output in XCom is worth a warning."""

MAX_XCOM_BYTES = 100 * 2**20

NUL = rb"\u0000"

PIECE = 2**20

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

    def write(self, data: bytes, run_id: str) -> dict[str, Any]:
        """
        Write the file, in the place of one that an earlier try has written, and return the reference to it.

        It appears when it is complete, or not at all.
        """
        from airflow_skyvern.results.stores import store_at

        folder, _, name = self.address.replace(RUN_ID, run_id).rpartition("/")
        store = store_at(folder or "/", self.conn_id)
        with store.sink(name, overwrite=True, size=len(data)) as sink:
            for start in range(0, len(data), PIECE):
                sink.write(data[start : start + PIECE])
        return {"path": store.address(name), "size": len(data), "checksum": hashlib.sha256(data).hexdigest()}


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
    from pydantic_core import to_json

    data = to_json(value)
    if file is None:
        _check_size(len(data), run_id, log)
        return _without_nul(value, data)
    del value  # so that a large one is in memory once while it is written
    reference = file.write(data, run_id)
    log.info("Skyvern run %s: output of %d bytes written to %s", run_id, len(data), reference["path"])
    return reference


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


def _without_nul(value: Any, data: bytes) -> Any:
    """Replace NUL characters, as in texts of damaged PDFs: PostgreSQL refuses them, and with them the whole XCom."""
    if NUL not in data:
        return value
    from pydantic_core import from_json

    return from_json(re.sub(rb"(?<!\\)((?:\\\\)*)\\u0000", rb"\1\\ufffd", data))
