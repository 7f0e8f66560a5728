"""
A plugin of the Airflow of ``make bench RIG=latency``: notes how much CPU time each visit of a task took.

Unlike the seconds for which a worker is occupied, it hardly depends on what else the machine does.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from airflow.listeners import hookimpl
from airflow.plugins_manager import AirflowPlugin


class TaskEnds:
    """Airflow calls it in the process of a task, which was forked for this visit, at the very end."""

    @hookimpl
    def before_stopping(self, component: object) -> None:
        """Append a line: DAG, task, CPU seconds of this process."""
        task_id = os.environ.get("AIRFLOW_CTX_TASK_ID")
        if type(component).__name__ != "TaskRunnerMarker" or task_id is None:
            return
        with Path(os.environ["BENCH_CPU_SECONDS"]).open("a", encoding="utf-8") as file:
            file.write(f"{os.environ['AIRFLOW_CTX_DAG_ID']} {task_id} {time.process_time():.3f}\n")


class CpuSeconds(AirflowPlugin):
    """See the module."""

    name = "cpu_seconds"
    listeners = [TaskEnds()]  # noqa: RUF012  as Airflow has it
