"""
``make bench RIG=airflow``: many deferred runs at once, on a real Airflow and a real Skyvern.

Tells how long workers were held (both visits, and how much of that an empty task takes as well), which requests
Skyvern got, and whether each task has one run and ended with its output. RUNS= says how many (default 100, which is
the most). Written into docs/performance.md when there are 100.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.report import PAGE, Markers, machine, table
from dev.airflow_server import RUN_FINAL, AirflowServer
from dev.fault_proxy import FaultProxy
from dev.postgres import PostgresServer
from dev.process import RigError, wait_until
from dev.skyvern_server import SkyvernServer

if TYPE_CHECKING:
    from dev.fault_proxy import Exchange

REPO = Path(__file__).resolve().parent.parent
DAGS = REPO / "benchmarks" / "dags"
ALL = 100
KEY = "made-up-key-of-the-benchmark"
SECONDS_PER_RUN = 2.0
"""How much longer a run lasts for each of its fellows, so that all are there when the first one ends."""

_FINISHED = re.compile(r"Workload finished.*?duration=([\d.]+).*?final_state=(\w+).*?workload_id=(\S+)")
_COLORS = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Counted:
    """Counts the requests that pass the proxy, by what they are for."""

    requests: Counter[str] = field(default_factory=Counter)

    async def __call__(self, exchange: Exchange) -> None:
        """Take note, and let the request pass."""
        url = urlsplit(exchange.target)
        path = re.sub(r"wr_\w+", "{run_id}", url.path)
        filters = "".join(f"&{name}=…" for name in sorted(parse_qs(url.query)))
        self.requests[f"{exchange.method} {path}{filters.replace('&', '?', 1)}"] += 1


@dataclass(frozen=True)
class Found:
    """
    What was observed.

    :param seconds: How long each run lasts.
    :param most: How many tasks were deferred at the same time.
    :param empty: Seconds that each visit for an empty task took.
    :param held: Seconds that each visit for the runs took, and how it ended.
    """

    runs: int
    seconds: int
    most: int
    empty: list[float]
    held: list[tuple[float, str]]
    requests: Counter[str]


@dataclass
class DagRun:
    """A DAG run and one of its tasks, mapped over the numbers of its ``conf``."""

    airflow: AirflowServer
    dag_id: str
    task_id: str
    conf: dict[str, Any]
    most_deferred: int = 0
    _run_id: str = ""

    def run(self, timeout: float) -> None:
        """Run to the good end; RigError if it does not come."""
        self._run_id = self.airflow.trigger(self.dag_id, self.conf)
        began = time.monotonic()
        while (state := self.airflow.run_state(self.dag_id, self._run_id)) not in RUN_FINAL:
            states = Counter(row["state"] for row in self._rows())
            self.most_deferred = max(self.most_deferred, states["deferred"])
            if time.monotonic() - began > timeout:
                raise RigError(f"{self.dag_id}: {states} after {timeout:.0f} s")
            time.sleep(1)
        states = Counter(row["state"] for row in self._rows())
        if state != "success" or set(states) != {"success"}:
            raise RigError(f"{self.dag_id} ended as {state}: {states}")

    def visits(self, each: int) -> list[tuple[float, str]]:
        """
        Return how long each visit to a worker took, and how it ended, as Airflow's supervisor logs it.

        :param each: How many visits each task has; the last ones are logged a little late.
        """
        ids = {row["id"] for row in self._rows()}
        found: list[tuple[float, str]] = []

        def all_logged() -> bool:
            log = _COLORS.sub("", self.airflow.processes["scheduler"].log_path.read_text(errors="replace"))
            found[:] = [(float(seconds), state) for seconds, state, ti in _FINISHED.findall(log) if ti in ids]
            return len(found) == each * len(ids)

        wait_until(f"{each * len(ids)} visits of {self.task_id} in the scheduler's log", all_logged, 30)
        return found

    def output(self, number: int) -> Any:
        """Return what the task with a map index returned."""
        return self.airflow.xcom(self.dag_id, self._run_id, self.task_id, map_index=number)

    def _rows(self) -> list[dict[str, Any]]:
        path = f"/dags/{self.dag_id}/dagRuns/{self._run_id}/taskInstances/{self.task_id}/listMapped"
        rows = self.airflow.request("GET", path, params={"limit": ALL}).raise_for_status().json()["task_instances"]
        return list(rows)


def ended(skyvern: SkyvernServer, workflow: str) -> Counter[str]:
    """Count the runs of the workflow by status, as the server itself has them."""
    found: Counter[str] = Counter()
    for page in (1, 2):
        status, rows = skyvern.request("GET", f"/v1/workflows/{workflow}/runs?page_size=100&page={page}")
        if status != 200:
            raise RigError(f"Skyvern answered {status}: {rows}")
        found.update(row["status"] for row in rows)
    return found


def measure(runs: int) -> str:
    """Run everything and return the text for the page."""
    venv = Path(os.environ.get("SKYVERN_VENV", REPO / ".venvs" / "skyvern"))
    seconds = round(40 + SECONDS_PER_RUN * runs)
    counted = Counted()
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-airflow-")))
        skyvern = stack.enter_context(SkyvernServer(home / "skyvern", venv))
        proxy = stack.enter_context(FaultProxy(skyvern.base_url, skyvern.api_key, counted))
        proxy.keys.add(KEY)
        connection = {"conn_type": "skyvern", "host": proxy.url, "password": KEY}
        env = {
            "AIRFLOW_CONN_SKYVERN_DEFAULT": json.dumps(connection),
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": "200",
            "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        }
        postgres = stack.enter_context(PostgresServer())
        airflow = stack.enter_context(AirflowServer(home / "airflow", DAGS, env, postgres=postgres))
        numbers = list(range(runs))
        nothing = DagRun(airflow, "bench_nothing", "nothing", {"numbers": numbers[:20]})
        nothing.run(300)
        block = {"block_type": "wait", "label": "pause", "wait_sec": seconds}
        workflow = skyvern.create_workflow(
            "bench wait", {"workflow_definition": {"parameters": [], "blocks": [block]}}
        )
        waiting = DagRun(airflow, "bench_runs", "run", {"workflow_id": workflow, "numbers": numbers})
        waiting.run(3 * seconds + 300)
        if missing := [number for number in numbers if "pause_output" not in waiting.output(number)]:
            raise RigError(f"the tasks with the indexes {missing} have no output")
        if (statuses := ended(skyvern, workflow)) != {"completed": runs}:
            raise RigError(f"{runs} tasks made {dict(statuses)} runs")
        empty = [took for took, _ in nothing.visits(1)]
        return text(Found(runs, seconds, waiting.most_deferred, empty, waiting.visits(2), counted.requests))


def text(found: Found) -> str:
    """Write the results."""
    first = [took for took, state in found.held if state == "deferred"]
    last = [took for took, state in found.held if state == "success"]
    if not len(first) == len(last) == found.runs:
        raise RigError(f"{found.runs} runs, but {len(first)} visits deferred and {len(last)} succeeded")
    both = (sum(first) + sum(last)) / found.runs
    rows = [
        ["start the run, defer", *_spread(first)],
        ["resume, fetch the output", *_spread(last)],
        ["**both visits of a run**", f"**{both:.2f} s**", ""],
        ["an empty task, for comparison", *_spread(found.empty)],
    ]
    requests = found.requests.most_common()
    asked = [[f"`{what}`", str(count), f"{count / found.runs:.2f}"] for what, count in requests]
    return (
        f"`make bench RIG=airflow` on {machine()}, load average {os.getloadavg()[1]:.1f}: "
        f"{found.runs} mapped tasks with "
        f"`deferrable=True`, each a Skyvern run of {found.seconds} s, up to {found.most} of them deferred at once. "
        f"All tasks succeeded with their output; Skyvern had {found.runs} runs, all completed.\n\n"
        + table(["a worker is held to", "mean", "median / longest"], rows)
        + f"\nA worker that waits for the run instead is held for {found.seconds} s and more.\n\n"
        + table(["requests to Skyvern", "all", "per run"], asked)
    )


def _spread(values: list[float]) -> tuple[str, str]:
    mean = statistics.mean(values)
    return f"{mean:.2f} s", f"{statistics.median(values):.2f} / {max(values):.2f} s"


def main() -> int:
    """Do what the environment says."""
    runs = int(os.environ.get("RUNS", ALL))
    if not 1 <= runs <= ALL:
        raise SystemExit(f"RUNS={runs}: 1 to {ALL}")
    found = measure(runs)
    print(found)
    if runs == ALL:
        Markers(PAGE, "make bench RIG=airflow").put(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
