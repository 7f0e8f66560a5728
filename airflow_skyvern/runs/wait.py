"""
The state of one wait for one run, without the sleeping: what is known, what to log, when to poll, when to give up.

The worker's loop and the trigger's loop differ only in ``await``; everything they decide is here, so that a deferred
task and a task that stays on its worker log the same and end the same. A trigger ends its wait with an event for the
worker, :class:`RunEvent`: the only thing that crosses Airflow's database.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, TypedDict, TypeVar, cast, get_args

from airflow_skyvern.client.retry import backoff, jittered, patience_with
from airflow_skyvern.durations import in_words
from airflow_skyvern.exceptions import SkyvernAPIError, SkyvernError, shorten

if TYPE_CHECKING:
    from airflow_skyvern.models import Run, RunSnapshot

PROGRESS_INTERVAL = 240.0
"""Seconds without a log line after which one says that the wait continues; up to a fifth less, to spread them."""

LONGEST_BACKOFF = 60.0
"""Seconds between two polls after many failures."""

POLL_JITTER = 0.02
"""The largest share that is added to an interval without failures: it delays noticing an end."""

LONGEST_REASON = 100
"""Characters of the failure reason in the log line; the task's error has more of it."""

NEAR_LIMIT = 0.8
"""The share of a limit from which a warning is logged."""

PAUSED = "paused"
"""The status of a run that waits for a person."""


Reason = Literal["ended", "deadline", "paused", "resumed", "answered", "code", "error"]


class Log(Protocol):
    """The common interface of Airflow's and the standard library's loggers."""

    def info(self, msg: str, /, *args: Any) -> Any:
        """Log news."""

    def warning(self, msg: str, /, *args: Any) -> Any:
        """Log a problem."""


R = TypeVar("R", bound="RunSnapshot")


class Wait(Generic[R]):
    """
    The state of one wait.

    :param run_id: The run waited for.
    :param poll_interval: Seconds between two polls.
    :param deadline: When the wait times out, in seconds since the epoch.
    :param log: Where news of the run is logged.
    :param on_pause: Called when the run begins to wait for a person.
    :param on_resume: Called when the run does not wait for a person any more, and has not ended.
    :param pause_known: Whether the run was already known to be paused.
    :param end_known: Whether the end of the run is already in the log.
    :param run_known: Whether this task has started or polled the run before: it exists, and the key has worked.
    :param longest_refusal: Maximum seconds for which a refusal that contradicts this is not believed.
    :param minutes_allowed: Minutes after which Skyvern ends the run, if its task has set them:
        ``max_elapsed_time_minutes``.
    :param clock: Returns the time in seconds since the epoch.
    """

    def __init__(
        self,
        run_id: str,
        *,
        poll_interval: float,
        deadline: float,
        log: Log,
        on_pause: Callable[[R], object] | None = None,
        on_resume: Callable[[R], object] | None = None,
        pause_known: bool = False,
        end_known: bool = False,
        run_known: bool = False,
        longest_refusal: float = math.inf,
        minutes_allowed: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.run_id = run_id
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.run: R | None = None
        self.ended = False
        self.run_known = run_known
        self._longest_refusal = longest_refusal
        self._log = log
        self._clock = clock
        self._began = self._logged_at = clock()
        self._log_interval = PROGRESS_INTERVAL * random.uniform(0.8, 1.0)
        self._failures = 0
        self._requested = 0.0
        self._refused_since: float | None = None
        self._on_pause = on_pause
        self._on_resume = on_resume
        self._paused = pause_known
        self._end_known = end_known
        self._stopped = False
        self._minutes_allowed = minutes_allowed
        self._near_limit_at = math.inf

    @property
    def is_done(self) -> bool:
        """Whether there is a reason not to poll again."""
        return self.ended or self.expired or self._stopped

    @property
    def expired(self) -> bool:
        """Whether the deadline has passed."""
        return self._clock() >= self.deadline

    @property
    def seconds_left(self) -> float:
        """The seconds until the deadline."""
        return self.deadline - self._clock()

    def is_quiet(self, seconds: float) -> bool:
        """Whether :meth:`unchanged` would change and log nothing, and the deadline is more than ``seconds`` away."""
        if self._failures:
            return False
        now = self._clock()  # read once: this is asked for each of thousands of rows
        return (
            now - self._logged_at < self._log_interval and now < self._near_limit_at and now + seconds < self.deadline
        )

    def stop(self) -> None:
        """End the wait before its time."""
        self._stopped = True

    def update(self, run: R) -> None:
        """Take the run as the server returned it, and log what is new."""
        before, self.run, self.ended = self.run, run, run.is_final
        if self.ended:
            if not self._end_known:
                self._log_news(ending(run))
            return
        if before is None or _state_of(before) != _state_of(run):
            self._log_news(_description(run))
        if self._minutes_allowed is not None:
            self._near_limit_at = _near_limit_at(run, self._minutes_allowed)
        self.unchanged()
        was_paused, self._paused = self._paused, run.status == PAUSED
        if self._paused and not was_paused and self._on_pause:
            self._on_pause(run)
        if was_paused and not self._paused and self._on_resume:
            self._on_resume(run)

    def unchanged(self) -> None:
        """Note that the run is as it was at the last poll."""
        self._failures, self._requested, self._refused_since = 0, 0.0, None
        if self.run is not None and self._is_progress_due():
            self._log_news(f"still {self.run.status} after {in_words(self._clock() - self._began)}")
        if self._is_near_limit:
            self._warn_of_limit()

    def connection_down(self, error: SkyvernError) -> None:
        """Note that the run is not polled for now, as polling other runs has failed."""
        if self._is_progress_due():
            self._log.warning("Skyvern run %s: not polled for some minutes, as Skyvern fails. %s", self.run_id, error)
            self._logged_at = self._clock()

    def poll_failed(self, error: SkyvernError) -> None:
        """
        Note that a poll failed; the wait continues.

        A run that is known exists, and the key with which it was started or polled is valid. So a refusal is believed
        only when Skyvern has repeated it for minutes, and nothing else came in between.

        :raises SkyvernError: the error itself, if polling failed permanently.
        """
        if not self._may_pass(error):
            raise error
        self._failures += 1
        self._requested = (error.retry_after or 0.0) if isinstance(error, SkyvernAPIError) else 0.0
        self._log.warning(
            "Skyvern run %s: poll failed (%d in a row), will be retried. %s", self.run_id, self._failures, error
        )
        self._logged_at = self._clock()

    def next_delay(self) -> float:
        """Return the seconds until the next poll: longer after failures, never beyond the deadline."""
        delay = jittered(self.poll_interval, POLL_JITTER)
        if self._failures:
            longest = max(LONGEST_BACKOFF, self.poll_interval)
            base = 2.0 * self.poll_interval
            delay = jittered(backoff(self._failures, base=base, longest=longest, requested=self._requested))
        return max(0.0, min(delay, self.deadline - self._clock()))

    def _may_pass(self, error: SkyvernError) -> bool:
        if error.transient:
            self._refused_since = None
            return True
        if self.run is None and not self.run_known:
            return False
        if self._refused_since is None:
            self._refused_since = self._clock()
        return self._clock() - self._refused_since < min(patience_with(error), self._longest_refusal)

    def _is_progress_due(self) -> bool:
        return self._clock() - self._logged_at >= self._log_interval

    @property
    def _is_near_limit(self) -> bool:
        return self._clock() >= self._near_limit_at

    def _warn_of_limit(self) -> None:
        """Warn, once, that Skyvern will end the run before long."""
        self._log.warning(
            "Skyvern run %s: has used %d %% of max_elapsed_time_minutes=%d; Skyvern ends it when that is over",
            self.run_id,
            100 * NEAR_LIMIT,
            self._minutes_allowed,
        )
        self._minutes_allowed, self._near_limit_at = None, math.inf
        self._logged_at = self._clock()

    def _log_news(self, news: str) -> None:
        self._log.info("Skyvern run %s: %s", self.run_id, news)
        self._logged_at = self._clock()


def wait_for_end(wait: Wait[Run], fetch: Callable[[], Run], sleep: Callable[[float], None]) -> Run | None:
    """Poll until the run has ended and return it, or None when the wait is over before that, after one last poll."""
    while True:
        try:
            wait.update(fetch())
        except SkyvernError as error:
            wait.poll_failed(error)
        if wait.is_done:
            return wait.run if wait.ended else None
        sleep(wait.next_delay())


def ending(run: RunSnapshot) -> str:
    """Describe how a run ended, for the log."""
    duration = f" after {in_words(lasted.total_seconds())}" if (lasted := run.duration) else ""
    reason = ""
    if run.failure_reason:
        from airflow_skyvern.secret_values import masked_text

        reason = f": {shorten(masked_text(run.failure_reason), LONGEST_REASON)}"
    return f"{run.status}{duration}{reason}"


def _near_limit_at(run: RunSnapshot, minutes_allowed: int) -> float:
    """Return when a run nears its limit, in seconds since the epoch; never, while it has not begun."""
    began = run.started_at or (run.created_at if run.status == "running" else None)
    return math.inf if began is None else began.timestamp() + NEAR_LIMIT * 60 * minutes_allowed


def _state_of(run: RunSnapshot) -> tuple[object, ...]:
    return run.status, run.attempt, run.retry_pending


def _description(run: RunSnapshot) -> str:
    if run.retry_pending:
        when = f" at {run.next_attempt_at:%H:%M:%S} UTC" if run.next_attempt_at else ""
        return f"attempt {run.attempt} {run.status}; Skyvern retries it{when}"
    if run.status == PAUSED:
        where = f" in {run.app_url}" if run.app_url else ""
        return f"paused, waiting for a person{where}"
    return run.status if run.attempt in (None, 1) else f"{run.status} (attempt {run.attempt})"


class RunEvent(TypedDict):
    """
    Why a wait is over; the resumed task asks Skyvern for everything else.

    ``ended``: the run is over. ``deadline``: it is not, and the time is up. ``paused``: it waits for a person,
    at the address in ``message``. ``resumed``: it does not wait for one any more. ``answered``: a person has answered
    in Airflow. ``code``: it seems to wait at a login for a code. ``error``: polling failed permanently, as
    ``message`` says.
    """

    run_id: str
    reason: Reason
    status: str | None
    message: str | None


class CodeEvent(RunEvent):
    """Where a run seems to wait for a code, see :class:`~airflow_skyvern.runs.login_code.CodeStep`."""

    step: dict[str, Any]


class AnswerEvent(RunEvent):
    """A person's answer in Airflow, by the names that Airflow 3.3 uses where it resumes the task itself."""

    chosen_options: list[str]
    responded_by_user: dict[str, str] | None
    responded_at: str | None


def event_of(value: Any) -> RunEvent:
    """
    Validate the event of a trigger. A reason that a newer version has given is one for the worker to poll itself.

    :raises SkyvernError: the event is missing or malformed, which must never pass for a success.
    """
    named = value if isinstance(value, Mapping) else {}
    run_id, reason, status = named.get("run_id"), named.get("reason"), named.get("status")
    if not (isinstance(run_id, str) and isinstance(reason, str)):
        raise SkyvernError(f"The task was resumed without a valid event of SkyvernRunTrigger: {value!r}")
    if reason in get_args(Reason):
        return RunEvent(run_id=run_id, reason=cast("Reason", reason), status=status, message=named.get("message"))
    unknown = f"Its reason is {reason!r}, which this version of the provider does not know."
    return RunEvent(run_id=run_id, reason="error", status=status, message=unknown)


def is_answer(event: Any) -> bool:
    """
    Return whether Airflow has resumed the task with a person's answer.

    That may come while the run asks nothing: a clear leaves the request of the try before, until the run asks again.
    """
    return isinstance(event, Mapping) and "reason" not in event and bool(event.get("chosen_options"))
