"""One browser for several runs: log in once, read two pages, and keep the login as a profile for other DAGs."""

from __future__ import annotations

from datetime import timedelta

from airflow.sdk import DAG, Param

from airflow_skyvern.operators import (
    SkyvernCreateBrowserProfileOperator,
    SkyvernRunPromptOperator,
    SkyvernRunWorkflowOperator,
    skyvern_browser_session,
)

with (
    DAG(
        "skyvern_several_runs_in_one_session",
        schedule=None,
        params={"workflow_id": Param("wpid_123", type="string"), "profile": Param("portal", type="string")},
        tags=["skyvern", "example"],
        doc_md=__doc__,
    ),
    skyvern_browser_session(timeout=timedelta(minutes=20)) as session,
):
    log_in = SkyvernRunWorkflowOperator(
        task_id="log_in", workflow_id="{{ params.workflow_id }}", browser_session_id=session, deferrable=True
    )
    pages = SkyvernRunPromptOperator.partial(
        task_id="read", prompt="Return the number of entries.", browser_session_id=session, deferrable=True
    ).expand(url=["https://portal.example.com/invoices", "https://portal.example.com/orders"])

    keep_login = SkyvernCreateBrowserProfileOperator(
        task_id="keep_login", name="{{ params.profile }}", browser_session_id=session
    )
    log_in >> pages >> keep_login
