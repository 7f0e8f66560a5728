"""
Stores files so that each appears completely or not at all, and replaces no other file.

:mod:`airflow_skyvern.results.store_kinds` says how each kind of store does that.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import urlsplit

from airflow_skyvern.compat.sdk import AirflowNotFoundException, BaseHook
from airflow_skyvern.compat.stores import object_storage_path
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernFileConflict, SkyvernTransferError
from airflow_skyvern.results.names import RUN_ID, before_run_id
from airflow_skyvern.results.store_kinds import Address, is_installed

PART_BYTES = 5 * 2**20
"""The size of a part of an upload: the smallest that S3 takes, as each file on its way holds one or two in memory."""

MOST_PARTS = 9_000
"""Parts of one upload; S3 takes 10,000."""

READ_BYTES = 2**20

STALE_LOCK_SECONDS = 60.0
"""The age from which a lock, which is held only for an instant, belongs to a killed task."""

REPLACE = "set if_exists='replace'"

PROBE = ".skyvern-probe"
"""The object that is written and removed to test whether an S3-compatible server honours conditions."""


class Sink(Protocol):
    """Writes a file piece by piece."""

    def write(self, data: bytes, /) -> Any:
        """Write the next piece."""


class Store(ABC):
    """A place for files: a folder, or a prefix in an object store."""

    @abstractmethod
    def address(self, name: str) -> str:
        """Return the address under which other tasks read a file of this name."""

    @abstractmethod
    def check(self, *, overwrite: bool = False, otherwise: str = REPLACE) -> None:
        """
        Check, before a run is started, that files can be stored here, as far as possible.

        :param overwrite: Whether files may replace others.
        :param otherwise: Advice for the user if a store cannot prevent that.
        :raises SkyvernConfigError: this place does not exist, or cannot keep what the documentation promises.
        :raises SkyvernTransferError: the store does not answer.
        """

    @abstractmethod
    def size(self, name: str) -> int | None:
        """Return the size in bytes of the file with this name; None if there is none."""

    @abstractmethod
    def opened(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open the file with this name to read it; no store keeps the sha256 of an upload in parts."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove the file with this name, if it exists."""

    def checksum(self, name: str) -> str:
        """Read the file with this name, and return its sha256."""
        with self.opened(name) as file:
            return _sha256(file)

    @abstractmethod
    def sink(self, name: str, *, overwrite: bool = False, size: int | None = None) -> AbstractContextManager[Sink]:
        """
        Open a new file, which appears when the block ends; if the block raises, nothing is left.

        :param size: The size of the file, if known.
        :raises SkyvernFileConflict: the name is taken by then, and ``overwrite`` is False.
        """

    @abstractmethod
    def check_name(self, name: str) -> None:
        """
        Check, before a run is started, that a file can have this name.

        :raises SkyvernConfigError: it is the address of a folder.
        """

    def conflict(self, name: str) -> SkyvernFileConflict:
        """Create the error for a name that is taken."""
        return SkyvernFileConflict(
            f"{self.address(name)} exists and holds something else. Choose another place or name, for example with "
            "{{ run_id }} or {skyvern_run_id} in it, or set if_exists='replace'."
        )


class FolderStore(Store):
    """
    A folder on this machine, created if it is missing.

    :param folder: An absolute path.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def address(self, name: str) -> str:
        """Return the file's path."""
        return str(self._folder / name)

    def check(self, *, overwrite: bool = False, otherwise: str = REPLACE) -> None:
        """Check that the folder, or what it will be made in, is a folder and can be written to."""
        there = next(path for path in (self._folder, *self._folder.parents) if path.exists() or path.is_symlink())
        if not there.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "Not a folder, so no files can be stored in it", str(there))
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, "No files can be stored in this folder", str(there))

    def check_name(self, name: str) -> None:
        """Check that it is not a folder."""
        if (self._folder / name).is_dir():
            raise SkyvernConfigError(f"{self.address(name)} is a folder, so no file can have this name.")

    def size(self, name: str) -> int | None:
        """Return the file's size."""
        try:
            return (self._folder / name).stat().st_size
        except FileNotFoundError:
            return None

    def opened(self, name: str) -> IO[bytes]:
        """Open the file."""
        return (self._folder / name).open("rb")

    def remove(self, name: str) -> None:
        """Remove the file."""
        (self._folder / name).unlink(missing_ok=True)
        _flush_folder(self._folder)

    @contextmanager
    def sink(self, name: str, *, overwrite: bool = False, size: int | None = None) -> Iterator[Sink]:
        """Write under a temporary name, and rename at the end."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for left in self._folder.glob(f"{_prefix(name)}*.part"):
            left.unlink(missing_ok=True)
        temporary = self._folder / _temporary(name)
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
                self._rename_alone(temporary, target)
        _flush_folder(self._folder)

    def _rename_alone(self, temporary: Path, target: Path) -> None:
        """Rename while no other task does: if two tasks find the name free, only one creates the lock."""
        lock = self._folder / f"{_prefix(target.name)}.lock"
        with contextlib.suppress(FileNotFoundError):
            if time.time() - lock.stat().st_mtime > STALE_LOCK_SECONDS:
                lock.unlink(missing_ok=True)
        try:
            lock.open("xb").close()
        except FileExistsError:
            raise self.conflict(target.name) from None
        try:
            if target.exists():
                raise self.conflict(target.name)
            temporary.rename(target)
        finally:
            lock.unlink(missing_ok=True)


class RemoteStore(Store):
    """
    A place that Airflow's ``ObjectStoragePath`` reaches.

    :param address: For example ``s3://bucket/folder``.
    :param conn_id: The Airflow connection for the store; without it, the machine's environment applies.
    """

    def __init__(self, address: Address, conn_id: str | None = None) -> None:
        root = object_storage_path(address.text, conn_id)
        self._kind = address.kind
        self._address = address.text
        self._fs: Any = root.fs
        self._root = str(root.path).rstrip("/")
        place = address.text.partition("://")[2]
        if not place.endswith(self._root.lstrip("/")) and "@" not in place:
            raise SkyvernConfigError(
                f"{address.text!r}: its client reads {self._root!r}, so it cannot hold the characters # or ?."
            )

    def address(self, name: str) -> str:
        """Return the object's address."""
        return f"{self._address}/{name}"

    def check(self, *, overwrite: bool = False, otherwise: str = REPLACE) -> None:
        """Check that the bucket, container or folder can be reached."""
        if not (overwrite or self._kind.can_create_only()):
            raise SkyvernConfigError(
                f"{self._address}: {self._kind.client} of this worker cannot keep from replacing other files; it can "
                f"from {self._kind.client_since} on. Install that, or {otherwise}."
            )
        try:
            self._reach()
        except FileNotFoundError:
            raise SkyvernConfigError(f"{self._address}: {self._top!r} does not exist there.") from None
        except PermissionError:  # writing may be allowed without permission to read the bucket's properties
            pass
        except SkyvernConfigError:
            raise
        except Exception as error:  # what the clients raise: OSError, and the errors of a dozen libraries
            if "forbidden" not in str(error).casefold():
                raise SkyvernTransferError(
                    f"{self._address}: the store cannot be reached, so no run is started. "
                    f"{type(error).__name__}: {error}"
                ) from error

    def _reach(self) -> None:
        self._fs.invalidate_cache()
        self._fs.info(self._top)

    @property
    def _top(self) -> str:
        """The bucket or container."""
        return self._root.partition("/")[0]

    def check_name(self, name: str) -> None:
        """Accept every name: an object may be named like a folder."""

    def size(self, name: str) -> int | None:
        """Ask the store."""
        self._fs.invalidate_cache()
        try:
            found = self._fs.info(self._path(name))
        except FileNotFoundError:
            return None
        return int(found["size"]) if found.get("type") != "directory" else None

    def opened(self, name: str) -> AbstractContextManager[IO[bytes]]:
        """Open the object."""
        opened: AbstractContextManager[IO[bytes]] = self._fs.open(
            self._path(name), "rb", block_size=PART_BYTES, cache_type="readahead"
        )
        return opened

    def remove(self, name: str) -> None:
        """Remove the object."""
        with contextlib.suppress(FileNotFoundError):
            self._fs.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


class ObjectStore(RemoteStore):
    """A prefix in an object store."""

    def check(self, *, overwrite: bool = False, otherwise: str = REPLACE) -> None:
        """Check also that a server other than Amazon's honours the condition of a write."""
        super().check(overwrite=overwrite, otherwise=otherwise)
        if self._other_endpoint and not overwrite:
            self._check_conditions(otherwise)

    @property
    def _other_endpoint(self) -> str | None:
        """The address of an S3-compatible server other than Amazon's."""
        endpoint = getattr(self._fs, "endpoint_url", None) if self._kind.client == "s3fs" else None
        return endpoint if endpoint and not f"{urlsplit(endpoint).hostname}".endswith(".amazonaws.com") else None

    def _check_conditions(self, otherwise: str) -> None:
        """Write an object twice; only one of the tasks that do this at the same time makes and removes it."""
        if not self._made_probe():
            return
        try:
            if self._made_probe():
                raise SkyvernConfigError(
                    f"{self._address}: the S3 server at {self._other_endpoint} ignores If-None-Match, so two tasks "
                    f"could replace each other's files. Use another store, or {otherwise}."
                )
        finally:
            with contextlib.suppress(Exception):  # permission to write does not include permission to delete
                self._fs.rm_file(self._path(PROBE))

    def _made_probe(self) -> bool:
        try:
            self._fs.pipe_file(self._path(PROBE), b"written by a task to check If-None-Match", mode="create")
        except PermissionError as error:
            raise SkyvernConfigError(f"{self._address}: files may not be stored there. {error}") from None
        except Exception as error:  # the client has no error of its own for a condition that does not hold
            if self.size(PROBE) is not None:
                return False
            raise SkyvernTransferError(
                f"{self._address}: nothing can be stored there, so no run is started. {type(error).__name__}: {error}"
            ) from error
        return True

    @contextmanager
    def sink(self, name: str, *, overwrite: bool = False, size: int | None = None) -> Iterator[Sink]:
        """Send a small file in one request; upload a larger one in parts, and complete the upload at the end."""
        upload = _Upload(self._fs, self._path(name), max(PART_BYTES, (size or 0) // MOST_PARTS), overwrite=overwrite)
        try:
            yield upload
        except BaseException:
            upload.discard()
            raise
        try:
            upload.complete()
        except BaseException as error:
            upload.discard()
            if not overwrite and isinstance(error, Exception) and self.size(name) is not None:
                raise self.conflict(name) from error
            raise
        if self._other_endpoint and not overwrite and not upload.is_still_there():
            raise self.conflict(name)


class _Upload:
    """One object during its upload: in memory until it is larger than a part, then in parts."""

    def __init__(self, fs: Any, path: str, part: int, *, overwrite: bool) -> None:
        self._fs = fs
        self._path = path
        self._part = part
        self._overwrite = overwrite
        self._start = bytearray()
        self._file: Any = None

    def write(self, data: bytes) -> None:
        if self._file is None and len(self._start) + len(data) <= self._part:
            self._start += data
            return
        if self._file is None:
            mode = "wb" if self._overwrite else "xb"
            self._file = self._fs.open(self._path, mode, block_size=self._part, autocommit=False)
            self._file.write(bytes(self._start))
            self._start.clear()
        self._file.write(data)

    def complete(self) -> None:
        if self._file is None:
            mode = "overwrite" if self._overwrite else "create"
            self._fs.pipe_file(self._path, bytes(self._start), mode=mode)
            return
        self._file.close()  # sends the last part; with Azure's client this is also the commit
        self._file.commit()

    def is_still_there(self) -> bool:
        """
        Return whether this upload in parts now has the name.

        Some S3-compatible servers check the condition and complete the upload in two steps, so that two uploads
        may both be completed; the object then comes from the second.
        """
        parts = getattr(self._file, "parts", None)
        if not parts:
            return True
        self._fs.invalidate_cache()
        digests = b"".join(bytes.fromhex(part["ETag"].strip('"')) for part in parts)
        tag = f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"
        return bool(tag == str(self._fs.info(self._path).get("ETag")).strip('"'))

    def discard(self) -> None:
        """Leave nothing: closing the file would complete the object, and so would its garbage collection."""
        if self._file is None:
            return
        self._file.closed = True
        with contextlib.suppress(Exception):
            self._file.discard()


class SftpStore(RemoteStore):
    """A folder on an SFTP server, created if it is missing."""

    def check_name(self, name: str) -> None:
        """Check that it is not a folder."""
        if self._fs.isdir(self._path(name)):
            raise SkyvernConfigError(f"{self.address(name)} is a folder, so no file can have this name.")

    def _reach(self) -> None:
        """Check that the folder, or what it will be made in, is a folder."""
        parts = self._root.split("/")
        ancestors = ("/".join(parts[:count]) or "/" for count in range(len(parts), 0, -1))
        there = next(path for path in ancestors if path == "/" or self._fs.exists(path))
        if self._fs.info(there)["type"] not in ("directory", "link"):
            raise SkyvernConfigError(f"{self._address}: {there} is not a folder, so no files can be stored in it.")

    @contextmanager
    def sink(self, name: str, *, overwrite: bool = False, size: int | None = None) -> Iterator[Sink]:
        """Write under a temporary name, and rename at the end."""
        self._fs.makedirs(self._root, exist_ok=True)
        prefix = _prefix(name)
        for left in self._fs.ls(self._root, detail=False):
            if left.rpartition("/")[2].startswith(prefix):
                self._remove(left)
        temporary = self._path(_temporary(name))
        try:
            with self._fs.open(temporary, "wb") as file:
                yield file
                with contextlib.suppress(Exception):  # an extension of OpenSSH's
                    file.fsync()
            if overwrite:
                self._channel("posix_rename", temporary, self._path(name))
            else:
                self._publish(temporary, name)
        finally:
            self._remove(temporary)

    def _publish(self, temporary: str, name: str) -> None:
        """Give a file its name, unless the name is taken: then a link fails, and so must SFTP's rename."""
        target = self._path(name)
        try:
            self._channel("link", temporary, target)
        except Exception as error:  # noqa: BLE001  what servers answer for a name that is taken differs
            self._raise_if_taken(name, error)
            try:
                self._channel("rename", temporary, target)
            except Exception as second:
                self._raise_if_taken(name, second)
                raise

    def _raise_if_taken(self, name: str, error: Exception) -> None:
        if self.size(name) is not None:
            raise self.conflict(name) from error

    def _channel(self, method: str, *paths: str) -> None:
        """Call an operation for which sshfs has no method."""
        from fsspec.asyn import sync

        async def call() -> None:
            async with self._fs._pool.get() as channel:  # noqa: SLF001  there is no other way to it
                await getattr(channel, method)(*paths)

        sync(self._fs.loop, call)

    def _remove(self, path: str) -> None:
        with contextlib.suppress(Exception):
            self._fs.rm_file(path)


def store_at(address: str, conn_id: str | None = None) -> Store:
    """
    Return the store for ``files_to``: an absolute path, ``file://``, or the address of another store.

    :raises SkyvernConfigError: it is not the address of a known store, Airflow's provider for it is not installed,
        or there is no such connection.
    :raises SkyvernTransferError: the store cannot be reached.
    """
    return _store(Address.of(address), conn_id)


def store_of(address: str, conn_id: str | None = None) -> tuple[Store, str]:
    """Return the store of one file, and the file's name in it; see :func:`store_at`."""
    folder, name = Address.of(address).split()
    return _store(folder, conn_id), name


def store_before_run(address: str, conn_id: str | None = None) -> tuple[Store, str | None]:
    """Return the store of one file, as far as it is known before the run, and the file's name if that is known."""
    if RUN_ID not in address:
        return store_of(address, conn_id)
    return store_at(before_run_id(address) or "/", conn_id), None


def _store(address: Address, conn_id: str | None) -> Store:
    kind = address.kind
    check_connection(address.text, conn_id)
    if kind.protocol == "folder":
        return FolderStore(Path(address.path or "/"))
    try:
        return (SftpStore if kind.protocol == "sftp" else ObjectStore)(address, conn_id)
    except SkyvernConfigError:
        raise
    except (ImportError, ValueError, TypeError) as error:
        if isinstance(error, ImportError) or not is_installed(kind.client or ""):
            raise SkyvernConfigError(
                f"This worker has no way to {address.scheme}:// addresses ({error}). Install {kind.install}."
            ) from error
        raise SkyvernConfigError(
            f"{address.text}: the connection {conn_id or 'of the environment'} does not open it. {error}"
        ) from error
    except Exception as error:  # what the clients raise
        raise SkyvernTransferError(
            f"{address.text}: the store cannot be reached. {type(error).__name__}: {error}"
        ) from error


def check_connection(address: str, conn_id: str | None) -> None:
    """
    Check that an address's connections exist: without one, some providers would continue without credentials.

    :raises SkyvernConfigError: there is no such connection; also where a folder would not need it.
    """
    named = address.partition("://")[2].partition("/")[0].rpartition("@")[0]
    try:
        for name in filter(None, (conn_id, named)):
            BaseHook.get_connection(name)
    except AirflowNotFoundException as error:
        raise SkyvernConfigError(f"{address}: there is no such connection: {error}") from None


def _prefix(name: str) -> str:
    return f".skyvern-{hashlib.sha256(name.encode()).hexdigest()[:16]}-"


def _temporary(name: str) -> str:
    return f"{_prefix(name)}{secrets.token_hex(8)}.part"


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
