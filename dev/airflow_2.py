"""
The examples on older Airflows: which can run there, and the imports of 2.11.

What comes from `airflow.sdk` is replaced as docs/compatibility.md says.
"""

from __future__ import annotations

import re

HOMES = {
    "DAG": "airflow",
    "ObjectStoragePath": "airflow.io.path",
    "Param": "airflow.models.param",
    "Variable": "airflow.models",
    "XCom": "airflow.models.xcom",
    "chain": "airflow.models.baseoperator",
    "get_current_context": "airflow.operators.python",
    "task": "airflow.decorators",
    "task_group": "airflow.decorators",
}
_IMPORT = re.compile(r"^( *)from airflow\.sdk import (\([^)]*\)|[^\n(]+)$", re.MULTILINE)


def for_airflow_2(code: str) -> str:
    """Return code for Airflow 2.11 that was written for Airflow 3."""

    def replaced(match: re.Match[str]) -> str:
        names = [name for name in re.split(r"[(),\s]+", match[2]) if name]
        return "\n".join(f"{match[1]}from {HOMES[name]} import {name}" for name in names)

    return _IMPORT.sub(replaced, code)


def runs_on_airflow_2(code: str) -> bool:
    """Return whether an example can run on Airflow 2.11: watchers and webhooks came with Airflow 3."""
    return "airflow_skyvern.assets" not in code and not needs_ai(code)


def asks_a_person(code: str) -> bool:
    """Return whether code asks a person in Required Actions, which came with Airflow 3.1."""
    return re.search(r'\b(approval|code)="airflow"', code) is not None


def runs_on(code: str, version: tuple[int, ...]) -> bool:
    """Return whether an example can run on this version of Airflow."""
    if version < (3, 1) and asks_a_person(code):
        return False
    return version >= (3, 0) or runs_on_airflow_2(code)


def needs_ai(code: str) -> bool:
    """Return whether an example needs Airflow's AI provider, which is in an environment of its own: .venvs/ai."""
    return "airflow.providers.common.ai" in code
