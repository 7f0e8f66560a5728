"""
Twins: a second active run of one start.

A gateway that got no answer sends a start again, and a start may reach Skyvern long after its task has given up the
search for it. The task takes the result of one run; what else its attempt group started is canceled.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import TYPE_CHECKING

from airflow_skyvern.client import api
from airflow_skyvern.exceptions import SkyvernAuthError, SkyvernError, SkyvernRequestError
from airflow_skyvern.models import ACTIVE_STATUSES
from airflow_skyvern.runs.key import GROUP_TAG
from airflow_skyvern.runs.lookup import TagsRefused

if TYPE_CHECKING:
    from airflow_skyvern.client.session import Send
    from airflow_skyvern.runs.orphans import StartedRun
    from airflow_skyvern.runs.wait import Log

SAME_START = timedelta(minutes=1)
"""Two runs created within this time belong to one start, even after an earlier run was over."""

MOST_TWINS = 5
"""How many are canceled at once; each takes a request of a task that wants to end."""


def cancel_twins(send: Send, group: str, taken: str, log: Log) -> None:
    """
    Cancel the active runs of an attempt group except the one whose result is used; raises nothing.

    :param send: Sends a call, once and not for long.
    """
    try:
        active = send(api.list_runs(ACTIVE_STATUSES, tags={GROUP_TAG: group}, page=1).as_answered())
        if all(row.run_id == taken for row in active):
            return
        from airflow_skyvern.runs.orphan_search import runs_of_group  # rarely needed, and slow to import

        for run in surplus(runs_of_group(send, group), taken)[:MOST_TWINS]:
            send(api.cancel_run(run.run_id))
            log.warning(
                "Skyvern run %s: canceled. It is a second run of the same start; this task takes the result of %s",
                run.run_id,
                taken,
            )
    except (TagsRefused, SkyvernAuthError, SkyvernRequestError):
        return  # nothing can be found by tag here, as was logged when the run was started
    except SkyvernError as error:
        log.warning("Skyvern run %s: could not check whether the same start has a second run. %s", taken, error)


def surplus(group: Collection[StartedRun], taken_id: str) -> list[StartedRun]:
    """
    Return the active runs that are certainly second runs of a start of ours.

    A person who starts a run again, and Skyvern itself when it replaces one, can only do so when it is over. So a run
    that was created while none of its group was over is neither; nor is one created in the same minute as the run
    whose result is used.
    """
    taken = next((run for run in group if run.run_id == taken_id), None)
    if taken is None:
        return []
    return [
        run
        for run in group
        if not (run.is_final or run.by_person) and run.run_id != taken_id and _is_of_a_start(run, taken, group)
    ]


def _is_of_a_start(run: StartedRun, taken: StartedRun, group: Collection[StartedRun]) -> bool:
    over = [other for other in group if other.was_over_when(run)]
    before_both = all(other.was_over_when(taken) for other in over)
    return not over or (before_both and abs(run.created - taken.created) <= SAME_START)
