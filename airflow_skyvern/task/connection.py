"""The connection of a task."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_skyvern.hooks import SkyvernHook


class UsesConnection:
    """
    A task that calls Skyvern: its hook is loaded when it is needed, and not when a DAG is parsed.

    Stands behind the operator among the bases of a class: a class without an ``__init__`` of its own did not get the
    ``default_args`` of the DAG otherwise.
    """

    skyvern_conn_id: str

    @cached_property
    def hook(self) -> SkyvernHook:
        """The hook of this task's connection."""
        from airflow_skyvern.hooks import SkyvernHook

        return SkyvernHook(self.skyvern_conn_id)
