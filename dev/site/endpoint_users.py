"""Which operators, commands and pages send an endpoint: read from the modules of the package that name it."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "airflow_skyvern"

USERS: dict[str, str] = {
    "agents": "agents",
    "assets": "assets",
    "checks": "`airflow-skyvern check`",
    "cli": "`airflow-skyvern schedules`",
    "client/session": "operators, sensor",
    "credential_cli": "`airflow-skyvern credentials`",
    "credential_sources": "`airflow-skyvern credentials`",
    "credentials": "`airflow-skyvern credentials`, `SkyvernSyncCredentialsOperator`",
    "credentials/names": "operators",
    "finished_runs": "assets",
    "notifications": "notifications",
    "operators": "operators",
    "operators/run_prompt": "prompts",
    "operators/send_totp_code": "`SkyvernSendTotpCodeOperator`",
    "operators/sync_credentials": "`SkyvernSyncCredentialsOperator`",
    "operators/workflow_file": "`workflow_file=`",
    "overdue": "`overdue_runs`",
    "polling": "deferred tasks",
    "reconciler": "`airflow-skyvern runs`",
    "recording": "`airflow-skyvern record`",
    "results": "operators, sensor",
    "runs": "operators",
    "runs/orphan_search": "`airflow-skyvern runs`",
    "runs/prompt_workflow": "prompts",
    "schedules": "`airflow-skyvern schedules`",
    "sensors": "sensor",
    "task": "operators",
    "traces": "operators",
    "triggers": "deferred tasks",
    "triggers/workflow_runs": "assets",
    "ui": "run page",
    "workflow_cli": "`airflow-skyvern workflows`",
    "workflow_files": "`airflow-skyvern workflows`, `workflow_file=`",
}
"""What an author of DAGs knows the modules of the package by; the longest beginning of a module's path counts."""

NO_USERS = ("client", "hooks", "testing")
"""What makes or answers requests, and is not why they are sent."""


def user_of(module: str) -> str | None:
    """Return by what name an author knows a module, given as its path in the package without extension."""
    known = [begin for begin in USERS if module == begin or module.startswith(f"{begin}/")]
    return USERS[max(known, key=len)] if known else None


@cache
def modules_by_name(names: frozenset[str]) -> Mapping[str, set[str]]:
    """Return the modules that name each of these functions, or the method of the hook for an event loop."""
    twins = {f"a{name}": name for name in names}
    found: dict[str, set[str]] = defaultdict(set)
    for module, named in _names_in_modules():
        for name in named & (names | twins.keys()):
            found[twins.get(name, name) if name not in names else name].add(module)
    return found


def _names_in_modules() -> Iterator[tuple[str, set[str]]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        module = path.relative_to(PACKAGE).with_suffix("").as_posix().removesuffix("/__init__")
        if module != "client/session" and module.partition("/")[0] in NO_USERS:
            continue
        yield module, set(_named(ast.parse(path.read_text())))


def _named(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("airflow_skyvern.client"):
            yield from (name.name for name in node.names)
