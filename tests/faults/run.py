"""
`make faults`: exactly one Skyvern run per attempt group, whatever fails.

A real Airflow (scheduler, two triggerers, API server, DAG processor, LocalExecutor, PostgreSQL) talks to a real
Skyvern server through :mod:`dev.fault_proxy`. EXECUTIONS tasks run, each with a fault of
:mod:`tests.faults.catalogue`, shuffled by SEED; events (:data:`tests.faults.driver.EVENTS`) befall all that are in
flight. Then both servers are asked what happened (:mod:`tests.faults.verdict` defines the columns), and one table
is printed. The exit status is 1 when anything of it is not as it has to be:

- every column between `runs` and `gave up` is 0, except for what may be left where Airflow lets nobody know of a
  task's end (:class:`Limits`);
- one workflow was made of each file and each shape of prompts, one version of each content
  (:mod:`tests.faults.kinds`);
- no API key was found by :mod:`tests.faults.leaks`, and none was sent where a gateway redirects to;
- `airflow-skyvern runs orphans` (:mod:`tests.faults.witness`) finds a run that is not left, or not one that is; or
  one of them is still active after `--cancel`;
- with DURABLE=0, which turns the operator's protection off, there *are* duplicates: the suite can see them.

Settings: SEED, EXECUTIONS (200), AIRFLOW (3.3), DURABLE (1), WINDOW (how many are in flight), KEEP (a folder that
stays), ONLY and EVENTS (parts of the names of faults and events, separated by |; EVENTS=none for no events), ROUNDS
(how often each event happens; default: once per 100 executions), TIMES (every fault that ONLY names, in each way, so
often; instead of EXECUTIONS).
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
from tests.faults import witness
from tests.faults.catalogue import FAULTS, FINAL, Fault, Way
from tests.faults.driver import (
    EVENTS,
    EVENTS_OF_3,
    OPERATOR_TIMEOUT,
    TASK,
    Driver,
    Event,
    Execution,
    airflow_of_the_suite,
    name_of,
    say,
)
from tests.faults.kinds import report_made
from tests.faults.verdict import Counts, Finding, ServerRun, cancel_delays, judge, server_runs, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
GRACE = 20.0
LONGEST = 1500.0
FEW_SECONDS = 10.0
"""Seconds in which Skyvern ends the runs that were canceled last."""

TAKEN_OVER = 10.0
"""Seconds after which a living triggerer has begun to wait for a task that was deferred to one that was restarted."""

PROMPT = 10.0
"""Seconds within which a mark cancels the run, where Skyvern and Airflow answer."""


def named(name: str, parts: str) -> bool:
    """Return whether a name has one of the parts, which are separated by |."""
    return any(part.strip() in name for part in parts.split("|"))


def plan(executions: int, rng: Random, only: str) -> list[tuple[Way, Fault]]:
    """Deal the lines of the table from shuffled decks, so that all come before one comes again; of each, a fault."""
    lines: dict[str, list[Fault]] = {}
    for fault in FAULTS:
        if named(fault.name, only):
            lines.setdefault(fault.line, []).append(fault)
    deck = [line for line, faults in lines.items() for _ in range(max(fault.weight for fault in faults))]
    dealt: list[str] = []
    while len(dealt) < executions:
        dealt += rng.sample(deck, len(deck))
    chosen = [rng.choice(lines[line]) for line in dealt[:executions]]
    return [(rng.choice(fault.ways), fault) for fault in chosen]


def plan_of_each(times: int, rng: Random, only: str) -> list[tuple[Way, Fault]]:
    """Return each fault so often in each of its ways, in any order."""
    each = [(way, fault) for fault in FAULTS if named(fault.name, only) for way in fault.ways]
    return rng.sample(each * times, len(each) * times)


def events(executions: int, rng: Random, *, airflow_3: bool) -> list[tuple[str, Event]]:
    """Choose the order of the events; a short suite has one round of them."""
    rounds = int(os.environ.get("ROUNDS") or max(1, executions // 100))
    wanted = os.environ.get("EVENTS", "")
    deck = [event for event in EVENTS + (EVENTS_OF_3 if airflow_3 else []) if named(event[0], wanted)]
    return [event for _ in range(rounds) for event in rng.sample(deck, len(deck))]


def xcom_of(driver: Driver) -> Callable[[Execution], tuple[Any, Any]]:
    """Return what reads a task's run id and result, as the next task would."""

    def read(one: Execution, key: str) -> Any:
        with contextlib.suppress(KeyError):
            return driver.airflow.xcom(one.dag_id, one.run_id, TASK, key)
        return None

    return lambda one: (read(one, "run_id"), read(one, "return_value"))


def wait_for_the_last_cancels(driver: Driver) -> None:
    """Give cancels, and the ends of browser sessions, the time they are promised to take."""
    driver.wait_for_teardowns()
    time.sleep(GRACE)
    rows = driver.rows()
    for one in driver.executions.values():
        if one.run_id in rows:
            one.update(rows[one.run_id])


@dataclass(frozen=True)
class Limits:
    """
    Executions that may leave their run behind, as Airflow lets nobody know in time that their task is over.

    On every version a task whose DAG file is gone, and one that was deleted right after it was deferred while a
    triggerer was restarted, so that none had begun to wait. On Airflow 2 also one whose DAG was deleted or that was
    marked while it was deferred; or while it ran, when Skyvern could not be reached in the seconds that Airflow
    leaves.
    """

    may: frozenset[str]

    @classmethod
    def of(cls, driver: Driver) -> Limits:
        """Find them, now that all is over."""
        return cls(frozenset(one.name for one in driver.executions.values() if cls._may_leave(one, driver)))

    @staticmethod
    def _may_leave(one: Execution, driver: Driver) -> bool:
        if one.marked == "remove_file":
            return True
        if one.marked == "delete_dag" and Limits._has_no_triggerer(one):
            return True
        if driver.airflow.is_3 or not one.marked:
            return False
        return one.marked_while == "deferred" or driver.unreachable(one)

    @staticmethod
    def _has_no_triggerer(one: Execution) -> bool:
        restarted = any("triggerer" in event for event in one.events)
        return one.marked_while == "deferred" and restarted and one.clicked - one.deferred < TAKEN_OVER

    def kept(self, finding: Finding) -> bool:
        """Return whether an execution did everything that it can be expected to do."""
        name, counts = finding.execution.name, finding.counts
        return counts.left <= int(name in self.may) and counts.bad == counts.left


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


def print_gave_up(driver: Driver, findings: list[Finding]) -> None:
    """Print which executions have used up their tries."""
    for finding in findings:
        if finding.counts.gave_up:
            one = finding.execution
            print(f"gave up: {one.run_id}, try {one.row.try_number} of group {one.row.max_tries}, {one.fault.name}")
            print(f"    {', '.join(one.events)}; {last_error(driver, one)}")


def print_left(findings: list[Finding], limits: Limits, strays: int) -> None:
    """Print which runs were left, and whether they may be."""
    left = [finding for finding in findings if finding.counts.left]
    may = sum(limits.kept(finding) for finding in left)
    print(f"left: {len(left)}, {may} of them where Airflow lets nobody know; runs of nobody: {strays}")
    for finding in left:
        one = finding.execution
        print(f"  {one.run_id}: {one.marked} while {one.marked_while}, {one.fault.name}; {', '.join(one.events)}")


def is_left(driver: Driver, run: ServerRun) -> bool:
    """
    Return whether a task has started a run that is active, and nothing waits for it.

    Those for sensors are the suite's own, without tags. The trigger of a task whose DAG file is gone waits until its
    deadline, which may come after the suite's end.
    """
    one = driver.executions.get(run.execution)
    if one is not None and (one.way == "reschedule" or (one.marked == "remove_file" and one.row.state == "deferred")):
        return False
    return run.status not in FINAL


def second_witness(driver: Driver, runs: list[ServerRun]) -> list[str]:
    """Ask the command line for the runs that are left, let it cancel them, and say what is wrong with its answers."""
    left = {run.run_id for run in runs if is_left(driver, run)}
    first = witness.ask(driver.airflow)
    found = set(first.orphans)
    wrong = [f"it leaves {run_id}: {first.others.get(run_id, 'not listed')}" for run_id in left - found]
    wrong += [f"it takes {run_id} for an orphan, which is over" for run_id in found - left]
    canceled = witness.ask(driver.airflow, cancel=True).canceled if found else ()
    time.sleep(FEW_SECONDS if found else 0)
    last = witness.ask(driver.airflow)
    wrong += [f"it still finds {run_id}: {reason}" for run_id, reason in last.orphans.items()]
    wrong += [problem for problem in (first.problems, last.problems) if problem]
    now = server_runs(driver.skyvern, driver.workflows, driver.proxy)
    wrong += [f"still active in the end: {run}" for run in now if is_left(driver, run)]
    print(f"second witness: {len(found)} found, {len(canceled)} canceled; {'; '.join(wrong) or 'as it has to be'}")
    for run_id, reason in first.orphans.items():
        print(f"  {run_id}: {reason}")
    return wrong


def report(driver: Driver, *, durable: bool, deadline: float = OPERATOR_TIMEOUT) -> int:
    """Print the table and what is wrong; return the exit status."""
    runs = server_runs(driver.skyvern, driver.workflows, driver.proxy)
    unknown = driver.find_open_sessions()
    findings = judge(driver.executions.values(), runs, xcom_of(driver), deadline)
    limits = Limits.of(driver)
    wrong = [finding for finding in findings if not limits.kept(finding)]
    for finding in wrong if durable else []:
        print(describe(driver, finding))
    leaks = driver.leaks
    for location in sorted(leaks.found):
        print(f"API key in {location}")
    total = sum((finding.counts for finding in findings), Counts())
    strays = [run for run in runs if run.execution not in driver.executions]
    for run in strays:
        print(f"run of nobody: {run}")
    print(table(findings))
    print_gave_up(driver, findings)
    happened = ", ".join(f"{name} ({hit} in flight)" for name, hit in driver.event_log)
    print(f"events: {happened}")
    print(f"lists of active runs: {driver.proxy.requests['list']}, {driver.lists.hits} of them spoiled")
    print_left(findings, limits, len(strays))
    print(
        f"browser sessions: {len(driver.proxy.session_owner)} opened, {total.sessions_open} open that a task knew; "
        f"opened without an answer, open until their timeout: {len(unknown)}"
    )
    print_cancel_delays(findings)
    print(
        f"API keys: {len(leaks.keys)} looked for in {leaks.dumps} dumps of the database, "
        f"{leaks.decrypted} decrypted values and all logs: found in {len(leaks.found)} places; "
        f"redirects followed with a key: {len(driver.proxy.followed)}"
    )
    twice = report_made(driver.skyvern)
    if not durable:
        return int(total.duplicates == 0)
    untrue = second_witness(driver, runs)
    return int(bool(wrong or strays or leaks.found or driver.proxy.followed or untrue or twice))


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """Return a folder that goes away, unless KEEP names one."""
    if kept := os.environ.get("KEEP"):
        Path(kept).mkdir(parents=True, exist_ok=True)
        yield Path(kept).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="faults-") as home:
        yield Path(home)


@contextlib.contextmanager
def suite(
    version: str, rng: Random, window: int, *, durable: bool, own: list[str], timeout: float = OPERATOR_TIMEOUT
) -> Iterator[Driver]:
    """
    Start both servers and the proxy, and return what drives them.

    :param own: The executions that have a DAG of their own.
    :param timeout: The operators' ``timeout``.
    """
    python_bin = ROOT / ".venvs" / f"airflow-{version}" / "bin"
    drivers: list[Driver] = []

    async def on_request(exchange: Exchange) -> None:
        if drivers:
            await drivers[0].on_request(exchange)

    with contextlib.ExitStack() as stack:
        home = stack.enter_context(folder())
        postgres = stack.enter_context(PostgresServer())
        skyvern = stack.enter_context(SkyvernServer(home / "skyvern", SKYVERN_VENV))
        proxy = stack.enter_context(FaultProxy(skyvern.base_url, skyvern.api_key, on_request))
        airflow = stack.enter_context(
            airflow_of_the_suite(home / "airflow", postgres, python_bin, durable=durable, own=own, timeout=timeout)
        )
        driver = Driver(airflow, skyvern, proxy, rng, window)
        drivers.append(driver)
        driver.new_key(first=True)
        say("both servers are up")
        yield driver


def main() -> int:
    seed = int(os.environ.get("SEED") or Random().randrange(10**6))
    executions = int(os.environ.get("EXECUTIONS") or 200)
    times = int(os.environ.get("TIMES") or 0)
    version = os.environ.get("AIRFLOW") or "3.3"
    durable = os.environ.get("DURABLE", "1") == "1"
    rng = Random(seed)
    only = os.environ.get("ONLY", "")
    dealt = plan_of_each(times, rng, only) if times else plan(executions, rng, only)
    window = int(os.environ.get("WINDOW") or min(40, max(10, len(dealt) // 2)))
    how_many = f"TIMES={times}" if times else f"EXECUTIONS={executions}"
    command = f"SEED={seed} {how_many} AIRFLOW={version} DURABLE={int(durable)} make faults"
    say(f"{command} ({len(dealt)} executions)")
    own = [name_of(number) for number, (way, _) in enumerate(dealt) if way == "own"]
    with suite(version, rng, window, durable=durable, own=own) as driver:
        began = time.monotonic()
        interrupted = False
        with driver.leaks:
            names, happening = driver.plan(dealt), events(len(dealt), rng, airflow_3=driver.airflow.is_3)
            try:
                driver.run(names, happening, LONGEST)
            except KeyboardInterrupt:
                say("interrupted: the report is of what has happened so far; interrupt again to leave it out")
                interrupted = True
            driver.calm = True
            wait_for_the_last_cancels(driver)
        say(f"all executions over in {time.monotonic() - began:.0f} s")
        status = report(driver, durable=durable) or int(interrupted)
        print(f"{command}: {'passed' if status == 0 else 'FAILED'}")
        return status


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def until_interrupted(work: Callable[[], int]) -> int:
    """Do the work, and end what was started also after a SIGTERM."""
    signal.signal(signal.SIGTERM, _interrupted)
    return work()


if __name__ == "__main__":
    sys.exit(until_interrupted(main))
