"""
Starting a run exactly once.

Skyvern has no idempotency key for runs, and a start whose answer is lost has created a run nevertheless. But what
a start carries as ``run_metadata`` becomes tags of the run within the same request, and runs can be found by tag.
So every start carries a key made of the task's *attempt group* (dag, run, task, map index, max_tries: the same
over retries, another after a clear), and whoever may not be the first looks for it before starting anything.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from airflow_skyvern.client import api
from airflow_skyvern.client.sender import NOTHING_CREATED
from airflow_skyvern.exceptions import (
    SkyvernAuthError,
    SkyvernConnectionError,
    SkyvernError,
    SkyvernNotFoundError,
    SkyvernResponseError,
    SkyvernServerError,
    SkyvernStartAmbiguous,
    SkyvernStartUnknown,
)
from airflow_skyvern.runs.key import GROUP_TAG, TASK_TAG

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call
    from airflow_skyvern.client.run_request import RunRequest
    from airflow_skyvern.models import Run, RunSummary
    from airflow_skyvern.runs.key import RunKey
    from airflow_skyvern.runs.wait import Log

T = TypeVar("T")

SETTLE = 30.0
"""Seconds for which a server may be working on a start that it did not answer. Measured: 11 under load."""

LOOK_AGAIN = 1.0

OUTAGE = 120.0
"""Seconds for which a retry waits for a server that cannot be asked for the run of an earlier try."""


class Memory(Protocol):
    """What outlives a try of a task, where there is such a thing (``task_state_store`` of Airflow 3.3)."""

    def get(self, key: str, default: Any = None) -> Any:
        """Return what was stored."""

    def set(self, key: str, value: Any) -> Any:
        """Store a value."""


MEMORY_KEY = "skyvern_run"


class Submission:
    """
    One start, or the resumption of what an earlier try has started.

    :param send: Sends a call and returns its result.
    :param request: What to start.
    :param key: What to find it by.
    :param memory: What outlives a try, where Airflow has it; needed only where Skyvern refuses tags.
    :param settle: Seconds for which the server may still be working on an unanswered start.
    """

    def __init__(
        self,
        send: Callable[[Call[Any]], Any],
        request: RunRequest,
        key: RunKey,
        *,
        log: Log,
        memory: Memory | None = None,
        settle: float = SETTLE,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._send = send
        self._request = request
        self._key = key
        self._log = log
        self._memory = memory
        self._settle = settle
        self._clock = clock
        self._sleep = sleep
        self._seen: set[str] = set()

    def start(
        self, *, first_try: bool, new_group: bool = False, cancel_predecessor: bool = True, idle: float = 0.0
    ) -> Run:
        """
        Return the run of this attempt group, started now if there is none to go on with.

        :param first_try: Whether no try can have come before, so that nothing needs to be looked up.
        :param new_group: Whether this is the first try after a clear, so that nothing of the group can have come
            before, but a predecessor may be active.
        :param cancel_predecessor: Whether to cancel an active run of the same task from before a clear.
        :param idle: Seconds that have passed since an earlier try of the group can have sent anything.
        :raises SkyvernStartUnknown: the start was not answered and no run was found; a later try looks again.
        :raises SkyvernStartAmbiguous: whether a run was started cannot be found out here.
        """
        if not first_try:
            idle = math.inf if new_group else idle
            if earlier := self._earlier(cancel_predecessor=cancel_predecessor, idle=idle):
                return earlier
        self._remember(None)
        try:
            run: Run = self._send(api.run_workflow(self._tagged_request()))
        except SkyvernError as error:
            if not may_have_started(error):
                self._forget()
                raise
            return self._lost(error)
        self._remember(run.run_id)
        return run

    def _earlier(self, *, cancel_predecessor: bool, idle: float) -> Run | None:
        mine = self._patient_lookup(GROUP_TAG, self._key.group)
        if mine is None:
            return self._remembered(cancel_predecessor=cancel_predecessor, idle=idle)
        if cancel_predecessor:
            self._cancel_predecessors({row.run_id for row in mine})
        for found in self._settling(mine, idle):
            if chosen := _to_go_on_with(found):
                return self._resume(chosen.run_id)
            self._seen.update(row.run_id for row in found)
        return self._untagged()

    def _cancel_predecessors(self, mine: set[str]) -> None:
        for row in self._patient_lookup(TASK_TAG, self._key.task) or []:
            if row.run_id not in mine and not row.is_final:
                self._cancel_predecessor(row.run_id)

    def _untagged(self) -> Run | None:
        """Return the run that only the memory knows: Skyvern starts a run also when it cannot store its tags."""
        run_id = (self._recall() or {}).get("run_id")
        if run_id is None or run_id in self._seen:
            return None
        return self._resume(run_id) if _to_go_on_with([self._send(api.get_run(run_id))]) else None

    def _settling(self, mine: list[RunSummary], idle: float) -> Iterator[list[RunSummary]]:
        """Look again for as long as a start of an earlier try, not answered, may be on its way."""
        yield mine
        remembered = self._recall()
        nothing_sent = self._memory is not None and remembered is None
        answered = remembered is not None and remembered.get("run_id") is not None
        until = self._clock() + (0.0 if nothing_sent or answered else self._settle - idle)
        while self._clock() < until:
            self._sleep(LOOK_AGAIN)
            yield self._patient_lookup(GROUP_TAG, self._key.group) or []

    def _lost(self, error: SkyvernError) -> Run:
        """Find the run of a start whose answer was lost; it is never sent again while a run may exist."""
        self._log.warning("The start of the Skyvern run was not answered: looking for the run. %s", error)
        until = self._clock() + self._settle
        while True:
            try:
                runs = self._lookup(GROUP_TAG, self._key.group)
            except SkyvernError as trouble:
                if not trouble.transient:
                    raise
                self._log.warning("Could not look for the run yet. %s", trouble)
                runs = []
            if runs is None:
                raise SkyvernStartAmbiguous(
                    "The start was not answered, and this Skyvern organization has no run tags to find the run by. "
                    "Look into Skyvern's run history: if the run is there, wait for it with a SkyvernRunSensor; "
                    f"if not, clear this task. {error}"
                ) from error
            new = [row for row in runs if row.run_id not in self._seen]
            if new:
                return self._resume(new[0].run_id)
            if self._clock() >= until:
                raise SkyvernStartUnknown(
                    f"The start was not answered, and no run of it was found within {self._settle:.0f} s. "
                    f"The next try looks again before it starts anything. {error}"
                ) from error
            self._sleep(LOOK_AGAIN)

    def _resume(self, run_id: str) -> Run:
        run: Run = self._send(api.get_run(run_id))
        self._log.info("Skyvern run %s: found, it was started before; it is %s", run_id, run.status)
        self._remember(run_id)
        return run

    def _cancel_predecessor(self, run_id: str) -> None:
        self._log.info(
            "Skyvern run %s: canceled, this task has started it before it was cleared or for another input", run_id
        )
        try:
            self._send(api.cancel_run(run_id))
        except SkyvernNotFoundError:
            self._log.warning("Skyvern run %s does not exist any more", run_id)

    def _patient_lookup(self, tag: str, value: str) -> list[RunSummary] | None:
        """Look up; that Skyvern is away for a while must not cost a try, as a run may be active."""
        until = self._clock() + OUTAGE
        while True:
            try:
                return self._lookup(tag, value)
            except SkyvernError as error:
                if not error.transient or self._clock() >= until:
                    raise
                self._log.warning("Could not look for an earlier run yet. %s", error)
            self._sleep(LOOK_AGAIN)

    def _lookup(self, tag: str, value: str) -> list[RunSummary] | None:
        """
        Return the runs with this tag, newest first; None where tags are refused.

        A server that does not know the filter ignores it and returns foreign runs, so the tags of what comes
        back are read.
        """
        try:
            rows: list[RunSummary] = self._send(api.find_runs({tag: value}))
            tags = self._send(api.get_run_tags(row.run_id for row in rows)) if rows else None
        except (SkyvernAuthError, SkyvernNotFoundError) as error:
            if isinstance(error, SkyvernAuthError):
                self._send(api.probe())  # raises when it is the key that is refused, not the tags
            self._say_no_tags(str(error))
            return None
        if tags is not None and any(tags.of(row.run_id).get(tag) != value for row in rows):
            self._say_no_tags("The server ignores the filter.")
            return None
        return rows

    def _say_no_tags(self, reason: str) -> None:
        self._log.warning(
            "Skyvern does not find runs by tag for this organization, so a start that is not answered cannot be "
            "looked for. %s",
            reason,
        )

    def _remembered(self, *, cancel_predecessor: bool, idle: float) -> Run | None:
        """Decide by memory where Skyvern has no tags."""
        if self._memory is None and idle == math.inf:
            return None
        if self._memory is None:
            raise SkyvernStartAmbiguous(
                "An earlier try may have started a run. It cannot be found again, as this Skyvern organization "
                "has no run tags and Airflow below 3.3 no memory between tries. Look into Skyvern's run history, "
                "then clear this task; durable=False turns this check off."
            )
        remembered = self._recall(any_group=True)
        if remembered is None:
            return None
        run_id, mine = remembered.get("run_id"), remembered.get("group") == self._key.group
        if run_id is None and mine:
            raise SkyvernStartAmbiguous(
                "An earlier try sent a start that was not answered, and this Skyvern organization has no run tags to "
                "find the run by. Look into Skyvern's run history, then clear this task."
            )
        if run_id is None:
            return None
        run: Run = self._send(api.get_run(run_id))
        if not mine:
            if not run.is_final and cancel_predecessor:
                self._cancel_predecessor(run_id)
            return None
        return self._resume(run_id) if _to_go_on_with([run]) else None

    def _tagged_request(self) -> RunRequest:
        metadata = {**(self._request.run_metadata or {}), **self._key.tags}
        return self._request.model_copy(update={"run_metadata": metadata})

    def _recall(self, *, any_group: bool = False) -> dict[str, Any] | None:
        value = self._memory.get(MEMORY_KEY, None) if self._memory is not None else None
        if not isinstance(value, dict) or not (any_group or value.get("group") == self._key.group):
            return None
        return value

    def _remember(self, run_id: str | None) -> None:
        if self._memory is not None:
            self._memory.set(MEMORY_KEY, {"group": self._key.group, "run_id": run_id})

    def _forget(self) -> None:
        if self._memory is not None:
            self._memory.set(MEMORY_KEY, {"group": "", "run_id": None})


def may_have_started(error: SkyvernError) -> bool:
    """Tell whether a start that ended in this error may have created a run."""
    if isinstance(error, SkyvernConnectionError):
        return not error.never_sent
    if isinstance(error, SkyvernServerError):
        return NOTHING_CREATED not in error.detail
    return isinstance(error, SkyvernResponseError)


def _to_go_on_with(runs: list[Any]) -> Any:
    """Choose the run that a retry goes on with: an active one, else a completed one."""
    active = next((run for run in runs if not run.is_final), None)
    return active or next((run for run in runs if run.succeeded), None)
