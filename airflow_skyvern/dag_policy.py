"""
What Airflow asks this package of each DAG that it loads: a cluster policy, by the entry point ``airflow.policy``.

It refuses what only the whole DAG shows; the rest is refused where it is written. Every process of Airflow imports
this module, so it imports nothing that is not loaded anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from airflow.policies import hookimpl

PARTITIONED = "PartitionedAssetTimetable"
WATCHER = "SkyvernWorkflowRunsTrigger"


@hookimpl
def dag_policy(dag: Any) -> None:
    """
    Refuse a DAG with partitions that a watcher of ours should start: Airflow gives its events no partition.

    :raises AirflowClusterPolicyViolation: an import error of the DAG's file.
    """
    timetable: Any = getattr(dag, "timetable", None)
    if type(timetable).__name__ != PARTITIONED:
        return
    if uris := sorted(set(_watched(timetable.asset_condition))):
        from airflow.exceptions import AirflowClusterPolicyViolation

        raise AirflowClusterPolicyViolation(
            f"DAG {dag.dag_id!r} has partitions, and a watcher makes the events of {', '.join(uris)}: Airflow gives "
            "those no partition, so they would never start it. Use webhooks, which give each run one "
            "(skyvern_runs(…, watch=True, redeliver_to=…), or without watch=True), or a schedule without partitions."
        )


def _watched(condition: Any) -> Iterator[str]:
    for watcher in getattr(condition, "watchers", ()):
        trigger: Any = getattr(watcher, "trigger", None)
        if type(trigger).__name__ == WATCHER and not trigger.redeliver_to:
            yield str(condition.uri)
    for part in getattr(condition, "objects", ()):
        yield from _watched(part)
