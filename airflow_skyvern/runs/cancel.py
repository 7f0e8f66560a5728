"""Canceling a run: within the seconds that Airflow leaves to a killed task, or until Skyvern can be reached."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import tenacity

from airflow_skyvern.client import api
from airflow_skyvern.client.retry import RETRY_INTERVAL, patience_with, while_transient
from airflow_skyvern.exceptions import SkyvernError
from airflow_skyvern.runs.key import GROUP_TAG
from airflow_skyvern.runs.lookup import fetch_run, tagged_runs

if TYPE_CHECKING:
    from airflow_skyvern.client.retry import Sleep
    from airflow_skyvern.models import Run
    from airflow_skyvern.runs.lookup import Send
    from airflow_skyvern.runs.wait import Log

KILL_BUDGET = 4.0
"""Seconds for canceling the run of a killed task: Airflow 3 kills its process 5 s after the signal."""

KILL_INTERVAL = 0.3
"""Seconds between two attempts within the budget."""

CANCEL_PATIENCE = 300.0
"""Seconds for which a cancel is retried while Skyvern cannot be reached, where nothing limits the time."""

DEADLINE_PATIENCE = 60.0
"""Seconds for which a cancel is retried by a task that is out of time."""

LATE_START = 30.0
"""Seconds for which a run is searched for whose start was unanswered when its task was killed."""


def cancel_within_budget(
    send: Send, run_id: str | None, group: str | None, log: Log, budget: float = KILL_BUDGET
) -> None:
    """
    Cancel the run of a killed task and confirm that it is canceled; raises nothing.

    :param send: Sends a call, once and not for long.
    :param run_id: The run, if its start has been answered.
    :param group: The tag to find it by, if its start is still unanswered.
    :param budget: Seconds for all of it.
    """
    work = _KilledRun(send, run_id, group)
    until = time.monotonic() + budget
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda confirmed: not confirmed),
        stop=lambda _: time.monotonic() + KILL_INTERVAL >= until,
        wait=tenacity.wait_fixed(KILL_INTERVAL),
        retry_error_callback=lambda _: False,
    )
    if retrying(work.cancel):
        log.info("Skyvern run %s: canceled, as the task was killed", work.run_id)
    elif work.requested:
        log.warning("Skyvern run %s: cancel requested, as the task was killed; not confirmed yet", work.run_id)
    else:
        where = work.run_id or "(its start was not answered)"
        log.warning("Skyvern run %s may still be running. %s", where, work.problem)


class _KilledRun:
    """The run of a killed task, and how far its cancel has got."""

    def __init__(self, send: Send, run_id: str | None, group: str | None) -> None:
        self.run_id = run_id
        self.requested = False
        self.problem: object = "No active run was found."
        self._send = send
        self._group = group

    def cancel(self) -> bool:
        """Take the next steps, and return whether the run is certainly canceled."""
        try:
            if self.run_id is None and self._group is not None:
                self.run_id = _active_run_of(self._send, self._group)
            if self.run_id is None:
                return False
            if not self.requested:
                self._send(api.cancel_run(self.run_id))
                self.requested = True
            return fetch_run(self._send, self.run_id).is_final
        except SkyvernError as error:
            self.problem = error
            return False


def cancel_and_fetch(send: Send, run_id: str, patience: float = CANCEL_PATIENCE, sleep: Sleep = time.sleep) -> Run:
    """
    Cancel a run, also when Skyvern cannot be reached for a while, and return it as it is then.

    :param patience: Seconds after which a transient error is raised instead of retried.
    :raises SkyvernError: the run could not be canceled, or not be fetched afterwards.
    """

    def cancel() -> Run:
        send(api.cancel_run(run_id))
        return fetch_run(send, run_id)

    retrying = while_transient(patience, sleep=sleep, refusals=lambda error: min(patience_with(error), patience))
    canceled: Run = retrying(cancel)
    return canceled


def cancel_if_active(send: Send, run_id: str | None, group: str | None, sleep: Sleep = time.sleep) -> Run | None:
    """
    Cancel the run of a task that is over, if it is still active; also when Skyvern is away for minutes.

    :param run_id: The run, if its start has been answered.
    :param group: The tag to find it by otherwise: its start may have been unanswered when the task was killed, so the
        run is searched for during half a minute.
    :return: The run as it is then; None if there was nothing to cancel.
    :raises SkyvernError: the run could not be canceled.
    """
    found = run_id or (_late_run(send, group, sleep) if group else None)
    if found is None:
        return None
    retrying = while_transient(CANCEL_PATIENCE, sleep=sleep, refusals=patience_with)
    if retrying(fetch_run, send, found).is_final:
        return None
    return cancel_and_fetch(send, found, sleep=sleep)


def _late_run(send: Send, group: str, sleep: Sleep) -> str | None:
    until = time.monotonic() + LATE_START
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_result(lambda found: found is None),
        stop=lambda _: time.monotonic() >= until,
        wait=tenacity.wait_fixed(RETRY_INTERVAL),
        sleep=sleep,
        retry_error_callback=lambda _: None,
    )
    found: str | None = retrying(while_transient(CANCEL_PATIENCE, sleep=sleep), _active_run_of, send, group)
    return found


def _active_run_of(send: Send, group: str) -> str | None:
    runs = tagged_runs(send, GROUP_TAG, group)
    return next((run.run_id for run in runs if not run.is_final and run.tags.get(GROUP_TAG) == group), None)
