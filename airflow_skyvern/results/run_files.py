"""Transfers the files of a run: several at once, each checked and complete, and none twice."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import tenacity

from airflow_skyvern.exceptions import SkyvernError, SkyvernFileConflict, SkyvernFileError, SkyvernTransferError
from airflow_skyvern.results.manifest import REPLACE
from airflow_skyvern.results.names import file_names, with_run_id
from airflow_skyvern.results.sources import RunFile, Source, downloads
from airflow_skyvern.results.stores import Store, store_at
from airflow_skyvern.results.transfer import OtherContent, Received, Transfer

if TYPE_CHECKING:
    from airflow_skyvern.hooks import SkyvernHook
    from airflow_skyvern.models import Run
    from airflow_skyvern.results.options import FileOptions
    from airflow_skyvern.runs.wait import Log

AT_ONCE = 3
"""How many files are transferred at once; each holds a part of an upload in memory."""

WHOLE_ATTEMPTS = 3
"""How often a file is read again from its beginning if its content differs from Skyvern's description."""

STABLE_SECONDS = 10.0
"""Seconds after the end of a run within which Skyvern still adds files and their ids to it."""

STOP_SECONDS = 5.0
"""Seconds for which a task that has to stop waits for its transfers."""


@dataclass(frozen=True)
class StoredFile:
    """
    A stored file of a run, as listed in the XCom ``files``.

    :param path: Its path or address.
    :param filename: The last part of that.
    :param size: Bytes.
    :param checksum: Its sha256, in hexadecimal digits.
    """

    path: str
    filename: str
    size: int
    checksum: str

    def as_xcom(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)


class _StopRequested(Exception):
    """The task has to stop, and so do its transfers."""


class RunFiles:
    """
    The files of one run.

    :param hook: The hook of the task.
    :param options: Where the files go, under which names.
    :param check_stop: Called about once a second, and for each piece that arrives, in the threads of the transfers;
        raises when the task has to stop.
    """

    def __init__(
        self,
        hook: SkyvernHook,
        options: FileOptions,
        run: Run,
        *,
        log: Log,
        check_stop: Callable[[], object] = lambda: None,
        sleep: Callable[[float], Any] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hook = hook
        self._options = options
        self._run = run
        self._log = log
        self._check_stop = check_stop
        self._sleep = sleep
        self._clock = clock
        self._stop = threading.Event()

    def check(self) -> None:
        """
        Check that the run has downloaded the expected files; nothing is stored yet.

        :raises SkyvernFilesMissing: it has not.
        """
        self._options.check_files(self._run.run_id, self._names, self._run.app_url)

    def expected(self) -> list[dict[str, Any]]:
        """Return the files that will be stored, as Skyvern lists them."""
        if self._options.files_to is None:
            return []
        return [
            StoredFile(self._store.address(name), name, file.size, file.checksum.lower()).as_xcom()
            for file, name in zip(self._files, self._stored_names, strict=True)
            if file.size is not None and file.checksum is not None
        ]

    @property
    def _stored_names(self) -> list[str]:
        return file_names(self._names, self._options.file_name, self._run.run_id)

    def bring(self, *, only_known: bool = False) -> list[StoredFile]:
        """
        Store the run's downloads, if a place is set for them.

        :param only_known: Whether the existing set of files is final.
        :raises SkyvernFileError: a file could not be stored.
        """
        if self._options.files_to is None or not self._files:
            return []
        return self._store_all(self._files, self._stored_names, only_known=only_known)

    def bring_evidence(self) -> list[StoredFile]:
        """
        Store the requested recording and screenshots; their names begin with the id of the run.

        :raises SkyvernFileError: one of them could not be stored.
        """
        from airflow_skyvern.results.evidence import evidence_of

        source = self._source()
        try:
            files = evidence_of(self._hook, self._run.run_id, self._options, source, log=self._log, sleep=self._sleep)
        finally:
            source.close()
        # A recording may have changed since an earlier try.
        self._options = replace(self._options, if_exists="replace")
        return self._store_all(files, [file.name or "" for file in files]) if files else []

    def _source(self) -> Source:
        return Source(self._hook, lambda: downloads(self._hook.fetch_run(self._run.run_id)))

    @property
    def _names(self) -> list[str]:
        return [file.name or "" for file in self._files]

    @cached_property
    def _files(self) -> list[RunFile]:
        """Return the run's downloads once all are readable: Skyvern adds ids a moment after the end."""
        until = self._clock() + STABLE_SECONDS
        while not (all(file.is_readable for file in downloads(self._run)) and self._as_expected()):
            if self._clock() >= until:
                break
            self._sleep(1.0)
            self._run = self._hook.fetch_run(self._run.run_id)
        return downloads(self._run)

    def _as_expected(self) -> bool:
        try:
            self._options.check_files("", [file.name or "" for file in downloads(self._run)], None)
        except SkyvernError:
            return False
        return True

    @cached_property
    def _store(self) -> Store:
        assert self._options.files_to is not None
        return store_at(with_run_id(self._options.files_to, self._run.run_id), self._options.files_conn_id)

    def _store_all(
        self, files: Sequence[RunFile], names: Sequence[str], *, only_known: bool = False
    ) -> list[StoredFile]:
        source, store = self._source(), self._store
        try:
            with self._threads(len(files)) as pool:
                pending = [
                    pool.submit(partial(self._store_one, source, store, file, name, only_known=only_known))
                    for file, name in zip(files, names, strict=True)
                ]
                self._wait(pending)
        finally:
            source.close()
        return self._results(pending, names)

    @contextmanager
    def _threads(self, files: int) -> Iterator[ThreadPoolExecutor]:
        """Provide threads that stop soon when the task has to."""
        pool = ThreadPoolExecutor(min(AT_ONCE, files), thread_name_prefix="skyvern file")
        try:
            yield pool
        except BaseException:
            self._stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()

    def _wait(self, pending: Sequence[Future[StoredFile]]) -> None:
        try:
            while wait(pending, timeout=1.0).not_done:
                self._check_stop()
        except BaseException:
            self._stop.set()
            for future in pending:
                future.cancel()
            wait(pending, timeout=STOP_SECONDS)
            raise

    def _results(self, pending: Sequence[Future[StoredFile]], names: Sequence[str]) -> list[StoredFile]:
        failed = {name: error for name, future in zip(names, pending, strict=True) if (error := future.exception())}
        if len(failed) > 1:
            raise _all_of(
                failed, f"Skyvern run {self._run.run_id}: {len(failed)} of its {len(pending)} files"
            ) from next(iter(failed.values()))
        for error in failed.values():
            raise error
        return [future.result() for future in pending]

    def _store_one(self, source: Source, store: Store, file: RunFile, name: str, *, only_known: bool) -> StoredFile:
        try:
            return self._known(source, store, file, name) or self._added(
                source, store, file, name, only_known=only_known
            )
        except (SkyvernError, _StopRequested):
            raise
        except Exception as error:  # what stores raise: OSError, and the errors of a dozen client libraries
            raise SkyvernTransferError(
                f"Skyvern run {self._run.run_id}: could not store {store.address(name)}: "
                f"{type(error).__name__}: {error}"
            ) from error

    def _added(self, source: Source, store: Store, file: RunFile, name: str, *, only_known: bool) -> StoredFile:
        if only_known:
            raise SkyvernFileConflict(
                f"{store.address(name)} is not among the files of another run that are there, which a manifest "
                f"lists. {REPLACE}"
            )
        return self._fetch_unless_stored(source, store, file, name)

    def _fetch_unless_stored(self, source: Source, store: Store, file: RunFile, name: str) -> StoredFile:
        try:
            return self._fetch(source, store, file, name)
        except SkyvernFileConflict:
            # Perhaps this task itself has stored it: an earlier try, or a write whose answer was lost.
            if (stored := self._known(source, store, file, name)) is None:
                raise
            return stored

    def _known(self, source: Source, store: Store, file: RunFile, name: str) -> StoredFile | None:
        """Return the file stored by an earlier try; None if it has to be fetched."""
        size = store.size(name)
        if size is None:
            return None
        if file.size in (None, size):
            checksum = store.checksum(name)
            if checksum == self._checksum_of(source, file, name):
                self._log.info(
                    "Skyvern run %s: %s is there already (%d bytes)", self._run.run_id, store.address(name), size
                )
                return StoredFile(store.address(name), name, size, checksum)
        if not self._options.replaces:
            raise store.conflict(name)
        return None

    def _checksum_of(self, source: Source, file: RunFile, name: str) -> str:
        """Return the checksum that Skyvern lists, or the checksum of the file itself where it lists none."""
        if file.checksum is not None:
            return file.checksum.lower()
        return self._transfer(source, file, name).into(lambda _: None).checksum

    def _fetch(self, source: Source, store: Store, file: RunFile, name: str) -> StoredFile:
        again = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(OtherContent),
            stop=tenacity.stop_after_attempt(WHOLE_ATTEMPTS),
            before_sleep=lambda state: self._log.warning(
                "%s It is fetched again.", state.outcome.exception() if state.outcome else ""
            ),
            sleep=self._sleep,
            reraise=True,
        )
        received: Received = again(self._fetch_once, source, store, file, name)
        self._log.info(
            "Skyvern run %s: stored %s, %d bytes in %.1f s (%s)",
            self._run.run_id,
            store.address(name),
            received.size,
            received.seconds,
            received.rate,
        )
        return StoredFile(store.address(name), name, received.size, received.checksum)

    def _fetch_once(self, source: Source, store: Store, file: RunFile, name: str) -> Received:
        with store.sink(name, overwrite=self._options.replaces, size=file.size) as sink:
            return self._transfer(source, file, name).into(sink.write)

    def _transfer(self, source: Source, file: RunFile, name: str) -> Transfer:
        return Transfer(
            partial(source.open, file),
            label=f"Skyvern run {self._run.run_id}: file {name}",
            size=file.size,
            checksum=file.checksum,
            log=self._log,
            check_stop=self._stop_if_requested,
            sleep=self._sleep_or_stop,
        )

    def _sleep_or_stop(self, seconds: float) -> None:
        self._stop.wait(seconds)
        self._stop_if_requested()

    def _stop_if_requested(self) -> None:
        """Raise if the task has to stop; called for each piece, by the threads of the transfers."""
        if self._stop.is_set():
            raise _StopRequested
        self._check_stop()


def _all_of(failed: Mapping[str, BaseException], what: str) -> SkyvernFileError:
    """Combine several errors into one; it is retried if each of them would be."""
    kinds = {type(error) for error in failed.values()}
    transient = all(isinstance(error, SkyvernError) and error.transient for error in failed.values())
    conflict = SkyvernFileConflict if kinds == {SkyvernFileConflict} else SkyvernFileError
    named = " ".join(f"[{number}] {name}: {error}" for number, (name, error) in enumerate(failed.items(), 1))
    return (SkyvernTransferError if transient else conflict)(f"{what} could not be stored. {named}")
