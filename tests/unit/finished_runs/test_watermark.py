from __future__ import annotations

import json
import random
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_skyvern.finished_runs.watermark import BEGINNING, MOST_DONE, OVERLAP, ListedRun, Watermark
from airflow_skyvern.models import RunSummary

START = datetime(2026, 11, 22, 20, tzinfo=timezone.utc)


def row(name: str, minute: float, status: str = "completed", **more: object) -> ListedRun:
    created = START + timedelta(minutes=minute)
    finished = created + timedelta(minutes=1) if status not in ("running", "queued") else None
    return RunSummary.model_validate(
        {"run_id": name, "status": status, "created_at": created, "finished_at": finished, **more}
    )


def taken(mark: Watermark, *rows: ListedRun) -> list[str]:
    return [run.run_id for run in mark.take(rows)[0]]


def test_who_begins_now_gets_only_what_ends_from_now_on() -> None:
    mark = Watermark.at([row("old", 0), row("running", 1, "running")])
    assert taken(mark, row("old", 0), row("running", 1), row("new", 2)) == ["running", "new"]


def test_who_begins_where_there_are_no_runs_gets_the_first() -> None:
    assert taken(Watermark.at([]), row("first", 0)) == ["first"]


def test_a_run_is_taken_once() -> None:
    ended, mark = Watermark().take([row("a", 0), row("a", 0)])
    assert [run.run_id for run in ended] == ["a"]
    assert taken(mark, row("a", 0)) == []


def test_a_run_that_ends_long_after_its_creation_is_taken() -> None:
    _, mark = Watermark.at([row("slow", 0, "running")]).take([row("later", 600)])
    assert mark.since > START + timedelta(minutes=500)
    assert taken(mark, row("slow", 0)) == ["slow"]


def test_a_run_that_skyvern_will_retry_has_not_ended() -> None:
    ended, mark = Watermark().take([row("a", 0, "failed", retry_pending=True)])
    assert ended == []
    assert mark.active == {"a"}
    assert taken(mark, row("a", 0)) == ["a"]


def test_a_run_that_shows_up_late_is_taken() -> None:
    _, mark = Watermark().take([row("a", 20)])
    assert taken(mark, row("late", 20 - OVERLAP.seconds / 60 + 1)) == ["late"]


def test_a_run_older_than_the_watermark_is_no_news() -> None:
    _, mark = Watermark().take([row("a", 60)])
    assert taken(mark, row("ancient", 0)) == []


def test_a_run_that_was_not_accepted_is_taken_again() -> None:
    _, mark = Watermark().take([row("a", 0), row("b", 600)])
    assert taken(mark.without({"a"}), row("a", 0), row("b", 600)) == ["a"]


def test_a_run_that_skyvern_forgot_is_forgotten() -> None:
    assert Watermark.at([row("a", 0, "running")]).forget({"a"}).active == frozenset()


def test_the_watermark_follows_the_runs_of_other_workflows() -> None:
    """A workflow that runs once a week must not make each poll go back a week."""
    _, mark = Watermark().take([row("a", 0)], latest=START + timedelta(days=7))
    assert mark.since == START + timedelta(days=7) - OVERLAP


def test_what_ended_lately_can_be_left_to_be_taken() -> None:
    mark = Watermark.at([row("old", 0), row("lately", 5)], ended_before=START + timedelta(minutes=3))
    assert taken(mark, row("old", 0), row("lately", 5)) == ["lately"]


@pytest.mark.slow
def test_the_size_is_bounded_however_many_runs_there_are() -> None:
    ended, mark = Watermark().take([row(f"wr_{n:018}", n / 1000) for n in range(5 * MOST_DONE)])
    assert len(ended) == 5 * MOST_DONE
    assert len(mark.done) <= MOST_DONE
    assert len(json.dumps(mark.to_json())) < 65535
    assert taken(mark, *ended) == []


@pytest.mark.parametrize("stored", [None, {}, [], "x", {"since": "soon", "done": {}, "active": []}])
def test_what_cannot_be_read_is_not_taken_for_a_watermark(stored: object) -> None:
    assert Watermark.from_json(stored) is None


def test_it_survives_json() -> None:
    _, mark = Watermark.at([row("slow", 0, "running")]).take([row("a", 1), row("b", 2)])
    read = Watermark.from_json(json.loads(json.dumps(mark.to_json())))
    assert read is not None
    assert read == mark
    assert taken(read, row("a", 1), row("b", 2), row("slow", 0)) == ["slow"]
    assert Watermark.from_json(Watermark().to_json()) == Watermark(BEGINNING)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), kills=st.booleans())
def test_no_run_is_lost_and_only_a_kill_repeats(seed: int, kills: bool) -> None:
    """Runs begin, show up and end at random; polls come at random, and the watcher may die before it has stored."""
    chance = random.Random(seed)
    runs = []
    for number in range(chance.randint(1, 60)):
        begun = chance.uniform(0, 300)
        visible = begun + chance.choice([0, 0, chance.uniform(0, 9)])
        runs.append((f"wr_{number}", begun, visible, visible + chance.choice([0.1, chance.uniform(0, 200)])))
    mark = stored = Watermark.at([])
    got: list[str] = []
    for now in [*sorted(chance.uniform(0, 500) for _ in range(60)), 1000.0]:
        rows = [
            row(name, begun, "completed" if ended <= now else "running")
            for name, begun, visible, ended in runs
            if visible <= now
            if START + timedelta(minutes=begun) >= mark.since or name in mark.active
        ]
        chance.shuffle(rows)
        before = mark
        ended, mark = mark.take(rows)
        got += [run.run_id for run in ended]
        if kills and chance.random() < 0.2:
            mark = stored
        else:
            stored = before
    assert set(got) == {name for name, *_ in runs}
    assert kills or len(got) == len(runs)
