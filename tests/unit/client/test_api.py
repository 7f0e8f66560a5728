from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError

from airflow_skyvern.client import api, check_api
from airflow_skyvern.client.run_request import RunRequest
from airflow_skyvern.exceptions import SkyvernConfigError

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call

REQUEST = RunRequest.of({"workflow_id": "wpid_1"})
PAGED = {"page": 1, "page_size": 100}

ENDPOINTS: list[tuple[Call[Any], str, Any]] = [
    (api.start_run(REQUEST), "POST /v1/run/workflows", {"workflow_id": "wpid_1"}),
    (api.get_run("wr_1"), "GET /v1/runs/wr_1", None),
    (api.get_run_of_deleted_workflow("wr_1"), "GET /v1/workflows/runs/wr_1", None),
    (api.find_runs({"a": "1"}), "GET /v1/runs", None),
    (api.get_run_snapshot("wr_1"), "GET /v1/runs/wr_1", None),
    (api.get_run_snapshot("wr_1", workflow_deleted=True), "GET /v1/workflows/runs/wr_1", None),
    (api.list_active_runs(2), "GET /v1/runs", None),
    (check_api.newest_run(), "GET /v1/runs", None),
    (check_api.open_page(), "GET ", None),
    (
        check_api.send_test_webhook("https://a.example.com/x"),
        "POST /v1/internal/test-webhook",
        {"webhook_url": "https://a.example.com/x", "run_type": "task"},
    ),
    (api.get_run_tags(["wr_1"]), "GET /v1/run-tags", None),
    (api.cancel_run("wr_1"), "POST /v1/runs/wr_1/cancel", None),
    (api.cancel_runs(["wr_1", "wr_2"]), "POST /v1/runs/cancel", {"run_ids": ["wr_1", "wr_2"]}),
    (api.retry_run("wr_1"), "POST /v1/workflows/runs/wr_1/retry", None),
    (api.continue_run("wr_1"), "POST /v1/workflows/runs/wr_1/continue", None),
    (api.list_runs(), "GET /v1/runs", None),
    (api.list_workflow_runs("wpid_1"), "GET /v1/workflows/wpid_1/runs", None),
    (api.get_run_timeline("wr_1"), "GET /v1/runs/wr_1/timeline", None),
    (api.list_block_rows("wr_1"), "GET /v1/runs/wr_1/timeline", None),
    (api.get_run_definition("wr_1"), "GET /v1/workflows/runs/wr_1", None),
    (api.get_run_cost("wr_1"), "GET /v1/workflows/runs/wr_1", None),
    (api.list_run_artifacts("wr_1"), "GET /v1/runs/wr_1/artifacts", None),
    (api.get_artifact_content("a_1"), "GET /v1/artifacts/a_1/content", None),
    (api.list_workflows(), "GET /v1/workflows", None),
    (api.probe(), "GET /v1/workflows", None),
    (api.get_workflow("wpid_1"), "GET /v1/workflows/wpid_1", None),
    (api.upload_file(b"content"), "POST /v1/upload_file", None),
    (api.retry_webhook("wr_1"), "POST /v1/runs/wr_1/retry_webhook", None),
    (api.retry_webhook("wr_1", "https://x"), "POST /v1/runs/wr_1/retry_webhook", {"webhook_url": "https://x"}),
    (api.get_version(), "GET /v1/version", None),
]


@pytest.mark.parametrize(("call", "request_line", "body"), ENDPOINTS, ids=lambda value: str(value)[:60])
def test_every_endpoint_says_what_to_send(call: Call[Any], request_line: str, body: Any) -> None:
    assert f"{call.method} {call.path}" == request_line
    assert call.body == body


def test_a_run_that_is_started_once_more_may_have_a_limit_of_steps() -> None:
    assert dict(api.retry_run("wr_1", max_steps=7).headers) == {"x-max-steps-override": "7"}
    assert dict(api.retry_run("wr_1").headers) == {}


def test_only_what_starts_or_sends_something_must_not_be_repeated() -> None:
    once = {request_line for call, request_line, _ in ENDPOINTS if not call.repeatable}
    assert once == {
        "POST /v1/run/workflows",
        "POST /v1/workflows/runs/wr_1/retry",
        "POST /v1/workflows/runs/wr_1/continue",
        "POST /v1/upload_file",
        "POST /v1/runs/wr_1/retry_webhook",
        "POST /v1/internal/test-webhook",
    }


@pytest.mark.parametrize(
    ("call", "query"),
    [
        (api.list_runs(), PAGED),
        (api.list_run_artifacts("wr_1"), {}),
        (api.list_run_artifacts("wr_1", {"recording", "download"}), {"artifact_type": ["download", "recording"]}),
        (
            api.list_runs({"running", "paused"}, "wpid_1", "ACME", {"a": "1", "b": "2"}),
            {
                "status": ["paused", "running"],
                "workflow_permanent_id": "wpid_1",
                "search_key": "ACME",
                "tags": ["a:1", "b:2"],
                **PAGED,
            },
        ),
        (
            api.list_runs(workflow_ids=["wpid_1", "wpid_2"], page=3),
            {"workflow_permanent_id": ["wpid_1", "wpid_2"], "page": 3, "page_size": 100},
        ),
        (
            api.list_workflow_runs("wpid_1", ["running"], {"a": "1"}),
            {"status": ["running"], "tags": ["a:1"], **PAGED},
        ),
        (
            api.list_active_runs(2),
            {"status": ["created", "paused", "queued", "running"], "page": 2, "page_size": 100},
        ),
        (api.list_workflows("invoice"), {"search_key": "invoice", **PAGED}),
        (api.probe(), {"page_size": 1}),
        (api.find_runs({"a": "1"}), {"tags": ["a:1"], "page_size": 100}),
        (api.get_run_tags(["wr_1", "wr_2"]), {"workflow_run_ids": "wr_1,wr_2"}),
    ],
)
def test_lists_ask_for_what_was_given(call: Call[Any], query: dict[str, Any]) -> None:
    assert dict(call.query) == query


def test_the_bounds_of_a_list_are_sent_in_utc() -> None:
    moment = datetime(2026, 11, 22, 21, tzinfo=timezone(timedelta(hours=1)))
    query = api.list_workflow_runs("wpid_1", created_at_start=moment, created_at_end=moment).query
    assert query["created_at_start"] == query["created_at_end"] == "2026-11-22T20:00:00+00:00"


def test_ids_cannot_lead_to_another_path() -> None:
    assert api.get_run("../a b?c").path == "/v1/runs/..%2Fa%20b%3Fc"


def test_a_full_page_is_followed_by_the_next_and_a_short_one_by_none() -> None:
    call = api.list_workflows("x")
    following = call.next_page([0] * 100)
    assert following is not None
    assert following.query == {"search_key": "x", "page": 2, "page_size": 100}
    assert following.next_page([0] * 99) is None
    assert call.next_page([]) is None


def test_no_page_is_asked_for_that_the_server_refuses() -> None:
    last = dataclasses.replace(api.list_runs(), query={"page": 100})
    assert last.next_page([0] * 100) is None


@pytest.mark.parametrize("call", [api.probe(), api.find_runs({"a": "1"}), api.get_run("wr_1")])
def test_what_is_no_paged_list_has_one_page(call: Call[Any]) -> None:
    assert call.next_page([0] * 1000) is None


def test_a_file_is_given_as_path_or_as_content(tmp_path: Path) -> None:
    (tmp_path / "cv.pdf").write_bytes(b"%PDF")
    assert api.upload_file(tmp_path / "cv.pdf").files == {"file": ("cv.pdf", b"%PDF")}
    assert api.upload_file(str(tmp_path / "cv.pdf"), "other.pdf").files == {"file": ("other.pdf", b"%PDF")}
    assert api.upload_file(b"x").files == {"file": ("file", b"x")}
    assert api.upload_file(b"x").form is None
    assert api.upload_file(b"x", retention_days=3).form == {"retention_days": "3"}


def test_answers_become_models() -> None:
    run = api.get_run("wr_1").parse(b'{"run_id": "wr_1", "status": "completed", "output": [1]}')
    assert (run.run_id, run.output) == ("wr_1", [1])
    assert api.cancel_run("wr_1").parse(b"null") is None
    assert api.get_artifact_content("a_1").parse(b"\x00\xff") == b"\x00\xff"
    with pytest.raises(ValidationError):
        api.get_run("wr_1").parse(b'{"status": "completed"}')


def test_a_call_is_a_value_that_cannot_change() -> None:
    call = api.get_run("wr_1")
    assert call == api.get_run("wr_1")
    with pytest.raises(dataclasses.FrozenInstanceError):
        call.path = "/elsewhere"  # type: ignore[misc]  # that is what must fail


def test_a_list_of_runs_is_one_page_or_all_up_to_the_last() -> None:
    assert api.list_runs(page=3).last_page is None
    assert api.list_runs(last_page=10).last_page == 10
    assert api.list_runs().last_page == 100


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda: api.list_runs(workflow_ids=["w"] * 51), "workflow_ids: Skyvern takes at most 50 at once, not 51"),
        (lambda: api.list_runs(tags={f"k{n}": "v" for n in range(21)}), "tags: Skyvern takes at most 20"),
        (lambda: api.find_runs({f"k{n}": "v" for n in range(21)}), "tags: Skyvern takes at most 20"),
        (lambda: api.list_workflow_runs("w", tags={f"k{n}": "v" for n in range(21)}), "tags: Skyvern takes at most"),
        (lambda: api.get_run_tags(f"wr_{n}" for n in range(201)), "run_ids: Skyvern takes at most 200"),
    ],
)
def test_more_than_skyvern_takes_at_once_is_refused(make: Callable[[], object], complaint: str) -> None:
    with pytest.raises(SkyvernConfigError, match=complaint):
        make()


def test_pages_that_skyvern_refuses_are_not_asked_for() -> None:
    assert api.list_runs(workflow_id="wpid_1").last_page == 10
    assert api.list_runs(workflow_ids=["wpid_1", "wpid_2"]).last_page == 10
    assert api.list_runs(search_key="ACME").last_page == 10
    assert api.list_runs(search_key="ACME", last_page=3).last_page == 3
    assert api.list_runs(last_page=1000).last_page == 100
    assert api.list_workflow_runs("wpid_1").last_page == 1_000_000
