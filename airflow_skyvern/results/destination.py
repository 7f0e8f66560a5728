"""A task's value that goes into a file, with a reference to it in XCom."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernFileConflict
from airflow_skyvern.results.fitting import Change, fitted, log_changes
from airflow_skyvern.results.formats import LOADED_AT_COLUMN, RUN_ID_COLUMN, Format
from airflow_skyvern.results.names import RUN_ID, with_run_id
from airflow_skyvern.results.store_kinds import Address
from airflow_skyvern.task.arguments import is_dynamic

if TYPE_CHECKING:
    from airflow_skyvern.results.stores import Store
    from airflow_skyvern.runs.wait import Log


@dataclass(frozen=True)
class OutputFile:
    """
    The file that an output is written to, in the form that its extension names.

    :param address: An absolute path, or the address of an object such as ``s3://bucket/folder/name.json``.
    :param conn_id: The Airflow connection for the store.
    :param run_columns: Whether each row gets the id of the run and the time of loading.
    :param replaces: Whether it may replace a file with other content.
    """

    address: str
    conn_id: str | None = None
    run_columns: bool = False
    replaces: bool = True

    @property
    def format(self) -> Format:
        """The format of the file."""
        return Format.of(self.address)

    def check(self) -> None:
        """
        Check, before a run is started, that the file can be written, as far as possible.

        :raises SkyvernConfigError: this worker cannot reach it, or cannot write this format.
        """
        from airflow_skyvern.results.stores import store_before_run

        self.format.check()
        store, name = store_before_run(self.address, self.conn_id)
        store.check(overwrite=self.replaces)
        if name is not None:
            store.check_name(name)

    def address_of(self, run_id: str) -> str:
        """Return the address of a run's output from the reference to it."""
        from airflow_skyvern.results.stores import store_of

        store, name = store_of(with_run_id(self.address, run_id), self.conn_id)
        return store.address(name)

    def taken(self) -> str | None:
        """Return the address if something is there; None if nothing is, or if the address depends on the run."""
        from airflow_skyvern.results.stores import store_of

        if RUN_ID in self.address:
            return None
        store, name = store_of(self.address, self.conn_id)
        return None if store.size(name) is None else store.address(name)

    def write(self, value: Any, run_id: str) -> dict[str, Any]:
        """
        Write the file, and return the reference to it.

        It appears when it is complete, or not at all. The same content is not written again.

        :param value: Plain JSON.
        :raises SkyvernFileConflict: the file holds something else, and may not be replaced.
        """
        from airflow_skyvern.results.stores import store_of

        store, name = store_of(with_run_id(self.address, run_id), self.conn_id)
        if (there := self._same(store, name, value, run_id)) is not None:
            return there
        if not self.replaces and store.size(name) is not None:
            raise store.conflict(name)
        try:
            with store.sink(name, overwrite=self.replaces) as sink:
                size, checksum = _measured(self._pieces(value, run_id, _now()), sink.write)
        except SkyvernFileConflict:  # perhaps written by this task itself, whose answer was lost
            if (there := self._same(store, name, value, run_id)) is None:
                raise
            return there
        return {"path": store.address(name), "size": size, "checksum": checksum}

    def _same(self, store: Store, name: str, value: Any, run_id: str) -> dict[str, Any] | None:
        """Return the reference to the existing file, if its content is the same apart from the time of loading."""
        if (there := store.size(name)) is None:
            return None
        with store.opened(name) as file:
            loaded_at = self.format.loaded_at(file) if self.run_columns else None
        size, checksum = _measured(self._pieces(value, run_id, loaded_at))
        if there != size or store.checksum(name) != checksum:
            return None
        return {"path": store.address(name), "size": size, "checksum": checksum}

    def _pieces(self, value: Any, run_id: str, loaded_at: str | None) -> Iterator[bytes]:
        columns = {RUN_ID_COLUMN: run_id, LOADED_AT_COLUMN: loaded_at} if self.run_columns else None
        return self.format.pieces(value, columns)


def _measured(pieces: Iterable[bytes], write: Callable[[bytes], Any] = lambda _: None) -> tuple[int, str]:
    """Write a file piece by piece, and return its size and sha256."""
    digest, size = hashlib.sha256(), 0
    for piece in pieces:
        write(piece)
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


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
    if complaint := complaint_about_file("output_to", address):
        raise SkyvernConfigError(f"Task {task_id!r}: {complaint}")


def complaint_about_file(argument: str, address: Any) -> str | None:
    """Return what is wrong with the address of a file, before or after its templates are rendered."""
    if is_dynamic(address):
        return None
    if not isinstance(address, str) or address.endswith("/") or not (address.startswith("/") or "://" in address):
        return (
            f"{argument} must be the absolute path of a file or the address of an object, such as "
            f"s3://bucket/folder/{{{{ run_id }}}}.json, not {address!r}."
        )
    try:
        Address.of(address).split()
    except SkyvernConfigError as error:
        return f"{argument}: {error}"
    return None


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
