"""Somebody who likes code better than operators: the hook, in tasks of their own, and a sensor."""

import datetime

from airflow.sdk import DAG, task

from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.sensors import SkyvernRunSensor

with DAG("hook_in_a_task", start_date=datetime.datetime(2026, 1, 1), schedule=None):

    @task
    def newest():
        run = SkyvernHook("skyvern_eu").run_workflow("wpid_report", {"year": 2026})
        return run.run_id

    wait = SkyvernRunSensor(
        task_id="wait", run_id=newest(), skyvern_conn_id="skyvern_eu", mode="reschedule", soft_fail=True, timeout=600
    )

    @task
    def use(output):
        return len(output["report_output"]["extracted_information"])

    use(wait.output)
