"""Operators that run Skyvern workflows and prompts from a DAG, and bring home what the runs made."""

from __future__ import annotations

from airflow_skyvern.operators.download_files import SkyvernDownloadFilesOperator
from airflow_skyvern.operators.run_prompt import SkyvernRunPromptOperator
from airflow_skyvern.operators.run_workflow import DEFAULT_TIMEOUT, SkyvernRunWorkflowOperator

__all__ = [
    "DEFAULT_TIMEOUT",
    "SkyvernDownloadFilesOperator",
    "SkyvernRunPromptOperator",
    "SkyvernRunWorkflowOperator",
]
