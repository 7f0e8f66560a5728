"""The DAGs of the system tests: each operator and sensor in each of its ways of waiting."""

from __future__ import annotations

import os
import time
from datetime import timedelta
from typing import Any

from airflow_skyvern.compat.sdk import DAG, Param, task
from airflow_skyvern.compat.since_3_0 import is_airflow_3
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.sensors import SkyvernRunSensor

PARAMS: dict[str, Any] = {
    "workflow_id": Param("", type="string"),
    "parameters": Param({}, type="object"),
    "vendors": Param([], type="array"),
    "hold": Param("", type="string"),
}
PATIENT: dict[str, Any] = {"default_args": {"retries": 2, "retry_delay": timedelta(seconds=1)}}
"""
For tasks that have to succeed: under load, Airflow sometimes takes a task that is resumed within one loop of the
scheduler's loop for one that has ended ("finished with state success, but the task instance's state attribute is
queued") and fails it. A retry is what users have against that.
"""

WAYS = {"deferred": True, "worker": False}
MODES: dict[str, dict[str, Any]] = {
    "poke": {"mode": "poke", "poke_interval": 3},
    # Airflow means reschedule for long intervals: in short ones its scheduler loses track under load, as above.
    "reschedule": {"mode": "reschedule", "poke_interval": 10},
    "deferrable": {"deferrable": True, "poke_interval": 3},
}


def dag(dag_id: str, **kwargs: Any) -> DAG:
    return DAG(dag_id, schedule=None, params=PARAMS, render_template_as_native_obj=True, max_active_runs=20, **kwargs)


def run(task_id: str = "run", **kwargs: Any) -> SkyvernRunWorkflowOperator:
    fields = {"workflow_id": "{{ params.workflow_id }}", "parameters": "{{ params.parameters }}"}
    return SkyvernRunWorkflowOperator(task_id=task_id, poll_interval=3, **{**fields, **kwargs})


@task
def use(output: Any) -> Any:
    return {"seen": output}


for way, deferrable in WAYS.items():
    with dag(f"run_{way}", **PATIENT):
        use(run(deferrable=deferrable).output)

    with dag(f"ends_{way}"):
        run(deferrable=deferrable)

    with dag(f"timeout_{way}"):
        run(deferrable=deferrable, timeout=8)

    with dag(f"wrong_key_{way}"):
        run(deferrable=deferrable, skyvern_conn_id="skyvern_wrong_key", retries=2)

with dag("execution_timeout"):
    run(deferrable=True, execution_timeout=timedelta(seconds=50))

with dag("dagrun_timeout", dagrun_timeout=timedelta(seconds=40)):
    run(deferrable=True)

with dag("fail_fast", **{"fail_fast" if is_airflow_3() else "fail_stop": True}):
    run(deferrable=True)

    @task.sensor(poke_interval=2)
    def fails_once_the_other_waits(ti: Any = None) -> bool:
        if ti.xcom_pull(task_ids="run", key="run_id"):
            time.sleep(15)  # until the other is deferred
            raise ValueError("this ends the DAG run")
        return False

    fails_once_the_other_waits()


def hold(context: Any) -> None:
    """Push the process, and wait before the operator is called, so that a test can stop it there."""
    ti = context["ti"]
    resumed = ti.xcom_pull(task_ids="run", key="run_id") is not None
    ti.xcom_push(key=f"process_{ti.try_number}", value=os.getpid())
    if context["params"]["hold"] == f"{'resumed' if resumed else 'started'} {ti.try_number}":
        ti.xcom_push(key="held", value=os.getpid())
        time.sleep(6)


for way, deferrable in WAYS.items():
    with dag(f"held_{way}"):
        run(
            deferrable=deferrable,
            timeout=600 if way == "worker" else 15,
            retries=2 if way == "worker" else 1,
            retry_delay=timedelta(seconds=1),
            pre_execute=hold,
        )

with dag("executed_twice"):
    run(deferrable=False, timeout=600, retries=2, retry_delay=timedelta(seconds=40), pre_execute=hold)

with dag("deleted"):
    run(deferrable=True, retries=2)

# Paused, as new DAGs are: else the scheduler may take the tasks of `airflow dags test` for its own.
with dag("tried", is_paused_upon_creation=True) as tried:
    use(run(deferrable=True).output)

with dag("mapped", **PATIENT):

    @task
    def items(params: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"name": vendor, "count": number} for number, vendor in enumerate(params["vendors"])]

    @task
    def collect(outputs: Any) -> list[Any]:
        return [output["echo_output"]["body"]["got"]["name"] for output in outputs]

    fetch = SkyvernRunWorkflowOperator.partial(
        task_id="fetch", workflow_id="{{ params.workflow_id }}", poll_interval=3, deferrable=True
    ).expand(parameters=items())
    collect(fetch.output)

with dag("sensors", **PATIENT):
    start = run("start", wait_for_completion=False)
    for mode, way_to_wait in MODES.items():
        use.override(task_id=f"use_{mode}")(
            SkyvernRunSensor(task_id=mode, run_id=start.output, timeout=120, **way_to_wait).output
        )

for ending, soft_fail in {"hard": False, "soft": True}.items():
    with dag(f"sensors_{ending}"):
        start = run("start", wait_for_completion=False)
        for mode, way_to_wait in MODES.items():
            SkyvernRunSensor(
                task_id=f"ends_badly_{mode}",
                run_id=start.output,
                timeout=120,
                soft_fail=soft_fail,
                **way_to_wait,
            )
            SkyvernRunSensor(
                task_id=f"wrong_key_{mode}",
                run_id=start.output,
                skyvern_conn_id="skyvern_wrong_key",
                soft_fail=soft_fail,
                retries=2,
                **way_to_wait,
            )

    with dag(f"sensors_timeout_{ending}"):
        start = run("start", wait_for_completion=False)
        for mode, way_to_wait in MODES.items():
            SkyvernRunSensor(
                task_id=mode,
                run_id=start.output,
                timeout=8,
                soft_fail=soft_fail,
                **way_to_wait,
            )

EARLY: dict[str, dict[str, Any]] = {
    "resumed": {},
    "ended": {"end_from_trigger": True},
    "soft": {"end_from_trigger": True, "soft_fail": True},
}
"""Sensors that start in the triggerer: how each of them ends."""

for name, more in {"ok": {}, "bad": {}, "late": {"timeout": 8}}.items():
    with dag(f"early_{name}"):
        start = run("start", wait_for_completion=False, **PATIENT["default_args"])
        for how, way_to_end in EARLY.items():
            waiter = SkyvernRunSensor(
                task_id=how,
                run_id=start.output,
                start_from_trigger=True,
                poke_interval=3,
                **{"timeout": 120, **way_to_end, **more},
            )
            if name == "ok":
                use.override(task_id=f"use_{how}")(waiter.output)

with dag("early_mapped"):

    @task
    def ids(params: dict[str, Any]) -> list[str]:
        return params["vendors"]

    SkyvernRunSensor.partial(
        task_id="wait", start_from_trigger=True, end_from_trigger=True, poke_interval=3, timeout=120
    ).expand(run_id=ids())
