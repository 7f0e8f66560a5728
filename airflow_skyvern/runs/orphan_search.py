"""
Finds orphans and cancels them: Skyvern is read first, then Airflow's database, both again before each cancel.

So a task that starts meanwhile is safe: its run is not on the list that was read before.
:mod:`airflow_skyvern.runs.orphans` defines what an orphan is.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from airflow_skyvern.client import api
from airflow_skyvern.client.versions import is_missing_route
from airflow_skyvern.exceptions import SkyvernAPIError, SkyvernAuthError, SkyvernRequestError
from airflow_skyvern.limits import PAGE_SIZE
from airflow_skyvern.models import ACTIVE_STATUSES
from airflow_skyvern.runs.cancel import DEADLINE_PATIENCE, cancel_and_fetch
from airflow_skyvern.runs.key import ENDS_WITH_TASK, GROUP_TAG
from airflow_skyvern.runs.lookup import TagsRefused
from airflow_skyvern.runs.orphans import (
    UNKNOWN_TIME,
    Evidence,
    Period,
    Place,
    Rule,
    StartedRun,
    TaskRow,
    Verdict,
    judge,
    may_be_ours,
)

if TYPE_CHECKING:
    from airflow_skyvern.client.session import Send
    from airflow_skyvern.models import Run, RunSummary

MAY_BE_ACTIVE = ACTIVE_STATUSES | {"failed", "terminated", "timed_out"}
"""The statuses of runs that may be active: Skyvern's own retry policy may run a failed one again."""


class TaskSource(Protocol):
    """The queries to Airflow's database."""

    def rows(self, places: Collection[Place]) -> Mapping[Place, TaskRow]:
        """Return the existing task instances."""

    def periods(self, places: Collection[Place]) -> Mapping[Place, Sequence[Period]]:
        """Return when the code of these task instances ran, according to the audit log."""

    def waiting_for(self, runs: Mapping[str, Place]) -> Mapping[str, Collection[Place]]:
        """
        Return which task instances that are not over have one of these runs as an argument, or may have it.

        :param runs: The task instance that started each run.
        """


@dataclass(frozen=True)
class Finding:
    """
    A run, and the decision about it.

    :param task_state: The state of its task; None if it is not scheduled or does not exist.
    """

    run: StartedRun
    task_state: str | None
    verdict: Verdict


def find_orphans(send: Send, tasks: TaskSource, rule: Rule, tags: Mapping[str, str] | None = None) -> list[Finding]:
    """
    Judge all active runs that end with their task.

    :param tags: Only runs with these tags too.
    :raises TagsRefused: this server or organization has no run tags.
    """
    return _judged(send, tasks, rule, active_runs(send, tags))


def cancel_orphan(send: Send, tasks: TaskSource, rule: Rule, run: StartedRun) -> Finding | Run:
    """
    Cancel a run that was found to be an orphan, if it still is one.

    :return: The run's state afterwards; or the new finding, because something waits for it by now.
    :raises SkyvernError: it could not be read or canceled.
    """
    current: Run = send(api.get_run_of_deleted_workflow(run.run_id))
    if current.is_final:
        return current
    [finding] = _judged(send, tasks, rule, [replace(run, replaces=current.retried_from)])
    return cancel_and_fetch(send, run.run_id, DEADLINE_PATIENCE) if finding.verdict.orphan else finding


def _judged(send: Send, tasks: TaskSource, rule: Rule, runs: Sequence[StartedRun]) -> list[Finding]:
    """Read the database for runs that may be ours, and more about runs that then look like orphans."""
    places = {run.place for run in runs if may_be_ours(run, rule)}
    rows = tasks.rows(places)
    unclear = {place for place in places if place not in rows or not rows[place].group}
    periods = tasks.periods(unclear)
    seen = [Evidence(run, rows.get(run.place), periods.get(run.place, ())) for run in runs]
    suspects = {found.run.run_id: found.run.place for found in seen if judge(found, rule).orphan}
    waiting = tasks.waiting_for(suspects) if suspects else {}
    complete = [
        _with_more(send, found, waiting.get(found.run.run_id, ())) if found.run.run_id in suspects else found
        for found in seen
    ]
    return [Finding(found.run, found.row.state if found.row else None, judge(found, rule)) for found in complete]


def _with_more(send: Send, found: Evidence, waiting: Collection[Place]) -> Evidence:
    """Add facts that take requests: the other runs of its group, and the run that it replaces."""
    siblings = runs_of_group(send, found.run.group)
    run = found.run
    if run.replaces is None and any(other.was_over_when(run) for other in siblings):
        run = replace(run, replaces=send(api.get_run_of_deleted_workflow(run.run_id)).retried_from)
    others = sorted(str(place) for place in waiting if place != run.place)
    return replace(found, run=run, siblings=siblings, waited_for_by=others[0] if others else None)


def active_runs(send: Send, tags: Mapping[str, str] | None = None) -> list[StartedRun]:
    """
    Return the active runs that end with their task, newest first.

    :param tags: Only runs with these tags too. Then also those that Skyvern's own retry policy will run again, which
        its list of active runs does not have.
    :raises TagsRefused: this server or organization has no run tags.
    """
    statuses = ACTIVE_STATUSES if tags is None else MAY_BE_ACTIVE
    wanted = {**ENDS_WITH_TASK, **(tags or {})}
    call = api.list_runs(statuses, tags=wanted).as_answered()
    rows: dict[str, RunSummary] = {row.run_id: row for row in _asked(send, call) if not row.is_final}
    return [run for run in _with_tags(send, rows.values()) if wanted.items() <= run.tags.items()]


def runs_of_group(send: Send, group: str) -> list[StartedRun]:
    """
    Return all runs of an attempt group, also those that are over.

    :raises TagsRefused: this server or organization has no run tags.
    """
    rows = _asked(send, api.find_runs({GROUP_TAG: group}).as_answered())
    return [run for run in _with_tags(send, rows) if run.group == group]


def _asked(send: Send, call: Any) -> Any:
    try:
        return send(call)
    except SkyvernAuthError as error:
        send(api.probe())  # raises if the key is refused, not the tags
        raise TagsRefused(str(error)) from error
    except SkyvernRequestError as error:
        raise TagsRefused(str(error)) from error


def _with_tags(send: Send, rows: Iterable[RunSummary]) -> list[StartedRun]:
    left, found = list(rows), []
    while left:
        some, left = left[:PAGE_SIZE], left[PAGE_SIZE:]
        try:
            tags = send(api.get_run_tags(row.run_id for row in some))
        except SkyvernAPIError as error:
            if is_missing_route(error):
                raise TagsRefused(str(error)) from error
            raise
        found += [_started(row, tags.of(row.run_id)) for row in some]
    return found


def _started(row: RunSummary, tags: Mapping[str, str]) -> StartedRun:
    return StartedRun(
        run_id=row.run_id,
        status=row.status,
        created=row.created_at or UNKNOWN_TIME,
        tags=tags,
        is_final=row.is_final,
        finished=row.finished_at,
        by_person=row.created_by is not None or row.trigger_type not in (None, "api"),
    )
