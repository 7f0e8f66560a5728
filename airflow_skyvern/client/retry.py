"""
When something is tried again: calls by :class:`RetryPolicy`; longer by :func:`while_transient`, :func:`poll_until`.

The decisions, and how long to wait after failures, are pure; tenacity carries them out, with a sleep and a clock that
tests replace.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import tenacity

from airflow_skyvern.exceptions import (
    SkyvernAnswerTooLarge,
    SkyvernAPIError,
    SkyvernAuthError,
    SkyvernConnectionError,
    SkyvernError,
    SkyvernWaitInterrupted,
)

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call

RETRY_INTERVAL = 1.0
"""Seconds between two attempts of something that is retried until a deadline."""

REFUSAL_PATIENCE = 300.0
"""Seconds for which Skyvern has to deny a run that is known, or refuse a request about it, to be believed."""

KEY_ROTATION_PATIENCE = 600.0
"""Seconds for which a refused key that has worked is taken for one that is being replaced."""

REFUSAL_INTERVAL = 5.0
"""Seconds between two attempts, at least, of something that Skyvern has refused."""

T = TypeVar("T")
Sleep = Callable[[float], Any]
PatienceWith = Callable[[SkyvernError], float]


LONGEST_REQUESTED = 600.0
"""Maximum seconds to wait for a server, regardless of its ``Retry-After``: it may ask for a day."""

PACE = 1.0
"""The factor for every pause; tests of DAGs make it small."""


def did_nothing(error: SkyvernError) -> bool:
    """Return whether a call that failed this way certainly did nothing: it never left, or Skyvern itself says so."""
    if isinstance(error, SkyvernConnectionError):
        return error.never_sent
    return error.nothing_done if isinstance(error, SkyvernAPIError) else True


def may_repeat(call: Call[Any], error: SkyvernError) -> bool:
    """
    Return whether sending the call again can help and cannot do anything twice.

    A call that starts something is repeated only where it certainly did nothing. Errors that do not concern an
    answer, such as that another try has taken over, end the call.
    """
    if not isinstance(error, SkyvernConnectionError | SkyvernAPIError):
        return False
    return error.transient and (call.repeatable or did_nothing(error))


def may_have_started(error: SkyvernError) -> bool:
    """Return whether a start that ended in this error may have created a run: all but Skyvern's own refusals."""
    return not did_nothing(error)


def patience_with(error: SkyvernError) -> float:
    """
    Return for how many seconds a refusal is not believed where it contradicts what is known.

    A run that was started or polled exists, and the key used for that is valid; Skyvern may get the new one of a
    rotated key before Airflow does. One answer may come from a database that lags behind.
    """
    if not isinstance(error, SkyvernAPIError) or isinstance(error, SkyvernAnswerTooLarge):
        return 0.0
    return KEY_ROTATION_PATIENCE if isinstance(error, SkyvernAuthError) else REFUSAL_PATIENCE


def no_patience(_: SkyvernError) -> float:
    """Believe a refusal at once."""
    return 0.0


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
        if attempt >= self.attempts or call.within is not None or not may_repeat(call, error):
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
    refusals: PatienceWith = no_patience,
) -> tenacity.Retrying:
    """
    Return a retrier for a function that raises transient errors, for this many seconds; then the error is raised.

    :param interval: Seconds between two attempts; as many as the server asks for, if it asks for more.
    :param on_error: Called with each error after which there is another attempt.
    :param refusals: For how many seconds an error that is not transient is not believed, see :func:`patience_with`.
    """
    return tenacity.Retrying(**_while_transient(patience, clock, interval, on_error, refusals), sleep=sleep)


def while_transient_async(
    patience: float,
    *,
    sleep: Callable[[float], Awaitable[None]],
    clock: Callable[[], float] = time.monotonic,
    interval: float = RETRY_INTERVAL,
    refusals: PatienceWith = no_patience,
) -> tenacity.AsyncRetrying:
    """:func:`while_transient` for an event loop."""
    options = _while_transient(patience, clock, interval, lambda _: None, refusals)
    return tenacity.AsyncRetrying(**options, sleep=sleep)


def _while_transient(
    patience: float,
    clock: Callable[[], float],
    interval: float,
    on_error: Callable[[SkyvernError], object],
    refusals: PatienceWith,
) -> dict[str, Any]:
    until = clock() + patience
    refused_since: list[float] = []

    def error_of(state: tenacity.RetryCallState) -> SkyvernError | None:
        error = state.outcome.exception() if state.outcome else None
        return error if isinstance(error, SkyvernError) else None

    def may_pass(state: tenacity.RetryCallState) -> bool:
        error = error_of(state)
        if error is None or isinstance(error, SkyvernWaitInterrupted):
            return False  # this try ends, whatever Skyvern would answer
        if error.transient:
            refused_since.clear()
            return clock() < until
        if not refused_since:
            refused_since.append(clock())
        return clock() < refused_since[0] + refusals(error)

    def pause(state: tenacity.RetryCallState) -> float:
        error = error_of(state)
        if error is not None and not error.transient:
            return max(interval, REFUSAL_INTERVAL)
        requested = error.retry_after if isinstance(error, SkyvernAPIError) else None
        left = max(0.0, until - clock())
        return max(interval, min(requested or 0.0, left, LONGEST_REQUESTED))

    def report(state: tenacity.RetryCallState) -> None:
        if (error := error_of(state)) is not None:
            on_error(error)

    return {"retry": may_pass, "wait": pause, "before_sleep": report, "reraise": True}


def poll_until(
    look: Callable[[], T],
    is_done: Callable[[T], bool],
    *,
    stop: Callable[[tenacity.RetryCallState], bool],
    interval: float = RETRY_INTERVAL,
    sleep: Sleep = tenacity.nap.sleep,
) -> T:
    """
    Call a function until it returns the expected result, or the time is over, and return its last result.

    :param stop: Returns whether the time is over; asked after each call.
    :param interval: Seconds between two calls.
    """
    result: T = tenacity.Retrying(**_until(is_done, stop, interval), sleep=sleep)(look)
    return result


async def poll_until_async(
    look: Callable[[], Awaitable[T]],
    is_done: Callable[[T], bool],
    *,
    stop: Callable[[tenacity.RetryCallState], bool] = tenacity.stop_never,
    interval: float = RETRY_INTERVAL,
) -> T:
    """:func:`poll_until` for an event loop. Default of ``stop``: never."""
    result: T = await tenacity.AsyncRetrying(**_until(is_done, stop, interval), sleep=asyncio.sleep)(look)
    return result


def _until(
    is_done: Callable[[T], bool], stop: Callable[[tenacity.RetryCallState], bool], interval: float
) -> dict[str, Any]:
    return {
        "retry": tenacity.retry_if_result(lambda result: not is_done(result)),
        "stop": stop,
        "wait": tenacity.wait_fixed(PACE * interval),
        "retry_error_callback": lambda state: state.outcome.result() if state.outcome else None,
    }


def backoff(failures: int, *, base: float, longest: float, requested: float | None = None) -> float:
    """
    Return the seconds to wait after so many failures in a row: ``base``, doubled with each further one.

    :param longest: The most that this grows to; what the server asks for may be longer, up to ten minutes.
    :param requested: The seconds that the server asked for.
    """
    grown = min(base * 2.0 ** min(failures - 1, 20), longest)
    return max(grown, min(requested or 0.0, LONGEST_REQUESTED))


def jittered(seconds: float, most: float = 0.1) -> float:
    """Return the seconds, and up to such a share more; never less, unless :data:`PACE` says so."""
    return PACE * seconds * random.uniform(1.0, 1.0 + most)
