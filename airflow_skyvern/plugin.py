"""What Airflow loads of this provider into each of its processes: little, but in API server and scheduler."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from airflow.configuration import conf
from airflow.plugins_manager import AirflowPlugin

from airflow_skyvern.compat import internals, since_3_0, since_3_1
from airflow_skyvern.macros import local_time
from airflow_skyvern.notifications import skyvern_run

TASK_INSTANCE = "skyvern/ti/{DAG_ID}/{RUN_ID}/{TASK_ID}/{MAP_INDEX}"
"""
Airflow fills in what the page is about, and leaves ``{MAP_INDEX}`` where a task is not mapped. The address is
relative, so that it holds under any path prefix; a path, as Airflow 3.1 does not encode what it puts into a query.
"""

DAG_RUN = "skyvern/dag_run/{DAG_ID}/{RUN_ID}"
ICONS = {"icon": "skyvern/static/0/icon.svg", "icon_dark_mode": "skyvern/static/0/icon-dark.svg"}


class Webhooks:
    """The receiver of webhooks as an ASGI app that is loaded with its first request, so in the API server only."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        from airflow_skyvern.finished_runs.webhooks import receiver

        await receiver()(scope, receive, send)


class Pages:
    """The pages in Airflow's UI, loaded with their first request: in a thread, as it takes up to half a second."""

    def __init__(self) -> None:
        self._app: Any = None
        self._loading = threading.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if self._app is None:
            self._app = await asyncio.to_thread(self._load)
        await self._app(scope, receive, send)

    def _load(self) -> Any:
        with self._loading:
            from airflow_skyvern.ui.app import app

            return app()


class PagesAndWebhooks:
    """Both: Airflow mounts one app at one path."""

    def __init__(self) -> None:
        self._pages, self._webhooks = Pages(), Webhooks()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        path = scope.get("path", "").removeprefix(scope.get("root_path", ""))
        chosen = self._webhooks if path.startswith("/webhooks/") else self._pages
        await chosen(scope, receive, send)


def fastapi_apps() -> list[dict[str, Any]]:
    """Return the app for Airflow's API server: pages where Airflow shows them, webhooks if they are configured."""
    webhooks = bool(conf.get("skyvern", "webhook_connections", fallback=""))
    if since_3_1.shows_external_views():
        app: Any = PagesAndWebhooks() if webhooks else Pages()
        return [{"app": app, "url_prefix": "/skyvern", "name": "Skyvern"}]
    return [{"app": Webhooks(), "url_prefix": "/skyvern", "name": "Skyvern webhooks"}] if webhooks else []


def external_views() -> list[dict[str, Any]]:
    """Return the pages for Airflow's UI: a tab of task instances, one of DAG runs, and an entry in the menu."""
    if not since_3_1.shows_external_views():
        return []
    return [
        {"name": "Skyvern", "href": TASK_INSTANCE, "destination": "task_instance", "url_route": "skyvern"},
        {"name": "Skyvern", "href": DAG_RUN, "destination": "dag_run", "url_route": "skyvern_dag_run"},
        {
            "name": "Skyvern runs",
            "href": "skyvern/runs",
            "destination": "nav",
            "category": "browse",
            "url_route": "skyvern_runs",
            **ICONS,
        },
    ]


def listeners() -> list[Any]:
    """Return what listens to Airflow in this process: in the API server to marks, in the scheduler to ends."""
    if since_3_0.in_api_server():
        from airflow_skyvern.task import listener

        return [listener]
    if internals.in_scheduler():
        from airflow_skyvern.reconciler import listener as ends

        internals.forget_listener_in_children(ends)
        return [ends]
    return []


def global_links() -> list[Any]:
    """
    Return the button for tasks whose operator is not ours: an agent that has called a tool.

    Airflow shows a button of a plugin on each task that it leads somewhere from. Without the AI provider there is
    none, and nothing is looked up.
    """
    if not (since_3_0.is_airflow_3() and internals.module_exists("airflow.providers.common.ai.managed_agents")):
        return []
    from airflow_skyvern.links import SkyvernCallLink

    return [SkyvernCallLink()]


class SkyvernPlugin(AirflowPlugin):
    """The parts of the provider that live in Airflow's own processes."""

    name = "skyvern"
    fastapi_apps = fastapi_apps()
    external_views = external_views()
    listeners = listeners()
    global_operator_extra_links = global_links()
    macros = [skyvern_run, local_time]  # noqa: RUF012  as Airflow's class has it
