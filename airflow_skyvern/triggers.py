"""A wait for a run as data, so that the triggerer can wait in the place of a worker."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict, get_args

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_skyvern.exceptions import SkyvernError
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.killing import BREATH, PERSISTENCE
from airflow_skyvern.outcome import RUN_ID_KEY
from airflow_skyvern.waiting import Wait
from airflow_skyvern.watcher import watcher_of

if TYPE_CHECKING:
    from airflow_skyvern.models import RunGlance

_AT_WORK: set[asyncio.Task[None]] = set()
"""Cancellations under way; without a reference the event loop may drop them."""

CONFIRMATIONS = 10
"""How often, once a second, a canceled run is looked at until it is canceled."""

Reason = Literal["ended", "deadline", "paused", "error"]


class RunEvent(TypedDict):
    """
    Why a wait is over; the resumed task asks Skyvern for everything else.

    ``ended``: the run is over. ``deadline``: it is not, and the time is up. ``paused``: it waits for a person,
    at the address in ``message``. ``error``: looking at it failed in a way that looking again cannot cure, as
    ``message`` says.
    """

    run_id: str
    reason: Reason
    status: str | None
    message: str | None


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

    first_look: ClassVar[float] = 8.0
    """
    Seconds before the first look of a task that a worker has deferred. Airflow 3 may notice up to 5 s late
    (``[workers] min_heartbeat_interval``) that the process of such a task has ended; if the task is resumed before
    that, Airflow takes it for one that has ended without a word, and fails it: measured 5 of 30 with 3 s, 0 of 45
    with 8 s.
    """

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
        wait: Wait[RunGlance] = Wait(
            self.run_id,
            poll_interval=self.poll_interval,
            deadline=self.deadline,
            log=self.logger(),  # one for all of the class: a bound logger takes more memory than the wait
            on_pause=None if self.pause_known is None else lambda _: wait.stop(),
            pause_known=bool(self.pause_known),
        )
        try:
            conn_id = self.skyvern_conn_id
            watcher = watcher_of(conn_id, lambda: SkyvernHook(conn_id).asettings())
            run = await watcher.wait(wait, first_look=self.first_look)
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

    first_look: ClassVar[float] = 0.0
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
        airflows_end = getattr(self, "timeout_after", None)
        self.deadline = airflows_end.timestamp() - self.backstop if airflows_end else time.time() + self.timeout
        event = await self._event()
        yield (self._end(event) if self.end_from_trigger else None) or TriggerEvent(event)

    def _end(self, event: RunEvent) -> TriggerEvent | None:
        """Return the end of the task, or None if it is a worker's business."""
        from airflow.triggers.base import (  # noqa: PLC0415  where start_from_trigger exists
            TaskFailedEvent,
            TaskSkippedEvent,
            TaskSuccessEvent,
        )

        if event["reason"] == "ended" and event["status"] == "completed":
            return TaskSuccessEvent()
        if event["reason"] in ("ended", "deadline") and self.soft_fail:
            return TaskSkippedEvent()
        return TaskFailedEvent() if event["reason"] == "ended" else None


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
    from airflow.sdk.execution_time.task_runner import (  # noqa: PLC0415  Airflow 3.3, where on_kill exists
        RuntimeTaskInstance,
    )
    from airflow.sdk.execution_time.xcom import XCom  # noqa: PLC0415
    from asgiref.sync import sync_to_async  # noqa: PLC0415

    states = await sync_to_async(RuntimeTaskInstance.get_task_states)(
        dag_id=ti.dag_id, task_ids=[ti.task_id], run_ids=[ti.run_id], map_index=ti.map_index
    )
    state = next(iter(states.get(ti.run_id, states).values()), None)
    if state not in ("deferred", "running"):
        return False
    current = await sync_to_async(XCom.get_one)(
        key=RUN_ID_KEY, dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index
    )
    return bool(current == trigger.run_id)


def event_of(value: Any) -> RunEvent:
    """
    Check what a trigger handed over.

    :raises SkyvernError: the event is missing or malformed, which must never pass for a success.
    """
    if (
        isinstance(value, Mapping)
        and isinstance(value.get("run_id"), str)
        and value.get("reason") in get_args(Reason)
    ):
        return RunEvent(
            run_id=value["run_id"],
            reason=value["reason"],
            status=value.get("status"),
            message=value.get("message"),
        )
    raise SkyvernError(f"The task was resumed without a valid event of SkyvernRunTrigger: {value!r}")
