"""Operators that run Skyvern workflows and prompts from a DAG, and bring home what the runs made."""

from __future__ import annotations

from airflow_skyvern.operators.browser_profile import SkyvernCreateBrowserProfileOperator
from airflow_skyvern.operators.browser_session import (
    SkyvernCloseBrowserSessionOperator,
    SkyvernOpenBrowserSessionOperator,
    skyvern_browser_session,
)
from airflow_skyvern.operators.download_files import SkyvernDownloadFilesOperator
from airflow_skyvern.operators.run_prompt import SkyvernRunPromptOperator
from airflow_skyvern.operators.run_workflow import DEFAULT_TIMEOUT, SkyvernRunWorkflowOperator
from airflow_skyvern.operators.send_totp_code import SkyvernSendTotpCodeOperator
from airflow_skyvern.operators.sync_credentials import SkyvernSyncCredentialsOperator

__all__ = [
    "DEFAULT_TIMEOUT",
    "SkyvernCloseBrowserSessionOperator",
    "SkyvernCreateBrowserProfileOperator",
    "SkyvernDownloadFilesOperator",
    "SkyvernOpenBrowserSessionOperator",
    "SkyvernRunPromptOperator",
    "SkyvernRunWorkflowOperator",
    "SkyvernSendTotpCodeOperator",
    "SkyvernSyncCredentialsOperator",
    "skyvern_browser_session",
]
