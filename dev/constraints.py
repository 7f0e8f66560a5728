"""Resolve `constraints/*.txt`: one pinned environment per Airflow version, one for the Skyvern server, one for the
benchmark, one for the documentation.

Run by `make constraints` (`python -m dev.constraints [NAME ...]`), with `uv` on PATH or named by $UV.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
FOLDER = REPO / "constraints"
PYTHON_VERSION = "3.11"
AIRFLOW = {"2.11": "2.11.2", "3.1": "3.1.8", "3.3": "3.3.2"}
NEWEST = "3.3"
SKYVERN = "skyvern[server]==1.0.56"


def compile_pins(name: str, requirements: str, *sources: str) -> None:
    """Resolve `requirements` (lines) and `sources` (uv arguments) into constraints/<name>.txt."""
    target = FOLDER / f"{name}.txt"
    options = ["--python-version", PYTHON_VERSION, "--no-emit-index-url", "--no-annotate", "--upgrade"]
    header = ["--custom-compile-command", "make constraints", "--output-file", str(target), "--quiet"]
    command = [os.environ.get("UV", "uv"), "pip", "compile", *options, *header, *sources, "-"]
    print(f"{target.relative_to(REPO)}: {requirements.strip()}", flush=True)
    subprocess.run(command, input=requirements, text=True, check=True, cwd=REPO)


def main(names: list[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    for short, version in AIRFLOW.items():
        name = f"airflow-{short}"
        if not names or name in names:
            compile_pins(name, f"apache-airflow=={version}\n", "pyproject.toml", "--group", "dev", "--group", "test")
    if not names or "bench" in names:
        compile_pins("bench", f"apache-airflow=={AIRFLOW[NEWEST]}\n", "pyproject.toml", "--group", "bench")
    if not names or "docs" in names:
        compile_pins("docs", "", "--group", "docs")
    if not names or "skyvern" in names:
        compile_pins("skyvern", f"{SKYVERN}\nimageio-ffmpeg\n")


if __name__ == "__main__":
    main(sys.argv[1:])
