"""What the client relies on, asked of the fake and of a real Skyvern server."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern import api
from airflow_skyvern.exceptions import SkyvernAPIError, SkyvernAuthError, SkyvernNotFoundError, SkyvernRequestError
from airflow_skyvern.run_request import RunRequest

if TYPE_CHECKING:
    from tests.contract.conftest import Skyvern


def refused(skyvern: Skyvern, call: api.Call[Any], error: type[SkyvernAPIError]) -> tuple[int, str]:
    with pytest.raises(error) as raised:
        skyvern.send(call)
    return raised.value.status_code, raised.value.detail


def tagged() -> dict[str, str]:
    return {"airflow_key": uuid.uuid4().hex}


def test_a_start_answers_with_a_run_that_is_not_over(skyvern: Skyvern) -> None:
    run = skyvern.start("ok_wait")
    assert run.run_id.startswith("wr_")
    assert (run.status, run.is_final, run.output) == ("created", False, None)
    assert run.app_url is not None
    assert run.run_id in run.app_url
    assert run.created_at is not None
    assert run.created_at.tzinfo is not None


def test_a_completed_run_has_its_output(skyvern: Skyvern) -> None:
    run = skyvern.end("params_http", {"name": "Ann", "count": 7})
    assert (run.status, run.succeeded, run.failure_reason) == ("completed", True, None)
    assert run.output["echo_output"]["body"]["got"]["name"] == "Ann"
    assert run.output["extracted_information"] == []
    assert run.duration is not None


def test_a_failed_run_says_why(skyvern: Skyvern) -> None:
    run = skyvern.end("fail_http")
    assert (run.status, run.succeeded) == ("failed", False)
    assert run.failure_reason == "http_request block failed. failure reason: HTTP 500: {'error': 'as you asked'}"


def test_a_terminated_run_says_why_and_has_error_codes(skyvern: Skyvern) -> None:
    run = skyvern.end("terminate")
    assert (run.status, run.error_codes) == ("terminated", ["STOPPED"])
    assert run.failure_reason == "terminate block terminated. Reason: not today"


def test_a_run_that_will_be_tried_again_is_not_over(skyvern: Skyvern) -> None:
    run = skyvern.start("retry_policy")
    until = time.monotonic() + 30
    while not (seen := skyvern.send(api.get_run(run.run_id))).retry_pending:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert (seen.status, seen.is_final) == ("failed", False)
    skyvern.send(api.cancel_run(run.run_id))
    after = skyvern.send(api.get_run(run.run_id))
    assert (after.status, after.retry_pending, after.is_final) == ("failed", False, True)


def test_a_cancel_ends_a_run_and_may_be_repeated(skyvern: Skyvern) -> None:
    run = skyvern.start("long_wait")
    skyvern.send(api.cancel_run(run.run_id))
    assert skyvern.status(run.run_id) == "canceled"
    skyvern.send(api.cancel_run(run.run_id))
    assert skyvern.status(run.run_id) == "canceled"


def test_a_cancel_changes_nothing_about_a_completed_run(skyvern: Skyvern) -> None:
    run = skyvern.end("ok_wait")
    skyvern.send(api.cancel_run(run.run_id))
    assert skyvern.status(run.run_id) == "completed"


def test_several_runs_are_canceled_at_once(skyvern: Skyvern) -> None:
    run = skyvern.start("long_wait")
    done = skyvern.send(api.cancel_runs([run.run_id, "wr_1"]))
    assert (done.cancelled, done.failed) == ([run.run_id], ["wr_1"])
    assert skyvern.status(run.run_id) == "canceled"


def test_a_retry_makes_another_run_with_the_same_tags(skyvern: Skyvern) -> None:
    tags = tagged()
    first = skyvern.end("fail_http", run_metadata=tags)
    second = skyvern.send(api.retry_run(first.run_id))
    assert second.run_id != first.run_id
    found = [row.run_id for row in skyvern.send(api.find_runs(tags))]
    assert found == [second.run_id, first.run_id]


def test_a_paused_run_goes_on_when_it_is_told_to(skyvern: Skyvern) -> None:
    run = skyvern.start("human")
    until = time.monotonic() + 30
    while skyvern.status(run.run_id) != "paused":
        assert time.monotonic() < until
        time.sleep(0.1)
    skyvern.send(api.continue_run(run.run_id))
    while not (seen := skyvern.send(api.get_run(run.run_id))).is_final:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert seen.status == "completed"


def test_a_run_outlives_its_workflow(skyvern: Skyvern) -> None:
    run = skyvern.start("wait_5")
    skyvern.delete_workflow(skyvern.workflow("wait_5"))
    gone = f"Workflow not found. workflow_permanent_id={skyvern.workflow('wait_5')}"
    assert refused(skyvern, api.get_run(run.run_id), SkyvernNotFoundError) == (404, gone)
    until = time.monotonic() + 30
    while not (seen := skyvern.send(api.get_orphaned_run(run.run_id))).is_final:
        assert time.monotonic() < until
        time.sleep(0.1)
    assert (seen.run_id, seen.status) == (run.run_id, "completed")
    assert seen.output["pause_output"] == {"success": True}


@pytest.mark.parametrize("first", [{"status": ["running"]}, {}])
def test_runs_are_listed_with_their_status(skyvern: Skyvern, first: dict[str, Any]) -> None:
    run = skyvern.start("long_wait")
    until = time.monotonic() + 10
    while skyvern.status(run.run_id) != "running":
        assert time.monotonic() < until
        time.sleep(0.1)
    rows = {row.run_id: row for row in skyvern.send(api.list_runs(**first))}
    assert rows[run.run_id].status == "running"
    assert rows[run.run_id].workflow_permanent_id == skyvern.workflow("long_wait")
    if first:
        assert {row.status for row in rows.values()} == {"running"}
    skyvern.send(api.cancel_run(run.run_id))


def test_a_run_is_found_by_its_tags_and_by_nothing_else(skyvern: Skyvern) -> None:
    tags = tagged()
    run = skyvern.start("ok_wait", run_metadata={**tags, "airflow_dag_id": "dag with é: blank/colon"})
    assert [row.run_id for row in skyvern.send(api.find_runs(tags))] == [run.run_id]
    listed = skyvern.send(api.list_workflow_runs(skyvern.workflow("ok_wait"), tags=tags))
    assert [row.run_id for row in listed] == [run.run_id]
    assert skyvern.send(api.find_runs(tagged())) == []
    assert skyvern.send(api.get_run_tags([run.run_id])).of(run.run_id)["airflow_key"] == tags["airflow_key"]


def test_an_unknown_workflow_has_no_runs(skyvern: Skyvern) -> None:
    assert skyvern.send(api.list_workflow_runs("wpid_1")) == []


def test_workflows_are_listed_and_read(skyvern: Skyvern) -> None:
    workflow_id = skyvern.workflow("ok_wait")
    listed = {row.workflow_permanent_id: row.title for row in skyvern.send(api.list_workflows())}
    assert listed[workflow_id] == "rig ok_wait"
    assert skyvern.send(api.get_workflow(workflow_id)).title == "rig ok_wait"


def test_a_downloaded_file_is_an_artifact_that_can_be_read(skyvern: Skyvern) -> None:
    run = skyvern.end("file_out")
    assert [file.filename for file in run.downloaded_files] == ["report.txt"]
    artifact_id = run.downloaded_files[0].artifact_id
    assert artifact_id is not None
    assert skyvern.send(api.get_artifact_content(artifact_id)) == b"hello file\n"
    assert artifact_id in {artifact.artifact_id for artifact in skyvern.send(api.list_run_artifacts(run.run_id))}
    assert skyvern.send(api.list_run_artifacts("wr_1")) == []


def test_the_timeline_tells_the_blocks(skyvern: Skyvern) -> None:
    run = skyvern.end("fail_http")
    blocks = [item.block for item in skyvern.send(api.get_run_timeline(run.run_id)) if item.type == "block"]
    assert [block["label"] for block in blocks if block] == ["refused"]


def test_an_uploaded_file_gets_an_id(skyvern: Skyvern) -> None:
    uploaded = skyvern.send(api.upload_file(b"content", "notes.txt"))
    assert uploaded.file_id is not None
    assert uploaded.file_id.startswith("file_")


def test_the_version_is_told(skyvern: Skyvern) -> None:
    assert skyvern.send(api.get_version()).version


def test_a_wrong_key_is_refused_with_403(skyvern: Skyvern) -> None:
    with pytest.raises(SkyvernAuthError) as raised:
        skyvern.stranger.send(api.probe())
    assert (raised.value.status_code, raised.value.detail) == (403, "Could not validate credentials")


@pytest.mark.parametrize(
    ("call", "detail"),
    [
        (api.get_run("wr_1"), "Task run not found wr_1"),
        (api.cancel_run("wr_1"), "Run not found wr_1"),
        (api.retry_run("wr_1"), "Workflow run not found wr_1"),
        (api.get_run_timeline("wr_1"), "Run not found wr_1"),
        (api.get_workflow("wpid_1"), "Workflow not found. workflow_permanent_id=wpid_1"),
        (
            api.run_workflow(RunRequest.of({"workflow_id": "wpid_1"})),
            "Workflow not found. workflow_permanent_id=wpid_1",
        ),
    ],
    ids=lambda value: value.what if isinstance(value, api.Call) else "",
)
def test_what_does_not_exist_is_404(skyvern: Skyvern, call: api.Call[Any], detail: str) -> None:
    assert refused(skyvern, call, SkyvernNotFoundError) == (404, detail)


def test_a_missing_parameter_is_400(skyvern: Skyvern) -> None:
    workflow_id = skyvern.workflow("params_http")
    call = api.run_workflow(RunRequest.of({"workflow_id": workflow_id}))
    expected = f"Missing value for parameter name in workflow {workflow_id}"
    assert refused(skyvern, call, SkyvernRequestError) == (400, expected)


def test_a_parameter_of_the_wrong_type_is_400(skyvern: Skyvern) -> None:
    fields = {"workflow_id": skyvern.workflow("params_http"), "parameters": {"name": "a", "count": "abc"}}
    expected = "Invalid workflow parameter. Expected parameter type: integer. Value: abc."
    assert refused(skyvern, api.run_workflow(RunRequest.of(fields)), SkyvernRequestError) == (400, expected)


def test_a_refused_field_is_422_and_its_value_is_not_repeated(skyvern: Skyvern) -> None:
    request = RunRequest.of({"workflow_id": skyvern.workflow("ok_wait"), "parameters": {"password": "hunter2"}})
    spoiled = request.model_copy(update={"max_elapsed_time_minutes": 481})
    status, detail = refused(skyvern, api.run_workflow(spoiled), SkyvernRequestError)
    assert (status, detail) == (422, "max_elapsed_time_minutes: Input should be less than or equal to 480")


def test_only_runs_that_are_over_can_be_retried(skyvern: Skyvern) -> None:
    run = skyvern.start("long_wait")
    expected = (400, "Only terminal workflow runs can be retried")
    assert refused(skyvern, api.retry_run(run.run_id), SkyvernRequestError) == expected
    skyvern.send(api.cancel_run(run.run_id))


def test_a_run_without_a_webhook_has_none_to_retry(skyvern: Skyvern) -> None:
    run = skyvern.end("ok_wait")
    expected = (400, "No webhook URL configured for the run")
    status, detail = refused(skyvern, api.retry_webhook(run.run_id), SkyvernRequestError)
    assert (status, detail.rstrip(".")) == expected
