"""
Provides Airflow's names for tasks, DAGs and hooks in one module: from Airflow 3's place, else from 2.11's.

The provider ``common.compat`` has such a module too. Its versions follow their own calendar: one that has all of
these names does not fit into the constraints that Airflow published for 2.11.0 and 3.0, and the newest needs Python
3.11.

A name is imported when a module asks for it, so that unused names cost nothing.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk import (
        DAG,
        BaseHook,
        BaseOperator,
        BaseOperatorLink,
        BaseSensorOperator,
        Connection,
        Context,
        Param,
        PokeReturnValue,
        get_current_context,
        task,
    )
    from airflow.sdk.bases.decorator import (
        DecoratedOperator,
        TaskDecorator,
        determine_kwargs,
        task_decorator_factory,
    )
    from airflow.sdk.configuration import conf
    from airflow.sdk.definitions.context import context_merge
    from airflow.sdk.definitions.mappedoperator import OperatorPartial
    from airflow.sdk.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSensorTimeout,
        AirflowSkipException,
        AirflowTaskTimeout,
        TaskDeferred,
    )
    from airflow.sdk.execution_time.xcom import XCom

__all__ = [
    "DAG",
    "AirflowException",
    "AirflowFailException",
    "AirflowNotFoundException",
    "AirflowSensorTimeout",
    "AirflowSkipException",
    "AirflowTaskTimeout",
    "BaseHook",
    "BaseOperator",
    "BaseOperatorLink",
    "BaseSensorOperator",
    "Connection",
    "Context",
    "DecoratedOperator",
    "OperatorPartial",
    "Param",
    "PokeReturnValue",
    "TaskDecorator",
    "TaskDeferred",
    "XCom",
    "conf",
    "context_merge",
    "determine_kwargs",
    "get_current_context",
    "task",
    "task_decorator_factory",
]

_EXCEPTIONS = ("airflow.sdk.exceptions", "airflow.exceptions")
"""The first from 3.2 on; before, 3.0 and 3.1 have only some of the classes there."""

_DECORATORS = ("airflow.sdk.bases.decorator", "airflow.decorators.base")

_HOMES = {
    "AirflowException": _EXCEPTIONS,
    "AirflowFailException": _EXCEPTIONS,
    "AirflowNotFoundException": _EXCEPTIONS,
    "AirflowSensorTimeout": _EXCEPTIONS,
    "AirflowSkipException": _EXCEPTIONS,
    "AirflowTaskTimeout": _EXCEPTIONS,
    "BaseHook": ("airflow.sdk", "airflow.hooks.base"),  # the second on 2.11 and 3.0
    "BaseOperator": ("airflow.sdk", "airflow.models.baseoperator"),
    "BaseOperatorLink": ("airflow.sdk", "airflow.models.baseoperatorlink"),
    "BaseSensorOperator": ("airflow.sdk", "airflow.sensors.base"),
    "Connection": ("airflow.sdk", "airflow.models.connection"),
    "Context": ("airflow.sdk", "airflow.utils.context"),
    "DAG": ("airflow.sdk", "airflow.models.dag"),
    "OperatorPartial": ("airflow.sdk.definitions.mappedoperator", "airflow.models.mappedoperator"),
    "DecoratedOperator": _DECORATORS,
    "Param": ("airflow.sdk", "airflow.models.param"),
    "PokeReturnValue": ("airflow.sdk", "airflow.sensors.base"),
    "TaskDecorator": _DECORATORS,
    "TaskDeferred": _EXCEPTIONS,
    "XCom": ("airflow.sdk.execution_time.xcom", "airflow.models.xcom"),
    "conf": ("airflow.sdk.configuration", "airflow.configuration"),  # the first from 3.2 on
    "context_merge": ("airflow.sdk.definitions.context", "airflow.utils.context"),
    "determine_kwargs": ("airflow.sdk.bases.decorator", "airflow.utils.operator_helpers"),
    "get_current_context": ("airflow.sdk", "airflow.operators.python"),
    "task": ("airflow.sdk", "airflow.decorators"),
    "task_decorator_factory": _DECORATORS,
}


def __getattr__(name: str) -> Any:
    for home in _HOMES.get(name, ()):
        with suppress(ImportError, AttributeError):
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
