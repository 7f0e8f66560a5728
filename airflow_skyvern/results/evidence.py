"""The recording and the screenshots of a run, which show afterwards what happened in the browser."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_skyvern.client.file_kinds import TELLING_BYTES, extension_of
from airflow_skyvern.client.retry import poll_until
from airflow_skyvern.exceptions import SkyvernNotFoundError
from airflow_skyvern.results.sources import RunFile, Source

if TYPE_CHECKING:
    from airflow_skyvern.hooks import SkyvernHook
    from airflow_skyvern.models import Artifact
    from airflow_skyvern.results.options import FileOptions
    from airflow_skyvern.runs.wait import Log

RECORDING = "recording"
SCREENSHOTS = frozenset({"screenshot_action", "screenshot_final"})
"""Pictures of actions and of the ends of blocks; the pictures for the language model show the same pages again."""

STABLE_SECONDS = 5.0
"""Seconds within which Skyvern compresses the recording of a run that has ended: the same id, another file."""

OTHER = ".bin"
"""The extension of a file whose kind is not known."""


def evidence_of(
    hook: SkyvernHook,
    run_id: str,
    options: FileOptions,
    source: Source,
    *,
    log: Log,
    sleep: Callable[[float], Any] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> list[RunFile]:
    """Return the requested recording and screenshots, under names that begin with the run's id."""
    kinds = _Kinds(source)
    artifacts = (
        _stable_files(hook, run_id, kinds, sleep, clock) if options.recording else hook.list_run_artifacts(run_id)
    )
    present = sorted((found for found in artifacts if not found.archived), key=_age)
    found: list[RunFile] = []
    if options.recording:
        recordings = [one for one in present if one.artifact_type == RECORDING]
        readable = [one for one in recordings if kinds.is_readable(one)]
        if not recordings:
            log.info("Skyvern run %s has no recording; the API does not return those of browser sessions.", run_id)
        elif len(readable) < len(recordings):
            log.warning("Skyvern run %s: its recording cannot be read yet, so it is not stored.", run_id)
        found += _named(kinds, run_id, "recording", readable)
    if options.screenshots:
        found += _named(kinds, run_id, "screenshot", [one for one in present if one.artifact_type in SCREENSHOTS])
    return found


class _Kinds:
    """
    The kinds of a run's artifacts, by their first bytes, each read once when it is known.

    A recording whose kind is not known yet is read again: Skyvern changes its name before it has stored the MP4.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._known: dict[tuple[str, str | None], str] = {}

    def extension(self, artifact: Artifact) -> str:
        """Return the extension that the file of an artifact should have."""
        key = (artifact.artifact_id, artifact.uri)
        found = self._known.get(key) or self._read(artifact)
        if found is not None:
            self._known[key] = found
        return found or OTHER

    def is_readable(self, recording: Artifact) -> bool:
        """Return whether the run has a recording."""
        try:
            return self.extension(recording) != OTHER
        except SkyvernNotFoundError:
            return False

    def _read(self, artifact: Artifact) -> str | None:
        start = b""
        with self._source.open(RunFile(None, artifact_id=artifact.artifact_id)) as incoming:
            for piece in incoming.chunks:
                start += piece
                if len(start) >= TELLING_BYTES:
                    break
        return extension_of(start)


def _stable_files(
    hook: SkyvernHook, run_id: str, kinds: _Kinds, sleep: Callable[[float], Any], clock: Callable[[], float]
) -> list[Artifact]:
    """List the artifacts once no recording is likely to change any more."""

    def listed() -> tuple[list[Artifact], bool]:
        artifacts = hook.list_run_artifacts(run_id)
        recordings = [one for one in artifacts if one.artifact_type == RECORDING]
        return artifacts, bool(recordings) and all(_is_final(one, kinds) for one in recordings)

    until = clock() + STABLE_SECONDS
    artifacts, _ = poll_until(listed, lambda found: found[1], stop=lambda _: clock() >= until, sleep=sleep)
    return artifacts


def _is_final(recording: Artifact, kinds: _Kinds) -> bool:
    is_raw = (recording.uri or "").partition("?")[0].endswith(".webm")
    return not is_raw and (recording.archived or kinds.is_readable(recording))


def _named(kinds: _Kinds, run_id: str, name: str, artifacts: Sequence[Artifact]) -> list[RunFile]:
    """
    Name artifacts by their kind.

    Some servers send the archive of a step for each of its pictures; one copy of each archive is enough.
    """
    found: list[RunFile] = []
    archives: set[str | None] = set()
    for number, artifact in enumerate(artifacts, 1):
        extension = kinds.extension(artifact)
        if extension == ".zip" and artifact.uri in archives:
            continue
        archives.add(artifact.uri)
        suffix = f"-{number:02d}" if len(artifacts) > 1 else ""
        found.append(RunFile(f"{run_id}-{name}{suffix}{extension}", artifact_id=artifact.artifact_id))
    return found


def _age(artifact: Artifact) -> tuple[int, str]:
    return len(artifact.artifact_id), artifact.artifact_id  # ids increase with time
