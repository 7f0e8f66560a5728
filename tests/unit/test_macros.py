"""The date of a DAG run on the clock of its time zone: as templates of the documents have it, on this Airflow."""

from __future__ import annotations

import importlib
import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pendulum
import pytest
from airflow.timetables.base import DataInterval, TimeRestriction
from airflow.timetables.interval import CronDataIntervalTimetable
from airflow.timetables.trigger import CronTriggerTimetable

from airflow_skyvern import plugin
from airflow_skyvern.compat import since_3_0
from airflow_skyvern.compat.sdk import DAG
from airflow_skyvern.macros import local_time
from airflow_skyvern.operators import SkyvernRunWorkflowOperator

BERLIN = "Europe/Berlin"
DATES = (Path(__file__).parents[2] / "docs" / "dates.md").read_text()
RECIPES = [
    (template.replace("\\|", "|"), result)
    for template, result in re.findall(r"^\| [^|]+ \| `(\{\{.*?\}\})` \| `(.*)` \|$", DATES, re.MULTILINE)
]
THIS, PREVIOUS = "macros.skyvern.local_time()", "macros.skyvern.local_time().subtract(months=1)"
MONTHS = f'{{{{ {THIS}.format("YYYY-MM") }}}} {{{{ {PREVIOUS}.format("YYYY-MM") }}}}'


def berlin(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(BERLIN))


def timetable(cron: str, zone: str = BERLIN) -> Any:
    """What this Airflow makes of ``schedule=cron``."""
    if since_3_0.is_airflow_3():
        return CronTriggerTimetable(cron, timezone=zone)
    return CronDataIntervalTimetable(cron, timezone=pendulum.timezone(zone))


def scheduled_run(cron: str, tick: datetime, zone: str = BERLIN, made_by: Any = None) -> Any:
    """The DAG run that this Airflow makes at a tick, with the dates that a task gets: in UTC."""
    table = made_by or timetable(cron, zone)
    last: DataInterval | None = None
    restriction = TimeRestriction(pendulum.instance(tick - timedelta(days=70)), None, catchup=True)
    while (info := table.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)) is not None:
        last = info.data_interval
        if info.run_after >= tick:
            break
    assert info is not None
    assert info.run_after == tick
    return dag_run("scheduled", info.logical_date, info.data_interval.end, info.run_after)


def dag_run(run_type: str, logical: datetime | None, end: datetime | None, run_after: datetime) -> Any:
    dates = {"logical_date": logical, "data_interval_end": end}
    if since_3_0.is_airflow_3():
        dates["run_after"] = run_after
    return SimpleNamespace(
        run_type=run_type, **{name: date and date.astimezone(timezone.utc) for name, date in dates.items()}
    )


def rendered(template: str, run: Any, **dag_arguments: Any) -> str:
    """Render a template as Airflow renders an operator's argument."""
    arguments = {"schedule": "@monthly", "start_date": pendulum.datetime(2026, 1, 1, tz=BERLIN), **dag_arguments}
    with DAG("d", **arguments) as dag:
        operator = SkyvernRunWorkflowOperator(task_id="t", workflow_id="wpid_1", title=template)
    macros = SimpleNamespace(skyvern=SimpleNamespace(local_time=local_time))
    operator.render_template_fields({"dag": dag, "dag_run": run, "macros": macros, "task": operator})
    return str(operator.title)


def test_the_plugin_brings_the_macro_to_every_template() -> None:
    assert local_time in plugin.SkyvernPlugin.macros


@pytest.mark.parametrize(("template", "result"), RECIPES)
def test_a_recipe_of_the_documents_says_what_its_row_says(template: str, result: str) -> None:
    assert rendered(template, scheduled_run("@monthly", berlin("2026-11-01"))) == result


def test_the_documents_have_recipes() -> None:
    assert len(RECIPES) == DATES.count("{{ macros.skyvern.local_time(") - 1  # one is in the DAG below them
    assert len(RECIPES) >= 10


@pytest.mark.parametrize(
    ("tick", "months"),
    [
        ("2026-11-01T00:00", "2026-11 2026-10"),  # Berlin is back on winter time since a week
        ("2026-10-01T00:00", "2026-10 2026-09"),
        ("2026-04-01T00:00", "2026-04 2026-03"),  # on summer time since three days
        ("2026-03-01T00:00", "2026-03 2026-02"),
        ("2027-01-01T00:00", "2027-01 2026-12"),
    ],
)
def test_a_monthly_run_at_midnight_is_of_its_month(tick: str, months: str) -> None:
    assert rendered(MONTHS, scheduled_run("@monthly", berlin(tick))) == months


@pytest.mark.parametrize(
    ("cron", "tick", "local"),
    [
        ("0 0 * * *", "2026-10-25T00:00", "2026-10-25 00:00 +0200"),  # the day with 25 hours
        ("0 0 * * *", "2026-10-26T00:00", "2026-10-26 00:00 +0100"),
        ("0 0 * * *", "2026-03-29T00:00", "2026-03-29 00:00 +0100"),  # the day with 23 hours
        ("0 0 * * *", "2026-03-30T00:00", "2026-03-30 00:00 +0200"),
        ("59 23 * * *", "2026-10-31T23:59", "2026-10-31 23:59 +0100"),
        ("59 23 * * *", "2026-10-24T23:59", "2026-10-24 23:59 +0200"),
        ("1 0 * * *", "2026-11-01T00:01", "2026-11-01 00:01 +0100"),
        ("30 2 * * *", "2026-10-26T02:30", "2026-10-26 02:30 +0100"),
    ],
)
def test_a_run_around_midnight_or_a_clock_change_has_the_time_of_the_clock(cron: str, tick: str, local: str) -> None:
    template = '{{ macros.skyvern.local_time().strftime("%Y-%m-%d %H:%M %z") }}'
    assert rendered(template, scheduled_run(cron, berlin(tick)), schedule=cron) == local


def test_a_time_that_the_clock_does_not_show_is_the_one_after_the_change() -> None:
    shown = datetime(2026, 3, 29, 1, 30, tzinfo=timezone.utc)  # 02:30 does not exist in Berlin; cron fires at 03:30
    run = dag_run("scheduled", shown - timedelta(days=1), shown, shown)
    assert rendered("{{ macros.skyvern.local_time() | ts }}", run) == "2026-03-29T03:30:00+02:00"


@pytest.mark.parametrize("hour", [0, 1])
def test_both_times_that_the_clock_shows_twice_are_of_the_same_day(hour: int) -> None:
    moment = datetime(2026, 10, 25, hour, 30, tzinfo=timezone.utc)
    run = dag_run("scheduled", moment, moment, moment)
    assert rendered('{{ macros.skyvern.local_time().format("DD HH:mm") }}', run) == "25 02:30"


def test_the_31st_has_a_previous_month() -> None:
    assert rendered(MONTHS, scheduled_run("0 9 31 * *", berlin("2026-03-31T09:00"))) == "2026-03 2026-02"


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Pacific/Pago_Pago", "Australia/Lord_Howe", "UTC"])
def test_the_first_of_a_month_is_in_that_month_in_every_zone(zone: str) -> None:
    run = scheduled_run("@monthly", datetime(2026, 11, 1, tzinfo=ZoneInfo(zone)), zone)
    assert rendered(MONTHS, run, start_date=pendulum.datetime(2026, 1, 1, tz=zone)) == "2026-11 2026-10"


def test_the_zone_of_the_timetable_counts_before_that_of_the_start_date() -> None:
    run = scheduled_run("@monthly", berlin("2026-11-01"))
    schedule = CronTriggerTimetable("@monthly", timezone=BERLIN)
    assert rendered(MONTHS, run, schedule=schedule, start_date=pendulum.datetime(2026, 1, 1)) == "2026-11 2026-10"


@pytest.mark.parametrize("kind", [CronTriggerTimetable, CronDataIntervalTimetable])
def test_both_kinds_of_timetables_give_the_same_month(kind: Any) -> None:
    run = scheduled_run("", berlin("2026-11-01"), made_by=kind("@monthly", timezone=pendulum.timezone(BERLIN)))
    assert rendered(MONTHS, run) == "2026-11 2026-10"


def test_the_timetables_that_are_made_of_others_have_the_zone_of_the_first() -> None:
    trigger = importlib.import_module("airflow.timetables.trigger")
    if not hasattr(trigger, "MultipleCronTriggerTimetable"):
        pytest.skip("of a newer Airflow")
    schedule = trigger.MultipleCronTriggerTimetable("0 0 1 * *", "0 0 15 * *", timezone=BERLIN)
    run = scheduled_run("@monthly", berlin("2026-11-01"))
    assert rendered(MONTHS, run, schedule=schedule, start_date=pendulum.datetime(2026, 1, 1)) == "2026-11 2026-10"


def test_a_backfilled_run_has_the_month_that_it_makes_up_for() -> None:
    run = scheduled_run("@monthly", berlin("2026-04-01"))
    run.run_type = "backfill"
    assert rendered(MONTHS, run) == "2026-04 2026-03"


def test_a_run_by_hand_has_the_month_in_which_it_was_started() -> None:
    logical = None if since_3_0.is_airflow_3() else berlin("2026-11-01T00:30")
    run = dag_run("manual", logical, berlin("2026-10-01"), run_after=berlin("2026-11-01T00:30"))
    assert rendered(MONTHS, run) == "2026-11 2026-10"


def test_a_run_by_hand_for_a_date_has_that_date() -> None:
    run = dag_run("manual", berlin("2026-03-15"), berlin("2026-03-01"), run_after=berlin("2026-11-23T10:00"))
    assert rendered("{{ macros.skyvern.local_time() | ds }}", run) == "2026-03-15"


def test_a_partitioned_run_has_the_date_of_its_partition() -> None:
    run = dag_run("scheduled", None, None, run_after=berlin("2026-11-23T10:00"))
    run.partition_date = berlin("2026-11-01")
    assert rendered(MONTHS, run) == "2026-11 2026-10"


def test_a_dag_without_schedule_and_start_date_has_the_default_zone() -> None:
    run = dag_run("manual", berlin("2026-11-01"), None, berlin("2026-11-01"))
    assert rendered("{{ macros.skyvern.local_time() | ds }}", run, schedule=None, start_date=None) == "2026-10-31"
