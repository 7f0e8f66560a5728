"""
What became of the executions, according to the Skyvern server and Airflow afterwards.

Per execution, of its runs (found on the server by the tag ``x``, not by anything the operator remembers):

left
    Runs that are still active although their task is over: nobody waits for them. Not one that a sensor has only
    waited for: it is nobody's to cancel.
duplicates
    Runs of one attempt group that neither failed nor were terminated, timed out or canceled, less one. The group
    is ``max_tries`` as the task's own template renders it, so it does not depend on the operator's key. A task that
    runs several items has a group for each. Not one that a gateway has made and that was over before Skyvern could be
    reached for long enough to search for it.
twins
    Runs that began while another one of their group was active, except for those that the gateway itself has made.
lost results
    The task succeeded by itself, but its XCom is not the output of a completed run of its last attempt group; or one
    of its items has the result of another. On Airflow 2 a try whose supervisor was killed may succeed beside the next
    one, which has deleted the XCom ``run_id``.
false failures
    The task failed, or never ended, although a run of its last group completed, and nobody marked it. Not one whose
    last try Airflow ended as no heartbeat came: its API server was away, and no task could have told it anything. Nor
    a sensor that met nothing but a refused key: it fails at once, as it should with a wrong one.
needless cancels
    Runs canceled before their deadline, or when they had completed, in an execution that no user touched; where the
    fault says so, also at the deadline of the try that it struck, as the next one should have taken over. Not those
    of a last try that Airflow ended as no heartbeat came: the scheduler cancels what it leaves.
wrong ends
    The task does not end as the user marked it.
sessions open
    Browser sessions that an execution has opened and that are open when all DAG runs have ended, as the server lists
    them. Not one whose opening was not answered, or whose task was killed before it could store the answer: these end
    with their timeout, which in this suite is longer than the suite.
wrong logins
    Runs that were started with another credential than the one of the name that the task gave; with any, where two
    have that name.
gave up
    The task failed although nobody marked it, and no run of its last group completed: the fault and the events
    together have used up its tries. Not a mistake, but shown.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from dataclasses import dataclass, field, fields, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from tests.faults.catalogue import FINAL
from tests.faults.driver import OVER

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dev.fault_proxy import FaultProxy
    from dev.skyvern_server import SkyvernServer
    from tests.faults.driver import Execution

BAD = tuple(status for status in FINAL if status != "completed")
PAGE = 100
SEARCH_SECONDS = 15.0
"""Seconds in which a task that searches again and again has found a run."""

NESTED = ("nested", "nested_0")
ITEMS = ("A", "B", "C")


@dataclass(frozen=True)
class ServerRun:
    """A run as the server has it."""

    run_id: str
    status: str
    execution: str
    group: str
    seconds: float | None
    output: Any = None
    ended: float | None = None
    began: float = 0.0
    item: str = ""
    by_gateway: bool = False
    cancel_requested: bool = False
    login: str = ""

    def __str__(self) -> str:
        lasted = "" if self.seconds is None else f" after {self.seconds:.0f} s"
        item = f" item {self.item}" if self.item else ""
        cause = ", made by the gateway" if self.by_gateway else ""
        return f"{self.run_id} group {self.group}{item} {self.status}{lasted}{cause}"


@dataclass
class Counts:
    """One line of the table."""

    executions: int = 0
    hit: int = 0
    runs: int = 0
    left: int = 0
    duplicates: int = 0
    twins: int = 0
    lost: int = 0
    false_failures: int = 0
    needless_cancels: int = 0
    wrong_ends: int = 0
    sessions_open: int = 0
    wrong_logins: int = 0
    gave_up: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def bad(self) -> int:
        """How much is wrong."""
        return sum(getattr(self, f.name) for f in fields(self)[3:-1])


@dataclass
class Finding:
    """An execution with its runs and what is wrong with it."""

    execution: Execution
    runs: list[ServerRun]
    counts: Counts = field(default_factory=Counts)


def server_runs(skyvern: SkyvernServer, workflows: Iterable[str], proxy: FaultProxy) -> list[ServerRun]:
    """Ask the server for every run of the workflows, past the proxy, which knows what happened on the road."""
    found: list[ServerRun] = []
    for workflow in workflows:
        page = 1
        while True:
            rows = _ask(skyvern, f"/v1/workflows/{workflow}/runs?page_size={PAGE}&page={page}")
            ids = [str(row.get("workflow_run_id") or row["run_id"]) for row in rows]
            if ids:
                tags = _tags(_ask(skyvern, f"/v1/run-tags?workflow_run_ids={','.join(ids)}"))
                runs = [_run(skyvern, run_id, tags.get(run_id, {})) for run_id in ids]
                found += [
                    replace(
                        run, by_gateway=run.run_id in proxy.repeated, cancel_requested=run.run_id in proxy.canceled
                    )
                    for run in runs
                    if run is not None
                ]
            if len(rows) < PAGE:
                break
            page += 1
    return found


def _run(skyvern: SkyvernServer, run_id: str, tags: Mapping[str, str]) -> ServerRun | None:
    """Ask for a run; None for what a server leaves that is killed while it creates one: nothing ever runs it."""
    status, body = skyvern.request("GET", f"/v1/runs/{run_id}")
    if status == 404 and "Task run not found" in str(body):
        return None
    assert status == 200, f"{run_id}: {status} {body}"
    if not tags and body["status"] == "created":
        return None
    began = _time(body["created_at"])
    ended = _time(body["finished_at"]) if body.get("finished_at") else None
    return ServerRun(
        run_id,
        body["status"],
        tags.get("x", "?"),
        tags.get("group", "?"),
        None if ended is None else ended - began,
        body["output"],
        ended,
        began,
        tags.get("item", ""),
        login=((body.get("run_request") or {}).get("parameters") or {}).get("login", ""),
    )


def _time(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


def _ask(skyvern: SkyvernServer, path: str) -> Any:
    status, body = skyvern.request("GET", path)
    assert status == 200, f"{path}: {status} {body}"
    return body


def _tags(body: Any) -> dict[str, dict[str, str]]:
    return {run_id: {tag["key"]: tag["value"] for tag in tags} for run_id, tags in body["run_tags"].items()}


def judge(executions: Iterable[Execution], runs: Iterable[ServerRun], xcom: Any, deadline: float) -> list[Finding]:
    """Compare both sides; `xcom(execution)` returns the task's run id and result."""
    by_execution: dict[str, list[ServerRun]] = defaultdict(list)
    for run in runs:
        by_execution[run.execution].append(run)
    return [
        Finding(one, by_execution[one.name], _counts(one, by_execution[one.name], xcom, deadline))
        for one in executions
    ]


def _counts(one: Execution, runs: list[ServerRun], xcom: Any, deadline: float) -> Counts:
    state, last_group = one.row.state, str(one.row.max_tries)
    completed = [run for run in runs if run.status == "completed" and run.group == last_group]
    counts = Counts(executions=1, hit=int(one.hits > 0 or bool(one.events)), runs=len(runs))
    counts.left = sum(run.status not in FINAL for run in runs) if _should_end(one) else 0
    counts.duplicates = _duplicates([run for run in runs if not _could_not_be_found(run, one)])
    counts.twins = _twins(runs)
    counts.sessions_open = len(one.open_sessions)
    counts.wrong_logins = sum(run.login != one.credential for run in runs)
    if one.fault.abandoned:
        return counts
    if one.marked is not None:
        counts.wrong_ends = int(state != one.marked.removeprefix("mark_"))
        return counts
    if state == "success":
        counts.lost = _lost(one, completed, xcom)
    elif completed and one.way not in NESTED and not one.driver.heartbeat_lost(one) and not _met_no_key(one):
        counts.false_failures = 1
    else:
        counts.gave_up = 1
    if not one.cleared:
        own = [run for run in runs if not _is_replaced_by_gateways(run, runs)]
        counts.needless_cancels = sum(_is_canceled_needlessly(run, one, deadline) for run in own)
    return counts


def _could_not_be_found(run: ServerRun, one: Execution) -> bool:
    return (
        run.by_gateway and run.ended is not None and one.driver.seconds_there(run.began, run.ended) < SEARCH_SECONDS
    )


def _met_no_key(one: Execution) -> bool:
    """Return whether a sensor's only try began and ended while Skyvern refused its key."""
    began = one.tries.get(one.row.try_number, math.inf)
    return one.way == "reschedule" and one.row.try_number == 1 and one.driver.was_away(began, one.since)


def _is_replaced_by_gateways(run: ServerRun, runs: list[ServerRun]) -> bool:
    """Return whether a run was canceled while one that the gateway made of the same start was kept: either may be."""
    others = [other for other in runs if other.by_gateway and (other.group, other.item) == (run.group, run.item)]
    return run.status == "canceled" and any(
        run.ended is not None and other.began < run.ended and (other.ended is None or other.ended > run.ended)
        for other in others
    )


def _is_canceled_needlessly(run: ServerRun, one: Execution, deadline: float) -> bool:
    if run.by_gateway:
        return False
    if run.status == "completed":
        return run.cancel_requested
    if run.ended is not None and run.ended > one.tries.get(one.row.try_number, math.inf) and _was_lost(one):
        return False
    in_time = run.seconds is None or run.seconds < deadline - 5
    if one.fault.patient and run.ended is not None:
        later = one.seconds_of_later_try(run.ended)
        in_time = later is None or later < deadline - 5
    return run.status == "canceled" and in_time


def _should_end(one: Execution) -> bool:
    """Return whether no run may be active: a task that is not over yet has used up the time, not left its run."""
    return one.way != "reschedule" and (one.fault.abandoned or one.marked is not None or one.row.state in OVER)


def _was_lost(one: Execution) -> bool:
    """Return whether Airflow gave the task up, with no try to come."""
    return one.row.state == "failed" and one.driver.heartbeat_lost(one)


def _lost(one: Execution, completed: list[ServerRun], xcom: Any) -> int:
    run_id, value = xcom(one)
    if one.way in NESTED:
        wrong = [item for item in ITEMS if not _has_own_result(value, item)]
        return len(wrong) + len({*ITEMS} - {run.item for run in completed})
    if one.way == "reschedule":  # pushes no run id of its own
        return int(value not in [run.output for run in completed])
    if one.what == "prompt":  # its value is what its one block returns
        completed = [replace(run, output=(run.output or {}).get("task_output")) for run in completed]
    found = [run.run_id for run in completed if run.output == value]
    return int(not found or (run_id or found[0]) not in found)


def _has_own_result(value: Any, item: str) -> bool:
    """Return whether an item's result repeats the item, and no other one."""
    own = value.get(item) if isinstance(value, dict) else None
    text = json.dumps(own)
    return [other for other in ITEMS if json.dumps({"item": other})[1:-1] in text] == [item]


def cancel_delays(findings: Iterable[Finding]) -> list[tuple[float, Execution]]:
    """Return how many seconds after a user's mark each run was canceled, the longest first."""
    delays = [
        (run.ended - finding.execution.clicked, finding.execution)
        for finding in findings
        if finding.execution.marked and not finding.execution.fault.abandoned
        for run in finding.runs
        if run.status == "canceled" and run.ended is not None
    ]
    return sorted(delays, key=lambda delay: -delay[0])


def _duplicates(runs: list[ServerRun]) -> int:
    good: dict[tuple[str, str], int] = defaultdict(int)
    for run in runs:
        if run.status not in BAD:
            good[run.group, run.item] += 1
    return sum(max(0, number - 1) for number in good.values())


def _twins(runs: list[ServerRun]) -> int:
    """Count the runs that began while another one of their group was active."""
    own = [run for run in runs if not run.by_gateway]
    return sum(any(_was_active(other, run) for other in own if other is not run) for run in own)


def _was_active(other: ServerRun, run: ServerRun) -> bool:
    """Return whether the other run of the same group began before this one, and had not ended by then."""
    if (other.group, other.item) != (run.group, run.item):
        return False
    ended = float("inf") if other.ended is None and other.status not in FINAL else (other.ended or other.began)
    return (other.began, other.run_id) < (run.began, run.run_id) and ended > run.began


def table(findings: Iterable[Finding]) -> str:
    """Write the one table: a line per fault, and the sum, of all and of each kind of run."""
    lines: dict[str, Counts] = defaultdict(Counts)
    kinds: dict[str, Counts] = defaultdict(Counts)
    for finding in findings:
        lines[finding.execution.fault.line] += finding.counts
        kinds[f"total, {finding.execution.what}"] += finding.counts
    total = Counts()
    for counts in lines.values():
        total += counts
    names = [f.name.replace("_", " ") for f in fields(Counts)]
    width = max(map(len, [*lines, *kinds, "total"]))
    rule = "-" * (width + sum(len(name) + 2 for name in names))
    body = [_line(name, counts, width, names) for name, counts in sorted(lines.items())]
    head = " " * width + "".join(f"  {name}" for name in names)
    sums = [_line(name, counts, width, names) for name, counts in sorted(kinds.items())]
    return "\n".join([head, rule, *body, rule, *sums, _line("total", total, width, names)])


def _line(name: str, counts: Counts, width: int, names: list[str]) -> str:
    cells = (f"  {getattr(counts, f.name):>{len(title)}}" for f, title in zip(fields(Counts), names, strict=True))
    return f"{name:<{width}}" + "".join(cells)
