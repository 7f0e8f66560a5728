"""Reads a run, its timeline and its small files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

from airflow_skyvern.client.file_kinds import TELLING_BYTES
from airflow_skyvern.exceptions import SkyvernError
from airflow_skyvern.recording.recorded_run import FileContent, RecordedRun, recorded, workflow_of
from airflow_skyvern.results.masking import OutputMasker
from airflow_skyvern.results.names import file_names
from airflow_skyvern.results.sources import RunFile, Source, downloads

if TYPE_CHECKING:
    from airflow_skyvern.hooks import SkyvernHook
    from airflow_skyvern.models import Run


def read_run(hook: SkyvernHook, run_id: str, max_file_bytes: int, note: Callable[[str], object]) -> RecordedRun:
    """
    Read a run from Skyvern.

    :param max_file_bytes: Larger files get a placeholder.
    :param note: Told of each file that gets one.
    :raises SkyvernError: the run cannot be read, is not over, or is not of a workflow.
    """
    run = hook.fetch_run(run_id)
    workflow_of(run)
    files = list(_files(hook, run, max_file_bytes, note))
    return recorded(run, hook.get_run_timeline(run_id), files, OutputMasker().masked)


def _files(hook: SkyvernHook, run: Run, max_bytes: int, note: Callable[[str], object]) -> Iterator[FileContent]:
    found = downloads(run)
    with closing(Source(hook, lambda: downloads(hook.fetch_run(run.run_id)))) as source:
        for file, name in zip(found, file_names([file.name for file in found]), strict=True):
            try:
                start = _start_of(source, file, max_bytes)
            except SkyvernError as error:
                note(f"{name} is a placeholder: {error}")
                yield FileContent(name, b"", whole=False)
                continue
            whole = len(start) <= max_bytes and file.size in (None, len(start))
            if not whole:
                note(f"{name} is a placeholder: it has {file.size or f'more than {max_bytes}'} bytes.")
            yield FileContent(name, start if whole else start[:TELLING_BYTES], whole)


def _start_of(source: Source, file: RunFile, most: int) -> bytes:
    """Read a file, and stop soon after so many bytes."""
    start = b""
    with source.open(file) as incoming:
        for chunk in incoming.chunks:
            start += chunk
            if len(start) > most:
                break
    return start
