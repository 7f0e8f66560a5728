"""A schedule changes hands: each tick is served once, whatever is interrupted, and the person is told."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernError
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.schedules.dag_folder import DagFolder
from airflow_skyvern.schedules.handover import Handover
from tests.support.handover_world import AirflowOfWorld, Interrupting, Killed, World

if TYPE_CHECKING:
    from airflow_skyvern.models import ListedSchedule
    from dev.fake.skyvern import FakeSkyvern

TICK = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)
MINUTES = 60.0


class Person:
    """Somebody with a command line: `person.takeover()`."""

    def __init__(self, fake: FakeSkyvern, folder: Path, after_tick: float = 200, zone: str = "UTC") -> None:
        self.fake = fake
        created = TICK - timedelta(days=1)
        more = {"timezone": zone, "name": "Every five", "created_at": created, "modified_at": created}
        self.made = fake.schedule(fake.workflow("a workflow"), "*/5 * * * *", **more)
        self.schedule_id = self.made.schedule_id
        self.world = World(fake, folder, TICK - timedelta(seconds=10))
        self.world.sleep(10 + after_tick)
        self.airflow = AirflowOfWorld(self.world)
        self.lines: list[str] = []

    @property
    def said(self) -> str:
        return "\n".join(self.lines)

    @property
    def file(self) -> Path:
        (path,) = self.world.folder.glob("*.py")
        return path

    def handover(self, interrupting: Interrupting | None = None, **options: Any) -> Handover:
        before = interrupting.before if interrupting else lambda thing: thing
        return Handover(
            before(SkyvernHook()),
            before(self.airflow),
            before(DagFolder(self.world.folder)),
            say=self.lines.append,
            now=lambda: self.world.now,
            sleep=self.world.sleep,
            **options,
        )

    def listed(self) -> ListedSchedule:
        (row,) = (row for row in SkyvernHook().list_all_schedules() if row.workflow_schedule_id == self.schedule_id)
        return row

    def export(self, **options: Any) -> None:
        self.handover(**options).export(self.listed())

    def takeover(self, interrupting: Interrupting | None = None, **options: Any) -> None:
        self.handover(interrupting, **options).takeover(self.listed())

    def release(self, interrupting: Interrupting | None = None, **options: Any) -> None:
        self.handover(interrupting, **options).release(self.listed())

    def check_every_tick_was_served_once(self) -> list[str]:
        """Return who served the ticks, one after the other, but for the one that may still be under way."""
        ticks = [TICK + number * timedelta(minutes=5) for number in range(1000)]
        over = [tick for tick in ticks if tick < self.world.last_tick]
        served = {tick: self.world.served[tick] for tick in over}
        assert all(len(who) == 1 for who in served.values()), served
        return [who for (who,) in served.values()]


@pytest.fixture
def person(skyvern: FakeSkyvern, tmp_path: Path) -> Person:
    return Person(skyvern, tmp_path)


@pytest.mark.parametrize("after_tick", [1, 30, 100, 200, 285, 299])
def test_a_takeover_at_any_time_serves_every_tick_once(skyvern: FakeSkyvern, tmp_path: Path, after_tick: int) -> None:
    person = Person(skyvern, tmp_path, after_tick)
    person.takeover()
    assert not person.made.enabled
    person.world.sleep(20 * MINUTES)
    served = person.check_every_tick_was_served_once()
    assert served.count("Airflow") >= 3
    assert served == sorted(served, reverse=True)


@pytest.mark.parametrize("after_tick", [1, 30, 200, 299])
def test_a_release_at_any_time_serves_every_tick_once(skyvern: FakeSkyvern, tmp_path: Path, after_tick: int) -> None:
    person = Person(skyvern, tmp_path)
    person.takeover()
    person.world.sleep(10 * MINUTES - person.world.now.second - 60 * (person.world.now.minute % 5) + after_tick)
    person.release()
    assert person.made.enabled
    person.world.sleep(20 * MINUTES)
    served = person.check_every_tick_was_served_once()
    assert served[-3:] == ["Skyvern"] * 3
    assert "Airflow" in served


def interrupted_everywhere(
    skyvern: FakeSkyvern, tmp_path: Path, prepare: Callable[[Person], object], action: str, at: float
) -> int:
    """Kill the action at each of its steps, wait, and call it again; return at how many steps."""
    for step in range(1, 1000):
        folder = tmp_path / f"{action}_{step}"
        folder.mkdir()
        skyvern.schedules.clear()
        skyvern.runs.clear()
        person = Person(skyvern, folder, at)
        prepare(person)
        interrupting = Interrupting(step)
        try:
            getattr(person, action)(interrupting)
        except Killed:
            pass
        else:
            return step - 1
        person.world.sleep(6 * MINUTES)
        person.check_every_tick_was_served_once()
        getattr(person, action)()
        person.world.sleep(11 * MINUTES)
        served = person.check_every_tick_was_served_once()
        assert served[-1] == ("Airflow" if action == "takeover" else "Skyvern")
        assert [path.name for path in folder.iterdir()] == ["skyvern_every_five.py"]
    raise AssertionError("it never ends")


def test_a_takeover_that_is_killed_anywhere_loses_no_tick_and_is_mended(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    steps = interrupted_everywhere(skyvern, tmp_path, lambda person: None, "takeover", at=200)
    assert steps >= 20


def test_a_release_that_is_killed_anywhere_loses_no_tick_and_is_mended(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    steps = interrupted_everywhere(skyvern, tmp_path, Person.takeover, "release", at=200)
    assert steps >= 6


def test_taking_over_again_after_a_release_serves_every_tick_once(person: Person) -> None:
    for _ in range(2):
        person.takeover()
        person.world.sleep(7 * MINUTES)
        person.release()
        person.world.sleep(3 * MINUTES)
    person.world.sleep(10 * MINUTES)
    assert set(person.check_every_tick_was_served_once()) == {"Skyvern", "Airflow"}


def test_an_export_changes_nothing_else_and_its_dag_leaves_the_ticks_to_skyvern(person: Person) -> None:
    person.export()
    person.world.sleep(20 * MINUTES)
    assert set(person.check_every_tick_was_served_once()) == {"Skyvern"}


def test_everything_may_be_repeated(person: Person) -> None:
    person.export()
    text = person.file.read_text()
    person.world.sleep(20 * MINUTES)
    person.export()
    assert "is as it should be" in person.lines[-1]
    person.takeover()
    person.takeover()
    assert person.lines[-1] == f"{person.schedule_id}: DAG skyvern_every_five has taken it over already"
    person.export()
    assert person.file.read_text() == text
    person.release()
    person.release()
    assert person.lines[-1] == f"{person.schedule_id}: is enabled in Skyvern"


def test_a_dry_run_does_nothing(person: Person) -> None:
    before = person.listed()
    person.export(dry_run=True)
    person.takeover(dry_run=True)
    person.release(dry_run=True)
    assert person.listed() == before
    assert list(person.world.folder.iterdir()) == []
    assert "would write" in person.said
    assert f"would disable {person.schedule_id} in Skyvern" in person.said
    assert f"would enable {person.schedule_id} in Skyvern" in person.said


def test_the_file_follows_the_schedule_but_keeps_id_and_start(person: Person) -> None:
    person.export()
    person.made.name, person.made.cron_expression = "renamed", "0 * * * *"
    person.export()
    text = person.file.read_text()
    assert person.file.name == "skyvern_every_five.py"
    assert '"0 * * * *"' in text
    assert "as DAG skyvern_every_five from 2026-11-24T12:05:00Z" in text


def test_a_file_changed_by_hand_is_left_alone_and_can_be_taken_over(person: Person) -> None:
    person.export()
    person.file.write_text(changed := person.file.read_text().replace("max_active_runs=1", "max_active_runs=2"))
    person.made.cron_expression = "*/10 * * * *"
    with pytest.raises(SkyvernConfigError, match="was changed by hand and is left as it is"):
        person.export()
    person.takeover()
    assert person.file.read_text() == changed
    assert "was changed by hand, stays as it is" in person.said
    assert not person.made.enabled


def test_secrets_must_be_set_before_a_takeover(person: Person) -> None:
    person.made.parameters = {"password": "hunter2"}
    with pytest.raises(SkyvernConfigError, match="airflow variables set skyvern_every_five_password '<value>'"):
        person.takeover()
    assert list(person.world.folder.iterdir()) == []
    person.airflow.variables.add("skyvern_every_five_password")
    person.takeover()
    assert "hunter2" not in person.said + person.file.read_text()
    assert not person.made.enabled


def test_what_is_disabled_is_not_taken_over(person: Person) -> None:
    person.made.enabled = False
    with pytest.raises(
        SkyvernConfigError, match="is disabled in Skyvern and no DAG has taken it over: nothing fires"
    ):
        person.takeover()
    person.export()
    assert "is_paused_upon_creation=True" in person.file.read_text()
    person.made.enabled = True
    person.takeover()
    person.export()
    assert "is_paused_upon_creation=False" in person.file.read_text()


def test_a_paused_dag_goes_on_when_it_takes_over(person: Person) -> None:
    person.takeover()
    person.release()
    assert person.world.paused == {"skyvern_every_five": True}
    person.takeover()
    assert person.world.paused == {"skyvern_every_five": False}
    person.airflow.pause("skyvern_every_five", paused=True)
    with pytest.raises(SkyvernConfigError, match="DAG skyvern_every_five is paused or gone: nothing fires it"):
        person.takeover()


def test_a_schedule_that_is_no_cron_stays_where_it_is(person: Person) -> None:
    person.made.interval_seconds = 7200
    for action in (person.export, person.takeover):
        with pytest.raises(SkyvernConfigError, match="fires every 2:00:00: only schedules with a cron expression"):
            action()
    assert list(person.world.folder.iterdir()) == []


def test_airflow_that_does_not_read_the_file_gets_no_schedule(person: Person) -> None:
    person.world.airflow_reads = False
    with pytest.raises(SkyvernError, match=f"Skyvern still fires {person.schedule_id}.*Then call this again"):
        person.takeover(patience=60)
    assert person.made.enabled


def test_a_schedule_that_somebody_changes_meanwhile_is_not_taken(person: Person) -> None:
    listed = person.listed()
    SkyvernHook().update_schedule(listed.workflow_permanent_id, person.schedule_id, "0 * * * *")
    with pytest.raises(SkyvernError, match=r"was changed in Skyvern meanwhile. Call this again"):
        person.handover().takeover(listed)
    assert person.made.enabled


def test_a_dag_that_vanishes_at_the_last_moment_gives_the_schedule_back(person: Person, skyvern: FakeSkyvern) -> None:
    disable = f"/v1/workflows/.*/schedules/{person.schedule_id}/disable"
    skyvern.next("POST", disable, lambda: person.world.paused.update({"skyvern_every_five": True}))
    with pytest.raises(SkyvernError, match=r"was paused or removed meanwhile: .* is enabled in Skyvern again"):
        person.takeover()
    assert person.made.enabled


def slow_disable(monkeypatch: pytest.MonkeyPatch, person: Person, before: float, after: float = 0) -> None:
    """Let time pass before Skyvern disables a schedule, and before its answer arrives."""
    disable = SkyvernHook().disable_schedule

    def slow(_: SkyvernHook, workflow_id: str, schedule_id: str) -> Any:
        person.world.sleep(before)
        answer = disable(workflow_id, schedule_id)
        person.world.sleep(after)
        return answer

    monkeypatch.setattr(SkyvernHook, "disable_schedule", slow)


def test_a_tick_that_a_slow_disable_request_loses_is_reported(
    skyvern: FakeSkyvern, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = Person(skyvern, tmp_path, after_tick=260)
    slow_disable(monkeypatch, person, before=45)
    with pytest.raises(SkyvernError, match=r"12:05:00 UTC.*Skyvern did not fire it.*airflow tasks clear"):
        person.takeover()
    person.world.sleep(60)
    assert person.world.served[TICK + timedelta(minutes=5)] == []
    assert "skyvern_every_five fires it, next at" in person.said
    assert not person.made.enabled


@pytest.mark.parametrize(("delays", "served"), [((100, 0), "Skyvern"), ((0, 100), "Airflow")])
def test_a_tick_that_one_side_fires_during_a_slow_disable_request_is_not_reported(
    skyvern: FakeSkyvern, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delays: tuple[int, int], served: str
) -> None:
    person = Person(skyvern, tmp_path, after_tick=260)
    slow_disable(monkeypatch, person, *delays)
    person.takeover()
    assert person.world.served[TICK + timedelta(minutes=5)] == [served]


def test_two_dags_of_one_schedule_are_refused(person: Person) -> None:
    person.takeover()
    copy = person.file.read_text().replace("skyvern_every_five", "skyvern_copy")
    (person.world.folder / "copy.py").write_text(copy)
    person.world.sleep(10)
    with pytest.raises(SkyvernConfigError, match=r"has more than one DAG in Airflow: .* Remove all but one"):
        person.takeover()


def test_clock_changes_are_told(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    person = Person(skyvern, tmp_path, zone="Europe/Berlin")
    person.takeover(dry_run=True)
    expected = "around the clock change of 2027-10-31 Airflow also fires at 2027-10-31 02:00 CET"
    assert f"{person.schedule_id}: note: {expected}" in person.said
    assert f"{person.schedule_id}: note: on these days Skyvern's own scheduler also fires at wrong" in person.said
