"""`airflow-skyvern credentials`: what it prints, its exit statuses, and that no secret is among it."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.cli import main
from airflow_skyvern.hooks import SkyvernHook

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

Capture = pytest.CaptureFixture[str]
PASSWORD = "zebra-passphrase-7"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let what the command line sets for its own process end with the test; 2.11 logs to standard output."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
    monkeypatch.setenv("AIRFLOW__SKYVERN__INSTALLATION", "https://airflow.example.com")
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "hTXAmGqjSnMXzWBwm3hAxb2bKf6UFTH1wzhsmyqGVKw=")
    for conn_id in ("portal", "bank"):
        store(monkeypatch, conn_id, PASSWORD)
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


def store(monkeypatch: pytest.MonkeyPatch, conn_id: str, password: str | None) -> None:
    given = {"conn_type": "http", "login": "me", "password": password}
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(given))


def run(*arguments: str) -> int:
    return main(["credentials", *arguments])


@pytest.mark.slow
def test_sync_then_unchanged_then_rotated_then_deleted(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    assert run("sync", "--dry-run", "portal", "bank") == 0
    assert capsys.readouterr().out == (
        "portal: credential 'portal' would be created\nbank: credential 'bank' would be created\n"
    )
    assert skyvern.credentials == {}
    assert run("sync", "portal", "bank") == 0
    portal, bank = skyvern.credentials
    assert f"portal: credential 'portal' ({portal}) created\n" in capsys.readouterr().out
    store(monkeypatch, "portal", "another-passphrase")
    assert run("sync", "-o", "json", "portal", "bank") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["connection"], row["action"], row["credential_id"]) for row in rows] == [
        ("portal", "rotated", portal),
        ("bank", "unchanged", bank),
    ]
    assert run("sync", "--delete", "portal") == 0
    assert f"bank: credential 'bank' ({bank}) deleted\n" in capsys.readouterr().out
    assert [*skyvern.credentials] == [portal]


@pytest.mark.slow
def test_list_says_whose_each_one_is(skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    SkyvernHook().create_credential("theirs", "secret", {"secret_value": PASSWORD})
    assert run("sync", "portal") == 0
    monkeypatch.setenv("AIRFLOW__SKYVERN__INSTALLATION", "https://staging.example.com")
    assert run("sync", "bank") == 0
    monkeypatch.setenv("AIRFLOW__SKYVERN__INSTALLATION", "https://airflow.example.com")
    capsys.readouterr()
    assert run("list", "-o", "json") == 0
    printed = capsys.readouterr().out
    rows: list[dict[str, Any]] = json.loads(printed)
    assert {row["name"]: (row["made_by"], row["connection"]) for row in rows} == {
        "theirs": (None, None),
        "portal": ("this Airflow", "portal"),
        "bank": ("another Airflow", "bank"),
    }
    assert PASSWORD not in printed
    assert len(skyvern.credentials) == 3


def test_what_fails_is_named_and_the_status_is_1_while_the_others_are_done(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    store(monkeypatch, "empty", None)
    skyvern.next("POST", "/v1/credentials", httpx.Response(500, json={"detail": f"vault: {PASSWORD}"}))
    assert run("sync", "portal", "bank", "empty", "nowhere") == 1
    out, errors = capsys.readouterr()
    assert "bank: credential 'bank'" in out
    assert "error: portal: " in errors
    assert "error: empty: credential 'empty': password is missing or empty." in errors
    assert "error: nowhere: Airflow has no such connection" in errors
    assert PASSWORD not in out + errors


def test_an_airflow_without_a_name_and_a_wrong_key_change_nothing(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("AIRFLOW__SKYVERN__INSTALLATION", "")
    assert run("sync", "portal") == 1
    assert "set [skyvern] installation" in capsys.readouterr().err
    assert run("list", "-o", "json") == 0
    monkeypatch.setenv("AIRFLOW__SKYVERN__INSTALLATION", "https://airflow.example.com")
    assert run("sync", "--conn-id", "nowhere", "portal") == 1
    assert skyvern.credentials == {}


@pytest.mark.usefixtures("skyvern")
def test_ids_are_needed(capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="2"):
        run("sync", "--delete")
    assert "connection" in capsys.readouterr().err
