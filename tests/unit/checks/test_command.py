"""The command ``airflow-skyvern check``: its lines, its options, its exit status."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from airflow_skyvern.checks.command import OPTIONS
from airflow_skyvern.checks.finding import CHECKS, OF_A_CONNECTION, OF_AIRFLOW
from airflow_skyvern.cli import get_cli_commands, main
from tests.unit.checks.conftest import BASE_URL

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
    from tests.unit.checks.conftest import Check
    from tests.unit.conftest import Connect


@pytest.mark.slow
@pytest.mark.usefixtures("in_order")
def test_each_check_has_a_line_for_each_connection(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_SECOND", json.dumps({"conn_type": "skyvern", "password": "x"}))
    _, lines = check()
    said = [(line["connection"], line["check"]) for line in lines]
    assert [check for conn_id, check in said if conn_id is None] == list(OF_AIRFLOW)
    assert {check for conn_id, check in said if conn_id == "skyvern_default"} == set(OF_A_CONNECTION)


def test_without_a_server_each_check_says_that_it_was_not_made(
    in_order: FakeSkyvern, check: Check, connect: Connect
) -> None:
    connect(host="http://127.0.0.1:1")
    _, lines = check("--conn-id", "skyvern_default")
    states = {line["check"]: line["state"] for line in lines if line["connection"]}
    assert states == {"connection": "ok", "server": "problem", **dict.fromkeys(list(OF_A_CONNECTION)[2:], "unknown")}
    assert in_order.requests == []


def test_a_probe_asks_for_what_it_wants_only(in_order: FakeSkyvern, check: Check) -> None:
    assert check("--only", "base_url", "--only", "triggerer")[0] == 0
    assert in_order.requests == []
    _, lines = check("--only", "key")
    assert [line["check"] for line in lines] == ["key"]
    assert {seen.path for seen in in_order.requests} == {"/v1/version", "/v1/workflows"}


def test_what_a_wanted_check_fails_on_is_said(in_order: FakeSkyvern, check: Check, connect: Connect) -> None:
    connect(host="http://127.0.0.1:1")
    status, lines = check("--only", "tags")
    assert [(line["check"], line["state"]) for line in lines] == [("server", "problem"), ("tags", "unknown")]
    assert status == 1


@pytest.mark.slow
@pytest.mark.usefixtures("in_order")
def test_warnings_count_where_the_check_is_strict(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(BASE_URL)
    monkeypatch.setenv("AIRFLOW__SKYVERN__INSTALLATION", "here")
    assert check()[0] == 0
    assert check("--strict")[0] == 1


@pytest.mark.usefixtures("in_order")
def test_without_a_database_the_environment_is_checked(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a worker of Airflow 3."""
    nowhere = sessionmaker(create_engine("sqlite:////no/such/folder/airflow.db"))
    monkeypatch.setattr("airflow.settings.Session", nowhere)
    status, lines = check()
    states = {line["check"]: line["state"] for line in lines}
    assert (states["triggerer"], states["stores"], states["key"]) == ("unknown", "unknown", "ok")
    assert status == 0


@pytest.mark.slow
@pytest.mark.parametrize("output", ["plain", "yaml"])
@pytest.mark.usefixtures("in_order")
def test_rows_come_in_airflows_other_forms_too(capsys: pytest.CaptureFixture[str], output: str) -> None:
    assert main(["check", "-o", output]) == 0
    printed = capsys.readouterr().out
    assert all(f"{name}" in printed for name in CHECKS)


def test_what_a_server_says_cannot_draw_on_the_terminal(
    in_order: FakeSkyvern, capsys: pytest.CaptureFixture[str]
) -> None:
    hostile = {"version": "1.0.56\x1b[2J\nok       key        all is well " + "x" * 5000}
    in_order.next("GET", "/v1/version", *[httpx.Response(200, json=hostile)] * 2)
    main(["check", "--only", "server"])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ok       server")]
    assert "\x1b" not in line
    assert len(line) < 1100


@pytest.mark.usefixtures("in_order")
def test_people_get_a_line_for_each_check_and_what_to_do(
    capsys: pytest.CaptureFixture[str], connect: Connect
) -> None:
    connect(password="wrong")
    assert main(["check"]) == 1
    printed = capsys.readouterr().out.splitlines()
    at = next(number for number, line in enumerate(printed) if line.startswith("PROBLEM"))
    assert printed[at] == (
        "PROBLEM  key        skyvern_default: Skyvern refuses the API key: Could not validate credentials."
    )
    assert printed[at + 1].startswith(f"{'':<19} -> Copy the key again")


def test_what_a_secrets_backend_raises_is_not_shown(
    in_order: FakeSkyvern, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(conn_id: str) -> None:
        raise RuntimeError("vault token hvs.secret-of-the-vault")

    monkeypatch.setattr("airflow_skyvern.compat.sdk.BaseHook.get_connection", broken)
    status, lines = check("--conn-id", "skyvern_default")
    assert status == 1
    assert "hvs" not in json.dumps(lines)
    assert lines[0]["fact"] == "It cannot be read (RuntimeError)."


def test_the_documentation_has_every_check() -> None:
    document = (Path(__file__).parents[3] / "docs" / "check.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", document, re.MULTILINE))
    assert {name: what for name, what in rows.items() if name in CHECKS} == CHECKS
    for flags, _ in OPTIONS:
        assert f"| `{flags[0]}` |" in document


@pytest.mark.parametrize("name", CHECKS)
def test_every_check_can_be_asked_for(name: str) -> None:
    (group,) = get_cli_commands()
    (command,) = [action for action in group.subcommands if action.name == "check"]
    (only,) = [argument for argument in command.args if "--only" in argument.flags]
    assert name in only.kwargs["choices"]
    assert name in only.kwargs["help"]


@pytest.mark.parametrize(
    "address", ["http://[bad/runs/wr_1", "file:///etc/passwd", "javascript:alert(1)", "", "/runs/x"]
)
def test_an_address_that_is_none_is_not_opened(
    in_order: FakeSkyvern, check: Check, connect: Connect, address: str
) -> None:
    connect()
    (run_id,) = in_order.runs
    answer = {"run_id": run_id, "status": "completed", "app_url": address or None}
    in_order.next("GET", f"/v1/runs/{run_id}", httpx.Response(200, json=answer))
    _, lines = check("--only", "ui")
    assert [line["state"] for line in lines] == ["problem" if address else "unknown"]


def test_certificates_that_cannot_be_read_are_of_the_connection(
    in_order: FakeSkyvern, check: Check, connect: Connect
) -> None:
    connect(extra={"verify": "/no/such/ca.pem"})
    _, lines = check("--only", "key")
    assert [(line["check"], line["state"]) for line in lines] == [("connection", "problem")]
    assert "cannot read certificates from /no/such/ca.pem" in lines[0]["fact"]
    assert in_order.requests == []
