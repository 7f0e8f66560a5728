"""
``make bench RIG=latency``: from the end of a job to the start of the next task, beside the best peers.

One real Airflow has DAGs of three providers, in which each job is followed by a next task. The jobs are those of one
server on loopback, which ends them one by one once all tasks are deferred. Each provider waits with its default
interval in one DAG, and with the same interval as the others in another. Fails if a task did not end as its job did,
if there is not one job per task, or if the server refused a request.

``JOBS=`` (default 20) is the number of jobs of each DAG, ``PEERS=`` narrows it as for ``make bench``, and ``KEEP=1``
keeps the logs. With the defaults the result is written into docs/performance.md.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.contenders import CONTENDERS, Contender, chosen_by
from benchmarks.job_server import JobServer
from benchmarks.jobs import FIRST_ID
from benchmarks.latency_results import SECONDS_PER_END, Group, Pair, faults, text
from benchmarks.providers import DAGS, INTERVAL, KINDS, PROVIDERS
from benchmarks.report import PAGE, Markers
from benchmarks.task_instances import rows, visits
from dev.airflow_server import RUN_FINAL, AirflowServer
from dev.peer import write_certificate
from dev.postgres import PostgresServer
from dev.process import RigError, wait_until

if TYPE_CHECKING:
    from typing_extensions import Self

PLUGINS = Path(__file__).resolve().parent / "plugins"
CPU_SECONDS = "cpu_seconds.txt"
"""The file in Airflow's home to which the plugin writes."""

JOBS, MOST_JOBS = 20, 100
FIRST_END = 15.0
"""Seconds until the first job ends: SkyvernRunTrigger polls for the first time after 8 s."""

WORKERS = 3
"""The executor's parallelism: a task whose job has ended hardly ever waits for the two tasks of another."""

STARTS_AT_ONCE = 2
"""Tasks that run at once while jobs are started: no more than two processors run side by side."""

SECONDS_PER_START = 10
Dag = tuple[str, str]
"""A DAG: the provider's name and the kind of its interval."""


class Usage:
    """
    What the visits of all tasks took, of workers and of processors.

    :param visits: Seconds for which each visit occupied a worker, by the state that it left the task in, by task
        instance.
    :param cpu: CPU seconds of each visit, by DAG and task.
    """

    def __init__(
        self, visits: Mapping[str, Mapping[str, float]], cpu: Mapping[tuple[str, str], Sequence[float]]
    ) -> None:
        self._visits = visits
        self._cpu = cpu

    @classmethod
    def of(cls, airflow: AirflowServer, tasks: Sequence[Mapping[str, Any]], expected: int) -> Self:
        """Read the executor's log, and what the plugin has written."""
        occupied: dict[str, dict[str, float]] = {row["id"]: {} for row in tasks}
        for visit in visits(airflow, occupied, expected):
            occupied[visit.task_instance][visit.state] = visit.seconds
        cpu: dict[tuple[str, str], list[float]] = {}
        for line in (airflow.home / CPU_SECONDS).read_text(encoding="utf-8").splitlines():
            dag_id, task_id, seconds = line.split()
            cpu.setdefault((dag_id, task_id), []).append(float(seconds))
        return cls(occupied, cpu)

    def visits_of(self, task: Mapping[str, Any]) -> Mapping[str, float]:
        """Return for how long each visit of a task occupied a worker, by the state that it left the task in."""
        return self._visits[task["id"]]

    def cpu_of(self, task: Mapping[str, Any]) -> Sequence[float]:
        """Return the CPU seconds of each visit of a task."""
        return self._cpu.get((task["dag_id"], task["task_id"]), [])


class Measurement:
    """
    The DAG runs of one measurement, one of each DAG.

    :param jobs: How many jobs each of them has.
    """

    def __init__(self, airflow: AirflowServer, server: JobServer, jobs: int) -> None:
        self._airflow = airflow
        self._server = server
        self._jobs = jobs
        self._ends: dict[tuple[str, int], float] = {}
        self._dags: list[Dag] = [(name, kind) for name in server.jobs for kind in KINDS]
        self._runs: dict[Dag, str] = {}

    def run(self) -> list[Group]:
        """Let all tasks start a job and defer, end the jobs one by one, and return what happened."""
        self._airflow.wait_run("warm_up", self._airflow.trigger("warm_up"), 300)
        self._start_jobs()
        self._end_jobs()
        found = {dag: self._rows(dag) for dag in self._dags}
        every = [row for tasks in found.values() for row in tasks.values()]
        usage = Usage.of(self._airflow, every, 3 * self._count)
        return [self._group(dag, tasks, usage) for dag, tasks in found.items()]

    @property
    def _count(self) -> int:
        """The number of jobs of all DAGs."""
        return self._jobs * len(self._dags)

    def _start_jobs(self) -> None:
        """Start a run of each DAG, and wait until all its tasks are deferred."""
        for dag in self._dags:
            self._airflow.wait_dag("_".join(dag), 120)
        self._set_slots(STARTS_AT_ONCE)
        self._runs = {dag: self._airflow.trigger("_".join(dag)) for dag in self._dags}
        wait_until(f"{self._count} tasks deferred", self._all_deferred, 60 + SECONDS_PER_START * self._count, 1)
        self._set_slots(self._count)

    def _end_jobs(self) -> None:
        """End the jobs one after the other, those of all DAGs in random order, and wait for the DAG runs."""
        jobs = [(name, number) for name, started in self._server.jobs.items() for number in range(len(started))]
        random.Random(len(jobs)).shuffle(jobs)
        begin = time.time() + FIRST_END
        for position, (name, number) in enumerate(jobs):
            moment = begin + SECONDS_PER_END * (position + random.random())
            self._ends[name, number] = moment
            self._server.jobs[name].end(number, moment)
        slowest = max(PROVIDERS[name].seconds(kind) for name, kind in self._dags)
        wait_until("all DAG runs ended", self._all_ended, moment - time.time() + slowest + 120, 1)

    def _set_slots(self, slots: int) -> None:
        options = {"params": {"update_mask": ["slots"]}}
        self._airflow.request("PATCH", "/pools/default_pool", {"slots": slots}, **options).raise_for_status()

    def _rows(self, dag: Dag) -> dict[str, dict[str, Any]]:
        path = f"/dags/{'_'.join(dag)}/dagRuns/{self._runs[dag]}/taskInstances"
        return {row["task_id"]: row for row in rows(self._airflow, path)}

    def _all_deferred(self) -> bool:
        states = Counter(
            row["state"]
            for dag in self._dags
            for task_id, row in self._rows(dag).items()
            if task_id.startswith("job_")
        )
        if bad := states["failed"] + states["success"]:
            raise RigError(f"{bad} tasks have ended before their jobs: {dict(states)}")
        return states["deferred"] == self._count

    def _all_ended(self) -> bool:
        return all(self._airflow.run_state("_".join(dag), run) in RUN_FINAL for dag, run in self._runs.items())

    def _group(self, dag: Dag, tasks: Mapping[str, Mapping[str, Any]], usage: Usage) -> Group:
        both = [(tasks[f"job_{number}"], tasks[f"next_{number}"]) for number in range(self._jobs)]
        return Group(*dag, [self._pair(dag, task, following, usage) for task, following in both])

    def _pair(self, dag: Dag, task: Mapping[str, Any], following: Mapping[str, Any], usage: Usage) -> Pair:
        xcom = PROVIDERS[dag[0]].job_id
        job = str(self._airflow.xcom(task["dag_id"], self._runs[dag], task["task_id"], xcom))
        key = (dag[0], int(job.removeprefix("wr_")) - FIRST_ID)
        return Pair(
            job=job,
            states=(task["state"], following["state"]),
            ended=self._ends[key],
            noticed=self._server.noticed.get(key, math.nan),
            task_ended=_moment(task["end_date"]),
            next_started=_moment(following["start_date"]),
            visits=usage.visits_of(task),
            cpu=usage.cpu_of(task),
            empty=(sum(usage.visits_of(following).values()), sum(usage.cpu_of(following))),
        )


def _moment(text: str | None) -> float:
    return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() if text else math.nan


@contextmanager
def _folder() -> Iterator[Path]:
    """Make a folder, which KEEP=1 keeps."""
    folder = Path(tempfile.mkdtemp(prefix="bench-latency-"))
    try:
        yield folder
    finally:
        if os.environ.get("KEEP") == "1":
            print(f"logs: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def servers(chosen: Sequence[Contender], jobs: int) -> Iterator[tuple[AirflowServer, JobServer]]:
    """Start the server of the jobs, and an Airflow that has connections to it."""
    with ExitStack() as stack:
        home = stack.enter_context(_folder())
        certificate = home / "certificate.pem"
        write_certificate(certificate)
        server = stack.enter_context(JobServer([one.name for one in chosen], certificate))
        connections = {
            f"AIRFLOW_CONN_{PROVIDERS[one.name].conn_id(kind).upper()}": json.dumps(one.connection(server.address))
            for one in chosen
            for kind in KINDS
        }
        env = {
            **connections,
            **{name: str(certificate) for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")},
            "NO_PROXY": "*",
            "BENCH_JOBS": str(jobs),
            "BENCH_INTERVAL": str(INTERVAL),
            "BENCH_CPU_SECONDS": str(home / "airflow" / CPU_SECONDS),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(PLUGINS),
            "AIRFLOW__CORE__PARALLELISM": str(WORKERS),
            "AIRFLOW__CORE__MAX_ACTIVE_TASKS_PER_DAG": str(2 * jobs),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "1",  # Airflow's default
            "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
        }
        files = [
            DAGS / "latency_pairs.py",
            DAGS / "latency_warm_up.py",
            *(PROVIDERS[one.name].dag_file for one in chosen),
        ]
        postgres = stack.enter_context(PostgresServer())
        yield stack.enter_context(AirflowServer(home / "airflow", files, env, postgres=postgres)), server


def main() -> int:
    """Measure as the environment says; return the exit status."""
    jobs = int(os.environ.get("JOBS") or JOBS)
    if not 1 <= jobs <= MOST_JOBS:
        raise SystemExit(f"JOBS={jobs}: 1 to {MOST_JOBS}")
    known = [one for one in CONTENDERS if one.name in PROVIDERS]
    chosen = chosen_by(os.environ.get("PEERS"), known)
    with servers(chosen, jobs) as (airflow, server):
        groups = Measurement(airflow, server, jobs).run()
    wrong = faults(groups, {name: len(started) for name, started in server.jobs.items()}, server.refused)
    for fault in wrong:
        print("FAILED:", fault, file=sys.stderr)
    if wrong:
        return 1
    result = text(groups)
    print(result)
    if (jobs, chosen) == (JOBS, known):
        Markers(PAGE, "make bench RIG=latency").put(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
