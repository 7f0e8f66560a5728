"""Links from Airflow's UI to Skyvern's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_skyvern.compat.sdk import BaseOperatorLink, XCom
from airflow_skyvern.task import xcom

if TYPE_CHECKING:
    from airflow.sdk.types import TaskInstanceKey

    from airflow_skyvern.compat.sdk import BaseOperator


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
        would log a second error beside the one that says why.
        """
        if getattr(operator, "run_published", None) is False:
            return ""
        return XCom.get_value(key=xcom.APP_URL, ti_key=ti_key) or ""
