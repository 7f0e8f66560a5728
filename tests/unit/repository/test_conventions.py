"""What docs/conventions.md says of names, arguments, links and the changelog is so."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
from airflow.providers_manager import ProvidersManager

from airflow_skyvern.checks.airflow_side import PACKAGE
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.provider_info import get_provider_info
from airflow_skyvern.sensors import SkyvernRunSensor

ROOT = Path(__file__).parents[3]
CONVENTIONS = (ROOT / "docs" / "conventions.md").read_text()
NOT_FOR_USERS = re.compile(
    r"`_\w|`?\btests?/|\b(dev|airflow_skyvern)/|\brefactor|\bmodules?\b|\bmypy\b|\bruff\b|\bunit tests?\b|\bfake\b",
    re.IGNORECASE,
)
"""What only a developer knows: names of files, of tools, of what is not public."""


def grouped_arguments() -> list[str]:
    table = CONVENTIONS.partition("## Arguments of the operator")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| [\w' ]+ \| (`.+) \|$", table, re.MULTILINE)
    return [name for row in rows for name in re.findall(r"`(\w+)`", row)]


def keyword_arguments(kind: type) -> list[str]:
    parameters = inspect.signature(kind).parameters.values()
    return [one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY]


def test_the_signature_is_in_the_order_of_the_groups() -> None:
    assert keyword_arguments(SkyvernRunWorkflowOperator) == grouped_arguments()


def test_the_docstring_is_in_the_order_of_the_groups() -> None:
    documented = re.findall(r":param (\w+):", SkyvernRunWorkflowOperator.__doc__ or "")
    assert documented == grouped_arguments()


def test_the_sensor_names_what_it_shares_with_the_operator_in_the_same_order() -> None:
    order = grouped_arguments()
    shared = [name for name in keyword_arguments(SkyvernRunSensor) if name in order]
    assert shared == sorted(shared, key=order.index)


def test_whether_tasks_are_deferred_is_for_airflow_to_say() -> None:
    for kind in (SkyvernRunWorkflowOperator, SkyvernRunSensor):
        assert inspect.signature(kind).parameters["deferrable"].default is False
        source = inspect.getsource(inspect.getmodule(kind) or kind)
        assert 'deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False)' in source


@pytest.mark.slow
@pytest.mark.parametrize(
    "line", [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith(("- ", "  "))]
)
def test_the_changelog_is_for_users(line: str) -> None:
    assert NOT_FOR_USERS.search(re.sub(r"\]\([^)]*\)", "]", line)) is None


def test_airflow_shows_what_the_provider_has() -> None:
    """What ``airflow providers get`` prints."""
    found = ProvidersManager().providers[PACKAGE]
    assert found.data["name"] == "Skyvern"
    assert "`Skyvern <https://www.skyvern.com/>`__" in found.data["description"]
    shown = {key for key, value in found.data.items() if value}
    assert set(get_provider_info()) <= shown


def test_addresses_on_localhost_are_written_down() -> None:
    from airflow_skyvern.compat import internals

    (sentence,) = re.findall(r"^Hosts on localhost are (.+);", CONVENTIONS, re.MULTILINE)
    assert set(re.findall(r"`([^`]+)`", sentence)) == internals.LOCAL_HOSTS


@pytest.mark.parametrize("anchor", sorted(set(re.findall(r"\((?:[\w-]+\.md)?#[\w-]+\)", CONVENTIONS))))
def test_the_rows_lead_to_sections_that_are_there(anchor: str) -> None:
    page, _, name = anchor.strip("()").partition("#")
    text = (ROOT / "docs" / (page or "conventions.md")).read_text()
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    assert name in {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}
