"""What Airflow loads of this provider into each of its processes: next to nothing, but in the API server."""

from __future__ import annotations

import sys
from typing import Any

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin


class Webhooks:
    """The receiver of webhooks as an ASGI app that is loaded with its first request, so in the API server only."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        from airflow_skyvern.webhooks import receiver  # noqa: PLC0415  the other processes do not need it

        await receiver()(scope, receive, send)


def fastapi_apps() -> list[dict[str, Any]]:
    """Return the apps for Airflow's API server; none unless a connection is configured for webhooks."""
    if not conf.get("skyvern", "webhook_connections", fallback=""):
        return []
    return [{"app": Webhooks(), "url_prefix": "/skyvern", "name": "Skyvern webhooks"}]


def in_api_server() -> bool:
    """
    Tell whether this process is Airflow's API server.

    A listener anywhere else would forbid ``end_from_trigger=True`` to every DAG of the installation: Airflow
    refuses it where the DAG processor has listeners.
    """
    return "airflow.api_fastapi.main" in sys.modules


def listeners() -> list[Any]:
    """Return what listens to Airflow in this process."""
    if not in_api_server():
        return []
    from airflow_skyvern import listener  # noqa: PLC0415  the other processes do not need it

    return [listener]


class SkyvernPlugin(AirflowPlugin):
    """The parts of the provider that live in Airflow's own processes."""

    name = "skyvern"
    fastapi_apps = fastapi_apps()
    listeners = listeners()
