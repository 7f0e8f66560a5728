"""
The job that everybody has: each month, the statement of the month before from each vendor. Complete.

Files go into a folder per month and rows into a table; some runs at a time; retries; an alert with links. The page
"A complete example" says what each part does, and how to backfill it.
"""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.hooks.base import BaseHook  # airflow.sdk has it from 3.1 on
from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import DAG, Param, task
from pydantic import BaseModel  # noqa: TID253  a DAG with a model needs it

from airflow_skyvern.macros import local_time
from airflow_skyvern.operators import SkyvernRunWorkflowOperator

TABLE = """CREATE TABLE IF NOT EXISTS statements (month text, vendor text, number integer, item text,
    price double precision, PRIMARY KEY (month, vendor, number))"""
COLUMNS = ["month", "vendor", "number", "item", "price"]
ALERT = """{% set run = macros.skyvern.skyvern_run() %}
    <p>{{ ti.task_id }} of {{ dag_run.run_id }}: {{ run | e }}</p>
    <p><a href="{{ run.page_url }}">In Airflow</a> <a href="{{ run.app_url }}">In Skyvern</a></p>"""


class Row(BaseModel):
    """A row that does not look like this fails the task of its vendor."""

    item: str
    price: float


with DAG(
    "skyvern_monthly_statements",
    schedule="0 6 1 * *",
    start_date=pendulum.datetime(2026, 1, 1, tz="Europe/Berlin"),
    catchup=False,
    is_paused_upon_creation=True,
    default_args={
        "retries": 2,
        "on_failure_callback": SmtpNotifier(
            to="ops@example.com",
            from_email="airflow@example.com",
            subject="{{ dag.dag_id }} failed",
            html_content=ALERT,
        ),
    },
    params={
        "workflow_id": Param("wpid_123", type="string"),
        "vendors": Param(["ACME", "Globex", "Initech"], type="array"),
        "folder": Param("/tmp/statements", type="string"),  # noqa: S108  an example; could be s3://bucket/statements
    },
    tags=["skyvern", "example"],
    doc_md=__doc__,
):

    @task
    def wanted(params: dict[str, Any], **context: Any) -> list[dict[str, Any]]:
        """Return what is different for each run: its parameters, and the name of its file."""
        month = local_time(context).subtract(months=1).format("YYYY-MM")
        return [
            {"parameters": {"vendor": name, "month": month}, "file_name": f"{name}{{extension}}"}
            for name in params["vendors"]
        ]

    statements = wanted()
    fetch = SkyvernRunWorkflowOperator.partial(
        task_id="fetch",
        workflow_id="{{ params.workflow_id }}",
        pool="skyvern",
        files_to='{{ params.folder }}/{{ macros.skyvern.local_time().subtract(months=1).format("YYYY-MM") }}',
        expect_files=1,
        overwrite=True,  # a run that is repeated replaces the file of its vendor and month
        output_from="rows",
        output_schema=list[Row],
        return_run=True,
        deferrable=True,
    ).expand_kwargs(statements)

    @task(trigger_rule="all_done")
    def load(runs: list[dict[str, Any]], statements: list[dict[str, Any]]) -> int:
        """Load the rows of all runs that completed, then fail if a vendor is missing."""
        hook = BaseHook.get_connection("warehouse").get_hook()
        hook.run(TABLE)
        loaded = 0
        for run in runs or []:
            vendor, month = run["parameters"]["vendor"], run["parameters"]["month"]
            hook.run("DELETE FROM statements WHERE month = %s AND vendor = %s", parameters=(month, vendor))
            rows = [(month, vendor, number, row["item"], row["price"]) for number, row in enumerate(run["output"])]
            hook.insert_rows("statements", rows, COLUMNS)
            loaded += len(rows)
        there = {run["parameters"]["vendor"] for run in runs or []}
        if missing := [one["parameters"]["vendor"] for one in statements if one["parameters"]["vendor"] not in there]:
            raise ValueError(f"No statement of {', '.join(missing)}: clear their tasks 'fetch', and this one.")
        return loaded

    load(fetch.output, statements)
