"""Log in where the portal sends a code to a person: who types it in Airflow, on the page of the run."""

from __future__ import annotations

import pendulum
from airflow.sdk import DAG, Param

from airflow_skyvern.operators import (
    SkyvernCreateBrowserProfileOperator,
    SkyvernRunWorkflowOperator,
    skyvern_browser_session,
)

with (
    DAG(
        "skyvern_ask_for_a_code",
        schedule="@monthly",
        start_date=pendulum.datetime(2026, 1, 1, tz="Europe/Berlin"),
        catchup=False,
        params={"workflow_id": Param("wpid_123", type="string"), "profile": Param("portal", type="string")},
        tags=["skyvern", "example"],
        doc_md=__doc__,
    ),
    skyvern_browser_session() as session,
):
    log_in = SkyvernRunWorkflowOperator(
        task_id="log_in",
        workflow_id="{{ params.workflow_id }}",
        browser_session_id=session,
        deferrable=True,
        code="airflow",
    )
    save = SkyvernCreateBrowserProfileOperator(
        task_id="save", name="{{ params.profile }}", browser_session_id=session
    )
    log_in >> save
