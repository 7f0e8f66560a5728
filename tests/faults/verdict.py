"""
What became of the executions, according to the Skyvern server and Airflow afterwards.

Per execution, of its runs (found on the server by the tag ``x``, not by anything the operator remembers):

orphans
    Runs that are still active although every task is over.
duplicates
    Runs of one attempt group that neither failed nor were terminated, timed out or canceled, less one. The group
    is ``max_tries`` as the task's own template renders it, so it does not depend on the operator's key.
lost results
    The task succeeded by itself, but its XCom is not the output of a completed run of its last attempt group.
false failures
    The task failed, or never ended, although a run of its last group completed, and nobody marked it.
needless cancels
    Runs canceled before their deadline in an execution that no user touched.
wrong ends
    The task does not end as the user marked it.
gave up
    The task failed although nobody marked it, and no run of its last group completed: the fault and the events
    together have used up its tries. Not a mistake, but shown.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, fields
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from tests.faults.catalogue import FINAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from dev.skyvern_server import SkyvernServer
    from tests.faults.driver import Execution

BAD = tuple(status for status in FINAL if status != "completed")
PAGE = 100


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

    def __str__(self) -> str:
        lasted = "" if self.seconds is None else f" after {self.seconds:.0f} s"
        return f"{self.run_id} group {self.group} {self.status}{lasted}"


@dataclass
class Counts:
    """One line of the table."""

    executions: int = 0
    hit: int = 0
    runs: int = 0
    orphans: int = 0
    duplicates: int = 0
    lost: int = 0
    false_failures: int = 0
    needless_cancels: int = 0
    wrong_ends: int = 0
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


def server_runs(skyvern: SkyvernServer, workflows: Iterable[str]) -> list[ServerRun]:
    """Ask the server for every run of the workflows, past the proxy."""
    found: list[ServerRun] = []
    for workflow in workflows:
        page = 1
        while True:
            rows = _ask(skyvern, f"/v1/workflows/{workflow}/runs?page_size={PAGE}&page={page}")
            ids = [str(row.get("workflow_run_id") or row["run_id"]) for row in rows]
            if ids:
                tags = _tags(_ask(skyvern, f"/v1/run-tags?workflow_run_ids={','.join(ids)}"))
                runs = [_run(skyvern, run_id, tags.get(run_id, {})) for run_id in ids]
                found += [run for run in runs if run is not None]
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
    ends = [datetime.fromisoformat(body[name]) for name in ("created_at", "finished_at") if body.get(name)]
    seconds = (ends[1] - ends[0]).total_seconds() if len(ends) == 2 else None
    ended = ends[1].replace(tzinfo=timezone.utc).timestamp() if len(ends) == 2 else None
    return ServerRun(
        run_id, body["status"], tags.get("x", "?"), tags.get("group", "?"), seconds, body["output"], ended
    )


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
    counts.orphans = sum(run.status not in FINAL for run in runs)
    counts.duplicates = _duplicates(runs)
    if one.marked is not None:
        counts.wrong_ends = int(state != one.marked.removeprefix("mark_"))
        return counts
    if state == "success":
        counts.lost = int(xcom(one) not in [(run.run_id, run.output) for run in completed])
    elif completed:
        counts.false_failures = 1
    else:
        counts.gave_up = 1
    if not one.cleared:
        counts.needless_cancels = sum(
            run.status == "canceled" and (run.seconds is None or run.seconds < deadline - 5) for run in runs
        )
    return counts


def cancel_delays(findings: Iterable[Finding]) -> list[tuple[float, Execution]]:
    """Return how many seconds after a user's mark each run was canceled, the longest first."""
    delays = [
        (run.ended - finding.execution.clicked, finding.execution)
        for finding in findings
        if finding.execution.marked
        for run in finding.runs
        if run.status == "canceled" and run.ended is not None
    ]
    return sorted(delays, key=lambda delay: -delay[0])


def _duplicates(runs: list[ServerRun]) -> int:
    good: dict[str, int] = defaultdict(int)
    for run in runs:
        if run.status not in BAD:
            good[run.group] += 1
    return sum(max(0, number - 1) for number in good.values())


def table(findings: Iterable[Finding]) -> str:
    """Write the one table: a line per fault, and the sum."""
    lines: dict[str, Counts] = defaultdict(Counts)
    for finding in findings:
        lines[finding.execution.fault.name] += finding.counts
    total = Counts()
    for counts in lines.values():
        total += counts
    names = [f.name.replace("_", " ") for f in fields(Counts)]
    width = max(map(len, [*lines, "total"]))
    rule = "-" * (width + sum(len(name) + 2 for name in names))
    body = [_line(name, counts, width, names) for name, counts in sorted(lines.items())]
    head = " " * width + "".join(f"  {name}" for name in names)
    return "\n".join([head, rule, *body, rule, _line("total", total, width, names)])


def _line(name: str, counts: Counts, width: int, names: list[str]) -> str:
    cells = (f"  {getattr(counts, f.name):>{len(title)}}" for f, title in zip(fields(Counts), names, strict=True))
    return f"{name:<{width}}" + "".join(cells)
