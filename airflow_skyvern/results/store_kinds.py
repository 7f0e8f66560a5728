"""
Lists the guarantees of each kind of store in one table, which drives the code, the refusals and the documentation.

A store is used for files only if it is in this table: its behaviour with half-written files, or with two writers of
one name, is then known, not assumed. This module also parses the addresses of stores.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal
from urllib.parse import unquote

from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.results.names import RUN_ID, misspelt_run_id

Protocol = Literal["folder", "objects", "sftp"]
"""How a file is written there: see :mod:`airflow_skyvern.results.stores`."""


@dataclass(frozen=True)
class StoreKind:
    """
    One kind of store.

    :param name: What the documentation calls it.
    :param schemes: The schemes of its addresses.
    :param protocol: How a file is written there.
    :param whole: The means by which a file appears completely or not at all.
    :param create_only: The means by which it never replaces another one, even with two writers at the same time.
    :param install: The package that a worker needs to reach it.
    :param client: The distribution of its client library.
    :param client_since: The first version of the client that can create without replacing.
    :param proven_with: The server or emulator that the tests use; None if there is none.
    """

    name: str
    schemes: tuple[str, ...]
    protocol: Protocol
    whole: str
    create_only: str
    install: str = ""
    client: str | None = None
    client_since: str = "0"
    proven_with: str | None = None

    def can_create_only(self) -> bool:
        """Return whether the installed client can create a file without replacing another one."""
        if self.client is None:
            return True
        try:
            return _numbers(version(self.client)) >= _numbers(self.client_since)
        except PackageNotFoundError:
            return False


_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069]")

LONGEST_NAME, LONGEST_KEY = 255, 1024
"""Bytes of the longest name in a folder, and of the longest name of an object in its bucket."""

KINDS = (
    StoreKind(
        "folder",
        ("file", "local"),
        "folder",
        whole="a hidden `.skyvern-….part`, flushed, then renamed",
        create_only="a hard link, which fails if the name is taken; without links (some network shares) `O_EXCL`",
        proven_with="ext4 or overlayfs, tmpfs",
    ),
    StoreKind(
        "S3",
        ("s3", "s3a", "s3n"),
        "objects",
        whole="one request up to 5 MiB, else an upload in parts that is completed at the end",
        create_only="`If-None-Match: *` on the request or on the completion; a server that ignores it is found "
        "before the run",
        install="apache-airflow-providers-amazon[s3fs]",
        client="s3fs",
        client_since="2024.12.0",
        proven_with="SeaweedFS 4.48",
    ),
    StoreKind(
        "Google Cloud Storage",
        ("gs", "gcs"),
        "objects",
        whole="one request up to 5 MiB, else a resumable upload",
        create_only="`ifGenerationMatch=0`",
        install="apache-airflow-providers-google and gcsfs",
        client="gcsfs",
        client_since="2024.12.0",
        proven_with="fake-gcs-server 1.54, except `ifGenerationMatch` on an upload in parts, which it ignores",
    ),
    StoreKind(
        "Azure Blob Storage, Data Lake Gen2",
        ("abfs", "abfss"),
        "objects",
        whole="one request up to 5 MiB, else blocks that are committed at the end",
        create_only="`If-None-Match: *` on the request or on the commit",
        install="apache-airflow-providers-microsoft-azure and adlfs",
        client="adlfs",
        client_since="2024.12.0",
        proven_with="Azurite 3.37 (flat namespace)",
    ),
    StoreKind(
        "SFTP",
        ("sftp", "ssh"),
        "sftp",
        whole="a hidden `.skyvern-….part`, then `posix-rename`",
        create_only="a hard link (`hardlink@openssh.com`), which fails if the name is taken; else SFTP's own rename, "
        "which must not replace",
        install="apache-airflow-providers-sftp[sshfs]",
        client="sshfs",
        proven_with="AsyncSSH's server",
    ),
)
"""The stores that ``files_to`` and ``output_to`` support."""

BY_SCHEME = {scheme: kind for kind in KINDS for scheme in kind.schemes}


@dataclass(frozen=True)
class Address:
    """
    The address of a folder, or of a file.

    :param kind: The kind of its store.
    :param scheme: Its scheme; empty for a path.
    :param text: The address as given, without slashes at its end.
    :param path: For a folder of this machine, its path.
    """

    kind: StoreKind
    scheme: str
    text: str
    path: str

    @classmethod
    def of(cls, text: str) -> Address:
        """
        Read an address.

        ``file://`` addresses are percent-decoded, as a whole; nothing else is. ``#`` and ``?`` are parts of names.

        :raises SkyvernConfigError: it names no store of the table, or no place in one; the message says what would be
            right.
        """
        if misspelt := misspelt_run_id(text):
            raise SkyvernConfigError(f"{text!r}: {misspelt} is not a placeholder; use {RUN_ID}.")
        if text.startswith("/"):
            if complaint := _no_path(text, BY_SCHEME["file"]):
                raise SkyvernConfigError(f"{text!r}: {complaint}")
            return cls(BY_SCHEME["file"], "", text.rstrip("/"), text.rstrip("/"))
        scheme, separator, rest = text.partition("://")
        if not separator:
            raise SkyvernConfigError(
                f"{text!r} is neither an absolute path nor an address such as s3://bucket/folder."
            )
        kind = BY_SCHEME.get(scheme)
        if kind is not None and (complaint := _no_path(unquote(rest) if kind.protocol == "folder" else rest, kind)):
            raise SkyvernConfigError(f"{text!r}: {complaint}")
        if kind is None:
            known = ", ".join(f"{name}://" for name in BY_SCHEME)
            raise SkyvernConfigError(
                f"{scheme}:// is not a store that is known to write files whole and never over another one. "
                f"Use an absolute path or one of {known}."
            )
        if kind.protocol == "folder":
            return cls(kind, scheme, text.rstrip("/"), _local_path(text, rest).rstrip("/"))
        if rest.startswith("/") or not rest.rpartition("@")[2].strip("/"):
            raise SkyvernConfigError(
                f"{text!r} does not name a place: a bucket, container or host comes after {scheme}://."
            )
        return cls(kind, scheme, text.rstrip("/"), "")

    @property
    def has_parent(self) -> bool:
        """Whether it can be a file: it has a parent."""
        return "/" in self.text.partition("://")[2] if self.kind.protocol != "folder" else bool(self.path)

    def split(self) -> tuple[Address, str]:
        """
        Split the address of a file into its folder and its name.

        :raises SkyvernConfigError: it has no name.
        """
        if not self.has_parent:
            raise SkyvernConfigError(f"{self.text!r} does not name a file in a folder or bucket.")
        text, _, name = self.text.rpartition("/")
        if self.kind.protocol == "folder":
            path, _, name = self.path.rpartition("/")
            return Address(self.kind, self.scheme, text, path), name
        return Address(self.kind, self.scheme, text, ""), name


def _no_path(path: str, kind: StoreKind) -> str | None:
    """Return why a text cannot be a path, without checking the file system."""
    parts = path.split("/")
    if _CONTROLS.search(path):
        return "it holds a control character."
    if "." in parts or ".." in parts:
        return "it holds . or .. as the name of a folder; write the path as it is."
    if kind.protocol != "objects" and any(len(part.encode()) > LONGEST_NAME for part in parts):
        return f"it holds a name of more than {LONGEST_NAME} bytes."
    if kind.protocol == "objects" and len("/".join(parts[1:]).encode()) > LONGEST_KEY:
        return f"the name of an object has at most {LONGEST_KEY} bytes."
    return None


def _local_path(text: str, rest: str) -> str:
    """Return the path in a ``file://`` address, which has an empty host: three slashes."""
    if rest.startswith("localhost/"):
        rest = rest.removeprefix("localhost")
    if not rest.startswith("/"):
        scheme = text.partition("://")[0]
        raise SkyvernConfigError(
            f"{text!r} names {rest.partition('/')[0]!r} as a host, and no path. An address of a folder has three "
            f"slashes: {scheme}:///{rest}."
        )
    return unquote(rest)


def is_installed(package: str) -> bool:
    """Return whether a distribution is installed here."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _numbers(text: str) -> tuple[int, ...]:
    """Return the leading numbers of a version."""
    found: list[int] = []
    for part in text.split("."):
        if not part.isdecimal():
            break
        found.append(int(part))
    return tuple(found)
