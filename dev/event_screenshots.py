"""
Take the pictures of docs/events.md from the real UI; `dev.screenshots` says what this needs.

    make pictures

The two example DAGs of events run as they are, with the id of a real workflow instead of the made-up one.
"""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dev.airflow_server import AirflowServer
from dev.process import RigError, wait_until
from dev.screenshots import AIRFLOW, REPO, browser_page, save
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer

if TYPE_CHECKING:
    from collections.abc import Iterator

WATCHED, HOOKED = "skyvern_watch_finished_runs", "skyvern_one_dag_run_per_webhook"
RECEIVER = "/skyvern/webhooks/skyvern_default"


@contextmanager
def servers(home: Path) -> Iterator[tuple[AirflowServer, SkyvernServer, str]]:
    with SkyvernServer(home / "skyvern", SKYVERN_VENV) as skyvern:
        workflow_id = skyvern.workflow("ok_http")
        dags = home / "dags"
        dags.mkdir()
        for name in ("watch_finished_runs.py", "one_dag_run_per_webhook.py"):
            text = (REPO / "dags" / name).read_text().replace("wpid_123", workflow_id)
            (dags / name).write_text(text.replace("watch=True", "watch=True, poll_interval=3"))
        env = {
            "AIRFLOW_CONN_SKYVERN_DEFAULT": json.dumps(skyvern.connection),
            "AIRFLOW__SKYVERN__WEBHOOK_CONNECTIONS": "skyvern_default",
        }
        with AirflowServer(home / "airflow", dags, env, python_bin=AIRFLOW) as airflow:
            yield airflow, skyvern, workflow_id


def started(airflow: AirflowServer, dag_id: str) -> str:
    """Wait until the DAG has been started and its run has ended."""
    found: list[str] = []

    def there() -> bool:
        answer = airflow.request("GET", f"/dags/{dag_id}/dagRuns", params={"order_by": "-id"}).json()
        found[:] = [run["dag_run_id"] for run in answer.get("dag_runs", [])]
        return bool(found)

    wait_until(f"a run of {dag_id}", there, 120)
    if (state := airflow.wait_run(dag_id, found[0], timeout=180)) != "success":
        raise RigError(f"the run of {dag_id} is {state}")
    return found[0]


def take_all(page: Any, airflow: AirflowServer, skyvern: SkyvernServer, workflow_id: str) -> None:
    for dag_id in (WATCHED, HOOKED):
        airflow.wait_dag(dag_id)
    log = airflow.home / "triggerer.log"
    wait_until("the watcher", lambda: "watching for finished runs" in log.read_text(), 120)
    body = {"workflow_id": workflow_id, "webhook_url": f"{airflow.ui_url}{RECEIVER}"}
    skyvern.request("POST", "/v1/run/workflows", body)
    watched, hooked = started(airflow, WATCHED), started(airflow, HOOKED)
    assets = airflow.request("GET", "/assets").json()["assets"]
    watched_asset = next(asset for asset in assets if "?" not in asset["uri"])
    page.goto(f"{airflow.ui_url}/assets/{watched_asset['id']}")
    page.get_by_text(WATCHED).first.wait_for()
    page.wait_for_timeout(4000)  # the graph is laid out
    save(page, "events-asset-graph")
    page.goto(f"{airflow.ui_url}/dags/{WATCHED}/runs/{watched}/asset_events")
    page.get_by_text("skyvern").first.wait_for()
    page.wait_for_timeout(3000)
    save(page, "events-watched-run")
    page.goto(f"{airflow.ui_url}/dags/{HOOKED}/runs/{hooked}/details")
    page.get_by_text("wr_").first.wait_for()
    page.wait_for_timeout(3000)
    save(page, "events-dag-run")


def main() -> int:
    with (
        browser_page() as page,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        servers(Path(folder)) as (airflow, skyvern, workflow_id),
    ):
        take_all(page, airflow, skyvern, workflow_id)
    return 0


if __name__ == "__main__":
    sys.exit(main())
