"""
When something is tried again: single calls by :class:`RetryPolicy`, longer waits by :func:`while_transient`.

The decisions are pure; tenacity carries them out, with a sleep and a clock that tests replace.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tenacity

from airflow_skyvern.client.backoff import LONGEST_REQUESTED, backoff, jittered
from airflow_skyvern.exceptions import (
    SkyvernAPIError,
    SkyvernConnectionError,
    SkyvernError,
    SkyvernRateLimitError,
    SkyvernServerError,
)

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call

NOTHING_CREATED = "No run was created"
"""What the server says with a 503 when it turned a start away before doing anything."""

RETRY_INTERVAL = 1.0
"""Seconds between two attempts of something that is retried until a deadline."""

Sleep = Callable[[float], Any]


def did_nothing(error: SkyvernError) -> bool:
    """Return whether a call that failed this way certainly did nothing: it never left, 429, or a 503 that says so."""
    return (
        isinstance(error, SkyvernRateLimitError)
        or (isinstance(error, SkyvernConnectionError) and error.never_sent)
        or (isinstance(error, SkyvernServerError) and NOTHING_CREATED in error.detail)
    )


def may_repeat(call: Call[Any], error: SkyvernError) -> bool:
    """
    Return whether sending the call again can help and cannot do anything twice.

    A call that starts something is repeated only where it certainly did nothing.
    """
    return did_nothing(error) or (call.repeatable and error.transient)


def may_have_started(error: SkyvernError) -> bool:
    """Return whether a start that ended in this error may have created a run."""
    return error.transient and not did_nothing(error)


@dataclass(frozen=True)
class RetryPolicy:
    """
    When a failed call is sent again.

    :param attempts: How often a call is sent at the most.
    :param base: Seconds before the first repetition; doubled each time.
    :param longest: The longest pause in seconds. If the server asks for more, the call fails at once.
    """

    attempts: int = 5
    base: float = 0.5
    longest: float = 30.0

    def delay(self, call: Call[Any], attempt: int, error: SkyvernError) -> float | None:
        """Return the seconds to wait before sending the call again, or None to give up."""
        if attempt >= self.attempts or not may_repeat(call, error):
            return None
        requested = error.retry_after if isinstance(error, SkyvernAPIError) else None
        pause = backoff(attempt, base=self.base, longest=self.longest, requested=requested)
        return pause if pause <= self.longest else None

    def repeating(self) -> dict[str, Any]:
        """Return the policy as arguments of tenacity; the call is the first argument of what is repeated."""

        def delay(state: tenacity.RetryCallState) -> float | None:
            error = state.outcome.exception() if state.outcome else None
            if not isinstance(error, SkyvernError):
                return None
            return self.delay(state.args[0], state.attempt_number, error)

        return {
            "retry": lambda state: delay(state) is not None,
            "wait": lambda state: jittered(delay(state) or 0.0, 0.25),
            "reraise": True,
        }


def while_transient(
    patience: float,
    *,
    sleep: Sleep = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    interval: float = RETRY_INTERVAL,
    on_error: Callable[[SkyvernError], object] = lambda _: None,
) -> tenacity.Retrying:
    """
    Return what repeats a function while it raises transient errors, for so many seconds; then the error is raised.

    :param interval: Seconds between two attempts; as many as the server asks for, if it asks for more.
    :param on_error: Called with each error after which there is another attempt.
    """
    return tenacity.Retrying(**_while_transient(patience, clock, interval, on_error), sleep=sleep)


def while_transient_async(
    patience: float,
    *,
    sleep: Callable[[float], Awaitable[None]],
    clock: Callable[[], float] = time.monotonic,
    interval: float = RETRY_INTERVAL,
) -> tenacity.AsyncRetrying:
    """:func:`while_transient` for an event loop."""
    return tenacity.AsyncRetrying(**_while_transient(patience, clock, interval, lambda _: None), sleep=sleep)


def _while_transient(
    patience: float, clock: Callable[[], float], interval: float, on_error: Callable[[SkyvernError], object]
) -> dict[str, Any]:
    until = clock() + patience

    def error_of(state: tenacity.RetryCallState) -> SkyvernError | None:
        error = state.outcome.exception() if state.outcome else None
        return error if isinstance(error, SkyvernError) else None

    def is_transient(state: tenacity.RetryCallState) -> bool:
        error = error_of(state)
        return error is not None and error.transient

    def pause(state: tenacity.RetryCallState) -> float:
        error = error_of(state)
        requested = error.retry_after if isinstance(error, SkyvernAPIError) else None
        left = max(0.0, until - clock())
        return max(interval, min(requested or 0.0, left, LONGEST_REQUESTED))

    def report(state: tenacity.RetryCallState) -> None:
        if (error := error_of(state)) is not None:
            on_error(error)

    return {
        "retry": is_transient,
        "stop": lambda _: clock() >= until,
        "wait": pause,
        "before_sleep": report,
        "reraise": True,
    }
