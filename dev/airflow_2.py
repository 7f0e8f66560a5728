"""The examples on Airflow 2.11: the imports from `airflow.sdk` are replaced as docs/compatibility.md says."""

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


def needs_ai(code: str) -> bool:
    """Return whether an example needs Airflow's AI provider, which is in an environment of its own: .venvs/ai."""
    return "airflow.providers.common.ai" in code
