"""The kit for testing DAGs, used as the author of a DAG uses it; its plugin is loaded in tests/conftest.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.masker import forget_secrets
from tests.support.snippets import example_bag

DagOf = Callable[[Path], Any]


@pytest.fixture
def dag_of(tmp_path: Path) -> DagOf:
    """Load the DAG of a file, with the imports that this Airflow has."""

    def load(path: Path) -> Any:
        (dag,) = example_bag(path, tmp_path).dags.values()
        return dag

    return load


@pytest.fixture(autouse=True)
def _secrets_of_no_other_test() -> Any:
    yield
    forget_secrets()
