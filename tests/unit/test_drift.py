"""What could drift apart: code, metadata, documentation, examples."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import airflow
import pytest

import airflow_skyvern
from airflow_skyvern.provider_info import get_provider_info

ROOT = Path(__file__).parents[2]
AIRFLOW_2 = airflow.__version__.startswith("2.")
DAG_FILES = sorted((ROOT / "dags").glob("*.py"))
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "dags").glob("*.md"))]

WITHOUT_AIRFLOW = "exceptions models run_request api client submission killing waiting provider_info"


def imported_by(statement: str) -> set[str]:
    """Return what a fresh Python has loaded after this statement."""
    code = f"import sys; {statement}; sys.stderr.write('\\n'.join(['', *sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stderr.splitlines())


def test_the_first_layers_do_without_airflow() -> None:
    modules = [f"airflow_skyvern.{name}" for name in WITHOUT_AIRFLOW.split()]
    loaded = imported_by(f"import {', '.join(modules)}")
    assert loaded >= set(modules)
    assert not {name for name in loaded if name == "airflow" or name.startswith("airflow.")}


def test_parsing_a_dag_loads_neither_the_client_nor_the_models() -> None:
    loaded = imported_by("import airflow_skyvern.operators, airflow_skyvern.sensors")
    ours = {name for name in loaded if name.startswith("airflow_skyvern.")}
    assert "airflow_skyvern.operators" in ours
    assert not ours & {f"airflow_skyvern.{name}" for name in ("client", "models", "api", "hooks", "run_request")}


def test_discovery_loads_nothing_but_itself() -> None:
    loaded = imported_by("import airflow_skyvern.provider_info")
    ours = {name for name in loaded if name.startswith("airflow_skyvern")}
    assert ours == {"airflow_skyvern", "airflow_skyvern.provider_info"}


def test_the_entry_point_leads_to_the_metadata() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    found = re.search(r'\[project\.entry-points\.apache_airflow_provider\]\nprovider_info = "(.+)"', pyproject)
    assert found is not None
    assert EntryPoint("provider_info", found[1], "apache_airflow_provider").load() is get_provider_info
    assert f'name = "{get_provider_info()["package-name"]}"' in pyproject


def test_the_changelog_begins_with_this_version() -> None:
    entries = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert entries[0] == airflow_skyvern.__version__


def test_there_is_a_readme() -> None:
    assert (ROOT / "README.md").is_file()


def code_blocks() -> Iterator[tuple[str, str]]:
    for document in DOCUMENTS:
        blocks = re.findall(r"^( *)```python\n(.*?)^ *```", document.read_text(), re.DOTALL | re.MULTILINE)
        for number, (_, block) in enumerate(blocks, 1):
            yield f"{document.relative_to(ROOT)}:{number}", textwrap.dedent(block)


BLOCKS = dict(code_blocks())


@pytest.mark.parametrize("place", BLOCKS)
def test_the_code_in_the_documents_is_code(place: str) -> None:
    """Everything compiles and what it imports is there; what defines a DAG is executed."""
    code = BLOCKS[place]
    if AIRFLOW_2:
        code = re.sub(r"from airflow\.sdk import", "from airflow.providers.common.compat.sdk import", code)
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST
    tree = compile(code, place, "exec", flags=flags)
    assert isinstance(tree, ast.Module)
    if not re.search(r"^with DAG\(", code, re.MULTILINE):
        tree.body = [part for part in tree.body if isinstance(part, ast.Import | ast.ImportFrom)]
    exec(compile(tree, place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), {"__name__": "example"})


def test_the_readme_shows_code() -> None:
    assert any(place.startswith("README.md") for place in BLOCKS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_documents_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("path", DAG_FILES, ids=lambda path: path.name)
def test_every_example_is_a_dag_of_this_airflow(path: Path) -> None:
    if AIRFLOW_2:
        from airflow.models.dagbag import DagBag  # noqa: PLC0415  the place depends on the version
    else:
        from airflow.dag_processing.dagbag import DagBag  # noqa: PLC0415  as above

    bag = DagBag(dag_folder=str(path))
    assert bag.import_errors == {}
    assert len(bag.dags) == 1


def test_every_example_is_listed() -> None:
    listed = re.findall(r"^\| \[(\w+\.py)\]\(\1\)", (ROOT / "dags" / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == [path.name for path in DAG_FILES]


@pytest.mark.parametrize("path", DAG_FILES, ids=lambda path: path.name)
def test_every_example_is_short_and_says_what_it_shows(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text))
    assert len(text.splitlines()) <= 45
