"""A wait for a run as data, so that the triggerer can wait in the place of a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal, TypedDict, get_args

from airflow.providers.common.compat.sdk import AirflowNotFoundException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_skyvern.exceptions import SkyvernError
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.waiting import Wait, awatch

Reason = Literal["ended", "deadline", "error"]


class RunEvent(TypedDict):
    """
    Why a wait is over; the resumed task asks Skyvern for everything else.

    ``ended``: the run is over. ``deadline``: it is not, and the time is up. ``error``: looking at it failed in
    a way that looking again cannot cure, as ``message`` says.
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
    """

    def __init__(self, run_id: str, skyvern_conn_id: str, poll_interval: float, deadline: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Airflow's class carries no types
        self.run_id = run_id
        self.skyvern_conn_id = skyvern_conn_id
        self.poll_interval = poll_interval
        self.deadline = deadline

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return what makes the same trigger elsewhere; no secret is in it."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "run_id": self.run_id,
                "skyvern_conn_id": self.skyvern_conn_id,
                "poll_interval": self.poll_interval,
                "deadline": self.deadline,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one :class:`RunEvent`."""
        hook = SkyvernHook(self.skyvern_conn_id)
        wait = Wait(self.run_id, poll_interval=self.poll_interval, deadline=self.deadline, log=self.log)
        try:
            yield TriggerEvent(await self._event(hook, wait))
        finally:
            await hook.aclose()

    async def _event(self, hook: SkyvernHook, wait: Wait) -> RunEvent:
        message = None
        try:
            run = await awatch(wait, lambda: hook.aget_run(self.run_id))
            reason: Reason = "ended" if run else "deadline"
        except (SkyvernError, AirflowNotFoundException) as error:
            self.log.error("Skyvern run %s: the wait cannot go on. %s", self.run_id, error)  # noqa: TRY400  it says all
            reason, message = "error", str(error)
        status = wait.run.status if wait.run else None
        return RunEvent(run_id=self.run_id, reason=reason, status=status, message=message)


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
