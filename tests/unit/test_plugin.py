import re
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import airflow
import httpx
import pytest

from airflow_skyvern import plugin
from airflow_skyvern.task import listener

ROOT = Path(__file__).parents[2]
on_airflow_3 = pytest.mark.skipif(airflow.__version__.startswith("2."), reason="the API server came with Airflow 3")


def test_the_entry_point_leads_to_the_plugin() -> None:
    found = re.search(
        r'\[project\.entry-points\."airflow\.plugins"\]\nskyvern = "(.+)"', (ROOT / "pyproject.toml").read_text()
    )
    assert found is not None
    assert EntryPoint("skyvern", found[1], "airflow.plugins").load() is plugin.SkyvernPlugin


def test_there_are_no_webhooks_unless_a_connection_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plugin.fastapi_apps() == plugin.SkyvernPlugin.fastapi_apps == []
    monkeypatch.setenv("AIRFLOW__SKYVERN__WEBHOOK_CONNECTIONS", "skyvern_default")
    [app] = plugin.fastapi_apps()
    assert app["url_prefix"] == "/skyvern"


def test_only_the_api_server_listens_as_listeners_elsewhere_forbid_end_from_trigger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert plugin.SkyvernPlugin.listeners == plugin.listeners() == []
    monkeypatch.setitem(sys.modules, "airflow.api_fastapi.main", object())
    assert plugin.listeners() == [listener]


def test_the_plugin_is_cheap_also_when_it_takes_webhooks() -> None:
    """Every process of Airflow loads it."""
    code = (
        "import sys, airflow.plugins_manager, airflow.configuration; before = set(sys.modules)\n"
        "import airflow_skyvern.plugin as plugin; assert plugin.SkyvernPlugin.fastapi_apps\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    env = {
        "AIRFLOW__SKYVERN__WEBHOOK_CONNECTIONS": "skyvern_default",
        "PATH": "/usr/bin",
        "AIRFLOW_HOME": "/tmp/none",
    }
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True, cwd=ROOT)
    loaded = done.stdout.splitlines()[-1].split()
    assert [name for name in loaded if name.startswith("airflow_skyvern.")] == [
        "airflow_skyvern.compat",
        "airflow_skyvern.plugin",
    ]
    assert not {"fastapi", "httpx", "pydantic", "sqlalchemy"}.intersection(loaded)


@on_airflow_3
async def test_the_app_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__SKYVERN__WEBHOOK_CONNECTIONS", "skyvern_default")
    app: Any = plugin.Webhooks()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://airflow") as client:
        assert (await client.post("/webhooks/skyvern_default", content=b"{}")).status_code == 401
        assert (await client.get("/webhooks/skyvern_default")).status_code == 405
        assert (await client.get("/docs")).status_code == 404
        assert (await client.get("/openapi.json")).status_code == 404
