"""The tab of a task instance: which run it shows, and what it says when there is none to show."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from airflow.utils.session import create_session
from fastapi import HTTPException, Request
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from airflow_skyvern.client.calls import OtherAnswer
from airflow_skyvern.compat.sdk import AirflowNotFoundException
from airflow_skyvern.exceptions import SkyvernAuthError, SkyvernConfigError, SkyvernError, SkyvernNotFoundError
from airflow_skyvern.ui import rendering
from airflow_skyvern.ui.access import may_change, readable
from airflow_skyvern.ui.decision import open_options
from airflow_skyvern.ui.lookup import FoundTask, RunRef, TaskKey, find_task, known_dag, map_index_of

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
"""States of a task from which it may come to a run."""

READ_ERRORS = (SkyvernError, AirflowNotFoundException, ValidationError, OtherAnswer)
"""How reading a run may fail."""


@dataclass(frozen=True)
class Shown:
    """
    What a page says.

    :param run: The run, if there is one to show.
    :param conn_id: The connection that led to it.
    :param sentence: Why there is none.
    :param changes: Whether to look again soon.
    :param status_code: What the page is answered with.
    """

    run: RunData | None = None
    conn_id: str = ""
    sentence: str = ""
    changes: bool = False
    status_code: int = 200


async def find(key: TaskKey, try_number: int | None) -> FoundTask:
    """
    Find a task instance in Airflow's database, in a thread.

    :raises HTTPException: 404 if there is none.
    """

    def look() -> FoundTask | None:
        with create_session() as session:
            return find_task(session, key, try_number)

    found = await run_in_threadpool(look)
    if found is None:
        raise HTTPException(404, "There is no such task instance.")
    return found


async def ref_of(reader: RunReader, request: Request, user: Any) -> RunRef:
    """
    Return the run that a request for a picture, recording or file is about.

    :raises HTTPException: 404 if there is none, or none that belongs to this DAG.
    """
    found = await find(_key_of(request.path_params), _number(request.path_params["try_number"]))
    try:
        found = await with_run(reader, found)
        if found.run is None or not await belongs(
            reader, found.run, found.key.dag_id, user, is_certain=found.is_certain
        ):
            raise HTTPException(404, "This task has no such run.")
    except READ_ERRORS as error:
        raise HTTPException(502, sentence_of(error, found.run)) from error
    return found.run


async def with_run(reader: RunReader, found: FoundTask) -> FoundTask:
    """Add the run of an earlier try of which Airflow has kept nothing, if Skyvern can tell it by its tags."""
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
    Tell whether a run may be shown with this DAG: an XCom that names it can be edited.

    A run carries the DAG that started it in its tags. A sensor waits for a run of another DAG, which its readers may
    see if they may read that one too, or of another Airflow.

    :param is_certain: Whether Airflow itself has stored that the task is about this run.
    """
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
        self._reader = reader

    async def shown(self, found: FoundTask, user: Any) -> Shown:
        """Return the run of a task, or why there is none to show."""
        try:
            found = await with_run(self._reader, found)
            if found.run is None:
                return Shown(sentence=_no_run(found), changes=found.state in ACTIVE)
            dag_id = found.key.dag_id
            if not await belongs(self._reader, found.run, dag_id, user, is_certain=found.is_certain):
                return Shown(sentence=_not_ours(found.run), status_code=404)
            run = await self._reader.run(found.run)
        except READ_ERRORS as error:
            log.info("The page of %s: %s", found.run or found.key, type(error).__name__)
            status_code = 404 if isinstance(error, SkyvernNotFoundError) else 200
            return Shown(sentence=sentence_of(error, found.run), changes=True, status_code=status_code)
        return Shown(run, conn_id=found.run.skyvern_conn_id, changes=not run.has_ended)


async def task_page(pages: TaskPages, request: Request, user: Any, ids: tuple[str, str, str, str]) -> Response:
    """Answer with the page of a task instance."""
    found = await find(_key_of(request.path_params), _number(request.query_params.get("try_number")))
    shown = await pages.shown(found, user)
    root = request.scope.get("root_path", "")
    return rendering.page(
        "task.html",
        root,
        shown.status_code,
        found=found,
        here=f"{root}/ti/{'/'.join(map(rendering.segment, ids))}",
        run=shown.run,
        conn_id=shown.conn_id,
        sentence=shown.sentence,
        refresh=REFRESH if shown.changes else 0,
        answers=await run_in_threadpool(_answers, shown, found, user),
    )


def _answers(shown: Shown, found: FoundTask, user: Any) -> list[str]:
    """Return the answers that the page offers, for the newest try and for who may act on the task."""
    asks = shown.run is not None and shown.changes and found.try_number == max(found.tries, default=0)
    return open_options(found.key) if asks and may_change(user, found.key.dag_id) else []


def sentence_of(error: Exception, ref: RunRef | None) -> str:
    """Return why a run cannot be shown: a sentence, without addresses and keys."""
    conn_id = ref.skyvern_conn_id if ref else ""
    run_id = ref.run_id if ref else ""
    if isinstance(error, AirflowNotFoundException):
        return f"The connection {conn_id} does not exist any more, so Skyvern cannot be asked."
    if isinstance(error, SkyvernConfigError):
        return f"The connection {conn_id} is incomplete, so Skyvern cannot be asked: check its API key and base URL."
    if isinstance(error, SkyvernAuthError):
        return f"Skyvern refuses the API key of the connection {conn_id}."
    if isinstance(error, SkyvernNotFoundError):
        return f"Skyvern does not know the run {run_id}: it was deleted, or belongs to another organization."
    return "Skyvern does not answer at the moment. This page tries again."


def _no_run(found: FoundTask) -> str:
    if not found.is_skyvern:
        return "This task has run nothing in Skyvern."
    if found.state in ACTIVE:
        return f"Try {max(found.try_number, 1)} has not started a run yet."
    return f"Try {found.try_number} has started no run, or Airflow no longer knows which."


def _not_ours(ref: RunRef) -> str:
    return f"The run {ref.run_id} was started by a DAG that you may not read."


def _key_of(ids: dict[str, str]) -> TaskKey:
    map_index = map_index_of(ids["map_index"])
    if map_index is None:
        raise HTTPException(404, "There is no such task instance.")
    return TaskKey(ids["dag_id"], ids["run_id"], ids["task_id"], map_index)


def _number(text: str | None) -> int | None:
    if not text:
        return None
    if not text.isdecimal() or len(text) > 6:  # noqa: PLR2004  no task has a million tries
        raise HTTPException(404, "There is no such try.")
    return int(text)
