"""
Sends files to Skyvern for a run, right before it is started.

Until then each parameter holds the address of its file, so that the key by which a retry finds the run does not
depend on an upload: a try that resumes a run sends nothing. Each start sends its files anew, as Skyvern deletes them
when their run ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from airflow_skyvern.compat.stores import object_storage_path
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.limits import LARGEST_UPLOAD
from airflow_skyvern.results.store_kinds import Address
from airflow_skyvern.results.stores import check_connection
from airflow_skyvern.task.arguments import is_dynamic

if TYPE_CHECKING:
    from airflow_skyvern.client.run_request import RunRequest
    from airflow_skyvern.models import UploadedFile
    from airflow_skyvern.runs.wait import Log

RETENTION_DAYS = 7
"""When Skyvern deletes a file whose run was never started; otherwise it deletes the file when the run ends."""

Upload = Callable[..., "UploadedFile"]


@dataclass(frozen=True)
class Uploads:
    """
    The files of a run.

    :param files: Name of the parameter → address of its file: an absolute path, or of an object store.
    :param conn_id: The Airflow connection for the store.
    """

    files: Mapping[str, str]
    conn_id: str | None = None

    def announced_in(self, request: RunRequest) -> RunRequest:
        """
        Return the request with the addresses instead of the files.

        :raises SkyvernConfigError: a file has no address, or a parameter is given twice.
        """
        _check(self.files, request.parameters)
        if not self.files:
            return request
        return request.model_copy(update={"parameters": {**(request.parameters or {}), **self.files}})

    def sent_for(self, request: RunRequest, upload: Upload, log: Log) -> RunRequest:
        """
        Send the files, and return the request with their ids.

        :raises SkyvernConfigError: a file is larger than Skyvern accepts; then nothing is sent.
        :raises OSError: a file cannot be read.
        """
        if not self.files:
            return request
        paths = {name: _file_at(address, self.conn_id) for name, address in self.files.items()}
        sizes = {name: _size(name, path) for name, path in paths.items()}
        sent = {name: self._sent(path, sizes[name], upload, log) for name, path in paths.items()}
        return _with_files(request, sent)

    @staticmethod
    def _sent(path: Any, size: int, upload: Upload, log: Log) -> UploadedFile:
        with _opened(path) as file:
            uploaded = upload(file, filename=path.name, retention_days=RETENTION_DAYS)
        log.info("%s: %d bytes sent to Skyvern as %s", path, size, uploaded.file_id or "a file without an id")
        return uploaded


def check_upload(task_id: str, files: Any, parameters: Any) -> None:
    """
    Check ``upload`` against the other parameters when the DAG is parsed, as far as templates allow.

    :raises SkyvernConfigError: names the task, what is wrong, and what would be right.
    """
    if is_dynamic(files) and not isinstance(files, Mapping):
        return
    try:
        _check(files, parameters)
    except SkyvernConfigError as error:
        raise SkyvernConfigError(f"Task {task_id!r}: {error}") from None


def _check(files: Any, parameters: Any) -> None:
    if not isinstance(files, Mapping):
        raise SkyvernConfigError(
            f"upload must be a mapping from parameters to files, such as {{'statement': 's3://bucket/x.csv'}}, not "
            f"{type(files).__name__}."
        )
    for name, address in files.items():
        if isinstance(parameters, Mapping) and name in parameters:
            raise SkyvernConfigError(f"upload.{name}: the parameter {name} is given in parameters, too.")
        if is_dynamic(address):
            continue
        try:
            found = _is_address(address)
        except SkyvernConfigError as error:
            raise SkyvernConfigError(f"upload.{name}: {error}") from None
        if not found:
            raise SkyvernConfigError(
                f"upload.{name}: must be an absolute path or an address such as s3://bucket/x.csv, not {address!r}."
            )


def _is_address(address: Any) -> bool:
    if not isinstance(address, str) or not (address.startswith("/") or "://" in address):
        return False
    if _is_local(address):
        Address.of(address)
    return True


def _is_local(address: str) -> bool:
    return address.startswith(("/", "file://", "local://"))


def _file_at(address: str, conn_id: str | None) -> Any:
    """
    Return the path of a file; addresses of folders are read as in ``files_to``.

    :raises SkyvernConfigError: the connection does not exist, or its client reads another address.
    """
    check_connection(address, conn_id)
    if _is_local(address):
        return Path(Address.of(address).path)
    path = object_storage_path(address, conn_id)
    if any(mark in address and mark not in str(path.path) for mark in "#?"):
        raise SkyvernConfigError(
            f"{address!r}: its client reads {path.path!r}, so it cannot hold the characters # or ?."
        )
    return path


def _size(name: str, path: Any) -> int:
    size = int(path.stat().st_size)
    if size > LARGEST_UPLOAD:
        raise SkyvernConfigError(
            f"upload.{name}: {path} has {size:,} bytes; Skyvern takes at most {LARGEST_UPLOAD:,}. Split the "
            "file, or pass an address that Skyvern can download it from as the parameter."
        )
    return size


@contextmanager
def _opened(path: Any) -> Iterator[IO[bytes]]:
    with path.open("rb") as file:
        yield file


def _with_files(request: RunRequest, sent: Mapping[str, UploadedFile]) -> RunRequest:
    """Put the ids where the parameters expect a file; servers without ids accept the address in their store."""
    values = {name: file.file_id or file.s3_uri for name, file in sent.items()}
    ids = [file.file_id for file in sent.values() if file.file_id]
    update: dict[str, Any] = {"parameters": {**(request.parameters or {}), **values}}
    if ids:
        update["file_ids"] = [*(request.file_ids or []), *ids]
    return request.model_copy(update=update)
