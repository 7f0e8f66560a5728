"""Logging failures that are retried."""

from __future__ import annotations

import logging

from airflow_skyvern.compat.sdk import AirflowNotFoundException
from airflow_skyvern.exceptions import SkyvernError

log = logging.getLogger(__name__)


def log_failure(what: str, error: Exception) -> None:
    """Log a failure: an error of Skyvern or of the connection explains itself, any other needs its traceback."""
    expected = isinstance(error, SkyvernError | AirflowNotFoundException)
    log.warning("%s. %s: %s", what, type(error).__name__, error, exc_info=None if expected else error)
