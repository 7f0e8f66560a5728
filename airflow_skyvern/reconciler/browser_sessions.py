"""Browser sessions that nobody closes any more: their DAG run has ended without its teardown, or was deleted."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow_skyvern.client import api, browser_api
from airflow_skyvern.compat import internals, since_3_0
from airflow_skyvern.compat.sdk import AirflowNotFoundException
from airflow_skyvern.durations import as_argument
from airflow_skyvern.exceptions import SkyvernError
from airflow_skyvern.hooks import ServerHook
from airflow_skyvern.reconciler.airflow_tasks import AirflowTasks
from airflow_skyvern.runs.browser_sessions import close_session
from airflow_skyvern.runs.key import TASK_TAG, task_tag
from airflow_skyvern.runs.orphans import UNKNOWN_TIME, Place, StartedRun
from airflow_skyvern.task import xcom
from airflow_skyvern.task.pushed import Pushed, of_changed_tasks, pushed_xcoms

if TYPE_CHECKING:
    from airflow_skyvern.client.session import Send
    from airflow_skyvern.models import BrowserSession

log = logging.getLogger(__name__)

CLOSED, NOT_CLOSED = "closed", "not closed"
OVER = frozenset({"success", "failed"})
"""The states of a DAG run that has ended."""

BEFORE = timedelta(hours=1)
"""How long before its session was created a task may have begun, at the most, by two clocks."""

Report = Callable[[str], object]


@dataclass(frozen=True)
class Note:
    """
    What the database says of a session that a task has opened.

    :param dag_run_state: None where the DAG run is gone.
    """

    session_id: str
    skyvern_conn_id: str
    place: Place
    dag_run_state: str | None
    changed: datetime

    @property
    def is_over(self) -> bool:
        """Whether no task of its DAG run will close it."""
        return self.dag_run_state is None or self.dag_run_state in OVER


@dataclass(frozen=True)
class FoundSession:
    """An open session, whether nobody closes it, why, and what was done about it."""

    session: BrowserSession
    skyvern_conn_id: str
    orphan: bool
    reason: str
    place: Place | None = None
    action: str = ""

    @property
    def is_left(self) -> bool:
        """Whether nobody closes it, and it is still open."""
        return self.orphan and self.action != CLOSED

    def as_row(self) -> dict[str, Any]:
        """Describe the session by column, for a table or JSON."""
        created = self.session.created_at
        return {
            "browser_session_id": self.session.browser_session_id,
            "orphan": self.orphan,
            "reason": self.reason,
            "action": self.action or None,
            "status": self.session.status,
            "created_at": created.strftime("%Y-%m-%dT%H:%M:%SZ") if created else None,
            "timeout_minutes": self.session.timeout,
            "dag_id": self.place.dag_id if self.place else None,
            "dag_run_id": self.place.run_id if self.place else None,
            "task_id": self.place.task_id if self.place else None,
            "conn_id": self.skyvern_conn_id,
        }


def close_sessions_of(dag_id: str, run_id: str, since: datetime, report: Report) -> list[str]:
    """
    Close the sessions that a DAG run has left open, and return the ids of all that its tasks have opened.

    :param since: Only of tasks that Airflow has changed since then.
    :param report: Told of each session that may be open still.
    """
    notes = [note for note in opened_since(since, dag_id=dag_id, run_id=run_id) if note.is_over]
    for note in notes:
        _close_noted(note, report)
    return [note.session_id for note in notes]


def _close_noted(note: Note, report: Report) -> None:
    try:
        with closing(ServerHook(note.skyvern_conn_id, dag_id=note.place.dag_id)) as hook:
            close_session(hook.send, note.session_id, log)
    except (SkyvernError, AirflowNotFoundException) as error:
        report(f"browser session {note.session_id} may be open: {error}")


def opened_since(since: datetime, **ids: str) -> list[Note]:
    """Return what tasks of this Airflow have opened that end with their DAG run, of tasks changed since then."""
    from airflow.models.dagrun import DagRun
    from sqlalchemy import select

    with internals.database_session() as session:
        pushed = pushed_xcoms(session, [xcom.BROWSER_SESSION], of_changed_tasks(since, **ids))
        keys = {(key.dag_id, key.run_id) for key in pushed}
        columns = (DagRun.dag_id, DagRun.run_id, DagRun.state, DagRun.end_date)
        rows = [
            session.execute(select(*columns).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id)).first()
            for dag_id, run_id in sorted(keys)
        ]
    states = {(row[0], row[1]): row for row in rows if row is not None}
    found = (
        _note(Place(*key), one[xcom.BROWSER_SESSION], states.get((key.dag_id, key.run_id)))
        for key, one in pushed.items()
    )
    return [note for note in found if note is not None]


def _note(place: Place, pushed: Pushed, dag_run: Any) -> Note | None:
    value = pushed.value
    if not isinstance(value, Mapping) or not value.get("ends_with_dag_run") or not since_3_0.installation():
        return None
    if value.get("installation") != since_3_0.installation():
        return None  # this database is a copy of that installation's
    state = None if dag_run is None else str(getattr(dag_run[2], "value", dag_run[2]))
    changed = (dag_run[3] if dag_run is not None else None) or datetime.now(timezone.utc)
    return Note(str(value["browser_session_id"]), str(value["skyvern_conn_id"]), place, state, changed)


class SessionSweep:
    """
    Compare the open sessions of some connections with Airflow's DAG runs.

    :param min_age: How long ago its DAG run must have ended: a teardown may be about to run.
    :param report: Told of each problem that left something undone, in one line.
    """

    def __init__(
        self,
        *,
        min_age: timedelta,
        report: Report,
        clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._min_age = min_age
        self._report = report
        self._clock = clock
        self._tasks = AirflowTasks()

    def find(self, conn_ids: Iterable[str], *, close: bool = False) -> list[FoundSession]:
        """Return each open session, those that nobody closes first, and close those where that is asked for."""
        found: dict[str, FoundSession] = {}
        for conn_id in conn_ids:
            for one in self._of_connection(conn_id, close=close):
                found.setdefault(one.session.browser_session_id, one)
        return sorted(found.values(), key=lambda one: not one.orphan)

    def _of_connection(self, conn_id: str, *, close: bool) -> Iterator[FoundSession]:
        try:
            with closing(ServerHook(conn_id)) as hook:
                sessions = hook.list_browser_sessions()
                since = min((one.created_at or UNKNOWN_TIME for one in sessions), default=self._clock()) - BEFORE
                notes = {note.session_id: note for note in opened_since(since)}
                for session in sessions:
                    one = self._judged(hook.send, conn_id, session, notes.get(session.browser_session_id))
                    yield self._closed(hook, one) if close and one.orphan else one
        except (SkyvernError, AirflowNotFoundException) as error:
            self._report(f"connection {conn_id}: {error}")

    def _judged(self, send: Send, conn_id: str, session: BrowserSession, note: Note | None) -> FoundSession:
        age = self._clock() - (session.created_at or UNKNOWN_TIME)
        if note is None:
            orphan, reason = False, self._by_its_runs(send, session)
        elif not note.is_over:
            orphan, reason = False, f"its DAG run is {note.dag_run_state}"
        elif self._clock() - note.changed < self._min_age:
            orphan, reason = False, f"its DAG run has ended less than {as_argument(self._min_age)} ago"
        else:
            orphan, reason = True, f"its DAG run is {note.dag_run_state or 'deleted'}"
        if orphan and age < self._min_age:
            orphan, reason = False, f"it was created less than {as_argument(self._min_age)} ago"
        return FoundSession(session, conn_id, orphan, reason, note.place if note else None)

    def _by_its_runs(self, send: Send, session: BrowserSession) -> str:
        """
        Say what is known of a session that no task is known to have opened.

        Its DAG run may have been deleted, or a person has opened it for tasks that were: it is not closed.
        """
        runs = send(browser_api.list_runs_of_browser_session(session.browser_session_id))
        if not runs:
            return "nothing shows that a task of this Airflow has opened it, and it had no run"
        tags = send(api.get_run_tags(run.run_id for run in runs))
        places = [_our_place(run.run_id, tags.of(run.run_id)) for run in runs]
        known = [place for place in places if place is not None]
        if len(known) < len(runs):
            return "it had a run that no task of this Airflow has started"
        if rows := self._tasks.rows(set(known)):
            return f"no task that ends with its DAG run has opened it; {next(iter(rows))} has used it"
        return "all its runs are of tasks that were deleted; if a person has not opened it, close it in Skyvern"

    def _closed(self, hook: ServerHook, one: FoundSession) -> FoundSession:
        session_id = one.session.browser_session_id
        try:
            close_session(hook.send, session_id, log)
        except SkyvernError as error:
            self._report(f"browser session {session_id} may be open: {error}")
            return replace(one, action=NOT_CLOSED)
        return replace(one, action=CLOSED)


def _our_place(run_id: str, tags: Mapping[str, str]) -> Place | None:
    """Return the task instance that has started a run, if it is one of this Airflow's."""
    place = StartedRun(run_id, "", UNKNOWN_TIME, tags).place
    name = since_3_0.installation()
    return place if name and tags.get(TASK_TAG) == task_tag(*place, name) else None
