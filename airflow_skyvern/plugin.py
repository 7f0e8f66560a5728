"""What Airflow loads of this provider into each of its processes: next to nothing."""

from __future__ import annotations

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


class SkyvernPlugin(AirflowPlugin):
    """The parts of the provider that live in Airflow's own processes."""

    name = "skyvern"
    fastapi_apps = fastapi_apps()
