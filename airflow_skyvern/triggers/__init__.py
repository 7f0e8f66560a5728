"""
The triggers of this provider. Airflow stores these class paths, so they do not change.

:class:`SkyvernWorkflowRunsTrigger` needs Airflow 3, so it is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_skyvern.compat import since_3_0
from airflow_skyvern.triggers.approval import SkyvernApprovalTrigger
from airflow_skyvern.triggers.login_code import SkyvernCodeTrigger, SkyvernLoginTrigger
from airflow_skyvern.triggers.run import SkyvernRunTrigger, SkyvernSensorTrigger
from airflow_skyvern.triggers.session_turn import SkyvernSessionTurnTrigger

if TYPE_CHECKING:
    from airflow_skyvern.triggers.workflow_runs import SkyvernWorkflowRunsTrigger

__all__ = [
    "SkyvernApprovalTrigger",
    "SkyvernCodeTrigger",
    "SkyvernLoginTrigger",
    "SkyvernRunTrigger",
    "SkyvernSensorTrigger",
    "SkyvernSessionTurnTrigger",
    "SkyvernWorkflowRunsTrigger",
]

if not TYPE_CHECKING:  # a type checker would take any name to be here

    def __getattr__(name: str) -> Any:
        if name == "SkyvernWorkflowRunsTrigger":
            if not since_3_0.is_airflow_3():
                raise ImportError(f"{name} needs Airflow 3, which brought watchers of assets.")
            from airflow_skyvern.triggers.workflow_runs import SkyvernWorkflowRunsTrigger

            return SkyvernWorkflowRunsTrigger
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
