"""Links from Airflow's UI to Skyvern's."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from airflow_skyvern.compat import internals
from airflow_skyvern.compat.sdk import BaseOperatorLink, XCom
from airflow_skyvern.task import xcom

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey

    from airflow_skyvern.compat.sdk import BaseOperator

log = logging.getLogger(__name__)


class SkyvernRunLink(BaseOperatorLink):
    """
    Open the run in Skyvern: its live browser, its steps, its recording.

    The address is the XCom ``app_url``, pushed as soon as the run has started, so that the link works while
    the task waits and after it failed.
    """

    name = "Skyvern run"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """
        Return the address of the run, or nothing before there is one.

        Airflow asks at the end of a try, too. After a failed start the XCom does not exist, and asking for it
        would log a second error after the one that says why.
        """
        if getattr(operator, "run_published", None) is False:
            return ""
        return XCom.get_value(key=xcom.APP_URL, ti_key=ti_key) or ""


class SkyvernCallLink(BaseOperatorLink):
    """
    Open in Skyvern the newest run that a task's agent has started by calling a tool.

    The operator of such a task is not ours, so Airflow asks this of every task that has no such link of its own, in
    its API server: it leads nowhere from those that have made no call.
    """

    name = "Skyvern run"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:
        """Return the address of the run; nothing where there is none, or Airflow's database does not say."""
        from airflow_skyvern.task.pushed import XCOMS_OF_RUN, KnownRun, TaskInstanceKey, pushed_xcoms

        place = TaskInstanceKey(ti_key.dag_id, ti_key.run_id, ti_key.task_id, ti_key.map_index)
        try:
            with internals.database_session() as session:
                found = pushed_xcoms(
                    session,
                    XCOMS_OF_RUN,
                    lambda table: [getattr(table, name) == value for name, value in place._asdict().items()],
                )
        except Exception as error:  # noqa: BLE001  no page of a task fails for a button
            log.info("No link to a Skyvern run: %s", type(error).__name__)
            return ""
        known = KnownRun(found.get(place, {}))
        return (known.app_url or "") if known.calls else ""
