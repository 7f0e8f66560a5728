"""
``make bench``: our trigger and those of other providers, side by side, at growing numbers of waits.

``N=`` and ``PEERS=`` (comma-separated) narrow it; ``PEERS=none`` is ours alone. With ``BLOCKS=1`` ours logs blocks,
which takes longer, as it does so once a minute. A run of everything writes docs/performance.md and the plots; a
narrowed one only prints. Ends with an error, and writes nothing, if any trigger is found to be broken.
"""

from __future__ import annotations

import json
import math
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import httpx

from benchmarks import report
from benchmarks.contenders import CONTENDERS, LOG_BLOCKS, OURS, Contender, chosen_by, contender, versions
from benchmarks.imports import OPERATORS, Imports, measured
from benchmarks.plan import AFTER_INTERVALS, Plan
from benchmarks.verdict import Result, result
from dev.peer import write_certificate
from dev.process import RigError

REPO = Path(__file__).resolve().parent.parent
PLOT = REPO / "docs" / "images" / "bench.svg"
RAW = REPO / "benchmarks" / "results.json"
WAITS = (10, 100, 1000, 5000)
INTERVAL = 5.0
START_SECONDS = 240.0
ENOUGH_ENDS = 100
"""Ends that a 99th percentile needs, where there are as many waits."""

FEW = 100
"""Up to this number of waits all contenders are measured at once: together they leave the processors mostly idle."""

ATTEMPTS = 4
"""How often a measurement is made, at most, until the machine's host has not disturbed it."""

SLACK = 90.0
"""Seconds that a measurement may take longer than planned before it is ended."""


class Child:
    """A child process that prints a line of JSON when something is ready."""

    def __init__(self, name: str, command: Sequence[str], env: dict[str, str], log: Path) -> None:
        self.name = name
        self._log = log
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, *command],
                env=env,
                cwd=REPO,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def line(self, seconds: float) -> Any:
        """Return the next line, decoded; RigError with the end of the log if none comes in time."""
        try:
            text = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise RigError(f"{self.name} printed nothing for {seconds:.0f} s\n{self._tail()}") from None
        if not text:
            raise RigError(f"{self.name} ended with exit status {self._process.wait(10)}\n{self._tail()}")
        return json.loads(text)

    def send(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()

    def _tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])


class Bench:
    """The API server, and measurements against it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        certificate = folder / "certificate.pem"
        write_certificate(certificate)
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")},
            "AIRFLOW_HOME": str(folder / "airflow"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "SSL_CERT_FILE": str(certificate),  # all clients trust it as they trust a public authority
            "NO_PROXY": "*",
        }
        self._server = Child(
            "server", ["-m", "benchmarks.server", str(certificate)], self._env, folder / "server.log"
        )
        self._address = f"127.0.0.1:{self._server.line(START_SECONDS)}"
        self._client = httpx.Client(
            base_url=f"https://{self._address}", verify=str(certificate), trust_env=False, timeout=60
        )

    def close(self) -> None:
        """End the server; RigError if it got requests that no service knows."""
        strays = self._client.get("/_strays").raise_for_status().json()
        self.end()
        if strays:
            raise RigError(f"requests that belong to no service: {strays}")

    def end(self) -> None:
        """End the server."""
        self._client.close()
        self._server.end()

    def measure(self, plans: Iterable[Plan]) -> Iterator[Result]:
        """Measure several plans at the same time."""
        children = [(plan, self._loop(contender(plan.contender))) for plan in plans]
        try:
            for _, child in children:
                child.line(START_SECONDS)
            zero = time.time() + 1.0
            begun = [(self._begin(plan, child, zero), child) for plan, child in children]
            for plan, child in begun:
                yield self._finish(plan, child)
        finally:
            for _, child in children:
                child.end()

    def _loop(self, one: Contender) -> Child:
        env = {**self._env, **one.environment(self._address)}
        log = self._folder / f"{one.name}.log"
        return Child(one.label, ["-m", "benchmarks.loop", self._address], env, log)

    def _begin(self, plan: Plan, child: Child, zero: float) -> Plan:
        plan = replace(plan, zero=zero)
        self._client.post("/_plan", content=plan.to_json()).raise_for_status()
        child.send(plan.to_json())
        return plan

    def _finish(self, plan: Plan, child: Child) -> Result:
        observed = child.line(plan.boundaries[-1] + plan.grace + SLACK - time.time())
        seen = self._client.get(f"/_seen/{plan.contender}").raise_for_status().json()
        return result(plan, seen, observed)


@contextmanager
def bench() -> Iterator[Bench]:
    """Start a server, and remove its files at the end; after a failure the logs are kept and named."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    made = Bench(folder)
    try:
        yield made
    except BaseException:
        made.end()
        print(f"logs: {folder}", file=sys.stderr)
        raise
    made.close()
    shutil.rmtree(folder)


def plan_of(name: str, waits: int) -> Plan:
    """Plan a measurement; with few waits it takes longer, as they have few ends at a time."""
    ends = 150.0 if waits <= FEW // 10 else 25.0
    steady, warm_up = (60.0, 75.0) if LOG_BLOCKS else (25.0, 12.0)
    chances = waits * math.floor(ends / (AFTER_INTERVALS * INTERVAL))
    ending = min(max(ENOUGH_ENDS, waits // 5), chances)
    return Plan(name, waits, INTERVAL, steady=steady, ends=ends, ending=ending, warm_up=warm_up)


def smoke_plan(name: str, waits: int) -> Plan:
    """Plan a short measurement that only shows that the benchmark works."""
    return Plan(name, waits, 1.0, steady=4.0, ends=5.0, ending=waits, warm_up=11.0, grace=5.0)


def groups(chosen: Sequence[Contender], sizes: Sequence[int]) -> Iterator[tuple[list[Contender], int]]:
    """Return the contenders and waits that are measured at the same time."""
    for waits in sizes:
        if waits <= FEW:
            yield list(chosen), waits
        else:
            for one in chosen:
                yield [one], waits


def undisturbed(server: Bench, plans: Sequence[Plan]) -> list[Result]:
    """Measure plans, again if the machine's host disturbed it; return the least disturbed attempt."""
    tries: list[list[Result]] = []
    for _ in range(ATTEMPTS):
        tries.append(list(server.measure(plans)))
        stolen = max(one.stolen for one in tries[-1])
        if stolen <= report.STOLEN:
            break
        print(f"  the host of this machine gave {stolen:.0%} of a processor to others: measuring again", flush=True)
    return min(tries, key=lambda results: max(one.stolen for one in results))


def measure(
    chosen: Sequence[Contender], sizes: Sequence[int], plan: Callable[[str, int], Plan]
) -> tuple[dict[tuple[str, int], Result], list[str]]:
    """Measure all contenders at all sizes; return results and faults."""
    results: dict[tuple[str, int], Result] = {}
    faults: list[str] = []
    with bench() as server:
        for together, waits in groups(chosen, sizes):
            print(f"{waits:,} waits: {', '.join(one.label for one in together)} …", flush=True)
            for one in undisturbed(server, [plan(one.name, waits) for one in together]):
                results[one.contender, waits] = one
                faults += [f"{contender(one.contender).label} at {waits:,} waits: {fault}" for fault in one.faults]
                print(f"  {one.line()}", flush=True)
    return results, faults


def raw(results: report.Results, imported: Mapping[str, Imports]) -> str:
    """Write all numbers as JSON, a line per measurement."""
    lines = [
        json.dumps({**vars(one), "latencies": [round(late, 3) for late in one.latencies]}) for one in results.values()
    ]
    head = {
        "machine": report.machine(),
        "versions": versions(report.names(results)),
        "interval": INTERVAL,
        "imports": {name: vars(one) for name, one in imported.items()},
    }
    return f'{{"about": {json.dumps(head)},\n"results": [\n' + ",\n".join(lines) + "\n]}\n"


def page(results: report.Results, imported: Mapping[str, Imports], minutes: float) -> str:
    """Write the generated part of docs/performance.md."""
    installed = ", ".join(f"{name} {number}" for name, number in versions(report.names(results)).items())
    parts = [
        f"`make bench` took {minutes:.0f} minutes on {report.machine()}.\n",
        report.ratios(results),
        report.targets_table(results, INTERVAL),
        f"![How the triggers grow with the number of waits]({_from_page(PLOT)})\n",
        *(report.details(results, waits) for waits in report.sizes(results)),
        report.imports_table(imported),
        *(f"* {warning[0].upper()}{warning[1:]}.\n" for warning in report.warnings(results)),
        f"Measured: {installed}. All numbers: [{RAW.name}]({_from_page(RAW)}).\n",
    ]
    return "\n".join(parts)


def _from_page(file: Path) -> str:
    return os.path.relpath(file, report.PAGE.parent)


def main(arguments: Sequence[str]) -> int:
    """Measure as the command line and the environment say; return the exit status."""
    sizes = [int(size) for size in os.environ.get("N", "").split(",") if size] or list(WAITS)
    chosen = chosen_by(os.environ.get("PEERS"))
    begun = time.monotonic()
    if "--smoke" in arguments:
        results, faults = measure([contender(OURS), contender("databricks")], [10], smoke_plan)
    else:
        results, faults = measure(chosen, sizes, plan_of)
    for warning in report.warnings(results):
        print(f"note: {warning}")
    if faults:
        print("\n".join(["", "BROKEN, nothing is compared:", *faults]), file=sys.stderr)
        return 1
    if "--smoke" in arguments:
        print("the benchmark works")
        return 0
    print(f"\n{report.ratios(results)}\n{report.targets_table(results, INTERVAL)}")
    if sizes == list(WAITS) and chosen == list(CONTENDERS) and not LOG_BLOCKS:
        imported = {name: measured(operator) for name, operator in OPERATORS.items()}
        RAW.write_text(raw(results, imported), encoding="utf-8")
        plot = import_module("benchmarks.plot")  # matplotlib takes its time
        plot.draw(results, PLOT)
        text = page(results, imported, (time.monotonic() - begun) / 60)
        report.Markers(report.PAGE, "make bench").put(text)
        print(f"written: {', '.join(str(file.relative_to(REPO)) for file in (report.PAGE, PLOT, RAW))}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
