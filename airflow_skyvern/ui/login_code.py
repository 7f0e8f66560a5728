"""
Sends the code that a run waits for at its login: this server passes the typed code straight to Skyvern.

Airflow never stores it. The request in Required Actions only says that a code is wanted; it is answered, without the
code, when Skyvern has the code. Users who may answer that request may send the code.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import TYPE_CHECKING, Any

from fastapi import HTTPException
from starlette.concurrency import run_in_threadpool

from airflow_skyvern.client import credential_api
from airflow_skyvern.client.credential_check import as_typed
from airflow_skyvern.client.session import afetch_snapshot
from airflow_skyvern.runs.login_code import EXPIRES, LONGEST_CODE, CodeStep, identifier_at, is_still_at
from airflow_skyvern.ui.access import is_one_of
from airflow_skyvern.ui.decision import answer_request, request_of
from airflow_skyvern.ui.task_page import READ_ERRORS, belongs, find

if TYPE_CHECKING:
    from airflow_skyvern.client.session import SendAsync
    from airflow_skyvern.ui.lookup import FoundTask, RunRef, TaskKey
    from airflow_skyvern.ui.reader import RunReader

log = logging.getLogger(__name__)

GONE = "The run does not wait for this code any more."


@dataclass(frozen=True)
class Wanted:
    """
    A code that a run waits for, and the request that says so.

    :param option: The answer to the request after the code was sent.
    """

    run: RunRef
    step: CodeStep
    option: str


async def send_code(reader: RunReader, user: Any, key: TaskKey, code: Any) -> None:
    """
    Give Skyvern the code for which the run of a task instance waits, and close the request.

    :raises HTTPException: 422 it is not a code, 403 only others may send it, 409 the run does not wait for it, 502
        Skyvern does not accept it. No message repeats the code.
    """
    content = _checked(code)
    found = await find(key, None)
    wanted = await run_in_threadpool(_wanted, found, user)
    send = partial(reader.clients.send, wanted.run.skyvern_conn_id)
    try:
        if not await belongs(reader, wanted.run, key.dag_id, user, is_certain=found.is_certain):
            raise HTTPException(404, "This task has no such run.")
        await _send(send, wanted, content)
    except READ_ERRORS as error:
        log.info("The code for %s was not sent: %s", wanted.run.run_id, type(error).__name__)
        raise HTTPException(502, "Skyvern did not take the code. Send it again.") from None
    await run_in_threadpool(_close, user, key, wanted.option)


def _checked(code: Any) -> str:
    content = as_typed(code) if isinstance(code, str) else ""
    if not content or len(content) > LONGEST_CODE:
        raise HTTPException(422, f"Type the code alone: 1 to {LONGEST_CODE} characters.")
    return content


def _wanted(found: FoundTask, user: Any) -> Wanted:
    step, request = found.noted.code_step, request_of(found.key)
    if found.state != "deferred":  # it was cleared, or has ended: its wait is still in the database
        raise HTTPException(409, GONE)
    if step is None or found.run is None or request is None or not request.is_open:
        raise HTTPException(409, GONE)
    if request.approvers and not is_one_of(user, request.approvers):
        raise HTTPException(403, "This code is for others to send.")
    return Wanted(found.run, step, request.options[0])


async def _send(send: SendAsync, wanted: Wanted, content: str) -> None:
    """Send the code to the block that waits for it, valid for some seconds."""
    run_id = wanted.run.run_id
    identifier = await identifier_at(send, wanted.step)
    run, _ = await afetch_snapshot(send, run_id)  # a canceled run still accepts a code
    if identifier is None or run.status != "running" or not await is_still_at(send, run_id, wanted.step):
        raise HTTPException(409, GONE)
    until = datetime.now(timezone.utc) + timedelta(seconds=EXPIRES)
    await send(credential_api.send_totp_code(identifier, content, run_id, until))


def _close(user: Any, key: TaskKey, option: str) -> None:
    """Answer the request; if somebody else has closed it meanwhile, the code was still sent."""
    try:
        answer_request(user, key, option)
    except HTTPException as error:
        log.info("The request of %s was not answered: %s", key, error.detail)
