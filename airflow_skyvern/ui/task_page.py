"""The tab of a task instance: the run that it shows, or a sentence if it has no run to show."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from airflow.utils.session import create_session
from fastapi import HTTPException, Request
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from airflow_skyvern.client.calls import OtherAnswer
from airflow_skyvern.compat import teams
from airflow_skyvern.compat.sdk import AirflowNotFoundException
from airflow_skyvern.durations import in_words
from airflow_skyvern.exceptions import SkyvernAuthError, SkyvernConfigError, SkyvernError, SkyvernNotFoundError
from airflow_skyvern.ui import rendering
from airflow_skyvern.ui.access import connection_name, is_one_of, may_answer, may_read_logs, readable
from airflow_skyvern.ui.code_field import code_field
from airflow_skyvern.ui.concealment import Concealment, visible, web_address
from airflow_skyvern.ui.decision import Request as Asked
from airflow_skyvern.ui.decision import request_of
from airflow_skyvern.ui.lookup import FoundTask, RunRef, TaskKey, find_task, key_of, known_dag
from airflow_skyvern.ui.task_log import TaskErrors

if TYPE_CHECKING:
    from fastapi.responses import Response

    from airflow_skyvern.ui.page_data import RunData
    from airflow_skyvern.ui.reader import RunReader

log = logging.getLogger(__name__)

REFRESH = 5
"""Seconds between two refreshes of a page whose run is active; only while somebody can see it."""

ACTIVE = frozenset(
    {None, "scheduled", "queued", "running", "deferred", "restarting", "up_for_retry", "awaiting_input"}
)
"""States of a task that may still get a run."""

READ_ERRORS = (SkyvernError, AirflowNotFoundException, ValidationError, OtherAnswer)
"""The errors of reading a run."""


ENDED = {
    "failed": "The task failed",
    "up_for_retry": "This try failed, and Airflow tries again",
    "skipped": "The task was skipped",
    "upstream_failed": "The task did not run, as one before it failed",
    "removed": "The task is no longer in its DAG",
    "success": "The task succeeded",
}
"""How a task has ended, as a page says it."""

WITHOUT_ERROR = frozenset({"upstream_failed", "removed", "success"})
"""Ends for which a log gives no reason."""


@dataclass(frozen=True)
class TaskEnd:
    """
    The end of a task, if its run alone does not explain it.

    :param what: How it has ended, and its run.
    :param reason: The task's own error; empty if Airflow does not report it.
    :param is_known: Whether the log was read; if not, the next refresh has it.
    """

    what: str
    reason: str = ""
    is_known: bool = True


@dataclass(frozen=True)
class KnownRun:
    """The known facts about a run while Skyvern does not answer."""

    run_id: str
    app_url: str | None
    status: str | None
    seen_at: datetime | None


@dataclass(frozen=True)
class Shown:
    """
    The content of a page.

    :param run: The run, if there is one to show.
    :param known: The facts about the run known without Skyvern.
    :param conn_id: The connection that led to it, for those who may read connections.
    :param sentence: Why there is none.
    :param end: Why the task has ended, if the run does not say it.
    :param changes: Whether to refresh soon.
    :param status_code: The HTTP status of the page.
    """

    run: RunData | None = None
    known: KnownRun | None = None
    conn_id: str = ""
    sentence: str = ""
    end: TaskEnd | None = None
    changes: bool = False
    status_code: int = 200


async def find(key: TaskKey, try_number: int | None, call: int | None = None) -> FoundTask:
    """
    Find a task instance in Airflow's database, in a thread.

    :raises HTTPException: 404 if there is none.
    """

    def look() -> FoundTask | None:
        with create_session() as session:
            return find_task(session, key, try_number, call)

    found = await run_in_threadpool(look)
    if found is None:
        raise HTTPException(404, "This task instance does not exist.")
    return found


async def ref_of(reader: RunReader, request: Request, user: Any) -> RunRef:
    """
    Return the run that a request for a picture, recording or file is about.

    :raises HTTPException: 404 if there is none, or none that belongs to this DAG.
    """
    number, _, call = request.path_params["try_number"].partition(".")
    found = await find(_key_of(request.path_params), _number(number), _number(call))
    try:
        found = await with_run(reader, found)
        if found.run is None or not await belongs(
            reader, found.run, found.key.dag_id, user, is_certain=found.is_certain
        ):
            raise HTTPException(404, "This task has no such run.")
    except READ_ERRORS as error:
        raise HTTPException(502, sentence_of(error, "")) from error
    return found.run


async def with_run(reader: RunReader, found: FoundTask) -> FoundTask:
    """Add the run of an earlier try that Airflow no longer knows, if Skyvern finds it by its tags."""
    if (
        found.run is not None
        or found.try_number in found.tries[-1:]
        or not (found.skyvern_conn_id and found.ended_at)
    ):
        return found
    run = await reader.run_of_try(found.key, found.skyvern_conn_id, found.ended_at)
    return replace(found, run=run)


async def belongs(reader: RunReader, ref: RunRef, dag_id: str, user: Any, *, is_certain: bool) -> bool:
    """
    Return whether a run may be shown with this DAG: an XCom that names it can be edited.

    A run's tags name the DAG that started it. A sensor may wait for a run of another DAG, which its readers may see
    if they may read that DAG too, or for a run of another Airflow. A DAG shows no run that only the connection of
    another team leads to.

    :param is_certain: Whether Airflow itself has stored that the task is about this run.
    """
    if not await run_in_threadpool(teams.may_read, ref.skyvern_conn_id, dag_id):
        return False
    started_by = await reader.dag_of(ref)
    if started_by in (None, dag_id):
        return True
    return await run_in_threadpool(_may_see_run_of, user, started_by, is_certain=is_certain)


def _may_see_run_of(user: Any, dag_id: str, *, is_certain: bool) -> bool:
    with create_session() as session:
        known = known_dag(session, dag_id)
    return bool(readable(user, [dag_id])) if known else is_certain


class TaskPages:
    """
    Shows the runs of task instances.

    :param reader: Reads them.
    """

    def __init__(self, reader: RunReader) -> None:
        self.reader = reader
        self._errors = TaskErrors()

    async def shown(self, found: FoundTask, user: Any) -> Shown:
        """Return the run of a task, or why there is none to show; and why the task has ended as it did."""
        shown = await self._of_run(found, user)
        if shown.known is None and shown.status_code != HTTPStatus.OK:
            return shown
        end = await self.end_of(found, shown.run, user) if found.is_skyvern else None
        return replace(shown, end=end, changes=shown.changes or (end is not None and not end.is_known))

    async def _of_run(self, found: FoundTask, user: Any) -> Shown:
        conn_id = ""
        try:
            found = await with_run(self.reader, found)
            if found.run is None:
                return Shown(sentence=_no_run(found), changes=found.state in ACTIVE)
            conn_id = await run_in_threadpool(connection_name, user, found.run.skyvern_conn_id)
            dag_id = found.key.dag_id
            if not await belongs(self.reader, found.run, dag_id, user, is_certain=found.is_certain):
                return Shown(sentence=_not_ours(found.run), status_code=404)
            run = await self.reader.run(found.run)
        except READ_ERRORS as error:
            log.info("The page of %s: %s", found.run or found.key, type(error).__name__)
            status_code = 404 if isinstance(error, SkyvernNotFoundError) else 200
            sentence = sentence_of(error, conn_id, found.run.run_id if found.run else "")
            known = await self._known(found, user)
            return Shown(None, known, conn_id, sentence, changes=True, status_code=status_code)
        return Shown(run, conn_id=conn_id, changes=not run.has_ended)

    async def _known(self, found: FoundTask, user: Any) -> KnownRun | None:
        """Return the facts about a run that Airflow and this process know while Skyvern does not answer."""
        if found.run is None:
            return None
        seen = self.reader.last_seen(found.run)
        if seen is not None and seen.dag_id not in (None, found.key.dag_id):
            allowed = await run_in_threadpool(_may_see_run_of, user, seen.dag_id, is_certain=found.is_certain)
            seen = seen if allowed else None
        address = await self.reader.clients.run_page(found.run.skyvern_conn_id, found.noted.app_url)
        status = seen.status if seen else found.noted.status
        return KnownRun(found.run.run_id, web_address(address), status, seen.at if seen else None)

    async def error_of(self, task: Any, user: Any) -> str:
        """Return from the log why the newest try of a task ended, for users who may read the log."""
        if task.state in WITHOUT_ERROR:
            return f"{ENDED[task.state]}."
        if not await run_in_threadpool(may_read_logs, user, task.key.dag_id):
            return ""
        return Concealment({}).text(await self._errors.of(task.key, task.try_number))

    async def end_of(self, found: FoundTask, run: RunData | None, user: Any) -> TaskEnd | None:
        """Return why a task has ended, unless its run says so; None too while it has not ended."""
        what = _what_ended(found.state, run)
        if what is None:
            return None
        if found.state in WITHOUT_ERROR or not await run_in_threadpool(may_read_logs, user, found.key.dag_id):
            return TaskEnd(what)
        error = await self._errors.of(found.key, found.try_number)
        conceal = run.conceal if run is not None else Concealment({})
        return TaskEnd(what, conceal.text(error), is_known=error is not None)


def _what_ended(state: str | None, run: RunData | None) -> str | None:
    """Return how a task ended; None if it has not, or if its run ended in the same way and says why."""
    if state not in ENDED or (run is None and state == "success"):
        return None
    alike = run is not None and (run.ended_badly if state != "success" else run.status == "completed")
    if alike:
        return None
    if run is None:
        return f"{ENDED[state]}."
    if run.is_final:
        joined = "although" if (run.status == "completed") == (state != "success") else "and"
        return f"{ENDED[state]}, {joined} its run {IN_THE_PAST.get(run.status, f'is {run.status}')}."
    return f"{ENDED[state]}, and its run is {run.status}."


IN_THE_PAST = {
    "completed": "completed",
    "failed": "failed",
    "terminated": "was terminated",
    "timed_out": "timed out",
    "canceled": "was canceled",
}


async def task_page(pages: TaskPages, request: Request, user: Any, ids: tuple[str, str, str, str]) -> Response:
    """Answer with the page of a task instance."""
    chosen = (_number(request.query_params.get(name)) for name in ("try_number", "call"))
    found = await find(_key_of(request.path_params), *chosen)
    shown = await pages.shown(found, user)
    asked, may = await run_in_threadpool(_asked, shown, found, user)
    code = await code_field(pages.reader, found, may_send=may) if asked is not None else None
    root = request.scope.get("root_path", "")
    return rendering.page(
        "task.html",
        root,
        shown.status_code,
        found=found,
        here=f"{root}/ti/{'/'.join(map(rendering.segment, ids))}",
        log_path=log_path(found.key, found.try_number),
        run=shown.run,
        known=shown.known,
        conn_id=shown.conn_id,
        sentence=shown.sentence,
        end=shown.end,
        refresh=REFRESH if shown.changes else 0,
        asked=asked,
        may_answer=may,
        code=code,
        time_left=_time_left(found),
        approval=_approval(found),
        workflow_file=_workflow_file(found),
    )


def _asked(shown: Shown, found: FoundTask, user: Any) -> tuple[Asked | None, bool]:
    """Return the newest try's request to a person, and whether this user may answer."""
    asks = shown.run is not None and shown.changes and found.try_number == max(found.tries, default=0)
    asked = request_of(found.key) if asks else None
    if asked is None:
        return None, False
    is_named = not asked.approvers or is_one_of(user, asked.approvers)
    return asked, is_named and may_answer(user, found.key.dag_id)


def _time_left(found: FoundTask) -> str:
    deadline = found.noted.deadline
    return "" if deadline is None else in_words(max(0.0, (deadline - datetime.now(timezone.utc)).total_seconds()))


def _workflow_file(found: FoundTask) -> str:
    """Return the run's file and version, as recorded by the task."""
    note = found.noted.version
    return f"{visible(note.get('file'))}, version {visible(note.get('version'))}" if note else ""


def _approval(found: FoundTask) -> str:
    """Return a person's answer to the run, from the task's XCom."""
    note = found.noted.answer
    if note is None:
        return ""
    said, by = visible(note.get("answer")), visible(note.get("answered_by"))
    what = "Approved" if note.get("approved") else "Rejected"
    where = "Airflow" if note.get("answered_in") == "airflow" else "Skyvern"
    return f"{what} in {where}" + (f" by {by}" if by else "") + (f" (“{said}”)" if said else "") + "."


def log_path(key: TaskKey, try_number: int) -> str:
    """Return the path of a try's log in Airflow."""
    return (
        f"{rendering.task_path(key.dag_id, key.run_id, key.task_id, key.map_index)}?try_number={max(try_number, 1)}"
    )


def sentence_of(error: Exception, conn_id: str, run_id: str = "") -> str:
    """
    Return why a run cannot be shown: a sentence, without addresses and keys.

    :param conn_id: The connection; empty if the reader may not see its name.
    """
    connection = f"connection {conn_id}" if conn_id else "connection of this task"
    if isinstance(error, AirflowNotFoundException):
        return f"The {connection} does not exist any more, so Skyvern cannot be asked."
    if isinstance(error, SkyvernConfigError):
        return f"The {connection} is incomplete, so Skyvern cannot be asked: check its API key and base URL."
    if isinstance(error, SkyvernAuthError):
        return f"Skyvern refuses the API key of the {connection}."
    if isinstance(error, SkyvernNotFoundError):
        known = f"the run {run_id}" if run_id else "it"
        return f"Skyvern does not know {known}: it was deleted, or belongs to another organization."
    return "Skyvern does not answer at the moment. This page tries again."


def _no_run(found: FoundTask) -> str:
    if not found.is_skyvern:
        return "This task has run nothing in Skyvern."
    if found.state in ACTIVE:
        return f"Try {max(found.try_number, 1)} has not started a run yet."
    return f"Try {found.try_number} has started no run, or Airflow no longer knows which."


def _not_ours(ref: RunRef) -> str:
    or_team = ", or on the connection of another team" if teams.has_teams() else ""
    return f"The run {ref.run_id} was started by a DAG that you may not read{or_team}."


def _key_of(ids: dict[str, str]) -> TaskKey:
    return key_of(ids["dag_id"], ids["run_id"], ids["task_id"], ids["map_index"])


def _number(text: str | None) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or len(text) > 6:  # noqa: PLR2004  no task has a million tries
        raise HTTPException(404, "This try does not exist.")
    return int(text)
