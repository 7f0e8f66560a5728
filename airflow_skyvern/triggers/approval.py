"""Waiting in the triggerer for a person's answer, in Airflow or in Skyvern, whichever comes first."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

from airflow.triggers.base import TriggerEvent

from airflow_skyvern.client.retry import poll_until_async
from airflow_skyvern.compat import internals, since_3_0, since_3_1, since_3_3
from airflow_skyvern.runs.wait import AnswerEvent, Reason, RunEvent, Wait
from airflow_skyvern.triggers.run import SkyvernRunTrigger, first_event_of

if TYPE_CHECKING:
    from airflow_skyvern.models import RunSnapshot

CLOSED = {
    "ended": "The run has ended",
    "deadline": "The time is up",
    "error": "The wait failed",
    "killed": "The task was ended",
}
"""The answers that close a request without a person's answer in Airflow, by reason."""


class RequestTrigger(SkyvernRunTrigger):
    """
    Wait until a person has answered this task's request in Airflow, or the run no longer waits for an answer.

    Takes the arguments of :class:`SkyvernRunTrigger`. Airflow 3.3 resumes the task itself with the answer; below,
    this trigger polls Airflow for it every few seconds. If the wait ends in another way, the request is closed.

    :param ti_id: Id of the task instance, which is also the id of its request.
    """

    stop_reason: ClassVar[Reason] = "resumed"

    closed_when_resumed: ClassVar[str]
    """The answer that closes a request when the run has continued without an answer in Airflow."""

    answer_interval: ClassVar[float] = 5.0
    """Seconds between two polls of Airflow for the answer."""

    slow_answer_interval: ClassVar[float] = 60.0
    """The same where Airflow resumes the task itself: only for a response that it could not deliver."""

    def __init__(
        self,
        run_id: str,
        skyvern_conn_id: str,
        poll_interval: float,
        deadline: float,
        *,
        ti_id: str,
        cancel_on_kill: bool = False,
        **newer: Any,
    ) -> None:
        super().__init__(
            run_id, skyvern_conn_id, poll_interval, deadline, cancel_on_kill=cancel_on_kill, run_known=True, **newer
        )
        self.ti_id = ti_id

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and arguments that recreate the trigger; they contain no secret."""
        names = ("run_id", "skyvern_conn_id", "poll_interval", "deadline", "ti_id", "cancel_on_kill")
        return self.stored(self.values_of(names))

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one :class:`RunEvent`, or an :class:`AnswerEvent`."""
        event = await first_event_of(self._answered(), *self._without_answer())
        if event["reason"] == "resumed" and (response := await self._response()) is not None:
            event = self._answer(response)  # which is why the run has gone on, or came at the same moment
        if event["reason"] != "answered":
            await self._close(event["reason"])
        self._is_over = True
        yield TriggerEvent(event)

    def _without_answer(self) -> Sequence[Coroutine[Any, Any, RunEvent]]:
        """Return the coroutines that wait for any other end; such an end closes the request, too."""
        return [self._event()]

    async def on_kill(self) -> None:
        """Cancel the run when a user has ended the task; Airflow 3.3 also calls this when a person has answered."""
        with contextlib.suppress(Exception):  # after a clear the request no longer exists
            if await internals.in_thread(since_3_1.answer_of_person, UUID(self.ti_id)) is not None:
                return
        await super().on_kill()

    async def cleanup(self) -> None:
        """Close the request if a user has ended the task, and leave it if another triggerer takes over."""
        if self._is_over or self.task_instance is None:
            return
        await super().cleanup()
        with contextlib.suppress(Exception):  # nothing depends on it but a line in a list
            if await since_3_0.state_of_deferred_task(self.task_instance) in internals.ENDED_BY_USER:
                await self._close("killed")

    async def _answered(self) -> AnswerEvent:
        """Return what a person has answered."""
        interval = self.slow_answer_interval if since_3_3.answers_resume_tasks() else self.answer_interval
        await asyncio.sleep(interval)
        return self._answer(
            await poll_until_async(self._response, lambda found: found is not None, interval=interval)
        )

    async def _response(self) -> Any:
        try:
            return await internals.in_thread(since_3_1.answer_of_person, UUID(self.ti_id))
        except Exception as error:  # noqa: BLE001  Airflow may be away; the run is watched nevertheless
            self.log.debug("Skyvern run %s: could not read the person's answer from Airflow. %r", self.run_id, error)
            return None

    def _answer(self, response: Any) -> AnswerEvent:
        user, when = response.responded_by_user, response.responded_at
        return AnswerEvent(
            run_id=self.run_id,
            reason="answered",
            status=None,
            message=None,
            chosen_options=list(response.chosen_options or ()),
            responded_by_user={"id": user.id, "name": user.name} if user else None,
            responded_at=when.isoformat() if when else None,
        )

    async def _close(self, reason: str) -> None:
        try:
            answer = {"resumed": self.closed_when_resumed, **CLOSED}[reason]
            await internals.in_thread(since_3_1.close_request, UUID(self.ti_id), answer)
        except Exception as error:  # noqa: BLE001  nothing depends on it but a line in a list
            if await self._response() is None:  # else a person, or another triggerer, was faster
                self.log.info("Skyvern run %s: the request in Airflow was not closed. %r", self.run_id, error)


class SkyvernApprovalTrigger(RequestTrigger):
    """Wait until a person has answered what a paused run asks, in Airflow or in Skyvern."""

    __module__ = "airflow_skyvern.triggers"  # the path that Airflow stores

    closed_when_resumed: ClassVar[str] = "Answered in Skyvern"

    def _new_wait(self) -> Wait[RunSnapshot]:
        wait: Wait[RunSnapshot] = Wait(
            self.run_id,
            poll_interval=self.poll_interval,
            deadline=self.deadline,
            log=self.logger(),
            on_resume=lambda _: wait.stop(),
            pause_known=True,
            run_known=True,
        )
        return wait
