"""A task that asks for a code in Airflow, whose worker is killed around its request."""

from __future__ import annotations

import os
import signal
from datetime import timedelta
from typing import Any

from airflow_skyvern.compat import since_3_1
from airflow_skyvern.compat.sdk import DAG, Param, get_current_context
from airflow_skyvern.operators import SkyvernRunWorkflowOperator

PARAMS: dict[str, Any] = {"workflow_id": Param("", type="string"), "killed": Param("", type="string")}


def die_if(when: str) -> None:
    """SIGKILL of this process and its supervisor, at this place of the first try."""
    context = get_current_context()
    if context["params"]["killed"] == when and context["ti"].try_number == 1:
        os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)


def ask_unless_killed(*args: Any, **request: Any) -> None:
    """Ask in Required Actions."""
    die_if("before")
    ASK(*args, **request)
    die_if("after")


if not hasattr(since_3_1, "unkilled"):  # this file is loaded under several names
    since_3_1.unkilled = since_3_1.ask_person
    since_3_1.ask_person = ask_unless_killed
ASK: Any = since_3_1.unkilled

with DAG("asks_for_code", schedule=None, params=PARAMS, max_active_runs=20):
    SkyvernRunWorkflowOperator(
        task_id="run",
        workflow_id="{{ params.workflow_id }}",
        deferrable=True,
        poll_interval=3,
        timeout=timedelta(minutes=20),
        code="airflow",
        retries=2,
        retry_delay=timedelta(seconds=1),
    )
