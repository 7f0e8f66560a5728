"""The fake answers as a real server does, so that what the other tests prove with the fake is true."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.client import api
from airflow_skyvern.client.run_request import RunRequest
from airflow_skyvern.client.workflow_parameters import check_parameters, name_refused
from airflow_skyvern.exceptions import (
    SkyvernAPIError,
    SkyvernAuthError,
    SkyvernConfigError,
    SkyvernNotFoundError,
    SkyvernRequestError,
    SkyvernResponseError,
)
from airflow_skyvern.limits import (
    LAST_RUNS_PAGE,
    LAST_SEARCH_PAGE,
    LONGEST_ADDRESS,
    LONGEST_METADATA_KEY,
    LONGEST_METADATA_VALUE,
    LONGEST_RUN_MINUTES,
    MOST_CANCELED,
    MOST_FILES,
    MOST_METADATA,
    MOST_RETENTION_DAYS,
    MOST_RUNS_OF_TAGS,
    MOST_TAGS,
    MOST_WORKFLOWS,
    PAGE_SIZE,
)

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call
    from tests.contract.conftest import Side


def refused(side: Side, call: Call[Any]) -> tuple[type[SkyvernAPIError], int, str]:
    with pytest.raises(SkyvernAPIError) as caught:
        side.send(call)
    return type(caught.value), caught.value.status_code, caught.value.detail


def test_a_started_run_is_created_and_has_an_address(side: Side) -> None:
    run = side.start("ok_wait")
    assert (run.status, run.output, run.failure_reason, run.is_final) == ("created", None, None, False)
    assert (run.attempt, run.retry_pending, run.run_type) == (1, False, "workflow_run")
    assert run.run_id.startswith("wr_")
    assert str(run.app_url).endswith(f"/runs/{run.run_id}")
    assert run.created_at is not None
    assert (run.started_at, run.finished_at, run.duration) == (None, None, None)


def test_a_run_goes_through_known_statuses_to_its_end(side: Side) -> None:
    run = side.start("ok_wait")
    running = side.see(run, "running")
    assert (running.output, running.finished_at) == (None, None)
    assert running.started_at is not None
    ended = side.see(run, "completed")
    assert ended.succeeded
    assert ended.output == {"pause_output": {"success": True}, "extracted_information": []}
    assert ended.duration is not None
    assert (ended.failure_reason, ended.errors, ended.error_codes) == (None, [], [])


def test_the_output_has_an_entry_for_every_block(side: Side) -> None:
    run = side.completed("ok_http")
    assert set(run.output) == {"fetch_output", "extracted_information"}
    assert run.output["fetch_output"]["response_body"] == {"ok": True, "n": 42}


def test_parameters_and_their_defaults_reach_the_blocks(side: Side) -> None:
    run = side.completed("params_http", name="ACME", count=7)
    got = run.output["echo_output"]["body"]["got"]
    assert (got["name"], str(got["count"]), str(got["ratio"])) == ("ACME", "7", "0.5")


def test_a_failed_run_says_why_and_keeps_its_output(side: Side) -> None:
    run = side.completed("fail_http")
    assert (run.status, run.is_final, run.succeeded) == ("failed", True, False)
    expected = "http_request block failed. failure reason: HTTP 500: {'error': 'as you asked'}"
    assert run.failure_reason == expected
    assert run.output["refused_output"]["status_code"] == 500
    assert run.errors == []


def test_a_terminated_run_has_its_code_and_reason(side: Side) -> None:
    run = side.completed("terminate")
    assert (run.status, run.is_final) == ("terminated", True)
    assert run.failure_reason == "terminate block terminated. Reason: not today"
    assert run.error_codes == ["STOPPED"]
    assert run.output["stop_output"] == {"reason": "not today"}


def test_a_retry_of_skyvern_is_pending_until_it_is_canceled(side: Side) -> None:
    run = side.see(side.start("retry_policy"), "failed", when=lambda run: run.next_attempt_at)
    assert (run.retry_pending, run.is_final) == (True, False)
    assert side.send(api.cancel_run(run.run_id)) is None
    run = side.send(api.get_run(run.run_id))
    assert (run.status, run.retry_pending, run.is_final) == ("failed", False, True)


def test_a_paused_run_goes_on_when_it_is_told_to(side: Side) -> None:
    run = side.see(side.start("human"), "paused")
    assert not run.is_final
    assert side.send(api.continue_run(run.run_id)) is None
    assert side.see(run, "completed").succeeded
    expected = (SkyvernNotFoundError, 404, f"Workflow run not found {run.run_id}")
    assert refused(side, api.continue_run(run.run_id)) == expected


def test_a_run_whose_workflow_was_deleted_can_be_seen_and_canceled(side: Side) -> None:
    workflow = side.new_workflow("long_wait")
    run = side.send(api.start_run(RunRequest.of({"workflow_id": workflow})))
    side.see(run, "running")
    side.delete_workflow(workflow)
    gone = (SkyvernNotFoundError, 404, f"Workflow not found. workflow_permanent_id={workflow}")
    assert refused(side, api.get_run(run.run_id)) == gone
    assert refused(side, api.start_run(RunRequest.of({"workflow_id": workflow}))) == gone
    orphan = side.send(api.get_run_of_deleted_workflow(run.run_id))
    assert (orphan.run_id, orphan.status, orphan.retry_pending) == (run.run_id, "running", False)
    assert side.send(api.cancel_run(run.run_id)) is None
    orphan = side.send(api.get_run_of_deleted_workflow(run.run_id))
    assert (orphan.status, orphan.is_final, orphan.output) == ("canceled", True, None)


def test_a_running_run_is_canceled_at_once(side: Side) -> None:
    run = side.see(side.start("long_wait"), "running")
    assert side.send(api.cancel_run(run.run_id)) is None
    canceled = side.send(api.get_run(run.run_id))
    assert (canceled.status, canceled.is_final, canceled.output) == ("canceled", True, None)
    assert side.send(api.cancel_run(run.run_id)) is None


def test_a_run_can_be_canceled_before_it_was_looked_at(side: Side) -> None:
    run = side.start("long_wait")
    side.send(api.cancel_run(run.run_id))
    assert side.send(api.get_run(run.run_id)).status == "canceled"


def test_canceling_a_run_that_is_over_changes_nothing(side: Side) -> None:
    run = side.completed("ok_http")
    assert side.send(api.cancel_run(run.run_id)) is None
    assert side.send(api.get_run(run.run_id)).status == "completed"


def test_several_runs_are_canceled_at_once(side: Side) -> None:
    ended, running = side.completed("ok_http"), side.start("long_wait")
    result = side.send(api.cancel_runs([running.run_id, "wr_123", ended.run_id, running.run_id]))
    assert sorted(result.cancelled) == sorted([ended.run_id, running.run_id])
    assert result.failed == ["wr_123"]
    assert side.send(api.get_run(running.run_id)).status == "canceled"
    empty = side.send(api.cancel_runs([]))
    assert (empty.cancelled, empty.failed) == ([], [])


def test_a_run_that_is_over_can_be_started_once_more(side: Side) -> None:
    key = uuid.uuid4().hex
    first = side.see(side.start("fail_http", {"run_metadata": {"again": key}}), "failed")
    second = side.send(api.retry_run(first.run_id))
    assert second.status == "created"
    assert second.run_id != first.run_id
    assert side.see(second, "failed").attempt == 1
    rows = side.send(api.find_runs({"again": key}))
    assert [row.run_id for row in rows] == [second.run_id, first.run_id]


def test_a_run_that_is_not_over_cannot_be_started_once_more(side: Side) -> None:
    run = side.start("long_wait")
    expected = (SkyvernRequestError, 400, "Only terminal workflow runs can be retried")
    assert refused(side, api.retry_run(run.run_id)) == expected
    side.send(api.cancel_run(run.run_id))


Make = Callable[["Side"], "Call[Any]"]


def start_of(name: str, options: dict[str, Any] | None = None, **fields: Any) -> Make:
    return lambda side: api.start_run(RunRequest.of({"workflow_id": side.workflow(name), **fields}, options))


def start_with(body: dict[str, Any]) -> Make:
    """A start that our own checks would not let pass."""

    def make(side: Side) -> Call[Any]:
        sent = {"workflow_id": side.workflow("ok_wait"), **body}
        return dataclasses.replace(start_of("ok_wait")(side), body=sent, subject=sent["workflow_id"])

    return make


def query(call: Call[Any], **more: Any) -> Make:
    return lambda _: dataclasses.replace(call, query={**call.query, **more})


UNAVAILABLE = (
    "These file ids are not available to attach — each must name a file uploaded by this organization that is not "
    "deleted and not already attached to another run: file_1"
)


@pytest.mark.parametrize(
    ("make", "status", "detail"),
    [
        (lambda _: api.get_run("wr_123"), 404, "Task run not found wr_123"),
        (lambda _: api.get_run("garbage id é"), 404, "Task run not found garbage id é"),
        (lambda _: api.get_run("wr_1/../wr_2"), 404, "Not Found"),
        (lambda _: api.get_run_of_deleted_workflow("wr_123"), 404, "Workflow not found for workflow run wr_123"),
        (lambda _: api.cancel_run("wr_123"), 404, "Run not found wr_123"),
        (lambda _: api.retry_run("wr_123"), 404, "Workflow run not found wr_123"),
        (lambda _: api.continue_run("wr_123"), 404, "Workflow run not found wr_123"),
        (lambda _: api.get_run_timeline("wr_123"), 404, "Run not found wr_123"),
        (lambda _: api.retry_webhook("wr_123"), 404, "Run wr_123 not found"),
        (lambda _: api.get_artifact_content("a_123"), 404, "Artifact not found a_123"),
        (lambda _: api.get_workflow("wpid_123"), 404, "Workflow not found. workflow_permanent_id=wpid_123"),
        (start_with({"workflow_id": "wpid_123"}), 404, "Workflow not found. workflow_permanent_id=wpid_123"),
        (start_with({"workflow_id": None}), 422, "workflow_id: Input should be a valid string"),
        (start_with({"parameters": "s3cr3t"}), 422, "parameters: Input should be a valid dictionary"),
        (
            start_with({"max_elapsed_time_minutes": 481}),
            422,
            "max_elapsed_time_minutes: Input should be less than or equal to 480",
        ),
        (start_with({"run_metadata": {"a": 1}}), 422, "run_metadata.a: Input should be a valid string"),
        (start_of("params_http"), 400, "Missing value for parameter name in workflow {params_http}"),
        (
            start_of("params_http", parameters={"name": None}),
            400,
            "Missing value for parameter name in workflow {params_http}",
        ),
        (
            start_of("params_http", parameters={"name": "x", "count": "abc"}),
            400,
            "Invalid workflow parameter. Expected parameter type: integer. Value: abc.",
        ),
        (
            start_of("ok_wait", webhook_url="not a url"),
            400,
            "Invalid webhook_url: malformed. Use an HTTP or HTTPS URL with at most 2083 characters.",
        ),
        (
            start_of("ok_wait", webhook_url="ftp://x/y"),
            400,
            "Invalid webhook_url: unsupported scheme. Use an HTTP or HTTPS URL with at most 2083 characters.",
        ),
        (
            start_of("ok_wait", browser_session_id="pbs_123"),
            404,
            "Browser session pbs_123 does not exist or is not live.",
        ),
        (start_of("ok_wait", {"file_ids": ["file_1"]}), 422, UNAVAILABLE),
        (query(api.list_runs(), page=0), 422, "page: Input should be greater than or equal to 1"),
        (query(api.list_runs(), page=101), 422, "page: Input should be less than or equal to 100"),
        (query(api.list_runs(), page_size=101), 422, "page_size: Input should be less than or equal to 100"),
        (
            lambda _: api.list_runs(search_key="ab"),
            422,
            "search_key: String should have at least 3 characters",
        ),
        (
            query(api.list_runs(), tags=[":x"]),
            400,
            "Invalid tag filter ':x'; expected 'label', 'key:*', or 'key:value'.",
        ),
        (lambda _: api.upload_file(b"x", retention_days=0), 422, "retention_days must be between 1 and 365"),
        (
            lambda _: api.cancel_runs(f"wr_{n}" for n in range(101)),
            422,
            "run_ids: List should have at most 100 items",
        ),
    ],
)
def test_what_is_wrong_is_refused_with_the_same_words(side: Side, make: Make, status: int, detail: str) -> None:
    kinds = {400: SkyvernRequestError, 404: SkyvernNotFoundError, 422: SkyvernRequestError}
    kind, actual_status, actual_detail = refused(side, make(side))
    # A bare "Not Found" names no run: every server says it of an address that it does not know.
    assert (kind, actual_status) == (SkyvernResponseError if detail == "Not Found" else kinds[status], status)
    expected = detail.format(params_http=side.workflow("params_http")) if "{" in detail else detail
    assert actual_detail.startswith(expected)
    assert "s3cr3t" not in actual_detail
    assert len(actual_detail) < len(expected) + 50


NONE = api.start_run(RunRequest.of({"workflow_id": "wpid_none"}))


def start_of_none(**more: Any) -> Call[Any]:
    """A start of a workflow that does not exist: what is right with it is found not to be there."""
    return dataclasses.replace(NONE, body={"workflow_id": "wpid_none", **more})


def runs(**more: Any) -> Call[Any]:
    return dataclasses.replace(api.list_runs(page=1), query={"page": 1, "page_size": 1, **more})


def metadata(entries: int = 1, key: int = 5, value: int = 1) -> Call[Any]:
    return start_of_none(run_metadata={f"{n:0{key}}": "v" * value for n in range(entries)})


def webhook(length: int) -> Call[Any]:
    return start_of_none(webhook_url="https://example.com/".ljust(length, "a"))


EDGES: list[tuple[Callable[[int], Call[Any]], int, int, str]] = [
    (lambda n: runs(workflow_permanent_id=["wpid_none"] * n), MOST_WORKFLOWS, 422, "at most 50 items"),
    (lambda n: runs(tags=[f"k:{i}" for i in range(n)]), MOST_TAGS, 422, "at most 20 items"),
    (lambda n: runs(page=n), LAST_RUNS_PAGE, 422, "less than or equal to 100"),
    (lambda n: runs(page_size=n), PAGE_SIZE, 422, "less than or equal to 100"),
    (lambda n: runs(search_key="abc", page=n, page_size=100), LAST_SEARCH_PAGE, 400, "first 1000 matches"),
    (
        lambda n: runs(workflow_permanent_id=["wpid_none"], page=n, page_size=100),
        LAST_SEARCH_PAGE,
        400,
        "first 1000 matches",
    ),
    (
        lambda n: dataclasses.replace(
            api.get_run_tags([]), query={"workflow_run_ids": ",".join(f"wr_{i}" for i in range(n))}
        ),
        MOST_RUNS_OF_TAGS,
        400,
        "At most 200",
    ),
    (lambda n: api.cancel_runs(f"wr_{i}" for i in range(n)), MOST_CANCELED, 422, "at most 100 items"),
    (lambda n: metadata(entries=n), MOST_METADATA, 422, "at most 20 entries"),
    (lambda n: metadata(key=n), LONGEST_METADATA_KEY, 422, "at most 64 characters"),
    (lambda n: metadata(value=n), LONGEST_METADATA_VALUE, 422, "at most 256 characters"),
    (lambda n: start_of_none(file_ids=["file_1"] * n), MOST_FILES, 422, "at most 50 items"),
    (lambda n: start_of_none(max_elapsed_time_minutes=n), LONGEST_RUN_MINUTES, 422, "less than or equal to 480"),
    (webhook, LONGEST_ADDRESS, 400, "malformed"),
    (lambda n: api.upload_file(b"x", "x", n), MOST_RETENTION_DAYS, 422, "between 1 and 365"),
]


@pytest.mark.parametrize(("make", "most", "status", "words"), EDGES, ids=lambda value: str(value)[:20])
def test_each_limit_is_where_we_think_it_is(
    side: Side, *, make: Callable[[int], Call[Any]], most: int, status: int, words: str
) -> None:
    refusal = ""
    try:
        side.send(make(most))
    except SkyvernAPIError as error:  # of a start: there is no such workflow, or no such file
        refusal = error.detail
    assert words not in refusal
    _, actual_status, detail = refused(side, make(most + 1))
    assert (actual_status, words in detail) == (status, True), detail


@pytest.mark.parametrize(
    ("make", "detail"),
    [
        (
            start_of("ok_wait", proxy_location="RESIDENTIAL_XX"),
            "proxy_location.str-enum[ProxyLocation]: Input should be 'RESI",
        ),
        (lambda _: api.list_runs(["bogus"]), "status.0: Input should be 'created', 'queued', 'running', 'paused'"),
        (
            lambda _: api.list_workflow_runs("wpid_123", ["bogus"]),
            "status.0: Input should be 'created', 'queued', 'running', 'failed'",
        ),
    ],
)
def test_a_value_that_is_none_of_the_known_ones_is_answered_with_them(side: Side, make: Make, detail: str) -> None:
    kind, status, actual_detail = refused(side, make(side))
    assert (kind, status) == (SkyvernRequestError, 422)
    assert actual_detail.startswith(detail)


@pytest.mark.parametrize(
    ("key", "detail"), [("", "Invalid credentials"), ("wrong", "Could not validate credentials")]
)
def test_a_key_that_is_missing_or_wrong_is_refused(side: Side, key: str, detail: str) -> None:
    with side.client_with_key(key) as client:
        for call in (api.probe(), api.get_run("wr_123"), start_of("ok_wait")(side)):
            with pytest.raises(SkyvernAuthError) as caught:
                client.send(call)
            assert (caught.value.status_code, caught.value.detail) == (403, detail)
        assert client.send(api.get_version()).version


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("count", value) for value in (7, " 7 ", True, 7.0, 3.7, "3.7", "many", [7], {"n": 7})),
        *(("ratio", value) for value in (0.5, 7, "0.5", True, "half", [0.5])),
        *(("flag", value) for value in (True, "TRUE", 1, "0", 1.0, "yes", [True])),
        *(("items", value) for value in ([1], {"a": 1}, "[1]", "5", 5, True, 0.5, "{not json")),
        *(("name", value) for value in ("", " ", 5, True, [1], {"a": 1})),
    ],
)
def test_a_value_fits_its_parameter_if_the_server_takes_it(side: Side, name: str, value: Any) -> None:
    definition = side.send(api.get_workflow(side.workflow("params_http")))
    given = {"name": "Ann", name: value}
    try:
        check_parameters(definition, given)
    except SkyvernConfigError:
        if name in ("count", "ratio") and isinstance(value, float | bool):
            return  # taken, and stored as text that Skyvern cannot read again (see below), or that depends on its SQL
        kind, status, detail = refused(side, start_of("params_http", parameters=given)(side))
        assert (kind, status) == (SkyvernRequestError, 400)
        named = name_refused(SkyvernRequestError(detail, detail=detail), given)
        assert f"parameters.{name}: Invalid workflow parameter" in str(named)
    else:
        run = side.start("params_http", **given)
        side.send(api.cancel_run(run.run_id))


def test_a_whole_number_with_a_point_breaks_its_run(real: Side) -> None:
    """Why the check refuses what the start takes."""
    run = real.start("params_http", name="Ann", count=7.0)
    expected = "Invalid workflow parameter. Expected parameter type: integer. Value: 7.0."
    assert refused(real, api.cancel_run(run.run_id)) == (SkyvernRequestError, 400, expected)


@pytest.mark.parametrize("blank", ["", " ", None])
def test_blank_text_is_a_missing_value_where_text_is_not_asked_for(side: Side, blank: str | None) -> None:
    kind, status, detail = refused(side, start_of("params_http", parameters={"name": None, "count": blank})(side))
    assert (kind, status) == (SkyvernRequestError, 400)
    missing = "name" if blank is None else "count, name"  # null falls back to the default, blank text does not
    assert detail.startswith(f"Missing value for parameter {missing} in workflow")


def test_the_definition_of_a_workflow_tells_its_parameters(side: Side) -> None:
    definition = side.send(api.get_workflow(side.workflow("params_http")))
    told = {
        parameter.key: (parameter.workflow_parameter_type, parameter.default_value)
        for parameter in definition.parameters
        if parameter.is_settable
    }
    assert told == {
        "name": ("string", None),
        "count": ("integer", 3),
        "flag": ("boolean", False),
        "ratio": ("float", 0.5),
        "items": ("json", ["a", "b"]),
    }


def test_a_run_is_found_by_its_metadata_in_both_lists_at_once(side: Side) -> None:
    key = uuid.uuid4().hex
    run = side.start("ok_wait", {"run_metadata": {"key": key, "odd": "a b/c+é%*"}})
    workflow = side.workflow("ok_wait")
    found = [
        side.send(api.list_runs(tags={"key": key})),
        side.send(api.find_runs({"key": key})),
        side.send(api.find_runs({"key": key, "odd": "a b/c+é%*"})),
        side.send(api.list_workflow_runs(workflow, tags={"key": key})),
    ]
    assert [[row.run_id for row in rows] for rows in found] == [[run.run_id]] * 4
    assert {row.workflow_permanent_id for rows in found for row in rows} == {workflow}
    assert {row.title for rows in found for row in rows} == {"rig ok_wait"}
    for tags in ({"key": "nope"}, {"key": key, "other": "x"}):
        assert side.send(api.list_runs(tags=tags)) == []
        assert side.send(api.list_workflow_runs(workflow, tags=tags)) == []


def test_the_tags_of_runs_are_their_metadata(side: Side) -> None:
    tagged, bare = side.start("ok_wait", {"run_metadata": {"a": "1", "b": "x y"}}), side.start("ok_wait")
    tags = side.send(api.get_run_tags([tagged.run_id, bare.run_id, "wr_123"]))
    own = {key: value for key, value in tags.of(tagged.run_id).items() if not key.startswith("skyvern.")}
    assert own == {"a": "1", "b": "x y"}
    assert "a" not in tags.of(bare.run_id)
    assert tags.of("wr_123") == {}


def test_lists_tell_the_status_that_the_run_tells(side: Side) -> None:
    key = uuid.uuid4().hex
    metadata = {"run_metadata": {"key": key}}
    running = side.see(side.start("long_wait", metadata), "running")
    failed = side.see(side.start("fail_http", metadata), "failed")
    # Under load the list is a moment behind.
    listed = {running.run_id: ("running", False), failed.run_id: ("failed", True)}
    side.until(
        lambda: (
            {row.run_id: (row.status, row.is_final) for row in side.send(api.list_runs(tags={"key": key}))} == listed
        )
    )
    [row] = side.send(api.list_workflow_runs(side.workflow("fail_http"), tags={"key": key}))
    assert row.failure_reason == failed.failure_reason
    side.send(api.cancel_run(running.run_id))


def test_lists_can_be_narrowed_to_statuses_workflows_and_times(side: Side) -> None:
    key = uuid.uuid4().hex
    running = side.see(side.start("long_wait", {"run_metadata": {"key": key}}, note=f"note-{key}"), "running")
    failed = side.see(side.start("fail_http", {"run_metadata": {"key": key}}), "failed")
    long_wait = side.workflow("long_wait")

    def ids(call: Call[Any]) -> list[str]:
        return [row.run_id for row in side.send(call)]

    side.until(lambda: ids(api.list_runs(["failed", "completed"], tags={"key": key})) == [failed.run_id])
    assert ids(api.list_runs(workflow_id=long_wait, tags={"key": key})) == [running.run_id]
    assert ids(api.list_runs(search_key=f"note-{key}")) == [running.run_id]
    assert ids(api.list_workflow_runs(long_wait, ["running"], tags={"key": key})) == [running.run_id]
    assert ids(api.list_workflow_runs(long_wait, ["failed"], tags={"key": key})) == []
    assert running.created_at is not None
    early, late = (running.created_at + timedelta(seconds=seconds) for seconds in (-1, 3600))
    assert running.run_id in ids(api.list_workflow_runs(long_wait, created_at_start=early))
    assert ids(api.list_workflow_runs(long_wait, created_at_start=late)) == []
    assert running.run_id not in ids(api.list_workflow_runs(long_wait, created_at_end=running.created_at))
    soon = running.created_at + timedelta(seconds=1)
    assert ids(
        api.list_workflow_runs(long_wait, tags={"key": key}, created_at_start=running.created_at, created_at_end=soon)
    ) == [running.run_id]
    side.send(api.cancel_run(running.run_id))


def test_pages_hold_every_run_once_newest_first(side: Side) -> None:
    key = uuid.uuid4().hex
    runs = [side.start("ok_http", {"run_metadata": {"key": key}}).run_id for _ in range(5)]
    for call in (
        api.list_runs(tags={"key": key}),
        api.list_workflow_runs(side.workflow("ok_http"), tags={"key": key}),
    ):
        pages = [
            side.send(dataclasses.replace(call, query={**call.query, "page": page, "page_size": 2}))
            for page in (1, 2, 3, 4)
        ]
        assert [len(page) for page in pages] == [2, 2, 1, 0]
        assert [row.run_id for page in pages for row in page] == runs[::-1]


def test_an_unknown_workflow_has_no_runs_and_an_unknown_run_no_artifacts(side: Side) -> None:
    assert side.send(api.list_workflow_runs("wpid_123")) == []
    assert side.send(api.list_run_artifacts("wr_123")) == []


def test_a_workflow_is_found_by_title_and_by_id(side: Side) -> None:
    workflow = side.workflow("ok_http")
    found = side.send(api.list_workflows("rig ok_http"))
    assert workflow in {row.workflow_permanent_id for row in found}
    assert {row.title for row in found} == {"rig ok_http"}
    one = side.send(api.get_workflow(workflow))
    assert (one.workflow_permanent_id, one.title, one.version) == (workflow, "rig ok_http", 1)
    assert one.workflow_id.startswith("w_")
    assert side.send(api.list_workflows("no such title")) == []
    assert len(side.send(api.probe())) == 1


def test_a_file_that_a_run_has_saved_can_be_downloaded(side: Side) -> None:
    # A moment after its end, a run does not know the artifact of its file yet.
    stored = side.start("file_out")
    run = side.see(stored, "completed", when=lambda run: run.downloaded_files[0].artifact_id)
    [file] = run.downloaded_files
    assert (file.filename, file.file_size) == ("report.txt", 11)
    artifacts = {item.artifact_id: item for item in side.send(api.list_run_artifacts(run.run_id))}
    assert artifacts[str(file.artifact_id)].artifact_type == "download"
    assert side.send(api.get_artifact_content(str(file.artifact_id))) == b"hello file\n"


def test_the_timeline_tells_the_blocks_newest_first(side: Side) -> None:
    run = side.completed("terminate")
    timeline = side.send(api.get_run_timeline(run.run_id))
    assert [item.type for item in timeline] == ["block", "block"]
    assert [item.block.label for item in timeline if item.block] == ["stop", "pause"]
    assert [item.block.status for item in timeline if item.block] == ["terminated", "completed"]


def test_a_webhook_can_be_sent_again_when_the_run_is_over(side: Side) -> None:
    run = side.completed("ok_http")
    expected = (SkyvernRequestError, 400, "No webhook URL configured for the run.")
    assert refused(side, api.retry_webhook(run.run_id)) == expected
    expected = (SkyvernRequestError, 400, "Invalid url: malformed.")
    assert refused(side, api.retry_webhook(run.run_id, "not a url")) == expected
    replay = side.send(api.retry_webhook(run.run_id, side.hook_url))
    assert (replay.run_id, replay.target_webhook_url, replay.status_code) == (run.run_id, side.hook_url, 200)
    running = side.see(side.start("long_wait"), "running")
    expected = (
        SkyvernRequestError,
        400,
        f"Run {running.run_id} has not reached a terminal state (status=running).",
    )
    assert refused(side, api.retry_webhook(running.run_id)) == expected
    side.send(api.cancel_run(running.run_id))


def test_a_file_can_be_uploaded_and_used_by_a_run(side: Side) -> None:
    kept = side.send(api.upload_file(b"%PDF \x00", "cv.pdf"))
    assert str(kept.file_id).startswith("file_")
    assert kept.s3_uri.endswith("cv.pdf")
    assert kept.expires_at is None
    expiring = side.send(api.upload_file(b"x", "x.txt", retention_days=3))
    assert expiring.expires_at is not None
    run = side.start("ok_wait", {"file_ids": [kept.file_id]})
    assert run.status == "created"


def test_the_version_is_told(side: Side) -> None:
    assert side.send(api.get_version()).version.count(".") == 2


def test_times_are_utc(side: Side) -> None:
    created = side.start("ok_wait").created_at
    assert created is not None
    assert created.utcoffset() == timedelta(0)
