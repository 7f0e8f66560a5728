"""The endpoints around schedules, their methods of the hook, and what is refused before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.client import schedule_api
from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.exceptions import SkyvernAPIError, SkyvernConfigError
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.models import Schedule
from airflow_skyvern.testing.fake.schedules import NO_SCHEDULES

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

OF_WORKFLOW = "/v1/workflows/wpid_1/schedules"
NIGHTLY = {"cron_expression": "30 2 * * *", "timezone": "UTC"}
BERLIN = {"cron_expression": "30 2 * * *", "timezone": "Europe/Berlin", "parameters": {"a": 1}, "name": "n"}

ENDPOINTS: list[tuple[Call[Any], str, Any]] = [
    (schedule_api.create_schedule("wpid_1", "30 2 * * *"), f"POST {OF_WORKFLOW}", {**NIGHTLY, "enabled": True}),
    (
        schedule_api.create_schedule("wpid_1", "30 2 * * *", "Europe/Berlin", {"a": 1}, "n", enabled=False),
        f"POST {OF_WORKFLOW}",
        {**BERLIN, "enabled": False},
    ),
    (schedule_api.get_schedule("wpid_1", "wfs_1"), f"GET {OF_WORKFLOW}/wfs_1", None),
    (schedule_api.list_schedules("wpid_1"), f"GET {OF_WORKFLOW}", None),
    (schedule_api.list_all_schedules(), "GET /v1/schedules", None),
    (
        schedule_api.update_schedule("wpid_1", "wfs_1", "30 2 * * *", enabled=False),
        f"PUT {OF_WORKFLOW}/wfs_1",
        {**NIGHTLY, "enabled": False},
    ),
    (schedule_api.enable_schedule("wpid_1", "wfs_1"), f"POST {OF_WORKFLOW}/wfs_1/enable", None),
    (schedule_api.disable_schedule("wpid_1", "wfs_1"), f"POST {OF_WORKFLOW}/wfs_1/disable", None),
    (schedule_api.delete_schedule("wpid_1", "../x"), f"DELETE {OF_WORKFLOW}/..%2Fx", None),
]


@pytest.mark.parametrize(("call", "request_line", "body"), ENDPOINTS, ids=lambda value: str(value)[:60])
def test_every_endpoint_says_what_to_send(call: Call[Any], request_line: str, body: Any) -> None:
    assert f"{call.method} {call.path}" == request_line
    assert call.body == body


def test_only_a_creation_must_not_be_repeated() -> None:
    assert {line for call, line, _ in ENDPOINTS if not call.repeatable} == {f"POST {OF_WORKFLOW}"}


def test_the_list_asks_for_what_was_given() -> None:
    query = {"status": "active", "search": "invoice", "page": 1, "page_size": 100}
    assert schedule_api.list_all_schedules("active", "invoice").query == query


@pytest.mark.parametrize(
    ("cron_expression", "zone", "complaint"),
    [
        ("@daily", "UTC", "cron_expression: '@daily' must have five fields: minute, hour"),
        ("0 0 9 * * *", "UTC", "must have five fields"),
        ("", "UTC", "must have five fields"),
        ("61 * * * *", "UTC", "cron_expression: Invalid cron expression '61 "),
        ("* * * * *", "UTC", "cron_expression: Cron interval must be at least 5 minutes"),
        ("0,4 0 1 1 *", "UTC", "Cron interval must be at least 5 minutes"),
        ("0 9 * * *", "Mars/X", "timezone: Invalid timezone 'Mars/X'; use a name of the IANA database"),
        ("0 9 * * *", "", "timezone: Invalid timezone ''"),
        ("0 9 * * *", "../etc/passwd", "timezone: Invalid timezone"),
        ("0 9 * * *", "Europe", "timezone: Invalid timezone 'Europe'"),
    ],
)
def test_a_wrong_cadence_is_refused_before_anything_is_sent(cron_expression: str, zone: str, complaint: str) -> None:
    with pytest.raises(SkyvernConfigError) as caught:
        schedule_api.create_schedule("wpid_1", cron_expression, zone)
    assert complaint in str(caught.value)
    with pytest.raises(SkyvernConfigError) as caught:
        schedule_api.update_schedule("wpid_1", "wfs_1", cron_expression, zone, enabled=True)
    assert complaint in str(caught.value)


@pytest.mark.parametrize("cron_expression", ["*/5 * * * *", "0 0 29 2 *", "0 9 * * MON-FRI", "15,45 8-18 1 */3 *"])
def test_a_right_cadence_is_sent(cron_expression: str) -> None:
    body = schedule_api.create_schedule("wpid_1", cron_expression, "America/Argentina/Buenos_Aires").body
    assert body is not None
    assert body["cron_expression"] == cron_expression


@pytest.mark.slow
def test_a_schedule_lives_through_the_hook(skyvern: FakeSkyvern) -> None:
    hook, workflow_id = SkyvernHook(), skyvern.workflow()
    schedule_id = hook.create_schedule(workflow_id, "30 2 * * *", name="n").schedule.workflow_schedule_id
    assert not hook.disable_schedule(workflow_id, schedule_id).schedule.enabled
    assert hook.enable_schedule(workflow_id, schedule_id).schedule.enabled
    assert (
        hook.update_schedule(workflow_id, schedule_id, "0 3 * * *", enabled=True).schedule.cron_expression
        == "0 3 * * *"
    )
    assert [row.name for row in hook.list_schedules(workflow_id).schedules] == [None]
    assert hook.get_schedule(workflow_id, schedule_id).next_runs
    assert hook.delete_schedule(workflow_id, schedule_id).ok
    assert hook.list_all_schedules() == []


@pytest.mark.slow
async def test_a_schedule_lives_through_the_event_loop(skyvern: FakeSkyvern) -> None:
    hook, workflow_id = SkyvernHook(), skyvern.workflow()
    schedule_id = (await hook.acreate_schedule(workflow_id, "30 2 * * *")).schedule.workflow_schedule_id
    assert not (await hook.adisable_schedule(workflow_id, schedule_id)).schedule.enabled
    assert (await hook.aenable_schedule(workflow_id, schedule_id)).schedule.enabled
    assert (await hook.aupdate_schedule(workflow_id, schedule_id, "0 3 * * *", enabled=True)).schedule.name is None
    assert len((await hook.alist_schedules(workflow_id)).schedules) == 1
    assert (await hook.aget_schedule(workflow_id, schedule_id)).schedule.timezone == "UTC"
    assert (await hook.adelete_schedule(workflow_id, schedule_id)).ok
    assert await hook.alist_all_schedules() == []
    await hook.aclose()


@pytest.mark.slow
def test_the_list_is_read_to_its_end(skyvern: FakeSkyvern) -> None:
    workflow_id = skyvern.workflow()
    made = [skyvern.schedule(workflow_id).schedule_id for _ in range(230)]
    rows = SkyvernHook().list_all_schedules()
    assert [row.workflow_schedule_id for row in rows] == made[::-1]
    assert len(skyvern.sent("GET", "/v1/schedules")) == 3


def test_a_server_without_schedules_says_so_at_once(skyvern: FakeSkyvern) -> None:
    skyvern.has_schedules = False
    with pytest.raises(SkyvernAPIError) as caught:
        SkyvernHook().list_all_schedules()
    assert (caught.value.status_code, caught.value.transient) == (501, False)
    assert str(caught.value) == f"Could not list schedules: Skyvern answered 501: {NO_SCHEDULES}"
    assert len(skyvern.requests) == 1


def test_the_parameters_of_a_schedule_are_in_no_log(skyvern: FakeSkyvern) -> None:
    made = skyvern.schedule(skyvern.workflow(), parameters={"password": "hunter2"})
    details = SkyvernHook().get_schedule(made.workflow.workflow_id, made.schedule_id)
    assert details.schedule.parameters == {"password": "hunter2"}
    assert "hunter2" not in repr(details) + str(details)


def test_a_one_time_schedule_of_a_newer_server_can_be_read() -> None:
    fields = {"workflow_schedule_id": "wfs_1", "workflow_permanent_id": "wpid_1", "enabled": True}
    times = {
        "run_at": "2026-11-24T12:00:00",
        "created_at": "2026-11-22T20:00:00",
        "modified_at": "2026-11-22T20:00:00",
    }
    schedule = Schedule.model_validate({**fields, **times, "parameters": None, "dispatch_status": "pending"})
    assert (schedule.cadence, schedule.parameters) == ("once at 2026-11-24 12:00 UTC", {})


def test_a_page_that_is_no_list_is_an_answer_that_cannot_be_read(skyvern: FakeSkyvern) -> None:
    skyvern.next("GET", "/v1/schedules", httpx.Response(200, json=[]))
    with pytest.raises(SkyvernAPIError, match="is not what the Skyvern API promises"):
        SkyvernHook(retry=RetryPolicy(attempts=1)).list_all_schedules()
