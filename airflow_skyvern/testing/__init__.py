"""
A pytest plugin that tests DAGs without a Skyvern server; it is loaded only in projects that enable it.

In ``conftest.py``::

    pytest_plugins = ["airflow_skyvern.testing"]

In a test::

    def test_the_invoices_are_summed_up(skyvern):
        skyvern.workflow("wpid_123", output={"extract_output": {"total": 6.5}}, files={"a.pdf": b"%PDF"})
        run = dag.test()
        assert run.state == "success"
        assert skyvern.started("wpid_123")[0].parameters == {"vendor": "ACME"}

The fixture ``skyvern`` is a :class:`Skyvern`. Tests script how runs end with :func:`completed`, :func:`failed`,
:func:`terminated`, :func:`timed_out`, :func:`canceled`, :func:`paused`, :func:`retried`, :func:`slow`
and :func:`gone`. :func:`extracted` makes the output of a block. Needs the extra ``testing``.

PYTEST_DONT_REWRITE: a test may import from here before pytest loads the plugin.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_skyvern.testing.endings import (
        Ending,
        canceled,
        completed,
        extracted,
        failed,
        gone,
        paused,
        retried,
        slow,
        terminated,
        timed_out,
    )
    from airflow_skyvern.testing.skyvern import Skyvern, StartedRun

__all__ = [
    "Ending",
    "Skyvern",
    "StartedRun",
    "canceled",
    "completed",
    "extracted",
    "failed",
    "gone",
    "paused",
    "retried",
    "slow",
    "terminated",
    "timed_out",
]

pytest_plugins = ("airflow_skyvern.testing.plugin",)
"""Only pytest loads this, together with this module."""

if not TYPE_CHECKING:  # a type checker would take any name to be here

    def __getattr__(name: str) -> Any:
        """Import a name on first use: importing the fake alone needs no pytest."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = "skyvern" if name in ("Skyvern", "StartedRun") else "endings"
        return getattr(import_module(f"{__name__}.{module}"), name)
