"""What the command prints that tries a new Skyvern."""

from __future__ import annotations

from typing import Any

import pytest

from dev import new_skyvern

OLD: dict[str, Any] = {
    "paths": {
        "/v1/runs": {
            "get": {
                "parameters": [
                    {"in": "query", "name": "status", "schema": {"anyOf": [{"items": {"enum": ["failed"]}}]}},
                    {"in": "query", "name": "page", "schema": {"maximum": 100}},
                ],
                "responses": {"200": {}},
            },
            "parameters": [],
        },
        "/v1/old": {"post": {}},
    },
    "components": {"schemas": {"Run": {"properties": {"run_id": {}, "title": {}}, "required": ["run_id"]}}},
}
STATUSES = ["failed", "paused"]
NEW: dict[str, Any] = {
    "paths": {
        "/v1/runs": {
            "get": {
                "parameters": [
                    {
                        "in": "query",
                        "name": "status",
                        "schema": {"anyOf": [{"items": {"enum": ["failed", "paused"]}}]},
                    },
                    {"in": "query", "name": "page", "schema": {"maximum": 50}},
                    {"in": "query", "name": "tags", "required": True},
                ],
                "responses": {"200": {}, "503": {}},
            },
        },
    },
    "components": {"schemas": {"Run": {"properties": {"run_id": {}, "title": {}}, "required": ["run_id", "title"]}}},
}


def test_every_kind_of_change_is_a_line() -> None:
    assert new_skyvern.changes(OLD, NEW) == [
        "+ GET /v1/runs: answers 503",
        "- GET /v1/runs: query page: maximum 100",
        "+ GET /v1/runs: query page: maximum 50",
        "+ GET /v1/runs: query status: may be 'paused'",
        "+ GET /v1/runs: query tags (required)",
        "- POST /v1/old",
        "- schema Run.title",
        "+ schema Run.title (required)",
    ]
    assert new_skyvern.changes(NEW, NEW) == []


def test_only_tests_that_do_not_pass_are_told_with_what_they_say() -> None:
    report = """<testsuites><testsuite>
    <testcase name="test_a[real]"/>
    <testcase name="test_b[real]"><failure message="assert 1 == 2&#10;more">long</failure></testcase>
    <testcase name="test_c"><skipped type="pytest.xfail" message="lacks"/></testcase>
    <testcase name="test_d"><error message="no server"/></testcase>
    </testsuite></testsuites>"""
    assert new_skyvern.read_results(report) == (2, ["test_b[real]: assert 1 == 2", "test_d: no server"])


@pytest.mark.parametrize("arguments", [[], ["1.0.57", "1.0.58"]])
def test_a_version_has_to_be_given(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert new_skyvern.main(arguments) == 2
    assert "make new-skyvern VERSION=" in capsys.readouterr().err
