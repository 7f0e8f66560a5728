"""
What the Skyvern API says about schedules, as values.

"Schedule a workflow": https://www.skyvern.com/docs/developers/features/schedule-a-workflow
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from airflow_skyvern.models import Answer, UtcDatetime


def _mapping(value: Any) -> Any:
    return {} if value is None else value


class Schedule(Answer):
    """
    A schedule of a workflow.

    It fires by a cron expression, each so many seconds (``interval_seconds``), or once (``run_at``).
    ``parameters`` may hold secrets, which is why its representation leaves them out.
    """

    workflow_schedule_id: str
    workflow_permanent_id: str
    cron_expression: str | None = None
    interval_seconds: int | None = None
    first_fire_at: UtcDatetime | None = None
    run_at: UtcDatetime | None = None
    timezone: str = "UTC"
    enabled: bool
    parameters: Annotated[dict[str, Any], BeforeValidator(_mapping)] = Field(default={}, repr=False)
    name: str | None = None
    description: str | None = None
    created_at: UtcDatetime
    modified_at: UtcDatetime

    @property
    def cadence(self) -> str:
        """When it fires, in words of one column."""
        if self.cron_expression is not None:
            return self.cron_expression
        if self.interval_seconds is not None:
            return f"every {timedelta(seconds=self.interval_seconds)}"
        return f"once at {self.run_at:%Y-%m-%d %H:%M} UTC" if self.run_at else "unknown"


class ListedSchedule(Schedule):
    """A schedule as the organization's list shows it, with its workflow's title."""

    workflow_title: str = ""
    next_run: UtcDatetime | None = None


class ScheduleDetails(Answer):
    """A schedule, and when it will fire next (also said of a disabled one, as if it were enabled)."""

    schedule: Schedule
    next_runs: tuple[UtcDatetime, ...] = ()


class Schedules(Answer):
    """The schedules of a workflow."""

    schedules: list[Schedule]


class SchedulePage(Answer):
    """One page of the organization's schedules."""

    schedules: list[ListedSchedule]


class Deleted(Answer):
    """Whether it was deleted."""

    ok: bool
