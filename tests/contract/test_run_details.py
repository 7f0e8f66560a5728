"""The fake tells the timeline and the artifacts of a run as a real server does; so what is shown of them is true."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.client import api, task_api
from airflow_skyvern.exceptions import SkyvernNotFoundError, SkyvernRequestError
from airflow_skyvern.runs.block_log import BlockLog
from airflow_skyvern.runs.login_code import identifier_of
from airflow_skyvern.testing.fake.run_details import ARTIFACT_TYPES, NO_ARTIFACT, NO_BLOCK
from tests.support.log_lines import LogLines

if TYPE_CHECKING:
    from airflow_skyvern.models import Artifact, Block, TimelineItem
    from tests.contract.conftest import Side


def blocks(items: list[TimelineItem]) -> list[Block]:
    found = [(item.block, item.children) for item in items if item.block]
    return [block for own, children in found for block in (own, *blocks(children))]


def timeline(side: Side, run_id: str) -> list[TimelineItem]:
    return side.send(api.get_run_timeline(run_id))


def tree(items: list[TimelineItem]) -> list[Any]:
    return [
        (item.block.label, item.block.current_index, item.block.current_value, *tree(item.children))
        for item in items
        if item.block
    ]


def test_loops_hold_the_blocks_of_all_their_iterations_newest_first(side: Side) -> None:
    items = timeline(side, side.completed("loops").run_id)
    months = [("fetch", 1, "11"), ("fetch", 0, "10")]
    oak = [("each_month", 1, "Oak", *months), ("hello", 1, "Oak")]
    acme = [("each_month", 0, "ACME", *months), ("hello", 0, "ACME")]
    assert tree(items) == [("each_vendor", None, None, *oak, *acme)]
    assert {(block.status, block.duration) for block in blocks(items)} == {("completed", None)}


def test_a_block_in_a_loop_names_the_loop(side: Side) -> None:
    [outer] = timeline(side, side.completed("loops").run_id)
    assert outer.block is not None
    assert (outer.block.loop_values, outer.block.parent_workflow_run_block_id) == (["ACME", "Oak"], None)
    parents = {item.block.parent_workflow_run_block_id for item in outer.children if item.block}
    assert parents == {outer.block.workflow_run_block_id}


@pytest.mark.parametrize("name", ["loops", "fail_http", "ok_wait", "file_out"])
def test_a_block_has_the_same_fields(side: Side, name: str) -> None:
    ids = {"workflow_run_block_id", "workflow_run_id", "parent_workflow_run_block_id", "task_id", "engine"}
    own = {"block_type", "label", "status", "output", "actions", "created_at", "modified_at", *ids}
    for block in blocks(timeline(side, side.completed(name).run_id)):
        assert set(block.model_dump()) == {*NO_BLOCK, *own}
        assert (block.task_id, block.actions) == (None, [])


@pytest.mark.parametrize(
    ("name", "told"),
    [("loops", "block 1 of 1: each_vendor, completed in"), ("fail_http", "block 1 of 1: refused, failed after")],
)
def test_a_wait_can_log_the_blocks(side: Side, name: str, told: str) -> None:
    run_id, log = side.completed(name).run_id, LogLines()
    blocks = BlockLog(run_id, log)
    blocks.set_total(side.send(api.get_run_definition(run_id)))
    rows = side.send(api.list_block_rows(run_id))
    blocks.update(rows)
    [line] = log.lines
    assert line.startswith(f"Skyvern run {run_id}: {told}")


def test_a_failed_block_says_why_without_naming_itself(side: Side) -> None:
    [block] = blocks(timeline(side, side.completed("fail_http").run_id))
    assert (block.label, block.block_type, block.status) == ("refused", "http_request", "failed")
    assert (block.failure_reason, block.error_codes) == ("HTTP 500: {'error': 'as you asked'}", [])
    assert block.output["status_code"] == 500


def test_a_block_that_asks_a_person_tells_the_question_and_runs_until_it_is_answered(side: Side) -> None:
    run = side.see(side.start("human"), "paused")
    [block] = blocks(timeline(side, run.run_id))
    assert (block.block_type, block.status, block.output) == ("human_interaction", "running", None)
    assert (block.subject, block.body, block.recipients) == ("Invoice INV-1", "Please decide.", ["a@example.com"])
    asked = (block.instructions, block.positive_descriptor, block.negative_descriptor)
    assert asked == ("May INV-1 be paid?", "Pay", "Stop")
    side.send(api.continue_run(run.run_id))
    side.see(run, "completed")
    [block] = blocks(timeline(side, run.run_id))
    assert block.status == "completed"


def test_the_block_of_a_canceled_run_still_looks_as_if_it_ran(side: Side) -> None:
    run = side.see(side.start("long_wait"), "running")
    side.until(lambda: bool(timeline(side, run.run_id)))
    side.send(api.cancel_run(run.run_id))
    side.see(run, "canceled")
    assert [block.status for block in blocks(timeline(side, run.run_id))] == ["running"]


def test_the_task_behind_a_block_says_what_its_codes_are_sent_to(side: Side) -> None:
    """Also where no browser can be started, as here: a block has its task before it asks for one."""
    run = side.see(side.start("login_code"), "failed", "completed")
    [block] = blocks(timeline(side, run.run_id))
    assert block.task_id is not None
    told = side.send(task_api.get_block_task(block.task_id))
    assert identifier_of(told) == "ops@example.com"
    assert {name: told["request"][name] for name in ("totp_identifier", "totp_verification_url")} == {
        "totp_identifier": "ops@example.com",
        "totp_verification_url": None,
    }
    assert isinstance(told["failure_category"], (list, type(None)))


def test_a_task_that_does_not_exist_is_said_so(side: Side) -> None:
    with pytest.raises(SkyvernNotFoundError, match="Task tsk_1 not found"):
        side.send(task_api.get_block_task("tsk_1"))


def stored(side: Side) -> Artifact:
    run = side.see(side.start("file_out"), "completed", when=lambda run: run.downloaded_files[0].artifact_id)
    [artifact] = side.send(api.list_run_artifacts(run.run_id, ["download"]))  # a first run may leave its script, too
    [file] = run.downloaded_files
    assert (file.artifact_id, file.checksum, file.file_size) == (
        artifact.artifact_id,
        artifact.checksum,
        artifact.file_size,
    )
    return artifact


def test_an_artifact_has_the_same_fields(side: Side) -> None:
    artifact = stored(side)
    own = "artifact_id artifact_type uri checksum file_size task_id step_id workflow_run_id run_id signed_url"
    assert set(artifact.model_dump()) == {*NO_ARTIFACT, *own.split(), "created_at", "modified_at"}
    assert (artifact.artifact_type, artifact.file_size, artifact.task_id) == ("download", 11, None)
    assert artifact.checksum == "702b7d2e4b28c4f3ef1434bd2333a83427796a9007fb2a23248becd4d51a3e7f"


def test_artifacts_can_be_narrowed_to_types(side: Side) -> None:
    run_id = str(stored(side).run_id)
    assert side.send(api.list_run_artifacts(run_id, ["screenshot_final", "recording"])) == []
    assert len(side.send(api.list_run_artifacts(run_id, ["recording", "download"]))) == 1
    assert all(side.send(api.list_run_artifacts(run_id, [known])) is not None for known in ARTIFACT_TYPES)
    with pytest.raises(SkyvernRequestError) as caught:
        side.send(api.list_run_artifacts(run_id, ["bogus"]))
    assert caught.value.status_code == 422
    assert caught.value.detail.startswith("artifact_type.0: Input should be 'recording', 'audio', 'session_replay'")


@pytest.mark.parametrize(
    ("header", "status", "part", "content"),
    [
        (None, 200, None, b"hello file\n"),
        ("bytes=0-3", 206, "bytes 0-3/11", b"hell"),
        ("bytes=6-", 206, "bytes 6-10/11", b"file\n"),
        ("bytes=-4", 206, "bytes 7-10/11", b"ile\n"),
        ("bytes=0-999", 206, "bytes 0-10/11", b"hello file\n"),
        ("bytes=-999", 206, "bytes 0-10/11", b"hello file\n"),
        ("bytes=11-", 416, "bytes */11", b""),
        ("bytes=99-100", 416, "bytes */11", b""),
        ("bytes=3-1", 416, "bytes */11", b""),
        ("bytes=-0", 200, None, b"hello file\n"),
        ("bytes=-", 200, None, b"hello file\n"),
        ("bytes=0-1,3-4", 200, None, b"hello file\n"),
        ("lines=1-2", 200, None, b"hello file\n"),
    ],
)
def test_a_part_of_an_artifact_can_be_had(
    side: Side, header: str | None, status: int, part: str | None, content: bytes
) -> None:
    path = f"/v1/artifacts/{stored(side).artifact_id}/content"
    answer = side.http.get(path, headers={"range": header} if header else {})
    assert (answer.status_code, answer.headers.get("content-range"), answer.content) == (status, part, content)
    expected = {
        "accept-ranges": "bytes",
        "cache-control": "private, no-cache",
        "content-disposition": "attachment; filename=\"report.txt\"; filename*=UTF-8''report.txt",
        "content-length": str(len(content)),
        "x-content-type-options": "nosniff",
    }
    assert {name: answer.headers.get(name) for name in expected} == expected
    assert answer.headers.get("content-type") == (None if status == 416 else "application/octet-stream")


def test_the_head_of_an_artifact_cannot_be_had(side: Side) -> None:
    assert side.http.head(f"/v1/artifacts/{stored(side).artifact_id}/content").status_code == 405
