"""Cron expressions and time zones, checked as Skyvern does and before anything is sent."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from itertools import islice, pairwise, takewhile
from zoneinfo import ZoneInfo

from croniter import croniter

from airflow_skyvern.exceptions import SkyvernConfigError

FIELDS = 5
SHORTEST = timedelta(minutes=5)
"""The shortest interval that Skyvern allows."""

LARGEST_CHANGE = timedelta(hours=3)
"""More than clocks are ever changed by."""

SAMPLE = timedelta(hours=25)
MOST_SAMPLES = 2000
"""How far ahead, and over how many run times, Skyvern searches for the shortest interval."""


def check_cron(expression: str) -> None:
    """
    Check a cron expression as Skyvern does, and that it has five fields.

    :raises SkyvernConfigError: names what is wrong, in Skyvern's words where it has a message for it.
    """
    if len(expression.split()) != FIELDS:
        raise SkyvernConfigError(
            f"cron_expression: {expression!r} must have five fields: minute, hour, day of month, month, day of week."
        )
    if not croniter.is_valid(expression):
        raise SkyvernConfigError(f"cron_expression: Invalid cron expression {expression!r}.")
    if _shortest_gap(expression) < SHORTEST:
        raise SkyvernConfigError(f"cron_expression: Cron interval must be at least 5 minutes, not {expression!r}.")


def check_zone(name: str) -> ZoneInfo:
    """
    Check the name of a time zone and return the zone.

    :raises SkyvernConfigError: the IANA database does not have it.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):  # unknown; not a name; a folder of the database
        raise SkyvernConfigError(
            f"timezone: Invalid timezone {name!r}; use a name of the IANA database, such as Europe/Berlin."
        ) from None


def skyvern_runs(expression: str, zone: str, after: datetime) -> Iterator[datetime]:
    """
    Yield the moments after ``after``, in UTC, at which Skyvern fires.

    It uses local time: a time that occurs twice in autumn fires only the first time, and a time that is skipped in
    spring fires as if the clock had not changed.
    """
    tz = check_zone(zone)
    earlier = after.astimezone(tz).replace(tzinfo=None) - LARGEST_CHANGE
    latest = after
    for local in _local_times(expression, earlier):
        moment = local.replace(tzinfo=tz).astimezone(timezone.utc)
        if moment > latest:
            yield moment
            latest = moment


def last_skyvern_run(expression: str, zone: str, start: datetime, end: datetime) -> datetime | None:
    """Return the last moment after ``start`` and at or before ``end`` at which Skyvern fires, if there is one."""
    moments = takewhile(lambda moment: moment <= end, skyvern_runs(expression, zone, start))
    return max(moments, default=None)


def _local_times(expression: str, start: datetime) -> Iterator[datetime]:
    runs = croniter(expression, start)
    while True:
        yield runs.get_next(datetime)


def _shortest_gap(expression: str) -> timedelta:
    runs = _local_times(expression, datetime.now(timezone.utc))
    moments = [next(runs)]
    for moment in islice(runs, MOST_SAMPLES - 1):
        moments.append(moment)
        if moment - moments[0] >= SAMPLE:
            break
    return min(later - earlier for earlier, later in pairwise(moments))
