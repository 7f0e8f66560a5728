"""Features that came or changed with Airflow 3.2."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from inspect import signature
from typing import Any


@cache
def stats() -> Any:
    """
    Return the writer of Airflow's metrics: ``incr``, ``gauge``, ``timing``.

    From 3.2 on the task SDK has its own metrics, which Airflow prepares in tasks and not in the triggerer.
    """
    try:
        from airflow.sdk.observability.stats import Stats
    except ImportError:
        from airflow.stats import Stats
    else:
        _prepare_stats(Stats)
    return Stats


def _prepare_stats(stats: Any) -> None:
    """Set it as Airflow's own processes do; the factory takes an argument only in 3.2, ``initialize`` one in 3.3."""
    from airflow.sdk.configuration import conf
    from airflow.sdk.observability.metrics import stats_utils

    state = import_module("airflow.sdk._shared.observability.metrics.stats")
    if (state._factory if hasattr(state, "_factory") else stats.factory) is not None:  # noqa: SLF001  no public one
        return
    make_factory: Any = stats_utils.get_stats_factory
    factory = make_factory(*([stats] if signature(make_factory).parameters else []))
    legacy = {"export_legacy_names": conf.getboolean("metrics", "legacy_names_on")}
    stats.initialize(
        factory=factory, **(legacy if "export_legacy_names" in signature(stats.initialize).parameters else {})
    )


def threads_may_ask_airflow() -> bool:
    """
    Return whether several threads of a task may ask Airflow at once.

    Below 3.2 they get one another's answers; and ``dag.test()`` answers in the same process, without a lock.
    """
    from airflow import __version__

    major, minor = (int(part) for part in __version__.split(".")[:2])
    task_runner = import_module("airflow.sdk.execution_time.task_runner")
    comms = type(getattr(task_runner, "SUPERVISOR_COMMS", None)).__name__
    return (major, minor) >= (3, 2) and not comms.startswith("InProcess")


def connection_form_widgets(fields: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Make the fields of the connection form for Airflow versions that ask the hook: below 3.2."""
    from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
    from wtforms import BooleanField, StringField

    def widget(field: Mapping[str, Any]) -> Any:
        if "boolean" in field["schema"]["type"]:
            return BooleanField(field["label"], description=field["description"], default=True)
        return StringField(field["label"], description=field["description"], widget=BS3TextFieldWidget())

    return {name: widget(field) for name, field in fields.items()}
