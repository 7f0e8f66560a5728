"""The fake's schedules are like those of a real server; what they refuse, they refuse in the same words."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.client import schedule_api
from airflow_skyvern.client.sender import SkyvernClient
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.exceptions import SkyvernAPIError, SkyvernConfigError, SkyvernNotFoundError, SkyvernRequestError
from airflow_skyvern.testing.fake.schedules import NO_SCHEDULES
from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer
from tests.contract.test_contract import refused

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_skyvern.client.calls import Call
    from airflow_skyvern.models import ScheduleDetails
    from tests.contract.conftest import Side


def made(side: Side, workflow: str = "ok_wait", **fields: Any) -> ScheduleDetails:
    given = {"cron_expression": "30 2 * * *", "timezone": "Europe/Berlin", **fields}
    return side.send(schedule_api.create_schedule(side.workflow(workflow), **given))


def test_a_schedule_is_created_changed_turned_off_and_on_and_deleted(side: Side) -> None:
    details = made(side, name="nightly", description="every night")
    schedule, workflow_id = details.schedule, side.workflow("ok_wait")
    schedule_id = schedule.workflow_schedule_id
    assert schedule_id.startswith("wfs_")
    assert (schedule.cron_expression, schedule.timezone, schedule.enabled) == ("30 2 * * *", "Europe/Berlin", True)
    assert (schedule.name, schedule.description, schedule.parameters) == ("nightly", "every night", {})
    assert (schedule.interval_seconds, schedule.run_at, schedule.cadence) == (None, None, "30 2 * * *")
    assert len(details.next_runs) == 5
    assert min(details.next_runs) > datetime.now(timezone.utc)

    off = side.send(schedule_api.disable_schedule(workflow_id, schedule_id)).schedule
    assert (off.enabled, off.modified_at > schedule.modified_at) == (False, True)
    update = schedule_api.update_schedule(workflow_id, schedule_id, "0 9 * * 1-5", name="office", enabled=False)
    changed = side.send(update).schedule
    assert (changed.cron_expression, changed.timezone, changed.name, changed.description) == (
        "0 9 * * 1-5",
        "UTC",
        "office",
        None,
    )
    assert (changed.enabled, changed.modified_at > off.modified_at) == (False, True)
    on = side.send(schedule_api.enable_schedule(workflow_id, schedule_id)).schedule
    assert (on.enabled, on.modified_at > changed.modified_at) == (True, True)
    again = side.send(schedule_api.enable_schedule(workflow_id, schedule_id)).schedule
    assert (again.enabled, again.modified_at > on.modified_at) == (True, True)

    assert side.send(schedule_api.delete_schedule(workflow_id, schedule_id)).ok
    gone = (SkyvernNotFoundError, 404, f"Schedule {schedule_id} not found")
    assert refused(side, schedule_api.get_schedule(workflow_id, schedule_id)) == gone
    assert refused(side, schedule_api.delete_schedule(workflow_id, schedule_id)) == gone


def test_the_lists_hold_what_was_created(side: Side) -> None:
    first = made(side, name="one of the list", enabled=False).schedule
    second = made(side, workflow="long_wait", name="two of the list", parameters={"note": "x"}).schedule
    mine = side.send(schedule_api.list_schedules(side.workflow("ok_wait"))).schedules
    assert first.workflow_schedule_id in {row.workflow_schedule_id for row in mine}
    assert second.workflow_schedule_id not in {row.workflow_schedule_id for row in mine}
    assert second.parameters == {"note": "x"}

    def listed(**query: Any) -> list[tuple[str, bool, bool]]:
        rows = side.send(schedule_api.list_all_schedules(search="OF THE LIST", **query))
        assert {row.workflow_title for row in rows} <= {"rig ok_wait", "rig long_wait"}
        return [(row.workflow_schedule_id, row.enabled, row.next_run is not None) for row in rows]

    newest_first = [(second.workflow_schedule_id, True, True), (first.workflow_schedule_id, False, False)]
    assert listed() == newest_first
    assert listed(status="active") == newest_first[:1]
    assert listed(status="paused") == newest_first[1:]
    page = replace(schedule_api.list_all_schedules(), query={"page": 2, "page_size": 1})
    assert len(side.send(page)) == 1


def test_a_schedule_needs_the_parameters_that_its_workflow_needs(side: Side) -> None:
    workflow_id = side.workflow("params_http")
    words = f"Missing schedule parameters for workflow {workflow_id}: name"
    assert refused(side, schedule_api.create_schedule(workflow_id, "0 9 * * *")) == (SkyvernRequestError, 400, words)
    words = f"Unknown schedule parameters for workflow {workflow_id}: nmae"
    call = schedule_api.create_schedule(workflow_id, "0 9 * * *", parameters={"name": "x", "nmae": "y"})
    assert refused(side, call) == (SkyvernRequestError, 400, words)


@pytest.mark.parametrize(
    ("cron_expression", "zone", "words"),
    [
        ("61 * * * *", "UTC", "Invalid cron expression"),
        ("*/4 * * * *", "UTC", "Cron interval must be at least 5 minutes"),
        ("0,5,10,58 * * * *", "UTC", "Cron interval must be at least 5 minutes"),
        ("0 9 * * *", "Mars/X", "Invalid timezone 'Mars/X'"),
    ],
)
def test_what_the_server_refuses_is_refused_here_first_in_its_words(
    side: Side, cron_expression: str, zone: str, words: str
) -> None:
    body = {"cron_expression": cron_expression, "timezone": zone}
    call = replace(schedule_api.create_schedule(side.workflow("ok_wait"), "0 9 * * *"), body=body)
    assert refused(side, call) == (SkyvernRequestError, 400, words)
    with pytest.raises(SkyvernConfigError, match=words):
        schedule_api.create_schedule("wpid_1", cron_expression, zone)


def test_a_server_without_schedules_says_so(side: Side, tmp_path: Path) -> None:
    """The real one takes some 15 seconds to start."""

    class Without(SkyvernServer):
        def _settings(self) -> dict[str, str]:
            return {**super()._settings(), "ENABLE_WORKFLOW_SCHEDULES": "false"}

    if side.pause:
        with Without(tmp_path, SKYVERN_VENV) as server:
            client = SkyvernClient(Settings(server.api_key, base_url=server.base_url))
            check_nothing_but_501(client, server.workflow("ok_wait"))
    else:
        fake = FakeSkyvern()
        fake.has_schedules = False
        client = SkyvernClient(Settings(fake.api_key), transport=httpx.MockTransport(fake.handle))
        check_nothing_but_501(client, fake.workflow())


def check_nothing_but_501(client: SkyvernClient, workflow_id: str) -> None:
    with client:
        calls: list[Call[Any]] = [
            schedule_api.list_all_schedules(),
            schedule_api.list_schedules(workflow_id),
            schedule_api.create_schedule(workflow_id, "0 9 * * *"),
            schedule_api.disable_schedule(workflow_id, "wfs_1"),
        ]
        for call in calls:
            with pytest.raises(SkyvernAPIError) as caught:
                client.send(call)
            assert (caught.value.status_code, caught.value.transient) == (501, False)
            assert caught.value.detail == NO_SCHEDULES


def test_an_unknown_workflow_or_schedule_is_named(side: Side) -> None:
    no_workflow = (SkyvernNotFoundError, 404, "Workflow wpid_1 not found")
    assert refused(side, schedule_api.create_schedule("wpid_1", "0 9 * * *")) == no_workflow
    assert refused(side, schedule_api.list_schedules("wpid_1")) == no_workflow
    no_schedule = (SkyvernNotFoundError, 404, "Schedule wfs_1 not found")
    for endpoint in (schedule_api.get_schedule, schedule_api.enable_schedule, schedule_api.disable_schedule):
        assert refused(side, endpoint(side.workflow("ok_wait"), "wfs_1")) == no_schedule
