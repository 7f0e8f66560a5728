from __future__ import annotations

import time

import httpx
import pytest

from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.client.run_request import RunRequest
from airflow_skyvern.client.sender import SkyvernClient
from airflow_skyvern.client.session import checked
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.exceptions import SkyvernOvertaken, SkyvernServerError
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.runs import cancel
from airflow_skyvern.runs.cancel import cancel_and_fetch, cancel_if_active, cancel_within_budget
from airflow_skyvern.runs.key import GROUP_TAG, RunKey
from airflow_skyvern.testing.fake.skyvern import API_KEY, LOST, FakeSkyvern, Scripted
from tests.support.log_lines import LogLines

KEY = RunKey.of(
    dag_id="d", run_id="r", task_id="t", map_index=-1, max_tries=0, request=RunRequest.of({"workflow_id": "w"})
)


@pytest.fixture
def client(fake: FakeSkyvern) -> SkyvernClient:
    transport = httpx.MockTransport(fake.handle)
    return SkyvernClient(Settings(API_KEY), transport=transport, retry=RetryPolicy(attempts=1))


@pytest.fixture
def ours(fake: FakeSkyvern) -> str:
    """A run that carries our key."""
    run_id = fake.run(plan=("running",))
    fake.runs[run_id].tags = KEY.tags
    return run_id


def test_a_known_run_is_canceled_and_seen_to_be(fake: FakeSkyvern, client: SkyvernClient, ours: str) -> None:
    log = LogLines()
    cancel_within_budget(client.send, ours, None, log)
    assert [f"{seen.method} {seen.path}" for seen in fake.requests] == [
        f"GET /v1/runs/{ours}",
        f"POST /v1/runs/{ours}/cancel",
        f"GET /v1/runs/{ours}",
    ]
    assert log.text == f"Skyvern run {ours}: canceled, as the task was killed\n"


def test_a_run_whose_start_is_under_way_is_found_by_its_key(
    fake: FakeSkyvern, client: SkyvernClient, ours: str
) -> None:
    stranger = fake.run(plan=("running",))
    cancel_within_budget(client.send, None, KEY.group, LogLines())
    assert (fake.status(ours), fake.status(stranger)) == ("canceled", "created")


@pytest.mark.slow
def test_a_run_that_appears_a_moment_later_is_found(fake: FakeSkyvern, client: SkyvernClient, ours: str) -> None:
    fake.next("GET", "/v1/runs", httpx.Response(200, json=[]))
    cancel_within_budget(client.send, None, KEY.group, LogLines())
    assert fake.status(ours) == "canceled"


def test_a_run_with_another_key_is_not_canceled_though_the_server_shows_it(
    fake: FakeSkyvern, client: SkyvernClient, ours: str
) -> None:
    stranger = fake.run(plan=("running",))
    fake.runs[stranger].tags = {GROUP_TAG: "another"}
    rows = [{"run_id": run_id, "status": "running"} for run_id in (stranger, ours)]
    fake.next("GET", "/v1/runs", httpx.Response(200, json=rows))
    cancel_within_budget(client.send, None, KEY.group, LogLines())
    assert (fake.status(ours), fake.status(stranger)) == ("canceled", "created")


@pytest.mark.slow
def test_a_cancel_is_tried_again_within_the_seconds_there_are(
    fake: FakeSkyvern, client: SkyvernClient, ours: str
) -> None:
    fake.next("POST", ".*/cancel", httpx.Response(502))
    cancel_within_budget(client.send, ours, None, LogLines())
    assert fake.status(ours) == "canceled"
    assert len(fake.sent("POST", ".*/cancel")) == 2


@pytest.mark.slow
def test_a_cancel_whose_answer_is_lost_is_not_sent_again(fake: FakeSkyvern, client: SkyvernClient, ours: str) -> None:
    fake.next("POST", ".*/cancel", LOST)
    log = LogLines()
    cancel_within_budget(client.send, ours, None, log)
    assert len(fake.sent("POST", ".*/cancel")) == 1
    assert fake.status(ours) == "canceled"


@pytest.mark.parametrize("status", ["completed", "failed", "canceled"])
def test_a_run_that_has_ended_is_not_canceled_as_that_would_repeat_its_webhook(
    fake: FakeSkyvern, client: SkyvernClient, status: str
) -> None:
    run_id, log = fake.run(plan=(status,)), LogLines()
    cancel_within_budget(client.send, run_id, None, log)
    assert cancel_and_fetch(client.send, run_id).status == status
    assert cancel_if_active(client.send, run_id, None) == []
    assert fake.sent("POST", ".*") == []
    assert log.text == f"Skyvern run {run_id}: has ended, so there is nothing to cancel\n"


def test_a_run_that_skyvern_will_try_again_has_not_ended(fake: FakeSkyvern, client: SkyvernClient) -> None:
    run_id = fake.run(plan=({"status": "failed", "retry_pending": True},))
    cancel_within_budget(client.send, run_id, None, LogLines())
    assert len(fake.sent("POST", ".*/cancel")) == 1


@pytest.mark.parametrize("answer", [httpx.Response(502), httpx.Response(404), LOST, httpx.ConnectError("refused")])
def test_a_run_that_cannot_be_fetched_is_canceled_nevertheless(
    fake: FakeSkyvern, client: SkyvernClient, ours: str, answer: Scripted
) -> None:
    fake.next("GET", "/v1/runs/.*", answer)
    cancel_within_budget(client.send, ours, None, LogLines(), budget=0.1)
    assert fake.status(ours) == "canceled"


@pytest.mark.slow
@pytest.mark.parametrize("answer", [httpx.Response(502), httpx.Response(403), LOST, httpx.ConnectError("refused")])
def test_a_run_that_ends_while_it_cannot_be_fetched_is_not_canceled(
    fake: FakeSkyvern, client: SkyvernClient, answer: Scripted
) -> None:
    """Its cancel would be accepted the moment the server is back, and would repeat its webhook."""
    run_id = fake.run(plan=("completed",))
    fake.next("GET", "/v1/runs/.*", answer)
    cancel_within_budget(client.send, run_id, None, LogLines())
    fake.next("GET", "/v1/runs/.*", answer)
    assert cancel_and_fetch(client.send, run_id, sleep=lambda _: None).status == "completed"
    assert fake.sent("POST", ".*/cancel") == []


@pytest.mark.slow
def test_a_run_that_stays_unreadable_is_canceled_within_the_patience(
    fake: FakeSkyvern, client: SkyvernClient, ours: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancel, "FETCH_PATIENCE", 0.2)
    fake.next("GET", "/v1/runs/.*", *[httpx.Response(502)] * 3)
    assert cancel_and_fetch(client.send, ours, sleep=lambda _: time.sleep(0.1)).status == "canceled"


def test_the_run_that_skyvern_has_started_in_place_of_a_failed_one_is_canceled_too(
    fake: FakeSkyvern, client: SkyvernClient, ours: str
) -> None:
    failed = fake.run(plan=("failed",))
    fake.runs[failed].tags = KEY.tags
    cancel_within_budget(client.send, failed, KEY.group, LogLines(), start_sent=False)
    assert fake.status(ours) == "canceled"
    assert [seen.path for seen in fake.sent("POST", ".*")] == [f"/v1/runs/{ours}/cancel"]


def test_all_runs_of_a_group_are_canceled(fake: FakeSkyvern, client: SkyvernClient, ours: str) -> None:
    twin = fake.run(plan=("running",))
    fake.runs[twin].tags = KEY.tags
    cancel_within_budget(client.send, None, KEY.group, LogLines())
    assert (fake.status(ours), fake.status(twin)) == ("canceled", "canceled")


def test_a_search_that_may_find_nothing_ends_with_its_answer(fake: FakeSkyvern, client: SkyvernClient) -> None:
    log = LogLines()
    cancel_within_budget(client.send, None, KEY.group, log, start_sent=False)
    assert len(fake.requests) == 1
    assert log.text == "The task was killed; no Skyvern run of it is active\n"


@pytest.fixture
def hook(skyvern: FakeSkyvern) -> SkyvernHook:
    return SkyvernHook(retry=RetryPolicy(attempts=1))


def test_a_cancel_with_patience_goes_on_while_skyvern_is_away(skyvern: FakeSkyvern, hook: SkyvernHook) -> None:
    run_id = skyvern.run(plan=("running",))
    skyvern.next("POST", ".*/cancel", httpx.Response(503), httpx.Response(502), LOST)
    naps: list[float] = []
    assert cancel_and_fetch(hook.send, run_id, 60, naps.append).status == skyvern.status(run_id) == "canceled"
    assert len(naps) == 3


def test_a_cancel_that_its_try_has_no_right_to_any_more_is_not_sent_and_not_tried_again(
    skyvern: FakeSkyvern, hook: SkyvernHook
) -> None:
    """The process was stopped after it had decided to cancel; what a try may not do is checked at the wire."""
    run_id = skyvern.run(plan=("running",))
    naps: list[float] = []

    def overtaken() -> None:
        raise SkyvernOvertaken("another try")

    with pytest.raises(SkyvernOvertaken):
        cancel_and_fetch(checked(hook.send, overtaken), run_id, 60, naps.append)
    assert (skyvern.sent("POST", ".*/cancel"), naps, skyvern.status(run_id)) == ([], [], "running")


def test_a_cancel_with_patience_ends_with_its_patience(skyvern: FakeSkyvern, hook: SkyvernHook) -> None:
    skyvern.next("POST", ".*/cancel", httpx.Response(503))
    with pytest.raises(SkyvernServerError):
        cancel_and_fetch(hook.send, skyvern.run(), -1)
    assert len(skyvern.sent("POST", ".*/cancel")) == 1


def test_what_a_task_left_is_canceled_also_if_it_appears_late(skyvern: FakeSkyvern, hook: SkyvernHook) -> None:
    run_id = skyvern.run(plan=("running",))
    skyvern.runs[run_id].tags = KEY.tags
    skyvern.next("GET", "/v1/runs", httpx.Response(200, json=[]), LOST)
    [left] = cancel_if_active(hook.send, None, KEY.group, lambda _: None)
    assert (left.run_id, skyvern.status(run_id)) == (run_id, "canceled")


@pytest.mark.slow
@pytest.mark.parametrize("group", [None, "nobody's"])
def test_a_task_that_left_nothing_cancels_nothing(
    skyvern: FakeSkyvern, hook: SkyvernHook, monkeypatch: pytest.MonkeyPatch, group: str | None
) -> None:
    monkeypatch.setattr("airflow_skyvern.runs.cancel.LATE_START", 0.1)
    skyvern.run(plan=("running",))
    assert cancel_if_active(hook.send, None, group, lambda _: None) == []
    assert skyvern.sent("POST", ".*") == []
