"""Files that ``airflow-skyvern record`` has written."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_skyvern.testing.skyvern import Skyvern


def the_test_in(file: Path) -> Callable[[Skyvern], None]:
    """Load a file, and return the one test in it."""
    spec = importlib.util.spec_from_file_location("recorded_by_the_test", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (test,) = [value for name, value in vars(module).items() if name.startswith("test_")]
    return test  # type: ignore[no-any-return]
