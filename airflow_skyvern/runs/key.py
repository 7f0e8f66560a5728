"""The names that a run carries, by which a later try of its task finds it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_skyvern.exceptions import SkyvernConfigError

if TYPE_CHECKING:
    from airflow_skyvern.client.run_request import RunRequest

GROUP_TAG = "airflow_key"
TASK_TAG = "airflow_task_key"
READABLE_TAGS = ("airflow_dag_id", "airflow_task_id", "airflow_run_id")
ENDS_WITH_TASK_TAG = "airflow_ends_with_task"
"""
Only on runs that their task waits for and that are canceled with it: a run that may outlive its task has no such tag,
so nothing that compares Skyvern's runs with Airflow's tasks ever takes it for an orphan.
"""
ENDS_WITH_TASK = {ENDS_WITH_TASK_TAG: "yes"}
OUR_TAGS = frozenset({GROUP_TAG, TASK_TAG, *READABLE_TAGS, ENDS_WITH_TASK_TAG})

MOST_METADATA = 20

LONGEST_VALUE = 256


@dataclass(frozen=True)
class RunKey:
    """
    The names that a run carries: which task instance started it, and for which attempt group.

    :param group: Of the attempt group. For a mapped task also of its input, as another item may come to stand
        at the same index.
    :param task: Of the task instance, whatever the group: what a clear finds its predecessor by.
    :param readable: Tags for people who find the run in Skyvern.
    :param group_parts: What the group's tag is made of.
    :param names_airflow: Whether the task's tag holds the address of this Airflow, so that no other one has it.
    """

    group: str
    task: str
    readable: Mapping[str, str]
    group_parts: tuple[Any, ...] = ()
    names_airflow: bool = False

    @classmethod
    def of(
        cls,
        *,
        dag_id: str,
        run_id: str,
        task_id: str,
        map_index: int,
        max_tries: int,
        request: RunRequest,
        run_started: str = "",
        airflow: str = "",
    ) -> RunKey:
        """
        Derive the key; ids of any length and alphabet give a key within the API's limits.

        :param run_started: When the DAG run has started. It stays the same as long as the DAG run is not over,
            and tells apart what has the same ids: the same DAG on another Airflow, and a DAG run that was
            deleted and made again.
        :param airflow: The address of this Airflow, if it has one of its own, which tells its tasks from those of
            another one that shares the Skyvern organization. A clear of a finished DAG run changes when it has
            started, so the predecessor's run cannot be found by that.
        """
        instance = [dag_id, run_id, task_id, map_index]
        item = request.body() if map_index >= 0 else None
        name = task_id if map_index < 0 else f"{task_id}[{map_index}]"
        return cls(
            group=_digest([*instance, run_started, max_tries, item]),
            task=task_tag(dag_id, run_id, task_id, map_index, airflow),
            readable=dict(zip(READABLE_TAGS, map(tag_value, (dag_id, name, run_id)), strict=True)),
            group_parts=(*instance, run_started, max_tries, item),
            names_airflow=bool(airflow),
        )

    def earlier_groups(self) -> set[str]:
        """
        Return the tags that earlier attempt groups of this task instance had, as long as its DAG run was not over.

        They hold when the DAG run has started, to the microsecond, so no other Airflow has the same.
        """
        *before, max_tries, item = self.group_parts
        return {_digest([*before, earlier, item]) for earlier in range(max_tries)}

    @property
    def tags(self) -> dict[str, str]:
        """Everything that is sent as run metadata."""
        return {GROUP_TAG: self.group, TASK_TAG: self.task, **self.readable}


def task_tag(dag_id: str, run_id: str, task_id: str, map_index: int, airflow: str) -> str:
    """Return the tag that all runs of a task instance carry, see :class:`RunKey`."""
    return _digest([dag_id, run_id, task_id, map_index, airflow])


def check_metadata(metadata: Mapping[str, str] | None) -> None:
    """
    Check that the user's own run metadata leaves room for the key.

    :raises SkyvernConfigError: it uses a name of ours, or too many entries.
    """
    if clash := sorted(OUR_TAGS & set(metadata or {})):
        raise SkyvernConfigError(
            f"run_options.run_metadata: {', '.join(clash)} is used by the provider; choose another name."
        )
    if len(metadata or {}) > MOST_METADATA - len(OUR_TAGS):
        raise SkyvernConfigError(
            f"run_options.run_metadata: at most {MOST_METADATA - len(OUR_TAGS)} entries, "
            f"as the provider adds {len(OUR_TAGS)} of the {MOST_METADATA} that Skyvern allows."
        )


def _digest(parts: list[Any]) -> str:
    text = json.dumps(parts, ensure_ascii=True, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def tag_value(text: str) -> str:
    """Fit an Airflow id into a tag: Skyvern's filter splits values at commas."""
    return text.replace(",", "_").strip()[:LONGEST_VALUE] or "-"
