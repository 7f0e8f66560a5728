"""
``make bench-airflow``: many deferred runs at once, on a real Airflow and a real Skyvern.

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
from dev.airflow_server import AirflowServer
from dev.postgres import PostgresServer
from dev.process import RigError
from dev.skyvern_server import SkyvernServer
from tests.faults.proxy import FaultProxy

if TYPE_CHECKING:
    from tests.faults.proxy import Exchange

REPO = Path(__file__).resolve().parent.parent
DAGS = REPO / "benchmarks" / "dags"
ALL = 100
KEY = "made-up-key-of-the-benchmark"
SECONDS_PER_RUN = 2.0
"""How much longer a run lasts for each of its fellows, so that all are there when the first one ends."""

_FINISHED = re.compile(r"Workload finished.*?duration=([\d.]+).*?final_state=(\w+)")
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


def visits(airflow: AirflowServer) -> list[tuple[float, str]]:
    """Return how long each visit to a worker took so far, and how it ended, as Airflow's supervisor logs it."""
    log = _COLORS.sub("", airflow.processes["scheduler"].log_path.read_text(errors="replace"))
    return [(float(seconds), state) for seconds, state in _FINISHED.findall(log)]


def run_dag(airflow: AirflowServer, dag_id: str, task_id: str, conf: dict[str, Any], timeout: float) -> int:
    """Run a DAG to its good end and return how many of its mapped tasks were deferred at once."""
    run_id = airflow.trigger(dag_id, conf)
    began, most = time.monotonic(), 0
    while (state := airflow.run_state(dag_id, run_id)) not in ("success", "failed"):
        states = [now for (task, _), now in airflow.task_states(dag_id, run_id).items() if task == task_id]
        most = max(most, states.count("deferred"))
        if time.monotonic() - began > timeout:
            raise RigError(f"{dag_id}: {Counter(states)} after {timeout:.0f} s")
        time.sleep(1)
    states = [now for (task, _), now in airflow.task_states(dag_id, run_id).items() if task == task_id]
    if state != "success" or set(states) - {"success"}:
        raise RigError(f"{dag_id} ended as {state}: {Counter(states)}")
    if task_id == "run":
        for number in conf["numbers"]:
            if "pause_output" not in airflow.xcom(dag_id, run_id, task_id, map_index=number):
                raise RigError(f"{dag_id}: the task with index {number} has no output")
    return most


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
        run_dag(airflow, "bench_nothing", "nothing", {"numbers": numbers[:20]}, 120)
        empty = [took for took, _ in visits(airflow)[1:]]  # the first one makes the list
        block = {"block_type": "wait", "label": "pause", "wait_sec": seconds}
        workflow = skyvern.create_workflow(
            "bench wait", {"workflow_definition": {"parameters": [], "blocks": [block]}}
        )
        seen = len(visits(airflow))
        conf = {"workflow_id": workflow, "numbers": numbers}
        most = run_dag(airflow, "bench_runs", "run", conf, 3 * seconds + 240)
        held = visits(airflow)[seen + 1 :]
        statuses = ended(skyvern, workflow)
    if statuses != {"completed": runs}:
        raise RigError(f"{runs} tasks made {dict(statuses)} runs")
    return text(Found(runs, seconds, most, empty, held, counted.requests))


def text(found: Found) -> str:
    """Write the results."""
    first = [took for took, state in found.held if state == "deferred"]
    last = [took for took, state in found.held if state == "success"]
    if not len(first) == len(last) == found.runs:
        visited = Counter(state for _, state in found.held)
        raise RigError(f"{found.runs} runs, but workers were visited like this: {visited}")
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
        f"`make bench-airflow` on {machine()}, load average {os.getloadavg()[1]:.1f}: {found.runs} mapped tasks with "
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
        Markers(PAGE, "make bench-airflow").put(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
