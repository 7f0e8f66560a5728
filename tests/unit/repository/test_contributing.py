"""The steps of docs/development.md for contributors, carried out in a copy of the project."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

from airflow_skyvern.client.run_request import RunOptions

ROOT = Path(__file__).parents[3]
GUIDE = Path("docs/guide.md")
OPERATOR = Path("airflow_skyvern/operators/run_workflow.py")
DEVELOPMENT = (ROOT / "docs" / "development.md").read_text()


@dataclass(frozen=True)
class Step:
    """What to write, and into which file."""

    file: Path
    code: str


def steps_of(heading: str) -> list[Step]:
    """Return the steps of a section that have something to write: the first file that a step names, and its block."""
    section = re.split(r"^## ", DEVELOPMENT.split(f"## {heading}\n")[1], flags=re.MULTILINE)[0]
    steps = []
    for text in re.split(r"^\d\. ", section, flags=re.MULTILINE)[1:]:
        files = [name for name in re.findall(r"`([\w/.]+\.(?:py|md))`", text) if (ROOT / name).exists()]
        blocks = re.findall(r"```\w+\n(.*?)```", text, flags=re.DOTALL)
        if blocks:
            steps.append(Step(Path(files[0]), dedent(blocks[0])))
    return steps


ENDPOINT, OPTION = steps_of("Add an endpoint in five steps"), steps_of("Add a run option in two steps")
LOG_LINE = steps_of("Fix a log line in two steps")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The parts of the project that the steps name."""
    for folder in ("airflow_skyvern", "tests", "dev", "docs", "dags"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", "images"))
    for file in ("pyproject.toml", "mkdocs.yml", "README.md"):
        shutil.copy(ROOT / file, tmp_path)
    return tmp_path


def write_after(file: Path, line: str, code: str) -> None:
    """Write code into a file, below the first line that begins so, and as deep as that line."""
    text = file.read_text()
    found = re.search(rf"^( *){re.escape(line)}.*\n", text, flags=re.MULTILINE)
    assert found is not None, f"{file} has no line {line!r}"
    indented = "".join(f"{found[1]}{one}\n" if one else "\n" for one in code.splitlines())
    file.write_text(text[: found.end()] + indented + text[found.end() :])


def append(file: Path, code: str) -> None:
    """Write code at the end of a file, and its imports at the top."""
    imports = [line for line in code.splitlines() if line.startswith("from ")]
    for line in imports:
        write_after(file, "from airflow_skyvern", line)
        code = code.replace(line, "")
    file.write_text(f"{file.read_text()}\n\n{code.strip()}\n")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the copy instead of this project."""
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=folder, env=_environment(folder), capture_output=True, text=True, timeout=300, check=False
    )


def _environment(folder: Path) -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": str(folder), "AIRFLOW_HOME": str(folder / "home")}


def test_the_files_that_the_steps_name_are_there() -> None:
    assert [step.file.name for step in ENDPOINT] == ["resources.py", "browser_api.py", "hooks.py", "test_api.py"]
    assert [step.file.name for step in OPTION] == ["run_request.py", "guide.md"]
    assert [step.file.name for step in LOG_LINE] == ["submission.py", "troubleshooting.md"]


@pytest.mark.slow
def test_an_endpoint_is_added_in_these_steps(copy: Path) -> None:
    model, function, line, row = ENDPOINT
    append(copy / model.file, model.code)
    append(copy / function.file, function.code)
    write_after(copy / line.file, "run_workflow, arun_workflow", line.code)
    test = copy / row.file
    write_after(test, "(api.start_run(REQUEST)", row.code)
    write_after(test, "from airflow_skyvern.client import api", "from airflow_skyvern.client import browser_api")
    tested = run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(row.file), "-k", "list_run_notes or notes")
    assert "\n1 passed" in tested.stdout, tested.stdout + tested.stderr
    code = "from airflow_skyvern.hooks import SkyvernHook as Hook; print(Hook.list_run_notes, Hook.alist_run_notes)"
    assert "_AsyncMethod" in run(copy, "-c", code).stdout
    assert run(copy, "-m", "ruff", "check", "--select", "F", str(function.file), str(line.file)).returncode == 0


def documented(guide: str, operator: str) -> tuple[set[str], set[str]]:
    """Return the options of the guide's table, and those of the operator's docstring."""
    table = guide.split("### run_options")[1].split("\n#", maxsplit=1)[0]
    docstring = operator.split(":param run_options:")[1].split(":param ", maxsplit=1)[0]
    return set(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)), set(re.findall(r"``(\w+)``", docstring))


def test_every_run_option_is_in_the_guide_and_in_the_docstring() -> None:
    in_guide, in_docstring = documented((ROOT / GUIDE).read_text(), (ROOT / OPERATOR).read_text())
    assert in_guide == set(RunOptions.model_fields)
    assert in_docstring == set(RunOptions.model_fields)


@pytest.mark.slow
def test_a_run_option_is_added_in_these_steps(copy: Path) -> None:
    field, row = OPTION
    name = field.code.split(":")[0].strip()
    write_after(copy / field.file, "totp_identifier: Text", field.code)
    code = (
        "from airflow_skyvern.client.run_request import RunRequest; "
        f"print(RunRequest.of({{'workflow_id': 'w', '{name}': True}}).body())"
    )
    assert f"'{name}': True" in run(copy, "-c", code).stdout
    lines = (ROOT / GUIDE).read_text().replace("| `totp_url` |", f"{row.code.strip()}\n| `totp_url` |")
    operator = (ROOT / OPERATOR).read_text().replace("``totp_url``,", f"``totp_url``, ``{name}``,", 1)
    in_guide, in_docstring = documented(lines, operator)
    assert in_guide == in_docstring == {*RunOptions.model_fields, name}


def write_instead(file: Path, words: str, code: str) -> None:
    """Replace the line that has these words, and keep how deep it is."""
    (line,) = [line for line in file.read_text().splitlines() if words in line]
    indent = line[: len(line) - len(line.lstrip())]
    file.write_text(file.read_text().replace(line, f"{indent}{code.strip()}"))


@pytest.mark.slow
def test_a_log_line_is_fixed_in_these_steps(copy: Path) -> None:
    text, row = LOG_LINE
    words = "was not answered: searching for the run"
    quoted = "test_every_message_that_is_explained_is_one_of_the_package"
    check = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/repository/test_site.py", "-k", quoted)
    write_instead(copy / text.file, words, text.code)
    assert "1 failed" in run(copy, *check).stdout
    write_instead(copy / row.file, words, row.code)
    done = run(copy, *check)
    assert done.returncode == 0, done.stdout + done.stderr
    assert run(copy, "-m", "ruff", "check", str(text.file)).returncode == 0
