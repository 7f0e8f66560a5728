"""Which of Skyvern's errors end a task without a retry."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow_skyvern.compat.sdk import AirflowFailException
from airflow_skyvern.exceptions import SkyvernError, SkyvernRunError, SkyvernWaitTimeout


@contextmanager
def no_retry_for_permanent_errors() -> Iterator[None]:
    """
    Turn errors that no retry can cure into :class:`AirflowFailException`.

    These are a wrong key, an unknown workflow or run, a request that Skyvern does not accept, no credit, and
    a wrong connection or argument. Everything else keeps its type, and the task its retries.
    """
    try:
        yield
    except (SkyvernRunError, SkyvernWaitTimeout):
        raise
    except SkyvernError as error:
        if error.transient:
            raise
        raise AirflowFailException(str(error)) from error
