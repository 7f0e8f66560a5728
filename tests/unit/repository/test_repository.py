"""What stands around the package: workflows, hooks before a commit, addresses, and what the package index shows."""

from __future__ import annotations

import re
import shlex
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.release import PENDING, problems_of, publish

ROOT = Path(__file__).parents[3]
MAKEFILE = (ROOT / "Makefile").read_text()
PYPROJECT = (ROOT / "pyproject.toml").read_text()
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
METADATA = (
    "Metadata-Version: 2.4\nName: airflow-provider-skyvern\nVersion: {version}\nProject-URL: Home, {url}\n\n{text}"
)


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def steps(workflow: Path) -> Iterator[dict[str, Any]]:
    for job in yaml.safe_load(workflow.read_text())["jobs"].values():
        yield from job["steps"]


def commands() -> Iterator[str]:
    for workflow in WORKFLOWS:
        yield from (step["run"] for step in steps(workflow) if "run" in step)
    for hook in yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]:
        yield hook["entry"]
    yield from (
        "make " + line for line in re.findall(r"^ *run \d+ ([^#\n]+)", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    )


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_asks_for_no_right_that_it_does_not_need(workflow: Path) -> None:
    content = yaml.safe_load(workflow.read_text())
    assert content["permissions"] == {"contents": "read"}
    assert all({"uses", "run"} & step.keys() for step in steps(workflow))


@pytest.mark.parametrize("command", sorted(set(commands())))
def test_workflows_and_hooks_call_make_or_its_tools(command: str) -> None:
    program, *arguments = shlex.split(re.sub(r"\$\{\{.*?\}\}", "x", command))
    if program == "make":
        assert arguments[0] in targets()
    else:
        assert re.fullmatch(r"\.venvs/airflow-3\.3/bin/\w+", program)
        assert command.replace(".venvs/airflow-3.3", "$(NEWEST)") in MAKEFILE


def test_the_workflow_tests_every_airflow_that_there_are_pins_for() -> None:
    [matrix] = re.findall(r"airflow: (\[.*\])", (ROOT / ".github/workflows/test.yml").read_text())
    pinned = [re.findall(r"^airflow-(\d\.\d+)$", path.stem) for path in (ROOT / "constraints").glob("*.txt")]
    assert sorted(yaml.safe_load(matrix)) == sorted(version for found in pinned for version in found)


def tables(text: str) -> dict[str, Any]:
    tomllib = pytest.importorskip("tomllib", reason="came with Python 3.11")
    loaded: dict[str, Any] = tomllib.loads(text)
    return loaded


@pytest.fixture
def switched(tmp_path: Path) -> Path:
    """The documents and pyproject.toml after `make published OWNER=acme`."""
    (tmp_path / "docs").mkdir()
    for path in (ROOT / "README.md", ROOT / "pyproject.toml", *(ROOT / "docs").glob("*.md")):
        (tmp_path / path.relative_to(ROOT)).write_text(path.read_text())
    assert publish(tmp_path, "acme")
    return tmp_path


@pytest.mark.slow
def test_the_switch_is_turned_once(switched: Path) -> None:
    assert publish(switched, "acme") == []


def test_the_switch_needs_an_account(tmp_path: Path) -> None:
    for wrong in ("", "OWNER", "https://github.com/acme", "a b"):
        with pytest.raises(SystemExit):
            publish(tmp_path, wrong)


def test_a_published_package_is_installed_from_the_index_everywhere(switched: Path) -> None:
    for name in ("README.md", "docs/quickstart.md"):
        text = (switched / name).read_text()
        assert "\npip install airflow-provider-skyvern\n" in text
        assert "pip install ." not in text
    for path in switched.rglob("*.*"):
        assert not PENDING.search(path.read_text()), path
        assert "OWNER" not in path.read_text().replace("OWNER=", ""), path
        assert "not on PyPI" not in path.read_text(), path


def test_a_published_description_links_to_the_repository(switched: Path) -> None:
    text = (switched / "pyproject.toml").read_text()
    urls = tables(text)["project"]["urls"]
    assert urls["Repository"] == "https://github.com/acme/airflow-provider-skyvern"
    links = re.findall(r"^replacement = '.*\((https://.*?)/(?:raw|blob)/main/", text, re.MULTILINE)
    assert links == [urls["Repository"], urls["Repository"]]


def test_until_then_no_reader_meets_an_address_or_a_placeholder() -> None:
    """What is left between comments is what a reader sees."""
    assert "urls" not in tables(PYPROJECT)["project"]
    assert "OWNER" not in re.sub(r"^#.*$", "", PYPROJECT, flags=re.MULTILINE)
    for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md")):
        seen = re.sub(r"<!--.*?-->", "", path.read_text(), flags=re.DOTALL)
        assert "OWNER" not in seen.replace("OWNER=", "")
        assert not re.search(r"pip install [\"']?airflow-provider-skyvern", seen), path


def test_no_other_file_has_the_addresses_of_the_project() -> None:
    address = "github.com/OWNER/airflow-provider-skyvern"
    found = subprocess.run(["git", "grep", "-l", address], capture_output=True, text=True, cwd=ROOT, check=False)
    assert set(found.stdout.split()) <= {"pyproject.toml", "tests/unit/repository/test_repository.py"}


def wheel(
    folder: Path, *, version: str = "1.2.3", url: str = "https://example.org/x", text: str = "", extra: str = ""
) -> Path:
    path = folder / "a.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("airflow_skyvern/__init__.py", "")
        archive.writestr(
            f"airflow_provider_skyvern-{version}.dist-info/METADATA",
            METADATA.format(version=version, url=url, text=text).replace("Project-URL: Home, \n", ""),
        )
        if extra:
            archive.writestr(extra, "")
    return path


CHANGELOG = "# Changes\n\n## 1.2.3 (2026-12-01)\n"


def test_a_release_that_is_complete_has_no_problem(tmp_path: Path) -> None:
    text = "[a](https://example.org/b) [c](#d) ![e](https://example.org/f.png)"
    assert list(problems_of(wheel(tmp_path, text=text), CHANGELOG, "v1.2.3")) == []


@pytest.mark.parametrize(
    ("change", "tag", "problem"),
    [
        ({"text": "[guide](docs/guide.md)"}, None, "the description links to docs/guide.md"),
        ({"text": "![picture](docs/images/a.png)"}, None, "the description links to docs/images/a.png"),
        ({"extra": "tests/test_x.py"}, None, "the wheel holds tests, too"),
        ({}, "v1.2.4", "the tag is v1.2.4, the version 1.2.3"),
        ({"version": "1.3.0"}, "v1.3.0", "no line '## 1.3.0 (YYYY-MM-DD)'"),
        ({"url": "https://github.com/OWNER/x"}, "v1.2.3", "is a placeholder"),
        ({"url": ""}, "v1.2.3", "pyproject.toml has no addresses"),
    ],
)
def test_a_release_that_is_not_complete_is_refused(
    tmp_path: Path, change: dict[str, str], tag: str | None, problem: str
) -> None:
    [found] = problems_of(wheel(tmp_path, **change), CHANGELOG, tag)
    assert problem in found
