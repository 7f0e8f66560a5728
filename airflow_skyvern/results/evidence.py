"""The recording and the screenshots of a run: what shows afterwards what happened in the browser."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_skyvern.exceptions import SkyvernNotFoundError
from airflow_skyvern.results.sources import RunFile, Source

if TYPE_CHECKING:
    from airflow_skyvern.hooks import SkyvernHook
    from airflow_skyvern.models import Artifact
    from airflow_skyvern.results.options import FileOptions
    from airflow_skyvern.runs.wait import Log

RECORDING = "recording"
SCREENSHOTS = frozenset({"screenshot_action", "screenshot_final"})
"""The pictures of actions and of the ends of blocks; those for the language model show the same pages again."""

STABLE_SECONDS = 5.0
"""Seconds within which Skyvern compresses the recording of a run that has ended: the same id, another file."""

ZIP = b"PK\x03\x04"
FORMATS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg", b"\x1a\x45\xdf\xa3": ".webm", ZIP: ".zip"}
"""What the first bytes of a file say; an MP4 has its mark behind the first four."""


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
    """Return recording and screenshots as far as they are wanted, under names that begin with the run's id."""
    artifacts = (
        _stable_files(hook, run_id, source, sleep, clock) if options.recording else hook.list_run_artifacts(run_id)
    )
    present = sorted((found for found in artifacts if not found.archived), key=_age)
    found: list[RunFile] = []
    if options.recording:
        recordings = [one for one in present if one.artifact_type == RECORDING]
        readable = [one for one in recordings if _is_readable(one, source)]
        if not recordings:
            log.info("Skyvern run %s has no recording; that of a browser session is not given out.", run_id)
        elif len(readable) < len(recordings):
            log.warning("Skyvern run %s: its recording cannot be read yet, so it is not stored.", run_id)
        found += _named(source, run_id, "recording", readable)
    if options.screenshots:
        found += _named(source, run_id, "screenshot", [one for one in present if one.artifact_type in SCREENSHOTS])
    return found


def _stable_files(
    hook: SkyvernHook, run_id: str, source: Source, sleep: Callable[[float], Any], clock: Callable[[], float]
) -> list[Artifact]:
    """List the artifacts when no recording is about to change any more, as far as that can be known."""
    until = clock() + STABLE_SECONDS
    while True:
        artifacts = hook.list_run_artifacts(run_id)
        recordings = [one for one in artifacts if one.artifact_type == RECORDING]
        if (recordings and all(_is_final(one, source) for one in recordings)) or clock() >= until:
            return artifacts
        sleep(1.0)


def _is_final(recording: Artifact, source: Source) -> bool:
    is_raw = (recording.uri or "").partition("?")[0].endswith(".webm")
    return not is_raw and (recording.archived or _is_readable(recording, source))


def _is_readable(recording: Artifact, source: Source) -> bool:
    """Tell whether a recording is there: Skyvern changes its name to the MP4's before that is stored."""
    try:
        return _extension(source, recording) != ".bin"
    except SkyvernNotFoundError:
        return False


def _named(source: Source, run_id: str, kind: str, artifacts: Sequence[Artifact]) -> list[RunFile]:
    """
    Name artifacts by what they are: neither their type nor the server's header is sure to tell it.

    Some servers send the archive of a step for each of its pictures; of the same archive one is enough.
    """
    found: list[RunFile] = []
    archives: set[str | None] = set()
    for number, artifact in enumerate(artifacts, 1):
        extension = _extension(source, artifact)
        if extension == ".zip" and artifact.uri in archives:
            continue
        archives.add(artifact.uri)
        name = f"{run_id}-{kind}-{number:02d}{extension}" if len(artifacts) > 1 else f"{run_id}-{kind}{extension}"
        found.append(RunFile(name, artifact_id=artifact.artifact_id))
    return found


def _extension(source: Source, artifact: Artifact) -> str:
    start = b""
    with source.open(RunFile(None, artifact_id=artifact.artifact_id)) as incoming:
        for piece in incoming.chunks:
            start += piece
            if len(start) >= 8:  # noqa: PLR2004  enough for every mark
                break
    if start[4:8] == b"ftyp":
        return ".mp4"
    return next((extension for mark, extension in FORMATS.items() if start.startswith(mark)), ".bin")


def _age(artifact: Artifact) -> tuple[int, str]:
    return len(artifact.artifact_id), artifact.artifact_id  # ids count up with time
