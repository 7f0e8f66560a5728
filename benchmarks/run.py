"""
``make bench``: our trigger and those of other providers, side by side, at growing numbers of waits.

``N=`` and ``PEERS=`` (comma-separated) narrow it. A run of everything writes docs/performance.md and the plots; a
narrowed one only prints. Ends with an error, and writes nothing, if any trigger is found to be broken.
"""

from __future__ import annotations

import json
import math
import os
import platform
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from benchmarks.contenders import CONTENDERS, OURS, Contender, contender
from benchmarks.plan import AFTER_INTERVALS, Plan
from benchmarks.verdict import Result, result
from dev.peer import write_certificate
from dev.process import RigError

REPO = Path(__file__).resolve().parent.parent
WAITS = (10, 100, 1000, 5000)
INTERVAL = 5.0
START_SECONDS = 90.0
ENOUGH_ENDS = 100
"""Ends from which a 99th percentile can be told, where there are as many waits."""

FEW = 100
"""Up to this number of waits all contenders are measured at once: together they leave the processors idle."""

SLACK = 90.0
"""Seconds that a measurement may take longer than planned before it is ended."""


class Child:
    """A process of ours that prints a line of JSON when something is ready."""

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
            raise RigError(f"{self.name} said nothing for {seconds:.0f} s\n{self._tail()}") from None
        if not text:
            raise RigError(f"{self.name} ended with exit status {self._process.wait(10)}\n{self._tail()}")
        return json.loads(text)

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """End it for certain."""
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
        self._server = Child("server", ["-m", "benchmarks.server", str(certificate)], self._env, folder / "server.log")
        self._address = f"127.0.0.1:{self._server.line(START_SECONDS)}"
        self._ask = httpx.Client(
            base_url=f"https://{self._address}", verify=str(certificate), trust_env=False, timeout=60
        )

    def close(self) -> None:
        """End the server; raises RigError if it was asked things that no service knows."""
        strays = self._ask.get("/_strays").raise_for_status().json()
        self._ask.close()
        self._server.end()
        if strays:
            raise RigError(f"requests that belong to no service: {strays}")

    def measure(self, plans: Iterable[Plan]) -> Iterator[tuple[Result, dict[str, Any]]]:
        """Carry plans out at the same time, and return results with what they are made from."""
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

    def _loop(self, who: Contender) -> Child:
        env = {**self._env, **who.environment(self._address)}
        log = self._folder / f"{who.name}.log"
        return Child(who.label, ["-m", "benchmarks.loop", self._address], env, log)

    def _begin(self, plan: Plan, child: Child, zero: float) -> Plan:
        plan = replace(plan, zero=zero)
        self._ask.post("/_plan", content=plan.to_json()).raise_for_status()
        child.tell(plan.to_json())
        return plan

    def _finish(self, plan: Plan, child: Child) -> tuple[Result, dict[str, Any]]:
        observed = child.line(plan.boundaries[-1] + plan.grace + SLACK - time.time())
        seen = self._ask.get(f"/_seen/{plan.contender}").raise_for_status().json()
        return result(plan, seen, observed), {"plan": json.loads(plan.to_json()), "seen": seen, "observed": observed}


@contextmanager
def bench() -> Iterator[Bench]:
    """Start a server, and leave nothing behind; the logs of what failed are kept and named."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    made = Bench(folder)
    try:
        yield made
    finally:
        made.close()


def plan_of(name: str, waits: int, *, interval: float = INTERVAL) -> Plan:
    """Plan a measurement; few waits take longer, as they have few ends at a time."""
    ends = 60.0 if waits <= FEW // 10 else 25.0
    chances = waits * math.floor(ends / (AFTER_INTERVALS * interval))
    ending = min(max(ENOUGH_ENDS, waits // 5), chances)
    return Plan(name, waits, interval, steady=25.0, ends=ends, ending=ending)
