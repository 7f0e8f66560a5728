"""
Cancels the runs left by a DAG run that ends in the scheduler: by ``dagrun_timeout``, ``fail_fast``, or the last mark.

Such an end skips tasks that wait for their retry, and notifies nothing else of it. Registered in the scheduler's own
process only, see :mod:`airflow_skyvern.plugin`. Airflow calls it amid its own transaction, and waits for it: so two
ids are noted, and a thread does the rest. Looking up a connection here would end the scheduler.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from airflow.listeners import hookimpl

from airflow_skyvern.reconciler.ended_dag_runs import LOOKS, EndedDagRuns, cancel_orphans_of

if TYPE_CHECKING:
    from airflow.models.dagrun import DagRun


@hookimpl
def on_dag_run_failed(dag_run: DagRun) -> None:
    """Note a DAG run that has failed."""
    ended_dag_runs().add(dag_run.dag_id, dag_run.run_id, LOOKS)


@hookimpl
def on_dag_run_success(dag_run: DagRun) -> None:
    """Note a DAG run that has succeeded: its last task may have been marked while its start was under way."""
    ended_dag_runs().add(dag_run.dag_id, dag_run.run_id, LOOKS)


@cache
def ended_dag_runs() -> EndedDagRuns:
    """Return the queue of this process."""
    return EndedDagRuns(cancel_orphans_of)
