"""Waiting for a run in the triggerer, so that no worker is held."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.triggers.base import BaseTrigger, TriggerEvent
from tenacity import stop_after_attempt

from airflow_skyvern import metrics
from airflow_skyvern.client.retry import poll_until_async
from airflow_skyvern.compat import internals, since_3_0, since_3_3
from airflow_skyvern.compat.sdk import AirflowNotFoundException
from airflow_skyvern.durations import interval_of, moment_of
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernError
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.polling.poller import poller_of
from airflow_skyvern.runs.block_log import BlockLog
from airflow_skyvern.runs.blocks import has_blocks
from airflow_skyvern.runs.cancel import cancel_unless_ended_async
from airflow_skyvern.runs.wait import Reason, RunEvent, Wait
from airflow_skyvern.task import xcom
from airflow_skyvern.task.arguments import run_id_of
from airflow_skyvern.task.deferral import has_outlasted_first_poll

if TYPE_CHECKING:
    from airflow_skyvern.models import RunSnapshot
    from airflow_skyvern.polling.poller import RunPoller

_CANCELLATIONS: set[asyncio.Task[None]] = set()
"""Cancellations in progress; without a reference the event loop may drop them."""

WAITING_OR_RUNNING = frozenset({"deferred", "running", "awaiting_input"})
"""The states in which a task's XCom holds the run id of its newest try."""

DECISIONS = 300
"""How often, once a second, Airflow is asked for the state of a task that is about to be resumed or retried."""

DELETIONS = 3
"""How often in a row, once a second, Airflow must answer that the task does not exist before it counts as deleted."""

FAILURES = 30
"""How often in a row, once a second, Airflow is asked while it does not answer."""

CANCEL_AGAIN = 1.0
"""Seconds after which a run that continues after a cancel is canceled again."""

CONFIRMATIONS = 10
"""How often, once a second, a run is polled after its cancel request, until it is canceled."""

NEWER = "Skyvern run %s: a newer version of this provider has deferred its task; this triggerer ignores: %s"
"""What the log says of arguments that this version does not have."""


def stored_as(trigger: object, kwargs: dict[str, Any], unknown: Collection[str]) -> tuple[str, dict[str, Any]]:
    """
    Return what Airflow stores of a trigger with these arguments.

    :param unknown: The arguments that it was given and does not have.
    :raises SkyvernConfigError: there are some. Airflow stores only triggers that this version has made, and one that
        is read from its database is not stored again.
    """
    if unknown:
        raise SkyvernConfigError(f"{type(trigger).__name__} has no argument {', '.join(unknown)}.")
    return f"{type(trigger).__module__}.{type(trigger).__qualname__}", kwargs


class SkyvernRunTrigger(BaseTrigger):
    """
    Wait for a Skyvern run to end.

    Transient errors (no answer, 429, 5xx) never end the wait before its deadline; they are logged, and the run is
    polled less often. The deadline is a point in time, so it survives a restart of the triggerer.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/get-run

    :param run_id: The run to wait for.
    :param skyvern_conn_id: Id of the connection of type ``skyvern``.
    :param poll_interval: Seconds between two polls of the run.
    :param deadline: When the wait times out, in seconds since the epoch.
    :param cancel_on_kill: Whether the run is canceled when a user marks, clears or deletes the deferred task.
        Default: False.
    :param pause_known: Whether the run is known to be paused, so that only the next pause ends the wait. None: no
        pause ends it. Default: None.
    :param log_blocks: Whether to log which blocks of the workflow have begun and ended. Default: False.
    :param run_known: Whether the task has started or polled the run before. If so, it exists and the key is valid,
        also for a triggerer that has just begun: a refusal ends the wait only when it is repeated for minutes.
        Default: False.
    :param max_elapsed_time_minutes: The limit that the task has set for its run, of which 80 % is warned of. Default:
        None.
    :param newer: What a newer version of this provider has stored in addition. A triggerer that is upgraded after the
        workers ignores it; a task that gives such an argument fails before it is deferred.
    """

    __module__ = "airflow_skyvern.triggers"  # the path that Airflow stores

    first_poll_delay: ClassVar[float] = since_3_0.FIRST_POLL_DELAY
    """Seconds before the first poll; a task that is resumed too early fails, see :mod:`airflow_skyvern.compat`."""

    retry_interval: ClassVar[float] = 1.0
    """Seconds between two questions to Airflow about a task that a user may have ended."""

    cancel_refusals: ClassVar[float] = 60.0
    """Seconds for which a refused cancel request is sent again: one refusal may come from a database that lags."""

    stop_reason: ClassVar[Reason] = "paused"

    waiting_since = 0.0
    """An end before then, in seconds since the epoch, was not noticed late: nobody waited for it."""

    def __init__(
        self,
        run_id: str,
        skyvern_conn_id: str,
        poll_interval: float,
        deadline: float,
        *,
        cancel_on_kill: bool = False,
        pause_known: bool | None = None,
        log_blocks: bool = False,
        run_known: bool = False,
        max_elapsed_time_minutes: int | None = None,
        **newer: Any,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's class carries no types
        self.run_id = run_id
        self.skyvern_conn_id = skyvern_conn_id
        self.poll_interval = interval_of("poll_interval", poll_interval)
        self.deadline = moment_of("deadline", deadline)
        self.cancel_on_kill = cancel_on_kill
        self.pause_known = pause_known
        self.log_blocks = log_blocks
        self._is_over = False
        self._triggerer: asyncio.Task[Any] | None = None
        self.run_known = run_known
        self.max_elapsed_time_minutes = max_elapsed_time_minutes
        self._newer = tuple(newer)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and arguments that recreate the trigger; they contain no secret."""
        names = (
            "run_id",
            "skyvern_conn_id",
            "poll_interval",
            "deadline",
            "cancel_on_kill",
            "pause_known",
            "run_known",
        )
        return self.stored({**self.values_of(names), **self._rarer_options})

    def values_of(self, names: Iterable[str]) -> dict[str, Any]:
        """Return the arguments of these names."""
        return {name: getattr(self, name) for name in names}

    def stored(self, kwargs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return what Airflow stores of a trigger with these arguments."""
        return stored_as(self, kwargs, self._newer)

    @property
    def _rarer_options(self) -> dict[str, Any]:
        """Arguments that are stored only if they are set, so that an older triggerer can load all other waits."""
        options = {"log_blocks": self.log_blocks, "max_elapsed_time_minutes": self.max_elapsed_time_minutes}
        return {name: value for name, value in options.items() if value}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one :class:`RunEvent`."""
        event = await self._event()
        self._is_over = True
        yield TriggerEvent(event)

    async def on_kill(self) -> None:
        """
        Cancel the run when a user has ended the task, and only then.

        Airflow 3.3 interrupts this once a second and then drops it, so a task of its own does the work, and a
        reference to it is kept until it is done. Airflow also calls this when another triggerer has taken over the
        trigger; the state of the task in Airflow distinguishes these cases.
        """
        if not self.cancel_on_kill:
            return
        work = self._cancel_in_background()
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(work)

    async def cleanup(self) -> None:
        """
        Do what :meth:`on_kill` does where Airflow does not call that: below 3.3.

        There, Airflow only cancels a trigger whose task was ended. It also cancels a trigger that another triggerer
        has taken over, and all triggers when the triggerer shuts down, which leaves no time to ask.
        """
        shuts_down = self._triggerer is not None and self._triggerer.done()
        if self._is_over or shuts_down or self.task_instance is None or since_3_3.calls_on_kill():
            return
        if self.cancel_on_kill:
            self._cancel_in_background()

    def _cancel_in_background(self) -> asyncio.Task[None]:
        work = asyncio.create_task(cancel_for_user(self))
        _CANCELLATIONS.add(work)
        work.add_done_callback(_CANCELLATIONS.discard)
        return work

    def poller(self) -> RunPoller:
        """Return the poller that all waits of the trigger's connection share."""
        hook = SkyvernHook(self.skyvern_conn_id)
        return poller_of(self.skyvern_conn_id, hook.asettings, observe=hook.observe)

    def _new_wait(self) -> Wait[RunSnapshot]:
        """Make the wait, which may end before the run: then with :attr:`stop_reason`."""
        wait: Wait[RunSnapshot] = Wait(
            self.run_id,
            poll_interval=self.poll_interval,
            deadline=self.deadline,
            log=self.logger(),  # shared by all triggers: a bound logger takes more memory than the wait
            on_pause=None if self.pause_known is None else lambda _: wait.stop(),
            pause_known=bool(self.pause_known),
            run_known=self.run_known,
            minutes_allowed=self.max_elapsed_time_minutes,
        )
        return wait

    @property
    def _logs_blocks(self) -> bool:
        return self.log_blocks and has_blocks(self.run_id)

    async def _event(self) -> RunEvent:
        """Wait for the end and describe it."""
        reason: Reason = "deadline"
        message = None
        if self.cancel_on_kill and not since_3_3.calls_on_kill():
            self._triggerer = internals.triggerers_main_task()
        wait = self._new_wait()
        if self._newer:
            self.log.info(NEWER, self.run_id, ", ".join(self._newer))
        try:
            run_id_of(self.run_id)
            poller = self.poller()
            with metrics.active_wait():
                blocks = BlockLog(self.run_id, self.logger()) if self._logs_blocks else None
                run = await poller.wait(wait, first_poll_delay=self.first_poll_delay, blocks=blocks)
            if run is not None:
                reason = "ended"
                metrics.end_noticed(self.skyvern_conn_id, run, self.waiting_since)
            elif wait.run is not None and not wait.expired:
                reason, message = self.stop_reason, wait.run.app_url
        except (SkyvernError, AirflowNotFoundException) as error:
            self.log.error("Skyvern run %s: cannot be waited for. %s", self.run_id, error)
            reason, message = "error", str(error)
        status = wait.run.status if wait.run else None
        return RunEvent(run_id=self.run_id, reason=reason, status=status, message=message)


async def first_event_of(*waits: Coroutine[Any, Any, RunEvent]) -> RunEvent:
    """Return the event of the wait that ends first; if several end at once, the event of the first one given."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return next(task for task in tasks if task.done()).result()
    finally:
        await _stop(tasks)


async def _stop(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks until they are over: below Python 3.12 a request that is answered just then swallows a cancel."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # so that asyncio does not log it


class SkyvernSensorTrigger(SkyvernRunTrigger):
    """
    Wait for the run of a sensor that starts in the triggerer, without a worker. Needs Airflow 3.3.

    :param timeout: Seconds until the wait times out, counted from when Airflow deferred the task.
    :param backstop: Seconds between that and Airflow's own end of the deferral, which Airflow stores and passes to
        the trigger: so a restart of the triggerer does not restart the timeout.
    :param end_from_trigger: Whether to end the task here instead of resuming it on a worker. After an error or a
        timeout the task is resumed nevertheless, as only a worker can fail it without a retry.
    :param soft_fail: Whether to skip instead of failing.
    :param log_blocks: As with :class:`SkyvernRunTrigger`.
    """

    __module__ = "airflow_skyvern.triggers"  # the path that Airflow stores

    first_poll_delay: ClassVar[float] = 0.0
    """No worker process comes before it, so Airflow cannot notice a worker's end late."""

    def __init__(
        self,
        run_id: str,
        skyvern_conn_id: str,
        poll_interval: float,
        timeout: float,
        *,
        backstop: float,
        end_from_trigger: bool = False,
        soft_fail: bool = False,
        log_blocks: bool = False,
        **newer: Any,
    ) -> None:
        super().__init__(run_id, skyvern_conn_id, poll_interval, deadline=0.0, log_blocks=log_blocks, **newer)
        self.timeout = timeout
        self.backstop = backstop
        self.end_from_trigger = end_from_trigger
        self.soft_fail = soft_fail

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and arguments that recreate the trigger; they contain no secret."""
        names = ("run_id", "skyvern_conn_id", "poll_interval", "timeout", "backstop", "end_from_trigger", "soft_fail")
        return self.stored({**self.values_of(names), **self._rarer_options})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one :class:`RunEvent`, or the end of the task."""
        airflows_end = since_3_3.airflows_timeout(self)
        self.deadline = airflows_end.timestamp() - self.backstop if airflows_end else time.time() + self.timeout
        self.waiting_since = self.deadline - self.timeout
        self.run_known = has_outlasted_first_poll(self.waiting_since)
        event = await self._event()
        yield (self._end(event) if self.end_from_trigger else None) or TriggerEvent(event)

    def _end(self, event: RunEvent) -> TriggerEvent | None:
        """Return the event that ends the task, or None where a worker has to end it."""
        if event["reason"] == "ended" and event["status"] == "completed":
            return since_3_3.task_success_event()
        if event["reason"] in ("ended", "deadline") and self.soft_fail:
            return since_3_3.task_skipped_event()
        return since_3_3.task_failed_event() if event["reason"] == "ended" else None


async def cancel_for_user(trigger: SkyvernRunTrigger) -> None:
    """Cancel the trigger's run unless its task continues elsewhere, and confirm that it is canceled."""
    run_id, log = trigger.run_id, trigger.log
    if not await _ended_by_user(trigger):
        log.info("Skyvern run %s: not canceled, as no user is known to have ended its task", run_id)
        return
    hook = SkyvernHook(trigger.skyvern_conn_id)  # the wait may have no session yet, or one with an old key
    try:
        ended = await cancel_unless_ended_async(
            partial(hook.afetch_run, run_id),
            partial(hook.acancel_run, run_id),
            asyncio.sleep,
            trigger.cancel_refusals,
        )
        if not ended.canceled:
            log.info("Skyvern run %s: has ended (%s), so there is nothing to cancel", run_id, ended.run.status)
            return
        log.info("Skyvern run %s: cancel requested, as a user ended the task", run_id)
        run = await poll_until_async(
            partial(hook.afetch_run, run_id), lambda run: run.is_final, stop=stop_after_attempt(CONFIRMATIONS)
        )
        if run.is_final:
            log.info("Skyvern run %s: canceled", run_id)
    except (SkyvernError, AirflowNotFoundException) as error:
        log.error("Skyvern run %s may still be running. %s", run_id, error)
    finally:
        await hook.aclose()


async def _ended_by_user(trigger: SkyvernRunTrigger) -> bool:
    """
    Return whether a user ended the trigger's task, from what Airflow knows of the task now.

    Airflow calls ``on_kill`` also when another triggerer has taken over, and in a triggerer that wakes up after a
    stall while the task is being resumed or retried. A task that is ``queued`` or ``scheduled`` was either cleared or
    is being resumed, which shows once it runs: then XCom has the run that its try waits for. Until it has one, the
    try may be searching for ours; one that has none after five minutes was cleared, as no retry searches for so long.

    A task that has no row was deleted. If Airflow does not answer, nothing is known, and nothing is canceled.
    """
    ti = trigger.task_instance
    if ti is None:
        return True
    deletions = failures = 0
    state = None
    for _ in range(DECISIONS):
        try:
            state = await since_3_0.state_of_deferred_task(ti)
            found = await internals.xcom_of_deferred_task(ti, xcom.RUN_ID) if state in WAITING_OR_RUNNING else None
        except Exception as error:  # noqa: BLE001  whatever the reason
            failures, deletions = failures + 1, 0
            if failures >= FAILURES:
                trigger.log.warning(
                    "Skyvern run %s: Airflow does not say whether its task has ended. %r", trigger.run_id, error
                )
                return False
        else:
            failures, deletions = 0, deletions + 1 if state == internals.DELETED else 0
            if state in internals.ENDED_BY_USER and (state != internals.DELETED or deletions >= DELETIONS):
                return True
            if found is not None:
                return bool(found != trigger.run_id)
        await asyncio.sleep(trigger.retry_interval)
    return state == "running"
