"""The DAG files of schedules in a folder: found, and written as a whole, so that Airflow never reads half of one."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.schedules.dag_file import DagFile, DagSection, read_file


@dataclass(frozen=True)
class DagFileSlot:
    """Where the DAG of a schedule stands, or will stand."""

    path: Path
    file: DagFile
    block: DagSection | None

    @property
    def untouched(self) -> bool:
        """Whether the file may be written."""
        return not self.file.changed


class DagFolder:
    """
    A folder of DAG files, such as Airflow's.

    :raises SkyvernConfigError: the folder does not exist.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_dir():
            raise SkyvernConfigError(f"The folder {path} does not exist: create it, or use another --dags-folder.")
        self.path = path
        self._planned: dict[Path, str] = {}

    def find_slot(self, schedule_id: str, name: str) -> DagFileSlot:
        """
        Find the file that holds a schedule's DAG; if there is none, the one it will be in.

        :param name: The name of the new file, without its ending.
        """
        for path, file in self._files().items():
            for block in file.blocks:
                if block.schedule_id == schedule_id:
                    return DagFileSlot(path, file, block)
        path = self.path / f"{name}.py"
        return DagFileSlot(path, self._files().get(path) or self._new(path), None)

    @property
    def dag_ids(self) -> set[str]:
        """The ids of the DAGs in these files."""
        return {block.dag_id for file in self._files().values() for block in file.blocks}

    def holds(self, path: Path, text: str) -> bool:
        """Return whether a file is there with this text."""
        return path.exists() and path.read_text() == text

    def plan(self, path: Path, text: str) -> None:
        """Count a file as written that a dry run would write, so that the next one does not get its name."""
        self._planned[path] = text

    def write(self, path: Path, text: str) -> None:
        """Write a file at once and as a whole, under a name that Airflow does not read until then."""
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.stem}.", suffix=".tmp")
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _files(self) -> dict[Path, DagFile]:
        texts = {path: _text(path) for path in sorted(self.path.rglob("*.py"))} | self._planned
        found = {path: read_file(text) for path, text in texts.items()}
        return {path: file for path, file in found.items() if file is not None}

    def _new(self, path: Path) -> DagFile:
        return DagFile((), changed=path.exists())


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
