"""
The manifest of a run's files: it is written last, so its presence means that everything is there.

It also makes it safe to replace a partition. It names the files of the earlier run, so they can be removed when the
new ones are stored. Meanwhile there is no manifest; its content is kept next to it, for the next try. If several runs
share a place, one task at a time changes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow_skyvern.exceptions import SkyvernFileConflict
from airflow_skyvern.results.lease import Lease
from airflow_skyvern.results.names import RUN_ID, safe_name, with_run_id
from airflow_skyvern.results.stores import Store, store_at, store_before_run, store_of

if TYPE_CHECKING:
    from airflow_skyvern.results.destination import OutputFile
    from airflow_skyvern.results.options import FileOptions
    from airflow_skyvern.runs.wait import Log

REPLACE = "Set if_exists='replace', or give each run a place of its own, with {{ run_id }} or {skyvern_run_id} in it."

OWN_PLACES = "give each run a folder of its own, with {skyvern_run_id} in files_to and output_to"
"""Used if tasks need not take turns: only the manifest is replaced, in one step."""

LARGEST = 64 * 2**20
"""Bytes of the largest file that is read as a manifest."""

Entry = Mapping[str, Any]
"""Where a file is: ``path``, ``size``, ``checksum``, and its ``filename`` unless it is an output."""


@dataclass(frozen=True)
class Manifest:
    """
    A run's files, as listed in its manifest.

    :param skyvern_run_id: The run.
    :param files: The files that it has downloaded.
    :param output: The file of its output, if there is one.
    :param evidence: Recording and screenshots.
    :param written_at: When all of it was stored.
    """

    skyvern_run_id: str
    files: Sequence[Entry] = ()
    output: Entry | None = None
    evidence: Sequence[Entry] = ()
    written_at: str = ""

    @classmethod
    def of(cls, content: bytes) -> Manifest | None:
        """Read the result of :meth:`as_json`; None if it is something else."""
        try:
            found = json.loads(content)
            run_id, files, output = found["skyvern_run_id"], found["files"], found.get("output")
        except (ValueError, TypeError, KeyError, RecursionError):
            return None
        if not (isinstance(run_id, str) and isinstance(files, list)):
            return None
        entries = [entry for entry in files if isinstance(entry, Mapping)]
        return cls(run_id, entries, output if isinstance(output, Mapping) else None)

    def as_json(self) -> bytes:
        """Return the content of the manifest's file."""
        return (json.dumps(asdict(self), ensure_ascii=False, indent=1) + "\n").encode()

    @property
    def content(self) -> frozenset[tuple[Any, ...]]:
        """The stored files and their places, regardless of the run."""
        entries = [*self.files, *([self.output] if self.output else [])]
        return frozenset((str(entry.get("path")), entry.get("checksum")) for entry in entries)


def takes_turns(options: FileOptions, output: OutputFile | None) -> bool:
    """Return whether one task at a time changes a partition: its runs share places, or may not replace each other."""
    if options.manifest_to is None or RUN_ID in options.manifest_to:
        return False
    places = options.files_to, None if output is None else output.address
    shared = any(place is not None and RUN_ID not in place for place in places)
    return shared or not options.replaces_partition


def check_manifest(options: FileOptions, conn_id: str | None, output: OutputFile | None = None) -> None:
    """
    Check, before a run is started, that its manifest can be written, as far as possible.

    :param output: The output's file, if there is one.
    :raises SkyvernConfigError: this worker cannot reach it, or its store cannot keep runs from mixing there.
    :raises SkyvernFileConflict: something else is there.
    """
    if options.manifest_to is None:
        return
    store, name = store_before_run(options.manifest_to, conn_id)
    store.check(overwrite=not takes_turns(options, output), otherwise=OWN_PLACES)
    if name is not None:
        store.check_name(name)
        _read(store, name)


def manifest_at(address: str, conn_id: str | None) -> Manifest | None:
    """
    Return the existing manifest; None if there is none, or if its address depends on the run.

    :raises SkyvernFileConflict: something else is there.
    """
    return None if RUN_ID in address else _read(*store_of(address, conn_id))


class Partition:
    """
    A run's files and output, with one manifest for all of it.

    :param options: Where it is stored.
    :param conn_id: The Airflow connection for the manifest's store.
    :param output: The output's file, if there is one.
    :param check_stop: Called about once a second while another task changes it; raises when the task has to stop.
    """

    def __init__(
        self,
        options: FileOptions,
        conn_id: str | None,
        run_id: str,
        output: OutputFile | None,
        log: Log,
        check_stop: Callable[[], object] = lambda: None,
    ) -> None:
        assert options.manifest_to is not None
        self._run_id = run_id
        self._replaces = options.replaces_partition
        self._output = None if output is None else output.address_of(run_id)
        self._log = log
        self._store, self._name = store_of(with_run_id(options.manifest_to, run_id), conn_id)
        self._files: Store | None = None
        if options.files_to is not None:
            self._files = store_at(with_run_id(options.files_to, run_id), options.files_conn_id)
        self._lease: Lease | None = None
        if takes_turns(options, output):
            self._lease = Lease(self._store, self._beside("replacing"), run_id, log=log, check_stop=check_stop)
        self._keep_as_is = options.if_exists == "fail"
        self._earlier: list[Manifest] = []
        self._only_known = False

    def begin(self, expected: Sequence[Entry] = ()) -> bool:
        """
        Prepare the partition for new files, and return whether the existing set of files is final.

        It waits until no other task changes this partition.

        :param expected: The files that will be stored, as Skyvern lists them.
        :raises SkyvernFileConflict: it belongs to another run, and may not be replaced.
        """
        if self._lease is not None:
            self._lease.acquire()
        there, half = _read(self._store, self._name), _read(self._store, self._journal)
        self._earlier = [found for found in (there, half) if found is not None]
        if there is not None and self._is_own(there):
            return False
        if self._replaces:
            self._take_down(expected)
            return False
        if half is not None and not self._is_own(half):
            raise self._conflict(half)
        if there is None:
            return False
        if self._keep_as_is:
            raise self._conflict(there)
        self._only_known = True
        return True

    def check(self) -> None:
        """
        Check that no other task can have taken over, as far as possible without a request.

        :raises SkyvernTransferError: one may have.
        """
        if self._lease is not None:
            self._lease.check()

    def close(self) -> None:
        """Let the next task change it."""
        if self._lease is not None:
            self._lease.release()

    def _take_down(self, expected: Sequence[Entry]) -> None:
        """Remove the manifest before changes, and record which files may be there, for the task that continues."""
        earlier = [entry for entry in self._entries() if self._touches(entry)]
        if earlier or expected:
            _write(self._store, self._journal, Manifest(self._run_id, [*earlier, *expected]))
        if earlier:
            self._store.remove(self._name)

    def _touches(self, entry: Entry) -> bool:
        return self._own_name(entry) is not None or (self._output is not None and entry.get("path") == self._output)

    def _entries(self) -> Iterator[Entry]:
        for manifest in self._earlier:
            yield from manifest.files
            if manifest.output is not None:
                yield manifest.output

    def finish(self, files: Sequence[Entry], output: Entry | None, evidence: Sequence[Entry]) -> dict[str, Any]:
        """
        Remove what is left of the earlier run, write the manifest, and return the reference to it.

        :raises SkyvernFileConflict: the manifest of another run is there, and may not be replaced.
        :raises SkyvernTransferError: another task has taken over, as this one was frozen.
        """
        if self._lease is not None:
            self._lease.confirm()
        written_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
        manifest = Manifest(self._run_id, files, output, evidence, written_at)
        there = _read(self._store, self._name)
        if there is not None and there.content == manifest.content and (self._only_known or self._is_own(there)):
            content = _content(self._store, self._name)
        elif there is not None and not (self._replaces or self._is_own(there)):
            raise self._conflict(there)
        else:
            self._remove_left_over({str(entry.get("path")) for entry in files})
            content = _write(self._store, self._name, manifest)
        self._store.remove(self._journal)
        checksum = hashlib.sha256(content).hexdigest()
        return {"path": self._store.address(self._name), "size": len(content), "checksum": checksum}

    def _is_own(self, manifest: Manifest) -> bool:
        return manifest.skyvern_run_id == self._run_id

    def _remove_left_over(self, current: set[str]) -> None:
        """Remove files of the earlier run that this one has not stored, unless they were changed since."""
        for entry in self._entries() if self._replaces and self._files is not None else ():
            name = self._own_name(entry)
            if name is None or entry["path"] in current or not self._is_unchanged(name, entry):
                continue
            assert self._files is not None
            self._files.remove(name)
            self._log.info("Skyvern run %s: removed %s, which an earlier run had left", self._run_id, entry["path"])

    def _own_name(self, entry: Entry) -> str | None:
        """Return the name of a file in our folder; anybody may have written the manifest, with any content."""
        name = entry.get("filename")
        if self._files is None or not isinstance(name, str) or safe_name(name) != name:
            return None
        return name if self._files.address(name) == entry.get("path") else None

    def _is_unchanged(self, name: str, entry: Entry) -> bool:
        assert self._files is not None
        size = self._files.size(name)
        return size is not None and size == entry.get("size") and self._files.checksum(name) == entry.get("checksum")

    def _conflict(self, there: Manifest) -> SkyvernFileConflict:
        return SkyvernFileConflict(
            f"{self._store.address(self._name)} lists the files of Skyvern run {there.skyvern_run_id}, and those of "
            f"{self._run_id} are others. {REPLACE}"
        )

    @property
    def _journal(self) -> str:
        """The name of the file that is kept while there is no manifest."""
        return self._beside("replaced")

    def _beside(self, what: str) -> str:
        return f".skyvern-{what}-{hashlib.sha256(self._name.encode()).hexdigest()[:16]}.json"


def _content(store: Store, name: str) -> bytes:
    with store.opened(name) as file:
        return file.read(LARGEST + 1)


def _read(store: Store, name: str) -> Manifest | None:
    if store.size(name) is None:
        return None
    manifest = Manifest.of(_content(store, name))
    if manifest is None:
        raise SkyvernFileConflict(
            f"{store.address(name)} exists and is not a manifest, so it is not replaced. Choose another manifest_to."
        )
    return manifest


def _write(store: Store, name: str, manifest: Manifest) -> bytes:
    content = manifest.as_json()
    with store.sink(name, overwrite=True, size=len(content)) as sink:
        sink.write(content)
    return content
