"""The cost of a run, and how close it came to the limits that its task has set for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from airflow_skyvern.client import api
from airflow_skyvern.client.run_request import decoded
from airflow_skyvern.durations import in_words
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernError
from airflow_skyvern.runs.blocks import blocks_of
from airflow_skyvern.runs.wait import NEAR_LIMIT

if TYPE_CHECKING:
    from airflow_skyvern.client.sender import SkyvernClient
    from airflow_skyvern.client.session import Send
    from airflow_skyvern.models import Run, RunCost
    from airflow_skyvern.runs.wait import Log

LONGEST_ANSWER = 4 * 2**20
"""The number of bytes read to find the credits of a run."""


@dataclass(frozen=True)
class Cost:
    """
    A run's usage.

    :param steps: Steps of its agent; None if the server does not count them.
    :param credits: Credits of Skyvern Cloud; None if they are not known. A self-hosted server counts none.
    """

    steps: int | None = None
    credits: int | None = None

    @property
    def in_words(self) -> str:
        """For the log."""
        used = ((self.steps, "step"), (self.credits, "credit"))
        return ", ".join(f"{number} {what}{'s' * (number != 1)}" for number, what in used if number)

    def log_as_last_line(self, run: Run, log: Log) -> None:
        """Log the run's usage; nothing if it has used nothing."""
        if self.steps or self.credits:
            log.info("Skyvern run %s: %s, used %s", run.run_id, run.status, self.in_words)


class MakesClient(Protocol):
    """Creates a client for a few seconds: :meth:`airflow_skyvern.hooks.SkyvernHook.emergency_client`."""

    def __call__(self, *, observed: bool, longest_answer: int) -> SkyvernClient | None:
        """Return it, or None if there is no connection yet."""


def account(run: Run, make_client: MakesClient, log: Log, limits: RunLimits | None = None) -> Cost:
    """
    Return the cost of a finished run, and warn if it came close to a limit.

    Credits are requested once, with a short timeout; a run without steps has used none. Skyvern returns them together
    with the output, so the credits of a run with a large output stay unknown.

    :param limits: The limits that the task has set, if it has set any.
    """
    if not run.step_count:
        cost, warnings = Cost(run.step_count), limits.warnings(run, None) if limits else []
    else:
        client = make_client(observed=True, longest_answer=LONGEST_ANSWER)
        with client or nullcontext():
            send = client.send if client else None
            cost, warnings = _cost_of(run, send), limits.warnings(run, send) if limits else []
    for warning in warnings:
        log.warning("Skyvern run %s: %s; the next one may reach it, and fail", run.run_id, warning)
    return cost


def _cost_of(run: Run, send: Send | None) -> Cost:
    if run.is_task or send is None:
        return Cost(run.step_count)
    try:
        used: RunCost = send(api.get_run_cost(run.run_id))
    except SkyvernError:  # the run has ended, and its cost changes nothing
        return Cost(run.step_count)
    counted = [used.get("credits_used"), used.get("cached_credits_used")]
    known = [number for number in counted if number is not None]
    return Cost(run.step_count, sum(known) if known else None)


@dataclass(frozen=True)
class RunLimits:
    """
    The limits that a task has set for its run.

    :param max_steps: Steps of each block that uses the browser.
    :param max_elapsed_time_minutes: Minutes of the whole run.
    """

    max_steps: int | None = None
    max_elapsed_time_minutes: int | None = None

    @classmethod
    def of(cls, options: Any) -> RunLimits:
        """Take them from the options of a run, which were checked before its start."""
        try:
            given = decoded("run_options", options) or {}
        except SkyvernConfigError:  # `tasks test` of 2.11 resumes a task without its templates
            given = {}
        return cls(_number(given.get("max_steps")), _number(given.get("max_elapsed_time_minutes")))

    def reached(self, run: Run) -> str | None:
        """Return which of these limits has ended the run; Skyvern uses ``timed_out`` for no other time limit."""
        limit = run.limit_reached or ("max_elapsed_time_minutes" if run.status == "timed_out" else None)
        return limit if limit is not None and getattr(self, limit) is not None else None

    def warnings(self, run: Run, send: Send | None) -> list[str]:
        """Describe the limits that the run nearly reached, unless a limit or a person ended it."""
        if run.limit_reached is not None or run.status in ("canceled", "timed_out"):
            return []
        return [*self._about_steps(run, send), *self._about_time(run)]

    def _about_steps(self, run: Run, send: Send | None) -> list[str]:
        steps = run.step_count or 0
        if self.max_steps is None or steps < NEAR_LIMIT * self.max_steps:
            return []
        most = _most_steps_of_a_block(run, send) or steps  # the limit is each block's
        return [f"took {most} of max_steps={self.max_steps} steps"] if most >= NEAR_LIMIT * self.max_steps else []

    def _about_time(self, run: Run) -> list[str]:
        began = run.started_at or run.created_at
        if self.max_elapsed_time_minutes is None or began is None or run.finished_at is None:
            return []
        seconds = (run.finished_at - began).total_seconds()
        if seconds < NEAR_LIMIT * 60 * self.max_elapsed_time_minutes:
            return []
        return [f"took {in_words(seconds)} of max_elapsed_time_minutes={self.max_elapsed_time_minutes}"]


def warning_of_steps(fetch: Callable[[], Run], max_steps: int, log: Log) -> Callable[[], Run]:
    """
    Return a function that fetches a run of one block, and warns, once, when it nears its limit of steps.

    Only the run itself reports its steps, not the list that triggers poll; and for a run of several blocks it reports
    the sum, while the limit applies to each block.
    """
    warned = False

    def fetch_and_warn() -> Run:
        nonlocal warned
        run = fetch()
        if not warned and not run.is_final and (run.step_count or 0) >= NEAR_LIMIT * max_steps:
            warned = True
            log.warning("Skyvern run %s: is at step %d of max_steps=%d", run.run_id, run.step_count, max_steps)
        return run

    return fetch_and_warn


def _most_steps_of_a_block(run: Run, send: Send | None) -> int | None:
    """Return the steps of the block that took most; None if the timeline does not have them."""
    if send is None:
        return None
    try:
        timeline = send(api.get_run_timeline(run.run_id))
    except SkyvernError:
        return None
    orders = [action.step_order for block in blocks_of(timeline) for action in block.actions]
    known = [order for order in orders if order is not None]
    return max(known) + 1 if known else None


def _number(value: Any) -> int | None:
    try:
        return None if value is None else int(value)
    except (TypeError, ValueError):  # a template that this process has not rendered
        return None
