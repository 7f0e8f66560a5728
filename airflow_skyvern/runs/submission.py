"""
Starting a run exactly once.

Skyvern has no idempotency key for runs, and a start whose answer is lost has created a run nevertheless. But the
``run_metadata`` of a start becomes tags of the run within the same request, and runs can be found by tag. So every
start carries a key made of the task's *attempt group* (dag, run, task, map index, max_tries: the same over retries,
another after a clear), and every later try searches for it before it starts anything.

A process may be stopped anywhere for minutes, and a retry may have taken over when it continues. So right before the
start is written to its connection, Airflow is asked whether this try is still the current one.

Finding no run proves nothing yet: a server that was frozen may answer a search before the start that it received
earlier. So if a start may be unanswered, the search continues for ``lost_start_timeout``, counted from the first
search that was answered.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

from airflow_skyvern.client import api
from airflow_skyvern.client.retry import (
    RETRY_INTERVAL,
    may_have_started,
    no_patience,
    patience_with,
    while_transient,
)
from airflow_skyvern.client.session import checked, fetch_run
from airflow_skyvern.exceptions import (
    SkyvernCreditError,
    SkyvernError,
    SkyvernNotFoundError,
    SkyvernStartAmbiguous,
    SkyvernStartUnknown,
    SkyvernWaitInterrupted,
)
from airflow_skyvern.runs.key import GROUP_TAG, TASK_TAG, Kin
from airflow_skyvern.runs.lookup import (
    TaggedRun,
    TagsRefused,
    find_tagged,
    replaces_another,
    resumable,
)
from airflow_skyvern.runs.store import StartStore

if TYPE_CHECKING:
    import tenacity

    from airflow_skyvern.client.retry import PatienceWith
    from airflow_skyvern.client.run_request import RunRequest
    from airflow_skyvern.client.session import Send
    from airflow_skyvern.models import Run
    from airflow_skyvern.runs.key import RunKey
    from airflow_skyvern.runs.wait import Log

LOST_START_TIMEOUT = 30.0
"""Seconds for which a server may be working on a start that it did not answer. Measured: 11 under load."""

OUTAGE_PATIENCE = 120.0
"""Seconds for which a search is retried while Skyvern cannot be reached."""


@dataclass(frozen=True)
class Attempt:
    """
    Which try of a task starts a run.

    :param earlier_tries: How many tries the task had before this one, in this attempt group or before a clear.
    :param after_clear: Whether this seems to be the first try after a clear. A DAG whose ``retries`` were changed
        meanwhile makes that wrong, so no second start rests on it where runs can be found.
    :param cancel_predecessor: Whether to cancel an active run of the task from before a clear.
    :param seconds_left: Seconds until the task has to end; no search takes longer.
    """

    earlier_tries: int = 0
    after_clear: bool = False
    cancel_predecessor: bool = True
    seconds_left: float = math.inf


class Submission:
    """
    One start, or the resumption of an earlier try's run.

    :param send: Sends a call and returns its result.
    :param request: What to start.
    :param key: The key for finding it.
    :param store: The store that outlives a try, if Airflow has one.
    :param lost_start_timeout: Seconds for which the server may still be working on an unanswered start.
    :param before_start: Called when there is nothing to resume, before anything is sent; an error from it ends the
        start.
    :param ensure_current: Raises if another try of the task has taken over; called before anything is started or
        canceled, and again when the start is about to be written to its connection.
    :param final_request: Creates the request to send, right before the start, from the one that the key belongs to.
    :param rejects: Returns whether the result of a completed run is unusable: then it counts as a failed run.
    :param did_nothing: Returns whether a failed run did nothing, so that the same try starts another one at once.
    """

    def __init__(
        self,
        send: Send,
        request: RunRequest,
        key: RunKey,
        *,
        log: Log,
        store: StartStore | None = None,
        lost_start_timeout: float = LOST_START_TIMEOUT,
        before_start: Callable[[], object] = lambda: None,
        ensure_current: Callable[[], object] = lambda: None,
        final_request: Callable[[RunRequest], RunRequest] = lambda request: request,
        rejects: Callable[[Run], bool] = lambda _: False,
        did_nothing: Callable[[Run], bool] = lambda _: False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._send = send
        self._request = request
        self._key = key
        self._log = log
        self._store = store or StartStore(None)
        self._lost_start_timeout = lost_start_timeout
        self._before_start = before_start
        self._ensure_current = ensure_current
        self._final_request = final_request
        self._rejects = rejects
        self._did_nothing = did_nothing
        self._clock = clock
        self._sleep = sleep
        self.resumed = False
        """Whether :meth:`start` has returned a run of an earlier try."""
        self.was_unanswered = False
        self.was_refused = False
        """Whether the start of the run that :meth:`start` has returned was not answered."""
        self._known: set[str] = set()
        self._deadline = math.inf
        self._waits_for_key = False

    def start(self, attempt: Attempt) -> Run:
        """
        Return the run of this attempt group, started now if there is none to resume.

        :raises SkyvernStartUnknown: the start was not answered and no run was found; a later try searches again.
        :raises SkyvernStartAmbiguous: whether a run was started cannot be found out here.
        :raises SkyvernOvertaken: another try of the task has taken over; this one has started nothing.
        :raises SkyvernTaskEnded: a user has ended the task; this try has started nothing.
        """
        self._deadline = self._clock() + attempt.seconds_left
        self._waits_for_key = self._may_have_a_run(attempt)
        if attempt.earlier_tries and (earlier := self._earlier_run(attempt)):
            self.resumed = True
            return earlier
        self._before_start()
        call = api.start_run(self._tagged(self._final_request(self._request)))
        self._ensure_current()
        self._store.will_start(self._key.group)
        try:
            run: Run = checked(self._send, self._ensure_current)(call)
        except SkyvernWaitInterrupted:
            raise  # before anything was sent
        except SkyvernError as error:
            if not may_have_started(error):
                self._store.not_started()
                self.was_refused = True
                raise
            self.was_unanswered = True
            return self._run_of_lost_start(error)
        self._store.started(self._key.group, run.run_id)
        return run

    def _may_have_a_run(self, attempt: Attempt) -> bool:
        """
        Return whether an earlier try may have left a run, which continues while the key is refused.

        In a retry it may: a key that had been refused at the start would have ended the task. After a clear only the
        store can say that nothing was started.
        """
        if not attempt.earlier_tries:
            return False
        return not (attempt.after_clear and self._store.exists and self._store.read() is None)

    def _earlier_run(self, attempt: Attempt) -> Run | None:
        """Return the run that an earlier try has started, if it is worth resuming."""
        try:
            found = self._find(GROUP_TAG, self._key.group)
            if attempt.cancel_predecessor or self._key.start_may_change:
                attempt, renamed = self._compare_others(found, attempt)
                found = found + renamed
            return self._resumed(found, attempt) or self._untagged_run()
        except TagsRefused as refusal:
            self._warn_of_missing_tags(refusal)
            return self._recorded_run(attempt, refusal.reason)

    def _resumed(self, found: list[TaggedRun], attempt: Attempt) -> Run | None:
        """Resume one of the runs of this group, or the one of an unanswered start that appears within its time."""
        if self._result_was_taken(attempt):
            found = [run for run in found if not run.succeeded]
        searched_until = self._clock() + self._lost_start_timeout
        while True:
            if chosen := self._first_of_use(found):
                return self._resume(chosen)
            self._known.update(run.run_id for run in found)
            if self._every_start_was_answered(found, attempt) or self._clock() >= searched_until:
                return None
            if self._clock() >= self._deadline:
                self._give_up("An earlier try may have started a run, and no time is left to search for it.")
            self._sleep(RETRY_INTERVAL)
            found = self._find(GROUP_TAG, self._key.group)

    def _first_of_use(self, found: list[TaggedRun]) -> Run | None:
        candidates = (run.run_id for run in resumable(found) if run.run_id not in self._known)
        fetched = (self._fetch(run_id) for run_id in candidates)
        return next((run for run in fetched if not self._is_rejected(run)), None)

    def _is_rejected(self, run: Run) -> bool:
        if rejected := self._rejects(run):
            self._log.warning(
                "Skyvern run %s: completed, but its output does not match output_schema: not resumed", run.run_id
            )
        return rejected

    def _every_start_was_answered(self, found: list[TaggedRun], attempt: Attempt) -> bool:
        """
        Return whether no unanswered start of this group can be on its way.

        The store says so if Airflow has one. Otherwise each earlier try must have left a run: no try sends two
        starts.
        """
        if self._store.exists:
            record = self._store.read(self._key.group)
            return record is None or record.run_id is not None
        return self._every_try_has_left_a_run(found, attempt)

    def _every_try_has_left_a_run(self, found: list[TaggedRun], attempt: Attempt) -> bool:
        """
        Count the runs, each try's only once.

        Those that Skyvern itself has started in place of failed ones do not count, nor do those that found another
        run in their browser session: their try has started another one.
        """
        if len(found) < attempt.earlier_tries:
            return False
        first = [run for run in found if not self._patiently(replaces_another, self._send, run.run_id)]
        return len([run for run in first if not self._has_lost_turn(run)]) >= attempt.earlier_tries

    def _has_lost_turn(self, run: TaggedRun) -> bool:
        in_session = self._request.browser_session_id is not None and run.is_final and not run.succeeded
        return in_session and self._did_nothing(self._fetch(run.run_id))

    def _result_was_taken(self, attempt: Attempt) -> bool:
        """Return whether the group ended in a success: a clear after ``retries`` were lowered may repeat its name."""
        record = self._store.read(self._key.group)
        return attempt.after_clear and record is not None and record.done

    def _compare_others(self, found: list[TaggedRun], attempt: Attempt) -> tuple[Attempt, list[TaggedRun]]:
        """
        Compare the task's other runs with this attempt group: cancel its predecessors, if requested.

        :return: The attempt without the tries whose runs were started for earlier groups, and the runs of this group
            whose tag is another one, as their DAG run was queued again.
        """
        kinds = self._task_runs_by_kin()
        if attempt.cancel_predecessor:
            for run_id in _active(kinds[Kin.PREDECESSOR]):
                self._cancel_predecessor(run_id)
        for run_id in _active(kinds[Kin.FOREIGN]):
            self._log.warning(
                "Skyvern run %s: not canceled. This task started it before it was cleared, or the same task of "
                "another Airflow with the same Skyvern organization: set [api] base_url on both, or [skyvern] "
                "installation",
                run_id,
            )
        before = [run for run in kinds[Kin.PREDECESSOR] if self._key.is_of_same_call(run.tags)]
        attempt = replace(attempt, earlier_tries=attempt.earlier_tries - len(before))
        return attempt, self._renamed(kinds[Kin.UNSURE], found, attempt)

    def _task_runs_by_kin(self) -> dict[Kin, list[TaggedRun]]:
        recorded = self._store.read()
        kinds: dict[Kin, list[TaggedRun]] = {kin: [] for kin in Kin}
        for run in self._find(TASK_TAG, self._key.task):
            kin = self._key.kin(run.tags)
            is_recorded = recorded is not None and recorded.run_id == run.run_id
            kinds[Kin.PREDECESSOR if is_recorded and kin is not Kin.OWN else kin].append(run)
        return kinds

    def _renamed(self, runs: list[TaggedRun], found: list[TaggedRun], attempt: Attempt) -> list[TaggedRun]:
        """
        Return which runs of the same attempt, at another start of the DAG run, are this task's own.

        A user who queues an active DAG run again changes its start. But each earlier try that has left a run with the
        present start has not left one with another.

        :raises SkyvernStartAmbiguous: they may belong to another Airflow, and one of them is active.
        """
        if not runs or self._every_try_has_left_a_run(found, attempt):
            return []
        if self._key.names_airflow:
            return runs
        if active := _active(runs):
            raise SkyvernStartAmbiguous(
                f"Skyvern run {active[0]} is active. This task started it before its DAG run was queued again, or "
                "another Airflow with the same Skyvern organization did for the same task. Wait for its end in "
                "Skyvern or cancel it there, then clear this task. With [skyvern] installation set on both, this is "
                "known."
            )
        return []

    def _cancel_predecessor(self, run_id: str) -> None:
        self._ensure_current()
        self._log.info(
            "Skyvern run %s: canceling it, as this task started it before it was cleared or for another input", run_id
        )
        try:
            self._patiently(checked(self._send, self._ensure_current), api.cancel_run(run_id))
        except SkyvernNotFoundError:
            self._log.warning("Skyvern run %s does not exist any more", run_id)

    def _untagged_run(self) -> Run | None:
        """Return the run that only the store knows: Skyvern starts a run even if it cannot store its tags."""
        record = self._store.read(self._key.group)
        if record is None or record.run_id is None or record.done or record.run_id in self._known:
            return None
        return self._resume_if_useful(record.run_id)

    def _recorded_run(self, attempt: Attempt, reason: str) -> Run | None:
        """Decide by the store alone, where Skyvern has no tags, for this reason."""
        if not self._store.exists:
            if attempt.after_clear:
                return None
            raise SkyvernStartAmbiguous(
                f"An earlier try may have started a run. It cannot be found again, as {reason}, and Airflow below "
                "3.3 stores nothing between tries. Search Skyvern's run history, then clear this task; durable=False "
                "turns this check off."
            )
        record = self._store.read()
        if record is None:
            return None
        if record.group == self._key.group:
            return self._run_of_record(record.run_id, reason)
        if record.run_id is not None and attempt.cancel_predecessor:
            self._cancel_if_active(record.run_id)
        return None

    def _run_of_record(self, run_id: str | None, reason: str) -> Run | None:
        if run_id is not None:
            return self._resume_if_useful(run_id)
        raise SkyvernStartAmbiguous(
            f"An earlier try sent a start that was not answered, and its run cannot be found, as {reason}. Search "
            "Skyvern's run history, then clear this task."
        )

    def _cancel_if_active(self, run_id: str) -> None:
        run = self._fetch_if_there(run_id)
        if run is not None and not run.is_final:
            self._cancel_predecessor(run_id)

    def _resume_if_useful(self, run_id: str) -> Run | None:
        run = self._fetch_if_there(run_id)
        if run is None or (run.is_final and not run.succeeded) or self._is_rejected(run):
            return None
        return self._resume(run)

    def _fetch_if_there(self, run_id: str) -> Run | None:
        try:
            return self._fetch(run_id)
        except SkyvernNotFoundError:
            self._log.warning("Skyvern run %s does not exist any more", run_id)
            return None

    def _run_of_lost_start(self, error: SkyvernError) -> Run:
        """Find the run of a start whose answer was lost; the start is never sent again while a run may exist."""
        self._log.warning("The start of the Skyvern run was not answered: searching for the run. %s", error)
        self._waits_for_key = True  # a refused one would have been refused at the start
        searched_until = math.inf
        while True:
            found = self._find_lost(error)
            if new := [run for run in found if run.run_id not in self._known]:
                return self._resume(self._fetch(new[0].run_id))
            searched_until = min(searched_until, self._clock() + self._lost_start_timeout)
            if self._clock() >= min(searched_until, self._deadline):
                if isinstance(error, SkyvernCreditError):
                    raise error
                sought = f"no run of it was found within {self._lost_start_timeout:.0f} s"
                self._give_up(f"The start was not answered, and {sought}. {error}", error)
            self._sleep(RETRY_INTERVAL)

    def _find_lost(self, error: SkyvernError) -> list[TaggedRun]:
        try:
            return self._find(GROUP_TAG, self._key.group)
        except TagsRefused as refusal:
            self._warn_of_missing_tags(refusal)
            raise SkyvernStartAmbiguous(
                f"The start was not answered, and its run cannot be found, as {refusal.reason}. "
                "Search Skyvern's run history: if the run is there, wait for it with a SkyvernRunSensor; "
                f"if not, clear this task. {error}"
            ) from error
        except SkyvernError as trouble:
            self._give_up(
                f"The start was not answered, and the search for its run failed. {error} {trouble}", trouble
            )

    def _give_up(self, reason: str, cause: SkyvernError | None = None) -> NoReturn:
        raise SkyvernStartUnknown(f"{reason} The next try searches again before it starts anything.") from cause

    def _resume(self, run: Run) -> Run:
        self._log.info("Skyvern run %s: resumed, this task started it before; it is %s", run.run_id, run.status)
        self._store.started(self._key.group, run.run_id)
        return run

    def _find(self, tag: str, value: str) -> list[TaggedRun]:
        """Search, also while Skyvern is unreachable for a while: that must not cost a try, as a run may be active."""
        refusals = patience_with if self._waits_for_key else no_patience
        found: list[TaggedRun] = self._until_deadline(refusals, find_tagged, self._send, tag, value)
        return found

    def _fetch(self, run_id: str) -> Run:
        """Fetch a run that was listed, or started by an earlier try: one 404 does not prove that it is gone."""
        run: Run = self._patiently(fetch_run, self._send, run_id)
        return run

    def _patiently(self, function: Callable[..., Any], *args: Any) -> Any:
        return self._until_deadline(patience_with, function, *args)

    def _until_deadline(self, refusals: PatienceWith, function: Callable[..., Any], *args: Any) -> Any:
        """Call it; if the time is over before a refusal is believed, the task may still be retried."""
        try:
            return self._retrying(refusals)(function, *args)
        except SkyvernError as error:
            if not error.transient and refusals(error) and self._clock() >= self._deadline:
                self._give_up(
                    f"Skyvern refuses a request that it should accept, and no time is left to wait. {error}", error
                )
            raise

    def _retrying(self, refusals: PatienceWith) -> tenacity.Retrying:
        left = max(0.0, self._deadline - self._clock())
        return while_transient(
            min(OUTAGE_PATIENCE, left),
            sleep=self._sleep,
            clock=self._clock,
            on_error=lambda error: self._log.warning("Could not search for the Skyvern run yet. %s", error),
            refusals=lambda error: min(refusals(error), left),
        )

    def _warn_of_missing_tags(self, refusal: TagsRefused) -> None:
        self._log.warning(
            "Skyvern cannot find runs by tag, as %s. So a start that is not answered cannot be searched for. %s",
            refusal.reason,
            refusal,
        )

    def _tagged(self, request: RunRequest) -> RunRequest:
        metadata = {**(request.run_metadata or {}), **self._key.tags}
        return request.model_copy(update={"run_metadata": metadata})


def _active(runs: list[TaggedRun]) -> list[str]:
    return [run.run_id for run in runs if not run.is_final]
