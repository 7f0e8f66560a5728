"""What could drift apart: code, metadata, documentation, examples."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest

import airflow_skyvern
from airflow_skyvern import operators
from airflow_skyvern.cli import main
from airflow_skyvern.provider_info import get_provider_info
from dev.airflow_2 import HOMES, for_airflow_2, runs_on_airflow_2
from tests.support.snippets import BLOCKS, DOCUMENTS, as_this_airflow_has_it, example_bag, why_not_here

ROOT = Path(__file__).parents[3]
DAG_FILES = sorted((ROOT / "dags").glob("*.py"))

PACKAGE = ROOT / "airflow_skyvern"

MOST_MODULES, MOST_MOVES = 54, 425
"""Of a deferred run, with a margin: it enters 54, and moves 419 times (on Python 3.13: 422); see architecture.md."""

MODULES_OF_AN_OPERATOR = 37
"""Modules of this package that a DAG file with one operator loads, with a margin of two."""

HARMLESS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.With)

FRESH = {
    "parsing": "from airflow_skyvern.operators import *; from airflow_skyvern.schedules import guard; "
    "import airflow_skyvern.sensors",
    "one operator": "from airflow_skyvern.operators import SkyvernRunWorkflowOperator",
    "discovery": "import airflow_skyvern.provider_info, airflow_skyvern.cli",
}


@pytest.fixture(scope="module", autouse=True)
def fresh() -> Iterator[dict[str, subprocess.Popen[str]]]:
    """Fresh Pythons, at work while the other tests here run; each prints what it has loaded."""
    started = {}
    for name, statement in FRESH.items():
        code = f"import sys; {statement}; sys.stderr.write('\\n'.join(['', *sys.modules]))"
        started[name] = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
    yield started
    for process in started.values():
        process.kill()
        process.wait()


def loaded_by(process: subprocess.Popen[str]) -> set[str]:
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    return set(errors.splitlines())


def test_the_entry_point_leads_to_the_metadata() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    found = re.search(r'\[project\.entry-points\.apache_airflow_provider\]\nprovider_info = "(.+)"', pyproject)
    assert found is not None
    assert EntryPoint("provider_info", found[1], "apache_airflow_provider").load() is get_provider_info
    assert f'name = "{get_provider_info()["package-name"]}"' in pyproject


def test_airflow_finds_a_module_of_the_name_of_the_package() -> None:
    """Airflow 3.3 imports it when it looks for examples, and would log an error with a traceback at each start."""
    module = import_module(get_provider_info()["package-name"].replace("-", "_"))
    assert not hasattr(module, "__path__"), "it would load DAGs from there"


def test_the_console_script_leads_to_the_command_line() -> None:
    (script,) = (found for found in entry_points(group="console_scripts") if found.name == "airflow-skyvern")
    assert script.load() is main


def test_the_changelog_begins_with_this_version() -> None:
    entries = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert entries[0] == airflow_skyvern.__version__


def test_there_is_a_readme() -> None:
    assert (ROOT / "README.md").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("block", BLOCKS)
def test_the_code_in_the_documents_is_code(block: str) -> None:
    """Everything compiles; definitions, imports, DAGs and tasks are executed, what would ask a server is not."""
    if missing := why_not_here(BLOCKS[block]):
        pytest.skip(missing)
    code = as_this_airflow_has_it(BLOCKS[block])
    tree = compile(code, block, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST, dont_inherit=True)
    assert isinstance(tree, ast.Module)
    tree.body = [part for part in tree.body if isinstance(part, HARMLESS) or _makes_a_task(part)]
    exec(compile(tree, block, "exec", dont_inherit=True), {"__name__": "example"})


def _makes_a_task(part: ast.stmt) -> bool:
    return isinstance(part, ast.Expr) and ast.unparse(part).startswith(("SkyvernRunWorkflow", "SkyvernRunSensor"))


def test_the_readme_shows_code() -> None:
    assert any(location.startswith("README.md") for location in BLOCKS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("page", [path.name for path in sorted((ROOT / "docs").glob("*.md"))])
def test_every_page_is_in_the_navigation(page: str) -> None:
    navigation = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
    assert re.search(rf"\b{page}$", navigation, re.MULTILINE), f"add a line for {page} to the nav in mkdocs.yml"


@pytest.mark.slow
@pytest.mark.parametrize("path", DAG_FILES, ids=lambda path: path.name)
def test_every_example_is_a_dag_of_this_airflow(path: Path, tmp_path: Path) -> None:
    assert len(example_bag(path, tmp_path).dags) == 1


@pytest.mark.parametrize("dag_file", DAG_FILES, ids=lambda path: path.name)
def test_every_import_of_an_example_has_a_home_on_airflow_2(dag_file: Path) -> None:
    code = dag_file.read_text()
    if runs_on_airflow_2(code):
        assert "from airflow.sdk" not in for_airflow_2(code)


def test_the_imports_for_airflow_2_are_documented() -> None:
    document = (ROOT / "docs" / "compatibility.md").read_text()
    rows = re.findall(r"^\| `(from airflow\.sdk .+)` \| `(.+)` \|$", document, re.MULTILINE)
    assert len(rows) == len(HOMES)
    assert [for_airflow_2(new) for new, _ in rows] == [old for _, old in rows]


def test_every_example_is_listed() -> None:
    listed = re.findall(r"^\| \[(\w+\.py)\]\(\1\)", (ROOT / "dags" / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == [path.name for path in DAG_FILES]


@pytest.mark.parametrize("path", DAG_FILES, ids=lambda path: path.name)
def test_every_example_is_short_and_says_what_it_shows(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= (100 if path.name == "monthly_statements.py" else 55)  # the complete one


@pytest.mark.slow
def test_parsing_a_dag_loads_neither_the_client_nor_the_models(fresh: dict[str, subprocess.Popen[str]]) -> None:
    loaded = loaded_by(fresh["parsing"])
    assert loaded >= {"airflow_skyvern.operators.run_prompt", "airflow_skyvern.sensors"}
    heavy = ("client", "models", "hooks", "runs", "polling")
    assert not loaded & {f"airflow_skyvern.{name}" for name in heavy}


@pytest.mark.slow
def test_a_dag_file_pays_for_the_operators_that_it_names(fresh: dict[str, subprocess.Popen[str]]) -> None:
    ours = {name for name in loaded_by(fresh["one operator"]) if name.startswith("airflow_skyvern")}
    others = ("operators.run_prompt", "operators.browser_session", "secret_values", "results.contract")
    assert not ours & {f"airflow_skyvern.{name}" for name in others}
    assert len(ours) <= MODULES_OF_AN_OPERATOR


def test_operators_are_imported_by_the_names_that_are_listed() -> None:
    assert all(hasattr(operators, name) for name in operators.__all__)
    with pytest.raises(AttributeError, match=r"'airflow_skyvern.operators' has no attribute 'SkyvernRun'"):
        getattr(operators, "SkyvernRun")  # noqa: B009


def test_discovery_loads_nothing_but_itself(fresh: dict[str, subprocess.Popen[str]]) -> None:
    ours = {name for name in loaded_by(fresh["discovery"]) if name.startswith("airflow")}
    assert ours == {
        "airflow_skyvern",
        "airflow_skyvern.compat",
        "airflow_skyvern.compat.internals",
        "airflow_skyvern.compat.since_3_0",
        "airflow_skyvern.provider_info",
        "airflow_skyvern.cli",
        "airflow_skyvern.checks",  # the options of commands: nothing else is in these modules
        "airflow_skyvern.checks.command",
        "airflow_skyvern.checks.finding",
        "airflow_skyvern.recording",
        "airflow_skyvern.recording.command",
    }


MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.name != "__init__.py"
}


def test_the_map_of_the_architecture_names_each_module() -> None:
    """A module stands beside the name of its package, or alone where it is in none."""
    document = (ROOT / "docs" / "architecture.md").read_text()
    tree = document.partition("```text\nairflow_skyvern/\n")[2].partition("```")[0]
    rooms = re.findall(r"^    (\S.*(?:\n {8,}.*)*)", tree, re.MULTILINE)
    named = set()
    for room in rooms:
        packages = [path.replace("/", ".") for path in re.findall(r"\b([\w/]+)/", room)]
        words = set(re.findall(r"\w+", room))
        named |= {f"{package}.{word}" for package in packages for word in words} | words
    assert sorted(MODULES - named) == []


def test_the_map_of_the_architecture_names_no_module_that_is_gone() -> None:
    document = (ROOT / "docs" / "architecture.md").read_text()
    paths = re.findall(r"`(?:airflow_skyvern/)?(\w+/\w+)\.py`", document)
    packages = {module.partition(".")[0] for module in MODULES}
    ours = {path for path in paths if path.partition("/")[0] in packages}
    assert sorted(path for path in ours if path.replace("/", ".") not in MODULES) == []


@pytest.mark.slow
def test_a_deferred_run_goes_through_few_modules() -> None:
    """Each is read by whoever follows a run; `python -m dev.hops` shows where it goes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    command = [sys.executable, "-m", "dev.hops", "--counts"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=True)
    counts = json.loads(done.stdout.splitlines()[-1])
    assert counts["modules"] <= MOST_MODULES
    assert counts["moves"] <= MOST_MOVES
    assert counts["clients before the start"] == 1
