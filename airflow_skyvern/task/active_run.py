"""The run that a task has in Skyvern, and what becomes of it when the task is killed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from airflow_skyvern import compat
from airflow_skyvern.compat.sdk import AirflowFailException
from airflow_skyvern.exceptions import SkyvernError, SkyvernOvertaken, SkyvernRunCanceled, SkyvernWaitInterrupted
from airflow_skyvern.task.task_try import TaskTry

if TYPE_CHECKING:
    from airflow_skyvern.hooks import SkyvernHook
    from airflow_skyvern.runs.wait import Log

LONGEST_SLEEP = 1.0
"""Seconds between two checks whether the task was killed."""

STATE_BUDGET = 1.5
"""Seconds of a killed task for asking Airflow why; the rest of its time is for canceling the run."""


class ActiveRun:
    """
    The run of this task, as far as it is known to be active.

    Airflow sends one signal for a mark and a clear, for a shutdown of the worker, for a heartbeat that came too late,
    and for an API server that is away. Only after the first two is the run unwanted; after the others the next try
    resumes it, and canceling it would make the next try do its work again.

    :param hook: Returns the hook of the task.
    :param cancel_on_kill: Whether a killed task cancels its run.
    :param durable: Whether the next try resumes the run.
    """

    def __init__(self, hook: Callable[[], SkyvernHook], log: Log, *, cancel_on_kill: bool, durable: bool) -> None:
        self._hook = hook
        self._log = log
        self._cancel_on_kill = cancel_on_kill
        self._durable = durable
        self._try: TaskTry | None = None
        self._run_id: str | None = None
        self._group: str | None = None
        self._killed = self._left_to_retry = False

    def will_start(self, task_try: TaskTry, group: str | None) -> None:
        """Note that a start is sent next, and the tag that it carries."""
        self._try, self._run_id, self._group = task_try, None, group

    def is_running(self, task_try: TaskTry, run_id: str) -> None:
        """Note that the run is active."""
        self._try, self._run_id, self._group = task_try, run_id, None

    def ended(self) -> None:
        """Note that nothing is left to cancel."""
        self._run_id = self._group = None

    def on_kill(self) -> None:
        """Cancel the run, or leave it to the next try, within the seconds that Airflow leaves."""
        self._killed = True
        if not self._cancel_on_kill:
            self._log.info("The task was killed; its Skyvern run continues, as cancel_on_kill is False")
        elif compat.timed_out_by_airflow():
            self._cancel_after_timeout()
        elif self._next_try_resumes():
            self._left_to_retry = True
        else:
            self._cancel_within_budget()

    @contextmanager
    def canceled_if_given_up(self) -> Iterator[None]:
        """Cancel the run when an error ends the task and no later try will resume it."""
        try:
            yield
        except Exception as error:
            if isinstance(error, SkyvernOvertaken):
                raise  # the run is the other try's
            final = isinstance(error, AirflowFailException) or not (self._durable and self._will_be_retried)
            if final and self._run_id is not None and self._cancel_on_kill and not self._killed:
                self._cancel_given_up(self._run_id)
            raise

    def sleep(self, seconds: float) -> None:
        """Sleep, but stop soon after the task was killed: Airflow 3 lets its code continue then."""
        until = time.monotonic() + seconds
        while not self._killed and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, LONGEST_SLEEP))
        self.stop_if_killed()

    def stop_if_killed(self) -> None:
        """Raise if the task was killed: it must not end as a success."""
        if self._killed:
            self._stop()

    def stop_for_user(self) -> NoReturn:
        """Cancel the run of a task that a user has ended, before Airflow has notified this worker."""
        self._killed = True
        self._stop()

    def _stop(self) -> NoReturn:
        if self._left_to_retry:
            raise SkyvernWaitInterrupted(
                "The worker was stopped; the Skyvern run continues, and the next try resumes it."
            )
        if self._run_id and self._cancel_on_kill:  # killed before there was anything to cancel it with
            self._cancel_within_budget()
        raise SkyvernRunCanceled("The task was killed, so it must not succeed.")

    def _next_try_resumes(self) -> bool:
        """Return whether the next try will find the run, and no user has ended this one as far as Airflow answers."""
        if self._try is None or not (self._run_id or self._group):
            return False
        if not (self._durable and self._will_be_retried):
            return False
        state = self._try.state_within(STATE_BUDGET)
        if state is None or state in compat.ENDED_BY_USER:
            return False
        self._log.warning(
            "Skyvern run %s: not canceled, although this worker was stopped: the next try resumes it, and no user "
            "ended the task (its state is %s)",
            self._run_id or "(its start was not answered)",
            state,
        )
        return True

    @property
    def _will_be_retried(self) -> bool:
        return self._try is not None and self._try.will_be_retried

    def _cancel_given_up(self, run_id: str) -> None:
        from airflow_skyvern.runs.cancel import DEADLINE_PATIENCE, cancel_and_fetch

        self.ended()
        try:
            run = cancel_and_fetch(self._hook().send, run_id, DEADLINE_PATIENCE)
        except SkyvernError as error:
            self._log.warning("Skyvern run %s may still be running, and no task waits for it. %s", run_id, error)
        else:
            self._log.warning("Skyvern run %s: %s, as its task failed and will not be retried", run_id, run.status)

    def _cancel_after_timeout(self) -> None:
        """Cancel the run of a task whose ``execution_timeout`` is over; Airflow waits for that."""
        from airflow_skyvern.runs.cancel import DEADLINE_PATIENCE, cancel_and_fetch

        context = compat.context_of_timed_out_task()
        run_id = self._run_id or (TaskTry(context).published_run_id() if context else None)
        if run_id is None:
            self._cancel_within_budget()
            return
        self.ended()
        run = cancel_and_fetch(self._hook().send, run_id, DEADLINE_PATIENCE)
        self._log.info("Skyvern run %s: %s, as execution_timeout is over", run_id, run.status)

    def _cancel_within_budget(self) -> None:
        from airflow_skyvern.runs.cancel import cancel_within_budget

        run_id, group = self._run_id, self._group
        client = self._hook().emergency_client() if run_id or group else None
        if client is None:
            self._log.info("The task was killed; no Skyvern run is known to be active")
            return
        self._run_id = None  # but the tag stays: a start that is still under way may be answered later
        with client:
            cancel_within_budget(client.send, run_id, group, self._log)
