"""Parameters of a schedule that its workflow does not have: Skyvern ignores them, the operator would refuse them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_skyvern.exceptions import SkyvernError

if TYPE_CHECKING:
    from airflow_skyvern.models import Schedule, Workflow


def ignored_parameters(schedule: Schedule, get_workflow: Callable[[str], Workflow]) -> tuple[str, ...]:
    """Return their names; none where the workflow's definition cannot be had, or read."""
    if not schedule.parameters:
        return ()
    try:
        workflow = get_workflow(schedule.workflow_permanent_id)
        if "parameters" not in workflow.workflow_definition:
            return ()
        settable = {parameter.key for parameter in workflow.parameters if parameter.is_settable}
    except (SkyvernError, TypeError, ValueError):
        return ()
    return tuple(sorted(set(schedule.parameters) - settable))
