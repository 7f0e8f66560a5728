from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from dev.release_check import READ_BY, ROOT, SHARED, Results, files_of, steps

PASSED: dict[str, Any] = {"passed": True, "seconds": 61.0, "last_line": "12 passed"}
FAILED: dict[str, Any] = {"passed": False, "seconds": 5.0, "last_line": "1 failed | 11 passed"}


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


def results(folder: Path, files: str = "as they are") -> Results:
    return Results(folder, lambda step: files)


def test_a_step_that_passed_is_not_run_again_and_one_that_failed_is(tmp_path: Path) -> None:
    results(tmp_path).add("check", **PASSED)
    results(tmp_path).add("docs", **FAILED)
    again = results(tmp_path)
    assert again.has_passed("check")
    assert not again.has_passed("docs")
    assert not again.has_passed("dist")


def test_other_files_begin_anew(tmp_path: Path) -> None:
    results(tmp_path, "one").add("check", **PASSED)
    assert not results(tmp_path, "two").has_passed("check")
    assert "| `check` | not run |" in results(tmp_path, "two").report(["check"])


def test_the_report_names_what_failed_and_what_has_not_run(tmp_path: Path) -> None:
    found = results(tmp_path)
    found.add("check", **PASSED)
    found.add("docs", **FAILED)
    assert found.report(["check", "docs", "dist"]).splitlines()[2:] == [
        "| `check` | passed | 61 | 12 passed |",
        "| `docs` | FAILED | 5 | 1 failed / 11 passed |",
        "| `dist` | not run |  |  |",
    ]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    files = {".gitignore": ".cache\n", "file": "one", "README.md": "one", "docs/page.md": "one", "dags/a.md": "one"}
    tests = ("unit/test_one.py", "system/conftest.py", "faults/run.py", "teams/test_teams.py", "teams/dags/one.py")
    files |= {f"tests/{name}": "one" for name in tests}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("step", ["check", "test SUITE=contract SKYVERN=1.0.48"])
def test_a_step_is_run_again_for_any_change_committed_or_not(checkout: Path, step: str) -> None:
    def of_step() -> str:
        return files_of(checkout)(step)

    before = of_step()
    subprocess.run(["git", "add", "."], cwd=checkout, check=True)
    assert of_step() == before
    (checkout / "file").write_text("two")
    changed = of_step()
    (checkout / "new").write_text("")
    assert len({before, changed, of_step()}) == 3
    (checkout / "new").unlink()
    assert of_step() == changed
    (checkout / "dags" / "a.md").write_text("two")  # belongs to an example
    assert of_step() != changed


DOCUMENTS_READ = {"docs", "test SUITE=snippets", "test SUITE=site", "test SUITE=browser AIRFLOW=3.3"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "again"),
    [
        ("README.md", DOCUMENTS_READ),
        ("docs/page.md", DOCUMENTS_READ),
        ("tests/unit/test_one.py", set()),
        ("tests/system/conftest.py", {"test SUITE=servers AIRFLOW=3.0", "test SUITE=snippets"}),
        ("tests/teams/test_teams.py", {"test SUITE=teams"}),
    ],
)
def test_only_steps_that_read_a_file_are_run_again_for_it(checkout: Path, path: str, again: set[str]) -> None:
    before = files_of(checkout)
    (checkout / path).write_text("two")
    after = files_of(checkout)
    changed = {step for step in steps() if before(step) != after(step)}
    assert changed >= {"check", "test SUITE=unit PYTHON=3.10", "test AIRFLOW=3.3", *again}
    one_of_each = {
        *DOCUMENTS_READ,
        "test SUITE=servers AIRFLOW=3.0",
        "faults SEED=21 AIRFLOW=2.11",
        "test SUITE=teams",
    }
    assert changed & one_of_each == again & one_of_each
    assert "test SUITE=contract SKYVERN=1.0.48" not in changed


@pytest.mark.slow
@pytest.mark.parametrize("path", ["tests/teams/dags/one.py", "tests/faults/run.py"])
def test_what_serves_several_suites_may_be_read_by_every_step(checkout: Path, path: str) -> None:
    before = files_of(checkout)
    (checkout / path).write_text("two")
    after = files_of(checkout)
    assert not [step for step in steps() if before(step) == after(step)]


def test_a_suite_imports_the_modules_of_another_only_where_its_steps_are_run_again_for_them() -> None:
    strange = [
        f"{path.relative_to(ROOT)} imports tests.{suite}"
        for path in (*ROOT.glob("tests/**/*.py"), *ROOT.glob("dev/**/*.py"))
        for folder in [path.relative_to(ROOT).parts[1]]
        for suite in re.findall(r"^\s*(?:from|import) tests\.(\w+)", path.read_text(), re.MULTILINE)
        if folder not in {suite, "unit", "kit"} and suite not in SHARED
        if f"SUITE={folder}" not in READ_BY.get(suite, ())
    ]
    assert strange == []


def _makefile_lines() -> list[str]:
    return (ROOT / "Makefile").read_text().splitlines()
