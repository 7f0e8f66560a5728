from __future__ import annotations

import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from airflow_skyvern import listener, plugin

if TYPE_CHECKING:
    import pytest


def test_only_the_api_server_listens_as_listeners_elsewhere_forbid_end_from_trigger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert plugin.SkyvernPlugin.listeners == plugin.listeners() == []
    monkeypatch.setitem(sys.modules, "airflow.api_fastapi.main", object())
    assert plugin.listeners() == [listener]


def test_airflow_finds_the_plugin() -> None:
    (found,) = [entry for entry in entry_points(group="airflow.plugins") if entry.name == "skyvern"]
    assert found.load() is plugin.SkyvernPlugin
