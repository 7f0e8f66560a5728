"""What a task does about the files of its run when the run is over."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from airflow_skyvern.results.options import FileOptions
from airflow_skyvern.task import xcom

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_skyvern.models import Run
    from airflow_skyvern.results.run_files import StoredFile
    from airflow_skyvern.task.task_try import TaskTry


def file_options(task: Any) -> FileOptions:
    """Return the arguments about files that a task has, as they are now: templates, or what these have become."""
    return FileOptions(**{field.name: getattr(task, field.name) for field in fields(FileOptions)})


def check_place(task: Any) -> None:
    """
    Check, before a run is started, that there is a way to the place where its files will go.

    :raises SkyvernConfigError: ``files_to`` is none, as its template shows now, or Airflow's provider for the store
        is not installed.
    """
    options = file_options(task)
    options.check_place(task.task_id)
    if options.files_to is not None:
        from airflow_skyvern.results.stores import store_at

        store_at(options.files_to, options.files_conn_id)


def deliver_files(
    task: Any, task_try: TaskTry, run: Run, go_on: Callable[[], object] = lambda: None
) -> list[StoredFile]:
    """
    Store the files of a run that has ended, and push where they are.

    :param task: The operator, with the arguments of :class:`FileOptions`, ``hook`` and ``log``.
    :param go_on: Called about once a second; raises when the task has to stop.
    :raises SkyvernFileError: a file is missing, or could not be stored.
    """
    options = file_options(task)
    if not options.wanted:
        return []
    from airflow_skyvern.results.run_files import RunFiles

    files = RunFiles(task.hook, options, run, log=task.log, go_on=go_on).bring()
    if options.files_to is not None:
        task_try.publish_files(xcom.FILES, [file.as_xcom() for file in files])
    return files
