"""How a task ends: the error of a run that ended badly, and which of Skyvern's errors end it without a retry."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from airflow_skyvern.compat import since_3_0, tries
from airflow_skyvern.compat.sdk import AirflowException, AirflowFailException, TaskDeferred
from airflow_skyvern.exceptions import (
    SkyvernError,
    SkyvernRunError,
    SkyvernWaitTimeout,
    error_of_ending,
    sentence,
)

if TYPE_CHECKING:
    from airflow_skyvern.client.session import Send
    from airflow_skyvern.models import Run

WIDTH = 100
"""Columns of the log that a reason fills; Airflow's UI does not wrap."""


class ErrorLog(Protocol):
    """The log for a task's end."""

    def error(self, msg: str, /, *args: Any) -> Any:
        """Log what ends the task."""


def logged_error_of(run: Run, log: ErrorLog, send: Send | None = None, limit: str | None = None) -> SkyvernRunError:
    """
    Create the error for a run that ended badly, and log it line by line.

    Airflow logs the error, too, but as one long line at the end of a traceback.

    :param send: Sends a call; to find out at which block the run failed. Default: that is left out.
    :param limit: Which limit of the task has ended it, if one has.
    """
    block, login = failed_at(run, send) if send else (None, "")
    error = error_of_ending(run, block, limit, login)
    for line in textwrap.wrap(str(error), WIDTH, break_long_words=False, break_on_hyphens=False):
        log.error("%s", line)
    return error


def failed_at(run: Run, send: Send) -> tuple[str | None, str]:
    """Return the label of the block at which a run failed, if Skyvern reports it; and at what, if at its login."""
    from airflow_skyvern.client import api
    from airflow_skyvern.runs.blocks import failing_block
    from airflow_skyvern.runs.login_failure import login_failure

    try:
        block = failing_block(send(api.get_run_timeline(run.run_id)))
    except SkyvernError:  # the run's end is known, and says more than why its timeline is not
        return None, ""
    return (block.label if block else None), login_failure(send, run, block)


def without_retry_at(limit: str | None, error: SkyvernRunError, task: Any) -> Exception:
    """
    Return the error for a run that reached the task's own limit: a plain retry must not run into it again.

    A retry policy of the task gets the error unchanged, and decides.

    :param limit: Which limit of the task has ended the run, if one has.
    """
    if limit is None or getattr(task, "retry_policy", None) is not None:
        return error
    final = AirflowFailException(sentence(str(error), f"Not retried: the next run would have the same {limit}."))
    final.__cause__ = error
    return final


@contextmanager
def no_retry_for_permanent_errors() -> Iterator[None]:
    """
    Turn errors that no retry can fix into :class:`AirflowFailException`.

    These are a wrong key, an unknown workflow or run, a request that Skyvern does not accept, no credit, and
    a wrong connection or argument. Everything else keeps its type, and the task its retries.
    """
    try:
        yield
    except SkyvernError as error:
        if error.transient or isinstance(error, SkyvernRunError | SkyvernWaitTimeout):
            raise
        raise AirflowFailException(str(error)) from error


@contextmanager
def marks_stay() -> Iterator[None]:
    """
    Keep an error that ends the task from overwriting a state that a user has set meanwhile, also on 2.11.

    The state of another try that has taken over stays, too: then this does not return.
    """
    try:
        yield
    except TaskDeferred:
        raise
    except BaseException as error:  # Airflow's signals are none of Exception
        tries.leave_task_to_other_try()
        if isinstance(error, SkyvernError | AirflowFailException) and since_3_0.would_overwrite_mark():
            raise AirflowException(str(error)) from error
        raise


@contextmanager
def errors_for_airflow() -> Iterator[None]:
    """End a task correctly: without a retry if none can help, and without overwriting a user's mark."""
    with marks_stay(), no_retry_for_permanent_errors():
        yield
