"""The kit for testing DAGs, used as the author of a DAG uses it; its plugin is loaded in tests/conftest.py."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from airflow_skyvern.compat import dag_bag
from dev.airflow_2 import for_airflow_2, runs_on_airflow_2
from tests.support.snippets import AIRFLOW_2

DagOf = Callable[[Path], Any]


@pytest.fixture
def dag_of(tmp_path: Path) -> DagOf:
    """Load the DAG of a file, with the imports that this Airflow has."""

    def load(path: Path) -> Any:
        code = path.read_text()
        if AIRFLOW_2 and not runs_on_airflow_2(code):
            pytest.skip("watchers and webhooks came with Airflow 3")
        copy = tmp_path / path.name
        copy.write_text(for_airflow_2(code) if AIRFLOW_2 else code)
        bag = dag_bag(copy)
        assert bag.import_errors == {}
        (dag,) = bag.dags.values()
        return dag

    return load


@pytest.fixture(autouse=True)
def _secrets_of_no_other_test() -> Any:
    """Airflow 2 masks in logs what any test before has named a secret."""
    yield
    if AIRFLOW_2:
        masker = import_module("airflow.utils.log.secrets_masker")._secrets_masker()
        masker.patterns, masker.replacer = set(), None
