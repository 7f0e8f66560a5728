"""Whether Airflow's own parts are installed and running: discovery, plugins, heartbeats, its address."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module

from airflow_skyvern.compat.internals import database_session, module_exists


def airflow_version() -> str:
    """Return the version of Airflow."""
    from airflow import __version__

    return str(__version__)


def discovered_provider(package: str) -> str | None:
    """Return the version of a provider that Airflow has discovered; None if it has not."""
    from airflow.providers_manager import ProvidersManager

    found = ProvidersManager().providers.get(package)
    return None if found is None else str(found.version)


def connection_types() -> list[str]:
    """Return the types of connections that Airflow knows; from 3.2 on the task SDK has them."""
    sdk = "airflow.sdk.providers_manager_runtime"
    if module_exists(sdk):
        return list(import_module(sdk).ProvidersManagerTaskRuntime().hooks)
    return list(import_module("airflow.providers_manager").ProvidersManager().hooks)


def loaded_plugins() -> set[str]:
    """Return the names of the plugins that this process has loaded."""
    from airflow import plugins_manager

    plugins_manager.ensure_plugins_loaded()
    return {str(plugin["name"]) for plugin in plugins_manager.get_plugin_info(["source"])}


def plugin_errors() -> dict[str, str]:
    """Return why plugins were not loaded, by their source; 3.3 stores that elsewhere."""
    manager = import_module("airflow.plugins_manager")
    if hasattr(manager, "import_errors"):
        return dict(manager.import_errors)
    return dict(manager._get_plugins()[1])  # noqa: SLF001  there is no public one


@dataclass(frozen=True)
class Heartbeat:
    """A process of Airflow according to its database."""

    hostname: str
    latest: datetime
    alive: bool


def triggerer_heartbeats(most: int = 20) -> list[Heartbeat]:
    """
    Return the triggerers that were seen last, the newest first.

    :raises SkyvernConfigError: the database cannot be read.
    """
    return list(_heartbeats("TriggererJob", most))


def _heartbeats(job_type: str, most: int) -> Iterator[Heartbeat]:
    from airflow.jobs.job import Job
    from sqlalchemy import select

    newest = select(Job).where(Job.job_type == job_type).order_by(Job.latest_heartbeat.desc()).limit(most)
    with database_session() as session:
        for job in session.scalars(newest):
            if job.latest_heartbeat is not None:
                yield Heartbeat(str(job.hostname), job.latest_heartbeat, bool(job.is_alive()))
