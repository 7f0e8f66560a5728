"""
The steps of a task whose run uses a browser session: wait for the task's turn, then start its run.

A session has one run at a time. A session in use is neither a failure of the workflow nor a start: nothing was done.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from airflow_skyvern.exceptions import (
    SkyvernError,
    SkyvernRequestError,
    SkyvernSessionEnded,
    SkyvernWaitTimeout,
)
from airflow_skyvern.task.deferral import airflows_timeout_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_skyvern.hooks import SkyvernHook
    from airflow_skyvern.models import Run
    from airflow_skyvern.runs.browser_sessions import SessionTaken
    from airflow_skyvern.task.task_try import TaskTry

LONGEST_PAUSE = 60.0
"""Maximum seconds before another start, after runs that have lost their turn."""

OVER = (
    "The browser session was closed, or its timeout has come; nothing was started. Clear this task: Airflow then "
    "opens a session again, if skyvern_browser_session does. Give the session a longer timeout if its runs take "
    "longer."
)


class TaskInSession(Protocol):
    """The interface of a task whose run uses a browser session."""

    browser_session_id: str | None
    skyvern_conn_id: str
    deferrable: bool
    poll_interval: float
    lost_turns: int

    @property
    def log(self) -> Any:
        """The task's log."""

    @property
    def turn_pause(self) -> float:
        """Seconds before another start after a run that has lost its turn."""

    @property
    def hook(self) -> SkyvernHook:
        """The hook of the task's connection."""

    def start_run(self, task_try: TaskTry) -> Run:
        """Start the run, or resume the run of an earlier try."""

    def starts_again(self, *, lost_turn: bool = False) -> None:
        """Note that this try starts a run once more."""

    def start_and_wait(self, task_try: TaskTry, until: float | None = None) -> Any:
        """Start the run, publish it, and wait for its end or defer."""

    def sleep_unless_killed(self, seconds: float) -> None:
        """Wait; a kill of the task ends it."""

    def defer(self, *, trigger: Any, method_name: str, kwargs: Any = None, timeout: Any = None) -> Any:
        """Release the worker until the trigger has an event."""


def start_in_turn(operator: TaskInSession, task_try: TaskTry, until: float) -> Run:
    """Start the run of a task as soon as no other one is in its session."""
    from airflow_skyvern.runs.browser_sessions import SessionTaken

    while isinstance(started := _started_or_taken(operator, task_try), SessionTaken):
        operator.starts_again()
        wait_for_turn(operator, task_try, started.by, until)
    return started


def _started_or_taken(operator: TaskInSession, task_try: TaskTry) -> Run | SessionTaken:
    from airflow_skyvern.runs.browser_sessions import SessionTaken

    try:
        with _refusals_of_session(operator):
            return operator.start_run(task_try)
    except SessionTaken as taken:
        return taken


@contextmanager
def _refusals_of_session(operator: TaskInSession) -> Iterator[None]:
    from airflow_skyvern.runs.browser_sessions import GONE, SessionTaken, taken_by

    try:
        yield
    except SkyvernRequestError as error:
        session_id = str(operator.browser_session_id)
        if (by := taken_by(error, session_id)) is not None:
            raise SessionTaken(session_id, by) from error
        if error.status_code == GONE:
            raise SkyvernSessionEnded(
                f"{error.detail or error} {OVER}", status_code=GONE, detail=error.detail, nothing_done=True
            ) from error
        raise


def wait_for_turn(operator: TaskInSession, task_try: TaskTry, by: str, until: float) -> None:
    """
    Wait for the end of the run that is in the session, here or in the triggerer.

    :raises SkyvernWaitTimeout: the task's time is over; nothing was started.
    """
    session_id = operator.browser_session_id
    if time.time() >= until:
        raise SkyvernWaitTimeout(
            f"Browser session {session_id} was in use until this task's time was over, last by Skyvern run {by}; "
            "nothing was started. The runs of a session go one after the other: put their tasks one behind the other."
        )
    operator.log.info("Browser session %s: in use by Skyvern run %s; waiting for its end", session_id, by)
    task_try.ensure_current()
    if operator.deferrable and by.startswith("wr_"):
        _defer(operator, task_try, by, until)
    _poll(operator, by, until)


def _defer(operator: TaskInSession, task_try: TaskTry, by: str, until: float) -> None:
    from airflow_skyvern.triggers import SkyvernSessionTurnTrigger

    operator.defer(
        trigger=SkyvernSessionTurnTrigger(by, operator.skyvern_conn_id, operator.poll_interval, until),
        method_name="execute_in_turn",
        kwargs={"deadline": until, "try_number": task_try.number, "lost_turns": operator.lost_turns},
        timeout=airflows_timeout_for(until),
    )


def _poll(operator: TaskInSession, by: str, until: float) -> None:
    """Poll the run; if that fails, the next start finds out whether the session is free."""
    from airflow_skyvern.runs.wait import Wait, wait_for_end

    wait: Wait[Run] = Wait(by, poll_interval=operator.poll_interval, deadline=until, log=operator.log)
    try:
        wait_for_end(wait, lambda: operator.hook.fetch_run(by), operator.sleep_unless_killed)
    except SkyvernError as error:
        operator.log.info("Skyvern run %s: cannot be waited for. %s", by, error)
        operator.sleep_unless_killed(max(0.0, min(operator.poll_interval, until - time.time())))


def start_after_lost_turn(operator: TaskInSession, task_try: TaskTry, run: Run, by: str, until: float) -> Any:
    """Wait for the session and start another run: two tasks have started one at the same moment."""
    operator.log.warning(
        "Skyvern run %s: did nothing, as run %s was in browser session %s; this task waits for the session, and "
        "starts another run then",
        run.run_id,
        by,
        run.browser_session_id,
    )
    operator.starts_again(lost_turn=True)
    operator.sleep_unless_killed(min(operator.turn_pause * 2 ** (operator.lost_turns - 1), LONGEST_PAUSE))
    wait_for_turn(operator, task_try, by, until)
    return operator.start_and_wait(task_try, until)
