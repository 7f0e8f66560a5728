"""One comparison of all connections: which runs nobody waits for, and what became of those that were canceled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from airflow_skyvern.compat import since_3_0
from airflow_skyvern.compat.sdk import AirflowNotFoundException
from airflow_skyvern.connection_list import connections_in_environment, connections_of
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernError
from airflow_skyvern.hooks import ServerHook, SkyvernHook
from airflow_skyvern.reconciler.airflow_tasks import AirflowTasks
from airflow_skyvern.runs.lookup import TagsRefused
from airflow_skyvern.runs.orphan_search import Finding, cancel_orphan, find_orphans
from airflow_skyvern.runs.orphans import Rule

if TYPE_CHECKING:
    from airflow_skyvern.client.session import Send

CANCELED, NOT_CANCELED = "canceled", "not canceled"


@dataclass(frozen=True)
class FoundRun:
    """
    A run, and what was decided and done about it.

    :param action: ``canceled`` or ``not canceled``; nothing where nothing was tried.
    """

    skyvern_conn_id: str
    finding: Finding
    action: str = ""

    @property
    def is_left(self) -> bool:
        """Whether it is an orphan that is still active."""
        return self.finding.verdict.orphan and self.action != CANCELED

    def as_row(self) -> dict[str, Any]:
        """Describe the run by column, for a table or JSON."""
        run = self.finding.run
        place = run.place
        return {
            "run_id": run.run_id,
            "orphan": self.finding.verdict.orphan,
            "reason": self.finding.verdict.reason,
            "action": self.action or None,
            "status": run.status,
            "created_at": run.created.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "dag_id": place.dag_id,
            "dag_run_id": place.run_id,
            "task_id": place.task_id,
            "map_index": place.map_index,
            "task_state": self.finding.task_state,
            "conn_id": self.skyvern_conn_id,
        }


class Sweep:
    """
    Compare the active runs of some connections with Airflow's task instances.

    :param report: Told of each problem that left something undone, in one line.
    :param dag_id: Read the connections as a task of this DAG may. Default: regardless of their teams.
    """

    def __init__(
        self,
        *,
        min_age: timedelta,
        report: Callable[[str], object],
        dag_id: str | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
    ) -> None:
        self._min_age = min_age
        self._report = report
        self._dag_id = dag_id
        self._clock = clock
        self._tasks = AirflowTasks()

    def find(
        self, conn_ids: Iterable[str], *, cancel: bool = False, tags: Mapping[str, str] | None = None
    ) -> list[FoundRun]:
        """
        Return each active run that ends with its task, orphans first, and cancel those where that is asked for.

        Two connections may lead to the same runs; each is returned once.

        :param tags: Only runs with these tags too.
        """
        found: dict[str, FoundRun] = {}
        for conn_id in conn_ids:
            for one in self._of_connection(conn_id, cancel=cancel, tags=tags):
                if one.finding.run.run_id not in found:
                    found[one.finding.run.run_id] = one
        return sorted(found.values(), key=lambda one: not one.finding.verdict.orphan)

    def _of_connection(self, conn_id: str, *, cancel: bool, tags: Mapping[str, str] | None) -> Iterator[FoundRun]:
        try:
            with closing(ServerHook(conn_id, dag_id=self._dag_id)) as hook:
                for finding in find_orphans(hook.send, self._tasks, self._rule(), tags):
                    one = FoundRun(conn_id, finding)
                    yield self._canceled(hook.send, one) if cancel and finding.verdict.orphan else one
        except AirflowNotFoundException as error:
            self._report(str(error))
        except (SkyvernError, TagsRefused) as error:
            because = "runs cannot be found by their tags here: " if isinstance(error, TagsRefused) else ""
            self._report(f"connection {conn_id}: {because}{error}")

    def _canceled(self, send: Send, one: FoundRun) -> FoundRun:
        run = one.finding.run
        try:
            result = cancel_orphan(send, self._tasks, self._rule(), run)
        except (SkyvernError, TagsRefused) as error:
            self._report(f"Skyvern run {run.run_id} may still be running. {error}")
            return replace(one, action=NOT_CANCELED)
        if isinstance(result, Finding):
            return replace(one, finding=result)
        if not result.is_final:
            self._report(f"Skyvern run {run.run_id}: cancel requested, but it is still {result.status}")
        return replace(one, action=CANCELED if result.is_final else NOT_CANCELED)

    def _rule(self) -> Rule:
        return Rule(since_3_0.installation(), self._clock(), self._min_age)


def skyvern_connections(*, needs_database: bool = True) -> list[str]:
    """
    Return the ids of all connections of type ``skyvern`` in Airflow's database and in the environment.

    A secrets backend cannot be asked for a list; ``skyvern_default`` is always tried where nothing else is found.

    :param needs_database: Whether those of the environment are not enough, where the database cannot be read.
    :raises SkyvernConfigError: it cannot be read, and is needed.
    """
    try:
        found = connections_of(SkyvernHook.conn_type)
    except SkyvernConfigError:
        if needs_database:
            raise
        found = connections_in_environment(SkyvernHook.conn_type)
    return sorted(found) or [SkyvernHook.default_conn_name]
