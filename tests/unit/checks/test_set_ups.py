"""Set-ups with one fault each, and the line that says it, which the documentation promises."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.client.answers import NO_TAGS
from airflow_skyvern.client.environment import proxy_for
from airflow_skyvern.compat import since_3_3
from airflow_skyvern.compat.since_3_0 import is_airflow_3
from airflow_skyvern.testing.fake.skyvern import API_KEY
from tests.support.servers import answering, answering_with_tls
from tests.unit.checks.conftest import BASE_URL

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
    from airflow_skyvern.testing.loopback import Loopback
    from tests.support.metadata_database import MetadataDatabase
    from tests.unit.checks.conftest import Check
    from tests.unit.conftest import Connect

DOCUMENT = Path(__file__).parents[3] / "docs" / "troubleshooting.md"
PROXY_PASSWORD = "pass-of-the-proxy"
WRONG_KEY = "wrong-key-of-mine"
NOW = datetime.now(timezone.utc)


@dataclass
class World:
    """What a fault may be done to."""

    skyvern: FakeSkyvern
    loopback: Loopback
    airflow: MetadataDatabase
    connect: Connect
    monkeypatch: pytest.MonkeyPatch
    stack: ExitStack
    folder: Path


@pytest.fixture
def world(
    in_order: FakeSkyvern,
    loopback: Loopback,
    airflow: MetadataDatabase,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(in_order, loopback, airflow, connect, monkeypatch, stack, tmp_path)


Fault = Callable[[World], tuple[str, ...] | None]
"""Does one thing wrong; returns arguments for the command, if it needs some."""

FAULTS: dict[str, Fault] = {}


def fault(name: str) -> Callable[[Fault], Fault]:
    def add(function: Fault) -> Fault:
        FAULTS[name] = function
        return function

    return add


@fault("wrong key")
def _wrong_key(world: World) -> None:
    world.connect(password=WRONG_KEY)


@fault("http for https")
def _http_for_https(world: World) -> None:
    address = world.stack.enter_context(answering_with_tls(lambda *_: (200, {}, b"{}"), world.folder))
    world.connect(host=address.replace("https://", "http://"))


@fault("https for http")
def _https_for_http(world: World) -> None:
    world.connect(host=world.loopback.url.replace("http://", "https://"))


@fault("a proxy that asks for a login")
def _proxy_with_login(world: World) -> None:
    login = {"location": "http://login.example.com/?token=abc"}
    world.connect(host=world.stack.enter_context(answering(lambda *_: (302, login, b""))))


@fault("a proxy that refuses its password")
def _proxy_with_password(world: World) -> None:
    proxy = world.stack.enter_context(answering(lambda *_: (407, {"content-type": "text/html"}, b"<html>")))
    through = proxy.replace("http://", f"http://me:{PROXY_PASSWORD}@")
    world.connect(host="http://skyvern.example.com", extra={"proxy": through})
    assert proxy_for("http://skyvern.example.com", through) is not None


@fault("a proxy that drops the key")
def _proxy_without_key(world: World) -> None:
    def answer(path: str, headers: Any) -> Any:
        seen = world.skyvern.handle(httpx.Request("GET", f"http://skyvern{path}"))
        return seen.status_code, {"content-type": "application/json"}, seen.content

    world.connect(host=world.stack.enter_context(answering(answer)))


@fault("clock off by an hour")
def _clock(world: World) -> None:
    late = {"date": format_datetime(datetime.now(timezone.utc) - timedelta(hours=1), usegmt=True)}
    answer = httpx.Response(200, json={"version": "1.0.56"}, headers=late)
    world.skyvern.next("GET", "/v1/version", answer, answer)


@fault("no triggerer")
def _no_triggerer(world: World) -> None:
    with world.airflow.engine.begin() as connection:
        connection.exec_driver_sql("delete from job")


@fault("a triggerer that has died")
def _dead_triggerer(world: World) -> None:
    _no_triggerer(world)
    world.airflow.triggerer(datetime.now(timezone.utc) - timedelta(hours=2))


@fault("plugin missing")
def _no_plugin(world: World) -> None:
    world.monkeypatch.setattr("airflow.plugins_manager.get_plugin_info", lambda _: [{"name": "another"}])


@fault("webhook unreachable")
def _no_way_for_webhooks(world: World) -> tuple[str, ...]:
    world.monkeypatch.setenv("AIRFLOW__SKYVERN__WEBHOOK_CONNECTIONS", "skyvern_default")
    return ("--webhook-url", "http://127.0.0.1:1/skyvern/webhooks/skyvern_default")


@fault("webhooks end at something else")
def _webhooks_elsewhere(world: World) -> tuple[str, ...]:
    elsewhere = world.stack.enter_context(answering(lambda *_: (404, {"content-type": "text/html"}, b"<html>")))
    return ("--webhook-url", f"{elsewhere}/skyvern/webhooks/skyvern_default")


@fault("old server")
def _old_server(world: World) -> None:
    world.skyvern.next("GET", "/v1/version", *[httpx.Response(200, json={"version": "1.0.45"})] * 2)
    world.skyvern.next("GET", "/v1/run-tags", httpx.Response(404, json={"detail": "Not Found"}))


@fault("no tags")
def _no_tags(world: World) -> None:
    world.skyvern.next("GET", "/v1/run-tags", httpx.Response(403, json={"detail": NO_TAGS}))


@fault("wrong UI address")
def _wrong_page(world: World) -> None:
    world.connect(extra={"app_url": world.loopback.url})


@fault("no base_url")
def _no_base_url(world: World) -> None:
    world.monkeypatch.delenv(BASE_URL)


@fault("store without provider")
def _no_provider(world: World) -> None:
    world.monkeypatch.setenv("AIRFLOW_CONN_LAKE", json.dumps({"conn_type": "google_cloud_platform"}))


@fault("no connection")
def _no_connection(world: World) -> tuple[str, ...]:
    return ("--conn-id", "nowhere")


@fault("key in the wrong field")
def _key_in_login(world: World) -> None:
    world.connect(password="", login=API_KEY)


ONLY_AIRFLOW_3 = {"webhook unreachable", "webhooks end at something else"}


def promised() -> dict[str, tuple[str, str]]:
    """The check and the line of each set-up in the documentation."""
    rows = re.findall(r"^\| ([^|`]+) \| `(\w+)` \| `([^`|]+)` \|", DOCUMENT.read_text(), re.MULTILINE)
    return {name: (check, line) for name, check, line in rows if name != "set-up"}


def test_the_documentation_has_every_set_up() -> None:
    assert list(promised()) == list(FAULTS)


def test_nothing_is_wrong_where_everything_is_in_order(in_order: FakeSkyvern, check: Check) -> None:
    status, lines = check("--strict")
    assert [line for line in lines if line["state"] != "ok"] == []
    assert status == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_the_only_one_that_is_said(world: World, check: Check, name: str) -> None:
    if name in ONLY_AIRFLOW_3 and not is_airflow_3():
        pytest.skip("Airflow 2.11 takes no webhooks")
    arguments = FAULTS[name](world) or ()
    status, lines = check(*arguments)
    checked, words = promised()[name]
    (said,) = [line for line in lines if line["check"] == checked]
    pattern = ".*".join(re.escape(part) for part in words.split("…"))
    assert re.fullmatch(pattern, said["fact"]), said
    assert said["state"] in ("problem", "warning")
    assert said["fix"]
    problems = {line["check"] for line in lines if line["state"] == "problem"}
    assert problems <= ({checked, "tags"} if name == "old server" else {checked})
    assert status == int(bool(problems))
    text = json.dumps(lines)
    for secret in (API_KEY, WRONG_KEY, PROXY_PASSWORD, "token=abc"):
        assert secret not in text


def test_a_server_without_tags_is_no_problem_where_airflow_remembers_runs(world: World, check: Check) -> None:
    _no_tags(world)
    _, lines = check("--only", "tags")
    remembers = since_3_3.renders_trigger_arguments()
    assert [line["state"] for line in lines] == ["warning" if remembers else "problem"]
