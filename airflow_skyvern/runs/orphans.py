"""
Finds active runs that nobody waits for, by comparing Skyvern's runs with Airflow's task instances.

Some ends of a task reach no code of ours: its DAG was deleted or its file removed, ``dagrun_timeout`` came between
two tries, a gateway sent a start twice. Their runs carry our tags, so they can be compared. :func:`judge` is pure,
always gives a reason, and says "orphan" only where all evidence agrees: a run that is left costs money, a run that
is canceled wrongly costs somebody's work.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from airflow_skyvern.durations import as_argument
from airflow_skyvern.runs.key import (
    ENDS_WITH_TASK_TAG,
    GROUP_TAG,
    READABLE_TAGS,
    TASK_TAG,
    of_same_attempt,
    task_tag,
)

FINISHED = frozenset({"success", "failed", "skipped", "removed", "upstream_failed"})
"""The states in which Airflow will not run a task again by itself."""

CLOCK_SKEW = timedelta(seconds=30)
"""By how much the clocks of Airflow and Skyvern may differ."""

LONGEST_START = timedelta(hours=1)
"""How long a task may run before it starts its run: uploads, and searches for runs of earlier tries."""

ABANDONED_AFTER = 6
"""A task whose DAG is gone counts as abandoned after this multiple of the least age: the DAG may come back."""

Period = tuple[datetime, "datetime | None"]
"""When code of a task instance ran: begin, and end if it is known."""

UNKNOWN_TIME = datetime.max.replace(tzinfo=timezone.utc)
"""The creation time of a run that does not report it: it counts as too young."""


class Place(NamedTuple):
    """Which task instance."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1

    def __str__(self) -> str:
        mapped = f"[{self.map_index}]" if self.map_index >= 0 else ""
        return f"{self.dag_id}.{self.task_id}{mapped} of {self.run_id}"


@dataclass(frozen=True)
class StartedRun:
    """
    A run as Skyvern lists it, with its tags.

    :param finished: When it ended, if it has.
    :param by_person: Whether its row says that a person, a schedule or a webhook started it, not an API key.
    :param replaces: The failed run in whose place Skyvern itself has started this one.
    """

    run_id: str
    status: str
    created: datetime
    tags: Mapping[str, str]
    is_final: bool = False
    finished: datetime | None = None
    by_person: bool = False
    replaces: str | None = None

    @property
    def group(self) -> str:
        """The tag of its attempt group."""
        return self.tags.get(GROUP_TAG, "")

    @property
    def place(self) -> Place:
        """The task instance that its readable tags name."""
        dag_id, name, run_id = (self.tags.get(tag, "") for tag in READABLE_TAGS)
        found = re.fullmatch(r"(.*?)(?:\[(\d+)\])?", name, re.DOTALL)
        task_id, index = found.groups() if found else (name, None)
        return Place(dag_id, run_id, task_id, -1 if index is None else int(index))

    def was_over_when(self, other: StartedRun) -> bool:
        """Return whether this run had ended when the other one was created."""
        return self.is_final and (self.finished or self.created) <= other.created


@dataclass(frozen=True)
class TaskRow:
    """
    A task instance according to Airflow's database.

    :param changed: When Airflow last changed it.
    :param run_id: The run that it waits for, or waited for last; None where Airflow does not know.
    :param group: The tag of its attempt group, as its newest try announced it; None if it has not, or not yet.
    :param dag_gone: Whether Airflow no longer finds its DAG.
    :param dag_paused: Whether its DAG is paused.
    """

    state: str | None
    changed: datetime
    run_id: str | None = None
    group: str | None = None
    dag_gone: bool = False
    dag_paused: bool = False


@dataclass(frozen=True)
class Evidence:
    """
    All known facts about a run, from both sides.

    :param row: Its task instance; None if there is none.
    :param periods: When code of the task instance has run, as the audit log says, which outlives a deletion.
    :param siblings: All runs with the same group, this one among them.
    :param waited_for_by: Another task that has this run as an argument and is not over.
    """

    run: StartedRun
    row: TaskRow | None = None
    periods: Sequence[Period] = ()
    siblings: Collection[StartedRun] = ()
    waited_for_by: str | None = None


@dataclass(frozen=True)
class Rule:
    """
    The conditions for an orphan.

    :param installation: The name of this Airflow, which its runs carry; without one, no run is certainly its own.
    :param min_age: How old the run, and how long ago the end of its task, must be: longer than a start may take.
    """

    installation: str
    now: datetime
    min_age: timedelta = timedelta(minutes=10)


@dataclass(frozen=True)
class Verdict:
    """Whether nobody waits for a run, and why this is so."""

    orphan: bool
    reason: str


def judge(seen: Evidence, rule: Rule) -> Verdict:
    """Decide about one run. It is an orphan only if it is certainly ours and certainly nobody waits for it."""
    for left_because in (_not_ours, _too_young, _not_of_its_task, _somebody_waits):
        if reason := left_because(seen, rule):
            return Verdict(orphan=False, reason=reason)
    return Verdict(orphan=True, reason=_why_nobody_waits(seen))


def may_be_ours(run: StartedRun, rule: Rule) -> bool:
    """Return whether the run carries the name of this Airflow, so that reading the database is worthwhile."""
    return _not_ours(Evidence(run), rule) is None


def _not_ours(seen: Evidence, rule: Rule) -> str | None:
    run = seen.run
    if ENDS_WITH_TASK_TAG not in run.tags:
        return "it may outlive its task (wait_for_completion or cancel_on_kill is False)"
    if not rule.installation:
        return "this Airflow has no name of its own: set [skyvern] installation, or base_url"
    if task_tag(*run.place, rule.installation) != run.tags.get(TASK_TAG):
        return f"of another Airflow: its task's tag was not made by {rule.installation!r}"
    if run.by_person:
        return "a person or a schedule started it in Skyvern, as a copy of a run of ours"
    return None


def _too_young(seen: Evidence, rule: Rule) -> str | None:
    if rule.now - seen.run.created < rule.min_age:
        return f"it was created less than {as_argument(rule.min_age)} ago"
    if seen.row is not None and seen.row.state in FINISHED and rule.now - seen.row.changed < rule.min_age:
        return f"its task is {seen.row.state} since less than {as_argument(rule.min_age)}"
    return None


def _not_of_its_task(seen: Evidence, _: Rule) -> str | None:
    run, row = seen.run, seen.row
    if row is not None and row.run_id == run.run_id:
        return None
    if row is not None and row.group:
        if not of_same_attempt(run.group, row.group):
            return f"it is of another attempt, DAG run or request with the same ids; its task is {row.state}"
    elif _period_of(seen) is None:
        missing = "its task instance does not exist" if row is None else f"its task is {row.state}"
        return f"{missing}, and this database's audit log does not show that it ran when the run was created"
    return _may_be_a_copy(seen)


def _may_be_a_copy(seen: Evidence) -> str | None:
    """
    Return why a person may have started the run again through the API, which copies the tags.

    Only a finished run can be started again. So if none of the group had finished, or a try of the task began after
    it had finished, the run is our own start; and Skyvern's own replacement names the run that it replaces.
    """
    over = [other for other in seen.siblings if other.was_over_when(seen.run) and other.run_id != seen.run.run_id]
    if not over or seen.run.replaces is not None:
        return None
    newest = max(over, key=lambda other: other.finished or other.created)
    began = _period_of(seen)
    ended = newest.finished or newest.created
    if began is not None and began > ended and (seen.row is None or seen.row.run_id is None):
        return None
    return f"it may be a copy that a person started of {newest.run_id}, which was over by then"


def _period_of(seen: Evidence) -> datetime | None:
    """Return from the audit log the begin of the period in which the task ran and created the run."""
    fitting = [began for began, ended in seen.periods if _fits(seen.run.created, began, ended)]
    return max(fitting, default=None)


def _fits(created: datetime, began: datetime, ended: datetime | None) -> bool:
    latest = began + LONGEST_START
    return began - CLOCK_SKEW <= created <= min(ended or latest, latest) + CLOCK_SKEW


def _somebody_waits(seen: Evidence, rule: Rule) -> str | None:
    row = seen.row
    if seen.waited_for_by is not None:
        return f"{seen.waited_for_by} waits for it"
    if row is None or row.state in FINISHED or _is_abandoned(row, rule) or _waits_for_another(seen):
        return None
    paused = " and its DAG is paused" if row.dag_paused else ""
    gone = ", and its DAG is gone; if that stays so, the run will count as an orphan" if row.dag_gone else ""
    return f"its task is {row.state or 'not scheduled yet'}{paused}{gone}"


def _is_abandoned(row: TaskRow, rule: Rule) -> bool:
    """Return whether the task's DAG is gone, and Airflow will not resume the task."""
    dead = row.state not in ("deferred", "running")
    return row.dag_gone and dead and rule.now - row.changed >= ABANDONED_AFTER * rule.min_age


def _waits_for_another(seen: Evidence) -> bool:
    """Return whether the task is known to wait for a different run."""
    row = seen.row
    if row is None or row.state not in ("deferred", "running") or seen.run.replaces is not None:
        return False
    return row.group == seen.run.group and row.run_id not in (None, seen.run.run_id)


def _why_nobody_waits(seen: Evidence) -> str:
    row = seen.row
    if row is None:
        return "its DAG, DAG run or task was deleted"
    if row.state in FINISHED:
        return f"its task is {row.state}"
    if _waits_for_another(seen):
        return f"the same start was carried out twice: its task waits for {row.run_id}"
    return f"its DAG is gone, so its task stays {row.state or 'unscheduled'}"
