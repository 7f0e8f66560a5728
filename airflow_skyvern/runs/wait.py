"""
One wait for one run, without the waiting: what was seen, what to log, when to look again, when to give up.

The worker's loop and the trigger's loop are the same but for ``await``; everything they decide is here, so that
a deferred task and a task that stays on its worker log the same and end the same.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from airflow_skyvern.exceptions import SkyvernAPIError, SkyvernError

if TYPE_CHECKING:
    from airflow_skyvern.models import Run, RunSnapshot

PROGRESS_INTERVAL = 240.0
"""Seconds without any news after which a line says that the wait goes on; up to a fifth less, to spread them."""

LONGEST_BACKOFF = 60.0

POLL_JITTER = 0.02
"""What is added to an interval at the most while all goes well: every such share makes ends known later."""

PAUSED = "paused"
"""The status of a run that waits for a person."""


class Log(Protocol):
    """What a logger of Airflow and one of the standard library have in common."""

    def info(self, msg: str, /, *args: Any) -> Any:
        """Log a piece of news."""

    def warning(self, msg: str, /, *args: Any) -> Any:
        """Log something to look at."""


R = TypeVar("R", bound="RunSnapshot")


class Wait(Generic[R]):
    """
    The state of one wait.

    :param run_id: The run waited for.
    :param poll_interval: Seconds between two looks.
    :param deadline: When to give up, in seconds since the epoch.
    :param log: Where news goes.
    :param on_pause: Called when the run begins to wait for a person.
    :param pause_known: Whether the run was already known to be paused.
    :param clock: Tells the time in seconds since the epoch.
    """

    def __init__(
        self,
        run_id: str,
        *,
        poll_interval: float,
        deadline: float,
        log: Log,
        on_pause: Callable[[R], object] | None = None,
        pause_known: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.run_id = run_id
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.run: R | None = None
        self._log = log
        self._clock = clock
        self._began = self._spoke = clock()
        self._patience = PROGRESS_INTERVAL * random.uniform(0.8, 1.0)
        self._misses = 0
        self._asked_to_wait = 0.0
        self._on_pause = on_pause
        self._paused = pause_known
        self._stopped = False

    @property
    def over(self) -> bool:
        """Whether there is a reason not to look again."""
        return self.ended or self.expired or self._stopped

    @property
    def ended(self) -> bool:
        """Whether the run was seen to be over."""
        return self.run is not None and self.run.is_final

    @property
    def expired(self) -> bool:
        """Whether the deadline is past."""
        return self._clock() >= self.deadline

    @property
    def left(self) -> float:
        """The seconds until the deadline."""
        return self.deadline - self._clock()

    @property
    def content(self) -> bool:
        """Whether :meth:`confirmed` would change nothing and say nothing."""
        return not self._misses and not self._silent_for_long()

    def stop(self) -> None:
        """End the wait before its time."""
        self._stopped = True

    def saw(self, run: R) -> None:
        """Take note of the run as the server told it, and log what is new."""
        before, self.run = self.run, run
        if run.is_final:
            self._say(ending(run))
            return
        if before is None or _news(before) != _news(run):
            self._say(_description(run))
        self.confirmed()
        was_paused, self._paused = self._paused, run.status == PAUSED
        if self._paused and not was_paused and self._on_pause:
            self._on_pause(run)

    def confirmed(self) -> None:
        """Take note that the run is still as it was seen last."""
        self._misses, self._asked_to_wait = 0, 0.0
        if self.run is not None and self._silent_for_long():
            self._say(f"still {self.run.status} after {_duration(self._clock() - self._began)}")

    def held_up(self, error: SkyvernError) -> None:
        """Take note that nobody looks for the time being, as looking at other runs has failed."""
        if self._silent_for_long():
            self._log.warning("Skyvern run %s: not looked at for some minutes. %s", self.run_id, error)
            self._spoke = self._clock()

    def missed(self, error: SkyvernError) -> None:
        """
        Take note of a look that failed; the wait goes on.

        :raises SkyvernError: the error itself, when looking again cannot help.
        """
        if not error.transient:
            raise error
        self._misses += 1
        if isinstance(error, SkyvernAPIError):
            self._asked_to_wait = error.retry_after or 0.0
        self._log.warning(
            "Skyvern run %s: could not look (%d in a row), the wait goes on. %s",
            self.run_id,
            self._misses,
            error,
        )
        self._spoke = self._clock()

    def pause(self) -> float:
        """Return the seconds until the next look: longer after failures, never beyond the deadline."""
        pause = self.poll_interval * jitter(POLL_JITTER)
        if self._misses:
            longest = max(LONGEST_BACKOFF, self.poll_interval)
            backoff = min(self.poll_interval * 2.0 ** min(self._misses, 10), longest)
            pause = max(backoff, self._asked_to_wait) * jitter()
        return max(0.0, min(pause, self.deadline - self._clock()))

    def _silent_for_long(self) -> bool:
        return self._clock() - self._spoke >= self._patience

    def _say(self, news: str) -> None:
        self._log.info("Skyvern run %s: %s", self.run_id, news)
        self._spoke = self._clock()


def jitter(most: float = 0.1) -> float:
    """Return what pauses are multiplied with, so that not everybody comes back at once; never less than 1."""
    return random.uniform(1.0, 1.0 + most)


def watch(wait: Wait[Run], look: Callable[[], Run], sleep: Callable[[float], None]) -> Run | None:
    """Look until the run is over and return it, or None when the wait is over, after one last look."""
    while True:
        try:
            wait.saw(look())
        except SkyvernError as error:
            wait.missed(error)
        if wait.over:
            return wait.run if wait.ended else None
        sleep(wait.pause())


def ending(run: RunSnapshot) -> str:
    """Describe how a run ended, for the log."""
    duration = f" after {_duration(run.duration.total_seconds())}" if run.duration else ""
    reason = f": {run.failure_reason}" if run.failure_reason else ""
    return f"{run.status}{duration}{reason}"


def _news(run: RunSnapshot) -> tuple[object, ...]:
    return run.status, run.attempt, run.retry_pending


def _description(run: RunSnapshot) -> str:
    if run.retry_pending:
        when = f" at {run.next_attempt_at:%H:%M:%S} UTC" if run.next_attempt_at else ""
        return f"attempt {run.attempt} {run.status}; Skyvern tries again{when}"
    if run.status == PAUSED:
        where = f" in {run.app_url}" if run.app_url else ""
        return f"paused, a person is awaited{where}"
    return run.status if run.attempt in (None, 1) else f"{run.status} (attempt {run.attempt})"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
