"""Two versions of this package, each installed from its wheel into an environment beside Airflow's."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from airflow_skyvern import __version__

ROOT = Path(__file__).parents[2]
UV = os.environ.get("UV", "uv")

LATER_STORES = {
    "triggers/run.py": """
_stored_by_0_1 = SkyvernRunTrigger.stored
def _stored_later(self, kwargs):
    path, kwargs = _stored_by_0_1(self, kwargs)
    return path, {**kwargs, "of_a_later_version": {"some": ["thing"]}}
_init_of_0_1 = SkyvernRunTrigger.__init__
def _init_later(self, *args, of_a_later_version=None, **kwargs):
    _init_of_0_1(self, *args, **kwargs)
SkyvernRunTrigger.stored = _stored_later
SkyvernRunTrigger.__init__ = _init_later
""",
    "task/deferral.py": """
_note_of_0_1 = note_of_run
def note_of_run(*args, **kwargs):
    return {**_note_of_0_1(*args, **kwargs), "of_a_later_version": True}
""",
    "operators/lifecycle.py": """
_defer_of_0_1 = RunLifecycle.defer
def _defer_later(self, *, kwargs=None, **more):
    return _defer_of_0_1(self, kwargs={**(kwargs or {}), "of_a_later_version": True}, **more)
RunLifecycle.defer = _defer_later
""",
}
"""What a later version may store beside, as code at the end of its modules."""


def run(*command: str | Path) -> str:
    """Run a command and return what it prints."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def last_released(changelog: str) -> str | None:
    """Return the newest version in the changelog that has a date and is not the one at work."""
    versions: list[str] = re.findall(r"(?m)^## (\S+) \(\d{4}-\d\d-\d\d\)$", changelog)
    return next((version for version in versions if version != __version__), None)


def environment(folder: Path, what: Sequence[str | Path]) -> Path:
    """
    Make an environment with Airflow and one version of this package, and return the folder of its commands.

    It finds Airflow where the tests have it, and this package in its own folder.
    """
    run(UV, "venv", "--quiet", "--python", sys.executable, folder)
    copied = ("--link-mode", "copy")  # not a link to what the other environment has, too: its files are changed
    run(UV, "pip", "install", "--quiet", "--no-deps", *copied, "--python", folder, *what)
    site = installed(folder).parent
    (site / "airflow.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def installed(folder: Path) -> Path:
    """Return where an environment has this package."""
    [found] = folder.glob("lib/python*/site-packages/airflow_skyvern")
    return found


def older(folder: Path, wheel: Path) -> Path:
    """Make the environment of the last released version; before there is one, of this version."""
    released = last_released((ROOT / "CHANGELOG.md").read_text())
    return environment(folder, [f"airflow-provider-skyvern=={released}" if released else wheel])


def newer(folder: Path, wheel: Path) -> Path:
    """Make the environment of this version, which also stores what nothing of it knows."""
    commands = environment(folder, [wheel])
    for name, code in LATER_STORES.items():
        module = installed(folder) / name
        module.write_text(module.read_text() + code)
    return commands


def built(folder: Path) -> Path:
    """Build the wheel of this version."""
    run(UV, "build", "--quiet", "--wheel", "--out-dir", folder, ROOT)
    [wheel] = folder.glob("*.whl")
    return wheel
