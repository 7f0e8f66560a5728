"""
Which runs of a workflow have been handed over already: a small value that survives a restart.

Skyvern lists runs by the time they were created, and a run may end long after that, out of order. So a
:class:`Watermark` holds three things: the time up to which every run is known (``since``, one of Skyvern's own
times), the runs created after it that are dealt with (``done``), and those that have not ended (``active``),
however old. Nothing here talks to a server or reads a clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Any

from airflow_skyvern.models import Run, RunSummary

ListedRun = Run | RunSummary

OVERLAP = timedelta(minutes=10)
"""
How far behind the newest run ``since`` stays: a run may appear in lists some time after its creation, and the
clocks of two Skyvern servers may differ.
"""

MARGIN = timedelta(minutes=1)
"""How much longer ``done`` remembers: two lists of Skyvern give the creation of a run a little differently."""

MOST_DONE = 1000
"""Runs kept in ``done``, about 40 kB of JSON; when more are created within :data:`OVERLAP`, it shrinks."""

BEGINNING = datetime(1970, 1, 1, tzinfo=timezone.utc)


def newest(rows: Iterable[ListedRun]) -> datetime | None:
    """Return when the newest of the runs was created."""
    return max((row.created_at for row in rows if row.created_at), default=None)


@dataclass(frozen=True)
class Watermark:
    """
    What is dealt with.

    :param since: Runs created before it are dealt with, but for those in ``active``.
    :param done: Runs created since (about) that are dealt with, and when they were created.
    :param active: Ids of runs that were seen and had not ended; a run that Skyvern retries has not ended.
    """

    since: datetime = BEGINNING
    done: Mapping[str, datetime] = field(default_factory=dict)
    active: frozenset[str] = frozenset()

    @classmethod
    def at(cls, rows: Collection[ListedRun], *, ended_before: datetime | None = None) -> Watermark:
        """
        Return the watermark of a watcher that begins now: what has ended counts as done.

        :param rows: All runs created after some time, and all that are active.
        :param ended_before: Runs that ended at or after this are not dealt with yet.
        """
        old = {
            row.run_id: row
            for row in rows
            if row.is_final and (ended_before is None or row.finished_at is None or row.finished_at < ended_before)
        }
        active = frozenset(row.run_id for row in rows).difference(old)
        return cls(active=active).moved(newest(rows), old.values())

    def take(self, rows: Collection[ListedRun], latest: datetime | None = None) -> tuple[list[ListedRun], Watermark]:
        """
        Return the runs that have ended and are not dealt with, and the watermark once they are.

        :param rows: All runs created since, and what became of the active ones; in any order, also repeated,
            also with older runs among them.
        :param latest: When the newest run was created that was seen at the same time, of any workflow.
        """
        fresh = {row.run_id: row for row in rows if self._concerns(row)}
        ended = [row for row in fresh.values() if row.is_final]
        ended.sort(key=lambda row: (row.finished_at or BEGINNING, row.run_id))
        active = self.active.union(fresh).difference(row.run_id for row in ended)
        return ended, replace(self, active=active).moved(latest or newest(rows), ended)

    def without(self, run_ids: Collection[str]) -> Watermark:
        """Return it with these runs not dealt with after all: they are taken again."""
        done = {run_id: when for run_id, when in self.done.items() if run_id not in run_ids}
        return replace(self, done=done, active=self.active.union(run_ids))

    def forget(self, run_ids: Collection[str]) -> Watermark:
        """Return it without these active runs, which Skyvern does not know any more."""
        return replace(self, active=self.active.difference(run_ids))

    def to_json(self) -> dict[str, Any]:
        """Return what Airflow stores."""
        done = {run_id: when.timestamp() for run_id, when in self.done.items()}
        return {"since": self.since.timestamp(), "done": done, "active": sorted(self.active)}

    @classmethod
    def from_json(cls, value: Any) -> Watermark | None:
        """Read what was stored, or return None if it cannot be read."""
        try:
            done = {str(run_id): _moment(when) for run_id, when in value["done"].items()}
            return cls(_moment(value["since"]), done, frozenset(map(str, value["active"])))
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            return None

    def moved(self, latest: datetime | None, ended: Iterable[ListedRun]) -> Watermark:
        """Add runs to ``done``, let ``since`` follow the newest run, and forget what is older."""
        since = self.since if latest is None else max(self.since, latest - OVERLAP)
        done = {**self.done, **{row.run_id: row.created_at or since for row in ended}}
        if len(done) > MOST_DONE:
            since = max(since, sorted(done.values())[-MOST_DONE])
        kept = {run_id: when for run_id, when in done.items() if when >= since - MARGIN}
        return replace(self, since=since, done=dict(sorted(kept.items(), key=_when)[-MOST_DONE:]))

    def _concerns(self, row: ListedRun) -> bool:
        recent = row.created_at is None or row.created_at >= self.since
        return row.run_id not in self.done and (recent or row.run_id in self.active)


def _when(entry: tuple[str, datetime]) -> datetime:
    return entry[1]


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)
