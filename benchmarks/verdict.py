"""
From what server and event loop saw to numbers, and to what is wrong with them.

A cheap trigger may just be a broken one. So every measurement is checked before it is compared: was each job looked
at as often as was asked for, was each end noticed, was nothing reported that had not happened?
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
"""Share of the time beyond which an event loop that never rests counts as overloaded: it may be late then."""

TOO_FEW, TOO_MANY = 0.5, 1.3
"""How often each job is looked at, at least, and all jobs together, at most; as a share of what was asked for."""


@dataclass(frozen=True)
class Result:
    """
    One measurement's numbers.

    :param cpu: CPU seconds of the event loop's process per minute, while nothing ends.
    :param cpu_ends: The same while jobs end.
    :param requests: Requests per interval, while nothing ends.
    :param connections: Connections opened per interval, while nothing ends.
    :param stall: The longest time in seconds for which the loop served nobody, after the start.
    :param stall_cpu: The same, counting CPU seconds alone.
    :param collector: The longest run of Python's garbage collector, which is a stall, too.
    :param stall_start: The same while all waits begin.
    :param growth_mb: Most resident memory over that of an idle triggerer.
    :param looks: Looks at jobs as a share of those asked for.
    :param busy: Share of the time for which the loop served nobody else.
    :param server_busy: CPU share of the API server, of one processor.
    :param others_busy: CPU share of everything else on the machine, of one processor.
    :param stolen: What the host of a virtual machine kept from it, as a share of one processor, in the worst phase.
    :param begun: How many of the waits had begun at all in the end.
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
    looks: float
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
        """Whether the loop could not keep up, so that its cost says less than is asked of it."""
        return self.busy > OVERLOADED

    def latency(self, percent: float) -> float:
        """Return a percentile of the latency by the nearest rank; infinite where an end was not noticed."""
        ranked = [*self.latencies, *[math.inf] * self.missed]
        return ranked[max(0, math.ceil(percent / 100 * len(ranked)) - 1)] if ranked else math.nan

    def line(self) -> str:
        """Say it in one line."""
        late = "/".join(f"{self.latency(percent):.1f}" for percent in (50, 95, 99))
        return (
            f"{self.contender:10} {self.cpu:7.3f} CPU s/min, {self.requests:7.1f} requests and "
            f"{self.connections:6.1f} connections per tick, stall {self.stall * 1000:5.0f} ms, "
            f"+{self.growth_mb:3.0f} MB, latency {late} s, {self.looks:.0%} of the looks"
        )


def result(plan: Plan, seen: Mapping[str, Any], observed: Mapping[str, Any]) -> Result:
    """Judge one measurement."""
    steady, ends = observed["phases"]["steady"], observed["phases"]["ends"]
    ticks = plan.steady / plan.interval
    looks = seen["looks"]["steady"]
    first_ones = looks[: plan.waits]
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
        looks=sum(looks) / (plan.waits * ticks),
        busy=max(steady["away"] / steady["seconds"], ends["away"] / ends["seconds"]),
        server_busy=max(seen["server_cpu"]["steady"] / plan.steady, seen["server_cpu"]["ends"] / plan.ends),
        others_busy=(seen["machine_cpu"]["steady"] - seen["server_cpu"]["steady"] - steady["cpu"]) / plan.steady,
        stolen=max(seen["stolen_cpu"]["steady"] / plan.steady, seen["stolen_cpu"]["ends"] / plan.ends),
        missed=plan.ending - len(latencies),
        begun=min(observed["begun"], plan.waits),
        latencies=latencies,
    )
    faults = [*_wrong(seen, observed), *_looks(found, first_ones, ticks), *_ends(found)]
    return replace(found, faults=tuple(faults))


def _wrong(seen: Mapping[str, Any], observed: Mapping[str, Any]) -> list[str]:
    faults = [f"{count} x {what}" for what, count in observed["wrong"].items()]
    faults += [f"the server refused {count} x {what}" for what, count in seen["refused"].items()]
    faults += [f"tried to reach {where}, which is not loopback" for where in observed["strays"]]
    if observed["early"]:
        faults.append(f"{observed['early']} jobs were reported to have ended before they had")
    return faults


def _looks(found: Result, looks: Sequence[int], ticks: float) -> list[str]:
    if found.overloaded:
        return [] if found.looks else ["stopped polling: not one look, with a loop that never rests"]
    least, fewest = max(1, math.floor(TOO_FEW * ticks)), min(looks)
    if fewest < least:
        late = sum(count < least for count in looks)
        numbers = f"{ticks:g} intervals (fewest {fewest}, median {statistics.median(looks):g})"
        return [f"stopped polling: {late} of {len(looks)} jobs were looked at less than {least} times in {numbers}"]
    if found.looks > TOO_MANY:
        return [f"polls more often than it is asked to: {found.looks:.0%} of the looks asked for"]
    return []


def _ends(found: Result) -> list[str]:
    if found.missed and not found.overloaded:
        return [f"{found.missed} of {found.missed + len(found.latencies)} ends were not noticed in time"]
    return []
