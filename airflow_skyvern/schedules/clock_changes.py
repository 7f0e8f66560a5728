"""When Airflow and Skyvern fire the same cron expression, and where they differ: around clock changes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import islice, takewhile

import pendulum
from airflow.timetables.base import DataInterval, TimeRestriction
from airflow.timetables.trigger import CronTriggerTimetable

from airflow_skyvern.client.cron import check_zone, skyvern_runs
from airflow_skyvern.documentation import documentation

COUNT = 50
"""How many run times are compared, from now and around each clock change of the coming year."""

SHOWN = 4
"""How many run times a message names."""

YEAR = timedelta(days=366)
LEAD = timedelta(hours=26)
SHORT_LEAD = timedelta(hours=2)


@dataclass(frozen=True)
class Difference:
    """
    The run times around a clock change that only one of the two has.

    :param change: When the clocks are changed; None where no change explains it.
    """

    zone: str
    change: datetime | None
    skyvern: tuple[datetime, ...]
    airflow: tuple[datetime, ...]

    def __str__(self) -> str:
        when = f"around the clock change of {self._local(self.change)[:10]}" if self.change else "from now on"
        if not self.skyvern:
            return f"{when} Airflow also fires at {self._list(self.airflow)}"
        if not self.airflow:
            return f"{when} only Skyvern fires at {self._list(self.skyvern)}"
        return f"{when} Skyvern fires at {self._list(self.skyvern)}, Airflow at {self._list(self.airflow)}"

    def _list(self, moments: tuple[datetime, ...]) -> str:
        shown = ", ".join(self._local(moment) for moment in moments[:SHOWN])
        return f"{shown}, …" if len(moments) > SHOWN else shown

    def _local(self, moment: datetime) -> str:
        return moment.astimezone(check_zone(self.zone)).strftime("%Y-%m-%d %H:%M %Z")


def airflow_runs(expression: str, zone: str, after: datetime) -> Iterator[datetime]:
    """Yield the moments after ``after``, in UTC, at which this Airflow fires."""
    timetable = CronTriggerTimetable(expression, timezone=zone)
    restriction = TimeRestriction(
        earliest=pendulum.instance(after + timedelta(microseconds=1)), latest=None, catchup=True
    )
    last: DataInterval | None = None
    while (
        info := timetable.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)
    ) is not None:
        last = info.data_interval
        yield datetime.fromtimestamp(info.run_after.timestamp(), timezone.utc)


def first_airflow_run(expression: str, zone: str, start_date: datetime) -> datetime:
    """Return the first run time of a DAG with this ``start_date``, by Airflow's own timetable."""
    return next(airflow_runs(expression, zone, start_date - timedelta(microseconds=1)))


def start_date_for(expression: str, zone: str, now: datetime) -> datetime:
    """
    Return the ``start_date`` from which Airflow continues without a gap where Skyvern ends.

    It is Skyvern's next run time, if Airflow has it too; else Airflow's own next one. Airflow's timetable skips a run
    time to the next day, week or year when ``start_date`` lies in an hour that the clock shows twice.
    """
    skyvern = next(skyvern_runs(expression, zone, now))
    airflow = next(airflow_runs(expression, zone, now))
    for moment in (skyvern, airflow):
        if first_airflow_run(expression, zone, moment) == moment:
            return moment
    return now.replace(second=0, microsecond=0) + timedelta(minutes=1)


def differences(
    expression: str, zone: str, now: datetime, start_date: datetime | None = None, count: int = COUNT
) -> list[Difference]:
    """
    Compare the next run times of both, and those around the clock changes of the coming year.

    :param start_date: The DAG's ``start_date``, before which Airflow does not fire. Default: ``now``.
    """
    earliest = first_airflow_run(expression, zone, start_date) if start_date else now
    first, second = islice(skyvern_runs(expression, zone, now), 2)
    lead = LEAD if second - first >= timedelta(hours=1) else SHORT_LEAD
    changes = list(clock_changes(zone, now, now + YEAR))
    theirs: set[datetime] = set()
    ours: set[datetime] = set()
    for start in (now, *(change - lead for change in changes if change - lead > now)):
        skyvern, airflow = _runs_of_both(expression, zone, start, count)
        theirs |= skyvern - airflow
        ours |= {moment for moment in airflow - skyvern if moment >= earliest}
    reasons = {moment: _change_near(zone, moment) for moment in sorted(theirs | ours)}
    return [
        Difference(
            zone,
            change,
            tuple(moment for moment, reason in reasons.items() if reason == change and moment in theirs),
            tuple(moment for moment, reason in reasons.items() if reason == change and moment in ours),
        )
        for change in dict.fromkeys(reasons.values())
    ]


def clock_change_notes(expression: str, zone: str, now: datetime, start_date: datetime | None) -> Iterator[str]:
    """Yield what to know before a takeover: each :class:`Difference`, and that Skyvern errs on these days."""
    found = differences(expression, zone, now, start_date)
    yield from map(str, found)
    if any(difference.change for difference in found):
        more = documentation("schedules", "Clock changes")
        yield f"on these days Skyvern's own scheduler also fires at wrong times, see {more}"


def clock_changes(zone: str, start: datetime, end: datetime) -> Iterator[datetime]:
    """Yield the moments at which the clocks of a zone are changed."""
    timezone_ = check_zone(zone)

    def offset(moment: datetime) -> timedelta | None:
        return moment.astimezone(timezone_).utcoffset()

    day = start.astimezone(timezone.utc).replace(minute=0, second=0, microsecond=0)
    while day < end:
        following = day + timedelta(days=1)
        if offset(day) != offset(following):
            early, late = day, following
            while late - early > timedelta(minutes=1):
                middle = early + (late - early) / 2
                early, late = (middle, late) if offset(middle) == offset(day) else (early, middle)
            yield late.replace(second=0, microsecond=0)
        day = following


def _runs_of_both(expression: str, zone: str, start: datetime, count: int) -> tuple[set[datetime], set[datetime]]:
    """Return the next run times of Skyvern and of Airflow, at least ``count`` of each and up to the same moment."""
    both = (skyvern_runs, airflow_runs)
    until = max(next(islice(runs(expression, zone, start), count - 1, None)) for runs in both)
    theirs, ours = (set(takewhile(lambda moment: moment <= until, runs(expression, zone, start))) for runs in both)
    return theirs, ours


def _change_near(zone: str, moment: datetime) -> datetime | None:
    return next(clock_changes(zone, moment - timedelta(days=2), moment + timedelta(days=2)), None)
