"""Canceling the run of a task that has ended, or is being killed in the little time that Airflow leaves for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from airflow_skyvern import api
from airflow_skyvern.exceptions import SkyvernError
from airflow_skyvern.run_request import GROUP_TAG

if TYPE_CHECKING:
    from airflow_skyvern.client import SkyvernClient
    from airflow_skyvern.hooks import SkyvernHook
    from airflow_skyvern.models import Run
    from airflow_skyvern.submission import RunKey
    from airflow_skyvern.waiting import Log

PATIENCE = 4.0
"""Airflow 3 kills the worker 5 s after it asked it to end."""

PAUSE = 0.3

PERSISTENCE = 300.0
"""Seconds for which a cancel is sent again while Skyvern cannot be reached, where nobody waits for it."""

BREATH = 1.0
"""Seconds between two attempts where there is time."""


def cancel_and_look(
    hook: SkyvernHook, run_id: str, patience: float, sleep: Callable[[float], Any] = time.sleep
) -> Run:
    """
    Cancel a run, also when Skyvern cannot be reached for a while, and return what became of it.

    :param patience: Seconds after which an error that may pass is raised instead of trying again.
    :raises SkyvernError: it could not be canceled, or not be looked at afterwards.
    """
    until = time.monotonic() + patience
    while True:
        try:
            hook.cancel_run(run_id)
            return hook.look(run_id)
        except SkyvernError as error:
            if not error.transient or time.monotonic() > until:
                raise
        sleep(BREATH)


def cancel_at_once(client: SkyvernClient, run_id: str | None, key: RunKey | None, log: Log) -> None:
    """
    Cancel the run and see that it is canceled, within four seconds.

    :param run_id: The run, if its start has been answered.
    :param key: What to find it by, if its start is still under way.
    """
    until = time.monotonic() + PATIENCE
    canceled: str | None = None
    trouble: object = "no active run was found"
    while time.monotonic() < until:
        try:
            run_id = run_id or _find(client, key)
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


def _find(client: SkyvernClient, key: RunKey | None) -> str | None:
    if key is None:
        return None
    rows = client.send(api.find_runs({GROUP_TAG: key.group}))
    return next((row.run_id for row in rows if not row.is_final and _is_ours(client, row.run_id, key)), None)


def _is_ours(client: SkyvernClient, run_id: str, key: RunKey) -> bool:
    return client.send(api.get_run_tags([run_id])).of(run_id).get(GROUP_TAG) == key.group
