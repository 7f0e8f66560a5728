"""The walk through the DAGs of test_dag_test.py: a minute, in a process of its own beside the other tests."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pytest

ROOT = Path(__file__).parents[2]
TEST = "test_dag_test.py"
PATIENCE = 900.0


def home_of(factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the walk, which all processes of pytest-xdist share."""
    base = factory.getbasetemp()
    return (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "dag_test"


def start(home: Path) -> subprocess.Popen[bytes] | None:
    """Start the walk, unless another process of pytest-xdist has started it."""
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if home.exists():
            return None
        home.mkdir()
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")} | {
        "PYTHONPATH": str(ROOT),
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
    }
    walk = f'"{sys.executable}" -m tests.support.dag_test_world > "{home}/log" 2>&1; touch "{home}/over"'
    return subprocess.Popen(["sh", "-c", walk], cwd=ROOT, env=env)


def results_in(home: Path) -> dict[str, Any]:
    """Wait for the end of the walk, and return what became of the DAGs."""
    deadline = time.monotonic() + PATIENCE
    while not (home / "over").exists():
        assert time.monotonic() < deadline, (home / "log").read_text()[-15000:]
        time.sleep(0.2)
    found = home / "results.json"
    assert found.exists(), (home / "log").read_text()[-15000:]
    results: dict[str, Any] = json.loads(found.read_text())
    return results
