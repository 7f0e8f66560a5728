"""
A schedule changes hands: from Skyvern to Airflow, and back.

The order makes it safe. Until the schedule is disabled in Skyvern, Skyvern fires it and the DAG's guard skips; from
then on the DAG fires it. Disabling is one request and comes last, when Airflow knows the DAG, and at a moment at
which no tick is under way. So a hand-over that is interrupted has either not happened or is complete, and the same
command finishes it. Giving back begins with enabling, from when on the guard skips; pausing the DAG is only
tidying up.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_result, wait_fixed

from airflow_skyvern.client.cron import last_skyvern_run, skyvern_runs
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernError, SkyvernNotFoundError
from airflow_skyvern.schedules.airflow_db import KnownDag, best
from airflow_skyvern.schedules.dag_file import Export, Options, dag_id_for, export

if TYPE_CHECKING:
    from airflow_skyvern.models import ListedSchedule, RunSummary, Schedule, ScheduleDetails
    from airflow_skyvern.schedules.dag_folder import DagFileSlot, DagFolder

BEFORE_A_RUN = timedelta(seconds=20)
"""How long before a tick nothing is switched: clocks differ, and requests take time."""

AFTER_A_RUN = timedelta(seconds=130)
"""For how long after a tick Skyvern may still start its run: a server of one's own looks once a minute."""

NAP = 2.0

T = TypeVar("T")


class SkyvernSide(Protocol):
    """What is asked of Skyvern; :class:`~airflow_skyvern.hooks.SkyvernHook` does."""

    @property
    def get_schedule(self) -> Callable[[str, str], ScheduleDetails]:
        """Get a schedule."""

    @property
    def enable_schedule(self) -> Callable[[str, str], ScheduleDetails]:
        """Enable it."""

    @property
    def disable_schedule(self) -> Callable[[str, str], ScheduleDetails]:
        """Disable it."""

    @property
    def list_workflow_runs(self) -> Callable[..., Iterable[RunSummary]]:
        """List runs."""


class AirflowKnows(Protocol):
    """What is asked of Airflow; :class:`~airflow_skyvern.schedules.airflow_db.AirflowDatabase` does."""

    def dags_of(self, schedule_id: str) -> list[KnownDag]:
        """Find the DAGs that carry the tag of a schedule."""

    def taken_ids(self) -> set[str]:
        """Return the ids of all other DAGs."""

    def pause(self, dag_id: str, *, paused: bool) -> None:
        """Pause a DAG, or let it go on."""

    def problems(self, text: str, schedule_id: str) -> str | None:
        """Say what is wrong with a DAG file."""

    def missing_variables(self, names: Iterable[str]) -> list[str]:
        """Return the variables that are not set."""


def utcnow() -> datetime:
    """Return the time."""
    return datetime.now(timezone.utc)


@dataclass
class Handover:
    """
    The hand-over of schedules, one at a time.

    :param patience: Seconds to wait for Airflow to read the file, and for a quiet moment.
    :param say: Where the steps are told.
    """

    skyvern: SkyvernSide
    airflow: AirflowKnows
    folder: DagFolder
    options: Options = field(default_factory=Options)
    dry_run: bool = False
    patience: float = 900.0
    say: Callable[[str], None] = print
    now: Callable[[], datetime] = utcnow
    sleep: Callable[[float], None] = time.sleep

    def export(self, schedule: ListedSchedule, taken: Iterable[str] = ()) -> Export:
        """
        Write the DAG of a schedule, or with ``dry_run`` show it.

        :raises SkyvernConfigError: it has no cron expression, or its file was changed by hand.
        """
        place, made = self._made(schedule, taken)
        if not place.untouched:
            raise SkyvernConfigError(
                f"{place.path} was changed by hand and is left as it is; remove it to write anew."
            )
        self._write(place, made)
        return made

    def takeover(self, schedule: ListedSchedule) -> None:
        """
        Let Airflow fire a schedule instead of Skyvern. May be repeated, also after an interruption.

        :raises SkyvernConfigError: it cannot be taken over as it is; the message says what to do.
        :raises SkyvernError: it could not be finished and Skyvern still fires it; or it is finished, but a tick
            may have been lost.
        """
        known = self._dag(schedule.workflow_schedule_id)
        if not schedule.enabled:
            return self._already(schedule, known)
        path = self._file_of(schedule, known)
        if self.dry_run:
            return self.say(f"would disable {schedule.workflow_schedule_id} in Skyvern when Airflow knows the DAG")
        dag = self._wait_known(schedule.workflow_schedule_id, path)
        if dag.paused:
            self.airflow.pause(dag.dag_id, paused=False)
            self.say(f"DAG {dag.dag_id}: is no longer paused")
        self._wait_quiet(schedule)
        checked = self.now()
        disabled = self.skyvern.disable_schedule(schedule.workflow_permanent_id, schedule.workflow_schedule_id)
        self._check_taken(schedule, dag.dag_id)
        self._check_no_tick_lost(schedule, dag.dag_id, checked, disabled.schedule.modified_at)
        return None

    def release(self, schedule: ListedSchedule) -> None:
        """Let Skyvern fire a schedule again, and pause its DAG. May be repeated, also after an interruption."""
        schedule_id = schedule.workflow_schedule_id
        dag = self._dag(schedule_id)
        if self.dry_run:
            return self.say(f"would enable {schedule_id} in Skyvern and pause DAG {dag.dag_id if dag else '(none)'}")
        if schedule.enabled:
            self.say(f"{schedule_id}: is enabled in Skyvern")
        else:
            self.skyvern.enable_schedule(schedule.workflow_permanent_id, schedule_id)
            self.say(f"{schedule_id}: Skyvern fires it from now on, next at {self._next(schedule)}")
        if dag is not None and not dag.paused:
            self._pause(schedule_id, dag)
        return None

    def _made(self, schedule: ListedSchedule, taken: Iterable[str]) -> tuple[DagFileSlot, Export]:
        schedule_id, title = schedule.workflow_schedule_id, schedule.workflow_title
        wanted = dag_id_for(schedule, title, {*taken, *self.folder.dag_ids})
        place = self.folder.place(schedule_id, wanted)
        old = place.block
        made = export(
            schedule,
            title,
            old.start if old else self._start_date(schedule),
            self.options,
            old.dag_id if old else wanted,
            paused=not schedule.enabled and (old is None or old.paused),
        )
        return place, made

    def _write(self, place: DagFileSlot, made: Export) -> None:
        text = made.block.file_text
        if self.dry_run:
            self.say(f"would write {place.path}:\n\n{text}")
        elif self.folder.write(place.path, text):
            self.say(f"{place.path}: written, DAG {made.block.dag_id}")
        else:
            self.say(f"{place.path}: is as it should be, DAG {made.block.dag_id}")
        if made.variables:
            self.say(f"secrets are read from Airflow Variables, which must be set: {', '.join(made.variables)}")

    def _dag(self, schedule_id: str) -> KnownDag | None:
        """Return the one DAG of a schedule: two of them would run it twice."""
        dags = self.airflow.dags_of(schedule_id)
        present = [dag for dag in dags if dag.present]
        if len(present) > 1:
            names = " and ".join(f"{dag.dag_id} ({dag.file})" for dag in present)
            raise SkyvernConfigError(f"{schedule_id} has more than one DAG in Airflow: {names}. Remove all but one.")
        return best(dags)

    def _file_of(self, schedule: ListedSchedule, known: KnownDag | None) -> Path:
        """Write the schedule's DAG, unless Airflow has it in another file, and return its file."""
        self._report_differences(schedule)
        if known is not None and known.present:
            place, _ = self._made(schedule, ())
            if place.block is None or place.path.resolve() != Path(known.file).resolve():
                self.say(f"DAG {known.dag_id} in {known.file} carries its tag: no other file is written")
                return Path(known.file)
        return self._exported(schedule).path

    def _exported(self, schedule: ListedSchedule) -> DagFileSlot:
        place, made = self._made(schedule, self.airflow.taken_ids())
        schedule_id = schedule.workflow_schedule_id
        if place.block is None and not place.untouched:
            raise SkyvernConfigError(f"{place.path} is in the way and was written by hand: move it, or name another.")
        text = made.block.file_text if place.untouched else place.path.read_text()
        if problem := self.airflow.problems(text, schedule_id):
            raise SkyvernConfigError(
                f"{place.path.name} is no DAG file for this Airflow, nothing was done: {problem}"
            )
        missing = self.airflow.missing_variables(made.variables) if place.untouched else []
        if missing and not self.dry_run:
            commands = "; ".join(f"airflow variables set {name} '<value>'" for name in missing)
            raise SkyvernConfigError(f"Set the secrets of {schedule_id} first, nothing was done: {commands}")
        if place.untouched:
            self._write(place, made)
        else:
            self.say(f"{place.path}: was changed by hand, stays as it is")
        return place

    def _report_differences(self, schedule: Schedule) -> None:
        from airflow_skyvern.schedules.clock_changes import notes

        cron, now = _cron_of(schedule), self.now()
        block = self.folder.place(schedule.workflow_schedule_id, "").block
        start = self._start_date(schedule) if block is None else block.start if block.start > now else None
        for note in notes(cron, schedule.timezone, now, start):
            self.say(f"{schedule.workflow_schedule_id}: note: {note}")

    def _already(self, schedule: Schedule, dag: KnownDag | None) -> None:
        schedule_id = schedule.workflow_schedule_id
        if dag is not None and dag.fires:
            return self.say(f"{schedule_id}: DAG {dag.dag_id} has taken it over already")
        hint = f"DAG {dag.dag_id} is paused or gone" if dag else "no DAG has taken it over"
        raise SkyvernConfigError(
            f"{schedule_id} is disabled in Skyvern and {hint}: nothing fires it. To take it over, enable it first "
            f"(`airflow-skyvern schedules release {schedule_id}`)."
        )

    def _wait_known(self, schedule_id: str, path: Path) -> KnownDag:
        written = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)

        def read_since() -> KnownDag | None:
            dag = self._dag(schedule_id)
            read = dag and dag.present and dag.next_run and dag.parsed_at and dag.parsed_at >= written
            return dag if read else None

        def give_up(_: RetryCallState) -> NoReturn:
            raise SkyvernError(
                f"Airflow has not read {path} within {self.patience:.0f} s; Skyvern still fires "
                f"{schedule_id}. Is this the folder of Airflow's DAGs, and is its DAG processor (on 2.11 its "
                "scheduler) running? `airflow dags list-import-errors` may tell more. Then call this again."
            )

        dag = self._poll(read_since, lambda dag: dag is None, lambda _: f"Airflow has not read {path} yet", give_up)
        assert dag is not None
        self.say(f"DAG {dag.dag_id}: Airflow knows it")
        return dag

    def _wait_quiet(self, schedule: Schedule) -> None:
        """Wait while a tick of the schedule is near or under way, and check that it was not changed meanwhile."""

        def reason_to_wait() -> str | None:
            self._check_unchanged(schedule)
            return self._unquiet(schedule)

        def give_up(state: RetryCallState) -> NoReturn:
            raise SkyvernError(
                f"{schedule.workflow_schedule_id}: no quiet moment within {self.patience:.0f} s "
                f"({_result(state)}); Skyvern still fires it. Call this again."
            )

        self._poll(reason_to_wait, lambda reason: reason is not None, str, give_up)

    def _poll(
        self,
        check: Callable[[], T],
        unfinished: Callable[[T], bool],
        reason: Callable[[T], str],
        give_up: Callable[[RetryCallState], NoReturn],
    ) -> T:
        """Call ``check`` until it is finished, print each reason for waiting once, and give up after ``patience``."""
        printed: list[str] = []
        deadline = self.now() + timedelta(seconds=self.patience)

        def report(state: RetryCallState) -> None:
            line = f"waiting: {reason(_result(state))}"
            if printed[-1:] != [line]:
                self.say(line)
                printed.append(line)

        retrying = Retrying(
            retry=retry_if_result(unfinished),
            wait=wait_fixed(NAP),
            stop=lambda _: self.now() >= deadline,
            sleep=self.sleep,
            before_sleep=report,
            retry_error_callback=give_up,
        )
        return retrying(check)

    def _unquiet(self, schedule: Schedule) -> str | None:
        now, cron, zone = self.now(), _cron_of(schedule), schedule.timezone
        coming = next(skyvern_runs(cron, zone, now))
        if coming - now < BEFORE_A_RUN:
            return f"Skyvern fires at {_clock(coming)}"
        last = last_skyvern_run(cron, zone, now - AFTER_A_RUN, now)
        if last is None or last < schedule.modified_at or self._has_run(schedule, last):
            return None
        return f"Skyvern may still start the run of {_clock(last)}"

    def _has_run(self, schedule: Schedule, since: datetime) -> bool:
        runs = self.skyvern.list_workflow_runs(schedule.workflow_permanent_id, created_at_start=since)
        return any(run.workflow_schedule_id == schedule.workflow_schedule_id for run in runs)

    def _check_unchanged(self, schedule: Schedule) -> None:
        try:
            new = self.skyvern.get_schedule(schedule.workflow_permanent_id, schedule.workflow_schedule_id).schedule
        except SkyvernNotFoundError:
            raise SkyvernError(f"{schedule.workflow_schedule_id} was deleted in Skyvern meanwhile.") from None
        if new.modified_at != schedule.modified_at:
            raise SkyvernError(f"{schedule.workflow_schedule_id} was changed in Skyvern meanwhile. Call this again.")

    def _check_taken(self, schedule: Schedule, dag_id: str) -> None:
        """Look once more, and give the schedule back if Airflow does not have its DAG any longer."""
        schedule_id = schedule.workflow_schedule_id
        dag = self._dag(schedule_id)
        if dag is None or not dag.fires:
            self.skyvern.enable_schedule(schedule.workflow_permanent_id, schedule_id)
            raise SkyvernError(
                f"DAG {dag_id} was paused or removed meanwhile: {schedule_id} is enabled in Skyvern again."
            )
        at = _clock(dag.next_run) if dag.next_run else "its next time"
        self.say(f"{schedule_id}: disabled in Skyvern; DAG {dag.dag_id} fires it, next at {at}")

    def _check_no_tick_lost(self, schedule: Schedule, dag_id: str, checked: datetime, disabled: datetime) -> None:
        """Report a tick that fell into the disable request: the DAG may have skipped it, and Skyvern not fired it."""
        tick = last_skyvern_run(_cron_of(schedule), schedule.timezone, checked, disabled)
        if tick is None or self._has_run(schedule, tick):
            return
        raise SkyvernError(
            f"{schedule.workflow_schedule_id} is disabled, but only at {_clock(disabled)}, after its tick of "
            f"{_clock(tick)}, and Skyvern did not fire it. Check the DAG run of that time: "
            f"if its tasks were skipped, run them with `airflow tasks clear {dag_id} --yes -s {tick.isoformat()} "
            f"-e {tick.isoformat()}`."
        )

    def _pause(self, schedule_id: str, dag: KnownDag) -> None:
        """Pause a DAG that has nothing left to do; else it skips its runs until a user pauses it."""
        hint = f"it skips while {schedule_id} is enabled; pause it later with `airflow dags pause {dag.dag_id}`"
        if _busy(dag, self.now()):
            return self.say(f"DAG {dag.dag_id}: has a run to finish and stays as it is; {hint}")
        self.airflow.pause(dag.dag_id, paused=True)
        again = self._dag(schedule_id)
        if again is not None and again.active_runs:
            self.airflow.pause(dag.dag_id, paused=False)
            return self.say(f"DAG {dag.dag_id}: has begun a run and stays as it is; {hint}")
        return self.say(f"DAG {dag.dag_id}: paused; its file may be removed")

    def _next(self, schedule: Schedule) -> str:
        return _clock(self._next_moment(schedule)) if schedule.cron_expression else schedule.cadence

    def _start_date(self, schedule: Schedule) -> datetime:
        from airflow_skyvern.schedules.clock_changes import start_date_for

        if schedule.cron_expression is None:
            return self.now()  # the export is refused later, with a reason
        return start_date_for(schedule.cron_expression, schedule.timezone, self.now())

    def _next_moment(self, schedule: Schedule) -> datetime:
        if schedule.cron_expression is None:
            return self.now()
        return next(islice(skyvern_runs(schedule.cron_expression, schedule.timezone, self.now()), 1))


def _result(state: RetryCallState) -> Any:
    assert state.outcome is not None
    return state.outcome.result()


def _busy(dag: KnownDag, now: datetime) -> bool:
    return bool(dag.active_runs) or (dag.next_run is not None and dag.next_run <= now)


def _cron_of(schedule: Schedule) -> str:
    if schedule.cron_expression is None:
        raise SkyvernConfigError(
            f"Schedule {schedule.workflow_schedule_id} fires {schedule.cadence}: only schedules with a cron "
            "expression can be taken over."
        )
    return schedule.cron_expression


def _clock(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
