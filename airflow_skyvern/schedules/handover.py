"""
Move a schedule from Skyvern to Airflow (takeover), and back (release).

The order of the steps makes this safe. As long as the schedule is enabled in Skyvern, Skyvern fires it and the guard
in the DAG skips; once it is disabled, the DAG fires it. Disabling is a single request and the last step, made when
Airflow has parsed the DAG and no tick is near. An interrupted takeover has therefore either not happened or is
complete, and running the command again finishes it. A release enables the schedule first, and from then on the guard
skips; pausing the DAG is only tidying up.
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
from airflow_skyvern.schedules.airflow_db import KnownDag, preferred_dag
from airflow_skyvern.schedules.dag_file import Export, Options, dag_id_for, export, ignored_parameters

if TYPE_CHECKING:
    from airflow_skyvern.models import ListedSchedule, RunSummary, Schedule, ScheduleDetails, Workflow
    from airflow_skyvern.schedules.dag_folder import DagFileSlot, DagFolder

MARGIN_BEFORE_TICK = timedelta(seconds=20)
"""No schedule is disabled this close before a tick: clocks differ, and requests take time."""

MARGIN_AFTER_TICK = timedelta(seconds=130)
"""Skyvern may still start the run of a tick for this long: a self-hosted server checks once a minute."""

CHECK_INTERVAL = 2.0

T = TypeVar("T")


class SkyvernSide(Protocol):
    """The calls to Skyvern; :class:`~airflow_skyvern.hooks.SkyvernHook` has them."""

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
    def get_workflow(self) -> Callable[[str], Workflow]:
        """Get its workflow."""

    @property
    def list_workflow_runs(self) -> Callable[..., Iterable[RunSummary]]:
        """List runs."""


class AirflowSide(Protocol):
    """The calls to Airflow; :class:`~airflow_skyvern.schedules.airflow_db.AirflowDatabase` has them."""

    def dags_of(self, schedule_id: str) -> list[KnownDag]:
        """Find the DAGs that carry the tag of a schedule."""

    def other_dag_ids(self) -> set[str]:
        """Return the ids of all other DAGs."""

    def pause(self, dag_id: str, *, paused: bool) -> None:
        """Pause a DAG, or unpause it."""

    def find_problem(self, text: str, schedule_id: str) -> str | None:
        """Parse a DAG file, and return what is wrong with it, or None."""

    def missing_variables(self, names: Iterable[str]) -> list[str]:
        """Return the variables that are not set."""


def utcnow() -> datetime:
    """Return the time."""
    return datetime.now(timezone.utc)


@dataclass
class Handover:
    """
    Exports, takes over and releases schedules, one at a time.

    :param show_files: Whether a dry run reports the whole text of each file.
    :param timeout: Seconds to wait for Airflow to parse the file, and again for a moment between ticks.
    :param report: Receives a line for each step.
    """

    skyvern: SkyvernSide
    airflow: AirflowSide
    folder: DagFolder
    options: Options = field(default_factory=Options)
    dry_run: bool = False
    show_files: bool = False
    timeout: float = 900.0
    report: Callable[[str], None] = print
    now: Callable[[], datetime] = utcnow
    sleep: Callable[[float], None] = time.sleep

    def export(self, schedule: ListedSchedule, taken: Iterable[str] = ()) -> Export:
        """
        Write the DAG of a schedule, or with ``dry_run`` show it.

        :raises SkyvernConfigError: it has no cron expression, or its file was edited by hand.
        """
        slot, exported = self._build(schedule, taken)
        if not slot.untouched:
            raise SkyvernConfigError(
                f"{slot.path} was edited by hand and is left unchanged; remove it to export again."
            )
        self._write(slot, exported)
        return exported

    def takeover(self, schedule: ListedSchedule) -> None:
        """
        Make Airflow fire a schedule instead of Skyvern. Safe to repeat, also after an interruption.

        :raises SkyvernConfigError: it cannot be taken over as it is; the message names the fix.
        :raises SkyvernError: it could not be finished and Skyvern still fires it; or it is finished, but a tick
            may have been lost.
        """
        known = self._find_dag(schedule.workflow_schedule_id)
        if not schedule.enabled:
            return self._report_taken_over(schedule, known)
        path = self._ensure_dag_file(schedule, known)
        if self.dry_run:
            return self.report(
                f"would disable {schedule.workflow_schedule_id} in Skyvern once Airflow has parsed the DAG"
            )
        dag = self._wait_until_parsed(schedule.workflow_schedule_id, path)
        if dag.paused:
            self.airflow.pause(dag.dag_id, paused=False)
            self.report(f"DAG {dag.dag_id}: unpaused")
        self._wait_between_ticks(schedule)
        checked = self.now()
        disabled = self.skyvern.disable_schedule(schedule.workflow_permanent_id, schedule.workflow_schedule_id)
        self._confirm_takeover(schedule, dag.dag_id)
        self._check_no_tick_lost(schedule, dag.dag_id, checked, disabled.schedule.modified_at)
        return None

    def release(self, schedule: ListedSchedule) -> None:
        """Make Skyvern fire a schedule again, and pause its DAG. Safe to repeat, also after an interruption."""
        schedule_id = schedule.workflow_schedule_id
        dag = self._find_dag(schedule_id)
        if self.dry_run:
            return self.report(
                f"would enable {schedule_id} in Skyvern and pause DAG {dag.dag_id if dag else '(none)'}"
            )
        if schedule.enabled:
            self.report(f"{schedule_id}: is enabled in Skyvern")
        else:
            self.skyvern.enable_schedule(schedule.workflow_permanent_id, schedule_id)
            self.report(f"{schedule_id}: Skyvern fires it from now on, next at {self._next_run_text(schedule)}")
        if dag is not None and not dag.paused:
            self._pause(schedule_id, dag)
        return None

    def _build(self, schedule: ListedSchedule, taken: Iterable[str]) -> tuple[DagFileSlot, Export]:
        schedule_id, title = schedule.workflow_schedule_id, schedule.workflow_title
        wanted = dag_id_for(schedule, title, {*taken, *self.folder.dag_ids})
        slot = self.folder.find_slot(schedule_id, wanted)
        existing = slot.block
        exported = export(
            schedule,
            title,
            existing.start if existing else self._start_date(schedule),
            self.options,
            existing.dag_id if existing else wanted,
            paused=not schedule.enabled and (existing is None or existing.paused),
            ignored=ignored_parameters(schedule, self.skyvern.get_workflow),
        )
        return slot, exported

    def _write(self, slot: DagFileSlot, exported: Export) -> None:
        text, dag_id = exported.block.file_text, exported.block.dag_id
        if self.folder.holds(slot.path, text):
            self.report(f"{slot.path}: is up to date, DAG {dag_id}")
        elif self.dry_run:
            self.folder.plan(slot.path, text)
            self.report(f"would write {slot.path}: {exported.summary}" + (f"\n\n{text}" if self.show_files else ""))
        else:
            self.folder.write(slot.path, text)
            self.report(f"{slot.path}: written, DAG {dag_id}")
        if exported.variables:
            self.report(
                f"secrets are read from Airflow Variables, which must be set: {', '.join(exported.variables)}"
            )

    def _find_dag(self, schedule_id: str) -> KnownDag | None:
        """Return the only DAG of a schedule: two would run it twice."""
        dags = self.airflow.dags_of(schedule_id)
        present = [dag for dag in dags if dag.present]
        if len(present) > 1:
            names = " and ".join(f"{dag.dag_id} ({dag.file})" for dag in present)
            raise SkyvernConfigError(f"{schedule_id} has more than one DAG in Airflow: {names}. Remove all but one.")
        return preferred_dag(dags)

    def _ensure_dag_file(self, schedule: ListedSchedule, known: KnownDag | None) -> Path:
        """Return the file of the schedule's DAG, after writing it if Airflow has no other file for it."""
        self._report_differences(schedule)
        if known is not None and known.present:
            slot, _ = self._build(schedule, ())
            if slot.block is None or slot.path.resolve() != Path(known.file).resolve():
                self.report(f"DAG {known.dag_id} in {known.file} has the tag of this schedule: no file is written")
                return Path(known.file)
        return self._write_export(schedule).path

    def _write_export(self, schedule: ListedSchedule) -> DagFileSlot:
        slot, exported = self._build(schedule, self.airflow.other_dag_ids())
        schedule_id = schedule.workflow_schedule_id
        if slot.block is None and not slot.untouched:
            raise SkyvernConfigError(
                f"{slot.path} exists and was not exported by this command: move it, or pass another --dags-folder."
            )
        text = exported.block.file_text if slot.untouched else slot.path.read_text()
        if problem := self.airflow.find_problem(text, schedule_id):
            raise SkyvernConfigError(
                f"{slot.path.name} does not load in this Airflow, nothing was changed: {problem}"
            )
        missing = self.airflow.missing_variables(exported.variables) if slot.untouched else []
        if missing and not self.dry_run:
            commands = "; ".join(f"airflow variables set {name} '<value>'" for name in missing)
            raise SkyvernConfigError(f"Set the secrets of {schedule_id} first, nothing was changed: {commands}")
        if slot.untouched:
            self._write(slot, exported)
        else:
            self.report(f"{slot.path}: was edited by hand and is left unchanged")
        return slot

    def _report_differences(self, schedule: Schedule) -> None:
        from airflow_skyvern.schedules.clock_changes import clock_change_notes

        cron, now = _cron_of(schedule), self.now()
        block = self.folder.find_slot(schedule.workflow_schedule_id, "").block
        start = self._start_date(schedule) if block is None else block.start if block.start > now else None
        for note in clock_change_notes(cron, schedule.timezone, now, start):
            self.report(f"{schedule.workflow_schedule_id}: note: {note}")

    def _report_taken_over(self, schedule: Schedule, dag: KnownDag | None) -> None:
        schedule_id = schedule.workflow_schedule_id
        if dag is not None and dag.fires:
            return self.report(f"{schedule_id}: DAG {dag.dag_id} fires it already")
        hint = f"DAG {dag.dag_id} is paused or missing" if dag else "no DAG fires it"
        raise SkyvernConfigError(
            f"{schedule_id} is disabled in Skyvern and {hint}: nothing fires it. To take it over, enable it first "
            f"(`airflow-skyvern schedules release {schedule_id}`)."
        )

    def _wait_until_parsed(self, schedule_id: str, path: Path) -> KnownDag:
        written = datetime.fromtimestamp(path.stat().st_mtime, timezone.utc)

        def read_since() -> KnownDag | None:
            dag = self._find_dag(schedule_id)
            read = dag and dag.present and dag.next_run and dag.parsed_at and dag.parsed_at >= written
            return dag if read else None

        def give_up(_: RetryCallState) -> NoReturn:
            raise SkyvernError(
                f"Airflow did not parse {path} within {self.timeout:.0f} s; Skyvern still fires {schedule_id}. "
                "Check that this is Airflow's DAGs folder, that its DAG processor (on 2.11: scheduler) is running, "
                "and `airflow dags list-import-errors`. Then run this command again."
            )

        dag = self._poll(read_since, lambda dag: dag is None, lambda _: f"Airflow has not parsed {path} yet", give_up)
        assert dag is not None
        self.report(f"DAG {dag.dag_id}: parsed by Airflow")
        return dag

    def _wait_between_ticks(self, schedule: Schedule) -> None:
        """Wait while a tick is near or its run may still start; fail if the schedule is changed meanwhile."""

        def reason_to_wait() -> str | None:
            self._check_unchanged(schedule)
            return self._tick_nearby(schedule)

        def give_up(state: RetryCallState) -> NoReturn:
            raise SkyvernError(
                f"{schedule.workflow_schedule_id}: no moment between ticks within {self.timeout:.0f} s "
                f"({_result(state)}); Skyvern still fires it. Run this command again."
            )

        self._poll(reason_to_wait, lambda reason: reason is not None, str, give_up)

    def _poll(
        self,
        check: Callable[[], T],
        unfinished: Callable[[T], bool],
        reason: Callable[[T], str],
        give_up: Callable[[RetryCallState], NoReturn],
    ) -> T:
        """Call ``check`` until it is finished, report each reason for waiting once, and give up after ``timeout``."""
        printed: list[str] = []
        deadline = self.now() + timedelta(seconds=self.timeout)

        def print_reason(state: RetryCallState) -> None:
            line = f"waiting: {reason(_result(state))}"
            if printed[-1:] != [line]:
                self.report(line)
                printed.append(line)

        retrying = Retrying(
            retry=retry_if_result(unfinished),
            wait=wait_fixed(CHECK_INTERVAL),
            stop=lambda _: self.now() >= deadline,
            sleep=self.sleep,
            before_sleep=print_reason,
            retry_error_callback=give_up,
        )
        return retrying(check)

    def _tick_nearby(self, schedule: Schedule) -> str | None:
        now, cron, zone = self.now(), _cron_of(schedule), schedule.timezone
        coming = next(skyvern_runs(cron, zone, now))
        if coming - now < MARGIN_BEFORE_TICK:
            return f"Skyvern fires at {_format_time(coming)}"
        last = last_skyvern_run(cron, zone, now - MARGIN_AFTER_TICK, now)
        if last is None or last < schedule.modified_at or self._has_run(schedule, last):
            return None
        return f"Skyvern may still start the run of {_format_time(last)}"

    def _has_run(self, schedule: Schedule, since: datetime) -> bool:
        runs = self.skyvern.list_workflow_runs(schedule.workflow_permanent_id, created_at_start=since)
        return any(run.workflow_schedule_id == schedule.workflow_schedule_id for run in runs)

    def _check_unchanged(self, schedule: Schedule) -> None:
        try:
            new = self.skyvern.get_schedule(schedule.workflow_permanent_id, schedule.workflow_schedule_id).schedule
        except SkyvernNotFoundError:
            raise SkyvernError(
                f"{schedule.workflow_schedule_id} was deleted in Skyvern during the takeover."
            ) from None
        if new.modified_at != schedule.modified_at:
            raise SkyvernError(f"{schedule.workflow_schedule_id} was changed in Skyvern meanwhile. Run this again.")

    def _confirm_takeover(self, schedule: Schedule, dag_id: str) -> None:
        """Check the DAG once more, and enable the schedule again if Airflow no longer runs the DAG."""
        schedule_id = schedule.workflow_schedule_id
        dag = self._find_dag(schedule_id)
        if dag is None or not dag.fires:
            self.skyvern.enable_schedule(schedule.workflow_permanent_id, schedule_id)
            raise SkyvernError(
                f"DAG {dag_id} was paused or removed during the takeover: {schedule_id} is enabled in Skyvern again."
            )
        at = _format_time(dag.next_run) if dag.next_run else "its next time"
        self.report(f"{schedule_id}: disabled in Skyvern; DAG {dag.dag_id} fires it, next at {at}")

    def _check_no_tick_lost(self, schedule: Schedule, dag_id: str, checked: datetime, disabled: datetime) -> None:
        """Report a tick during the disable request: the DAG may have skipped it without Skyvern firing it."""
        tick = last_skyvern_run(_cron_of(schedule), schedule.timezone, checked, disabled)
        if tick is None or self._has_run(schedule, tick):
            return
        raise SkyvernError(
            f"{schedule.workflow_schedule_id} was disabled only at {_format_time(disabled)}, after its tick of "
            f"{_format_time(tick)}, and Skyvern did not fire it. Check the DAG run of that time: "
            f"if its tasks were skipped, run them with `airflow tasks clear {dag_id} --yes -s {tick.isoformat()} "
            f"-e {tick.isoformat()}`."
        )

    def _pause(self, schedule_id: str, dag: KnownDag) -> None:
        """Pause a DAG without active or overdue runs; any other DAG skips its runs until a user pauses it."""
        hint = f"it skips while {schedule_id} is enabled; pause it later with `airflow dags pause {dag.dag_id}`"
        if _has_work(dag, self.now()):
            return self.report(f"DAG {dag.dag_id}: has unfinished runs and is not paused; {hint}")
        self.airflow.pause(dag.dag_id, paused=True)
        again = self._find_dag(schedule_id)
        if again is not None and again.active_runs:
            self.airflow.pause(dag.dag_id, paused=False)
            return self.report(f"DAG {dag.dag_id}: started a run meanwhile and is not paused; {hint}")
        return self.report(f"DAG {dag.dag_id}: paused; you can remove its file")

    def _next_run_text(self, schedule: Schedule) -> str:
        return _format_time(self._next_run_time(schedule)) if schedule.cron_expression else schedule.cadence

    def _start_date(self, schedule: Schedule) -> datetime:
        from airflow_skyvern.schedules.clock_changes import start_date_for

        if schedule.cron_expression is None:
            return self.now()  # the export is refused later, with a reason
        return start_date_for(schedule.cron_expression, schedule.timezone, self.now())

    def _next_run_time(self, schedule: Schedule) -> datetime:
        if schedule.cron_expression is None:
            return self.now()
        return next(islice(skyvern_runs(schedule.cron_expression, schedule.timezone, self.now()), 1))


def _result(state: RetryCallState) -> Any:
    assert state.outcome is not None
    return state.outcome.result()


def _has_work(dag: KnownDag, now: datetime) -> bool:
    return bool(dag.active_runs) or (dag.next_run is not None and dag.next_run <= now)


def _cron_of(schedule: Schedule) -> str:
    if schedule.cron_expression is None:
        raise SkyvernConfigError(
            f"Schedule {schedule.workflow_schedule_id} fires {schedule.cadence}: only schedules with a cron "
            "expression can be taken over."
        )
    return schedule.cron_expression


def _format_time(moment: datetime) -> str:
    return moment.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
