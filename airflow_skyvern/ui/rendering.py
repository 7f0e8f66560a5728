"""Templates, static files, and the headers that keep a page from running content that comes from a run."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

if TYPE_CHECKING:
    from datetime import datetime

HERE = Path(__file__).parent
STATIC = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "icon-dark.svg": "image/svg+xml",
}

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; connect-src 'self'; "
    "frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-content-type-options": "nosniff",
    "cache-control": "private, no-store",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}

TONES = {
    "completed": "success",
    "failed": "failed",
    "terminated": "failed",
    "timed_out": "failed",
    "canceled": "muted",
    "skipped": "muted",
    "running": "running",
    "paused": "waiting",
    "success": "success",
    "upstream_failed": "failed",
    "up_for_retry": "waiting",
    "deferred": "running",
}
"""The colour of a run's status and of a task's state; others are grey."""

TASK_ROUTE = "skyvern"
"""The ``url_route`` of the tab, see :mod:`airflow_skyvern.plugin`."""


@cache
def static_version() -> str:
    """Return a version that changes with the static files, so that browsers may cache them."""
    digest = hashlib.sha256()
    for name in STATIC:
        digest.update((HERE / "static" / name).read_bytes())
    return digest.hexdigest()[:12]


def static_file(name: str) -> Response | None:
    """Return a static file."""
    if name not in STATIC:
        return None
    headers = {"cache-control": "public, max-age=31536000, immutable", "x-content-type-options": "nosniff"}
    return Response((HERE / "static" / name).read_bytes(), media_type=STATIC[name], headers=headers)


@cache
def _environment() -> Environment:
    made = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters["moment"] = moment
    made.filters["tone"] = lambda status: TONES.get(status, "muted")
    made.filters["words"] = lambda status: str(status).replace("_", " ")
    return made


def moment(when: datetime | None) -> Markup:
    """Return a time that the page's script shows in the reader's time zone."""
    if when is None:
        return Markup("")
    return Markup('<time datetime="{}">{}</time>').format(when.isoformat(), f"{when:%Y-%m-%d %H:%M:%S} UTC")


def page(template: str, root: str, status_code: int = 200, **values: Any) -> HTMLResponse:
    """
    Render a page.

    :param root: The path under which the app is mounted, with Airflow's own prefix.
    """
    text = (
        _environment().get_template(template).render(root=root, static=f"{root}/static/{static_version()}", **values)
    )
    return HTMLResponse(text, status_code, HEADERS)


def segment(part: str) -> str:
    """Quote an id for a path."""
    return quote(part, safe="")


def task_path(dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
    """Return the path of a task instance in Airflow, which shows its log."""
    mapped = f"/mapped/{map_index}" if map_index >= 0 else ""
    return f"dags/{segment(dag_id)}/runs/{segment(run_id)}/tasks/{segment(task_id)}{mapped}"


def tab_path(dag_id: str, run_id: str, task_id: str, map_index: int, try_number: int | None = None) -> str:
    """Return the path of a task instance's tab in Airflow, of a try of it or the newest."""
    query = f"?try_number={try_number}" if try_number else ""
    return f"{task_path(dag_id, run_id, task_id, map_index)}/plugin/{TASK_ROUTE}{query}"
