"""The names that a run carries, by which a later try of its task finds it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.limits import LONGEST_METADATA_VALUE, MOST_METADATA

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
TRACE_TAG = "traceparent"
"""The W3C's name for a position in a trace. The tag leads people from a run to its trace; nothing relies on it."""
OUR_TAGS = frozenset({GROUP_TAG, TASK_TAG, *READABLE_TAGS, ENDS_WITH_TASK_TAG})


class Kin(Enum):
    """How a run with a task instance's tag relates to an attempt group of that task instance."""

    OWN = "started by this attempt group"
    SIBLING = "started by another tool call of the same attempt"
    PREDECESSOR = "started by this task instance, before a clear or for another input"
    UNSURE = "started by this attempt group before its DAG run was queued again, or by a namesake"
    FOREIGN = "started by a namesake, or by a later attempt"


@dataclass(frozen=True)
class Origin:
    """
    The position of an attempt group: the readable end of its tag, by which groups are compared.

    :param max_tries: Airflow's number, which a clear raises.
    :param started: Distinguishes the DAG run from others of the same ids; may change where :class:`RunKey` says so.
    :param created: Distinguishes it from DAG runs with the same ids created at another time; never changes.
    :param item: The input of a mapped task.
    :param call: Which of the tool calls of an agent that the task runs; empty for the run of the task itself.
    """

    max_tries: int
    started: str
    created: str
    item: str
    call: str = ""

    def __str__(self) -> str:
        attempt = f"{self.max_tries}.{self.started}.{self.created}.{self.item}"
        return f"{attempt}.{self.call}" if self.call else attempt

    @classmethod
    def parse(cls, tag: str | None) -> Origin | None:
        """Read the tag of a group; None for anything else."""
        _, _, origin = (tag or "").partition(".")
        number, *rest = origin.split(".")
        all_but_call = len(fields(cls)) - 2
        known = number.isdecimal() and len(rest) in (all_but_call, all_but_call + 1)
        return cls(int(number), *rest) if known else None

    def is_sibling(self, other: Origin) -> bool:
        """Return whether another origin belongs to another tool call of the same attempt."""
        same_attempt = (self.max_tries, self.created) == (other.max_tries, other.created)
        return same_attempt and self.call != other.call


@dataclass(frozen=True)
class RunKey:
    """
    The names that a run carries: which task instance started it, and for which attempt group.

    :param group: The attempt group's name: the task's, and the group's origin. For a mapped task it includes the
        input, as another item may later have the same index.
    :param task: The task instance's name, for all groups: a clear finds its predecessor by it.
    :param origin: The parts of the group that are compared with another group.
    :param readable: Tags for people who find the run in Skyvern.
    :param names_airflow: Whether the task's tag holds the name of this Airflow, so that no other one has it.
    :param start_may_change: Whether the DAG run is known only by its start, which changes when a user queues it
        again.
    """

    group: str
    task: str
    origin: Origin
    readable: Mapping[str, str]
    names_airflow: bool = False
    start_may_change: bool = False

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
        run_created: str = "",
        start_may_change: bool = False,
        airflow: str = "",
        call: str = "",
    ) -> RunKey:
        """
        Derive the key; ids of any length and alphabet give a key within the API's limits.

        :param run_started: When the DAG run has started, or its name in Airflow's database: what identifies it
            with the same ids, of the same DAG on another Airflow, and of a DAG run that was deleted and made again.
        :param run_created: The part of that which never changes.
        :param start_may_change: Whether a user who queues the DAG run again changes ``run_started``.
        :param airflow: The name of this Airflow, if it has its own, which separates its tasks from another Airflow's
            in the same Skyvern organization.
        :param call: The tool call of an agent that the task runs. It identifies the arguments, so the request is not
            part of the key.
        """
        task = task_tag(dag_id, run_id, task_id, map_index, airflow)
        item = request.body() if map_index >= 0 and not call else None
        name = task_id if map_index < 0 else f"{task_id}[{map_index}]"
        started, created, digest = (_digest([part])[:16] for part in (run_started, run_created, item))
        origin = Origin(max_tries, started, created, digest, call)
        return cls(
            group=f"{task}.{origin}",
            task=task,
            origin=origin,
            readable=dict(zip(READABLE_TAGS, map(tag_value, (dag_id, name, run_id)), strict=True)),
            names_airflow=bool(airflow),
            start_may_change=start_may_change,
        )

    def kin(self, tags: Mapping[str, str]) -> Kin:
        """Return how a run with this key's task tag relates to this group."""
        if tags.get(GROUP_TAG) == self.group:
            return Kin.OWN
        other = Origin.parse(tags.get(GROUP_TAG))
        if other is None:
            return Kin.FOREIGN
        if self.origin.is_sibling(other):
            return Kin.SIBLING
        return self._kin_of_attempt(other)

    def _kin_of_attempt(self, other: Origin) -> Kin:
        if (other.started, other.created) == (self.origin.started, self.origin.created):
            return Kin.PREDECESSOR if other.max_tries <= self.origin.max_tries else Kin.FOREIGN
        if not self.start_may_change or other.created != self.origin.created:  # of another DAG run, for certain
            return Kin.PREDECESSOR if self.names_airflow else Kin.FOREIGN
        if other.max_tries == self.origin.max_tries and other.item == self.origin.item:
            return Kin.UNSURE
        earlier = other.max_tries < self.origin.max_tries
        return Kin.PREDECESSOR if earlier and self.names_airflow else Kin.FOREIGN

    def is_of_same_call(self, tags: Mapping[str, str]) -> bool:
        """Return whether a run was started for the same tool call, or both for the task itself."""
        other = Origin.parse(tags.get(GROUP_TAG))
        return other is None or other.call == self.origin.call

    def earlier_groups(self) -> set[str]:
        """Return the tags that earlier attempt groups of this task instance had, under this name of its DAG run."""
        return {f"{self.task}.{replace(self.origin, max_tries=earlier)}" for earlier in range(self.origin.max_tries)}

    @property
    def tags(self) -> dict[str, str]:
        """All run metadata that is sent."""
        return {GROUP_TAG: self.group, TASK_TAG: self.task, **self.readable}


def task_tag(dag_id: str, run_id: str, task_id: str, map_index: int, airflow: str) -> str:
    """Return the tag that all runs of a task instance carry, see :class:`RunKey`."""
    return _digest([dag_id, run_id, task_id, map_index, airflow])


def call_tag(agent: str, arguments: Mapping[str, Any], number: int) -> str:
    """
    Return a name that distinguishes a tool call from its task's other calls, the same in each try.

    :param number: How often the task has made the same call before.
    """
    return _digest([agent, arguments, number])[:16]


def of_same_attempt(group: str, other: str) -> bool:
    """Return whether two groups are the same, or belong to two tool calls of one attempt of a task."""
    if group == other:
        return True
    origins = Origin.parse(group), Origin.parse(other)
    same_task = group.partition(".")[0] == other.partition(".")[0]
    return same_task and origins[0] is not None and origins[1] is not None and origins[0].is_sibling(origins[1])


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


def with_trace(metadata: Mapping[str, str], traceparent: str | None) -> dict[str, str]:
    """
    Add the tag that leads to the trace, right before the start: no key or search contains it.

    It is left out if the author uses its name, or has used all tags that Skyvern allows besides ours.
    """
    has_room = len(metadata.keys() - OUR_TAGS) < MOST_METADATA - len(OUR_TAGS)
    tag = {TRACE_TAG: traceparent} if traceparent is not None and has_room else {}
    return {**tag, **metadata}


def _digest(parts: list[Any]) -> str:
    text = json.dumps(parts, ensure_ascii=True, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def tag_value(text: str) -> str:
    """Fit an Airflow id into a tag: Skyvern's filter splits values at commas."""
    return text.replace(",", "_").strip()[:LONGEST_METADATA_VALUE] or "-"
