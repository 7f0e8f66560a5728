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

import inspect
import json
import math
import os
import random
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.contenders import CONTENDERS, Contender, chosen_by, contender, versions
from benchmarks.imports import OPERATORS
from benchmarks.job_server import JobServer
from benchmarks.jobs import FIRST_ID
from benchmarks.report import PAGE, Markers, machine, table
from benchmarks.task_instances import Visit, rows, visits
from dev.airflow_server import RUN_FINAL, AirflowServer
from dev.peer import write_certificate
from dev.postgres import PostgresServer
from dev.process import RigError, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

DAGS = Path(__file__).resolve().parent / "dags"
JOBS, MOST_JOBS = 20, 100
INTERVAL = 5
"""Seconds between two polls in the DAGs that wait alike."""

FIRST_END = 15.0
"""Seconds until the first job ends: SkyvernRunTrigger polls for the first time after 8 s."""

SECONDS_PER_END = 4.0
"""Seconds between two ends: the two visits that follow one have left the workers when the next one comes."""

WORKERS = 3
"""The executor's parallelism: one more than processors, so that no task is queued behind one that waits."""

STARTS_AT_ONCE = 2
"""Tasks that run at once while jobs are started: their number says nothing of how long one occupies a worker."""

SECONDS_PER_START = 10
KINDS = ("same", "default")


@dataclass(frozen=True)
class Provider:
    """
    A contender's operator.

    :param name: The name of the contender.
    :param conn_id: The operator's default connection.
    :param operator: The class that runs a job.
    :param interval: Its argument for the seconds between two polls.
    :param job_id: The XCom that has the id of the job.
    """

    name: str
    conn_id: str
    operator: str
    interval: str
    job_id: str = "run_id"

    @property
    def dag_file(self) -> Path:
        """The file with its DAGs: one per provider, as its imports count for its tasks only."""
        return DAGS / f"latency_{self.name.replace('-', '_')}.py"

    def seconds(self, kind: str) -> float:
        """Return the seconds between two polls, in a DAG of some kind."""
        operator = getattr(import_module(OPERATORS[self.name]), self.operator)
        return INTERVAL if kind == "same" else float(inspect.signature(operator).parameters[self.interval].default)


PROVIDERS = {
    one.name: one
    for one in (
        Provider("skyvern", "skyvern_default", "SkyvernRunWorkflowOperator", "poll_interval"),
        Provider("databricks", "databricks_default", "DatabricksSubmitRunOperator", "polling_period_seconds"),
        Provider("dbt-cloud", "dbt_cloud_default", "DbtCloudRunJobOperator", "check_interval", "job_run_id"),
    )
}


@dataclass(frozen=True)
class Pair:
    """
    A job, the task that ran it, and the next task; moments in seconds since the epoch, NaN for what did not happen.

    :param job: The id of the job.
    :param states: The final states of both tasks.
    :param ended: When the job ended at the server.
    :param noticed: When the server first answered that it has ended.
    :param task_ended: When the task ended.
    :param next_started: When the next task started.
    :param visits: Seconds for which each visit of the task occupied a worker, by the state that it left the task in.
    :param empty: The same of the next task, which does nothing.
    """

    job: str
    states: tuple[str | None, str | None]
    ended: float
    noticed: float
    task_ended: float
    next_started: float
    visits: Mapping[str, float]
    empty: float

    @property
    def latency(self) -> float:
        """Seconds from the end of the job to the start of the next task."""
        return self.next_started - self.ended

    @property
    def parts(self) -> tuple[float, float, float]:
        """Return of what the latency consists: the end is noticed, the task ends, and the next one starts."""
        return self.noticed - self.ended, self.task_ended - self.noticed, self.next_started - self.task_ended

    @property
    def occupied(self) -> float:
        """Seconds for which both visits occupied a worker."""
        return sum(self.visits.values())


@dataclass(frozen=True)
class Group:
    """The pairs of one DAG."""

    provider: str
    kind: str
    pairs: Sequence[Pair]

    @property
    def label(self) -> str:
        """The provider as the page names it."""
        return contender(self.provider).label

    def percentile(self, percent: float, value: Callable[[Pair], float]) -> float:
        """Return a percentile by the nearest rank."""
        ranked = sorted(map(value, self.pairs))
        return ranked[max(0, math.ceil(percent / 100 * len(ranked)) - 1)]


def faults(groups: Iterable[Group], started: Mapping[str, int], refused: Mapping[str, int]) -> list[str]:
    """
    Return what is wrong with a measurement.

    :param started: How many jobs each service has started.
    :param refused: What the server refused, and how often.
    """
    found = [f"the server refused {count} x {request}" for request, count in refused.items()]
    jobs: dict[str, set[str]] = {name: set() for name in started}
    tasks: Counter[str] = Counter()
    for group in groups:
        found += [f"{group.provider}_{group.kind}: {fault}" for fault in _faults_of(group.pairs)]
        jobs[group.provider] |= {pair.job for pair in group.pairs}
        tasks[group.provider] += len(group.pairs)
    found += [
        f"{name}: {len(jobs[name])} tasks have a job of their own and {count} jobs were started, of {tasks[name]}"
        for name, count in started.items()
        if not len(jobs[name]) == count == tasks[name]
    ]
    return found


def _faults_of(pairs: Sequence[Pair]) -> Iterator[str]:
    bad = Counter(pair.states for pair in pairs if pair.states != ("success", "success"))
    yield from (f"{count} jobs have succeeded and their tasks are {states}" for states, count in bad.items())
    early = [pair.job for pair in pairs if not all(part >= 0 for part in pair.parts)]
    if early:
        yield f"jobs that nobody saw end, or whose tasks did not follow: {early[:5]}"
    visits = [pair.job for pair in pairs if pair.visits.keys() != {"deferred", "success"}]
    if visits:
        yield f"jobs whose task had not one visit to defer and one to end: {visits[:5]}"


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
        self._dags = [(name, kind) for name in server.jobs for kind in KINDS]
        self._runs: dict[tuple[str, str], str] = {}

    def run(self) -> list[Group]:
        """Let all tasks start a job and defer, end the jobs one by one, and return what happened."""
        self._airflow.wait_run("warm_up", self._airflow.trigger("warm_up"), 300)
        for dag in self._dags:
            self._airflow.wait_dag("_".join(dag), 120)
        count = self._jobs * len(self._dags)
        self._set_slots(STARTS_AT_ONCE)
        self._runs = {dag: self._airflow.trigger("_".join(dag)) for dag in self._dags}
        wait_until(f"{count} tasks deferred", self._all_deferred, 60 + SECONDS_PER_START * count, 1)
        self._set_slots(count)
        self._end_jobs()
        slowest = max(PROVIDERS[name].seconds(kind) for name, kind in self._dags)
        wait_until("all DAG runs ended", self._all_ended, FIRST_END + SECONDS_PER_END * count + slowest + 120, 1)
        return [self._group(dag) for dag in self._dags]

    def _set_slots(self, slots: int) -> None:
        options = {"params": {"update_mask": ["slots"]}}
        self._airflow.request("PATCH", "/pools/default_pool", {"slots": slots}, **options).raise_for_status()

    def _rows(self, dag: tuple[str, str]) -> dict[str, dict[str, Any]]:
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
        return states["deferred"] == self._jobs * len(self._dags)

    def _all_ended(self) -> bool:
        return all(self._airflow.run_state("_".join(dag), run) in RUN_FINAL for dag, run in self._runs.items())

    def _end_jobs(self) -> None:
        """Set the end of each job: one after the other, those of all DAGs in turn at random."""
        jobs = [(name, number) for name, started in self._server.jobs.items() for number in range(len(started))]
        random.Random(len(jobs)).shuffle(jobs)
        begin = time.time() + FIRST_END
        for position, (name, number) in enumerate(jobs):
            moment = begin + SECONDS_PER_END * (position + random.random())
            self._ends[name, number] = moment
            self._server.jobs[name].end(number, moment)

    def _group(self, dag: tuple[str, str]) -> Group:
        found = self._rows(dag)
        ids = {row["id"] for row in found.values()}
        seconds: dict[str, list[Visit]] = {one: [] for one in ids}
        for visit in visits(self._airflow, ids, 3 * self._jobs):
            seconds[visit.task_instance].append(visit)
        tasks = [(found[f"job_{number}"], found[f"next_{number}"]) for number in range(self._jobs)]
        return Group(*dag, [self._pair(dag, *both, seconds) for both in tasks])

    def _pair(
        self,
        dag: tuple[str, str],
        task: Mapping[str, Any],
        following: Mapping[str, Any],
        seconds: Mapping[str, Sequence[Visit]],
    ) -> Pair:
        xcom = PROVIDERS[dag[0]].job_id
        job = str(self._airflow.xcom("_".join(dag), self._runs[dag], task["task_id"], xcom))
        key = (dag[0], int(job.removeprefix("wr_")) - FIRST_ID)
        return Pair(
            job=job,
            states=(task["state"], following["state"]),
            ended=self._ends[key],
            noticed=self._server.noticed.get(key, math.nan),
            task_ended=_moment(task["end_date"]),
            next_started=_moment(following["start_date"]),
            visits={visit.state: visit.seconds for visit in seconds[task["id"]]},
            empty=sum(visit.seconds for visit in seconds[following["id"]]),
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
            f"AIRFLOW_CONN_{PROVIDERS[one.name].conn_id.upper()}": json.dumps(one.connection(server.address))
            for one in chosen
        }
        env = {
            **connections,
            **{name: str(certificate) for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")},
            "NO_PROXY": "*",
            "BENCH_JOBS": str(jobs),
            "BENCH_INTERVAL": str(INTERVAL),
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


def text(groups: Sequence[Group]) -> str:
    """Write the results as Markdown."""
    installed = ", ".join(f"{name} {number}" for name, number in versions(group.provider for group in groups).items())
    count = sum(len(group.pairs) for group in groups)
    return (
        f"`make bench RIG=latency` on {machine()}, load average {os.getloadavg()[1]:.1f}: {count} jobs, "
        f"{len(groups[0].pairs)} of each row, ended one by one, {SECONDS_PER_END:.0f} s apart, in one measurement. "
        f"Each task had one job, and succeeded after it.\n\n{tables(groups)}\nMeasured: {installed}.\n"
    )


def tables(groups: Sequence[Group]) -> str:
    """Write a table for each kind of interval."""
    heads = {"same": "the same interval", "default": "the default interval"}
    return "\n".join(
        _table(heads[kind], [group for group in groups if group.kind == kind])
        for kind in KINDS
        if any(group.kind == kind for group in groups)
    )


def _table(head: str, groups: Sequence[Group]) -> str:
    columns = [
        head,
        "interval",
        "from the end of the job to the start of the next task: p50 / p95",
        "of it: the end is noticed",
        "the task ends",
        "the next one starts",
        "worker seconds per task",
        "of the next task, which is empty",
    ]
    return table(columns, map(_row, groups))


def _row(group: Group) -> list[str]:
    middle, late = (group.percentile(percent, lambda pair: pair.latency) for percent in (50, 95))
    return [
        group.label,
        f"{PROVIDERS[group.provider].seconds(group.kind):g} s",
        f"**{middle:.1f} / {late:.1f} s**",
        *(f"{statistics.median(part):.1f} s" for part in zip(*(pair.parts for pair in group.pairs), strict=True)),
        f"{statistics.median(pair.occupied for pair in group.pairs):.2f} s",
        f"{statistics.median(pair.empty for pair in group.pairs):.2f} s",
    ]


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
