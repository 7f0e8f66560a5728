"""What importing an operator costs a DAG file, by ``python -X importtime``, in a new interpreter each time."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
REPEAT = 3

OPERATORS = {
    "skyvern": ("airflow_skyvern.operators", "SkyvernRunWorkflowOperator"),
    "databricks": ("airflow.providers.databricks.operators.databricks", "DatabricksSubmitRunOperator"),
    "dbt-cloud": ("airflow.providers.dbt.cloud.operators.dbt", "DbtCloudRunJobOperator"),
    "airbyte": ("airflow.providers.airbyte.operators.airbyte", "AirbyteTriggerSyncOperator"),
    "fivetran": ("fivetran_provider_async.operators", "FivetranOperator"),
}
"""The operator of each provider that runs a job: its module and its name."""

_MARK = "benchmarks"
_CODE = f"from airflow.sdk import DAG, BaseOperator\nimport {_MARK}\nfrom {{}} import {{}}\n"
_LINE = re.compile(r"import time:\s+(\d+) \|\s+\d+ \| +(\S+)")


@dataclass(frozen=True)
class Imports:
    """
    What an import adds to what a DAG file loads anyway.

    :param milliseconds: The fastest of several repetitions: other programs only add to it.
    """

    milliseconds: float
    modules: int


def measured(operator: tuple[str, str], repeat: int = REPEAT) -> Imports:
    """Import an operator repeatedly, after what every DAG file imports; the first time does not count."""
    runs = [_once(operator) for _ in range(repeat + 1)][1:]
    return Imports(min(time for time, _ in runs), runs[0][1])


def _once(operator: tuple[str, str]) -> tuple[float, int]:
    command = [sys.executable, "-X", "importtime", "-c", _CODE.format(*operator)]
    compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPO, env=compiled)
    found = _LINE.findall(done.stderr)
    begin = [name for _, name in found].index(_MARK) + 1
    return sum(int(microseconds) for microseconds, _ in found[begin:]) / 1000, len(found) - begin


if __name__ == "__main__":
    from benchmarks.report import imports_table

    print(imports_table({name: measured(operator) for name, operator in OPERATORS.items()}))
