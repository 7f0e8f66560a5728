"""The tasks around a browser session in a DAG: how they are linked, and whether two of them could run at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

from airflow_skyvern.compat import internals
from airflow_skyvern.exceptions import SkyvernConfigError

ALL_OR_NONE = frozenset({"ShortCircuitOperator", "LatestOnlyOperator", "ApprovalOperator"})
"""Airflow's operators that skip all tasks behind them or none."""


def tasks_of(opening: Any, kind: type[Any]) -> list[str]:
    """Return the teardowns of a kind that close what a task opens."""
    if not opening.has_dag():
        return []
    return sorted(task.task_id for task in opening.downstream_list if task.is_teardown and isinstance(task, kind))


def link(opened: Any, closed: Any, inner: Sequence[Any]) -> None:
    """
    Make one task the setup and the other the teardown of each task between them.

    Airflow's own ``with teardown:`` links the last tasks only; then clearing another task opens a session that is
    closed while that task runs.

    :raises SkyvernConfigError: two tasks of the session can run at once.
    """
    check_order(opened, inner)
    own = {task.task_id for task in inner}
    for task in inner:
        if not own & set(task.upstream_task_ids) and opened.task_id not in task.upstream_task_ids:
            opened.set_downstream(task)
        task.set_downstream(closed)
    closed.as_teardown(setups=opened)


def check_order(opened: Any, inner: Sequence[Any]) -> None:
    """
    Check that the runs of a session go one after the other, and limit a mapped task to one at a time.

    Tasks on two arms of a task that branches may exclude each other; they are not compared, and wait for each other
    if need be.
    """
    users = [task for task in inner if _uses(task, opened)]
    for task in users:
        _run_one_at_a_time(task)
    for one, other in combinations(users, 2):
        if not (_follow(one, other) or _may_exclude_each_other(one, other)):
            raise SkyvernConfigError(
                f"Tasks {one.task_id!r} and {other.task_id!r} can run at once in the browser session of "
                f"{opened.task_id!r}, which has one run at a time. Give them an order, within the block: "
                f"{_variable(one)} >> {_variable(other)}; or a session each, with another name."
            )


def _uses(task: Any, opened: Any) -> bool:
    return any(found is opened for value in _sessions(task) for found, _ in _references(value))


def _sessions(task: Any) -> Iterator[Any]:
    """Yield the ``browser_session_id`` of a task or a mapped task."""
    yield getattr(task, "browser_session_id", None)
    yield (getattr(task, "partial_kwargs", None) or {}).get("browser_session_id")


def _references(value: Any) -> Iterator[Any]:
    return iter(value.iter_references()) if internals.is_reference(value) else iter(())


def _run_one_at_a_time(task: Any) -> None:
    """Let Airflow run one instance of a mapped task at a time, as far as it can: it does not count deferred ones."""
    options = getattr(task, "partial_kwargs", None)
    if options is None and task.get_closest_mapped_task_group() is None:
        return
    options = vars(task) if options is None else options
    most = options.get("max_active_tis_per_dagrun")
    if most is not None and most != 1:
        raise SkyvernConfigError(
            f"Task {task.task_id!r}: max_active_tis_per_dagrun={most}: its runs use one browser session, which has "
            "one run at a time. Leave it out, or set it to 1."
        )
    options["max_active_tis_per_dagrun"] = 1


def _follow(one: Any, other: Any) -> bool:
    return other.task_id in _relatives(one, upstream=True) | _relatives(one, upstream=False)


def _relatives(task: Any, *, upstream: bool) -> set[str]:
    return set(task.get_flat_relative_ids(upstream=upstream))


def _may_exclude_each_other(one: Any, other: Any) -> bool:
    shared = _relatives(one, upstream=True) & _relatives(other, upstream=True)
    above = (one.get_dag().get_task(task_id) for task_id in shared)
    return any(_chooses(task) and not _arms(task, one) & _arms(task, other) for task in above)


def _chooses(task: Any) -> bool:
    """Return whether a task may choose among those behind it: such tasks have a mixin of this name, from 2.11 on."""
    kinds = {kind.__name__ for kind in type(task).__mro__}
    return "SkipMixin" in kinds and not kinds & ALL_OR_NONE


def _arms(chooses: Any, task: Any) -> set[str]:
    """Return which of the tasks right behind one lead to another."""
    return set(chooses.downstream_task_ids) & {task.task_id, *_relatives(task, upstream=True)}


def _variable(task: Any) -> str:
    return str(task.task_id).rpartition(".")[2]
