"""How a sensor starts in the triggerer, without a worker."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import StartTriggerArgs

from airflow_skyvern.compat import since_3_3
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.task.deferral import BACKSTOP, deadline_after

if TYPE_CHECKING:
    from airflow_skyvern.compat.sdk import BaseSensorOperator

HANGING = re.compile(r"xcom_pull\((?:(?!map_indexes).)*$", re.DOTALL)
"""Airflow 3.3 renders such a template in the triggerer, and hangs there if no map index is given."""


def start_trigger_args(
    sensor: BaseSensorOperator, run_id: Any, skyvern_conn_id: Any, *, end_from_trigger: bool, log_blocks: bool
) -> StartTriggerArgs | None:
    """
    Return how Airflow starts this sensor in the triggerer, or None if it cannot.

    :raises SkyvernConfigError: an argument is a template that would never be rendered.
    """
    if not since_3_3.renders_trigger_arguments():
        return None
    rendered = {
        "run_id": _template_of(sensor, "run_id", run_id),
        "skyvern_conn_id": _template_of(sensor, "skyvern_conn_id", skyvern_conn_id),
    }
    if None in rendered.values():
        return None
    limit = deadline_after(0.0, sensor.timeout, sensor.execution_timeout)
    airflows_limit = timedelta(seconds=limit) + BACKSTOP
    if sensor.execution_timeout is not None:  # Airflow applies the earlier one
        airflows_limit = min(airflows_limit, sensor.execution_timeout)
    return StartTriggerArgs(
        trigger_cls="airflow_skyvern.triggers.SkyvernSensorTrigger",
        trigger_kwargs={
            **rendered,
            "poll_interval": sensor.poke_interval,
            "timeout": limit,
            "backstop": airflows_limit.total_seconds() - limit,
            "end_from_trigger": end_from_trigger,
            "soft_fail": bool(sensor.soft_fail or sensor.never_fail),
            **({"log_blocks": True} if log_blocks else {}),
        },
        next_method="execute_complete",
        timeout=airflows_limit,
    )


def _template_of(sensor: BaseSensorOperator, name: str, value: Any) -> str | None:
    """Return an argument as a text that a trigger can render, or None."""
    if sensor.get_closest_mapped_task_group() is not None:
        return None
    if isinstance(value, str):
        if HANGING.search(value):
            raise SkyvernConfigError(
                f"Task {sensor.task_id!r}: {name}: with start_from_trigger, Airflow 3.3 hangs at this xcom_pull. "
                f"Give {name}=<the other task>.output, or pull with map_indexes=-1."
            )
        return value
    operator, key = getattr(value, "operator", None), getattr(value, "key", None)
    if operator is None or key is None or operator.is_mapped:
        return None
    if operator.get_closest_mapped_task_group() is not None:
        return None
    return f"{{{{ ti.xcom_pull(task_ids={operator.task_id!r}, key={key!r}, map_indexes=-1) }}}}"
