"""What Airflow loads of this provider into each of its processes: next to nothing, but in the API server."""

from __future__ import annotations

from typing import Any

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

from airflow_skyvern import compat


class Webhooks:
    """The receiver of webhooks as an ASGI app that is loaded with its first request, so in the API server only."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        from airflow_skyvern.finished_runs.webhooks import receiver

        await receiver()(scope, receive, send)


def fastapi_apps() -> list[dict[str, Any]]:
    """Return the apps for Airflow's API server; none unless a connection is configured for webhooks."""
    if not conf.get("skyvern", "webhook_connections", fallback=""):
        return []
    return [{"app": Webhooks(), "url_prefix": "/skyvern", "name": "Skyvern webhooks"}]


def listeners() -> list[Any]:
    """Return what listens to Airflow in this process."""
    if not compat.in_api_server():
        return []
    from airflow_skyvern.task import listener

    return [listener]


class SkyvernPlugin(AirflowPlugin):
    """The parts of the provider that live in Airflow's own processes."""

    name = "skyvern"
    fastapi_apps = fastapi_apps()
    listeners = listeners()
