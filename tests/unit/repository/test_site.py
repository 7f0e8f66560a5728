"""The documentation's site, as far as it can be checked without building it; `make docs` does the rest."""

from __future__ import annotations

import pkgutil
import re
from pathlib import Path

import pytest

import airflow_skyvern
from airflow_skyvern import cli, operators
from airflow_skyvern.hooks import SkyvernHook
from dev.site import endpoints
from dev.site.diagrams import BLOCK, IMAGES, image_of
from dev.site.hook_methods import hook_methods
from dev.site.messages import GAP, messages, table, texts

ROOT = Path(__file__).parents[3]
NAV = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]
REFERENCE = "".join(page.read_text() for page in (ROOT / "docs" / "reference").glob("*.md"))

INTERNAL = {
    "durations",
    "limits",
    "cli",  # documented by its own help, and in schedules.md
    "checks",  # check.md
    "compat",
    "connection_list",
    "dag_policy",  # in events.md
    "documentation",
    "credential_cli",  # in logins.md
    "credential_sources",
    "credentials",
    "finished_runs",
    "metrics",
    "plugin",
    "polling",
    "reconciler",
    "provider_info",
    "recording",  # testing.md
    "results",
    "runs",
    "schedules",
    "secret_values",
    "task",
    "traces",
    "ui",
    "workflow_cli",  # documented by its own help, and in workflow-files.md
    "workflow_files",
}


PUBLIC = {found.name for found in pkgutil.iter_modules(airflow_skyvern.__path__)} - INTERNAL


README = (ROOT / "README.md").read_text()
HOME = (ROOT / "docs" / "index.md").read_text()
PAGES = sorted({page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"})


@pytest.mark.parametrize("page", PAGES)
def test_a_reader_of_the_readme_finds_every_page(page: str) -> None:
    assert f"](docs/{page})" in README.partition("## Documentation\n")[2], "name it in the README's list of documents"


@pytest.mark.parametrize(
    "guide", re.findall(r"- ([\w-]+\.md)", NAV.partition("- Guides:\n")[2].partition("\n  - ")[0])
)
def test_home_shows_what_the_product_has(guide: str) -> None:
    assert f"]({guide})" in HOME


@pytest.mark.parametrize("example", [path.stem for path in sorted((ROOT / "dags").glob("*.py"))])
def test_every_example_is_in_the_navigation(example: str) -> None:
    assert f"- examples/{example}.md\n" in NAV, f"add examples/{example}.md to the nav in mkdocs.yml"


@pytest.mark.parametrize("module", sorted({found.name for found in pkgutil.iter_modules(airflow_skyvern.__path__)}))
def test_every_public_module_is_in_the_reference(module: str) -> None:
    shown = bool(re.search(rf"::: airflow_skyvern\.{module}\b", REFERENCE))
    assert shown == (module not in INTERNAL), f"give {module} a page in docs/reference/, or a line in INTERNAL"


def public_names(module: str) -> list[str]:
    """Return what a module offers: its `__all__`, or the functions and classes that are defined there."""
    loaded = pytest.importorskip(f"airflow_skyvern.{module}", reason="of a newer Airflow", exc_type=ImportError)
    own = [name for name, value in vars(loaded).items() if getattr(value, "__module__", "") == loaded.__name__]
    return list(getattr(loaded, "__all__", [name for name in own if not name.startswith("_")]))


WHAT_IS_IN_IT = README.partition("## What is in it\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("name", [name for name in operators.__all__ if name.lower().startswith("skyvern")])
def test_the_readme_names_every_operator(name: str) -> None:
    assert re.search(rf"\b{name}\b", WHAT_IS_IN_IT)


@pytest.mark.parametrize("module", sorted(PUBLIC - {"client", "decorators"}))
def test_the_readme_names_every_public_module(module: str) -> None:
    assert re.search(rf"`{module}\b", WHAT_IS_IN_IT)


@pytest.mark.parametrize("group", [*cli.GROUPS, *cli.SINGLE])
def test_the_readme_names_every_group_of_commands(group: str) -> None:
    assert re.search(rf"`(airflow-skyvern )?{group}`", WHAT_IS_IN_IT)


def in_reference(module: str, name: str) -> bool:
    """Return whether a page shows a module with all of its names, or this name, wherever it is defined."""
    whole = rf"::: airflow_skyvern\.{module}$"
    return bool(re.search(rf"{whole}|::: airflow_skyvern\.{module}\.(\w+\.)*{name}$", REFERENCE, re.MULTILINE))


@pytest.mark.parametrize("module", sorted(PUBLIC - {"agents", "client", "hooks"}))
def test_every_public_name_is_in_the_reference(module: str) -> None:
    """Of `client` the reference shows what users pass, of `hooks` the hook, and of `agents` what that makes."""
    names = public_names(module)
    assert names
    assert [name for name in names if not in_reference(module, name)] == []


def test_every_method_that_the_hook_makes_of_an_endpoint_is_found() -> None:
    names = {name for made in hook_methods() for name in (made.name, made.twin)}
    assert names == {name for name, value in vars(SkyvernHook).items() if hasattr(value, "endpoint")}


@pytest.mark.slow
def test_the_table_of_endpoints_says_what_is_sent() -> None:
    table = endpoints.table()
    assert (
        "| [`get_run`][airflow_skyvern.hooks.SkyvernHook.get_run] | `GET /v1/runs/{run_id}` | "
        "[get-run](https://www.skyvern.com/docs/api-reference/api-reference/workflows/get-run) |"
    ) in table
    assert "`DELETE /v1/workflows/{workflow_id}/schedules/{schedule_id}`" in table
    assert table.count("\n") == 1 + len(list(hook_methods()))


def test_every_diagram_was_drawn() -> None:
    sources = [source for page in (ROOT / "docs").rglob("*.md") for source in BLOCK.findall(page.read_text())]
    assert sources
    drawn = {path.name for path in IMAGES.glob("*.svg")}
    assert drawn == {image_of(source) for source in sources}, "run python -m dev.site.diagrams"


TROUBLESHOOTING = (ROOT / "docs" / "troubleshooting.md").read_text()
OURS = TROUBLESHOOTING.partition("## Then: the message")[2].partition("## Messages of Airflow")[0]
QUOTED = re.findall(r"^\| `([^`]+)` \|", OURS, re.MULTILINE)


@pytest.fixture(scope="module")
def all_texts() -> list[str]:
    return list(texts())


@pytest.mark.slow
@pytest.mark.parametrize("message", QUOTED)
def test_every_message_that_is_explained_is_one_of_the_package(message: str, all_texts: list[str]) -> None:
    """A message may consist of several texts: what the request was, and the advice of its error."""
    parts = [part.strip() for part in message.split(GAP) if part.strip(" .:;()")]
    assert max(map(len, parts)) >= 10
    assert any(all(part in text for part in parts) for text in all_texts), "no text in airflow_skyvern/ holds this"


def test_messages_are_explained_in_rows_of_three() -> None:
    rows = [
        line for line in OURS.splitlines() if line.startswith("| ") and not line.startswith(("| message", "|---"))
    ]
    assert len(rows) == len(QUOTED) >= 40


@pytest.mark.slow
def test_the_table_of_messages_has_what_is_raised_and_logged() -> None:
    found = {message.text: message.kind for message in messages()}
    assert found["the API key is missing; put it into the password field."] == "SkyvernConfigError"
    assert found["The Skyvern connection … sends its API key unencrypted to …: use https."] == "warning in the log"
    assert (
        found["Another try of this task has taken over, so this one starts no Skyvern run."] == "SkyvernStartUnknown"
    )
    assert table().count("\n") == 1 + len(list(messages()))
