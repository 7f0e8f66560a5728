"""What facts mean: the pure part of the check."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_skyvern.checks import airflow_side, server
from airflow_skyvern.checks.asking import Webhooks
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.compat.health import Heartbeat
from airflow_skyvern.exceptions import (
    SkyvernAuthError,
    SkyvernConnectionError,
    SkyvernNotFoundError,
    SkyvernResponseError,
    SkyvernServerError,
)
from airflow_skyvern.models.resources import WebhookTest

NOW = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("seconds", "state", "fact"),
    [
        (0, "ok", "The clocks differ by less than 30 s."),
        (-30, "ok", "The clocks differ by less than 30 s."),
        (40, "warning", "The server's clock is 40 s ahead of this machine's."),
        (-3600, "problem", "The server's clock is 1 h 0 min behind this machine's."),
        (86400 * 365, "problem", "The server's clock is 8760 h 0 min ahead of this machine's."),
    ],
)
def test_clocks(seconds: int, state: str, fact: str) -> None:
    found = server.clock(NOW + timedelta(seconds=seconds), NOW)
    assert (found.state, found.fact) == (state, fact)
    assert bool(found.fix) == (state != "ok")


@pytest.mark.parametrize(
    ("text", "state", "part"),
    [
        ("1.0.56", "ok", "Skyvern 1.0.56."),
        ("1.0.60", "ok", "newer than 1.0.56"),
        ("1.1", "ok", "newer than"),
        ("v1.0.56-rc1", "ok", "Skyvern v1.0.56-rc1."),
        ("1.0.55", "warning", "too old for: workflow files; refused starts that leave no failed run"),
        ("1.0.30", "warning", "schedules; lists of one workflow's runs"),
        ("below 1.0.40", "warning", "run tags; approvals"),
        ("0.9.99", "warning", "schedules; lists of one workflow's runs"),
        ("nightly", "unknown", "as numbers: 'nightly'"),
        ("", "unknown", "as numbers"),
    ],
)
def test_versions(text: str, state: str, part: str) -> None:
    found = server.version(text)
    assert found.state == state
    assert part in found.fact


def test_a_connection_says_what_is_not_safe() -> None:
    assert server.connection(Settings("k")).state == "ok"
    exposed = server.connection(Settings("k", "http://skyvern.example.com"))
    assert (exposed.state, exposed.fix) == ("warning", "Use https: https://skyvern.example.com in the host field.")
    assert server.connection(Settings("k", verify=False)).state == "warning"
    proxied = server.connection(Settings("k", proxy="http://me:secret@proxy:3128"))
    assert "proxy" in proxied.fact
    assert "secret" not in proxied.fact


@pytest.mark.parametrize(
    ("address", "base_url", "error", "state"),
    [
        ("https://app.skyvern.com/runs/wr_1", "https://api.skyvern.com", None, "ok"),
        (
            "https://app.example.com/runs/wr_1",
            "https://api.example.com",
            SkyvernResponseError("", status_code=302),
            "ok",
        ),
        ("https://app.example.com/runs/wr_1", "https://api.example.com", SkyvernAuthError("", status_code=403), "ok"),
        (
            "https://api.example.com/runs/wr_1",
            "https://api.example.com",
            SkyvernNotFoundError("", status_code=404),
            "problem",
        ),
        ("https://app.example.com/runs/wr_1", "https://a.example.com", SkyvernConnectionError(""), "warning"),
        ("http://localhost:8080/runs/wr_1", "https://api.example.com", SkyvernConnectionError(""), "warning"),
        ("http://localhost:8080/runs/wr_1", "http://127.0.0.1:8000", None, "ok"),
    ],
)
def test_pages(address: str, base_url: str, error: Any, state: str) -> None:
    found = server.page(address, base_url, error)
    assert found.state == state
    assert "wr_1" not in found.fact


@pytest.mark.parametrize(
    ("status", "body", "state", "part"),
    [
        (200, '{"result":"not of a workflow","run_id":"tsk_1"}', "ok", "its signature is right"),
        (200, "<html>", "problem", "Something other"),
        (200, '{"status": "ok"}', "problem", "Something other"),
        (401, '{"detail":"Invalid signature"}', "problem", "signs with another key"),
        (401, "<html>login", "problem", "Something other"),
        (502, "", "problem", "with 502"),
    ],
)
def test_what_answers_a_webhook(status: int, body: str, state: str, part: str) -> None:
    found = server.webhooks("https://a/skyvern/webhooks/x", WebhookTest(status_code=status, response_body=body))
    assert found.state == state
    assert part in found.fact


def test_a_webhook_that_does_not_arrive_and_a_server_without_the_test() -> None:
    blocked = server.webhooks("https://a", WebhookTest(status_code=None, error="The host in your url is blocked: a"))
    assert (blocked.state, "blocked" in blocked.fact) == ("problem", True)
    missing = SkyvernResponseError("Could not test a webhook", status_code=404, detail="Not Found")
    assert server.no_webhook_test(missing).fact == "This Skyvern has no test of webhooks."
    assert server.no_webhook_test(SkyvernServerError("busy")).state == "unknown"


def test_the_receiver_of_a_connection() -> None:
    assert Webhooks(frozenset(), "https://a/air/").of("x") == "https://a/air/skyvern/webhooks/x"
    assert Webhooks(frozenset(), "").of("x") is None
    assert Webhooks(frozenset(), "https://a", "https://outer/x").of("x") == "https://outer/x"


def test_the_provider_and_its_plugin() -> None:
    assert airflow_side.provider("0.1.0", ["skyvern"]).state == "ok"
    assert airflow_side.provider(None, []).state == "problem"
    assert airflow_side.provider("0.1.0", ["http"]).state == "problem"
    assert airflow_side.plugin(loaded=True, errors={}).state == "ok"
    broken = airflow_side.plugin(loaded=False, errors={"x": "no", "airflow_skyvern.plugin": "No module named 'y'"})
    assert "(No module named 'y')" in broken.fact


def test_triggerers() -> None:
    old, young = Heartbeat("a", NOW - timedelta(minutes=9), alive=False), Heartbeat("b", NOW, alive=True)
    assert airflow_side.triggerer([young, old], NOW).fact == "1 alive: b."
    assert "the last heartbeat was 9 min 0 s ago" in airflow_side.triggerer([old], NOW).fact


@pytest.mark.parametrize(
    ("configured", "installation", "state"),
    [
        ("https://airflow.example.com", "", "ok"),
        ("http://localhost:8080", "", "problem"),
        ("http://localhost:8080", "here", "warning"),
        ("", "here", "warning"),
        ("http://[::1]:8080", "", "problem"),
    ],
)
def test_addresses_of_airflow(configured: str, installation: str, state: str) -> None:
    assert airflow_side.base_url(configured, "[api] base_url", installation).state == state


def test_stores(monkeypatch: pytest.MonkeyPatch) -> None:
    assert airflow_side.store("sftp_1", "sftp", has_provider=False).fix == (
        "Install apache-airflow-providers-sftp[sshfs] where the workers run."
    )
    kind = SimpleNamespace(
        can_create_only=lambda: False, client="s3fs", client_since="2024.12.0", name="S3", install="x"
    )
    monkeypatch.setitem(airflow_side.KIND_OF, "aws", kind)
    found = airflow_side.store("lake", "aws", has_provider=True)
    assert found.state == "warning"
    assert "s3fs 2024.12.0 or newer is not installed here" in found.fact


@pytest.mark.parametrize(
    ("version", "there", "missing"),
    [
        ("2.11.2", "", "Not available: events and webhooks"),
        ("3.0.6", "Available: events and webhooks of finished runs.", "Not available: the run page"),
        ("3.3.2", "retry policies", ""),
        ("3.10.0rc1", "retry policies", ""),
        ("4.0.0", "retry policies", ""),
    ],
)
def test_what_an_airflow_can_do(version: str, there: str, missing: str) -> None:
    fact = airflow_side.abilities(version).fact
    assert there in fact
    assert missing in fact
    assert bool(missing) == ("Not available" in fact)
