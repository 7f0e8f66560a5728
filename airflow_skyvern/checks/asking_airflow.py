"""Asks this Airflow, and makes a finding of each answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime, timezone

from airflow_skyvern.checks import airflow_side
from airflow_skyvern.checks.airflow_side import KIND_OF, PACKAGE, provider_of
from airflow_skyvern.checks.asking import Webhooks
from airflow_skyvern.checks.finding import OF_AIRFLOW, Finding
from airflow_skyvern.compat import health, since_3_0
from airflow_skyvern.connection_list import connections_of, webhook_connections
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.results.store_kinds import is_installed

PLUGIN = "skyvern"


def check_airflow(wanted: frozenset[str]) -> Iterator[Finding]:
    """
    Yield what is found out about this Airflow.

    :param wanted: The checks to make.
    """
    for name in OF_AIRFLOW:
        if name in wanted:
            yield from _CHECKS[name]()


def configured_webhooks(given: str | None) -> Webhooks:
    """
    Return where this Airflow takes webhooks.

    :param given: The receiver's address, if Skyvern reaches it by another one.
    """
    return Webhooks(webhook_connections(), since_3_0.configured_base_url(), given)


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
    setting = "[{}] {}".format(*since_3_0.base_url_setting())
    yield airflow_side.base_url(since_3_0.configured_base_url(), setting, since_3_0.installation())


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
