from __future__ import annotations

import json
import logging
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from airflow_skyvern.models import (
    ACTIVE_STATUSES,
    FINAL_STATUSES,
    Artifact,
    ListedRun,
    Run,
    RunSnapshot,
    RunStatus,
    RunSummary,
    RunTags,
    ServerVersion,
    TimelineItem,
)


def run(**fields: Any) -> Run:
    return Run.model_validate({"run_id": "wr_1", "status": "running", **fields})


@pytest.mark.parametrize("status", sorted(FINAL_STATUSES))
def test_a_run_is_over_in_every_final_status(status: str) -> None:
    assert run(status=status).is_final
    assert run(status=status).succeeded == (status == "completed")


@pytest.mark.parametrize("status", [*sorted(ACTIVE_STATUSES), "thinking"])
def test_a_run_goes_on_in_active_and_in_unknown_statuses(status: str) -> None:
    assert not run(status=status).is_final
    assert not run(status=status).succeeded


def test_every_known_status_is_either_active_or_final() -> None:
    assert {status.value for status in RunStatus} == ACTIVE_STATUSES | FINAL_STATUSES
    assert not ACTIVE_STATUSES & FINAL_STATUSES


@pytest.mark.parametrize("status", ["failed", "completed"])
def test_a_final_status_with_a_pending_retry_is_not_the_end(status: str) -> None:
    assert not run(status=status, retry_pending=True).is_final
    assert not run(status=status, retry_pending=True).succeeded


def test_older_servers_know_no_pending_retry_and_newer_ones_may_say_null() -> None:
    assert run(status="failed").is_final
    assert run(status="failed", retry_pending=None).is_final


@pytest.mark.parametrize("word", [False, "false", "False", "0", 0, "no", None])
@pytest.mark.parametrize("kind", [Run, RunSnapshot, RunSummary])
def test_no_is_no_however_it_is_written(kind: Any, word: Any) -> None:
    body = json.dumps({"run_id": "wr_1", "status": "completed", "retry_pending": word, "workflow_deleted": word})
    assert kind.model_validate_json(body).succeeded
    row = TypeAdapter(ListedRun).validate_json(body)
    assert not row["retry_pending"]


@pytest.mark.parametrize("word", [True, "true", "1", 1, "yes"])
def test_yes_is_yes(word: Any) -> None:
    body = json.dumps({"run_id": "wr_1", "status": "completed", "retry_pending": word})
    assert not Run.model_validate_json(body).is_final


@pytest.mark.parametrize("word", ["perhaps", 2, [], {}])
def test_what_is_neither_yes_nor_no_is_no_answer(word: Any) -> None:
    with pytest.raises(ValidationError):
        Run.model_validate({"run_id": "wr_1", "status": "completed", "retry_pending": word})


def test_an_unknown_status_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "airflow_skyvern.models"):
        run(status="never seen before")
        run(status="never seen before")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "'never seen before'" in caplog.text


def test_fields_of_newer_servers_are_kept() -> None:
    assert run(mood={"of": "the day"}).model_dump()["mood"] == {"of": "the day"}


def test_timestamps_without_an_offset_are_utc() -> None:
    moment = datetime(2026, 11, 22, 20, 2, 34, tzinfo=timezone.utc)
    assert run(created_at="2026-11-22T20:02:34").created_at == moment
    assert run(created_at="2026-11-22T21:02:34+01:00").created_at == moment


def test_the_duration_is_known_when_the_run_is_over() -> None:
    begin, end = "2026-11-22T20:00:00", "2026-11-22T20:01:30"
    assert run(created_at=begin, finished_at=end).duration == timedelta(seconds=90)
    assert run(created_at=begin, finished_at=None).duration is None
    assert run(finished_at=end).duration is None


def test_lists_that_are_null_before_the_end_are_empty() -> None:
    fresh = run(downloaded_files=None, screenshot_urls=None, errors=None, attempts=None)
    assert (fresh.downloaded_files, fresh.screenshot_urls, fresh.errors, fresh.attempts) == ([], [], [], [])


def test_error_codes_are_read_from_the_errors_that_have_one() -> None:
    errors = [{"error_code": "STOPPED", "reasoning": "no"}, {"reasoning": "no code"}, {"error_code": None}]
    assert run(errors=errors).error_codes == ["STOPPED"]


def test_both_kinds_of_lists_give_the_same_rows() -> None:
    one = {"run_id": "wr_1", "status": "running", "title": "daily"}
    other = {"workflow_run_id": "wr_1", "status": "running", "workflow_title": "daily"}
    for row in (one, other):
        summary = RunSummary.model_validate(row)
        assert (summary.run_id, summary.title, summary.is_final) == ("wr_1", "daily", False)


def test_answers_cannot_be_changed_by_accident() -> None:
    with pytest.raises(ValueError, match="frozen"):
        ServerVersion(version="1").version = "2"  # type: ignore[misc]  # that is what must fail


def test_a_run_whose_workflow_was_deleted_is_read_from_its_older_form() -> None:
    orphan = Run.model_validate({"workflow_run_id": "wr_1", "status": "completed", "outputs": {"sum": 1}})
    assert (orphan.run_id, orphan.output) == ("wr_1", {"sum": 1})


def test_tags_are_read_run_by_run() -> None:
    tags = RunTags.model_validate(
        {"run_tags": {"wr_1": [{"key": "a", "value": "1"}, {"key": "b", "value": None}, {"key": None}], "wr_2": []}}
    )
    assert tags.of("wr_1") == {"a": "1", "b": ""}
    assert tags.of("wr_2") == tags.of("wr_3") == {}


def test_a_timeline_without_the_newer_fields_is_read() -> None:
    item = TimelineItem.model_validate({"type": "block", "block": {"block_type": "novel"}, "children": None})
    assert item.block is not None
    assert (item.block.actions, item.block.error_codes, item.block.status, item.children) == ([], [], None, [])
    thought = TimelineItem.model_validate({"type": "thought", "thought": {"thought": "?"}, "block": None})
    assert (thought.block, thought.children) == (None, [])


def test_what_was_typed_and_signed_addresses_are_not_in_representations() -> None:
    action = {"action_type": "input_text", "text": "s3cr3t"}
    block = {"block_type": "login", "actions": [action]}
    item = TimelineItem.model_validate(
        {
            "type": "block",
            "block": {"block_type": "loop"},
            "children": [
                {
                    "type": "block",
                    "block": block,
                }
            ],
        }
    )
    child = item.children[0].block
    assert child is not None
    assert child.actions[0].text == "s3cr3t"
    artifact = Artifact.model_validate(
        {
            "artifact_id": "a_1",
            "artifact_type": "recording",
            "uri": "https://x/s3cr3t",
            "signed_url": "https://x/s3cr3t",
        }
    )
    assert "s3cr3t" not in repr([item, artifact])
