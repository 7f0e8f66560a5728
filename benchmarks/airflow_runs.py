"""
``make bench RIG=airflow``: many deferred runs at once, on a real Airflow and a real Skyvern.

Measures how long workers are occupied (by both visits of a task, and by an empty task for comparison), counts every
request to Skyvern, and counts the tasks that are deferred at once. Every fifth run is terminated by Skyvern. Fails if
a task did not end as its run did, if there is not one run per task, if not all tasks were deferred at once, or if
waiting took too many requests.

``RUNS=`` (default 100) is the number of tasks, ``RUN_SECONDS=`` how long each run takes (default: long enough that
all are deferred when the first one ends). With the defaults the result is written into docs/performance.md.
``BLIP=12`` lets a proxy answer ``404 page not found`` in Skyvern's place for so many seconds once all are deferred.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.report import PAGE, Markers, machine, table
from benchmarks.task_instances import rows, visits
from dev.airflow_server import RUN_FINAL, AirflowServer
from dev.fault_proxy import Answer, FaultProxy
from dev.postgres import PostgresServer
from dev.process import RigError
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer

if TYPE_CHECKING:
    from dev.fault_proxy import Exchange

REPO = Path(__file__).resolve().parent.parent
DAG_FILE = REPO / "benchmarks" / "dags" / "bench_dags.py"
RUNS, MOST_RUNS = 100, 1000
EMPTY_TASKS = 20
EVERY_NTH_FAILS = 5
INTERVAL = 5
"""Seconds between two polls, as in benchmarks/dags."""
ROWS = 100
"""Rows of a page of Skyvern's API."""
SECONDS_PER_RUN = 2.0
"""How much longer each run takes per run, so that all tasks are deferred when the first run ends."""
KEY = "made-up-key-of-the-benchmark"
NOT_FOUND = Answer(404, b"404 page not found", "text/plain")


@dataclass
class RequestCounter:
    """Counts the requests that pass the proxy, by method, path and filters."""

    requests: Counter[str] = field(default_factory=Counter)
    refused_until: float = 0.0

    async def __call__(self, exchange: Exchange) -> None:
        """Count a request, and answer it as an ingress without a backend does while that is asked for."""
        url = urlsplit(exchange.target)
        path = re.sub(r"wr_\w+", "{run_id}", re.sub(r"wpid_\w+", "{workflow_id}", url.path))
        filters = "".join(f"&{name}=…" for name in sorted(parse_qs(url.query)))
        self.requests[f"{exchange.method} {path}{filters.replace('&', '?', 1)}"] += 1
        if time.monotonic() < self.refused_until:
            self.requests["answered 404 page not found"] += 1
            await exchange.reply(NOT_FOUND)

    def refuse(self, seconds: float) -> None:
        """Answer in Skyvern's place for so long."""
        self.refused_until = time.monotonic() + seconds


@dataclass(frozen=True)
class Found:
    """
    What was observed.

    :param seconds: How long each run takes.
    :param took: Seconds from the start of the DAG run to its end.
    :param deferred: How many tasks were deferred at the same time, at most.
    :param states: The final state of each task, by map index.
    :param without_output: Map indexes of the tasks that succeeded without the output of their run.
    :param ends: How the runs of Skyvern ended, of the workflow that completes and of the one that is terminated.
    :param empty: Seconds that a worker was occupied by each empty task.
    :param visits: Seconds that a worker was occupied by each visit of the tasks, and the state it left the task in.
    """

    seconds: int
    took: float
    deferred: int
    states: Sequence[str | None]
    without_output: Sequence[int]
    ends: tuple[Counter[str], Counter[str]]
    empty: Sequence[float]
    visits: Sequence[tuple[float, str]]
    requests: Counter[str]

    @property
    def runs(self) -> int:
        """The number of tasks, each of which has one run."""
        return len(self.states)

    @property
    def polls(self) -> int:
        """The number of requests that waiting took."""
        return sum(count for request, count in self.requests.items() if _is_poll(request))

    def visits_to(self, state: str) -> list[float]:
        """Return the seconds of the visits that left a task in a state."""
        return [seconds for seconds, left_in in self.visits if left_in == state]


def _is_poll(request: str) -> bool:
    return request.startswith("GET /v1/runs/") or (request.startswith("GET /v1/runs?") and "status=" in request)


def fails(number: int) -> bool:
    """Whether Skyvern terminates the run of the task with a map index."""
    return number % EVERY_NTH_FAILS == 0


def faults(found: Found) -> list[str]:
    """Return what is wrong with a measurement."""
    failing = sum(fails(number) for number in range(found.runs))
    wanted = (Counter(completed=found.runs - failing), Counter(terminated=failing))
    wrong = [
        number for number, state in enumerate(found.states) if state != ("failed" if fails(number) else "success")
    ]
    visits = Counter(state for _, state in found.visits)
    polls_allowed = 4 * found.runs + found.took / INTERVAL * 3
    checks = {
        f"{len(wrong)} tasks did not end as their run did: {wrong[:5]}": bool(wrong),
        f"tasks without the output of their run: {found.without_output[:5]}": bool(found.without_output),
        f"not one run per task: {[dict(ends) for ends in found.ends]}": found.ends != wanted,
        f"only {found.deferred} tasks were deferred at once: raise RUN_SECONDS": found.deferred < found.runs,
        f"not one visit to defer and one to end per task: {dict(visits)}": (
            visits != Counter(deferred=found.runs, success=found.runs - failing, failed=failing)
        ),
        f"waiting took {found.polls} requests, more than {polls_allowed:.0f}": found.polls > polls_allowed,
    }
    return [fault for fault, is_wrong in checks.items() if is_wrong]


@dataclass
class DagRun:
    """A DAG run and its mapped task, of which there are so many."""

    airflow: AirflowServer
    dag_id: str
    task_id: str
    conf: dict[str, Any]
    tasks: int
    most_deferred: int = 0
    run_id: str = ""
    when_all_deferred: Callable[[], None] | None = None

    def run(self, timeout: float) -> None:
        """Run to the end, good or bad; RigError if it does not come in time."""
        self.run_id = self.airflow.trigger(self.dag_id, self.conf)
        began = time.monotonic()
        while self.airflow.run_state(self.dag_id, self.run_id) not in RUN_FINAL:
            states = Counter(row["state"] for row in self._rows())
            self.most_deferred = max(self.most_deferred, states["deferred"])
            if self.when_all_deferred and states["deferred"] == self.tasks:
                self.when_all_deferred()
                self.when_all_deferred = None
            if time.monotonic() - began > timeout:
                raise RigError(f"{self.dag_id}: {states} after {timeout:.0f} s")
            time.sleep(1)

    def states(self) -> list[str | None]:
        """Return the state of each task, by map index."""
        return [row["state"] for row in sorted(self._rows(), key=lambda row: int(row["map_index"]))]

    def visits(self, each: int) -> list[tuple[float, str]]:
        """
        Return how long each visit to a worker took and the state it left the task in, from the executor's log.

        :param each: How many visits each task has.
        """
        ids = {row["id"] for row in self._rows()}
        return [(visit.seconds, visit.state) for visit in visits(self.airflow, ids, each * len(ids))]

    def has_output(self, number: int) -> bool:
        """Whether the task with a map index returned the output of its run."""
        try:
            return "pause_output" in self.airflow.xcom(self.dag_id, self.run_id, self.task_id, map_index=number)
        except KeyError:
            return False

    def _rows(self) -> list[dict[str, Any]]:
        path = f"/dags/{self.dag_id}/dagRuns/{self.run_id}/taskInstances/{self.task_id}/listMapped"
        return rows(self.airflow, path)


def make_workflow(skyvern: SkyvernServer, seconds: int, *, terminated: bool) -> str:
    """Make a workflow that waits, and then completes or is terminated; return its id."""
    blocks: list[dict[str, Any]] = [{"block_type": "wait", "label": "pause", "wait_sec": seconds}]
    if terminated:
        blocks.append({"block_type": "terminate", "label": "stop", "reason": "as planned", "error_code": "PLANNED"})
    definition = {"workflow_definition": {"parameters": [], "blocks": blocks}}
    return skyvern.create_workflow(f"bench {'terminated' if terminated else 'completed'}", definition)


def ends_of(skyvern: SkyvernServer, workflow: str) -> Counter[str]:
    """Count the runs of a workflow by status, as the server itself lists them."""
    found: Counter[str] = Counter()
    page = 1
    while True:
        status, rows = skyvern.request("GET", f"/v1/workflows/{workflow}/runs?page_size={ROWS}&page={page}")
        if status != 200:
            raise RigError(f"Skyvern answered {status}: {rows}")
        found.update(row["status"] for row in rows)
        if len(rows) < ROWS:
            return found
        page += 1


@contextmanager
def servers(counter: RequestCounter) -> Iterator[tuple[AirflowServer, SkyvernServer]]:
    """Start both servers, with a proxy between them that counts the requests of this Airflow."""
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-airflow-")))
        skyvern = stack.enter_context(SkyvernServer(home / "skyvern", SKYVERN_VENV))
        proxy = stack.enter_context(FaultProxy(skyvern.base_url, skyvern.api_key, counter))
        proxy.keys.add(KEY)
        connection = {"conn_type": "skyvern", "host": proxy.url, "password": KEY}
        env = {
            "AIRFLOW_CONN_SKYVERN_DEFAULT": json.dumps(connection),
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": str(MOST_RUNS),
            "AIRFLOW__TRIGGERER__CAPACITY": str(MOST_RUNS),
            "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        }
        postgres = stack.enter_context(PostgresServer())
        yield stack.enter_context(AirflowServer(home / "airflow", [DAG_FILE], env, postgres=postgres)), skyvern


def measure(runs: int, seconds: int, blip: float) -> Found:
    """
    Run empty tasks, then the runs, and return what was observed.

    :param blip: For how many seconds Skyvern is not there once all tasks are deferred.
    """
    counter = RequestCounter()
    with servers(counter) as (airflow, skyvern):
        empty = DagRun(airflow, "bench_empty", "empty", {"numbers": list(range(EMPTY_TASKS))}, EMPTY_TASKS)
        empty.run(300)
        good, bad = (make_workflow(skyvern, seconds, terminated=terminated) for terminated in (False, True))
        workflows = [bad if fails(number) else good for number in range(runs)]
        waiting = DagRun(airflow, "bench_runs", "run", {"workflows": workflows}, runs)
        if blip:
            waiting.when_all_deferred = partial(counter.refuse, blip)
        began = time.monotonic()
        waiting.run(3 * seconds + 300 + 6 * runs)
        took = time.monotonic() - began
        states = waiting.states()
        succeeded = [number for number, state in enumerate(states) if state == "success"]
        return Found(
            seconds=seconds,
            took=took,
            deferred=waiting.most_deferred,
            states=states,
            without_output=[number for number in succeeded if not waiting.has_output(number)],
            ends=(ends_of(skyvern, good), ends_of(skyvern, bad)),
            empty=[occupied for occupied, _ in empty.visits(1)],
            visits=waiting.visits(2),
            requests=counter.requests,
        )


def text(found: Found) -> str:
    """Write the results as Markdown."""
    occupied = sum(seconds for seconds, _ in found.visits) / found.runs
    rows = [
        ["start the run, defer", *_spread(found.visits_to("deferred"))],
        ["resume, fetch the output", *_spread(found.visits_to("success"))],
        ["resume, fail because the run was terminated", *_spread(found.visits_to("failed"))],
        ["**both visits of a run**", f"**{occupied:.2f} s**", ""],
        ["an empty task, for comparison", *_spread(found.empty)],
    ]
    counts = [[f"`{what}`", str(count), f"{count / found.runs:.2f}"] for what, count in found.requests.most_common()]
    alone = found.seconds // INTERVAL * found.runs
    return (
        f"`make bench RIG=airflow` on {machine()}, load average {os.getloadavg()[1]:.1f}: {found.runs} mapped tasks "
        f"with `deferrable=True`, each a Skyvern run of {found.seconds} s, up to {found.deferred} of them deferred "
        f"at once; {found.took:.0f} s in all. Skyvern had one run per task: {found.ends[0]['completed']} completed, "
        f"and their tasks succeeded with the output; {found.ends[1]['terminated']} were terminated, and their tasks "
        "failed.\n\n"
        + table(["a worker is occupied to", "mean", "median / longest"], rows)
        + f"\nA worker that waits for the run instead is occupied for {found.seconds} s and more.\n\n"
        + table(["requests to Skyvern", "all", "per run"], counts)
        + f"\nTriggers that each poll their own run every {INTERVAL} s send {alone:,} requests in that time.\n"
    )


def _spread(values: Sequence[float]) -> tuple[str, str]:
    if not values:
        return "none", ""
    mean = statistics.mean(values)
    return f"{mean:.2f} s", f"{statistics.median(values):.2f} / {max(values):.2f} s"


def main() -> int:
    """Measure as the environment says; return the exit status."""
    runs = int(os.environ.get("RUNS") or RUNS)
    if not 1 <= runs <= MOST_RUNS:
        raise SystemExit(f"RUNS={runs}: 1 to {MOST_RUNS}")
    standard = round(40 + SECONDS_PER_RUN * runs)
    seconds = int(os.environ.get("RUN_SECONDS") or standard)
    blip = float(os.environ.get("BLIP") or 0)
    found = measure(runs, seconds, blip)
    result = text(found)
    print(result)
    wrong = faults(found)
    for fault in wrong:
        print("FAILED:", fault, file=sys.stderr)
    if not wrong and (runs, seconds, blip) == (RUNS, standard, 0):
        Markers(PAGE, "make bench RIG=airflow").put(result)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
