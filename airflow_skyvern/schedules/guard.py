"""The task that lets exactly one of the two fire, Skyvern or Airflow, while a schedule is being moved."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_skyvern.compat import since_3_0
from airflow_skyvern.compat.sdk import AirflowSkipException, BaseOperator
from airflow_skyvern.exceptions import SkyvernAPIError, SkyvernNotFoundError
from airflow_skyvern.schedules.ownership import NO_SCHEDULES, skyvern_fires
from airflow_skyvern.task.endings import errors_for_airflow

if TYPE_CHECKING:
    from airflow_skyvern.compat.sdk import Context
    from airflow_skyvern.hooks import SkyvernHook


class SkyvernScheduleGuard(BaseOperator):
    """
    Skip the tasks behind it while Skyvern's own schedule fires, so that no run is started twice.

    Put it before the task that runs the workflow. It fetches the schedule from Skyvern when a scheduled DAG run
    begins: while the schedule is enabled there, the run belongs to Skyvern and is skipped here; as soon as it is
    disabled or deleted, the run belongs to Airflow. Manual runs and backfills always run. When the schedule
    is deleted in Skyvern, the guard may be removed from the DAG.

    "Enable and disable a schedule": https://www.skyvern.com/docs/api-reference/api-reference/schedules/disable-schedule

    :param workflow_id: The schedule's workflow: ``wpid_…``. (templated)
    :param schedule_id: The schedule in Skyvern: ``wfs_…``. (templated)
    :param skyvern_conn_id: Id of the connection of type ``skyvern``. Default: ``skyvern_default``. (templated)
    :raises AirflowSkipException: Skyvern fires this run itself.
    :raises AirflowFailException: no retry can help: wrong key, wrong connection.
    """

    template_fields: Sequence[str] = ("workflow_id", "schedule_id", "skyvern_conn_id")
    ui_color = "#f4f6fb"

    def __init__(
        self, *, workflow_id: str, schedule_id: str, skyvern_conn_id: str = "skyvern_default", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.workflow_id = workflow_id
        self.schedule_id = schedule_id
        self.skyvern_conn_id = skyvern_conn_id

    def execute(self, context: Context) -> None:
        """Skip the DAG run if Skyvern fires this tick."""
        tick = _tick_of(context)
        if tick is None:
            self.log.info("Not started by the DAG's schedule: the run continues")
            return
        with errors_for_airflow():
            reason = self._skyvern_fires(tick)
        if reason is not None:
            raise AirflowSkipException(f"Skyvern schedule {self.schedule_id}: {reason}")
        self.log.info("Skyvern schedule %s does not fire %s: the run continues", self.schedule_id, tick.isoformat())

    def _skyvern_fires(self, tick: datetime) -> str | None:
        hook = self._hook()
        try:
            schedule = hook.get_schedule(self.workflow_id, self.schedule_id).schedule
        except SkyvernNotFoundError:
            return None
        except SkyvernAPIError as error:
            if error.transient or error.status_code != NO_SCHEDULES:
                raise
            return None
        return skyvern_fires(schedule, tick, lambda: hook.list_workflow_runs(self.workflow_id, created_at_start=tick))

    def _hook(self) -> SkyvernHook:
        from airflow_skyvern.hooks import SkyvernHook

        return SkyvernHook(self.skyvern_conn_id)


def _tick_of(context: Context) -> datetime | None:
    """Return the moment for which the DAG's schedule has started this run."""
    if since_3_0.run_type_of(context["dag_run"]) != "scheduled":
        return None
    tick = context.get("data_interval_end") or context["logical_date"]
    assert isinstance(tick, datetime)
    return tick
