"""Canceling the run of a task that has been killed: in the seconds that Airflow leaves for it, or with patience."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from airflow_skyvern.client import api
from airflow_skyvern.client.calls import Call
from airflow_skyvern.exceptions import SkyvernError
from airflow_skyvern.runs.key import GROUP_TAG

if TYPE_CHECKING:
    from airflow_skyvern.client.sender import SkyvernClient
    from airflow_skyvern.models import Run
    from airflow_skyvern.runs.wait import Log

T = TypeVar("T")
Send = Callable[[Call[Any]], Any]
Sleep = Callable[[float], Any]

KILL_BUDGET = 4.0
"""Airflow 3 kills the worker 5 s after it asked it to end."""

PAUSE = 0.3

PERSISTENCE = 300.0
"""Seconds for which a cancel is sent again while Skyvern cannot be reached, where nobody waits for it."""

LATE_START = 30.0
"""Seconds for which a run is looked for whose start is under way while its task is killed."""

BREATH = 1.0
"""Seconds between two attempts where there is time."""


class Skyvern(Protocol):
    """What is asked of Skyvern; :class:`~airflow_skyvern.hooks.SkyvernHook` does."""

    @property
    def send(self) -> Send:
        """Send a call and return its result."""

    @property
    def cancel_run(self) -> Callable[[str], None]:
        """Cancel a run."""

    def look(self, run_id: str) -> Run:
        """Get a run, also when its workflow was deleted."""


def cancel_at_once(client: SkyvernClient, run_id: str | None, group: str | None, log: Log) -> None:
    """
    Cancel the run and see that it is canceled, within four seconds.

    :param run_id: The run, if its start has been answered.
    :param group: The tag to find it by, if its start is still under way.
    """
    until = time.monotonic() + KILL_BUDGET
    canceled: str | None = None
    trouble: object = "no active run was found"
    while time.monotonic() < until:
        try:
            run_id = run_id or (_active_run(client.send, group) if group else None)
            if run_id and canceled is None:
                client.send(api.cancel_run(run_id))
                canceled = run_id
            if canceled and client.send(api.get_run(canceled)).is_final:
                log.info("Skyvern run %s: canceled, as the task was killed", canceled)
                return
        except SkyvernError as error:
            trouble = error
        time.sleep(PAUSE)
    if canceled:
        log.warning("Skyvern run %s: told to cancel, as the task was killed; not confirmed yet", canceled)
    else:
        log.warning("Skyvern run %s may still be running. %s", run_id or "(its start was not answered)", trouble)


def cancel_and_look(hook: Skyvern, run_id: str, patience: float, sleep: Sleep = time.sleep) -> Run:
    """
    Cancel a run, also when Skyvern cannot be reached for a while, and return what became of it.

    :param patience: Seconds after which an error that may pass is raised instead of trying again.
    :raises SkyvernError: it could not be canceled, or not be looked at afterwards.
    """

    def cancel() -> Run:
        hook.cancel_run(run_id)
        return hook.look(run_id)

    return _patiently(cancel, patience, sleep)


def cancel_what_is_left(
    hook: Skyvern, run_id: str | None, group: str | None, sleep: Sleep = time.sleep
) -> Run | None:
    """
    Cancel the run of a task that is over, if it is still active; also when Skyvern is away for minutes.

    :param run_id: The run, if its start has been answered.
    :param group: The tag to find it by otherwise: it may have been under way when the task was killed, so it is
        looked for during half a minute.
    :return: What became of it; None if there was nothing to cancel.
    :raises SkyvernError: it could not be canceled.
    """
    found = run_id or (_late_run(hook, group, sleep) if group else None)
    if found is None or _patiently(lambda: hook.look(found), PERSISTENCE, sleep).is_final:
        return None
    return cancel_and_look(hook, found, PERSISTENCE, sleep)


def _late_run(hook: Skyvern, group: str, sleep: Sleep) -> str | None:
    until = time.monotonic() + LATE_START
    while time.monotonic() < until:
        if found := _patiently(lambda: _active_run(hook.send, group), PERSISTENCE, sleep):
            return found
        sleep(BREATH)
    return None


def _patiently(act: Callable[[], T], patience: float, sleep: Sleep) -> T:
    """Act again until it succeeds, or fails in a way that does not pass, or patience ends."""
    until = time.monotonic() + patience
    while True:
        try:
            return act()
        except SkyvernError as error:
            if not error.transient or time.monotonic() > until:
                raise
        sleep(BREATH)


def _active_run(send: Send, group: str) -> str | None:
    rows = send(api.find_runs({GROUP_TAG: group}))
    return next((row.run_id for row in rows if not row.is_final and _is_of(send, row.run_id, group)), None)


def _is_of(send: Send, run_id: str, group: str) -> bool:
    return bool(send(api.get_run_tags([run_id])).of(run_id).get(GROUP_TAG) == group)
