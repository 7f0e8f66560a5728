"""
A hundred concurrent deferred runs, through a real Airflow, on a real Skyvern server; every request is counted.

``make bench RIG=scale`` (``RUNS=100 RUN_SECONDS=240``: how many, and how long each of them takes) prints what it has
cost, and fails if a task did not end as its run did, had more than one, or if waiting took too many requests.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dev.airflow_server import AirflowServer
from dev.fault_proxy import FaultProxy
from dev.skyvern_server import SkyvernServer

if TYPE_CHECKING:
    from dev.fault_proxy import Exchange

ROOT = Path(__file__).parents[1]
DAGS = ROOT / "benchmarks" / "dags"
SKYVERN_VENV = Path(os.environ.get("SKYVERN_VENV", ROOT / ".venvs" / "skyvern"))
RUNS = int(os.environ.get("RUNS", "100"))
RUN_SECONDS = int(os.environ.get("RUN_SECONDS", "240"))
EVERY_NTH_FAILS = 5
KEY = "made-up-key-of-the-scale-test"
KINDS = {
    "start": re.compile(r"POST /v1/run/workflows"),
    "list": re.compile(r"GET /v1/runs\?.*status="),
    "look": re.compile(r"GET /v1/runs/[^/?]+"),
}


def definition(*, fails: bool) -> dict[str, Any]:
    """Return a workflow that waits, and then ends well or is terminated."""
    blocks: list[dict[str, Any]] = [{"block_type": "wait", "label": "pause", "wait_sec": RUN_SECONDS}]
    if fails:
        blocks.append({"block_type": "terminate", "label": "stop", "reason": "as planned", "error_code": "PLANNED"})
    return {"workflow_definition": {"parameters": [], "blocks": blocks}}


class Tally:
    """The requests so far, by kind; those of a wait come from the triggerer."""

    def __init__(self) -> None:
        self.requests: Counter[str] = Counter()
        self.seconds = 0.0

    async def __call__(self, exchange: Exchange) -> None:
        """Count a request."""
        request = f"{exchange.method} {exchange.target}"
        self.requests[next((kind for kind, form in KINDS.items() if form.match(request)), "other")] += 1


def main() -> int:
    """Run the tasks and return the exit status."""
    home = Path(tempfile.mkdtemp(prefix="scale-"))
    tally = Tally()
    with ExitStack() as stack:
        skyvern = stack.enter_context(SkyvernServer(home / "skyvern", SKYVERN_VENV))
        proxy = stack.enter_context(FaultProxy(skyvern.base_url, skyvern.api_key, tally))
        proxy.keys.add(KEY)
        connection = {"conn_type": "skyvern", "host": proxy.url, "password": KEY}
        env = {
            "AIRFLOW_CONN_SKYVERN_DEFAULT": json.dumps(connection),
            "AIRFLOW__CORE__PARALLELISM": "6",
            "AIRFLOW__TRIGGERER__CAPACITY": str(2 * RUNS),
            "AIRFLOW__TRIGGERER__DEFAULT_CAPACITY": str(2 * RUNS),
        }
        airflow = stack.enter_context(AirflowServer(home / "airflow", [DAGS / "scale_dags.py"], env))
        good, bad = (skyvern.create_workflow(f"scale {fails}", definition(fails=fails)) for fails in (False, True))
        chosen = [bad if number % EVERY_NTH_FAILS == 0 else good for number in range(RUNS)]
        began = time.monotonic()
        run_id = airflow.trigger("scale", {"workflows": chosen})
        most, states = watched(airflow, run_id)
        tally.seconds = time.monotonic() - began
        return verdict(skyvern, chosen, states, most, tally)


def watched(airflow: AirflowServer, run_id: str) -> tuple[int, dict[int, str | None]]:
    """Wait for the end, and return how many were deferred at once and how each has ended."""
    most, until = 0, time.monotonic() + 10 * RUN_SECONDS + 600
    while True:
        states: dict[int, str | None] = {}
        for offset in range(0, RUNS + 1, 100):
            path = f"/dags/scale/dagRuns/{run_id}/taskInstances"
            found = airflow.request("GET", path, params={"limit": 100, "offset": offset}).json()
            states |= {row["map_index"]: row["state"] for row in found["task_instances"] if row["task_id"] == "run"}
        count = Counter(states.values())
        most = max(most, count["deferred"])
        if count["success"] + count["failed"] == RUNS:
            return most, states
        if time.monotonic() > until:
            return most, states
        time.sleep(2)


def verdict(skyvern: SkyvernServer, chosen: list[str], states: dict[int, str | None], most: int, tally: Tally) -> int:
    """Print what happened and what is wrong with it; return the exit status."""
    rows = [
        row
        for page in range(1, 2 + RUNS // 100)
        for row in skyvern.request("GET", f"/v1/runs?page_size=100&page={page}")[1]
    ]
    per_workflow = Counter(row["workflow_permanent_id"] for row in rows)
    ends = Counter(row["status"] for row in rows)
    requests, took = tally.requests, tally.seconds
    asked = RUN_SECONDS / 5 * RUNS
    print(f"{RUNS} tasks, each with a run of {RUN_SECONDS} s, interval 5 s: {took:.0f} s, {most} deferred at once")
    print(f"tasks: {dict(Counter(states.values()))}; runs: {dict(ends)}")
    print(f"requests: {dict(requests)}; a trigger that asks for its own run sends {asked:.0f} in all")
    wrong = [
        number
        for number, workflow in enumerate(chosen)
        if states.get(number) != ("failed" if number % EVERY_NTH_FAILS == 0 else "success")
    ]
    complaints = [
        f"{len(wrong)} tasks did not end as their run did: {wrong[:5]}" if wrong else "",
        "not one run per task" if per_workflow != Counter(chosen) else "",
        f"only {most} were deferred at once: raise RUN_SECONDS" if most < RUNS else "",
        "waiting took too many requests" if requests["list"] + requests["look"] > 4 * RUNS + took / 5 * 3 else "",
    ]
    for complaint in filter(None, complaints):
        print("FAILED:", complaint)
    return int(any(complaints))


if __name__ == "__main__":
    sys.exit(main())
