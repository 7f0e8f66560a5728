"""What a task does about the files of its run when the run is over."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Protocol

from airflow_skyvern.compat.stores import add_input_to_lineage, add_output_to_lineage
from airflow_skyvern.exceptions import SkyvernFilesMissing, SkyvernOutputError, SkyvernRunCanceled
from airflow_skyvern.results.names import before_run_id
from airflow_skyvern.results.options import FileOptions
from airflow_skyvern.task import xcom

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_skyvern.hooks import SkyvernHook
    from airflow_skyvern.models import Run
    from airflow_skyvern.results.output import OutputOptions
    from airflow_skyvern.results.run_files import StoredFile
    from airflow_skyvern.task.task_try import TaskTry


class DeliveringTask(Protocol):
    """What is needed of a task: its name, connection, log and outlets; and the arguments of :class:`FileOptions`."""

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
"""What would end the path in an address."""


def file_options(task: DeliveringTask) -> FileOptions | None:
    """
    Return the arguments about files that a task has, as they are now: templates, or what these have become.

    None are returned where none is given: then nothing is done about files.
    """
    arguments = {name: getattr(task, name) for name in FILE_ARGUMENTS}
    is_given = any(value is not None and value is not False for value in arguments.values())
    return FileOptions(**arguments) if is_given else None


def checked_file_options(task: DeliveringTask) -> FileOptions | None:
    """
    Check the arguments about files when the DAG is parsed, and return them, or None where none is given.

    :raises SkyvernConfigError: names the task, what is wrong, and what would be right.
    """
    if (options := file_options(task)) is not None:
        options.check(task.task_id)
    return options


def check_delivery(task: DeliveringTask, output: OutputOptions | None = None) -> None:
    """
    Check, before a run is started, all that can be known about how its files and its output will be delivered.

    That the schema of the output is one is checked when ``output`` is made.

    :raises SkyvernConfigError: there is no way to a place, as the templates show now: no address, no provider for the
        store, no connection, no bucket, or a store that does not keep what docs/files.md promises.
    :raises SkyvernTransferError: a store cannot be reached.
    :raises OSError: a folder cannot be written to.
    """
    if (options := file_options(task)) is not None:
        options.check_destination(task.task_id)
        if options.files_to is not None:
            from airflow_skyvern.results.stores import store_at

            store_at(before_run_id(options.files_to), options.files_conn_id).check(overwrite=options.overwrite)
    if output is not None and output.file is not None:
        output.file.check()


def deliver_output(
    task: DeliveringTask,
    task_try: TaskTry,
    run: Run,
    output: OutputOptions,
    check_stop: Callable[[], object] = lambda: None,
) -> Any:
    """
    Return what the task pushes as its value; the file that it is written to is known to lineage and outlets then.

    :raises SkyvernOutputError: the output is not what was agreed; the evidence is stored.
    """
    try:
        value = output.value_of(run, task.log)
    except SkyvernOutputError:
        deliver_evidence(task, task_try, run, check_stop)
        raise
    if output.file is not None:
        _report(task, task_try, [value["path"]], {"skyvern_run_id": run.run_id, "output": value})
    return value


def deliver_files(
    task: DeliveringTask,
    task_try: TaskTry,
    run: Run,
    check_stop: Callable[[], object] = lambda: None,
    *,
    origin: Callable[[], str | None] = lambda: None,
) -> list[StoredFile]:
    """
    Store the files of a run that has completed, and push where they are.

    :param task: The operator, with the arguments of :class:`FileOptions`, ``hook`` and ``log``.
    :param check_stop: Called about once a second; raises when the task has to stop.
    :param origin: Returns the address that lineage gets as the origin of the files.
    :raises SkyvernFilesMissing: the run downloaded other files than were expected; the evidence is stored.
    :raises SkyvernFileError: a file could not be stored.
    """
    options = file_options(task)
    if options is None or not options.wanted:
        return []
    from airflow_skyvern.results.run_files import RunFiles

    try:
        files = RunFiles(task.hook, options, run, log=task.log, check_stop=check_stop).bring()
    except SkyvernFilesMissing:
        deliver_evidence(task, task_try, run, check_stop)
        raise
    if options.files_to is not None:
        task_try.publish_files(xcom.FILES, [file.as_xcom() for file in files])
        if files and (source := origin()) is not None:
            add_input_to_lineage(task.hook, source)
        stored = [file.as_xcom() for file in files]
        _report(task, task_try, [file.path for file in files], {"skyvern_run_id": run.run_id, "files": stored})
    if options.evidence:
        _store_evidence(task, task_try, run, options, check_stop)
    return files


def deliver_evidence(
    task: DeliveringTask, task_try: TaskTry, run: Run, check_stop: Callable[[], object] = lambda: None
) -> None:
    """Store recording and screenshots of a run that ended badly; that this fails must not hide how the run ended."""
    options = file_options(task)
    if options is None or not options.evidence:
        return
    try:
        _store_evidence(task, task_try, run, options, check_stop)
    except Exception as error:  # noqa: BLE001  whatever it is, the run's own error is what the task fails with
        task.log.warning("Skyvern run %s: its recording or screenshots could not be stored. %s", run.run_id, error)


class StopsTransfers:
    """What a task needs to end its transfers when it is killed: the run is over, so nothing is canceled."""

    _killed = False

    def on_kill(self) -> None:
        """Stop the transfers; nothing of a file that is not whole is left."""
        self._killed = True

    def stop_if_killed(self) -> None:
        """Raise if the task was killed: it must not end as a success."""
        if self._killed:
            raise SkyvernRunCanceled("The task was killed, so it must not succeed.")


def _store_evidence(
    task: DeliveringTask, task_try: TaskTry, run: Run, options: FileOptions, check_stop: Callable[[], object]
) -> None:
    from airflow_skyvern.results.run_files import RunFiles

    files = RunFiles(task.hook, options, run, log=task.log, check_stop=check_stop).bring_evidence()
    task_try.publish_files(xcom.EVIDENCE, [file.as_xcom() for file in files])


def _report(task: DeliveringTask, task_try: TaskTry, paths: list[str], extra: dict[str, Any]) -> None:
    """Tell lineage where something is, and the events of the task's outlets what it is."""
    addresses = [path if "://" in path else f"file://{path.translate(ESCAPED)}" for path in paths]
    for address in addresses:
        add_output_to_lineage(task.hook, address)
    task_try.add_to_outlet_events(task.outlets, extra, addresses)
