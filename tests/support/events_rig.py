"""A real Skyvern and a real Airflow 3 with the DAGs of tests/events, and what tests ask of them."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from dev.airflow_server import AirflowServer
from dev.postgres import PostgresServer
from dev.process import wait_until
from dev.skyvern_server import SkyvernServer, workflows

DAGS = Path(__file__).parents[1] / "events" / "dags" / "events_dags.py"
RECEIVERS = "/skyvern/webhooks/"
RECEIVER = f"{RECEIVERS}skyvern_default"


@dataclass
class EventsRig:
    airflow: AirflowServer
    skyvern: SkyvernServer
    workflows: dict[str, str]
    conn_id: str = "skyvern_default"

    @property
    def receiver(self) -> str:
        return f"{self.airflow.ui_url}{RECEIVERS}{self.conn_id}"

    def start_run(self, name: str, *, webhook: bool = False, **more: Any) -> str:
        """Start a run past Airflow, as somebody else would."""
        body = {"workflow_id": self.workflows[name], **more}
        if webhook:
            body["webhook_url"] = self.receiver
        status, run = self.skyvern.request("POST", "/v1/run/workflows", body)
        assert status == 200, run
        return str(run["run_id"])

    def finish(self, run_id: str, timeout: float = 60) -> dict[str, Any]:
        """Wait until a run is over and return it."""
        found: dict[str, Any] = {}

        def over() -> bool:
            found.update(self.skyvern.request("GET", f"/v1/runs/{run_id}")[1])
            return bool(found.get("finished_at")) and not found["retry_pending"]

        wait_until(f"{run_id} over", over, timeout)
        return found

    def events_of(self, dag_id: str) -> dict[str, list[str]]:
        """Return the Skyvern runs that each DAG run was started for, from its asset events."""
        path = f"/dags/{dag_id}/dagRuns"
        found: dict[str, list[str]] = {}
        while True:
            page = self._get(path, params={"limit": 100, "offset": len(found), "order_by": "id"})["dag_runs"]
            with ThreadPoolExecutor(2) as pool:
                found.update(zip([run["dag_run_id"] for run in page], pool.map(self._runs_of, page), strict=True))
            if len(page) < 100:
                return found

    def _runs_of(self, dag_run: dict[str, Any]) -> list[str]:
        path = f"/dags/{dag_run['dag_id']}/dagRuns/{dag_run['dag_run_id']}/upstreamAssetEvents"
        events = self._get(path)["asset_events"]
        return list(dict.fromkeys(run["run_id"] for event in events for run in event["extra"]["payload"]["runs"]))

    def _get(self, path: str, **more: Any) -> Any:
        """Ask Airflow; it cannot list the events of a DAG run that is queued yet, and answers 500."""
        until = time.monotonic() + 120
        while (answer := self.airflow.request("GET", path, **more)).status_code == 500 and time.monotonic() < until:
            time.sleep(1)
        return answer.raise_for_status().json()

    def handed_over(self, dag_id: str) -> list[str]:
        """Return the Skyvern runs that DAG runs were started for, as often as they were."""
        return sorted(run_id for runs in self.events_of(dag_id).values() for run_id in runs)

    def wait_handed_over(self, dag_id: str, wanted: list[str], timeout: float = 60) -> None:
        """Wait until DAG runs were started for all of these, and for each once."""
        seen: list[str] = []

        def there() -> bool:
            seen[:] = [run_id for run_id in self.handed_over(dag_id) if run_id in wanted]
            return set(seen) >= set(wanted)

        wait_until(f"{dag_id}: started for {len(wanted)} runs", there, timeout, interval=0.5)
        assert seen == sorted(wanted)

    def stays(self, probe: Callable[[], Any], seconds: float) -> None:
        """See that an answer does not change."""
        first, until = probe(), time.monotonic() + seconds
        while time.monotonic() < until:
            assert probe() == first
            time.sleep(0.5)

    def deliver(self, body: bytes | dict[str, Any], **more: Any) -> httpx.Response:
        """Deliver a webhook as Skyvern does; ``key`` and ``path`` may be others."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        signature = sign(raw, more.get("key", self.skyvern.api_key))
        headers = {"x-skyvern-signature": signature, "content-type": "application/json", **more.get("headers", {})}
        url = f"{self.airflow.ui_url}{more['path']}" if "path" in more else self.receiver
        return httpx.post(url, content=raw, headers=headers, timeout=60, trust_env=False)


def sign(raw: bytes, key: str) -> str:
    return hmac.new(key.encode(), raw, hashlib.sha256).hexdigest()


def make_workflows(skyvern: SkyvernServer) -> dict[str, str]:
    """Make the workflows that the DAGs listen to, and return their ids."""
    definition = workflows(skyvern.peer_url)
    kinds = {"watched": "ok_wait", "hooked": "ok_http", "each": "ok_http", "both": "ok_http"}
    return {name: skyvern.create_workflow(f"events {name}", definition[kind]) for name, kind in kinds.items()}


def prepare(airflow: AirflowServer, made: dict[str, str]) -> None:
    """Configure the workflows of an Airflow that is not started yet, and switch its webhooks on."""
    settings = {
        "AIRFLOW__SKYVERN__WEBHOOK_CONNECTIONS": "skyvern_default",
        "EVENTS_RECEIVER": f"{airflow.ui_url}{RECEIVER}",
        **{f"EVENTS_{name.upper()}": workflow for name, workflow in made.items()},
    }
    for env in (airflow.env, *(process.env for process in airflow.processes.values())):
        env.update(settings)


@contextmanager
def events_rig(home: Path, skyvern_venv: Path, *, postgres: bool = False) -> Iterator[EventsRig]:
    with (
        SkyvernServer(home / "skyvern", skyvern_venv) as skyvern,
        PostgresServer() if postgres else nullcontext() as database,
    ):
        made = make_workflows(skyvern)
        env = {"AIRFLOW_CONN_SKYVERN_DEFAULT": json.dumps(skyvern.connection)}
        airflow = AirflowServer(home / "airflow", [DAGS], env, postgres=database)
        prepare(airflow, made)
        with airflow:
            for dag_id in ("watched", "watched_failures", "hooked", "both"):
                airflow.wait_dag(dag_id)
            yield EventsRig(airflow, skyvern, made)
