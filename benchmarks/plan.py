"""
What happens when in one measurement: agreed on beforehand, so that server and event loop need not talk.

A measurement has three phases. *warm-up*: all waits begin at once, and nothing is counted. *steady*: nothing ends;
this is what waiting costs. *ends*: jobs end, spread over the phase; this is how soon that is noticed. The place of a
job that has ended is taken by a new one, so the number of waits never changes.
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
How many intervals at least lie between two ends in one place: one until the end is seen, and two, or the 8 s that
SkyvernRunTrigger lets pass before its first look, until the next job is watched as any other.
"""


@dataclass(frozen=True)
class Job:
    """One job: in which place, when it begins and ends; in seconds since the measurement's zero."""

    place: int
    born: float
    ends: float


@dataclass(frozen=True)
class Plan:
    """
    One measurement.

    :param waits: How many waits there are at any time.
    :param interval: Seconds between two looks that every trigger is told.
    :param steady: Seconds in which nothing ends.
    :param ends: Seconds over which ends are spread.
    :param ending: How many jobs end.
    :param zero: When it begins, in seconds since the epoch.
    :param warm_up: Seconds before anything is counted.
    :param grace: Seconds after which ends that were not noticed are given up, counted from the last phase's end.
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
            raise ValueError(f"ending={self.ending}: {self.waits} places can have {most} ends in {self.ends} s")

    @cached_property
    def boundaries(self) -> tuple[float, ...]:
        """When the phases begin, and when the last one ends, in seconds since the epoch."""
        moments = [self.zero]
        for seconds in (self.warm_up, self.steady, self.ends):
            moments.append(moments[-1] + seconds)
        return tuple(moments)

    def phase(self, now: float) -> str | None:
        """Tell the phase at a moment; None before and after."""
        for name, (begin, end) in zip(PHASES, pairwise(self.boundaries), strict=True):
            if begin <= now < end:
                return name
        return None

    @cached_property
    def jobs(self) -> tuple[Job, ...]:
        """All jobs: first those that are there from the beginning, one for each place."""
        source = random.Random(self.contender and f"{self.waits}/{self.ending}")
        step = self.ends / self.ending if self.ending else 0.0
        first = self.warm_up + self.steady
        moments = [first + step * (number + source.random()) for number in range(self.ending)]
        places = [moments[place :: self.waits] for place in range(self.waits)]
        first_ones, later_ones = [], []
        for place, ends in enumerate(places):
            chain = [Job(place, born, end) for born, end in zip([0.0, *ends], [*ends, math.inf], strict=True)]
            first_ones.append(chain[0])
            later_ones += chain[1:]
        return (*first_ones, *later_ones)

    @cached_property
    def successors(self) -> dict[int, int]:
        """Tell which job takes the place of which."""
        found: dict[int, int] = {}
        last: dict[int, int] = {}
        for number, job in enumerate(self.jobs):
            if job.place in last:
                found[last[job.place]] = number
            last[job.place] = number
        return found

    def to_json(self) -> str:
        """Write the plan for another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what :meth:`to_json` wrote."""
        return cls(**json.loads(text))
