"""
`python -m tests.faults.shown NUMBER`: one kind of fault, many times, on real servers.

1
    Fifty deferred tasks wait while a gateway answers everything for 30 s: first a redirect to a login page, then a
    JSON 404. All succeed, with one run each. A round takes about four minutes.
2
    Task and supervisor stand still right before the start is sent, until the retry has acted: one run.
3
    The task, its supervisor or both are asked to end before the search of a retry, and at each kind of resumption: no
    run is canceled.
4
    The key is refused for 20 to 60 s: to a retry, a worker, a resumed task, a sensor in mode="reschedule".
5
    One task runs the operator for A, B and C, and fails once: each has its own run and result, or none is started.

The table and the exit status are those of `make faults`.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from random import Random

from tests.faults import run
from tests.faults.catalogue import STORED, WAITS, Fault
from tests.faults.driver import Driver, gateway, name_of, say

KINDS = {
    "2": "stalled before the start",
    "3": "SIGTERM before|SIGTERM at",
    "4": "key refused",
    "5": "A, B, C",
}
ANSWERS = ("302 to a login page", "404 of Spring")
SECONDS = 30.0
PAUSE = 15.0
"""Seconds between two answers, in which the waits go on."""

TIMEOUT = 600.0
DEFERRED_WITHIN = 170.0
"""Seconds after which the gateway answers even if not all tasks are deferred."""


def answer_when_all_wait(driver: Driver, names: list[str]) -> None:
    """Let the gateway answer once all of these executions are deferred."""
    until = time.monotonic() + DEFERRED_WITHIN
    while time.monotonic() < until:
        if all(driver.executions[name].row.state == "deferred" for name in names):
            break
        time.sleep(1)
    for answer in ANSWERS:
        waiting = [one for name in names if (one := driver.executions[name]).row.state == "deferred"]
        for one in waiting:
            one.events.append(answer)
        driver.event_log.append((f"gateway, {answer}", len(waiting)))
        gateway(answer, SECONDS, acted=False)(driver)
        time.sleep(PAUSE)


def many_waits(version: str, times: int, waits: int, seed: int) -> int:
    """Run rounds of deferred tasks beside the answers of a gateway."""
    rng = Random(seed)
    fault = Fault("wait", workflows=(WAITS,), ways=("deferred",), runs=STORED)
    with run.suite(version, rng, waits, durable=True, own=[], timeout=TIMEOUT) as driver:
        with driver.leaks:
            for number in range(times):
                first = number * waits
                say(f"round {number + 1} of {times}")
                names = [name_of(first + index) for index in range(waits)]
                driver.plan([("deferred", fault)] * waits, first)
                beside = threading.Thread(target=answer_when_all_wait, args=(driver, names), daemon=True)
                beside.start()
                driver.run(names, [], run.LONGEST)
                beside.join(60)
            run.wait_for_the_last_cancels(driver)
        return run.report(driver, durable=True, deadline=TIMEOUT)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults.shown", description="One kind of fault, many times."
    )
    parser.add_argument("number", choices=["1", *KINDS])
    parser.add_argument("--times", type=int, default=10, help="how often each (default: 10)")
    parser.add_argument("--waits", type=int, default=50, help="how many tasks wait at once, for 1 (default: 50)")
    parser.add_argument("--seed", type=int, default=19)
    parser.add_argument("--airflow", default=os.environ.get("AIRFLOW") or "3.3")
    given = parser.parse_args()
    if given.number == "1":
        return many_waits(given.airflow, given.times, given.waits, given.seed)
    os.environ |= {
        "ONLY": KINDS[given.number],
        "TIMES": str(given.times),
        "EVENTS": "none",
        "SEED": str(given.seed),
        "AIRFLOW": given.airflow,
    }
    return run.main()


if __name__ == "__main__":
    sys.exit(run.until_interrupted(main))
