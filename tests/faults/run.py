"""
`make faults`: exactly one Skyvern run per attempt group, whatever fails.

A real Airflow (scheduler, two triggerers, API server, DAG processor, LocalExecutor, PostgreSQL) talks to a real
Skyvern server through :mod:`dev.fault_proxy`. EXECUTIONS tasks run, each with a fault of
:mod:`tests.faults.catalogue`, shuffled by SEED; events (:data:`tests.faults.driver.EVENTS`) befall all that are in
flight. Then both servers are asked what happened (:mod:`tests.faults.verdict` defines the columns), and one table
is printed. The exit status is 1 when anything of it is not as it has to be:

- every column between `runs` and `gave up` is 0, except for orphans that are the limit of Airflow 2
  (:class:`Limits`): there, exactly the runs of tasks that were marked while deferred are left; those of running
  tasks that were marked while Skyvern was away may be;
- no API key was found by :mod:`tests.faults.leaks`;
- with DURABLE=0, which turns the operator's protection off, there *are* duplicates: the suite can see them.

Settings: SEED, EXECUTIONS (200), AIRFLOW (3.3), DURABLE (1), WINDOW (how many are in flight), KEEP (a folder that
stays), ONLY and EVENTS (a part of the names of faults and events; EVENTS=none for no events), ROUNDS (how often each
event happens; default: once per 100 executions).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NoReturn

from dev.fault_proxy import Exchange, FaultProxy
from dev.postgres import PostgresServer
from dev.process import RigError
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer
from tests.faults.catalogue import FAULTS, Fault, Way
from tests.faults.driver import (
    EVENTS,
    EVENTS_OF_3,
    OPERATOR_TIMEOUT,
    TASK,
    Driver,
    Event,
    Execution,
    airflow_of_the_suite,
    say,
)
from tests.faults.verdict import Counts, Finding, cancel_delays, judge, server_runs, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
GRACE = 20.0
LONGEST = 900.0
PROMPT = 10.0
"""Seconds within which a mark cancels the run, where Skyvern and Airflow answer."""


def plan(executions: int, rng: Random, only: str) -> list[tuple[Way, Fault]]:
    """Deal the faults from shuffled decks, so that all come before one comes again."""
    deck = [fault for fault in FAULTS if only in fault.name for _ in range(fault.weight)]
    dealt: list[Fault] = []
    while len(dealt) < executions:
        dealt += rng.sample(deck, len(deck))
    return [(rng.choice(fault.ways), fault) for fault in dealt[:executions]]


def events(executions: int, rng: Random, *, airflow_3: bool) -> list[tuple[str, Event]]:
    """Choose the order of the events; a short suite has one round of them."""
    rounds = int(os.environ.get("ROUNDS") or max(1, executions // 100))
    wanted = os.environ.get("EVENTS", "")
    deck = [event for event in EVENTS + (EVENTS_OF_3 if airflow_3 else []) if wanted in event[0]]
    return [event for _ in range(rounds) for event in rng.sample(deck, len(deck))]


def xcom_of(driver: Driver) -> Callable[[Execution], tuple[Any, Any]]:
    """Return what reads a task's run id and result, as the next task would."""

    def read(one: Execution, key: str) -> Any:
        with contextlib.suppress(KeyError):
            return driver.airflow.xcom(one.dag_id, one.run_id, TASK, key)
        return None

    return lambda one: (read(one, "run_id"), read(one, "return_value"))


def wait_for_the_last_cancels(driver: Driver) -> None:
    """Give cancels the time they are promised to take."""
    time.sleep(GRACE)
    rows = driver.rows()
    for one in driver.executions.values():
        if one.run_id in rows:
            one.update(rows[one.run_id])


@dataclass(frozen=True)
class Limits:
    """
    Executions that Airflow 2 lets leave their run behind. Newer ones let nobody.

    :param must: Marked while deferred, of which Airflow 2 does not notify the provider.
    :param may: Marked while running, when Skyvern could not be reached in the five seconds that Airflow leaves.
    """

    must: frozenset[str]
    may: frozenset[str]

    @classmethod
    def of(cls, driver: Driver) -> Limits:
        """Find them, now that all is over."""
        if driver.airflow.is_3:
            return cls(frozenset(), frozenset())
        marked = [one for one in driver.executions.values() if one.marked]
        deferred = [one.name for one in marked if one.marked_while == "deferred"]
        running = [one.name for one in marked if one.marked_while != "deferred" and driver.unreachable(one)]
        return cls(frozenset(deferred), frozenset(running))

    def kept(self, finding: Finding) -> bool:
        """Return whether an execution did everything that it can be expected to do."""
        name, counts = finding.execution.name, finding.counts
        possible = {1} if name in self.must else {0, 1} if name in self.may else {0}
        return counts.orphans in possible and counts.bad == counts.orphans


def describe(driver: Driver, finding: Finding) -> str:
    """Describe everything about one execution."""
    one = finding.execution
    lines = [
        f"=== {one.dag_id} {one.run_id}: {one.fault.name}; task {one.row.state}, marked {one.marked}",
        f"    {finding.counts}",
        *(f"    run {run}" for run in finding.runs),
        *(f"    {entry}" for entry in one.journal),
    ]
    for attempt in range(1, one.row.try_number + 1):
        with contextlib.suppress(RigError):
            log = driver.airflow.log(one.dag_id, one.run_id, TASK, attempt).splitlines()
            lines += [f"    try {attempt}| {line[:400]}" for line in log[-40:]]
    return "\n".join(lines)


def last_error(driver: Driver, one: Execution) -> str:
    """Return the last line of a task's log that names an error."""
    with contextlib.suppress(RigError):
        log = driver.airflow.log(one.dag_id, one.run_id, TASK, max(1, one.row.try_number))
        lines = [line.strip() for line in log.splitlines() if "Skyvern" in line and "Error" in line]
        return lines[-1][:300] if lines else log.strip().splitlines()[-1][:300]
    return "no log"


def print_cancel_delays(findings: list[Finding]) -> None:
    """Print how soon users' marks canceled runs."""
    if delays := cancel_delays(findings):
        print(f"runs of marked tasks: {len(delays)} canceled, the slowest {delays[0][0]:.1f} s after the mark")
    for seconds, one in delays:
        if seconds > PROMPT:
            print(f"  {one.run_id}: {seconds:.1f} s, {one.fault.name}; {', '.join(one.events)}")


def report(driver: Driver, *, durable: bool) -> int:
    """Print the table and what is wrong; return the exit status."""
    runs = server_runs(driver.skyvern, driver.workflows)
    findings = judge(driver.executions.values(), runs, xcom_of(driver), OPERATOR_TIMEOUT)
    limits = Limits.of(driver)
    wrong = [finding for finding in findings if not limits.kept(finding)]
    for finding in wrong if durable else []:
        print(describe(driver, finding))
    for location in sorted(driver.leaks.found):
        print(f"API key in {location}")
    total = sum((finding.counts for finding in findings), Counts())
    strays = [run for run in runs if run.execution not in driver.executions]
    for run in strays:
        print(f"run of nobody: {run}")
    print(table(findings))
    for finding in findings:
        if finding.counts.gave_up:
            one = finding.execution
            print(f"gave up: {one.run_id}, try {one.row.try_number} of group {one.row.max_tries}, {one.fault.name}")
            print(f"    {', '.join(one.events)}; {last_error(driver, one)}")
    happened = ", ".join(f"{name} ({hit} in flight)" for name, hit in driver.event_log)
    print(f"events: {happened}")
    print(f"lists of active runs: {driver.proxy.requests['list']}, {driver.lists.hits} of them spoiled")
    left = [one.execution.name for one in findings if one.counts.orphans]
    print(
        f"orphans: {len(left)}; {len(limits.must)} expected (marked while deferred, on Airflow 2), "
        f"{len(limits.may.intersection(left))} of {len(limits.may)} possible (marked while running and "
        f"Skyvern was away); runs of nobody: {len(strays)}"
    )
    for finding in findings:
        if finding.counts.orphans and limits.kept(finding):
            one = finding.execution
            print(f"  {one.run_id}: {one.marked} while {one.marked_while}, {one.fault.name}; {', '.join(one.events)}")
    print_cancel_delays(findings)
    leaks = driver.leaks
    print(
        f"API keys: {len(leaks.keys)} looked for in {leaks.dumps} dumps of the database, "
        f"{leaks.decrypted} decrypted values and all logs: found in {len(leaks.found)} places"
    )
    if not durable:
        return int(total.duplicates == 0)
    return int(bool(wrong or strays or leaks.found))


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Return a folder that goes away, unless KEEP names one."""
    if kept := os.environ.get("KEEP"):
        Path(kept).mkdir(parents=True, exist_ok=True)
        yield Path(kept).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="faults-") as home:
        yield Path(home)


def main() -> int:
    seed = int(os.environ.get("SEED") or Random().randrange(10**6))
    executions = int(os.environ.get("EXECUTIONS") or 200)
    version = os.environ.get("AIRFLOW") or "3.3"
    durable = os.environ.get("DURABLE", "1") == "1"
    window = int(os.environ.get("WINDOW") or min(40, max(10, executions // 2)))
    rng = Random(seed)
    python_bin = ROOT / ".venvs" / f"airflow-{version}" / "bin"
    command = f"SEED={seed} EXECUTIONS={executions} AIRFLOW={version} DURABLE={int(durable)} make faults"
    say(command)
    dealt = plan(executions, rng, os.environ.get("ONLY", ""))
    drivers: list[Driver] = []

    async def on_request(exchange: Exchange) -> None:
        if drivers:
            await drivers[0].on_request(exchange)

    with contextlib.ExitStack() as stack:
        home = stack.enter_context(folder())
        postgres = stack.enter_context(PostgresServer())
        skyvern = stack.enter_context(SkyvernServer(home / "skyvern", SKYVERN_VENV))
        proxy = stack.enter_context(FaultProxy(skyvern.base_url, skyvern.api_key, on_request))
        airflow = stack.enter_context(airflow_of_the_suite(home / "airflow", postgres, python_bin, durable=durable))
        driver = Driver(airflow, skyvern, proxy, rng, window)
        drivers.append(driver)
        driver.new_key(first=True)
        say("both servers are up")
        began = time.monotonic()
        with driver.leaks:
            driver.run(dealt, events(executions, rng, airflow_3=airflow.is_3), LONGEST)
            wait_for_the_last_cancels(driver)
        say(f"all executions over in {time.monotonic() - began:.0f} s")
        status = report(driver, durable=durable)
        print(f"{command}: {'passed' if status == 0 else 'FAILED'}")
        return status


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupted)
    sys.exit(main())
