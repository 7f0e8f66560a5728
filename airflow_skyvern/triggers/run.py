"""A wait for a run as data, so that the triggerer can wait in the place of a worker."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_skyvern import compat
from airflow_skyvern.exceptions import SkyvernError
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.polling.poller import poller_of
from airflow_skyvern.runs.cancel import BREATH, PERSISTENCE
from airflow_skyvern.runs.event import Reason, RunEvent
from airflow_skyvern.runs.wait import Wait
from airflow_skyvern.task.outcome import RUN_ID_KEY

if TYPE_CHECKING:
    from airflow_skyvern.models import RunSnapshot

_AT_WORK: set[asyncio.Task[None]] = set()
"""Cancellations under way; without a reference the event loop may drop them."""

CONFIRMATIONS = 10
"""How often, once a second, a canceled run is looked at until it is canceled."""


class SkyvernRunTrigger(BaseTrigger):
    """
    Wait for a Skyvern run to end.

    Errors that may pass (no answer, 429, 5xx) never end the wait before its deadline; they are logged and the
    pauses grow. The deadline is a point in time, so it survives a restart of the triggerer.

    https://www.skyvern.com/docs/api-reference/api-reference/workflows/get-run

    :param run_id: The run to wait for.
    :param skyvern_conn_id: Id of the connection of type ``skyvern``.
    :param poll_interval: Seconds between two looks at the run.
    :param deadline: When to give up, in seconds since the epoch.
    :param cancel_on_kill: Whether a user who marks, clears or deletes the deferred task cancels the run. Needs
        Airflow 3.3; older versions do not tell a trigger. Default: False.
    :param pause_known: Whether it is known already that the run waits for a person, so that only the next such
        pause ends the wait. None: no pause ends it. Default: None.
    """

    __module__ = "airflow_skyvern.triggers"  # the path that Airflow stores

    first_poll_delay: ClassVar[float] = compat.FIRST_POLL_DELAY
    """Seconds before the first poll; a task that is resumed too early fails, see :mod:`airflow_skyvern.compat`."""

    def __init__(
        self,
        run_id: str,
        skyvern_conn_id: str,
        poll_interval: float,
        deadline: float,
        *,
        cancel_on_kill: bool = False,
        pause_known: bool | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's class carries no types
        self.run_id = run_id
        self.skyvern_conn_id = skyvern_conn_id
        self.poll_interval = poll_interval
        self.deadline = deadline
        self.cancel_on_kill = cancel_on_kill
        self.pause_known = pause_known

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what makes the same trigger elsewhere; no secret is in it."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "run_id": self.run_id,
                "skyvern_conn_id": self.skyvern_conn_id,
                "poll_interval": self.poll_interval,
                "deadline": self.deadline,
                "cancel_on_kill": self.cancel_on_kill,
                "pause_known": self.pause_known,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one :class:`RunEvent`."""
        yield TriggerEvent(await self._event())

    async def on_kill(self) -> None:
        """
        Cancel the run when a user has ended the task, and only then.

        Airflow 3.3 interrupts this once a second and then forgets it, so the work is done in a task of its own,
        which is held until it is done. Airflow also calls this when another triggerer has taken the trigger
        over: what Airflow knows of the task tells that apart.
        """
        if not self.cancel_on_kill:
            return
        work = asyncio.create_task(cancel_for_user(self))
        _AT_WORK.add(work)
        work.add_done_callback(_AT_WORK.discard)
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(work)

    async def _event(self) -> RunEvent:
        reason: Reason = "deadline"
        message = None
        wait: Wait[RunSnapshot] = Wait(
            self.run_id,
            poll_interval=self.poll_interval,
            deadline=self.deadline,
            log=self.logger(),  # one for all of the class: a bound logger takes more memory than the wait
            on_pause=None if self.pause_known is None else lambda _: wait.stop(),
            pause_known=bool(self.pause_known),
        )
        try:
            conn_id = self.skyvern_conn_id
            watcher = poller_of(conn_id, lambda: SkyvernHook(conn_id).asettings())
            run = await watcher.wait(wait, first_poll_delay=self.first_poll_delay)
            if run is not None:
                reason = "ended"
            elif wait.run is not None and not wait.expired:
                reason, message = "paused", wait.run.app_url
        except (SkyvernError, AirflowNotFoundException) as error:
            self.log.error("Skyvern run %s: the wait cannot go on. %s", self.run_id, error)  # noqa: TRY400  it says all
            reason, message = "error", str(error)
        status = wait.run.status if wait.run else None
        return RunEvent(run_id=self.run_id, reason=reason, status=status, message=message)


class SkyvernSensorTrigger(SkyvernRunTrigger):
    """
    The wait of a sensor that starts in the triggerer, without a worker before it. Needs Airflow 3.3.

    :param timeout: Seconds after which to give up, counted from when Airflow has deferred the task.
    :param backstop: Seconds between that and the moment when Airflow itself ends the deferral, which is what Airflow
        tells the trigger; so a restart of the triggerer does not start the time anew.
    :param end_from_trigger: Whether to end the task here instead of resuming it on a worker. A wait that cannot go on
        resumes it nevertheless, as only there an error is final; so does one whose time is up.
    :param soft_fail: Whether to skip instead of failing.
    """

    __module__ = "airflow_skyvern.triggers"  # the path that Airflow stores

    first_poll_delay: ClassVar[float] = 0.0
    """There is no process of a worker whose end Airflow might notice late."""

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
    ) -> None:
        super().__init__(run_id, skyvern_conn_id, poll_interval, deadline=0.0)
        self.timeout = timeout
        self.backstop = backstop
        self.end_from_trigger = end_from_trigger
        self.soft_fail = soft_fail

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what makes the same trigger elsewhere; no secret is in it."""
        names = ("run_id", "skyvern_conn_id", "poll_interval", "timeout", "backstop", "end_from_trigger", "soft_fail")
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {name: getattr(self, name) for name in names},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one :class:`RunEvent`, or the end of the task."""
        airflows_end = compat.airflows_timeout(self)
        self.deadline = airflows_end.timestamp() - self.backstop if airflows_end else time.time() + self.timeout
        event = await self._event()
        yield (self._end(event) if self.end_from_trigger else None) or TriggerEvent(event)

    def _end(self, event: RunEvent) -> TriggerEvent | None:
        """Return the end of the task, or None if it is a worker's business."""
        if event["reason"] == "ended" and event["status"] == "completed":
            return compat.task_success_event()
        if event["reason"] in ("ended", "deadline") and self.soft_fail:
            return compat.task_skipped_event()
        return compat.task_failed_event() if event["reason"] == "ended" else None


async def cancel_for_user(trigger: SkyvernRunTrigger) -> None:
    """Cancel the trigger's run, unless the task goes on with it elsewhere, and see that it is canceled."""
    run_id, log = trigger.run_id, trigger.log
    try:
        if await _goes_on_elsewhere(trigger):
            log.info("Skyvern run %s: another triggerer has taken over, the run goes on", run_id)
            return
    except Exception:  # whatever keeps Airflow from answering: canceling a healthy run would be worse
        log.exception("Skyvern run %s: not canceled, as Airflow does not say what became of the task", run_id)
        return
    hook = SkyvernHook(trigger.skyvern_conn_id)  # the wait may not have got to its own, or its key is an old one
    try:
        await _canceled(hook, run_id)
        log.info("Skyvern run %s: told to cancel, as a user ended the task", run_id)
        for _ in range(CONFIRMATIONS):
            if (await hook.alook(run_id)).is_final:
                log.info("Skyvern run %s: is canceled", run_id)
                return
            await asyncio.sleep(BREATH)
    except (SkyvernError, AirflowNotFoundException) as error:
        log.error("Skyvern run %s may still be running. %s", run_id, error)  # noqa: TRY400  it says all
    finally:
        await hook.aclose()


async def _canceled(hook: SkyvernHook, run_id: str) -> None:
    """Cancel a run, also when Skyvern cannot be reached for some minutes."""
    until = time.monotonic() + PERSISTENCE
    while True:
        try:
            return await hook.acancel_run(run_id)
        except SkyvernError as error:
            if not error.transient or time.monotonic() > until:
                raise
        await asyncio.sleep(BREATH)


async def _goes_on_elsewhere(trigger: SkyvernRunTrigger) -> bool:
    """Tell a takeover from a user's action: a deferred or running task whose run id is ours still needs it."""
    ti = trigger.task_instance
    if ti is None:
        return False
    state = await compat.state_of_deferred_task(ti)
    if state not in ("deferred", "running"):
        return False
    current = await compat.xcom_of_deferred_task(ti, RUN_ID_KEY)
    return bool(current == trigger.run_id)
