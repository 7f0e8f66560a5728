"""
Operators that run Skyvern workflows and prompts from a DAG, and bring home what the runs made.

Each is imported when it is first used: a DAG file pays only for the operators that it names.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {
    "DEFAULT_TIMEOUT": "run_workflow",
    "SkyvernCloseBrowserSessionOperator": "browser_session",
    "SkyvernCreateBrowserProfileOperator": "browser_profile",
    "SkyvernDownloadFilesOperator": "download_files",
    "SkyvernOpenBrowserSessionOperator": "browser_session",
    "SkyvernRunPromptOperator": "run_prompt",
    "SkyvernRunWorkflowOperator": "run_workflow",
    "SkyvernSendTotpCodeOperator": "send_totp_code",
    "SkyvernSyncCredentialsOperator": "sync_credentials",
    "skyvern_browser_session": "browser_session",
}

if not TYPE_CHECKING:  # a type checker would take any name to be here

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)

    def __dir__() -> list[str]:
        return [*globals(), *__all__]
