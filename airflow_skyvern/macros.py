"""
The date of a DAG run on the clock of its time zone, for templates.

``{{ macros.skyvern.local_time().format("YYYY-MM") }}`` works in every template of a task or a callback. In Python it
is ``local_time(context)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jinja2 import pass_context

from airflow_skyvern.compat import since_3_0, since_3_1

if TYPE_CHECKING:
    import pendulum

INTERVAL_ENDS_WHEN_DUE = ("scheduled", "backfill")


@pass_context
def local_time(context: Any, tz: Any = None) -> pendulum.DateTime:
    """
    Return when the DAG run is due, in the time zone of the DAG's schedule.

    For a scheduled run it is the tick that starts it, on every version: the run of 1 November is in November,
    although Airflow 2.11 gives it a ``logical_date`` in October, and ``{{ ds }}`` is a date in UTC. A backfilled run
    has the date of the tick that it makes up for, a partitioned run that of its partition. A run that was started by
    hand, by an asset or by another DAG has its logical date, or else the time at which it was started.

    :param context: The context of the task. In a template it is left out: Jinja passes it.
    :param tz: Another time zone: ``"Europe/Berlin"``. Default: that of the timetable, else that of ``start_date``.
    """
    import pendulum

    zone = pendulum.timezone(tz) if isinstance(tz, str) else tz or _zone_of(context["dag"])
    local: pendulum.DateTime = pendulum.instance(_due(context["dag_run"])).in_timezone(zone)
    return local


def _due(dag_run: Any) -> Any:
    """Return the moment that a DAG run stands for; Airflow 2.11 has no ``run_after``, and always a logical date."""
    if (partition := getattr(dag_run, "partition_date", None)) is not None:
        return partition
    if since_3_0.run_type_of(dag_run) in INTERVAL_ENDS_WHEN_DUE and dag_run.data_interval_end is not None:
        return dag_run.data_interval_end
    return dag_run.logical_date or dag_run.run_after


def _zone_of(dag: Any) -> Any:
    return since_3_1.timetable_zone(dag.timetable) or dag.timezone
