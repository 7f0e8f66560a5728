"""What persons and webhooks do through one of several API servers."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import TYPE_CHECKING, Any

import httpx

from dev.process import wait_until
from tests.faults.catalogue import FINAL

if TYPE_CHECKING:
    from tests.distributed.cluster import Cluster

SLOW = 240.0
RECEIVER = "/skyvern/webhooks/skyvern_default"
HOOKED = "hooked"


class User:
    """Somebody whose requests all reach the same API server."""

    def __init__(self, driver: Cluster, api_server: str) -> None:
        self.driver, self.airflow = driver, driver.cluster.through(api_server)
        self.name = api_server.replace("-", "_")

    def start(self, dag_id: str, workflow: str) -> str:
        """Trigger a DAG, and return the DAG run when its task is deferred."""
        conf = {"workflow_id": self.driver.skyvern.workflow(workflow)}
        dag_run = self.airflow.trigger(dag_id, conf, run_id=f"{dag_id}_{self.name}", timeout=SLOW)
        self.airflow.wait_task(dag_id, dag_run, "run", "deferred", timeout=SLOW)
        return dag_run

    def run_of(self, dag_id: str, dag_run: str) -> str:
        return str(self.airflow.xcom(dag_id, dag_run, "run", "run_id"))

    def status(self, run_id: str) -> str:
        return str(self.driver.skyvern.request("GET", f"/v1/runs/{run_id}")[1]["status"])

    def wait_status(self, run_id: str, status: str, timeout: float = SLOW) -> None:
        wait_until(f"{run_id} {status}", lambda: self.status(run_id) == status, timeout)

    def approve(self, dag_id: str, dag_run: str) -> None:
        """Answer in Airflow, once it asks."""
        path = f"/dags/{dag_id}/dagRuns/{dag_run}/taskInstances/run/-1/hitlDetails"
        wait_until("a question", lambda: self._asks(path), SLOW, interval=1)
        options = self.airflow.request("GET", path).json()["options"]
        answered = self.airflow.request("PATCH", path, {"chosen_options": options[:1], "params_input": {}})
        assert answered.status_code == httpx.codes.OK, answered.text

    def _asks(self, path: str) -> bool:
        answer = self.airflow.request("GET", path)
        return answer.is_success and answer.json()["response_received"] is False

    def deliver(self, run: dict[str, Any]) -> str:
        """Deliver the webhook of a run, as Skyvern does, and return what the receiver says."""
        raw = json.dumps(run).encode()
        signature = hmac.new(next(iter(self.driver.proxy.keys)).encode(), raw, hashlib.sha256).hexdigest()
        headers = {"x-skyvern-signature": signature, "content-type": "application/json"}
        answer = self.airflow.client.post(RECEIVER, content=raw, headers=headers)
        assert answer.is_success, answer.text
        return str(answer.json()["result"])


def finished_run(driver: Cluster) -> dict[str, Any]:
    """Start a run of the workflow that a DAG listens to, past Airflow, and return it when it is over."""
    body = {"workflow_id": driver.skyvern.workflow("ok_http")}
    _, started = driver.skyvern.request("POST", "/v1/run/workflows", body)
    found: dict[str, Any] = {}

    def over() -> bool:
        found.update(driver.skyvern.request("GET", f"/v1/runs/{started['run_id']}")[1])
        return found["status"] in FINAL and bool(found.get("finished_at"))

    wait_until("a finished run", over, 60)
    return {**found, "workflow_id": body["workflow_id"]}
