"""
Browser sessions: finds out whose turn it is, and closes them.

A session has one run at a time. A start in a session that is in use is accepted, and its run fails before it has done
anything; ``runnable_id`` of the session may be empty all the while. So the deciding facts are the session's runs, and
the failure reason of a run that has lost its turn.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_skyvern.client import browser_api
from airflow_skyvern.client.retry import while_transient
from airflow_skyvern.exceptions import SkyvernAPIError, SkyvernError, SkyvernNotFoundError
from airflow_skyvern.models import ACTIVE_STATUSES, BrowserSession

if TYPE_CHECKING:
    from airflow_skyvern.client.session import Send
    from airflow_skyvern.models import Run
    from airflow_skyvern.runs.wait import Log

CLOSE_PATIENCE = 180.0
"""Seconds for which a close is retried: it takes up to a minute, and Skyvern may be unreachable."""

CLOSE_INTERVAL = 5.0
"""Seconds between two attempts to close one."""

TAKEN = re.compile(
    r"(?:Failed to begin browser session for workflow run: )?Browser session (\S+) is already occupied by (\S+?)\. .*"
)
GONE = 410


class SessionTaken(Exception):
    """
    Another run is in the browser session; nothing was started.

    :param by: The run, if Skyvern names it.
    """

    def __init__(self, session_id: str, by: str) -> None:
        super().__init__(f"Browser session {session_id} is in use by run {by}.")
        self.session_id = session_id
        self.by = by


def check_turn(send: Send, session_id: str, log: Log) -> None:
    """
    Check that no run is in a session. On a server that does not list a session's runs, a run that fails shows it.

    :raises SessionTaken: a run is in it.
    """
    try:
        runs = send(browser_api.list_runs_of_browser_session(session_id))
    except SkyvernError as error:
        log.info("Whether browser session %s is in use shows when the run begins. %s", session_id, error)
        return
    for run in runs:
        if run.status in ACTIVE_STATUSES:
            raise SessionTaken(session_id, run.run_id)


def taken_by(error: SkyvernError, session_id: str | None) -> str | None:
    """Return the run in the session if a start was refused because of it; None for any other refusal."""
    return _taken_by(error.detail, session_id) if isinstance(error, SkyvernAPIError) else None


def lost_turn_to(run: Run, session_id: str | None) -> str | None:
    """
    Return the run that was in the session when this one began, so that this one has done nothing; else None.

    No page can fake this: its words come after the block that read them, and that block took steps.
    """
    if run.status != "failed" or not run.is_final or run.step_count:
        return None
    return _taken_by(run.failure_reason, session_id)


def _taken_by(words: str | None, session_id: str | None) -> str | None:
    found = TAKEN.fullmatch(words or "")
    return found[2] if found and session_id and found[1] == session_id else None


def close_session(
    send: Send,
    session_id: str,
    log: Log,
    *,
    patience: float | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> bool:
    """
    Close a session, and return whether it was open; one that does not exist any more is closed.

    :raises SkyvernError: it may still be open.
    """

    def close() -> bool:
        if (known := fetched(send, session_id)) is None or known.is_over:
            return False
        send(browser_api.close_browser_session(session_id))
        return True

    try:
        was_open = while_transient(patience or CLOSE_PATIENCE, sleep=sleep, interval=CLOSE_INTERVAL)(close)
    except SkyvernNotFoundError:
        was_open = False
    log.info("Browser session %s: %s", session_id, "closed" if was_open else "was closed already")
    return bool(was_open)


def fetched(send: Send, session_id: str) -> BrowserSession | None:
    """Return a session; None if none has this id."""
    try:
        known: BrowserSession = send(browser_api.get_browser_session(session_id))
    except SkyvernNotFoundError:
        return None
    return known
