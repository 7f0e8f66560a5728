"""A copy of the documents, and what is built of them."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "mkdocs.yml", "pyproject.toml", "Makefile")
FOLDERS = ("docs", "dags", "dev", "airflow_skyvern", "benchmarks", "constraints")


@dataclass(frozen=True)
class Copy:
    """The documents in a folder of their own, where a test may change them."""

    folder: Path

    def make_docs(self) -> subprocess.CompletedProcess[str]:
        """Build the site, as a contributor does."""
        command = ["make", "docs"]
        return subprocess.run(
            command, cwd=self.folder, capture_output=True, text=True, check=False, env={"UV": "uv", **os.environ}
        )

    def add(self, path: str, text: str) -> None:
        """Add text to the end of a file, or make one."""
        with (self.folder / path).open("a") as file:
            file.write(text)


def copy_to(folder: Path) -> Copy:
    folder.mkdir(parents=True, exist_ok=True)
    for name in SOURCES:
        shutil.copy2(ROOT / name, folder / name)
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / ".venvs").symlink_to(ROOT / ".venvs")
    return Copy(folder)


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return copy_to(tmp_path / "repository")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site as it is built of this checkout."""
    made = copy_to(tmp_path_factory.mktemp("site") / "repository")
    built = made.make_docs()
    assert built.returncode == 0, built.stderr
    return made.folder / "site"
