"""Waiting in the triggerer until another run has left a browser session."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import TriggerEvent

from airflow_skyvern.triggers.run import SkyvernRunTrigger


class SkyvernSessionTurnTrigger(SkyvernRunTrigger):
    """
    Wait for the end of the run that is in a browser session.

    That run belongs to another task: neither the stored arguments nor the event use a name that would get it canceled
    together with the waiting task.

    :param occupied_by: The run that is in the session.
    :param skyvern_conn_id: Id of the connection of type ``skyvern``.
    :param poll_interval: Seconds between two polls of the run.
    :param deadline: When the wait times out, in seconds since the epoch.
    """

    __module__ = "airflow_skyvern.triggers"  # the path that Airflow stores

    def __init__(
        self, occupied_by: str, skyvern_conn_id: str, poll_interval: float, deadline: float, **newer: Any
    ) -> None:
        super().__init__(occupied_by, skyvern_conn_id, poll_interval, deadline)
        self._newer = tuple(newer)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and arguments that recreate the trigger; they contain no secret."""
        names = ("skyvern_conn_id", "poll_interval", "deadline")
        return self.stored({"occupied_by": self.run_id, **self.values_of(names)})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one event: ``occupied_by`` and why the wait has ended."""
        event = await self._event()
        self._is_over = True
        yield TriggerEvent({"occupied_by": self.run_id, "reason": event["reason"]})
