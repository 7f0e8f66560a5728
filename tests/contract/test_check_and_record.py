"""What the commands ``check`` and ``record`` ask of Skyvern, and what they make of a real server's answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.cli import main
from airflow_skyvern.client import api, check_api
from tests.support.recorded_tests import the_test_in
from tests.support.servers import answering

if TYPE_CHECKING:
    from airflow_skyvern.testing import Skyvern
    from dev.skyvern_server import SkyvernServer
    from tests.contract.conftest import Side


@pytest.mark.parametrize(
    ("status", "body"), [(200, b'{"result": "taken"}'), (401, b'{"detail": "Invalid signature"}')]
)
def test_a_webhook_is_sent_as_a_test(side: Side, status: int, body: bytes) -> None:
    seen: list[dict[str, str]] = []

    def answer(path: str, headers: Any) -> Any:
        seen.append(dict(headers))
        return status, {"content-type": "application/json"}, body

    with answering(answer) as address:
        result = side.send(check_api.send_test_webhook(f"{address}/skyvern/webhooks/x"))
    assert (result.status_code, result.response_body, result.error) == (status, body.decode(), None)
    assert len(seen[0]["x-skyvern-signature"]) == 64


def test_a_webhook_that_does_not_arrive_has_a_reason(side: Side) -> None:
    result = side.send(check_api.send_test_webhook("http://127.0.0.1:1/skyvern/webhooks/x"))
    assert result.status_code is None
    assert (result.error or "").startswith("Could not reach URL: ")


def test_a_run_that_is_none_has_no_tags(side: Side) -> None:
    assert side.send(api.get_run_tags(["wr_0"])).of("wr_0") == {}


def test_the_newest_run_is_listed_alone(side: Side) -> None:
    run = side.start("ok_wait")
    assert [row.run_id for row in side.send(check_api.newest_run())] == [run.run_id]


def test_a_server_tells_the_time(real: Side) -> None:
    with real.client.stream(api.get_version()) as incoming:
        assert incoming.sent_at is not None


@pytest.fixture
def production(server: SkyvernServer, monkeypatch: pytest.MonkeyPatch) -> str:
    given = {"conn_type": "skyvern", "host": server.base_url, "password": server.api_key}
    monkeypatch.setenv("AIRFLOW_CONN_PRODUCTION", json.dumps(given))
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
    return server.api_key


ENDS = {
    "ok_http": "completed",
    "file_out": "completed",
    "fail_http": "failed",
    "terminate": "terminated",
    "long_wait": "canceled",
    "human": "paused",
}


@pytest.mark.parametrize("name", ENDS)
def test_a_test_of_a_real_run_is_green(
    skyvern: Skyvern, real: Side, production: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    run = real.start(name)
    if ENDS[name] == "canceled":
        real.see(run, "running")
        real.send(api.cancel_run(run.run_id))
    run = real.see(run, ENDS[name], when=lambda run: name != "file_out" or run.downloaded_files)
    file = tmp_path / "test_recorded.py"
    with monkeypatch.context() as own:
        own.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
        assert main(["record", run.run_id, "--conn-id", "production", "--to", str(file)]) == 0
    assert production not in file.read_text()
    the_test_in(file)(skyvern)
    assert (tmp_path / "test_recorded.py").read_text().count("placeholder") == 0
    if name == "file_out":
        assert skyvern.fake.started[0].workflow.artifacts == {"report.txt": b"hello file\n"}
    if name == "terminate":
        assert skyvern.fake.started[0].workflow.errors[0]["error_code"] == "STOPPED"


def test_a_real_server_is_in_order(production: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    checks = ("server", "key", "version", "clock", "tags", "ui")
    only = [part for check in checks for part in ("--only", check)]
    main(["check", "--conn-id", "production", "-o", "json", *only])
    printed = capsys.readouterr().out
    assert production not in printed
    states = {line["check"]: line["state"] for line in json.loads(printed[printed.index("[{") :])}
    assert states == {**dict.fromkeys(checks, "ok"), "ui": "warning"}  # nothing serves Skyvern's UI here
