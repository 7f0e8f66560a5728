"""Logs in with a password that Airflow keeps in a connection, and keeps what the browser showed."""

from __future__ import annotations

from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import DAG

from airflow_skyvern.notifications import skyvern_run
from airflow_skyvern.operators import SkyvernRunWorkflowOperator

mail = SmtpNotifier(
    smtp_conn_id="mail",
    from_email="airflow@example.com",
    to="ops@example.com",
    subject="{{ macros.skyvern.skyvern_run() }}",
    html_content="{{ skyvern_run(context).failure_reason }}",
)

with DAG("portal", schedule=None, user_defined_macros={"skyvern_run": skyvern_run}):
    SkyvernRunWorkflowOperator(
        task_id="run",
        workflow_id="{{ dag_run.conf['workflow_id'] }}",
        parameters={"username": "{{ conn.portal.login }}", "password": "{{ conn.portal.password }}"},
        files_to="{{ dag_run.conf['folder'] }}",
        recording=True,
        screenshots=True,
        deferrable=True,
        poll_interval=3,
        on_failure_callback=mail,
    )

with DAG("one_file", schedule=None):
    SkyvernRunWorkflowOperator(
        task_id="run",
        workflow_id="{{ dag_run.conf['workflow_id'] }}",
        files_to="{{ dag_run.conf['folder'] }}",
        screenshots=True,
        deferrable=True,
        poll_interval=3,
    )
