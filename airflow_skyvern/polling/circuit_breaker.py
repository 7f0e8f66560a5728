"""When a server in trouble is left alone: a pure decision for everybody who waits at one connection."""

from __future__ import annotations

from airflow_skyvern.exceptions import SkyvernAPIError, SkyvernConnectionError, SkyvernError, SkyvernRateLimitError
from airflow_skyvern.runs.wait import jitter

LONGEST_PAUSE = 60.0
"""Seconds between two probes of a server in trouble."""

LONGEST_REQUESTED_PAUSE = 600.0
"""Seconds for which a server is left alone at the most, whatever its Retry-After says."""

UNAVAILABLE = frozenset({502, 503, 504})

SUSPICIOUS = 3
"""So many failures in a row are the server's, not those of single runs."""


class CircuitBreaker:
    """How long a connection is left alone while its server is in trouble."""

    def __init__(self) -> None:
        self.error: SkyvernError | None = None
        self._failures = 0
        self._pauses = 0
        self._until = 0.0

    def held(self, now: float) -> bool:
        """Whether nothing may be asked now."""
        return now < self._until

    @property
    def until(self) -> float:
        """When the next request may be sent."""
        return self._until

    @property
    def in_trouble(self) -> bool:
        """Whether one request has to succeed before others are sent."""
        return self.error is not None

    def worked(self) -> None:
        """Take note of an answer."""
        self.error, self._failures, self._pauses = None, 0, 0

    def failed(self, error: SkyvernError, now: float) -> None:
        """
        Take note of a failure that may pass.

        A 500 may be the fault of one run, so only several in a row count. That the server is not reached, says so
        itself, or wants to be left alone concerns everybody.
        """
        self._failures += 1
        asked = error.retry_after if isinstance(error, SkyvernAPIError) else None
        everybody = (
            isinstance(error, SkyvernConnectionError | SkyvernRateLimitError)
            or asked
            or (isinstance(error, SkyvernAPIError) and error.status_code in UNAVAILABLE)
        )
        if not everybody and self._failures < SUSPICIOUS:
            return
        if not self.held(now):  # several requests under way fail of the same cause
            self._pauses += 1
        self.error = error
        pause = max(min(2.0 ** min(self._pauses, 10), LONGEST_PAUSE), min(asked or 0.0, LONGEST_REQUESTED_PAUSE))
        self._until = max(self._until, now + pause * jitter())
