import re
import subprocess
import sys
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import airflow
import httpx
import pytest

from airflow_skyvern import plugin
from airflow_skyvern.compat import since_3_1
from airflow_skyvern.task import listener

ROOT = Path(__file__).parents[2]
SHOWS_PAGES = since_3_1.shows_external_views()
on_airflow_3 = pytest.mark.skipif(airflow.__version__.startswith("2."), reason="the API server came with Airflow 3")


def test_the_entry_point_leads_to_the_plugin() -> None:
    found = re.search(
        r'\[project\.entry-points\."airflow\.plugins"\]\nskyvern = "(.+)"', (ROOT / "pyproject.toml").read_text()
    )
    assert found is not None
    assert EntryPoint("skyvern", found[1], "airflow.plugins").load() is plugin.SkyvernPlugin


def test_there_are_no_webhooks_unless_a_connection_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [type(app["app"]) for app in plugin.SkyvernPlugin.fastapi_apps]
    assert kinds == ([plugin.Pages] if SHOWS_PAGES else [])
    monkeypatch.setenv("AIRFLOW__SKYVERN__WEBHOOK_CONNECTIONS", "skyvern_default")
    [app] = plugin.fastapi_apps()
    assert app["url_prefix"] == "/skyvern"
    assert type(app["app"]) is (plugin.PagesAndWebhooks if SHOWS_PAGES else plugin.Webhooks)


@pytest.mark.skipif(not SHOWS_PAGES, reason="elsewhere nothing is mounted")
async def test_without_a_connection_there_is_no_address_for_webhooks() -> None:
    """As docs/events.md says."""
    airflow_app = import_module("fastapi").FastAPI()
    airflow_app.mount("/skyvern", plugin.fastapi_apps()[0]["app"])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(airflow_app), base_url="http://airflow") as client:
        assert (await client.post("/skyvern/webhooks/skyvern_default", content=b"{}")).status_code == 404


def test_there_are_pages_where_airflow_shows_them() -> None:
    views = plugin.SkyvernPlugin.external_views
    assert [view["destination"] for view in views] == (["task_instance", "dag_run", "nav"] if SHOWS_PAGES else [])
    routes = [view["url_route"] for view in views]
    assert len(set(routes)) == len(routes)
    assert not any(view["href"].startswith("/") for view in views)  # they hold under any path prefix


@pytest.mark.slow
@pytest.mark.skipif(not SHOWS_PAGES, reason="pages of plugins came with Airflow 3.1")
async def test_pages_and_webhooks_share_one_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__SKYVERN__WEBHOOK_CONNECTIONS", "skyvern_default")
    airflow_app = import_module("fastapi").FastAPI()  # 2.11 has none
    airflow_app.mount("/skyvern", plugin.fastapi_apps()[0]["app"])
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(airflow_app, root_path="/airflow"), base_url="http://airflow/airflow"
    ) as client:
        assert (await client.post("/skyvern/webhooks/skyvern_default", content=b"{}")).status_code == 401
        icon = await client.get("/skyvern/static/0/icon.svg")
        assert (icon.status_code, icon.headers["content-type"]) == (200, "image/svg+xml")
        assert (await client.get("/skyvern/runs")).status_code == 401


def test_only_api_server_and_scheduler_listen_as_listeners_elsewhere_forbid_end_from_trigger(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert plugin.SkyvernPlugin.listeners == plugin.listeners() == []
    monkeypatch.setitem(sys.modules, "airflow.api_fastapi.main", object())
    assert plugin.listeners() == [listener]


@pytest.mark.parametrize(
    "arguments", [["dag-processor"], ["celery", "worker"], ["triggerer"], ["tasks", "run", "scheduler"], []], ids=str
)
def test_no_other_process_listens_to_ends(monkeypatch: pytest.MonkeyPatch, arguments: list[str]) -> None:
    monkeypatch.setattr("sys.argv", ["airflow", *arguments])
    assert plugin.listeners() == []


IN_A_SCHEDULER = """
import multiprocessing, os, sys
sys.argv = ["airflow", "scheduler"]
from airflow.listeners.listener import get_listener_manager

def ours():
    manager = get_listener_manager()
    return sorted(p.__name__ for p in manager.pm.get_plugins() if p.__name__.startswith("airflow_skyvern"))

def show(queue):
    queue.put(ours())

print("scheduler", ours(), flush=True)
context = multiprocessing.get_context("fork")
queue = context.Queue()
child = context.Process(target=show, args=(queue,))
child.start()
print("child", queue.get(), flush=True)
child.join()
if os.fork() == 0:
    print("forked", ours(), flush=True)
    os._exit(0)
os.wait()
print("scheduler", ours())
"""


@pytest.mark.slow
def test_a_scheduler_listens_and_none_of_its_children_does(tmp_path: Path) -> None:
    """Its workers and 2.11's DAG processor are forked from it; Airflow loads the plugin by its entry point here."""
    assert entry_points(group="airflow.plugins", name="skyvern")
    env = {"PATH": "/usr/bin", "AIRFLOW_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", IN_A_SCHEDULER], capture_output=True, text=True, env=env, check=True, cwd=ROOT
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith(("scheduler", "child", "forked"))]
    listening = "scheduler ['airflow_skyvern.reconciler.listener']"
    assert lines == [listening, "child []", "forked []", listening]


@pytest.mark.slow
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
        "airflow_skyvern.compat.internals",
        "airflow_skyvern.compat.since_3_0",
        "airflow_skyvern.compat.since_3_1",
        "airflow_skyvern.macros",
        "airflow_skyvern.notifications",
        "airflow_skyvern.plugin",
        "airflow_skyvern.task",
        "airflow_skyvern.task.xcom",
    ]
    assert not {"fastapi", "httpx", "pydantic", "sqlalchemy"}.intersection(loaded)


@pytest.mark.slow
@on_airflow_3
async def test_the_app_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__SKYVERN__WEBHOOK_CONNECTIONS", "skyvern_default")
    app: Any = plugin.Webhooks()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://airflow") as client:
        assert (await client.post("/webhooks/skyvern_default", content=b"{}")).status_code == 401
        assert (await client.get("/webhooks/skyvern_default")).status_code == 405
        assert (await client.get("/docs")).status_code == 404
        assert (await client.get("/openapi.json")).status_code == 404
