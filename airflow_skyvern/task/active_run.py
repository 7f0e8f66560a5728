"""A task's run in Skyvern, and the decision about it when the try ends before the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NoReturn, Protocol

from airflow_skyvern.compat import internals, tries
from airflow_skyvern.compat.sdk import (
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSkipException,
)
from airflow_skyvern.compat.tries import Standing
from airflow_skyvern.exceptions import (
    SkyvernError,
    SkyvernOvertaken,
    SkyvernRunCanceled,
    SkyvernStartUnknown,
    SkyvernTaskEnded,
    SkyvernWaitInterrupted,
)
from airflow_skyvern.runs.wait import Log
from airflow_skyvern.task.endings import ErrorLog, marks_stay
from airflow_skyvern.task.task_try import TaskTry, answer_within

if TYPE_CHECKING:
    from airflow_skyvern.client.sender import SkyvernClient
    from airflow_skyvern.client.session import Send
    from airflow_skyvern.hooks import SkyvernHook

ENDS_THE_TASK = (AirflowFailException, AirflowSkipException, SkyvernTaskEnded)
"""The errors after which no other try resumes this try's run."""

LONGEST_SLEEP = 1.0
"""Seconds between two checks whether the task was killed."""

STATE_BUDGET = 1.5
"""Seconds for which a killed task asks Airflow for the reason; the rest of its time is for canceling the run."""

LOOKUP_BUDGET = 0.7
"""Seconds for which a killed task reads its XCom or its connection."""

REQUEST_TIMEOUT = 1.2
"""Seconds for one request of a killed task: its budget has to suffice for a fetch that fails, and for the cancel."""

LEAST_BUDGET = 2.5
"""Seconds for canceling the run at least, however long Airflow took to answer."""


class Verdict(Enum):
    """The decision about the run when its try ends first."""

    CANCEL = "no try will resume it, or a user has ended the task"
    LEAVE = "the next try resumes it"


@dataclass(frozen=True)
class Names:
    """
    The tags of a task's runs, for finding runs that this process does not know.

    :param group: The tag of the attempt group; None if it cannot be computed, as templates failed.
    :param task: The tag of the task instance; None if other waits use runs with it.
    :param only_task: Whether each run with that tag certainly belongs to this task.
    """

    group: str | None
    task: str | None
    only_task: bool


class TaskLog(Log, ErrorLog, Protocol):
    """The log for the run's end."""


class ActiveRun:
    """
    The run of this task, if it may be active, and the only decision about canceling it.

    A try may end before its run in many ways: Airflow stops it, at any line of it; its ``execution_timeout`` is over;
    an error ends it, also before it has found the run of the try before. All of them ask :meth:`_decide`. Airflow
    sends one signal for a mark and a clear, for a shutdown of the worker, for a heartbeat that came too late, and for
    an API server that is away. Only after the first two is the run unwanted; after the others the next try resumes
    it, and canceling it would make the next try do its work again.

    :param hook: Returns the hook of the task.
    :param cancel_on_kill: Whether a killed task cancels its run.
    :param durable: Whether the next try resumes the run.
    :param names: Returns the names of a try's runs; None if they have none.
    :param refuses_retry: Returns whether the task's own policy forbids a retry after an error.
    :param lost_start_timeout: Seconds for which a start may be unanswered.
    :param is_over: Returns whether the task has ended without this run, which another thread waits for.
    """

    def __init__(
        self,
        hook: Callable[[], SkyvernHook],
        log: TaskLog,
        *,
        cancel_on_kill: bool,
        durable: bool,
        names: Callable[[TaskTry], Names | None] = lambda _: None,
        refuses_retry: Callable[[TaskTry, BaseException], bool] = lambda *_: False,
        lost_start_timeout: float = 30.0,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._hook = hook
        self._log = log
        self._cancel_on_kill = cancel_on_kill
        self._durable = durable
        self._names_of = names
        self._refuses_retry = refuses_retry
        self._lost_start_timeout = lost_start_timeout
        self._is_over = is_over
        self._try: TaskTry | None = None
        self._run_id: str | None = None
        self._resumed = self._start_sent = self._over = self._unwanted = False
        self._killed = self._timed_out = False
        self._verdict: Verdict | None = None
        self._attempted: list[str | None] = []

    def begins(self, task_try: TaskTry, run_id: str | None = None) -> None:
        """Record the try, and the run in its deferral; raise if the task was killed before."""
        self._try, self._run_id = task_try, run_id
        self._attempted.clear()  # templates, and with them the run's names, may not have been complete
        self.stop_if_killed()

    def will_start(self, task_try: TaskTry) -> None:
        """
        Record that a start is sent next: from now on, a run with an unknown id may exist.

        :raises SkyvernRunCanceled: the task was killed, so nothing is to be started.
        """
        self.stop_if_killed()
        self._try, self._run_id, self._start_sent = task_try, None, True

    def was_not_started(self) -> None:
        """Record that the start certainly did nothing: it was never sent, or Skyvern itself refused it."""
        self._start_sent = False

    def is_running(self, task_try: TaskTry, run_id: str) -> None:
        """Note that the run is active."""
        self._try, self._run_id, self._over = task_try, run_id, False

    def is_unwanted(self) -> None:
        """Record that the run must be canceled however the task ends: it is late, or a person has rejected it."""
        self._unwanted = True

    def ended(self) -> None:
        """Record that nothing is left to cancel."""
        self._run_id, self._over = None, True

    def interrupt(self) -> None:
        """Let the thread that waits for the run stop, and decide there whether to cancel it."""
        self._killed = True

    def on_kill(self, *, timed_out: bool | None = None) -> None:
        """
        Cancel the run, or leave it to the next try, within the seconds that Airflow leaves.

        :param timed_out: Whether ``execution_timeout`` is over. Default: determined here, in Airflow's own thread.
        """
        began = time.monotonic()
        self._killed = True
        if self._try is None and (context := internals.current_context()) is not None:
            self.learn(TaskTry(context))
        if timed_out is None:
            timed_out = internals.timed_out_by_airflow()
        if timed_out and not self._timed_out:  # a signal may come meanwhile
            self._timed_out = self._unwanted = True
            self._decide()
            self._cancel_after_timeout()
            return
        self._decide()
        self._cancel_if_decided(began)
        tries.leave_task_to_other_try()  # else Airflow writes the end of this one next

    @contextmanager
    def canceled_if_given_up(self) -> Iterator[None]:
        """Cancel the run when an error ends the task and no later try will resume it."""
        with marks_stay(), self._given_up():
            yield

    @contextmanager
    def _given_up(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.give_up(error)
            raise

    def give_up(self, error: Exception, task_try: TaskTry | None = None) -> None:
        """Cancel the run of a task that this error ends, unless a later try will resume it."""
        if self._try is None and task_try is not None:
            self.learn(task_try)
        if self._try is None or self._killed or self._over or not self._cancel_on_kill:
            return
        if self._resumes_after(error) or self._is_of_another_try(error):
            return
        try:
            self._cancel_given_up(self._try, error)
        finally:
            self.ended()

    def _is_of_another_try(self, error: Exception) -> bool:
        """Return whether another try has taken over the task and its run."""
        return isinstance(error, SkyvernOvertaken) or self._was_overtaken()

    def _was_overtaken(self) -> bool:
        """Return Airflow's answer; without one, return False, so that no run is left without a waiting task."""
        return self._try is not None and self._try.standing_within(STATE_BUDGET) is Standing.OVERTAKEN

    def sleep(self, seconds: float) -> None:
        """Sleep, but stop soon after the task was killed: Airflow 3 lets its code continue then."""
        until = time.monotonic() + seconds
        while not self._killed and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, LONGEST_SLEEP))
            if self._is_over():
                self._killed = True
        self.stop_if_killed()

    def stop_if_killed(self) -> None:
        """Raise if the task was killed: it must not end as a success."""
        if self._killed:
            self._stop()

    def stop_for_user(self) -> NoReturn:
        """Cancel the run of a task that a user has ended, before Airflow has notified this worker."""
        self._killed, self._verdict = True, Verdict.CANCEL
        self._stop()

    def learn(self, task_try: TaskTry) -> None:
        """Note whose run it is, as the task may end before Airflow executes it."""
        self._try, self._resumed, self._run_id = task_try, task_try.is_resumed, task_try.deferred_run_id

    def _stop(self) -> NoReturn:
        self._decide()
        self._cancel_if_decided(time.monotonic())
        if self._verdict is Verdict.LEAVE:
            raise _interrupted()
        raise SkyvernRunCanceled("The task was killed, so it must not succeed.")

    def _decide(self) -> None:
        """
        Decide what becomes of the run of a killed task, once it is known whose it is.

        It is canceled if it is unwanted, if no try will resume it, or if a user has ended the task. Where Airflow
        does not say who has stopped it, it is left to the next try.
        """
        if self._verdict is not None or self._try is None:
            return
        resumed = self._resumes_after(_interrupted())
        if self._unwanted or not resumed:
            # A process that was stopped for long is killed when it wakes up: the run is the other try's then.
            # Where Airflow does not answer, as the signal came during a question to it, a retry does the rest.
            standing = self._try.standing_within(STATE_BUDGET)
            left = standing is Standing.OVERTAKEN or (resumed and standing is None)
            self._verdict = Verdict.LEAVE if left else Verdict.CANCEL
            return
        state = self._try.state_within(STATE_BUDGET)
        self._verdict = Verdict.CANCEL if state in internals.ENDED_BY_USER else Verdict.LEAVE
        if self._verdict is Verdict.LEAVE and not self._over and self._may_have_run():
            self._log.warning(
                "Skyvern run %s: not canceled, although this worker was stopped: the next try resumes it, and no "
                "user ended the task (its state is %s)",
                self._run_id or "(not known by id here)",
                state,
            )

    def _resumes_after(self, error: BaseException) -> bool:
        """Return whether another try comes after this error, and takes the run of this one."""
        if self._try is None or isinstance(error, ENDS_THE_TASK):
            return False
        return self._durable and self._try.will_be_retried and not self._refuses_retry(self._try, error)

    def _cancel_if_decided(self, began: float) -> None:
        if self._verdict is not Verdict.CANCEL or self._run_id in self._attempted:
            return
        if not self._cancel_on_kill:
            self._log.info("The task was killed; its Skyvern run continues, as cancel_on_kill is False")
        elif not self._over:
            self._cancel_within_budget(began)

    def _cancel_within_budget(self, began: float) -> None:
        from airflow_skyvern.runs.cancel import KILL_BUDGET, cancel_within_budget

        group = answer_within(LOOKUP_BUDGET, self._group, None)  # the key may need Airflow's task state
        run_id = self._run_id
        if run_id is None and self._try is not None and self._may_have_run():
            run_id = answer_within(LOOKUP_BUDGET, lambda: self._known_run_id(group), None)
        client = self._emergency_client() if run_id or (group and self._may_have_run()) else None
        if client is None:
            self._log.info("The task was killed; no Skyvern run is known to be active")
            return
        self._attempted.append(self._run_id)
        budget = max(LEAST_BUDGET, KILL_BUDGET - (time.monotonic() - began))
        with client:
            cancel_within_budget(client.send, run_id, group, self._log, budget, start_sent=self._start_sent)

    def _cancel_after_timeout(self) -> None:
        """Cancel the run of a task whose ``execution_timeout`` is over; Airflow waits for that."""
        if self._was_overtaken():
            return  # a process that was stopped for long finds its time over; the run is the other try's
        if self._cancel_on_kill and not self._over and self._may_have_run():
            self._cancel_with_patience("execution_timeout is over", may_appear=True)
            self.ended()

    def _cancel_given_up(self, task_try: TaskTry, error: Exception) -> None:
        if not self._may_have_run():
            return
        may_appear = isinstance(error, SkyvernStartUnknown)
        found = self._cancel_with_patience("its task failed and will not be retried", may_appear=may_appear)
        if not found and task_try.earlier_tries:
            self._cancel_others(task_try)

    def _cancel_with_patience(self, why: str, *, may_appear: bool) -> bool:
        """
        Cancel the run, or what the attempt group has left active, and return whether there is nothing else to do.

        :param may_appear: Whether a start may be unanswered, so that its run may appear during a search.
        """
        from airflow_skyvern.runs.cancel import DEADLINE_PATIENCE, cancel_if_active

        group = self._group()
        run_id = self._run_id or self._known_run_id(group)
        late_start = self._lost_start_timeout if may_appear else 0.0
        try:
            canceled = cancel_if_active(
                self._sender(), run_id, group, patience=DEADLINE_PATIENCE, late_start=late_start
            )
        except SkyvernOvertaken:
            return True  # the run is the other try's
        except (SkyvernError, AirflowNotFoundException) as error:
            self._log_left(run_id, group, error)
            return True
        for run in canceled:
            self._log.warning("Skyvern run %s: %s, as %s", run.run_id, run.status, why)
        if self._start_sent and run_id is None and not canceled:
            self._log_left(run_id, group, "Its start was not answered, and it has not appeared yet.")
            return True
        return run_id is not None or bool(canceled)

    def _cancel_others(self, task_try: TaskTry) -> None:
        """Cancel or name other active runs of this task: their group is unknown, or it has changed."""
        names = self._names_of(task_try)
        if names is not None and names.task is not None:
            try:
                self._cancel_or_name(names.task, only_task=names.only_task)
            except SkyvernOvertaken:
                return
            except (SkyvernError, AirflowNotFoundException) as error:
                self._log_left(None, names.group, error)

    def _cancel_or_name(self, task_tag: str, *, only_task: bool) -> None:
        from airflow_skyvern.runs.cancel import DEADLINE_PATIENCE, active_runs_of_task, cancel_and_fetch

        for run_id in active_runs_of_task(self._hook().send, task_tag, DEADLINE_PATIENCE):
            if only_task:
                run = cancel_and_fetch(self._sender(), run_id, DEADLINE_PATIENCE)
                self._log.warning(
                    "Skyvern run %s: %s, as its task failed and will not be retried", run_id, run.status
                )
            else:
                self._log.error(
                    "Skyvern run %s is active, and no task waits for it, unless it is that of the same task of "
                    "another Airflow. Cancel it in Skyvern; its tag is airflow_task_key:%s",
                    run_id,
                    task_tag,
                )

    def _log_left(self, run_id: str | None, group: str | None, problem: object) -> None:
        """Log how a person finds runs that may be active: nobody else will look for them."""
        names = self._names_of(self._try) if self._try is not None else None
        tag = f"airflow_key:{group}" if group else f"airflow_task_key:{names.task}" if names else None
        what = f"Skyvern run {run_id}" if run_id else "A Skyvern run of this task"
        where = f" by its tag {tag}" if tag and not run_id else ""
        self._log.error(
            "%s may still be running, and no task waits for it. Search for it in Skyvern's run history%s, and cancel "
            "it there. %s",
            what,
            where,
            problem,
        )

    def _sender(self) -> Send:
        """Return a sender that cancels nothing if Airflow says that another try now owns the run."""
        from airflow_skyvern.client.session import checked

        send = self._hook().send
        return send if self._try is None else checked(send, self._try.stop_if_overtaken)

    def _may_have_run(self) -> bool:
        """Return whether there can be a run: this try has sent a start, or an earlier one may have."""
        earlier = self._durable and self._try is not None and self._try.earlier_tries > 0
        return self._run_id is not None or self._start_sent or self._resumed or earlier

    def _group(self) -> str | None:
        names = self._names_of(self._try) if self._durable and self._try is not None else None
        return names.group if names is not None else None

    def _known_run_id(self, group: str | None) -> str | None:
        return self._try.known_run_id(group) if self._try is not None else None

    def _emergency_client(self) -> SkyvernClient | None:
        """Return a client for a signal handler; a task that has sent nothing yet reads its connection first."""
        hook = self._hook()
        if (client := hook.emergency_client(REQUEST_TIMEOUT)) is not None:
            return client
        answer_within(LOOKUP_BUDGET, lambda: _connect(hook), None)
        return hook.emergency_client(REQUEST_TIMEOUT)


def _connect(hook: SkyvernHook) -> None:
    try:
        hook.get_conn()
    except Exception:  # noqa: BLE001  the task itself reports what is wrong with its connection
        return


def _interrupted() -> SkyvernWaitInterrupted:
    return SkyvernWaitInterrupted("The worker was stopped; the Skyvern run continues, and the next try resumes it.")
