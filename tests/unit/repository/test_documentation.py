"""Messages lead to the documentation's address, and to a section that is there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_skyvern.documentation import documentation

ROOT = Path(__file__).parents[3]
CALL = re.compile(r'\bdocumentation\(\s*"([\w-]+)",\s*"([^"]+)"\s*\)')
CALLS = [call for path in (ROOT / "airflow_skyvern").rglob("*.py") for call in CALL.findall(path.read_text())]


def installed(folder: Path, urls: str) -> None:
    info = folder / "airflow_provider_skyvern-9.9.9.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: airflow-provider-skyvern\nVersion: 9.9.9\n{urls}\n")


def test_a_published_package_gives_the_address_of_the_section(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path, "Project-URL: Documentation, https://acme.github.io/x/\nProject-URL: Issues, https://y")
    monkeypatch.syspath_prepend(tmp_path)
    assert documentation("schedules", "Clock changes") == "https://acme.github.io/x/schedules.html#clock-changes"


def test_one_without_an_address_names_the_section(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed(tmp_path, "")
    monkeypatch.syspath_prepend(tmp_path)
    assert (
        documentation("schedules", "Clock changes") == '"Clock changes" on the page "schedules" of the documentation'
    )


@pytest.mark.parametrize(("page", "heading"), sorted(set(CALLS)))
def test_the_section_that_a_message_names_is_there(page: str, heading: str) -> None:
    assert re.search(rf"^#+ {re.escape(heading)}$", (ROOT / "docs" / f"{page}.md").read_text(), re.MULTILINE)


def strings(path: Path) -> Iterator[str]:
    """Yield the texts in a module, without docstrings."""
    tree = ast.parse(path.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


@pytest.mark.slow
def test_no_message_leads_to_a_path_of_the_repository() -> None:
    assert CALLS
    found = [text for path in (ROOT / "airflow_skyvern").rglob("*.py") for text in strings(path)]
    assert [text for text in found if re.search(r"\b[\w-]+\.md\b|\b(docs|dags|tests)/\w+\.\w+", text)] == []
