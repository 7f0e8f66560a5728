"""The pages, for all tests of this folder; Airflow has had a place for them since 3.1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.ui_rig import Ui


@pytest.fixture(scope="module", autouse=True)
def database() -> None:
    from tests.support.ui_rig import create_database

    create_database()


@pytest.fixture
def ui(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ui]:
    from tests.support.ui_rig import pages

    # A busy machine may take longer to read a log than a reader of the page is to wait.
    monkeypatch.setattr("airflow_skyvern.ui.task_log.PATIENCE", 60.0)
    with pages(monkeypatch) as ui:
        yield ui
