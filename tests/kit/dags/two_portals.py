"""Two portals one after the other: the second run needs what the first has found."""

import datetime

from airflow.sdk import DAG, task

from airflow_skyvern.operators import SkyvernRunWorkflowOperator

with DAG(
    dag_id="two_portals",
    start_date=datetime.datetime(2026, 1, 1),
    schedule="@daily",
    catchup=False,
    default_args={"retries": 2, "retry_delay": datetime.timedelta(minutes=15), "deferrable": True},
):
    look_up = SkyvernRunWorkflowOperator(
        task_id="look_up",
        workflow_id="wpid_lookup",
        parameters={"customer": "{{ dag_run.conf['customer'] }}"},
        output_from="find",
    )
    order = SkyvernRunWorkflowOperator(
        task_id="order",
        workflow_id="wpid_order",
        parameters={"number": "{{ ti.xcom_pull(task_ids='look_up')['number'] }}"},
    )

    @task
    def confirm(output):
        return output["place_output"]["confirmation"]

    look_up >> order
    confirm(order.output)
