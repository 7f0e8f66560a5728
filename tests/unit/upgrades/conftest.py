"""Airflow's Required Actions, for tasks that ask a person."""

from tests.unit.task.conftest import actions

__all__ = ["actions"]
