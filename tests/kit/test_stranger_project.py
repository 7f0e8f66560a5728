"""What docs/testing.md shows, as the files of a project that has nothing else, in a pytest of its own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.snippets import BLOCKS, as_this_airflow_has_it

PAGE = [as_this_airflow_has_it(code) for location, code in BLOCKS.items() if location.startswith("docs/testing.md:")]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """Run the tests of the page on two processes, with a home and a proxy that no test may touch."""
    project = tmp_path_factory.mktemp("project")
    (project / "conftest.py").write_text(PAGE[0])
    (project / "pytest.ini").write_text("[pytest]\n")
    (project / "test_page.py").write_text("\n".join(PAGE[1:]))
    (project / "test_own.py").write_text(OWN)
    own = {"HOME": str(project), "HTTP_PROXY": "http://192.0.2.1:3128", "PYTHONPATH": "", "PATH": os.environ["PATH"]}
    return subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n",
            "2",
            "--dist",
            "loadfile",
            "--durations=0",
            "-W",
            "error::pytest.PytestWarning",
        ],
        cwd=project,
        env=own,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )


OWN = """
from pathlib import Path

import airflow.settings


def test_what_is_not_foreseen_fails(skyvern):
    import test_page

    assert airflow.settings.engine.url.database.endswith("airflow0/airflow.db")
    assert test_page.dag.test().state == "failed"


def test_a_test_without_the_fixture_is_left_alone():
    assert "airflow-home-of-tests-" in airflow.settings.engine.url.database
    assert not (Path.home() / "airflow").exists()
"""
"""One test that the kit fails, and behind it one that does not use it."""


@pytest.mark.slow
def test_the_tests_of_the_page_pass_and_one_is_failed_by_the_kit(outcome: subprocess.CompletedProcess[str]) -> None:
    assert len(PAGE) > 3
    assert "6 passed" in outcome.stdout, outcome.stdout[-3000:] + outcome.stderr[-1000:]
    assert "1 error" in outcome.stdout
    assert "Skyvern, as the test has it:" in outcome.stdout
    assert "wpid_123" in outcome.stdout
