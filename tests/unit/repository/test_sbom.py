from __future__ import annotations

from typing import Any

import pytest

from dev.sbom import completed, problems_of


def bom(*licenses: Any, name: str = "thing") -> dict[str, Any]:
    component = {"name": "airflow-provider-skyvern", "type": "library"}
    return {
        "metadata": {"component": component},
        "components": [{"name": name, "version": "1", "licenses": licenses}],
    }


def by_id(*ids: str) -> list[dict[str, Any]]:
    return [{"license": {"id": licence}} for licence in ids]


@pytest.mark.parametrize(
    "licenses",
    [
        by_id("MIT"),
        [{"license": {"name": "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)"}}],
        by_id("GPL-2.0-or-later", "MPL-2.0"),
        [{"license": {"name": "License :: OSI Approved :: BSD License"}}],
        [{"expression": "Apache-2.0 OR GPL-3.0-only"}],
        [{"expression": "MIT AND (PSF-2.0)"}],
    ],
)
def test_a_licence_that_may_be_used_is_no_problem(licenses: list[dict[str, Any]]) -> None:
    assert list(problems_of(bom(*licenses))) == []


@pytest.mark.parametrize(
    ("licenses", "said"),
    [
        (by_id("GPL-3.0-only"), "thing 1: GPL-3.0-only"),
        ([{"expression": "MIT AND AGPL-3.0-only"}], "thing 1: MIT AND AGPL-3.0-only"),
        ([{"license": {"name": "Proprietary"}}], "thing 1: Proprietary"),
        ([], "thing 1: it names no licence"),
    ],
)
def test_any_other_one_is_named_with_its_package(licenses: list[dict[str, Any]], said: str) -> None:
    assert list(problems_of(bom(*licenses))) == [said]


def test_a_licence_that_is_in_a_file_only_is_known() -> None:
    assert list(problems_of(bom(name="protobuf"))) == []


def test_the_list_is_of_this_version() -> None:
    assert completed(bom(), "1.2.3")["metadata"]["component"] == {
        "name": "airflow-provider-skyvern",
        "type": "library",
        "version": "1.2.3",
        "purl": "pkg:pypi/airflow-provider-skyvern@1.2.3",
    }
