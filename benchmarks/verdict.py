"""
Numbers from the counts of the server and the event loop, and what is wrong with them.

A cheap trigger may just be a broken one. So every measurement is checked before it is compared: was each job polled
as often as configured, was each end noticed, was nothing reported that had not happened?
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.plan import Plan

OVERLOADED = 0.9
"""An event loop that is busy for more than this share of the time is overloaded: its events may be late."""

TOO_FEW, TOO_MANY = 0.5, 1.3
"""Polls of each job at least, and of all jobs together at most, as a share of those that the interval asks for."""


def nearest_rank(ranked: Sequence[float], percent: float) -> float:
    """Return a percentile of sorted values by the nearest rank; NaN where there are none."""
    return ranked[max(0, math.ceil(percent / 100 * len(ranked)) - 1)] if ranked else math.nan


@dataclass(frozen=True)
class Result:
    """
    One measurement's numbers.

    :param cpu: CPU seconds of the event loop's process per minute, while nothing ends.
    :param cpu_ends: The same while jobs end.
    :param requests: Requests per interval, while nothing ends.
    :param connections: Connections opened per interval, while nothing ends.
    :param stall: The longest time in seconds that the loop was busy without a break, after the start.
    :param stall_cpu: The same, counting CPU seconds alone.
    :param collector: The longest run of Python's garbage collector, which is a stall too.
    :param stall_start: The same while all waits begin.
    :param growth_mb: Highest resident memory, over that of an idle triggerer.
    :param polls: Polls of jobs as a share of those that the interval asks for.
    :param busy: Share of the time that the loop was busy.
    :param server_busy: CPU share of the API server, of one processor.
    :param others_busy: CPU share of everything else on the machine, of one processor.
    :param stolen: CPU share that the host of a virtual machine gave to others, of one processor, in the worst phase.
    :param begun: How many of the waits had begun by the end.
    :param latencies: Sorted seconds from a job's end to the trigger's event.
    """

    contender: str
    waits: int
    cpu: float
    cpu_ends: float
    requests: float
    connections: float
    connections_at_start: int
    stall: float
    stall_cpu: float
    collector: float
    stall_start: float
    growth_mb: float
    idle_mb: float
    polls: float
    busy: float
    server_busy: float
    others_busy: float
    stolen: float
    missed: int
    begun: int
    latencies: tuple[float, ...]
    faults: tuple[str, ...] = ()

    @property
    def overloaded(self) -> bool:
        """Whether the loop could not keep up, so that its CPU time is less than the work would need."""
        return self.busy > OVERLOADED

    def latency(self, percent: float) -> float:
        """Return a percentile of the latency by the nearest rank; infinite where an end was not noticed."""
        ranked = [*self.latencies, *[math.inf] * self.missed]
        return nearest_rank(ranked, percent)

    def line(self) -> str:
        """Return the numbers in one line."""
        late = "/".join(f"{self.latency(percent):.1f}" for percent in (50, 95, 99))
        return (
            f"{self.contender:10} {self.cpu:7.3f} CPU s/min, {self.requests:7.1f} requests and "
            f"{self.connections:6.1f} connections per tick, stall {self.stall * 1000:5.0f} ms, "
            f"+{self.growth_mb:3.0f} MB, latency {late} s, {self.polls:.0%} of the polls"
        )


def result(plan: Plan, seen: Mapping[str, Any], observed: Mapping[str, Any]) -> Result:
    """Compute the numbers of one measurement, and its faults."""
    steady, ends = observed["phases"]["steady"], observed["phases"]["ends"]
    ticks = plan.steady / plan.interval
    polls = seen["polls"]["steady"]
    first_ones = polls[: plan.waits]
    latencies = tuple(sorted(observed["latencies"].values()))
    found = Result(
        contender=plan.contender,
        waits=plan.waits,
        cpu=60 * steady["cpu"] / steady["seconds"],
        cpu_ends=60 * ends["cpu"] / ends["seconds"],
        requests=seen["requests"]["steady"] / ticks,
        connections=seen["connections"]["steady"] / ticks,
        connections_at_start=seen["connections"]["warm-up"],
        stall=max(steady["stall"], ends["stall"]),
        stall_cpu=max(steady["stall_cpu"], ends["stall_cpu"]),
        collector=max(steady["collector"], ends["collector"]),
        stall_start=observed["phases"]["warm-up"]["stall"],
        growth_mb=observed["most_mb"] - observed["idle_mb"],
        idle_mb=observed["idle_mb"],
        polls=sum(polls) / (plan.waits * ticks),
        busy=max(steady["away"] / steady["seconds"], ends["away"] / ends["seconds"]),
        server_busy=max(seen["server_cpu"]["steady"] / plan.steady, seen["server_cpu"]["ends"] / plan.ends),
        others_busy=(seen["machine_cpu"]["steady"] - seen["server_cpu"]["steady"] - steady["cpu"]) / plan.steady,
        stolen=max(seen["stolen_cpu"]["steady"] / plan.steady, seen["stolen_cpu"]["ends"] / plan.ends),
        missed=plan.ending - len(latencies),
        begun=min(observed["begun"], plan.waits),
        latencies=latencies,
    )
    faults = [*_wrong(seen, observed), *_polls(found, first_ones, ticks), *_ends(found)]
    return replace(found, faults=tuple(faults))


def _wrong(seen: Mapping[str, Any], observed: Mapping[str, Any]) -> list[str]:
    faults = [f"{count} x {what}" for what, count in observed["wrong"].items()]
    faults += [f"the server refused {count} x {what}" for what, count in seen["refused"].items()]
    faults += [f"tried to reach {where}, which is not loopback" for where in observed["strays"]]
    if observed["early"]:
        faults.append(f"{observed['early']} jobs were reported to have ended before they had")
    return faults


def _polls(found: Result, polls: Sequence[int], ticks: float) -> list[str]:
    if found.overloaded:
        return [] if found.polls else ["stopped polling: no poll at all, with a loop that is never idle"]
    least, fewest = max(1, math.floor(TOO_FEW * ticks)), min(polls)
    if fewest < least:
        late = sum(count < least for count in polls)
        numbers = f"{ticks:g} intervals (fewest {fewest}, median {statistics.median(polls):g})"
        return [f"stopped polling: {late} of {len(polls)} jobs were polled less than {least} times in {numbers}"]
    if found.polls > TOO_MANY:
        return [f"polls more often than configured: {found.polls:.0%} of the polls that the interval asks for"]
    return []


def _ends(found: Result) -> list[str]:
    if found.missed and not found.overloaded:
        return [f"{found.missed} of {found.missed + len(found.latencies)} ends were not noticed in time"]
    return []
