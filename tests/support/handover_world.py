"""A Skyvern and an Airflow that both fire, second by second, and a person who may be interrupted anywhere."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_skyvern.models import RunSummary, Schedule
from airflow_skyvern.schedules.airflow_db import KnownDag
from airflow_skyvern.schedules.dag_file import DagFile, DagSection, read_file
from airflow_skyvern.schedules.ownership import skyvern_fires
from airflow_skyvern.testing.fake import views

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

EVERY = timedelta(minutes=5)
SKYVERN_LOOKS_EVERY = 60
AIRFLOW_READS_AFTER = 5


class Killed(BaseException):
    """The process ends here, whatever it was doing."""


class World:
    """
    Time, in which Skyvern checks its schedules once a minute, and Airflow at its DAGs every five seconds.

    :param served: Who served each tick.
    """

    def __init__(self, skyvern: FakeSkyvern, folder: Path, start: datetime, skyvern_phase: int = 45) -> None:
        self.skyvern, self.folder, self.now, self.phase = skyvern, folder, start, skyvern_phase
        skyvern.clock = lambda: self.now
        self.served: dict[datetime, list[str]] = defaultdict(list)
        self.files: dict[tuple[Path, int, int], DagFile | None] = {}
        self.seen: dict[Path, datetime] = {}
        self.paused: dict[str, bool] = {}
        self.airflow_reads = True
        self.done: dict[str, datetime] = {}

    def sleep(self, seconds: float) -> None:
        """Let time pass, and the two do their work."""
        for _ in range(int(seconds)):
            self.now += timedelta(seconds=1)
            if self.now.second == self.phase:
                self._skyvern_looks()
            self._airflow_looks()

    @property
    def last_tick(self) -> datetime:
        """The last tick of a */5 schedule."""
        return self.now.replace(minute=self.now.minute - self.now.minute % 5, second=0, microsecond=0)

    def schedule(self, schedule_id: str) -> Schedule:
        return Schedule.model_validate(self.skyvern.schedules[schedule_id].view)

    def runs(self, schedule_id: str, since: datetime) -> list[RunSummary]:
        rows = [run for run in self.skyvern.runs.values() if run.created_at >= since]
        return [RunSummary.model_validate(views.workflow_row(run)) for run in rows]

    def _skyvern_looks(self) -> None:
        tick = self.last_tick
        for schedule_id, made in self.skyvern.schedules.items():
            due = made.enabled and tick >= made.modified_at
            if due and not any(run.workflow_schedule_id == schedule_id for run in self.runs(schedule_id, tick)):
                self.skyvern.fire(schedule_id, self.now)
                self.served[tick].append("Skyvern")

    def _airflow_looks(self) -> None:
        tick = self.last_tick
        if self.now.second % 5:
            return
        for block in self.known():
            if self.paused[block.dag_id] or tick < max(block.start, self.done.get(block.dag_id, tick)):
                continue
            if self.done.get(block.dag_id) == tick:
                continue
            self.done[block.dag_id] = tick
            runs = lambda: self.runs(block.schedule_id, tick)  # noqa: B023, E731  called at once
            if skyvern_fires(self.schedule(block.schedule_id), tick, runs) is None:
                self.served[tick].append("Airflow")

    def _read(self, path: Path) -> DagFile | None:
        """Read a file, or remember what it said."""
        state = path.stat()
        key = (path, state.st_mtime_ns, state.st_ino)
        if key not in self.files:
            self.files[key] = read_file(path.read_text())
        return self.files[key]

    def known(self) -> list[DagSection]:
        """The DAGs that Airflow has read."""
        blocks: list[DagSection] = []
        for path in self.folder.glob("*.py") if self.airflow_reads else ():
            seen = self.seen.setdefault(path, self.now)
            file = self._read(path)
            if file is not None and self.now - seen >= timedelta(seconds=AIRFLOW_READS_AFTER):
                for block in file.blocks:
                    self.paused.setdefault(block.dag_id, block.paused)
                    blocks.append(block)
        return blocks


class AirflowOfWorld:
    """What the hand-over asks of Airflow, answered by the world; files are parsed by the real one."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.variables: set[str] = set()

    def dags_of(self, schedule_id: str) -> list[KnownDag]:
        return [self._known(block) for block in self.world.known() if block.schedule_id == schedule_id]

    def _known(self, block: DagSection) -> KnownDag:
        world = self.world
        file = next(path for path in world.folder.glob("*.py") if block.dag_id in path.read_text())
        parsed_at = datetime.fromtimestamp(file.stat().st_mtime + 1, timezone.utc)
        next_run = max(block.start, world.last_tick + EVERY)
        return KnownDag(block.dag_id, str(file), world.paused[block.dag_id], True, parsed_at, next_run, 0)

    def other_dag_ids(self) -> set[str]:
        return set()

    def pause(self, dag_id: str, *, paused: bool) -> None:
        self.world.paused[dag_id] = paused

    def find_problem(self, text: str, schedule_id: str) -> str | None:
        return None if "with DAG(" in text else "no DAG"

    def missing_variables(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if name not in self.variables]


class Interrupting:
    """Kills before or after the n-th call to any of the things it stands before."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.calls = at, 0

    def before(self, thing: Any) -> Any:
        """Stand before a thing."""
        return _Proxy(thing, self)

    def step(self) -> None:
        """Reach the next step at which the process may end."""
        self.calls += 1
        if self.calls == self.at:
            raise Killed


class _Proxy:
    def __init__(self, thing: Any, interrupting: Interrupting) -> None:
        self._thing, self._interrupting = thing, interrupting

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._thing, name)
        return self._wrapped(found) if callable(found) else found

    def _wrapped(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self._interrupting.step()
            result = function(*args, **kwargs)
            self._interrupting.step()
            return result

        return call
