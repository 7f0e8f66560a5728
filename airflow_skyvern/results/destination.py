"""A task's value that goes into a file, with a reference to it in XCom."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.results.fitting import Change, fitted, log_changes
from airflow_skyvern.results.formats import LOADED_AT_COLUMN, RUN_ID_COLUMN, Format
from airflow_skyvern.results.names import before_run_id, with_run_id
from airflow_skyvern.results.store_kinds import Address
from airflow_skyvern.task.arguments import is_dynamic

if TYPE_CHECKING:
    from airflow_skyvern.runs.wait import Log


@dataclass(frozen=True)
class OutputFile:
    """
    The file that an output is written to, in the form that its extension names.

    :param address: An absolute path, or the address of an object such as ``s3://bucket/folder/name.json``.
    :param conn_id: The Airflow connection for the store.
    :param run_columns: Whether each row gets the id of the run and the time of loading.
    """

    address: str
    conn_id: str | None = None
    run_columns: bool = False

    @property
    def format(self) -> Format:
        """The form of the file."""
        return Format.of(self.address)

    def check(self) -> None:
        """
        Check, before a run is started, that the file can be written, as far as that can be known.

        :raises SkyvernConfigError: this worker has no way to it, or cannot write this form.
        """
        from airflow_skyvern.results.stores import store_at

        self.format.check()
        folder, _ = Address.of(self.address).split()
        store_at(before_run_id(folder.text), self.conn_id).check(overwrite=True)

    def write(self, value: Any, run_id: str) -> dict[str, Any]:
        """
        Write the file, in the place of one that an earlier try has written, and return the reference to it.

        It appears when it is complete, or not at all. The same content is not written again.

        :param value: Plain JSON.
        """
        from airflow_skyvern.results.stores import store_of

        store, name = store_of(with_run_id(self.address, run_id), self.conn_id)
        columns = _run_columns(run_id) if self.run_columns else None
        pieces = partial(self.format.pieces, value, columns)
        if store.size(name) is not None:
            size, checksum = _measured(pieces())
            if store.size(name) == size and store.checksum(name) == checksum:
                return {"path": store.address(name), "size": size, "checksum": checksum}
        with store.sink(name, overwrite=True) as sink:
            size, checksum = _measured(pieces(), sink.write)
        return {"path": store.address(name), "size": size, "checksum": checksum}


def _measured(pieces: Iterable[bytes], write: Callable[[bytes], Any] = lambda _: None) -> tuple[int, str]:
    """Write a file piece by piece, and return its size and sha256."""
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        write(piece)
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()


def _run_columns(run_id: str) -> dict[str, Any]:
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {RUN_ID_COLUMN: run_id, LOADED_AT_COLUMN: now}


def check_output_to(task_id: str, address: Any, *, has_output: bool = True) -> None:
    """
    Check an ``output_to``, before or after its templates are rendered.

    :param has_output: Whether the task gets the output at all.
    :raises SkyvernConfigError: names the task and what would be right.
    """
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
    try:
        Address.of(address).split()
    except SkyvernConfigError as error:
        raise SkyvernConfigError(f"Task {task_id!r}: output_to: {error}") from None


def written(value: Any, run_id: str, file: OutputFile, log: Log) -> dict[str, Any]:
    """
    Write a file, and return the reference to it, which is pushed.

    :param value: Plain JSON.
    """
    changes: list[Change] = []
    value = fitted(value, changes, xcom=False)
    log_changes(changes, run_id, "a file", log)
    reference = file.write(value, run_id)
    log.info("Skyvern run %s: output of %d bytes written to %s", run_id, reference["size"], reference["path"])
    return reference
