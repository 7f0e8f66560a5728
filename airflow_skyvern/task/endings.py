"""Telling how a run ended."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Protocol

from airflow_skyvern.exceptions import SkyvernRunError, error_of_ending

if TYPE_CHECKING:
    from airflow_skyvern.models import Run

WIDTH = 100
"""Columns of the log that a reason fills; Airflow's UI does not wrap."""


class ErrorLog(Protocol):
    """What a task logs its end to."""

    def error(self, msg: str, /, *args: Any) -> Any:
        """Log what ends the task."""


def logged_error_of(run: Run, log: ErrorLog) -> SkyvernRunError:
    """
    Make the error for a run that ended badly, and log it line by line.

    Airflow logs the error, too, but as one long line at the end of a traceback.
    """
    error = error_of_ending(run)
    for line in textwrap.wrap(str(error), WIDTH, break_long_words=False, break_on_hyphens=False):
        log.error("%s", line)
    return error
