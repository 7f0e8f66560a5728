"""When Airflow and Skyvern fire the same cron expression."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import islice

import pytest

from airflow_skyvern.client.cron import last_skyvern_run, skyvern_runs
from airflow_skyvern.schedules.clock_changes import (
    airflow_runs,
    clock_changes,
    differences,
    first_airflow_run,
    start_date_for,
)

NOW = datetime(2026, 11, 23, 1, 40, tzinfo=timezone.utc)
ZONES = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Africa/Cairo",
    "Asia/Kolkata",
]
CRONS = ["30 2 * * *", "0 * * * *", "*/5 * * * *", "30 1 * * 0", "0 9 * * 1-5", "0 */3 * * *", "0 0 * * *"]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


@pytest.mark.slow
@pytest.mark.parametrize("zone", [*ZONES, "UTC"])
@pytest.mark.parametrize("expression", CRONS)
def test_fifty_run_times_are_the_same_where_no_clock_is_changed(expression: str, zone: str) -> None:
    start = utc("2026-12-01 00:07")
    theirs, ours = (list(islice(runs(expression, zone, start), 50)) for runs in (skyvern_runs, airflow_runs))
    changes = list(clock_changes(zone, start, theirs[-1] + timedelta(days=1)))
    if not changes:
        assert theirs == ours
    else:
        assert expression == "30 1 * * 0"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("zone", "expression", "difference"),
    [
        (
            "Europe/Berlin",
            "30 2 * * *",
            "around the clock change of 2027-10-31 Skyvern fires at 2027-10-31 02:30 CEST, Airflow at 2027-10-31 02:30 CET",  # noqa: E501  as it is said
        ),
        (
            "Europe/Berlin",
            "0 * * * *",
            "around the clock change of 2027-10-31 Airflow also fires at 2027-10-31 02:00 CET",
        ),
        (
            "America/New_York",
            "30 1 * * 0",
            "around the clock change of 2027-11-07 Skyvern fires at 2027-11-07 01:30 EDT, Airflow at 2027-11-07 01:30 EST",  # noqa: E501  as it is said
        ),
        (
            "Australia/Lord_Howe",
            "45 1 * * *",
            "around the clock change of 2027-04-04 Skyvern fires at 2027-04-04 01:45 +11, Airflow at 2027-04-04 01:45 +1030",  # noqa: E501  as it is said
        ),
    ],
)
def test_where_they_differ_it_is_said_when_and_how(zone: str, expression: str, difference: str) -> None:
    assert [str(found) for found in differences(expression, zone, NOW)] == [difference]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("zone", "expression"),
    [("UTC", "30 2 * * *"), ("Asia/Kolkata", "*/5 * * * *"), ("Europe/Berlin", "0 9 * * 1-5"), ("UTC", "0 0 1 1 *")],
)
def test_where_they_do_not_differ_nothing_is_said(zone: str, expression: str) -> None:
    assert differences(expression, zone, NOW) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("expression", "zone", "now", "first"),
    [
        ("30 2 * * *", "Europe/Berlin", "2027-10-30 12:00", "2027-10-31 01:30"),
        ("30 2 * * 0", "Europe/Berlin", "2027-10-30 12:00", "2027-10-31 01:30"),
        ("30 2 31 10 *", "Europe/Berlin", "2027-10-30 12:00", "2027-10-31 01:30"),
        ("30 1 7 11 *", "America/New_York", "2027-11-06 12:00", "2027-11-07 06:30"),
        ("45 1 4 4 *", "Australia/Lord_Howe", "2027-04-03 00:00", "2027-04-03 15:15"),
        ("0 * * * *", "Europe/Berlin", "2027-10-31 00:30", "2027-10-31 02:00"),
        ("30 2 * * *", "Europe/Berlin", "2027-03-27 12:00", "2027-03-28 01:30"),
        ("*/5 * * * *", "UTC", "2027-03-27 12:00", "2027-03-27 12:05"),
    ],
)
def test_airflow_skips_no_run_after_a_takeover_near_a_clock_change(
    expression: str, zone: str, now: str, first: str
) -> None:
    start = start_date_for(expression, zone, utc(now))
    assert first_airflow_run(expression, zone, start) == utc(first)
    notes = differences(expression, zone, utc(now), start)
    promised = [moment for note in notes for moment in note.airflow]
    assert all(moment >= utc(first) for moment in promised)


@pytest.mark.slow
@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("expression", [*CRONS, "30 1 7 11 *", "45 1 4 4 *"])
def test_the_start_date_is_in_the_future_and_skips_no_run_of_both(expression: str, zone: str) -> None:
    for change in clock_changes(zone, NOW, NOW + timedelta(days=366)):
        for hours in (-25, -2.01, -1, -0.5, 0, 0.5, 1.01):
            now = change + timedelta(hours=hours)
            start = start_date_for(expression, zone, now)
            first = first_airflow_run(expression, zone, start)
            skyvern, airflow = (next(runs(expression, zone, now)) for runs in (skyvern_runs, airflow_runs))
            assert now < start <= first <= max(skyvern, airflow), (now, start)


def test_clock_changes_are_found() -> None:
    changes = list(clock_changes("Europe/Berlin", NOW, NOW + timedelta(days=365)))
    assert changes == [utc("2027-03-28 01:00"), utc("2027-10-31 01:00")]


@pytest.mark.parametrize(
    ("start", "end", "last"),
    [
        ("2026-11-24 11:58:00", "2026-11-24 12:00:00", "2026-11-24 12:00:00"),
        ("2026-11-24 11:58:00", "2026-11-24 12:05:30", "2026-11-24 12:05:00"),
        ("2026-11-24 12:00:00", "2026-11-24 12:04:59", None),
    ],
)
def test_the_last_run_time_between_two_moments_is_found(start: str, end: str, last: str | None) -> None:
    found = last_skyvern_run("*/5 * * * *", "Europe/Berlin", utc(start), utc(end))
    assert found == (utc(last) if last else None)
