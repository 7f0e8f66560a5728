"""The layers of the package, and which unit tests need no Airflow."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

LAYERS = (
    "provider_info models secret_values documentation",
    "exceptions",
    "durations limits",
    "client",
    "runs",
    "workflow_files credentials",
    "polling",
    # Above here is what knows Airflow.
    "compat",
    "metrics traces connection_list credential_sources",
    "hooks",
    "task",
    "results finished_runs",
    "triggers",
    "links notifications overdue retries macros",
    "operators sensors assets schedules reconciler",
    "ui decorators agents checks recording workflow_cli credential_cli",
    "plugin cli dag_policy testing",
)
"""From the bottom up; what stands in one line does not import each other."""

RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names.split()}
WITHOUT_AIRFLOW = RANK["compat"]

FAKE = "airflow_skyvern.testing.fake"
"""The one part of the kit that knows no Airflow."""

OF_AIRFLOW = ("airflow", "tests.support.tasks", "tests.support.ui_rig", "subprocess")


def needs_airflow(test_file: Path) -> bool:
    """Return whether a unit test may differ between versions: it imports what knows Airflow, or starts a process."""
    return any(_knows_airflow(name) for name in _imported(ast.parse(test_file.read_text())))


def _imported(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "airflow_skyvern":
            yield from (f"airflow_skyvern.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def _knows_airflow(module: str) -> bool:
    package, _, rest = module.partition(".")
    if package == "airflow_skyvern" and not f"{module}.".startswith(f"{FAKE}."):
        return RANK.get(rest.partition(".")[0], 0) >= WITHOUT_AIRFLOW
    return any(module == name or module.startswith(f"{name}.") for name in OF_AIRFLOW)
