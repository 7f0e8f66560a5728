"""
Where files are stored so that each is there as a whole or not at all.

In a folder, a file is written under a temporary name, flushed to the disk, and then given its own. In an object
store, parts are uploaded, and the object appears when the upload is completed. A process that is killed leaves no
half file under a name that anybody reads; its temporary file is removed when the file is stored again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from airflow_skyvern.compat.stores import object_storage_path
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernFileConflict

PART_BYTES = 5 * 2**20
"""The size of a part of an upload: the smallest that S3 takes, as each file on its way holds one or two in memory."""

MOST_PARTS = 9_000
"""Parts of one upload; S3 takes 10,000."""

READ_BYTES = 2**20

PACKAGES = {
    "s3": "apache-airflow-providers-amazon[s3fs]",
    "gs": "apache-airflow-providers-google and gcsfs",
    "abfs": "apache-airflow-providers-microsoft-azure",
    "abfss": "apache-airflow-providers-microsoft-azure",
}


class Sink(Protocol):
    """What takes a file piece by piece."""

    def write(self, data: bytes, /) -> Any:
        """Take the next piece."""


class Store(ABC):
    """A place for files: a folder, or a prefix in an object store."""

    @abstractmethod
    def address(self, name: str) -> str:
        """Return where a file of this name is, as other tasks read it."""

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Return the size in bytes of what has this name; None if nothing has it."""

    @abstractmethod
    def checksum(self, name: str) -> str:
        """Read what has this name, and return its sha256."""

    @abstractmethod
    def sink(self, name: str, *, overwrite: bool = False, size: int | None = None) -> AbstractContextManager[Sink]:
        """
        Open a new file, which appears when the block ends, and of which nothing is left when it raises.

        :param size: How large the file will be, if that is known.
        :raises SkyvernFileConflict: something has this name by then, and ``overwrite`` is False.
        """

    def conflict(self, name: str) -> SkyvernFileConflict:
        """Make the error for a name that another file has."""
        return SkyvernFileConflict(
            f"{self.address(name)} exists and holds something else. Choose another files_to or file_name, for "
            "example with {{ run_id }} in it, or set overwrite=True."
        )


class FolderStore(Store):
    """
    A folder of this machine, made when it is missing.

    :param folder: An absolute path.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def address(self, name: str) -> str:
        """Return the file's path."""
        return str(self._folder / name)

    def size(self, name: str) -> int | None:
        """Return the file's size."""
        try:
            return (self._folder / name).stat().st_size
        except FileNotFoundError:
            return None

    def checksum(self, name: str) -> str:
        """Read the file."""
        with (self._folder / name).open("rb") as file:
            return _sha256(file)

    @contextmanager
    def sink(self, name: str, *, overwrite: bool = False, size: int | None = None) -> Iterator[Sink]:
        """Write under a temporary name, and rename at the end."""
        self._folder.mkdir(parents=True, exist_ok=True)
        prefix = f".skyvern-{hashlib.sha256(name.encode()).hexdigest()[:16]}-"
        for left in self._folder.glob(f"{prefix}*.part"):
            left.unlink(missing_ok=True)
        temporary = self._folder / f"{prefix}{secrets.token_hex(8)}.part"
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            self._publish(temporary, name, overwrite=overwrite)
        finally:
            temporary.unlink(missing_ok=True)

    def _publish(self, temporary: Path, name: str, *, overwrite: bool) -> None:
        target = self._folder / name
        if overwrite:
            temporary.replace(target)
        else:
            try:
                target.hardlink_to(temporary)  # fails where a rename would replace what another task has put there
            except FileExistsError:
                raise self.conflict(name) from None
            except FileNotFoundError:  # another try of this task has taken over, and removed what this one wrote
                raise
            except OSError:  # a file system without links
                if target.exists():
                    raise self.conflict(name) from None
                temporary.rename(target)
        _flush_folder(self._folder)


class ObjectStore(Store):
    """
    A prefix in an object store, reached as Airflow's ``ObjectStoragePath`` reaches it.

    :param address: For example ``s3://bucket/folder``.
    :param conn_id: The Airflow connection for the store; without it, what the machine's environment says.
    """

    def __init__(self, address: str, conn_id: str | None = None) -> None:
        root = object_storage_path(address.rstrip("/"), conn_id)
        self._address = address.rstrip("/")
        self._fs: Any = root.fs
        self._root = str(root.path).rstrip("/")

    def address(self, name: str) -> str:
        """Return the object's address."""
        return f"{self._address}/{name}"

    def size(self, name: str) -> int | None:
        """Ask the store."""
        self._fs.invalidate_cache()
        try:
            found = self._fs.info(self._path(name))
        except FileNotFoundError:
            return None
        return int(found["size"]) if found.get("type") != "directory" else None

    def checksum(self, name: str) -> str:
        """Read the object; no store keeps the sha256 of an upload in parts."""
        with self._fs.open(self._path(name), "rb", block_size=PART_BYTES, cache_type="readahead") as file:
            return _sha256(file)

    @contextmanager
    def sink(self, name: str, *, overwrite: bool = False, size: int | None = None) -> Iterator[Sink]:
        """Upload in parts, and complete the upload at the end."""
        file = self._fs.open(
            self._path(name), "wb", block_size=max(PART_BYTES, (size or 0) // MOST_PARTS), autocommit=False
        )
        try:
            yield file
            file.close()  # uploads the last part; the object appears with commit()
            self._check_free(name, overwrite=overwrite)
            file.commit()
        except BaseException:
            # Closing it would complete the object with what is there, and so would its garbage collection.
            file.closed = True
            with contextlib.suppress(Exception):
                file.discard()
            raise

    def _check_free(self, name: str, *, overwrite: bool) -> None:
        if not overwrite and self.size(name) is not None:
            raise self.conflict(name)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def store_at(address: str, conn_id: str | None = None) -> Store:
    """
    Return the store for ``files_to``: an absolute path, ``file://``, or the address of an object store.

    :raises SkyvernConfigError: Airflow's provider for this kind of store is not installed, or its connection wrong.
    """
    url = urlsplit(address)
    if url.scheme in ("", "file", "local"):
        return FolderStore(Path(unquote(url.path) if url.scheme else address))
    try:
        return ObjectStore(address, conn_id)
    except (ImportError, ValueError) as error:
        packages = PACKAGES.get(url.scheme, "the Airflow provider for it")
        raise SkyvernConfigError(
            f"files_to: this worker has no way to {url.scheme}:// addresses ({error}). Install {packages}."
        ) from error


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    while piece := file.read(READ_BYTES):
        digest.update(piece)
    return digest.hexdigest()


def _flush_folder(folder: Path) -> None:
    """Make a new name survive a crash of the machine, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
