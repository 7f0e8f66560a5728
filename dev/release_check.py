"""
`make release-check`: every suite on every version, one after the other; hours.

A step that passed is not run again while its files are the same, so an interrupted check goes on where it stopped,
a failed one with what failed. Its files are all that git does not ignore, but documents and tests only where the
step reads them. The report, `.cache/release-check/report.md`, has the last line and the seconds of each step.
The exit status is 1 while a step has failed or is missing.

Settings: STEPS (a part of the steps' names, such as `faults` or `AIRFLOW=2.11`), LIST=1 (run nothing, print the
report).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dev.constraints import SKYVERN

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache" / "release-check"

AIRFLOWS = ("3.3", "3.2", "3.1", "3.0", "2.11")
WITH_A_RUN_PAGE = ("3.3", "3.2", "3.1")
WITH_TASK_TRACES = ("3.3", "3.2")
WITH_EVENTS = ("3.3", "3.0")
PYTHONS = ("3.10", "3.12", "3.13")
"""The Pythons that this package allows besides the one that the pins are made for."""
SEEDS = (21, 22)

UNIT_TESTS = ("check", "SUITE=unit", "test AIRFLOW=")
"""Parts of the names of the steps that run the unit tests."""

READ_DOCUMENTS = (*UNIT_TESTS, "docs", "snippets", "site", "installs", "browser")
"""Parts of the names of the steps that read the documents."""

READ_BY = {
    "run_page": ("SUITE=pages",),
    "system": ("SUITE=servers", "SUITE=ticks", "SUITE=snippets"),
    "contract": ("SUITE=contract", "SUITE=servers AIRFLOW=3.3"),
    "kit": (),
    "unit": (),
}
"""Folders of tests, and parts of the names of the steps that run them; others are named as their suite is."""

SHARED = frozenset({"support", "faults", "dags"})
"""Folders among the tests that serve several suites."""

READ_BY_UNIT_TESTS = frozenset({"dev/release_check.py", "dev/hops.py"})
"""Tools that only the unit tests run, and no step else."""

OF_THE_OUTER_MAKE = frozenset({"MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "STEPS", "LIST"})
"""Variables of the environment that a step's own make must not inherit."""


def steps() -> Iterator[str]:
    """Yield the arguments of make for each step, the quick ones first."""
    yield "check"
    yield "docs"
    yield "sbom"
    for airflow in ("lowest", "newest"):
        yield f"test SUITE=unit AIRFLOW={airflow}"
    for python in PYTHONS:
        yield f"test SUITE=unit PYTHON={python}"
    for airflow in AIRFLOWS:
        yield f"test AIRFLOW={airflow}"
        yield f"test SUITE=servers AIRFLOW={airflow}"
        yield f"test SUITE=stalls AIRFLOW={airflow}"
    yield from (f"test SUITE=contract SKYVERN={version}" for version in SKYVERN)
    yield "demo"
    yield "test SUITE=stores"
    for suite in ("pages", "approvals"):
        for airflow in WITH_A_RUN_PAGE:
            yield f"test SUITE={suite} AIRFLOW={airflow}"
    yield from (f"test SUITE=events AIRFLOW={airflow}" for airflow in WITH_EVENTS)
    for suite in ("browser", "ticks", "orphans", "backends", "sessions", "two_airflows", "upgrade"):
        for airflow in ("3.3", "2.11"):
            yield f"test SUITE={suite} AIRFLOW={airflow}"
    yield from (f"test SUITE=traces AIRFLOW={airflow}" for airflow in WITH_TASK_TRACES)
    yield "test SUITE=teams"
    yield "test SUITE=distributed"
    yield "test SUITE=agents"
    yield "test SUITE=snippets"
    yield "test SUITE=site"
    yield "test SUITE=installs ALL=1"
    for airflow in ("3.3", "2.11"):
        for seed in SEEDS:
            yield f"faults SEED={seed} AIRFLOW={airflow}"
    yield f"faults SEED={SEEDS[0]} DURABLE=0"
    yield "bench N=1000 PEERS=databricks"


@dataclass(frozen=True)
class Result:
    """How a step ended, on which files."""

    passed: bool
    seconds: float
    last_line: str
    files: str


class Results:
    """
    The newest results of the steps, kept in a file.

    :param files: Returns what names the files of a step.
    """

    def __init__(self, folder: Path, files: Callable[[str], str]) -> None:
        self._folder = folder
        self._folder.mkdir(parents=True, exist_ok=True)
        self._files = files
        self._file = self._folder / "results.json"
        stored = json.loads(self._file.read_text()) if self._file.exists() else {}
        self._by_step = {step: Result(**result) for step, result in stored.items()}

    def of(self, step: str) -> Result | None:
        """Return the result of a step on the files as they are."""
        result = self._by_step.get(step)
        return result if result is not None and result.files == self._files(step) else None

    def has_passed(self, step: str) -> bool:
        """Return whether the step has passed already."""
        return (result := self.of(step)) is not None and result.passed

    def add(self, step: str, *, passed: bool, seconds: float, last_line: str) -> Result:
        """Keep the result of a step, also if this process is killed next."""
        self._by_step[step] = result = Result(passed, seconds, last_line, self._files(step))
        written = {name: vars(one) for name, one in self._by_step.items()}
        unfinished = self._file.with_suffix(".tmp")
        unfinished.write_text(json.dumps(written, indent=1))
        unfinished.replace(self._file)
        return result

    def log_of(self, step: str) -> Path:
        """Return the file for the output of a step."""
        return self._folder / (step.replace(" ", ",") + ".log")

    def report(self, wanted: list[str]) -> str:
        """Return a table of the steps and their results."""
        rows = ["| make | result | seconds | last line |", "|---|---|---|---|"]
        for step in wanted:
            result = self.of(step)
            outcome = "not run" if result is None else "passed" if result.passed else "FAILED"
            seconds, line = (f"{result.seconds:.0f}", result.last_line) if result else ("", "")
            rows.append(f"| `{step}` | {outcome} | {seconds} | {line.replace('|', '/')} |")
        return "\n".join(rows)


def files_of(root: Path) -> Callable[[str], str]:
    """Return what names the files of a step in a checkout, as they are now."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=root, check=True, env=environment, capture_output=True, text=True
        )
        return done.stdout.strip()

    (root / ".cache").mkdir(exist_ok=True)
    environment = {**os.environ, "GIT_INDEX_FILE": str(root / ".cache" / "release-check.index")}
    git("add", "--all")
    listed = git("ls-tree", "-r", git("write-tree")).splitlines()

    def of_step(step: str) -> str:
        lines = (line for line in listed if _reads(step, line.split("\t")[1]))
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()

    return of_step


def _reads(step: str, path: str) -> bool:
    parts = path.split("/")
    readers: tuple[str, ...]
    if path in READ_BY_UNIT_TESTS:
        readers = UNIT_TESTS
    elif parts[0] == "benchmarks":
        readers = (*UNIT_TESTS, "bench")
    elif parts[0] == "tests" and len(parts) > 2 and not SHARED & set(parts):
        readers = (*UNIT_TESTS, *READ_BY.get(parts[1], (f"SUITE={parts[1]}",)))
    elif parts[0] == "docs" or (len(parts) == 1 and path.endswith(".md")):
        readers = READ_DOCUMENTS
    else:
        return True
    return any(part in step for part in readers)


def run(step: str, results: Results) -> Result:
    """Run a step; its output goes into a file."""
    log = results.log_of(step)
    begun = time.monotonic()
    environment = {name: value for name, value in os.environ.items() if name not in OF_THE_OUTER_MAKE}
    with log.open("w") as output:
        ended = subprocess.run(
            ["make", *step.split()],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    seconds, last_line = time.monotonic() - begun, lines[-1][:200] if lines else ""
    return results.add(step, passed=ended.returncode == 0, seconds=seconds, last_line=last_line)


def main() -> int:
    part = os.environ.get("STEPS", "")
    wanted = [step for step in steps() if part in step]
    results = Results(CACHE, files_of(ROOT))
    for step in wanted:
        if os.environ.get("LIST") or results.has_passed(step):
            continue
        print(f"=== make {step}", flush=True)
        result = run(step, results)
        outcome = "ok" if result.passed else f"FAILED, see {results.log_of(step)}"
        print(f"=== make {step}: {outcome}, {result.seconds:.0f} s: {result.last_line}", flush=True)
    report = results.report(wanted)
    (CACHE / "report.md").write_text(report + "\n")
    print(report)
    return 0 if all(results.has_passed(step) for step in wanted) else 1


if __name__ == "__main__":
    sys.exit(main())
