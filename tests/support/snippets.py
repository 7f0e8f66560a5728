"""The code blocks of the documents: README.md, docs/ and dags/."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import airflow
import pytest

from airflow_skyvern.compat import internals, since_3_1
from dev.airflow_2 import asks_a_person, for_airflow_2, needs_ai, runs_on_airflow_2

ROOT = Path(__file__).parents[2]
AIRFLOW_2 = airflow.__version__.startswith("2.")
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "dags").glob("*.md"))]


def _code_blocks() -> Iterator[tuple[str, str]]:
    for document in DOCUMENTS:
        blocks = re.findall(r"^( *)```python\n(.*?)^ *```", document.read_text(), re.DOTALL | re.MULTILINE)
        for number, (_, block) in enumerate(blocks, 1):
            yield f"{document.relative_to(ROOT)}:{number}", textwrap.dedent(block)


BLOCKS = dict(_code_blocks())
"""Each block by its document and number: `docs/guide.md:1`."""


AI = internals.module_exists("airflow.providers.common.ai.managed_agents")
RETRY_POLICIES = not AIRFLOW_2 and find_spec("airflow.sdk.definitions.retry_policy") is not None
DEADLINES = not AIRFLOW_2 and hasattr(import_module("airflow.sdk"), "DeadlineAlert")
PARTITIONS = not AIRFLOW_2 and hasattr(import_module("airflow.sdk"), "PartitionedAssetTimetable")


def as_this_airflow_has_it(code: str) -> str:
    """Return a block for this Airflow: on 2.11 its imports are those that docs/compatibility.md tells."""
    return for_airflow_2(code) if AIRFLOW_2 else code


def why_not_here(code: str) -> str | None:
    """Return what this Airflow lacks for a block."""
    lacks = {
        "retry policies came with Airflow 3.3": "airflow_skyvern.retries" in code and not RETRY_POLICIES,
        "Required Actions came with Airflow 3.1": asks_a_person(code) and not since_3_1.has_required_actions(),
        "Airflow's AI provider is not installed here": needs_ai(code) and not AI,
        "watchers and webhooks came with Airflow 3": AIRFLOW_2 and not runs_on_airflow_2(code),
        "airflow.sdk has no deadlines here": "DeadlineAlert" in code and not DEADLINES,
        "partitions by key came with Airflow 3.3": "PartitionedAssetTimetable" in code and not PARTITIONS,
    }
    return next((reason for reason, it_does in lacks.items() if it_does), None)


def example_bag(example: Path, folder: Path) -> Any:
    """Load an example DAG as this Airflow has it; skip what it cannot run."""
    code = example.read_text()
    if (reason := why_not_here(code)) is not None:
        pytest.skip(reason)
    copy = folder / example.name
    copy.write_text(as_this_airflow_has_it(code))
    for beside in example.parent.glob("*.yaml"):
        shutil.copy(beside, folder)
    bag = since_3_1.dag_bag(copy)
    assert bag.import_errors == {}
    return bag
