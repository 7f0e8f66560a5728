"""What ``make bench RIG=latency`` observed: what is wrong with it, and its tables in docs/performance.md."""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.contenders import contender, versions
from benchmarks.providers import KINDS, PROVIDERS
from benchmarks.report import machine, table
from benchmarks.verdict import nearest_rank

SECONDS_PER_END = 4.0
"""Seconds between two ends: the two visits that follow one have left the workers when the next one comes."""


@dataclass(frozen=True)
class Pair:
    """
    A job, the task that ran it, and the next task; moments in seconds since the epoch, NaN for what did not happen.

    :param job: The id of the job.
    :param states: The final states of both tasks.
    :param ended: When the job ended at the server.
    :param noticed: When the server first answered that it has ended.
    :param task_ended: When the task ended.
    :param next_started: When the next task started.
    :param visits: Seconds for which each visit of the task occupied a worker, by the state that it left the task in.
    :param cpu: CPU seconds that the process of each visit took.
    :param empty: Seconds for which the next task, which does nothing, occupied a worker, and its CPU seconds.
    """

    job: str
    states: tuple[str | None, str | None]
    ended: float
    noticed: float
    task_ended: float
    next_started: float
    visits: Mapping[str, float]
    cpu: Sequence[float]
    empty: tuple[float, float]

    @property
    def latency(self) -> float:
        """Seconds from the end of the job to the start of the next task."""
        return self.next_started - self.ended

    @property
    def parts(self) -> tuple[float, float, float]:
        """Return of what the latency consists: the end is noticed, the task ends, and the next one starts."""
        return self.noticed - self.ended, self.task_ended - self.noticed, self.next_started - self.task_ended

    @property
    def occupied(self) -> float:
        """Seconds for which both visits occupied a worker."""
        return sum(self.visits.values())


@dataclass(frozen=True)
class Group:
    """The pairs of one DAG."""

    provider: str
    kind: str
    pairs: Sequence[Pair]

    @property
    def label(self) -> str:
        """The provider as the page names it."""
        return contender(self.provider).label

    def percentile(self, percent: float, value: Callable[[Pair], float]) -> float:
        """Return a percentile by the nearest rank."""
        return nearest_rank(sorted(map(value, self.pairs)), percent)


def faults(groups: Iterable[Group], started: Mapping[str, int], refused: Mapping[str, int]) -> list[str]:
    """
    Return what is wrong with a measurement.

    :param started: How many jobs each service has started.
    :param refused: What the server refused, and how often.
    """
    found = [f"the server refused {count} x {request}" for request, count in refused.items()]
    jobs: dict[str, set[str]] = {name: set() for name in started}
    tasks: Counter[str] = Counter()
    for group in groups:
        found += [f"{group.provider}_{group.kind}: {fault}" for fault in _faults_of(group.pairs)]
        jobs[group.provider] |= {pair.job for pair in group.pairs}
        tasks[group.provider] += len(group.pairs)
    found += [
        f"{name}: {len(jobs[name])} tasks have a job of their own and {count} jobs were started, of {tasks[name]}"
        for name, count in started.items()
        if not len(jobs[name]) == count == tasks[name]
    ]
    return found


def _faults_of(pairs: Sequence[Pair]) -> Iterator[str]:
    bad = Counter(pair.states for pair in pairs if pair.states != ("success", "success"))
    yield from (f"{count} jobs have succeeded and their tasks are {states}" for states, count in bad.items())
    early = [pair.job for pair in pairs if not all(part >= 0 for part in pair.parts)]
    if early:
        yield f"jobs that nobody saw end, or whose tasks did not follow: {early[:5]}"
    visits = [pair.job for pair in pairs if pair.visits.keys() != {"deferred", "success"} or len(pair.cpu) != 2]
    if visits:
        yield f"jobs whose task had not one visit to defer and one to end: {visits[:5]}"


def text(groups: Sequence[Group]) -> str:
    """Write the results as Markdown."""
    installed = ", ".join(f"{name} {number}" for name, number in versions(group.provider for group in groups).items())
    count = sum(len(group.pairs) for group in groups)
    return (
        f"`make bench RIG=latency` on {machine()}, load average {os.getloadavg()[1]:.1f}: {count} jobs, "
        f"{len(groups[0].pairs)} of each row, ended one by one, {SECONDS_PER_END:.0f} s apart, in one measurement. "
        f"Each task had one job, and succeeded after it.\n\n{tables(groups)}\nMeasured: {installed}.\n"
    )


def tables(groups: Sequence[Group]) -> str:
    """Write a table for each kind of interval."""
    heads = {"same": "the same interval", "default": "the default interval"}
    return "\n".join(
        _table(heads[kind], [group for group in groups if group.kind == kind])
        for kind in KINDS
        if any(group.kind == kind for group in groups)
    )


def _table(head: str, groups: Sequence[Group]) -> str:
    columns = [
        head,
        "interval",
        "from the end of the job to the start of the next task: p50 / p95",
        "the end is noticed",
        "its task ends",
        "the next task starts",
        "worker seconds per task",
        "CPU seconds per task",
        "of an empty task: worker / CPU",
    ]
    return table(columns, map(_row, groups))


def _row(group: Group) -> list[str]:
    worker, cpu = (statistics.median(values) for values in zip(*(pair.empty for pair in group.pairs), strict=True))
    middle, late = (group.percentile(percent, lambda pair: pair.latency) for percent in (50, 95))
    return [
        group.label,
        f"{PROVIDERS[group.provider].seconds(group.kind):g} s",
        f"**{middle:.1f} / {late:.1f} s**",
        *(f"{statistics.median(part):.1f} s" for part in zip(*(pair.parts for pair in group.pairs), strict=True)),
        f"{statistics.median(pair.occupied for pair in group.pairs):.2f} s",
        f"{statistics.median(sum(pair.cpu) for pair in group.pairs):.2f} s",
        f"{worker:.2f} / {cpu:.2f} s",
    ]
