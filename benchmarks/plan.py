"""
The schedule of one measurement, fixed beforehand, so that server and event loop need not communicate.

A measurement has three phases. *warm-up*: all waits begin at once, and nothing is counted. *steady*: no job ends;
this measures what waiting costs. *ends*: jobs end, spread over the phase; this measures how soon ends are noticed.
A new job takes the slot of each one that has ended, so the number of waits never changes.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import pairwise

PHASES = ("warm-up", "steady", "ends")

AFTER_INTERVALS = 3
"""
The least number of intervals between two ends in one slot: one until the end is noticed, and two, or the 8 s before
SkyvernRunTrigger polls for the first time, until the next job is polled like any other.
"""


@dataclass(frozen=True)
class Job:
    """One job: its slot, its begin and its end, in seconds since the measurement's zero."""

    slot: int
    born: float
    ends: float


@dataclass(frozen=True)
class Plan:
    """
    One measurement.

    :param waits: Waits at any time.
    :param interval: Seconds between two polls, an argument of every trigger.
    :param steady: Seconds in which no job ends.
    :param ends: Seconds over which the ends are spread.
    :param ending: How many jobs end.
    :param zero: When it begins, in seconds since the epoch.
    :param warm_up: Seconds before anything is counted.
    :param grace: Seconds after the last phase until ends that were not noticed count as missed.
    """

    contender: str
    waits: int
    interval: float
    steady: float
    ends: float
    ending: int
    zero: float = 0.0
    warm_up: float = 12.0
    grace: float = 12.0

    def __post_init__(self) -> None:
        most = self.waits * max(1, math.floor(self.ends / (AFTER_INTERVALS * self.interval)))
        if self.ending > most:
            raise ValueError(f"ending={self.ending}: {self.waits} slots can have {most} ends in {self.ends} s")

    @cached_property
    def boundaries(self) -> tuple[float, ...]:
        """When the phases begin, and when the last one ends, in seconds since the epoch."""
        moments = [self.zero]
        for seconds in (self.warm_up, self.steady, self.ends):
            moments.append(moments[-1] + seconds)
        return tuple(moments)

    def phase(self, now: float) -> str | None:
        """Return the phase at a moment; None before and after."""
        for name, (begin, end) in zip(PHASES, pairwise(self.boundaries), strict=True):
            if begin <= now < end:
                return name
        return None

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        """All jobs: first those that run from the beginning, one for each slot."""
        source = random.Random(self.contender and f"{self.waits}/{self.ending}")
        step = self.ends / self.ending if self.ending else 0.0
        first = self.warm_up + self.steady
        moments = [first + step * (number + source.random()) for number in range(self.ending)]
        slots = [moments[slot :: self.waits] for slot in range(self.waits)]
        first_ones, later_ones = [], []
        for slot, ends in enumerate(slots):
            chain = [Job(slot, born, end) for born, end in zip([0.0, *ends], [*ends, math.inf], strict=True)]
            first_ones.append(chain[0])
            later_ones += chain[1:]
        return (*first_ones, *later_ones)

    @cached_property
    def successors(self) -> dict[int, int]:
        """Which job takes the slot of which, by number."""
        found: dict[int, int] = {}
        last: dict[int, int] = {}
        for number, job in enumerate(self.jobs):
            if job.slot in last:
                found[last[job.slot]] = number
            last[job.slot] = number
        return found

    def to_json(self) -> str:
        """Write the plan for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what :meth:`to_json` wrote."""
        return cls(**json.loads(text))
