"""Which runs count as orphans, decided from plain values; each decision has a reason that a person understands."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from airflow_skyvern.durations import as_argument
from airflow_skyvern.runs.key import ENDS_WITH_TASK, GROUP_TAG, READABLE_TAGS, TASK_TAG, tag_value, task_tag
from airflow_skyvern.runs.orphans import Evidence, Place, Rule, StartedRun, TaskRow, judge
from airflow_skyvern.runs.twins import surplus

NOW = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)
MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
HERE = "https://airflow.example.com"
RULE = Rule(HERE, NOW)
PLACE = Place("d", "r", "t")


def run(
    run_id: str = "wr_1",
    *,
    age: timedelta = 2 * HOUR,
    place: Place = PLACE,
    airflow: str = HERE,
    group: str = "g",
    over_after: timedelta | None = None,
    **more: Any,
) -> StartedRun:
    """A run that the task started two hours ago; it is active unless it was over after some time."""
    name = place.task_id if place.map_index < 0 else f"{place.task_id}[{place.map_index}]"
    readable = dict(zip(READABLE_TAGS, map(tag_value, (place.dag_id, name, place.run_id)), strict=True))
    tags = {**readable, GROUP_TAG: group, TASK_TAG: task_tag(*place, airflow), **ENDS_WITH_TASK}
    created, over = NOW - age, over_after is not None
    finished = created + over_after if over_after is not None else None
    status = "failed" if over else "running"
    return StartedRun(run_id, status, created, tags, is_final=over, finished=finished, **more)


def row(state: str | None, *, since: timedelta = HOUR, run_id: str | None = "wr_1", **more: Any) -> TaskRow:
    return TaskRow(state, NOW - since, run_id, **{"group": "g", **more})


def ran(ago: timedelta, length: timedelta | None = None) -> list[tuple[datetime, datetime | None]]:
    return [(NOW - ago, None if length is None else NOW - ago + length)]


NOT_KNOWN: dict[str, Any] = {"run_id": None, "group": None}
"""What a task instance shows whose XComs a new try has deleted and not written yet."""

ORPHANS = {
    "its task was skipped, as by dagrun_timeout": (Evidence(run(), row("skipped")), "its task is skipped"),
    "its task failed for good": (Evidence(run(), row("failed")), "its task is failed"),
    "its task was marked": (Evidence(run(), row("success")), "its task is success"),
    "its task was removed from the DAG": (Evidence(run(), row("removed")), "its task is removed"),
    "it is paused, and nobody is left to answer": (
        Evidence(replace(run(), status="paused"), row("failed")),
        "its task is failed",
    ),
    "its start was never answered": (Evidence(run(), row("failed", run_id=None)), "its task is failed"),
    "it came after its task had given up": (
        Evidence(run(age=HOUR), row("failed", since=2 * HOUR, run_id=None)),
        "its task is failed",
    ),
    "it is of a mapped task": (
        Evidence(run(place=Place("d", "r", "t", 3)), row("failed")),
        "its task is failed",
    ),
    "a later try failed before it announced anything": (
        Evidence(run(), row("failed", **NOT_KNOWN), ran(2 * HOUR, MINUTE)),
        "its task is failed",
    ),
    "its DAG was deleted": (
        Evidence(run(), None, ran(2 * HOUR + MINUTE / 60, MINUTE)),
        "its DAG, DAG run or task was deleted",
    ),
    "its DAG was deleted while a worker waited": (Evidence(run(), None, ran(2 * HOUR)), "was deleted"),
    "its DAG's file was removed between two tries": (
        Evidence(run(), row("up_for_retry", since=2 * HOUR, dag_gone=True)),
        "its DAG is gone, so its task stays up_for_retry",
    ),
    "its DAG's file was removed before it was resumed": (
        Evidence(run(), row("scheduled", since=2 * HOUR, dag_gone=True)),
        "its DAG is gone",
    ),
    "its start was carried out twice": (
        Evidence(run("wr_twin"), row("deferred"), siblings=[run("wr_twin"), run()]),
        "the same start was carried out twice: its task waits for wr_1",
    ),
    "it is the second run of a start of a task on a worker": (
        Evidence(run("wr_twin"), row("running"), siblings=[run("wr_twin"), run()]),
        "carried out twice",
    ),
    "it is the second run, of a try whose start was unanswered, after a failed one": (
        Evidence(
            run(age=HOUR),
            row("failed", since=MINUTE * 30, **NOT_KNOWN),
            ran(HOUR, MINUTE),
            siblings=[run("wr_0", over_after=MINUTE)],
        ),
        "its task is failed",
    ),
    "Skyvern itself replaced the failed run of its task": (
        Evidence(run("wr_2", age=HOUR, replaces="wr_1"), row("failed"), siblings=[run(over_after=HOUR)]),
        "its task is failed",
    ),
}


@pytest.mark.parametrize("name", ORPHANS)
def test_nobody_waits_for_a_run_when(name: str) -> None:
    seen, reason = ORPHANS[name]
    verdict = judge(seen, RULE)
    assert verdict.orphan, verdict.reason
    assert reason in verdict.reason


FIRE_AND_FORGET = {key: value for key, value in run().tags.items() if key not in ENDS_WITH_TASK}

LEFT = {
    "it may outlive its task": (
        Evidence(replace(run(), tags=FIRE_AND_FORGET), row("success")),
        "it may outlive its task",
    ),
    "another Airflow started it": (Evidence(run(airflow="https://staging"), row("failed")), "of another Airflow"),
    "an Airflow without a name started it": (Evidence(run(airflow=""), row("failed")), "of another Airflow"),
    "a person started it in Skyvern": (Evidence(run(by_person=True), row("failed")), "a person or a schedule"),
    "a start may still be under way": (Evidence(run(age=MINUTE), row("failed")), "created less than 10m ago"),
    "its task ended just now": (Evidence(run(), row("skipped", since=MINUTE)), "skipped since less than 10m"),
    "another DAG run of the same ids started it": (
        Evidence(run(group="other"), row("failed", run_id=None)),
        "another attempt, DAG run or request with the same ids",
    ),
    "its task is failed, but this database never saw it run": (
        Evidence(run(), row("failed", **NOT_KNOWN)),
        "audit log does not show that it ran",
    ),
    "there is no such task instance, and there never was": (Evidence(run()), "its task instance does not exist"),
    "the deleted task ran at another time": (
        Evidence(run(), None, ran(9 * HOUR)),
        "its task instance does not exist",
    ),
    "the deleted task had ended when it was created": (
        Evidence(run(), None, ran(2 * HOUR + 10 * MINUTE, MINUTE)),
        "its task instance does not exist",
    ),
    "a person may have started the failed one again through the API": (
        Evidence(run("wr_2", age=HOUR), row("failed"), siblings=[run(over_after=MINUTE)]),
        "it may be a copy that a person started of wr_1",
    ),
    "a person may have done so after its task was deleted": (
        Evidence(run("wr_2"), None, ran(3 * HOUR), siblings=[run(age=3 * HOUR, over_after=HOUR - MINUTE)]),
        "it may be a copy that a person started of wr_1",
    ),
    "Skyvern may just have replaced the failed one": (
        Evidence(run("wr_2", age=HOUR, replaces="wr_1"), row("deferred"), siblings=[run(over_after=HOUR)]),
        "its task is deferred",
    ),
    "another task waits for it": (
        Evidence(run(), row("failed"), waited_for_by="d2.sensor of r2"),
        "d2.sensor of r2 waits for it",
    ),
    "its DAG's file was removed, but its trigger still waits": (
        Evidence(run(), row("deferred", since=9 * HOUR, dag_gone=True)),
        "its task is deferred, and its DAG is gone; if that stays so",
    ),
    "its DAG's file is missing for half an hour": (
        Evidence(run(), row("up_for_retry", since=HOUR / 2, dag_gone=True)),
        "its DAG is gone; if that stays so",
    ),
    "its DAG is paused": (
        Evidence(run(), row("up_for_retry", dag_paused=True)),
        "up_for_retry and its DAG is paused",
    ),
    "it is of the attempt before a clear, which the new attempt cancels": (
        Evidence(run("wr_old"), row("deferred", group="new")),
        "of another attempt",
    ),
    "it does not say when it was created": (
        Evidence(replace(run(), created=datetime.max.replace(tzinfo=timezone.utc)), row("failed")),
        "less than 10m",
    ),
}
WAITING = ("deferred", "running", "up_for_retry", "up_for_reschedule", "scheduled", "queued", "restarting", None)
WAITING_FOR_A_PERSON = ("awaiting_input",)


@pytest.mark.parametrize("name", LEFT)
def test_a_run_is_left_alone_when(name: str) -> None:
    seen, reason = LEFT[name]
    verdict = judge(seen, RULE)
    assert not verdict.orphan, verdict.reason
    assert reason in verdict.reason


@pytest.mark.parametrize("state", [*WAITING, *WAITING_FOR_A_PERSON, "a state of a later Airflow"])
@pytest.mark.parametrize("status", ["running", "paused"])
@pytest.mark.parametrize("known", [{}, {"run_id": None}, NOT_KNOWN], ids=["known", "announced", "not announced"])
def test_a_task_that_is_not_over_keeps_its_run(state: str | None, status: str, known: dict[str, Any]) -> None:
    seen = Evidence(replace(run(), status=status), row(state, since=99 * HOUR, **known), ran(2 * HOUR))
    verdict = judge(seen, RULE)
    assert not verdict.orphan
    assert (state or "not scheduled yet") in verdict.reason


@pytest.mark.parametrize("name", ORPHANS)
def test_an_airflow_without_a_name_cancels_nothing(name: str) -> None:
    seen = ORPHANS[name][0]
    nameless = replace(seen, run=replace(seen.run, tags={**seen.run.tags, TASK_TAG: task_tag(*seen.run.place, "")}))
    for evidence in (seen, nameless):
        verdict = judge(evidence, replace(RULE, installation=""))
        assert not verdict.orphan
        assert "set [skyvern] installation" in verdict.reason


@pytest.mark.parametrize("name", ORPHANS)
def test_a_copy_of_the_database_with_another_name_cancels_nothing(name: str) -> None:
    assert not judge(ORPHANS[name][0], replace(RULE, installation="staging")).orphan


@pytest.mark.parametrize("name", ORPHANS)
def test_nothing_is_canceled_that_another_task_waits_for(name: str) -> None:
    assert not judge(replace(ORPHANS[name][0], waited_for_by="d2.sensor of r2"), RULE).orphan


@pytest.mark.parametrize(
    "place",
    [PLACE, Place("d", "r", "t", 0), Place("a.b-c", "scheduled__2026-11-29T00:00:00+00:00", "group.t", 12)],
)
def test_the_readable_tags_name_the_task_instance(place: Place) -> None:
    assert run(place=place).place == place


@pytest.mark.parametrize("place", [Place("d", "a,b", "t"), Place("d", "r", "t" * 300)])
def test_ids_that_do_not_fit_into_tags_are_nobodys(place: Place) -> None:
    assert not judge(Evidence(run(place=place), row("failed")), RULE).orphan


@pytest.mark.parametrize(("seconds", "text"), [(600, "10m"), (90, "90s"), (3600, "1h"), (172800, "2d"), (0, "0s")])
def test_a_duration_is_written_as_the_command_line_takes_it(seconds: int, text: str) -> None:
    assert as_argument(timedelta(seconds=seconds)) == text


K = run("wr_taken", age=HOUR)
K_OVER = run("wr_taken", age=HOUR, over_after=30 * MINUTE)


@pytest.mark.parametrize(
    ("others", "canceled"),
    [
        ([run("wr_twin", age=HOUR - MINUTE)], ["wr_twin"]),
        ([run("wr_twin", age=HOUR + MINUTE)], ["wr_twin"]),
        ([run("wr_late", age=40 * MINUTE)], ["wr_late"]),
        ([run("wr_twin", age=HOUR - MINUTE, over_after=MINUTE)], []),
        ([run("wr_person", age=40 * MINUTE, by_person=True)], []),
        ([run("wr_copy", age=20 * MINUTE)], []),
        ([run("wr_1", over_after=MINUTE), run("wr_twin", age=HOUR - MINUTE / 2)], ["wr_twin"]),
        ([run("wr_1", over_after=MINUTE), run("wr_copy", age=HOUR - 5 * MINUTE)], []),
    ],
    ids=[
        "sent twice by a gateway",
        "the first of two",
        "arrived late",
        "over already",
        "a person's",
        "created after the end: may be a person's",
        "twin of a second start",
        "may be a person's copy of the first",
    ],
)
def test_second_runs_of_a_start_are_told_from_copies(others: list[StartedRun], canceled: list[str]) -> None:
    assert [found.run_id for found in surplus([K_OVER, *others], "wr_taken")] == canceled


def test_nothing_is_surplus_when_the_run_that_is_taken_is_not_known() -> None:
    assert surplus([K], "wr_another") == []
