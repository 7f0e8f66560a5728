"""The table of endpoints: which method of the hook sends what, read from the endpoints themselves."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any
from urllib.parse import unquote

from airflow_skyvern.client import api, schedule_api
from airflow_skyvern.client.run_request import RunRequest
from dev.site.hook_methods import hook_methods

MODULES: dict[str, ModuleType] = {"api": api, "schedule_api": schedule_api}

EXAMPLES: dict[str, Any] = {
    "cron_expression": "0 6 * * *",
    "file": b"",
    "request": RunRequest.of({"workflow_id": "wpid_1"}),
    "tags": {},
}
"""Arguments that a placeholder such as `{run_id}` cannot stand for."""


def table() -> str:
    """Return the table as Markdown."""
    head = "| method of the hook | request | in Skyvern's API reference |\n|---|---|---|\n"
    return head + "\n".join(rows())


def rows() -> Iterator[str]:
    """Yield one row for each method of the hook that sends an endpoint."""
    for made in hook_methods():
        endpoint = getattr(MODULES[made.module], made.endpoint)
        sent = endpoint(**arguments(endpoint))
        link = f"[`{made.name}`][airflow_skyvern.hooks.SkyvernHook.{made.name}]"
        yield f"| {link} | `{sent.method} {unquote(sent.path)}` | {page(endpoint)} |"


def arguments(endpoint: Callable[..., Any]) -> dict[str, Any]:
    """Return the arguments that an endpoint needs: their own names, in braces."""
    needed = [item for item in inspect.signature(endpoint).parameters.values() if item.default is item.empty]
    return {item.name: EXAMPLES.get(item.name, f"{{{item.name}}}") for item in needed}


def page(endpoint: Callable[..., Any]) -> str:
    """Return the link to an endpoint's page, which its docstring names."""
    found = re.search(r"https://www\.skyvern\.com/docs/\S+/([\w-]+)", endpoint.__doc__ or "")
    return f"[{found[1]}]({found[0]})" if found else "not there"
