"""
The endpoints around schedules, as values; see :mod:`airflow_skyvern.client.api`.

"Schedule a workflow": https://www.skyvern.com/docs/developers/features/schedule-a-workflow. A server that was built
without schedules answers 501 to all of them, which becomes a :class:`~airflow_skyvern.exceptions.SkyvernAPIError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from airflow_skyvern.client import answers
from airflow_skyvern.client.calls import Call, get, parser_of, path_segment, post
from airflow_skyvern.limits import PAGE_SIZE
from airflow_skyvern.models import Deleted, ListedSchedule, ScheduleDetails, SchedulePage, Schedules


def create_schedule(
    workflow_id: str,
    cron_expression: str,
    timezone: str = "UTC",
    parameters: Mapping[str, Any] | None = None,
    name: str | None = None,
    description: str | None = None,
    *,
    enabled: bool = True,
) -> Call[ScheduleDetails]:
    """
    Let Skyvern run a workflow by a cron expression.

    :param cron_expression: Five fields; at least five minutes between two runs.
    :param timezone: IANA name of the zone in which the expression is meant. Default: UTC.
    :param parameters: Values for the workflow's parameters.
    :param enabled: Whether it fires from now on. Default: True.
    :raises SkyvernConfigError: expression or zone is wrong; nothing was sent.

    https://www.skyvern.com/docs/api-reference/api-reference/schedules/create-schedule
    """
    body = _body(cron_expression, timezone, parameters, name, description)
    what = f"create a schedule of workflow {workflow_id}"
    return post(_path(workflow_id), what, ScheduleDetails, body={**body, "enabled": enabled}, repeatable=False)


def get_schedule(workflow_id: str, schedule_id: str) -> Call[ScheduleDetails]:
    """
    Get a schedule and the next five moments at which it fires.

    https://www.skyvern.com/docs/api-reference/api-reference/schedules/get-schedule
    """
    about: Any = {"known": answers.GET_SCHEDULE, "subject": schedule_id, "fits": ScheduleDetails.is_about}
    return get(_path(workflow_id, schedule_id), f"get schedule {schedule_id}", ScheduleDetails, **about)


def list_schedules(workflow_id: str) -> Call[Schedules]:
    """
    List the schedules of one workflow.

    https://www.skyvern.com/docs/api-reference/api-reference/schedules/list-schedules
    """
    return get(_path(workflow_id), f"list the schedules of workflow {workflow_id}", Schedules)


def list_all_schedules(
    status: Literal["active", "paused"] | None = None, search: str | None = None
) -> Call[list[ListedSchedule]]:
    """
    List the organization's schedules, newest first, all pages.

    :param status: ``"active"`` or ``"paused"``; both if not given.
    :param search: A part of the workflow's title or of the schedule's name.

    https://www.skyvern.com/docs/api-reference/api-reference/schedules/list-all-schedules
    """
    given = {key: value for key, value in {"status": status, "search": search}.items() if value}
    query = {**given, "page": 1, "page_size": PAGE_SIZE}
    return Call("GET", "/v1/schedules", "list schedules", _rows_of_page, query=query, last_page=1_000_000)


def update_schedule(
    workflow_id: str,
    schedule_id: str,
    cron_expression: str,
    timezone: str = "UTC",
    parameters: Mapping[str, Any] | None = None,
    name: str | None = None,
    description: str | None = None,
    *,
    enabled: bool,
) -> Call[ScheduleDetails]:
    """
    Replace a schedule: what is not given is cleared.

    :param enabled: Whether it fires from now on. It has to be said: what is left out stays as it is, but a Skyvern
        before 1.0.48 switches such a schedule on.
    :raises SkyvernConfigError: expression or zone is wrong; nothing was sent.

    https://www.skyvern.com/docs/api-reference/api-reference/schedules/update-schedule
    """
    body = _body(cron_expression, timezone, parameters, name, description)
    path, what = _path(workflow_id, schedule_id), f"update schedule {schedule_id}"
    return Call("PUT", path, what, parser_of(ScheduleDetails), body={**body, "enabled": enabled})


def enable_schedule(workflow_id: str, schedule_id: str) -> Call[ScheduleDetails]:
    """
    Let a schedule fire again, from the next moment on; what it has missed stays missed.

    "Enable and disable a schedule": https://www.skyvern.com/docs/api-reference/api-reference/schedules/enable-schedule
    """
    return post(f"{_path(workflow_id, schedule_id)}/enable", f"enable schedule {schedule_id}", ScheduleDetails)


def disable_schedule(workflow_id: str, schedule_id: str) -> Call[ScheduleDetails]:
    """
    Keep a schedule from firing, without deleting it.

    "Enable and disable a schedule": https://www.skyvern.com/docs/api-reference/api-reference/schedules/disable-schedule
    """
    return post(f"{_path(workflow_id, schedule_id)}/disable", f"disable schedule {schedule_id}", ScheduleDetails)


def cancel_schedule(workflow_id: str, schedule_id: str) -> Call[ScheduleDetails]:
    """
    Cancel a schedule for one moment that has not fired yet. For a recurring one the server says 422: disable it.

    https://www.skyvern.com/docs/api-reference/api-reference/schedules
    """
    return post(f"{_path(workflow_id, schedule_id)}/cancel", f"cancel schedule {schedule_id}", ScheduleDetails)


def delete_schedule(workflow_id: str, schedule_id: str) -> Call[Deleted]:
    """
    Delete a schedule for good. Of one that is gone already the server says 404.

    https://www.skyvern.com/docs/api-reference/api-reference/schedules/delete-schedule
    """
    return Call("DELETE", _path(workflow_id, schedule_id), f"delete schedule {schedule_id}", parser_of(Deleted))


def _body(
    cron_expression: str,
    timezone: str,
    parameters: Mapping[str, Any] | None,
    name: str | None,
    description: str | None,
) -> dict[str, Any]:
    from airflow_skyvern.client.cron import check_cron, check_zone

    check_cron(cron_expression)
    check_zone(timezone)
    given = {"parameters": parameters, "name": name, "description": description}
    more = {key: value for key, value in given.items() if value is not None}
    return {"cron_expression": cron_expression, "timezone": timezone, **more}


def _path(workflow_id: str, schedule_id: str | None = None) -> str:
    path = f"/v1/workflows/{path_segment(workflow_id)}/schedules"
    return path if schedule_id is None else f"{path}/{path_segment(schedule_id)}"


def _rows_of_page(content: bytes) -> list[ListedSchedule]:
    page: SchedulePage = parser_of(SchedulePage)(content)
    return page.schedules
