"""Handles the files of a task's run when the run is over."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Protocol

from airflow_skyvern import traces
from airflow_skyvern.compat.stores import add_input_to_lineage, add_output_to_lineage
from airflow_skyvern.exceptions import (
    SkyvernFileConflict,
    SkyvernFileError,
    SkyvernOutputError,
    SkyvernOutputTooLarge,
    SkyvernRunCanceled,
    SkyvernTransferError,
)
from airflow_skyvern.results.names import before_run_id
from airflow_skyvern.results.options import FileOptions
from airflow_skyvern.task import xcom

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_skyvern.hooks import SkyvernHook
    from airflow_skyvern.models import Run
    from airflow_skyvern.results.manifest import Partition
    from airflow_skyvern.results.output import OutputOptions
    from airflow_skyvern.results.run_files import RunFiles, StoredFile
    from airflow_skyvern.task.task_try import TaskTry


class DeliveringTask(Protocol):
    """The required attributes of a task: name, connection, log, outlets, and arguments of :class:`FileOptions`."""

    task_id: str
    outlets: list[Any]

    @property
    def hook(self) -> SkyvernHook:
        """The hook of its connection."""

    @property
    def log(self) -> Any:
        """Its log."""


FILE_ARGUMENTS = tuple(field.name for field in fields(FileOptions))

ESCAPED = str.maketrans({"%": "%25", "#": "%23", "?": "%3F"})
"""Characters that end the path in an address."""


def file_options(task: DeliveringTask) -> FileOptions | None:
    """
    Return a task's file arguments in their current form: templates, or rendered values.

    Returns None if no argument is set: then files are left alone.
    """
    arguments = {name: getattr(task, name) for name in FILE_ARGUMENTS}
    is_given = any(value is not None and value is not False for value in arguments.values())
    return FileOptions(**arguments) if is_given else None


def checked_file_options(task: DeliveringTask) -> FileOptions | None:
    """
    Check the file arguments when the DAG is parsed, and return them, or None if none is set.

    :raises SkyvernConfigError: names the task, what is wrong, and what would be right.
    """
    if (options := file_options(task)) is not None:
        options.check(task.task_id, getattr(task, "output_to", None))
    return options


def check_delivery(task: DeliveringTask, output: OutputOptions | None = None) -> None:
    """
    Check, before a run is started, as far as possible, that its files and its output can be delivered.

    The schema of the output is checked when ``output`` is created.

    :raises SkyvernConfigError: there is no way to a place, as the templates show now: no address, no provider for the
        store, no connection, no bucket, or a store that does not keep what docs/files.md promises.
    :raises SkyvernTransferError: a store cannot be reached.
    :raises SkyvernFileConflict: something else is at the manifest's address.
    :raises OSError: a folder cannot be written to.
    """
    if (options := file_options(task)) is not None:
        options.check_destination(task.task_id)
        if options.files_to is not None:
            from airflow_skyvern.results.stores import store_at

            store_at(before_run_id(options.files_to), options.files_conn_id).check(overwrite=options.replaces)
        if options.manifest_to is not None:
            from airflow_skyvern.results.manifest import check_manifest

            check_manifest(options, _manifest_conn_id(task, options), None if output is None else output.file)
    if output is not None and output.file is not None:
        output.file.check()


def check_place_is_free(task: DeliveringTask, output: OutputOptions) -> None:
    """
    With ``if_exists="fail"``, check that nothing is there, unless an earlier try has started a run.

    :raises SkyvernFileConflict: something is there.
    """
    options = file_options(task)
    if options is None or options.if_exists != "fail":
        return
    taken = output.file.taken() if output.file is not None else None
    if taken is None and options.manifest_to is not None:
        from airflow_skyvern.results.manifest import manifest_at

        if manifest_at(options.manifest_to, _manifest_conn_id(task, options)) is not None:
            taken = options.manifest_to
    if taken is not None:
        raise SkyvernFileConflict(
            f"Task {task.task_id!r}: if_exists='fail', and {taken} exists, so no run is started."
        )


def _manifest_conn_id(task: DeliveringTask, options: FileOptions) -> str | None:
    return options.files_conn_id if options.files_to is not None else getattr(task, "output_conn_id", None)


class Delivery:
    """
    Delivers a completed run: its output, its files, its evidence, and their manifest, in this order.

    Everything that may be refused is checked before anything is stored.

    :param task: The operator, with the arguments of :class:`FileOptions`, ``hook`` and ``log``.
    :param check_stop: Called about once a second; raises when the task has to stop.
    :param origin: Returns the address that lineage gets as the origin of the files.
    """

    def __init__(
        self,
        task: DeliveringTask,
        task_try: TaskTry,
        run: Run,
        check_stop: Callable[[], object] = lambda: None,
        *,
        origin: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._task = task
        self._try = task_try
        self._run = run
        self._check_stop = check_stop
        self._origin = origin
        self._options = file_options(task)
        self._partition: Partition | None = None

    def bring(self, output: OutputOptions | None = None) -> tuple[Any, list[StoredFile]]:
        """
        Deliver everything, and return the value that the task pushes, and its files.

        :raises SkyvernOutputError: the output does not fit its contract.
        :raises SkyvernFilesMissing: the run downloaded other files than were expected.
        :raises SkyvernFileError: a file could not be stored. Evidence is stored for every error that no retry can
            fix.
        """
        try:
            return self._traced(output)
        except (SkyvernOutputError, SkyvernOutputTooLarge, SkyvernFileError) as error:
            if not isinstance(error, SkyvernTransferError):
                deliver_evidence(self._task, self._try, self._run, self._check_stop)
            raise

    def _traced(self, output: OutputOptions | None) -> tuple[Any, list[StoredFile]]:
        if self._options is None and (output is None or output.file is None):
            return self._bring(output)  # nothing is stored
        with _step(self._run):
            value, files = self._bring(output)
            _note_files(files)
        return value, files

    def _bring(self, output: OutputOptions | None) -> tuple[Any, list[StoredFile]]:
        value = None if output is None else output.agreed(self._run, self._task.log)
        downloads = self._checked_downloads()
        self._partition = self._partition_of(output)
        try:
            return self._store(value, downloads, output)
        finally:
            if self._partition is not None:
                self._partition.close()

    def _store(
        self, value: Any, downloads: RunFiles | None, output: OutputOptions | None
    ) -> tuple[Any, list[StoredFile]]:
        partition = self._partition
        only_known = partition is not None and partition.begin([] if downloads is None else downloads.expected())
        if output is not None:
            value = output.pushed(value, self._run.run_id, self._task.log)
        reference = value if output is not None and output.file is not None else None
        if reference is not None:
            self._report([reference["path"]], {"output": reference})
        files = [] if downloads is None else downloads.bring(only_known=only_known)
        evidence = self._report_files(files)
        if partition is not None:
            manifest = partition.finish(_entries(files), reference, _entries(evidence))
            self._try.publish_manifest(manifest)
            self._report([], {"manifest": manifest})
        return value, files

    def _checked_downloads(self) -> RunFiles | None:
        if self._options is None or not self._options.wanted:
            return None
        from airflow_skyvern.results.run_files import RunFiles

        found = RunFiles(self._task.hook, self._options, self._run, log=self._task.log, check_stop=self._check_turn)
        found.check()
        return found

    def _check_turn(self) -> None:
        """Raise when the task has to stop, or when another task may have taken its turn."""
        self._check_stop()
        if self._partition is not None:
            self._partition.check()

    def _partition_of(self, output: OutputOptions | None) -> Partition | None:
        options = self._options
        if options is None or options.manifest_to is None:
            return None
        from airflow_skyvern.results.manifest import Partition

        file = None if output is None else output.file
        conn_id = _manifest_conn_id(self._task, options)
        return Partition(options, conn_id, self._run.run_id, file, self._task.log, self._check_stop)

    def _report_files(self, files: list[StoredFile]) -> list[StoredFile]:
        """Publish the files and store the evidence, if a place is set for them; return the evidence."""
        options = self._options
        if options is None or options.files_to is None:
            return []
        self._try.publish_files(xcom.FILES, _entries(files))
        if files and (source := self._origin()) is not None:
            add_input_to_lineage(self._task.hook, source)
        self._report([file.path for file in files], {"files": _entries(files)})
        if not options.evidence:
            return []
        return _store_evidence(self._task, self._try, self._run, options, self._check_stop)

    def _report(self, paths: list[str], extra: dict[str, Any]) -> None:
        """Report the storage addresses to lineage, and the contents to the events of the task's outlets."""
        addresses = [path if "://" in path else f"file://{path.translate(ESCAPED)}" for path in paths]
        for address in addresses:
            add_output_to_lineage(self._task.hook, address)
        extra = {"skyvern_run_id": self._run.run_id, **extra}
        for refused in self._try.add_to_outlet_events(self._task.outlets, extra, addresses):
            self._task.log.warning(
                "Airflow does not accept an asset with this address, so there is no event: %s", refused
            )


def _entries(files: list[StoredFile]) -> list[dict[str, Any]]:
    return [file.as_xcom() for file in files]


def _step(run: Run) -> AbstractContextManager[None]:
    """Record that files are stored, as a step of the task's trace."""
    return traces.step(traces.FILES, {traces.RUN_ID: run.run_id})


def _note_files(files: list[StoredFile]) -> None:
    """Record how many files were stored, and their bytes."""
    size = sum(file.size for file in files)
    traces.note({"skyvern.files.count": len(files), "skyvern.files.size": size})


def deliver_evidence(
    task: DeliveringTask, task_try: TaskTry, run: Run, check_stop: Callable[[], object] = lambda: None
) -> None:
    """Store recording and screenshots of a run that ended badly; an error here must not hide how the run ended."""
    options = file_options(task)
    if options is None or not options.evidence:
        return
    try:
        with _step(run):
            _note_files(_store_evidence(task, task_try, run, options, check_stop))
    except Exception as error:  # noqa: BLE001  whatever it is, the run's own error is what the task fails with
        task.log.warning("Skyvern run %s: its recording or screenshots could not be stored. %s", run.run_id, error)


class StopsTransfers:
    """Ends a task's transfers when the task is killed: the run is over, so nothing is canceled."""

    _killed = False

    def on_kill(self) -> None:
        """Stop the transfers; no incomplete file is left."""
        self._killed = True

    def stop_if_killed(self) -> None:
        """Raise if the task was killed: it must not end as a success."""
        if self._killed:
            raise SkyvernRunCanceled("The task was killed, so it must not succeed.")


def _store_evidence(
    task: DeliveringTask, task_try: TaskTry, run: Run, options: FileOptions, check_stop: Callable[[], object]
) -> list[StoredFile]:
    from airflow_skyvern.results.run_files import RunFiles

    files = RunFiles(task.hook, options, run, log=task.log, check_stop=check_stop).bring_evidence()
    task_try.publish_files(xcom.EVIDENCE, _entries(files))
    return files
