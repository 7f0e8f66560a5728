"""Airflow is set up here before anything imports it, in a directory of its own."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

assert "airflow" not in sys.modules, "something imported Airflow before its home was set"
for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
    del os.environ[name]
HOME = tempfile.mkdtemp(prefix="airflow-home-of-tests-")
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
os.environ["AIRFLOW_HOME"] = HOME
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__UNIT_TEST_MODE"] = "False"
os.environ["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = f"sqlite:///{HOME}/airflow.db"
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"

from airflow_skyvern.testing.fake.skyvern import FakeSkyvern  # noqa: E402  after the lines above

pytest_plugins = ["airflow_skyvern.testing"]

GROUPS = {
    "contract": "contract",
    "system": "system",
    "system/test_schedules.py": "schedules",
    "system/test_dags_test.py": "schedules",
}
"""Which tests share servers, by folder or module: with ``--dist loadgroup`` each group is in one process."""


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests into their groups."""
    for item in items:
        module = item.path.relative_to(Path(__file__).parent)
        group = GROUPS.get(str(module)) or GROUPS.get(module.parts[0])
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture
def fake() -> Iterator[FakeSkyvern]:
    """A Skyvern server in memory. An answer that was scripted and not asked for fails the test."""
    server = FakeSkyvern()
    yield server
    assert not server.unused, f"scripted, but never asked for: {server.unused}"
