"""Waiting in the triggerer for a run that may ask for a code at a login, and for the person who has the code."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.triggers.base import TriggerEvent

from airflow_skyvern.client import api
from airflow_skyvern.exceptions import SkyvernError
from airflow_skyvern.runs.login_code import QUIET, Answered, CodeStep, CodeWatch, code_step_of, identifier_at
from airflow_skyvern.runs.wait import CodeEvent, Reason, RunEvent
from airflow_skyvern.triggers.approval import RequestTrigger
from airflow_skyvern.triggers.run import SkyvernRunTrigger, first_event_of

if TYPE_CHECKING:
    from airflow_skyvern.models import TimelineItem

LOOK_INTERVAL = 10.0
"""Seconds between two polls of the timeline of a run."""


class SkyvernLoginTrigger(SkyvernRunTrigger):
    """
    Wait for a run to end, or until it seems to wait for a code at a login.

    Takes the arguments of :class:`SkyvernRunTrigger`.

    :param answered: The step for which a person has sent a code last, see
        :class:`~airflow_skyvern.runs.login_code.Answered`. Default: none.
    """

    __module__ = "airflow_skyvern.triggers"  # the path that Airflow stores

    look_interval: ClassVar[float] = LOOK_INTERVAL
    quiet: ClassVar[float] = QUIET

    def __init__(self, *args: Any, answered: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.answered = answered

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and arguments that recreate the trigger; they contain no secret."""
        path, kwargs = super().serialize()
        return path, {**kwargs, "answered": self.answered}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, and yield one :class:`RunEvent`, or a :class:`CodeEvent`."""
        event = await first_event_of(self._event(), self._code_wanted())
        self._is_over = True
        yield TriggerEvent(event)

    async def _code_wanted(self) -> CodeEvent:
        """Return where the run waits for a code."""
        watch = CodeWatch(Answered.of(self.answered), quiet=self.quiet)
        takes_none: set[str] = set()

        async def waits_at(timeline: Sequence[TimelineItem]) -> CodeStep | None:
            step = watch.waits_at(timeline)
            if step is None or step.task_id in takes_none:
                return None
            if await identifier_at(self.poller().send, step) is not None:
                return step
            takes_none.add(step.task_id)
            return None

        step = await looked_for(self, waits_at, self.look_interval)
        return CodeEvent(run_id=self.run_id, reason="code", status="running", message=None, step=step.stored())


class SkyvernCodeTrigger(RequestTrigger):
    """
    Wait until a person has sent the code that a run waits for, or the run no longer waits for it.

    The code itself never comes here: Airflow's API server sends it to Skyvern, and closes the request.

    :param step: Where the run waits, see :class:`~airflow_skyvern.runs.login_code.CodeStep`.
    """

    __module__ = "airflow_skyvern.triggers"  # the path that Airflow stores

    closed_when_resumed: ClassVar[str] = "The run has gone on"
    look_interval: ClassVar[float] = LOOK_INTERVAL

    def __init__(self, *args: Any, step: Mapping[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.step = step

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and arguments that recreate the trigger; they contain no secret."""
        path, kwargs = super().serialize()
        return path, {**kwargs, "step": self.step}

    def _without_answer(self) -> Sequence[Coroutine[Any, Any, RunEvent]]:
        return [self._event(), self._gone_on()]

    async def _gone_on(self) -> RunEvent:
        asked = CodeStep.of(self.step)

        async def gone_on(timeline: Sequence[TimelineItem]) -> bool:
            return code_step_of(timeline) != asked

        await looked_for(self, gone_on, self.look_interval)
        reason: Reason = "resumed"
        return RunEvent(run_id=self.run_id, reason=reason, status="running", message=None)


async def looked_for(
    trigger: SkyvernRunTrigger, look: Callable[[Sequence[TimelineItem]], Coroutine[Any, Any, Any]], interval: float
) -> Any:
    """
    Poll the timeline of the trigger's run until ``look`` finds something in it, and return that.

    Failures are retried: the polls of the run find out whether the wait can continue at all. A permanent failure,
    such as a server that does not know the request, is logged once.
    """
    said = False
    while True:
        await asyncio.sleep(interval)
        try:
            timeline = await trigger.poller().send(api.get_run_timeline(trigger.run_id))
            if found := await look(timeline):
                return found
        except Exception as error:  # noqa: BLE001  such as an answer of another form: the wait continues
            lasting = isinstance(error, SkyvernError) and not error.transient
            level = logging.WARNING if lasting and not said else logging.DEBUG
            said = said or lasting
            trigger.log.log(
                level, "Skyvern run %s: whether it waits for a code is not known. %s", trigger.run_id, error
            )
