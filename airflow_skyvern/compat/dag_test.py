"""Prepares ``dag.test()`` for :mod:`airflow_skyvern.testing`: a metadata database, and the DAG in it."""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing, suppress
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest import mock

from airflow_skyvern.compat.since_3_0 import is_airflow_3
from airflow_skyvern.compat.since_3_1 import dag_bag

DATABASE = "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"
BUNDLE = "dags-folder"
"""The bundle that Airflow itself creates for the DAGs folder."""

OF_DATABASE = (
    *("SQL_ALCHEMY_CONN", "SQL_ALCHEMY_CONN_ASYNC"),
    *("engine", "async_engine", "Session", "NonScopedSession", "AsyncSession"),
)
"""The attributes of ``airflow.settings`` about the database; 2.11 and 3.0 have fewer of them."""


class MetadataDatabase:
    """
    A metadata database in a file, empty at the begin of each test.

    :param folder: Where it is kept.
    """

    def __init__(self, folder: Path) -> None:
        self._empty, self._file = folder / "empty.db", folder / "airflow.db"
        settings = import_module("airflow.settings")
        before = _known(settings)
        try:
            with mock.patch.dict(os.environ, {DATABASE: f"sqlite:///{self._file}"}):
                settings.configure_vars()
                settings.configure_orm()
                import_module("airflow.utils.db").initdb()
            self.known = _known(settings)
            """The values of these attributes of ``airflow.settings``."""
        finally:
            for name, value in before.items():
                setattr(settings, name, value)
        self._forget_connections()
        with closing(sqlite3.connect(self._file)) as made, closing(sqlite3.connect(self._empty)) as empty:
            made.backup(empty)

    def clear(self) -> None:
        """Make it empty again."""
        self._forget_connections()
        for file in self._file.parent.glob(f"{self._file.name}*"):  # what is still connected keeps what it has
            file.unlink()
        shutil.copyfile(self._empty, self._file)

    def _forget_connections(self) -> None:
        self.known["Session"].remove()
        self.known["engine"].dispose()
        if "async_engine" in self.known:
            self.known["async_engine"].sync_engine.dispose(close=False)


def _known(settings: Any) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in OF_DATABASE if hasattr(settings, name)}


def secrets_backends() -> list[Any]:
    """Return the secrets backends that the configuration names now, and not when Airflow was imported."""
    backends: list[Any] = import_module("airflow.configuration").initialize_secrets_backends()
    return backends


def store_dag(dag: Any, empty_folder: Path) -> None:
    """Write a DAG into the database, as the DAG processor does: Airflow 3 runs no other."""
    if not is_airflow_3():
        return
    bag = dag_bag(empty_folder)
    bag.dags[dag.dag_id] = dag
    manager = import_module("airflow.dag_processing.bundles.manager").DagBundlesManager()
    manager.sync_bundles_to_db()
    for package in ("dag_processing", "models"):  # 3.2 and newer, 3.1
        with suppress(ImportError, AttributeError):
            import_module(f"airflow.{package}.dagbag").sync_bag_to_db(bag, BUNDLE, None)
            return
    dag.relative_fileloc = dag.relative_fileloc or Path(dag.fileloc).name  # 3.0, where a DAG bag sets it
    bag.sync_to_db(BUNDLE, None)
