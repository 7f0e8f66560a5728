"""What Skyvern's API describes, as recorded, has a method of the hook or a reason to have none."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from dev.constraints import SKYVERN
from dev.site import described, endpoint_users, endpoints

ROOT = Path(__file__).parents[3]
OPERATIONS = described.recorded()["operations"]


def test_each_endpoint_that_skyvern_describes_has_a_method_or_a_reason() -> None:
    assert described.recorded()["version"] == SKYVERN[-1]
    assert len(OPERATIONS) >= 90
    assert endpoints.without_method(OPERATIONS) == set()


def test_an_endpoint_that_a_newer_server_brings_is_noticed() -> None:
    assert endpoints.without_method([*OPERATIONS, "POST /v1/runs/{}/explain"]) == {"POST /v1/runs/{}/explain"}


def test_no_reason_is_given_for_what_has_a_method_or_is_not_there() -> None:
    without = [one for one in OPERATIONS if one not in endpoints.requests()]
    needless = [begin for begin in endpoints.LEFT_OUT if not any(one.partition(begin)[1] for one in without)]
    assert needless == []


@pytest.mark.slow
def test_every_method_is_in_the_table_with_what_else_sends_it() -> None:
    rows = {row.split("`")[1]: row for row in endpoints.rows()}
    assert rows["cancel_run"].endswith("| `overdue_runs`, deferred tasks, operators |")
    assert rows["list_all_schedules"].endswith("| `airflow-skyvern schedules` |")
    assert "run page" in rows["get_run_timeline"]
    assert rows["cancel_runs"].endswith(" |  |")


@pytest.mark.slow
def test_every_module_that_sends_an_endpoint_has_a_name_that_authors_know() -> None:
    found = endpoint_users.modules_by_name(frozenset(endpoints._functions()))
    modules = {module for named in found.values() for module in named}
    assert [module for module in sorted(modules) if endpoint_users.user_of(module) is None] == []


def test_nothing_promises_every_endpoint_while_some_are_left_out() -> None:
    promise = re.compile(r"\b(every|all) (of the |of its )?endpoints?\b", re.IGNORECASE)
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert [page.name for page in pages if promise.search(page.read_text())] == []
    assert endpoints.counted().split()[0] != str(len(OPERATIONS))


@pytest.mark.parametrize("status", [200, 500])
def test_what_a_server_describes_is_read_as_it_is_recorded(status: int) -> None:
    paths = {
        "/v1/workflows/{workflow_id}/runs": {"get": {"x-fern-sdk-method-name": "get_runs"}, "parameters": []},
        "/v1/runs/{run_id}": {"get": {}},
    }

    def answer(request: httpx.Request) -> httpx.Response:
        body = {"version": "9.9"} if request.url.path == "/v1/version" else {"paths": paths}
        return httpx.Response(status, json=body)

    client = httpx.Client(base_url="http://skyvern", transport=httpx.MockTransport(answer))
    if status != 200:
        with pytest.raises(httpx.HTTPStatusError):
            described.described_by(client)
        return
    operations = {"GET /v1/agents/{}/runs": "get_runs", "GET /v1/runs/{}": None}
    assert described.described_by(client) == {"version": "9.9", "operations": operations}
