"""Airflow's record of the DAGs, read from its metadata database as Airflow's own command line does."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_skyvern.compat import internals, since_3_0, since_3_1
from airflow_skyvern.schedules.dag_file import TAG_PREFIX, tag_of

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

ACTIVE_RUNS = ("queued", "running")


@dataclass(frozen=True)
class KnownDag:
    """
    A DAG as Airflow has recorded it.

    :param file: The path of its file.
    :param present: Whether Airflow still finds it, and its file has no import errors.
    :param parsed_at: When Airflow last read the file.
    :param next_run: When Airflow starts its next run.
    :param active_runs: How many of its runs are queued or running.
    """

    dag_id: str
    file: str
    paused: bool
    present: bool
    parsed_at: datetime | None
    next_run: datetime | None
    active_runs: int

    @property
    def fires(self) -> bool:
        """Whether Airflow starts runs of it."""
        return self.present and not self.paused

    @property
    def state(self) -> str:
        """One word for a table: ``active``, ``paused`` or ``missing``."""
        if not self.present:
            return "missing"
        return "paused" if self.paused else "active"


class AirflowDatabase:
    """
    The Airflow of this environment: its settings, its database.

    :raises SkyvernConfigError: the database cannot be read.
    """

    def dags_of(self, schedule_id: str) -> list[KnownDag]:
        """Find the DAGs that carry the tag of a schedule."""
        return self.dags().get(schedule_id, [])

    def dags(self) -> dict[str, list[KnownDag]]:
        """Return the DAGs of all schedules, by the schedule's id."""
        from airflow.models.dag import DagModel, DagTag
        from sqlalchemy import select

        with internals.database_session() as session:
            tags = session.execute(select(DagTag.name, DagTag.dag_id).where(DagTag.name.like(f"{TAG_PREFIX}%"))).all()
            found: dict[str, list[KnownDag]] = {}
            for name, dag_id in tags:
                if (model := session.get(DagModel, dag_id)) is not None:
                    found.setdefault(name.removeprefix(TAG_PREFIX), []).append(_known(session, model))
            return found

    def other_dag_ids(self) -> set[str]:
        """Return the ids of all DAGs that are not of schedules."""
        from airflow.models.dag import DagModel, DagTag
        from sqlalchemy import select

        with internals.database_session() as session:
            ours = select(DagTag.dag_id).where(DagTag.name.like(f"{TAG_PREFIX}%"))
            return set(session.scalars(select(DagModel.dag_id).where(DagModel.dag_id.not_in(ours))))

    def pause(self, dag_id: str, *, paused: bool) -> None:
        """Pause a DAG, or unpause it."""
        from airflow.models.dag import DagModel

        with internals.database_session() as session:
            model = session.get(DagModel, dag_id)
            if model is not None:
                model.is_paused = paused

    def find_problem(self, text: str, schedule_id: str) -> str | None:
        """Parse a DAG file as this Airflow does, and return what is wrong with it, or None."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "exported_schedule.py"
            path.write_text(text)
            bag = since_3_1.dag_bag(path)
        if bag.import_errors:
            return "; ".join(str(error).strip().splitlines()[-1] for error in bag.import_errors.values())
        if not any(tag_of(schedule_id) in dag.tags for dag in bag.dags.values()):
            return f"none of its DAGs has the tag {tag_of(schedule_id)}"
        return None

    def missing_variables(self, names: Iterable[str]) -> list[str]:
        """Return the names of the Airflow Variables that are not set."""
        from airflow.models.variable import Variable

        return [name for name in names if Variable.get(name, default_var=None) is None]


def preferred_dag(dags: Iterable[KnownDag]) -> KnownDag | None:
    """Return the DAG that fires, else one that is there, else any."""
    return max(dags, key=lambda dag: (dag.fires, dag.present), default=None)


def dags_folder() -> Path:
    """Return Airflow's DAG folder."""
    from airflow.configuration import conf

    return Path(conf.get_mandatory_value("core", "dags_folder"))


def _known(session: Session, model: Any) -> KnownDag:
    from airflow.models.dagrun import DagRun
    from sqlalchemy import func, select

    active = select(func.count()).where(DagRun.dag_id == model.dag_id, DagRun.state.in_(ACTIVE_RUNS))
    return KnownDag(
        dag_id=model.dag_id,
        file=model.fileloc or "",
        paused=bool(model.is_paused),
        present=since_3_0.is_present(model) and not model.has_import_errors,
        parsed_at=model.last_parsed_time,
        next_run=model.next_dagrun_create_after,
        active_runs=int(session.scalar(active) or 0),
    )
