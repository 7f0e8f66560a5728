"""Asks this Airflow, and makes a finding of each answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, distribution

from airflow_skyvern.checks import airflow_side
from airflow_skyvern.checks.airflow_side import KIND_OF, PACKAGE, provider_of
from airflow_skyvern.checks.asking import Webhooks
from airflow_skyvern.checks.finding import OF_AIRFLOW, Finding
from airflow_skyvern.compat import health, since_3_0
from airflow_skyvern.compat.sdk import conf
from airflow_skyvern.connection_list import connections_in_environment, connections_of
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.hooks import SkyvernHook

PLUGIN = "skyvern"


def check_airflow(wanted: frozenset[str]) -> Iterator[Finding]:
    """
    Yield what is found out about this Airflow.

    :param wanted: The checks to make.
    """
    for name in OF_AIRFLOW:
        if name in wanted:
            yield from _CHECKS[name]()


def skyvern_connections() -> list[str]:
    """Return the ids of all connections to Skyvern that can be listed here."""
    try:
        found = connections_of(SkyvernHook.conn_type)
    except SkyvernConfigError:
        found = connections_in_environment(SkyvernHook.conn_type)
    return sorted(found) or [SkyvernHook.default_conn_name]


def configured_webhooks(given: str | None) -> Webhooks:
    """
    Return where this Airflow takes webhooks.

    :param given: The receiver's address, if Skyvern reaches it by another one.
    """
    names = str(conf.get("skyvern", "webhook_connections", fallback="") or "")
    connections = frozenset(name.strip() for name in names.split(",") if name.strip())
    return Webhooks(connections, _configured_address(), given)


def _configured_address() -> str:
    section, name = health.base_url_setting()
    return str(conf.get(section, name, fallback="") or "")


def _provider() -> Iterator[Finding]:
    yield airflow_side.provider(health.discovered_provider(PACKAGE), health.connection_types())


def _plugin() -> Iterator[Finding]:
    yield airflow_side.plugin(loaded=PLUGIN in health.loaded_plugins(), errors=health.plugin_errors())


def _triggerer() -> Iterator[Finding]:
    try:
        yield airflow_side.triggerer(health.triggerer_heartbeats(), datetime.now(timezone.utc))
    except SkyvernConfigError as error:
        yield airflow_side.no_database("triggerer", error)


def _base_url() -> Iterator[Finding]:
    setting = "[{}] {}".format(*health.base_url_setting())
    yield airflow_side.base_url(_configured_address(), setting, since_3_0.installation())


def _stores() -> Iterator[Finding]:
    try:
        found = connections_of(*KIND_OF)
    except SkyvernConfigError as error:
        yield airflow_side.no_database("stores", error)
        return
    if not found:
        yield airflow_side.no_stores()
    for conn_id, conn_type in sorted(found.items()):
        yield airflow_side.store(conn_id, conn_type, has_provider=is_installed(provider_of(KIND_OF[conn_type])))


def _airflow() -> Iterator[Finding]:
    yield airflow_side.abilities(health.airflow_version())


_CHECKS: dict[str, Callable[[], Iterator[Finding]]] = {
    "provider": _provider,
    "plugin": _plugin,
    "triggerer": _triggerer,
    "base_url": _base_url,
    "stores": _stores,
    "airflow": _airflow,
}


def is_installed(package: str) -> bool:
    """Return whether a distribution is installed beside this one."""
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True
