"""Logs in once, reads twice in the same browser, and keeps the login for another DAG."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from airflow_skyvern.operators import (
    SkyvernCreateBrowserProfileOperator,
    SkyvernRunWorkflowOperator,
    skyvern_browser_session,
)


def run(task_id: str, workflow: str, **browser: Any) -> SkyvernRunWorkflowOperator:
    return SkyvernRunWorkflowOperator(
        task_id=task_id,
        workflow_id=f"{{{{ dag_run.conf['{workflow}'] }}}}",
        output_from="read_invoices" if workflow == "private" else None,
        deferrable=True,
        poll_interval=3,
        **browser,
    )


with DAG("log_in_once", schedule=None), skyvern_browser_session(timeout=timedelta(minutes=15)) as session:
    log_in = run("log_in", "login", browser_session_id=session)
    first = run("first", "private", browser_session_id=session)
    second = run("second", "private", browser_session_id=session)
    keep = SkyvernCreateBrowserProfileOperator(task_id="keep", name="portal", browser_session_id=session)
    log_in >> first >> second >> keep

with DAG("logged_in", schedule=None):
    run("read", "private", browser_profile_id="portal")
