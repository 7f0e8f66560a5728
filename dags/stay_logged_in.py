"""Read daily with the login of log_in_monthly.py, and log in again when a run says that it was logged out."""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import DAG, task

from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.operators import (
    SkyvernCreateBrowserProfileOperator,
    SkyvernRunPromptOperator,
    SkyvernRunWorkflowOperator,
    skyvern_browser_session,
)

READ: dict[str, Any] = {
    "prompt": "Return the number of open invoices.",
    "url": "https://portal.example.com/invoices",
    "browser_profile_id": "portal",
    "error_code_mapping": {"LOGGED_OUT": "the page asks to sign in"},
    "deferrable": True,
    "retries": 0,
}

START = pendulum.datetime(2026, 1, 1, tz="Europe/Berlin")

with DAG(
    "skyvern_stay_logged_in", schedule="@daily", start_date=START, catchup=False, max_active_runs=1, doc_md=__doc__
):
    read = SkyvernRunPromptOperator(task_id="read", **READ)

    @task(trigger_rule="all_failed")
    def was_logged_out(ti: Any) -> None:
        """Let the login follow; where it would not help, fail the DAG run."""
        run_id = ti.xcom_pull(task_ids="read", key="run_id")  # it was pushed before the run ended
        if run_id is None:  # nothing was started, as there is no profile yet
            return
        run = SkyvernHook().get_run(run_id)
        if "LOGGED_OUT" not in run.error_codes:
            raise RuntimeError(f"Logging in does not help: {run.failure_reason}")

    with skyvern_browser_session() as session:
        log_in = SkyvernRunWorkflowOperator(
            task_id="log_in", workflow_id="wpid_123", browser_session_id=session, deferrable=True
        )
        save = SkyvernCreateBrowserProfileOperator(task_id="save", name="portal", browser_session_id=session)
        log_in >> save

    read >> was_logged_out() >> session
    save >> SkyvernRunPromptOperator(task_id="read_again", **READ)
