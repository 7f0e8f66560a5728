"""A classic: operators, trigger rules and a branch that only runs when the portal was down."""

import datetime

from airflow.sdk import DAG, task

from airflow_skyvern.operators import SkyvernRunWorkflowOperator

with DAG("branch_on_failure", start_date=datetime.datetime(2026, 1, 1), schedule=None):
    scrape = SkyvernRunWorkflowOperator(
        task_id="scrape", workflow_id="wpid_scrape", timeout=900, poll_interval=30, skip_on={"terminated"}
    )

    @task
    def publish():
        return "published"

    @task(trigger_rule="one_failed")
    def tell_somebody():
        return "told"

    scrape >> [publish(), tell_somebody()]
