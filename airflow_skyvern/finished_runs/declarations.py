"""
How the DAG files make the asset of a workflow's runs: they have to agree, or a file is refused.

Airflow reads watchers from each DAG file that names an asset, and the file that is parsed last replaces the watcher
of the others. Files that disagree would do that to each other with every parse, and each new watcher may hand over
runs again. Airflow shows nobody that this happens, so :func:`declare` makes it an import error of the second file.

A DAG processor parses each file in a process of its own. What the files say crosses over in small files below
``AIRFLOW_HOME``; where that cannot be written, each file is compared with itself. In any other process the files of a
folder are compared, as two folders may belong to two Airflows.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

from airflow_skyvern.compat import internals, since_3_0
from airflow_skyvern.exceptions import SkyvernConfigError

log = logging.getLogger(__name__)

VALID_SECONDS = 600.0
"""How long a file that is not parsed again counts: it may have been moved, or be ignored by now."""


@dataclass(frozen=True)
class Declaration:
    """
    A line of a DAG file that makes an asset.

    :param content: Hash of the file: once it has changed, this line may not be there any more.
    :param since: When the file began to say so; of two files the later one is refused.
    :param parsed_at: When it was last found there.
    """

    file: str
    line: int
    arguments: dict[str, Any]
    content: str
    since: float
    parsed_at: float

    @property
    def location(self) -> str:
        """The line, for messages."""
        return f"{self.file}, line {self.line}"

    def is_beside(self, other: Declaration) -> bool:
        """Return whether both files are in one folder."""
        return Path(self.file).parent == Path(other.file).parent

    @property
    def is_valid(self) -> bool:
        """Whether the file still is what was parsed, not long ago."""
        return time.time() - self.parsed_at < VALID_SECONDS and self.content == _content(self.file)


_DECLARED: dict[str, dict[str, Declaration]] = {}
"""What this process has parsed: by asset, then by file."""

_PARSES: dict[str, dict[str, Any]] = {}
"""The names of the last module that was made of each file: a process may parse a file again."""


def declare(uri: str, arguments: Mapping[str, Any]) -> None:
    """
    Note how the DAG file that is being parsed makes an asset.

    :raises SkyvernConfigError: another line of it, or another file that was parsed before, makes it differently.
    """
    if (found := _dag_file()) is None:
        return
    file, line, names = found
    known = _DECLARED.setdefault(uri, {})
    now = time.time()
    made = Declaration(file, line, dict(arguments), _content(file), now, now)
    before = known.get(file)
    if before is not None and before.arguments != made.arguments and _PARSES.get(file) is names:
        raise _refused(uri, made, before)
    _PARSES[file] = names
    folder = _folder(uri)
    others = _written(folder) or {other.file: other for other in known.values() if other.is_beside(made)}
    before = others.pop(file, before)
    if before is not None and before.arguments == made.arguments:
        made = replace(made, since=before.since)
    known[file] = made
    _write(folder, made)
    for other in others.values():
        if other.arguments != made.arguments and other.since <= made.since and other.is_valid:
            raise _refused(uri, made, other)


def _refused(uri: str, made: Declaration, other: Declaration) -> SkyvernConfigError:
    names = [name for name in made.arguments if made.arguments[name] != other.arguments.get(name)]
    if "watch" in names:
        names = ["watch"]
    here, there = (_named(names, declaration.arguments) for declaration in (made, other))
    return SkyvernConfigError(
        f"The DAG files disagree about the asset {uri}: {here} in {made.location}; {there} in {other.location}. "
        "Airflow would replace one's watcher by the other's at each parse, and runs would be handed over again. Call "
        "skyvern_runs with the same arguments everywhere, best in one module that the DAG files import."
    )


def _named(names: list[str], arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={arguments.get(name)!r}" for name in names)


def _dag_file() -> tuple[str, int, dict[str, Any]] | None:
    """Return file, line and names of the DAG file that is being loaded, or None in any other code."""
    # inspect.stack() would read every source file on the way.
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001
    while frame is not None:
        if internals.is_dag_file(frame.f_globals.get("__name__", "")):
            return frame.f_code.co_filename, frame.f_lineno, frame.f_globals
        frame = frame.f_back
    return None


def _content(file: str) -> str:
    try:
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()
    except OSError:  # gone, or inside a zip file
        return ""


def _folder(uri: str) -> Path | None:
    """Return where the processes of a DAG processor share what the files say of an asset; None in other processes."""
    if not since_3_0.in_dag_processor():
        return None
    return Path(internals.airflow_home()) / "skyvern_assets" / _short(uri)


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _written(folder: Path | None) -> dict[str, Declaration]:
    return {} if folder is None else {found.file: found for found in _read(folder)}


def _read(folder: Path) -> Iterator[Declaration]:
    for path in folder.glob("*.json"):
        try:
            found = Declaration(**json.loads(path.read_text()))
            if time.time() - found.parsed_at > VALID_SECONDS:
                path.unlink()
        except (OSError, ValueError, TypeError):  # removed meanwhile, or of another version of this package
            continue
        yield found


def _write(folder: Path | None, made: Declaration) -> None:
    if folder is None:
        return
    path = folder / f"{_short(made.file)}.json"
    draft = path.with_suffix(f".{os.getpid()}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        draft.write_text(json.dumps(asdict(made)))
        draft.replace(path)
    except OSError as error:
        log.debug("%s is not compared with the other DAG files: %s", made.file, error)
