"""Older servers: what they would drop is refused before, what they ignore is done here, what they lack is said."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_skyvern.client import api, browser_api, credential_api, schedule_api, task_api, workflow_api
from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.client.run_request import RunRequest
from airflow_skyvern.client.sender import AsyncSkyvernClient, SkyvernClient
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.client.versions import (
    BEFORE_VERSIONS,
    FEATURES,
    FLOOR,
    NEWEST,
    described,
    feature_of,
    is_older,
    missing_in,
    version_of_server,
)
from airflow_skyvern.exceptions import (
    SkyvernAPIError,
    SkyvernAuthError,
    SkyvernRequestError,
    SkyvernServerError,
    SkyvernTooOld,
)
from airflow_skyvern.testing.fake.skyvern import API_KEY, FakeSkyvern
from dev.constraints import SKYVERN, skyvern_name

OLD = ("1.0.30", "1.0.40", "1.0.45")
ALL = (*OLD, "1.0.48", "1.0.55", "1.0.56")
Connected = Callable[[str], tuple[FakeSkyvern, SkyvernClient]]


def client_of(fake: FakeSkyvern) -> SkyvernClient:
    transport = httpx.MockTransport(fake.handle)
    return SkyvernClient(Settings(API_KEY), retry=RetryPolicy(attempts=1), transport=transport)


@pytest.fixture
def connected() -> Iterator[Connected]:
    clients: list[SkyvernClient] = []

    def connect(version: str) -> tuple[FakeSkyvern, SkyvernClient]:
        fake = FakeSkyvern(version)
        clients.append(client_of(fake))
        return fake, clients[-1]

    yield connect
    for client in clients:
        client.close()


def start(fake: FakeSkyvern, **options: Any) -> Any:
    return api.start_run(RunRequest.of({"workflow_id": fake.workflow()}, options))


# What is dropped in silence.

DROPPED = {
    "file_ids": (["file_1"], "1.0.55"),
    "browser_type": ("msedge", "1.0.55"),
    "reuse_browser_session": (True, "1.0.55"),
    "start_fresh_browser": (True, "1.0.48"),
    "max_elapsed_time_minutes": (30, "1.0.40"),
    "cdp_connect_headers": ({"a": "b"}, "1.0.40"),
}


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize("option", DROPPED)
def test_an_option_that_a_server_would_drop_starts_nothing(connected: Connected, version: str, option: str) -> None:
    fake, client = connected(version)
    value, since = DROPPED[option]
    fake.uploads["file_1"] = ("a.txt", b"")
    call = start(fake, **{option: value})
    if not is_older(version, since) and not (version == "1.0.30" and is_older(BEFORE_VERSIONS, since)):
        assert client.send(call).status == "created"
        return
    named = BEFORE_VERSIONS if version == "1.0.30" else version
    with pytest.raises(SkyvernTooOld, match=rf"Skyvern {named} is too old for .*needs Skyvern {since}") as caught:
        client.send(call)
    assert option in str(caught.value)
    assert not caught.value.transient
    assert fake.runs == {}


def test_the_version_is_asked_for_once_and_only_by_calls_that_need_it(connected: Connected) -> None:
    fake, client = connected("1.0.56")
    client.send(start(fake))
    assert fake.sent("GET", "/v1/version") == []
    for _ in range(3):
        client.send(start(fake, max_elapsed_time_minutes=5))
        client.send(start(fake, browser_type="msedge"))
    assert len(fake.sent("GET", "/v1/version")) == 1


def test_an_upgrade_is_noticed_where_something_was_refused(connected: Connected) -> None:
    fake, client = connected("1.0.48")
    call = start(fake, browser_type="msedge")
    with pytest.raises(SkyvernTooOld):
        client.send(call)
    fake.version = "1.0.55"
    assert client.send(call).status == "created"


@pytest.mark.parametrize("version", ["4f1c2d9e", "unknown", "nightly 1.0.3"])
def test_a_version_that_is_no_number_proves_nothing(connected: Connected, version: str) -> None:
    fake, client = connected("1.0.56")
    fake.version = version
    assert client.send(start(fake, browser_type="msedge")).status == "created"
    client.send(start(fake, browser_type="msedge"))
    assert len(fake.sent("GET", "/v1/version")) == 1


@pytest.mark.parametrize(
    "answer", [httpx.Response(503), httpx.ConnectError("refused"), httpx.Response(200, html="<")]
)
def test_a_version_that_cannot_be_read_does_not_end_a_task(connected: Connected, answer: Any) -> None:
    fake, client = connected("1.0.56")
    fake.next("GET", "/v1/version", answer)
    assert client.send(start(fake, browser_type="msedge")).status == "created"


async def test_an_event_loop_asks_too() -> None:
    fake = FakeSkyvern("1.0.45")
    transport = httpx.MockTransport(fake.handle)
    async with AsyncSkyvernClient(Settings(API_KEY), retry=RetryPolicy(attempts=1), transport=transport) as client:
        with pytest.raises(SkyvernTooOld):
            await client.send(start(fake, file_ids=["file_1"]))
        assert (await client.send(start(fake))).status == "created"
    assert len(fake.sent("GET", "/v1/version")) == 1


POLICY = {"title": "t", "workflow_definition": {"blocks": [], "parameters": [], "retry_policy": {"max_retries": 1}}}
OTHERS: list[tuple[Any, str]] = [
    (workflow_api.create_workflow({"title": "t"}, idempotency_key="k"), "1.0.55"),
    (workflow_api.create_workflow(POLICY), "1.0.55"),
    (workflow_api.create_workflow({"title": "t", "mask_secrets": True}), "1.0.48"),
    (workflow_api.update_workflow("wpid_1", POLICY), "1.0.55"),
    (workflow_api.update_workflow("wpid_1", {"title": "t"}, expected_version=1), "1.0.56"),
    (api.upload_file(b"x", "a.txt", retention_days=3), "1.0.55"),
    (browser_api.create_browser_session(url="https://a.example.com"), "1.0.48"),
    (browser_api.create_browser_session(generate_browser_profile=True), "1.0.40"),
    (browser_api.list_browser_profiles("shop"), "1.0.40"),
    (credential_api.list_credentials("shop"), "1.0.40"),
    (api.list_workflows(tags={"a": "b"}), "1.0.40"),
    (task_api.run_task("p", file_ids=["file_1"]), "1.0.55"),
    (task_api.run_task("p", browser_profile_id="bp_1"), "1.0.48"),
    (task_api.run_login_task(url="u", start_fresh_browser=True), "1.0.48"),
    (task_api.run_download_task("g", cdp_connect_headers={"a": "b"}), "1.0.40"),
]


@pytest.mark.parametrize(("call", "since"), OTHERS)
def test_other_calls_that_a_server_would_carry_out_by_half_are_not_sent(
    connected: Connected, call: Any, since: str
) -> None:
    older = max((version for version in ALL if is_older(version, since)), key=ALL.index)
    fake, client = connected(older)
    with pytest.raises(SkyvernTooOld, match=f"needs Skyvern {since} or newer. Nothing was sent"):
        client.send(call)
    assert {seen.path for seen in fake.requests} <= {"/v1/version", "/v1/workflows"}
    assert all(seen.method == "GET" for seen in fake.requests)


# What is ignored.


@pytest.mark.slow
@pytest.mark.parametrize("version", ALL)
def test_no_list_of_a_workflow_has_foreign_runs(connected: Connected, version: str) -> None:
    fake, client = connected(version)
    ours, foreign = fake.workflow(), fake.workflow()
    for workflow in (ours, foreign) * 60:
        client.send(api.start_run(RunRequest.of({"workflow_id": workflow})))
    for call in (api.list_runs(workflow_id=ours), api.list_runs(workflow_ids=[ours])):
        rows = client.send(call)
        assert {row.workflow_permanent_id for row in rows} == {ours}
        assert len(rows) == 60
    page = client.send(api.list_runs(workflow_id=ours, page=1))
    assert {row.workflow_permanent_id for row in page} == {ours}


@pytest.mark.parametrize("version", ALL)
@pytest.mark.parametrize(
    "call",
    [
        api.find_runs({"a": "1"}),
        api.list_runs(tags={"a": "1"}),
        api.list_runs(tags={"a": "1"}, page=1),
        api.list_workflow_runs("wpid_x", tags={"a": "1"}),
    ],
)
def test_no_search_by_tag_has_foreign_runs(connected: Connected, version: str, call: Any) -> None:
    fake, client = connected(version)
    client.send(start(fake, run_metadata={"a": "2"}))
    if version not in OLD:
        assert client.send(call) == client.send(call) == []
        assert len([seen for seen in fake.sent("GET", "/v1/runs") if seen.query.get("tags") == [":x"]]) == 1
        return
    with pytest.raises(SkyvernTooOld, match="is too old for run tags"):
        client.send(call)


@pytest.mark.parametrize("version", [one for one in ALL if one != "1.0.30"])
def test_no_list_by_time_has_runs_of_another_time(connected: Connected, version: str) -> None:
    fake, client = connected(version)
    workflow = fake.workflow()
    runs = [client.send(api.start_run(RunRequest.of({"workflow_id": workflow}))) for _ in range(3)]
    middle = runs[1].created_at
    assert middle is not None
    listed = client.send(api.list_workflow_runs(workflow, created_at_start=middle))
    assert [row.run_id for row in listed] == [runs[2].run_id, runs[1].run_id]
    listed = client.send(api.list_workflow_runs(workflow, created_at_end=middle))
    assert [row.run_id for row in listed] == [runs[0].run_id]
    assert client.send(api.list_workflow_runs(workflow, created_at_start=middle + timedelta(days=1))) == []


def test_a_list_without_pages_ends(connected: Connected) -> None:
    fake, client = connected("1.0.30")
    page = [{"browser_profile_id": f"bp_{n}", "name": "n", "organization_id": "o_1"} for n in range(100)]
    fake.next("GET", "/v1/browser_profiles", *[httpx.Response(200, json=page)] * 2)
    assert len(client.send(browser_api.list_browser_profiles())) == 100


# What is refused or fails.


@pytest.mark.parametrize("version", ALL)
def test_active_runs_are_listed_also_where_paused_is_no_status(connected: Connected, version: str) -> None:
    fake, client = connected(version)
    running = fake.run(plan=("running",))
    fake.run(plan=("paused",))
    for _ in range(2):
        assert running in [row["run_id"] for row in client.send(api.list_active_runs(1))]
        assert running in [row.run_id for row in client.send(api.list_runs(status=["running", "paused"]))]
    asked = [seen for seen in fake.sent("GET", "/v1/runs") if "paused" in seen.query["status"]]
    assert len(asked) == (1 if version in OLD else 4)


def test_a_list_of_paused_runs_alone_is_refused_and_not_empty(connected: Connected) -> None:
    _, client = connected("1.0.45")
    for _ in range(2):
        with pytest.raises(SkyvernRequestError, match="Input should be 'created'"):
            client.send(api.list_runs(status=["paused"]))


@pytest.mark.parametrize("version", ALL)
def test_a_paused_run_is_read(connected: Connected, version: str) -> None:
    fake, client = connected(version)
    run_id = fake.run(plan=("paused",))
    assert client.send(api.get_run(run_id)).status == "paused"
    snapshot = client.send(api.get_run_snapshot(run_id))
    assert (snapshot.run_id, snapshot.status, snapshot.is_final) == (run_id, "paused", False)


def test_another_failure_is_not_hidden_by_the_other_way(connected: Connected) -> None:
    fake, client = connected("1.0.45")
    run_id = fake.run(plan=("running",))
    failure = httpx.Response(500, json={"error": "Unexpected error: ValueError"})
    fake.next("GET", f"/v1/runs/{run_id}", failure)
    fake.next("GET", f"/v1/workflows/runs/{run_id}", httpx.Response(404, json={"detail": "no"}))
    with pytest.raises(SkyvernServerError, match="ValueError"):
        client.send(api.get_run(run_id))
    fake.next("GET", f"/v1/runs/{run_id}", httpx.Response(500, json={"error": "Unexpected error: KeyError"}))
    with pytest.raises(SkyvernServerError, match="KeyError"):
        client.send(api.get_run(run_id))


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1.0.40", "1.0.45", "1.0.48", "1.0.56"])
@pytest.mark.parametrize("enabled", [True, False])
def test_a_schedule_that_is_replaced_is_as_was_said(connected: Connected, version: str, *, enabled: bool) -> None:
    fake, client = connected(version)
    workflow = fake.workflow()
    made = client.send(schedule_api.create_schedule(workflow, "0 3 * * *", enabled=enabled)).schedule
    update = schedule_api.update_schedule(workflow, made.workflow_schedule_id, "0 4 * * *", enabled=enabled)
    assert client.send(update).schedule.enabled is enabled


# What is said.

LACKING: list[tuple[Any, str, str]] = [
    (api.get_run_tags(["wr_1"]), "1.0.45", "run tags came with version 1.0.48"),
    (api.list_run_tags("wr_1"), "1.0.45", "run tags came with version 1.0.48"),
    (api.apply_run_tags("wr_1", {"a": "b"}), "1.0.45", "run tags came with version 1.0.48"),
    (api.get_run_tag_history("wr_1"), "1.0.40", "run tags came with version 1.0.48"),
    (api.cancel_runs(["wr_1"]), "1.0.30", "cancels of many runs at once came with version 1.0.40"),
    (api.retry_run("wr_1"), "1.0.30", "came with version 1.0.40"),
    (api.list_workflow_runs("wpid_1"), "1.0.30", "lists of one workflow's runs came with version 1.0.40"),
    (api.get_version(), "1.0.30", "came with version 1.0.40"),
    (workflow_api.get_workflow_tags("wpid_1"), "1.0.30", "tags of workflows came with version 1.0.40"),
    (workflow_api.get_tags_of_workflows(["wpid_1"]), "1.0.30", "tags of workflows came with version 1.0.40"),
    (browser_api.list_browser_types(), "1.0.48", "came with version 1.0.55"),
    (browser_api.extend_browser_session("pbs_1", 5), "1.0.48", "came with version 1.0.55"),
    (browser_api.get_browser_profile_usage("bp_1"), "1.0.45", "came with version 1.0.48"),
    (schedule_api.cancel_schedule("wpid_1", "wfs_1"), "1.0.48", "came with version 1.0.55"),
    (api.delete_file("file_1"), "1.0.48", "came with version 1.0.55"),
]


@pytest.mark.parametrize(("call", "version", "words"), LACKING)
def test_a_missing_endpoint_of_an_old_server_is_no_wrong_address(
    connected: Connected, call: Any, version: str, words: str
) -> None:
    _, client = connected(version)
    with pytest.raises(SkyvernAPIError) as caught:
        client.send(call)
    assert words in str(caught.value)
    assert "There is no Skyvern API" not in str(caught.value)


def test_an_endpoint_that_all_versions_have_is_missing_at_a_wrong_address(connected: Connected) -> None:
    fake, client = connected("1.0.56")
    fake.next("GET", "/v1/runs/wr_1", httpx.Response(404, json={"detail": "Not Found"}))
    with pytest.raises(SkyvernAPIError, match="There is no Skyvern API at this base URL"):
        client.send(api.get_run("wr_1"))


def test_a_server_that_does_not_tell_its_version_is_an_old_one_if_it_is_one(connected: Connected) -> None:
    fake, client = connected("1.0.30")
    assert client.ask(version_of_server()) == BEFORE_VERSIONS
    fake.api_key = "another"
    assert client.ask(version_of_server()) == BEFORE_VERSIONS
    fake.next("GET", "/v1/workflows", httpx.Response(404, json={"detail": "Not Found"}))
    found = client.ask(version_of_server())
    assert isinstance(found, SkyvernAPIError)
    assert not isinstance(found, SkyvernAuthError)


def test_the_newest_version_lacks_nothing_and_each_older_one_more() -> None:
    counts = [len(missing_in(version)) for version in (BEFORE_VERSIONS, *ALL[1:])]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 0
    assert "too old" not in described("1.0.56")
    assert "too old for: workflow files; refused starts" in described("1.0.55")
    assert missing_in("a git hash") == []


def test_each_route_of_the_table_belongs_to_one_feature() -> None:
    routes = [route for feature in FEATURES.values() for route in feature.routes]
    assert len(routes) == len(set(routes))
    assert feature_of("GET", "/v1/runs/wr_1") is None
    assert feature_of("GET", "/v1/workflows/runs/wr_1") is None
    assert feature_of("GET", "/v1/workflows/wpid_1/runs") is FEATURES["WORKFLOW_RUNS"]


def test_the_documentation_names_each_feature_and_its_version() -> None:
    document = (Path(__file__).parents[3] / "docs" / "compatibility.md").read_text()
    rows = re.findall(r"^\| (.+) \| (1\.0\.\d+) \|$", document, re.MULTILINE)
    assert sorted(rows) == sorted((one.what, one.since) for one in FEATURES.values())


def test_what_the_project_is_tested_with_is_said_alike_everywhere() -> None:
    assert (SKYVERN[0], SKYVERN[-1]) == (FLOOR, NEWEST)
    assert FakeSkyvern().version == NEWEST
    names = {path.name for path in (Path(__file__).parents[3] / "constraints").glob("skyvern*.txt")}
    assert names == {f"{skyvern_name(version)}.txt" for version in SKYVERN}
