"""The jobs that the benchmark's servers hold."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.plan import Plan

FIRST_ID = 700_000_000
"""Id of the first job; every other one adds its number."""


class Jobs:
    """The jobs of one measurement as the server sees them: those of a plan."""

    def __init__(self, plan: Plan) -> None:
        self._born = [plan.zero + job.born for job in plan.jobs]
        self._ends = [plan.zero + job.ends for job in plan.jobs]

    def start(self, now: float) -> int | None:
        """Start a job and return its number; None, because the plan has all jobs."""

    def __len__(self) -> int:
        return len(self._ends)

    def has_ended(self, number: int, now: float) -> bool:
        """Whether a job has ended."""
        return now >= self._ends[number]

    def active(self, now: float) -> list[int]:
        """Return the jobs that run, newest first."""
        both = zip(self._born, self._ends, strict=True)
        return [number for number, (born, ends) in enumerate(both) if born <= now < ends][::-1]

    def number(self, identifier: str | int) -> int | None:
        """Return the number of the job with an id."""
        number = int(identifier) - FIRST_ID
        return number if 0 <= number < len(self) else None


class StartedJobs(Jobs):
    """Jobs that operators start. Each runs until :meth:`end` says when it ends."""

    def __init__(self) -> None:
        self._born = []
        self._ends = []

    def start(self, now: float) -> int:
        """Start a job and return its number."""
        self._born.append(now)
        self._ends.append(math.inf)
        return len(self) - 1

    def end(self, number: int, moment: float) -> None:
        """Let a job end at a moment."""
        self._ends[number] = moment
