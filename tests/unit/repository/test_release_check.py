from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dev.release_check import ROOT, Result, Results, state_of, steps

PASSED, FAILED = Result(True, 61.0, "12 passed"), Result(False, 5.0, "1 failed | 11 passed")


@pytest.mark.slow
@pytest.mark.parametrize("step", sorted(set(steps())))
def test_make_knows_every_step(step: str) -> None:
    planned = subprocess.run(
        ["make", "--dry-run", *step.split()], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert planned.returncode == 0, planned.stderr


def test_every_suite_is_among_the_steps() -> None:
    suites = [line.split()[0].removeprefix("suite_") for line in _makefile_lines() if line.startswith("suite_")]
    words = {word for step in steps() for word in step.split()}
    assert {suite for suite in suites if f"SUITE={suite}" not in words} == {"core"}  # in make test without SUITE


def test_a_step_that_passed_is_not_run_again_and_one_that_failed_is(tmp_path: Path) -> None:
    Results(tmp_path, "abc").add("check", PASSED)
    Results(tmp_path, "abc").add("docs", FAILED)
    again = Results(tmp_path, "abc")
    assert again.has_passed("check")
    assert not again.has_passed("docs")
    assert not again.has_passed("dist")


def test_another_commit_begins_anew(tmp_path: Path) -> None:
    Results(tmp_path, "abc").add("check", PASSED)
    assert not Results(tmp_path, "def").has_passed("check")


def test_the_report_names_what_failed_and_what_has_not_run(tmp_path: Path) -> None:
    results = Results(tmp_path, "abc")
    results.add("check", PASSED)
    results.add("docs", FAILED)
    assert results.report(["check", "docs", "dist"]).splitlines()[2:] == [
        "| `check` | passed | 61 | 12 passed |",
        "| `docs` | FAILED | 5 | 1 failed / 11 passed |",
        "| `dist` | not run |  |  |",
    ]


@pytest.mark.slow
def test_a_change_that_is_not_committed_is_another_state(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=x", "-c", "user.email=x@example.com", *arguments], cwd=tmp_path, check=True
        )

    git("init", "--quiet")
    (tmp_path / ".gitignore").write_text(".cache\n")
    (tmp_path / "file").write_text("one")
    git("add", ".")
    git("commit", "--quiet", "--message=first")
    clean = state_of(tmp_path)
    (tmp_path / "file").write_text("two")
    changed = state_of(tmp_path)
    (tmp_path / "new").write_text("")
    assert len({clean, changed, state_of(tmp_path)}) == 3
    (tmp_path / "new").unlink()
    assert state_of(tmp_path) == changed


def _makefile_lines() -> list[str]:
    return (ROOT / "Makefile").read_text().splitlines()
