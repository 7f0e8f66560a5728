"""A schedule moves between Skyvern and Airflow: each tick is fired once, whatever is interrupted."""

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
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

TICK = datetime(2026, 11, 24, 12, tzinfo=timezone.utc)
MINUTES = 60.0


class User:
    """A user of the command line: `user.takeover()`."""

    def __init__(self, fake: FakeSkyvern, folder: Path, after_tick: float = 200, zone: str = "UTC") -> None:
        self.fake = fake
        created = TICK - timedelta(days=1)
        more = {"timezone": zone, "name": "Every five", "created_at": created, "modified_at": created}
        self.schedule = fake.schedule(fake.workflow("a workflow"), "*/5 * * * *", **more)
        self.schedule_id = self.schedule.schedule_id
        self.world = World(fake, folder, TICK - timedelta(seconds=10))
        self.world.sleep(10 + after_tick)
        self.airflow = AirflowOfWorld(self.world)
        self.lines: list[str] = []

    @property
    def output(self) -> str:
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
            report=self.lines.append,
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
def user(skyvern: FakeSkyvern, tmp_path: Path) -> User:
    return User(skyvern, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("after_tick", [1, 30, 100, 200, 285, 299])
def test_a_takeover_at_any_time_serves_every_tick_once(skyvern: FakeSkyvern, tmp_path: Path, after_tick: int) -> None:
    user = User(skyvern, tmp_path, after_tick)
    user.takeover()
    assert not user.schedule.enabled
    user.world.sleep(20 * MINUTES)
    served = user.check_every_tick_was_served_once()
    assert served.count("Airflow") >= 3
    assert served == sorted(served, reverse=True)


@pytest.mark.slow
@pytest.mark.parametrize("after_tick", [1, 30, 200, 299])
def test_a_release_at_any_time_serves_every_tick_once(skyvern: FakeSkyvern, tmp_path: Path, after_tick: int) -> None:
    user = User(skyvern, tmp_path)
    user.takeover()
    user.world.sleep(10 * MINUTES - user.world.now.second - 60 * (user.world.now.minute % 5) + after_tick)
    user.release()
    assert user.schedule.enabled
    user.world.sleep(20 * MINUTES)
    served = user.check_every_tick_was_served_once()
    assert served[-3:] == ["Skyvern"] * 3
    assert "Airflow" in served


def interrupted_everywhere(
    skyvern: FakeSkyvern, tmp_path: Path, prepare: Callable[[User], object], action: str, at: float
) -> int:
    """Kill the action at each of its steps, wait, and call it again; return at how many steps."""
    for step in range(1, 1000):
        folder = tmp_path / f"{action}_{step}"
        folder.mkdir()
        skyvern.schedules.clear()
        skyvern.runs.clear()
        user = User(skyvern, folder, at)
        prepare(user)
        interrupting = Interrupting(step)
        try:
            getattr(user, action)(interrupting)
        except Killed:
            pass
        else:
            return step - 1
        user.world.sleep(6 * MINUTES)
        user.check_every_tick_was_served_once()
        getattr(user, action)()
        user.world.sleep(11 * MINUTES)
        served = user.check_every_tick_was_served_once()
        assert served[-1] == ("Airflow" if action == "takeover" else "Skyvern")
        assert [path.name for path in folder.iterdir()] == ["skyvern_every_five.py"]
    raise AssertionError("it never ends")


@pytest.mark.slow
def test_a_takeover_that_is_killed_anywhere_loses_no_tick_and_is_mended(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    steps = interrupted_everywhere(skyvern, tmp_path, lambda user: None, "takeover", at=200)
    assert steps >= 20


@pytest.mark.slow
def test_a_release_that_is_killed_anywhere_loses_no_tick_and_is_mended(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    steps = interrupted_everywhere(skyvern, tmp_path, User.takeover, "release", at=200)
    assert steps >= 6


@pytest.mark.slow
def test_taking_over_again_after_a_release_serves_every_tick_once(user: User) -> None:
    for _ in range(2):
        user.takeover()
        user.world.sleep(7 * MINUTES)
        user.release()
        user.world.sleep(3 * MINUTES)
    user.world.sleep(10 * MINUTES)
    assert set(user.check_every_tick_was_served_once()) == {"Skyvern", "Airflow"}


def test_an_export_changes_nothing_else_and_its_dag_leaves_the_ticks_to_skyvern(user: User) -> None:
    user.export()
    user.world.sleep(20 * MINUTES)
    assert set(user.check_every_tick_was_served_once()) == {"Skyvern"}


@pytest.mark.slow
def test_everything_may_be_repeated(user: User) -> None:
    user.export()
    text = user.file.read_text()
    user.world.sleep(20 * MINUTES)
    user.export()
    assert "is up to date" in user.lines[-1]
    user.takeover()
    user.takeover()
    assert user.lines[-1] == f"{user.schedule_id}: DAG skyvern_every_five fires it already"
    user.export()
    assert user.file.read_text() == text
    user.release()
    user.release()
    assert user.lines[-1] == f"{user.schedule_id}: is enabled in Skyvern"


@pytest.mark.slow
def test_a_dry_run_does_nothing(user: User) -> None:
    before = user.listed()
    user.export(dry_run=True)
    user.takeover(dry_run=True)
    user.release(dry_run=True)
    assert user.listed() == before
    assert list(user.world.folder.iterdir()) == []
    assert "would write" in user.output
    assert f"would disable {user.schedule_id} in Skyvern" in user.output
    assert f"would enable {user.schedule_id} in Skyvern" in user.output


def test_the_file_follows_the_schedule_but_keeps_id_and_start(user: User) -> None:
    user.export()
    user.schedule.name, user.schedule.cron_expression = "renamed", "0 * * * *"
    user.export()
    text = user.file.read_text()
    assert user.file.name == "skyvern_every_five.py"
    assert '"0 * * * *"' in text
    assert "as DAG skyvern_every_five from 2026-11-24T12:05:00Z" in text


@pytest.mark.slow
def test_a_file_changed_by_hand_is_left_alone_and_can_be_taken_over(user: User) -> None:
    user.export()
    user.file.write_text(changed := user.file.read_text().replace("max_active_runs=1", "max_active_runs=2"))
    user.schedule.cron_expression = "*/10 * * * *"
    with pytest.raises(SkyvernConfigError, match="was edited by hand and is left unchanged"):
        user.export()
    user.takeover()
    assert user.file.read_text() == changed
    assert "was edited by hand and is left unchanged" in user.output
    assert not user.schedule.enabled


@pytest.mark.parametrize(("names", "unchecked"), [(("vendor",), False), (("vendor", "month"), True), ((), False)])
def test_names_that_skyvern_ignores_are_ignored_by_the_dag_too(
    user: User, names: tuple[str, ...], unchecked: bool
) -> None:
    user.schedule.workflow.parameters = {"vendor": "string"}
    user.schedule.parameters = dict.fromkeys(names, "ACME")
    user.export()
    assert ("check_parameters=False," in user.file.read_text()) is unchecked


@pytest.mark.slow
def test_secrets_must_be_set_before_a_takeover(user: User) -> None:
    user.schedule.parameters = {"password": "hunter2"}
    with pytest.raises(SkyvernConfigError, match="airflow variables set skyvern_every_five_password '<value>'"):
        user.takeover()
    assert list(user.world.folder.iterdir()) == []
    user.airflow.variables.add("skyvern_every_five_password")
    user.takeover()
    assert "hunter2" not in user.output + user.file.read_text()
    assert not user.schedule.enabled


@pytest.mark.slow
def test_what_is_disabled_is_not_taken_over(user: User) -> None:
    user.schedule.enabled = False
    with pytest.raises(SkyvernConfigError, match="is disabled in Skyvern and no DAG fires it: nothing fires"):
        user.takeover()
    user.export()
    assert "is_paused_upon_creation=True" in user.file.read_text()
    user.schedule.enabled = True
    user.takeover()
    user.export()
    assert "is_paused_upon_creation=False" in user.file.read_text()


@pytest.mark.slow
def test_a_paused_dag_goes_on_when_it_takes_over(user: User) -> None:
    user.takeover()
    user.release()
    assert user.world.paused == {"skyvern_every_five": True}
    user.takeover()
    assert user.world.paused == {"skyvern_every_five": False}
    user.airflow.pause("skyvern_every_five", paused=True)
    with pytest.raises(SkyvernConfigError, match="DAG skyvern_every_five is paused or missing: nothing fires it"):
        user.takeover()


def test_a_schedule_that_is_no_cron_stays_where_it_is(user: User) -> None:
    user.schedule.interval_seconds = 7200
    for action in (user.export, user.takeover):
        with pytest.raises(SkyvernConfigError, match="fires every 2:00:00: only schedules with a cron expression"):
            action()
    assert list(user.world.folder.iterdir()) == []


@pytest.mark.slow
def test_airflow_that_does_not_read_the_file_gets_no_schedule(user: User) -> None:
    user.world.airflow_reads = False
    with pytest.raises(SkyvernError, match=f"Skyvern still fires {user.schedule_id}.*Then run this command again"):
        user.takeover(timeout=60)
    assert user.schedule.enabled


@pytest.mark.slow
def test_a_schedule_that_a_user_changes_meanwhile_is_not_taken(user: User) -> None:
    listed = user.listed()
    SkyvernHook().update_schedule(listed.workflow_permanent_id, user.schedule_id, "0 * * * *", enabled=True)
    with pytest.raises(SkyvernError, match=r"was changed in Skyvern meanwhile. Run this again"):
        user.handover().takeover(listed)
    assert user.schedule.enabled


@pytest.mark.slow
def test_a_dag_that_vanishes_at_the_last_moment_gives_the_schedule_back(user: User, skyvern: FakeSkyvern) -> None:
    disable = f"/v1/workflows/.*/schedules/{user.schedule_id}/disable"
    skyvern.next("POST", disable, lambda: user.world.paused.update({"skyvern_every_five": True}))
    with pytest.raises(
        SkyvernError, match=r"was paused or removed during the takeover: .* is enabled in Skyvern again"
    ):
        user.takeover()
    assert user.schedule.enabled


def slow_disable(monkeypatch: pytest.MonkeyPatch, user: User, before: float, after: float = 0) -> None:
    """Let time pass before Skyvern disables a schedule, and before its answer arrives."""
    disable = SkyvernHook().disable_schedule

    def slow(_: SkyvernHook, workflow_id: str, schedule_id: str) -> Any:
        user.world.sleep(before)
        answer = disable(workflow_id, schedule_id)
        user.world.sleep(after)
        return answer

    monkeypatch.setattr(SkyvernHook, "disable_schedule", slow)


@pytest.mark.slow
def test_a_tick_that_a_slow_disable_request_loses_is_reported(
    skyvern: FakeSkyvern, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = User(skyvern, tmp_path, after_tick=260)
    slow_disable(monkeypatch, user, before=45)
    with pytest.raises(SkyvernError, match=r"12:05:00 UTC.*Skyvern did not fire it.*airflow tasks clear"):
        user.takeover()
    user.world.sleep(60)
    assert user.world.served[TICK + timedelta(minutes=5)] == []
    assert "skyvern_every_five fires it, next at" in user.output
    assert not user.schedule.enabled


@pytest.mark.slow
@pytest.mark.parametrize(("delays", "served"), [((100, 0), "Skyvern"), ((0, 100), "Airflow")])
def test_a_tick_that_one_side_fires_during_a_slow_disable_request_is_not_reported(
    skyvern: FakeSkyvern, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, delays: tuple[int, int], served: str
) -> None:
    user = User(skyvern, tmp_path, after_tick=260)
    slow_disable(monkeypatch, user, *delays)
    user.takeover()
    assert user.world.served[TICK + timedelta(minutes=5)] == [served]


@pytest.mark.slow
def test_two_dags_of_one_schedule_are_refused(user: User) -> None:
    user.takeover()
    copy = user.file.read_text().replace("skyvern_every_five", "skyvern_copy")
    (user.world.folder / "copy.py").write_text(copy)
    user.world.sleep(10)
    with pytest.raises(SkyvernConfigError, match=r"has more than one DAG in Airflow: .* Remove all but one"):
        user.takeover()


@pytest.mark.slow
def test_clock_changes_are_told(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    user = User(skyvern, tmp_path, zone="Europe/Berlin")
    user.takeover(dry_run=True)
    expected = "around the clock change of 2027-10-31 Airflow also fires at 2027-10-31 02:00 CET"
    assert f"{user.schedule_id}: note: {expected}" in user.output
    assert f"{user.schedule_id}: note: on these days Skyvern's own scheduler also fires at wrong" in user.output
