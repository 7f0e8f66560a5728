"""Logs in with a password that Airflow keeps in a connection, and keeps what the browser showed."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_skyvern.operators import SkyvernRunWorkflowOperator

with DAG("portal", schedule=None):
    SkyvernRunWorkflowOperator(
        task_id="run",
        workflow_id="{{ dag_run.conf['workflow_id'] }}",
        parameters={"username": "{{ conn.portal.login }}", "password": "{{ conn.portal.password }}"},
        files_to="{{ dag_run.conf['folder'] }}",
        recording=True,
        screenshots=True,
        deferrable=True,
        poll_interval=3,
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
