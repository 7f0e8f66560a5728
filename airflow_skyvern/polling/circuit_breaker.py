"""Decides when to stop requests to a failing server: a pure decision for all waits of one connection."""

from __future__ import annotations

from airflow_skyvern.client.retry import backoff, jittered
from airflow_skyvern.exceptions import (
    SkyvernAPIError,
    SkyvernConnectionError,
    SkyvernError,
    SkyvernRateLimitError,
    SkyvernResponseError,
)

FIRST_PAUSE = 2.0
LONGEST_PAUSE = 60.0
"""Seconds between two probes of a failing server; more only if it asks for more."""

UNAVAILABLE = frozenset({502, 503, 504})

FAILURES_TO_OPEN = 3
"""This many failures in a row are caused by the server, not by single runs."""


class CircuitBreaker:
    """
    Stops the requests of a connection while its server fails.

    While it is open, nothing is sent. Then one request probes; the others follow when it has succeeded.
    """

    def __init__(self) -> None:
        self.error: SkyvernError | None = None
        self.closes_at = 0.0
        self._failures = 0
        self._pauses = 0

    def is_open(self, now: float) -> bool:
        """Whether nothing may be sent now."""
        return now < self.closes_at

    @property
    def needs_probe(self) -> bool:
        """Whether one request has to succeed before others are sent."""
        return self.error is not None

    def succeeded(self) -> None:
        """Note that the server answered."""
        self.error, self._failures, self._pauses = None, 0, 0

    def failed(self, error: SkyvernError, now: float) -> None:
        """
        Record a transient failure, and open if it affects the whole connection.

        A 500 may be due to one run, so only several in a row count. No answer, a proxy's answer, a status that says
        that the server is unavailable, and a ``Retry-After`` affect all waits.
        """
        self._failures += 1
        requested = error.retry_after if isinstance(error, SkyvernAPIError) else None
        concerns_all = (
            isinstance(error, SkyvernConnectionError | SkyvernRateLimitError | SkyvernResponseError)
            or requested
            or (isinstance(error, SkyvernAPIError) and error.status_code in UNAVAILABLE)
        )
        if not concerns_all and self._failures < FAILURES_TO_OPEN:
            return
        if not self.is_open(now):  # several requests in flight fail for the same reason
            self._pauses += 1
        self.error = error
        pause = backoff(max(self._pauses, 1), base=FIRST_PAUSE, longest=LONGEST_PAUSE, requested=requested)
        self.closes_at = max(self.closes_at, now + jittered(pause))
