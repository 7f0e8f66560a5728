"""
Which of the two fires a tick of a schedule, Skyvern or Airflow: the one rule that makes a takeover exact.

Skyvern fires a tick of an enabled schedule unless the schedule was changed after it. Airflow leaves exactly
those ticks to Skyvern and fires the others. The only switch is the schedule's ``enabled`` in Skyvern, changed by one
request: whatever is interrupted before or after it, exactly one of the two fires each tick.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_skyvern.models import RunSummary, Schedule
    from airflow_skyvern.schedules.airflow_db import KnownDag

NO_SCHEDULES = 501
"""The status with which a server without schedules answers."""


def skyvern_fires(schedule: Schedule, tick: datetime, runs: Callable[[], Iterable[RunSummary]]) -> str | None:
    """
    Return why Skyvern fires a tick, or None if Airflow does.

    :param runs: Asks for the workflow's runs since the tick; called only when the schedule was changed after it.
    """
    if schedule.modified_at > tick:
        run = next((run for run in runs() if run.workflow_schedule_id == schedule.workflow_schedule_id), None)
        return None if run is None else f"Skyvern has fired this one itself: run {run.run_id}"
    return "is enabled, so Skyvern fires this one itself" if schedule.enabled else None


def who_fires(schedule: Schedule, dag: KnownDag | None) -> str:
    """Return what fires a schedule: ``Skyvern``, ``Airflow`` or ``nothing``."""
    if schedule.enabled:
        return "Skyvern"
    return "Airflow" if dag is not None and dag.fires else "nothing"


def why_it_stays(schedule: Schedule, dag: KnownDag | None) -> str:
    """Return why a schedule is neither exported nor taken over with all others."""
    name = f"{schedule.workflow_schedule_id} ({schedule.name})" if schedule.name else schedule.workflow_schedule_id
    if schedule.cron_expression is None:
        kind = "at an interval" if schedule.interval_seconds is not None else "once"
        return (
            f"{name}: stays in Skyvern. It fires {kind} ({schedule.cadence}), and only schedules with a cron "
            "expression can be moved"
        )
    if dag is not None and dag.fires:
        return f"{name}: is taken over already, DAG {dag.dag_id} fires it"
    return (
        f"{name}: stays in Skyvern, where it is disabled, so nothing fires it. To take it over, enable it first "
        f"(`airflow-skyvern schedules release {schedule.workflow_schedule_id}`)"
    )
