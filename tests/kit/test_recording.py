"""``airflow-skyvern record``: a test is made of each kind of run, and is green with the kit as it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.cli import main
from airflow_skyvern.testing.loopback import Loopback
from tests.support.recorded_tests import the_test_in

if TYPE_CHECKING:
    from airflow_skyvern.testing import Skyvern
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

OUTPUT = {"read_output": {"extracted_information": [{"amount": 2.5, "note": 'it\'s "fine" {{ ds }}\n'}]}}
REFUSED = {"error_code": "LOGIN", "reasoning": "wrong password", "confidence_float": 1.0}
STOPPED = {"error_code": "STOP", "reasoning": "not today", "confidence_float": 1.0}
ASKS = [{"label": "ask", "block_type": "human_interaction"}]
RETRIED = ("running", {"status": "failed", "retry_pending": True}, {"status": "completed", "attempt": 2})

KINDS: dict[str, dict[str, Any]] = {
    "completed": {},
    "completed with files": {"artifacts": {"a.pdf": b"%PDF-1.7\xff", "big.csv": b"1;2\n" * 5000, "c.txt": b"it's\n"}},
    "failed": {"plan": ("running", "failed"), "failure_reason": 'no "portal"', "errors": [REFUSED]},
    "failed with two codes": {"plan": ("running", "failed"), "failure_reason": "x", "errors": [REFUSED, STOPPED]},
    "failed with files": {"plan": ("running", "failed"), "failure_reason": "x", "artifacts": {"a.txt": b"1"}},
    "failed without a reason": {"plan": ("running", "failed"), "output": None},
    "terminated": {"plan": ("running", "terminated"), "failure_reason": "nothing new", "errors": [STOPPED]},
    "timed_out": {"plan": ("running", "timed_out"), "failure_reason": "too long", "errors": [STOPPED]},
    "canceled": {"plan": ("running", "canceled")},
    "paused": {"plan": ("running", "paused"), "blocks": ASKS},
    "approved": {"plan": ("running", {"status": "paused", "answered": True}, "completed"), "blocks": ASKS},
    "rejected": {
        "plan": ("running", {"status": "paused", "answered": True}, "terminated"),
        "blocks": ASKS,
        "failure_reason": "somebody said no",
    },
    "retried": {"plan": RETRIED},
}

Record = Callable[..., str]


@pytest.fixture
def portal(monkeypatch: pytest.MonkeyPatch, fake: FakeSkyvern, skyvern: Skyvern) -> Iterator[FakeSkyvern]:
    """The Skyvern of production, through the connection ``production``: not the one of the kit."""
    with Loopback() as server:
        server.fake = fake
        given = {"conn_type": "skyvern", "host": server.url, "password": fake.api_key}
        monkeypatch.setenv("AIRFLOW_CONN_PRODUCTION", json.dumps(given))
        yield fake


@pytest.fixture
def record(
    portal: FakeSkyvern, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Record:
    """Record a run, and return the file's text."""

    def recorded(run_id: str, *arguments: str) -> str:
        file = tmp_path / "test_recorded.py"
        with monkeypatch.context() as own:
            own.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
            own.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
            status = main(["record", run_id, "--conn-id", "production", "--to", str(file), *arguments])
        assert status == 0, capsys.readouterr()
        return file.read_text()

    return recorded


def finished(portal: FakeSkyvern, parameters: Mapping[str, Any] | None = None, **kind: Any) -> str:
    """Add a run that has ended, with parameters."""
    kind.setdefault("output", OUTPUT)
    run_id = portal.run(**kind)
    portal.runs[run_id].parameters = dict({"vendor": "ACME"} if parameters is None else parameters)
    portal.runs[run_id].step = len(portal.runs[run_id].plan) - 1
    return run_id


@pytest.mark.parametrize("kind", KINDS)
def test_a_recorded_test_is_green(
    skyvern: Skyvern, portal: FakeSkyvern, record: Record, tmp_path: Path, kind: str
) -> None:
    run_id = finished(portal, **KINDS[kind])
    text = record(run_id)
    the_test_in(tmp_path / "test_recorded.py")(skyvern)
    (started,) = skyvern.fake.started
    was, is_now = portal.runs[run_id].workflow, started.workflow
    if kind in ("completed", "failed", "terminated"):
        assert is_now.output == was.output
    assert is_now.failure_reason == (was.failure_reason or is_now.failure_reason)
    assert [one["error_code"] for one in is_now.errors] == [one["error_code"] for one in was.errors]
    small = {name: content for name, content in was.artifacts.items() if len(content) <= 4096}
    assert {name: is_now.artifacts[name] for name in small} == small
    assert set(is_now.artifacts) == set(was.artifacts)
    assert started.workflow.workflow_id == was.workflow_id
    assert ("paused" in text) == (kind in ("paused", "approved", "rejected"))


@pytest.mark.parametrize(
    "parameters",
    [
        {"vendor": "{{ ds }}", "several": ["{% x %}", {"a": "b\r\n"}], "n": 1.5, "none": None, "yes": True},
        {"quote": "'\"\\", "lines": "a\nb\n", "emoji": "é✓\u2028", 'odd " name': "x"},
        {},
    ],
    ids=["templates", "characters", "none"],
)
def test_parameters_reach_the_run_as_they_were(
    skyvern: Skyvern, portal: FakeSkyvern, record: Record, tmp_path: Path, parameters: dict[str, Any]
) -> None:
    record(finished(portal, parameters))
    the_test_in(tmp_path / "test_recorded.py")(skyvern)
    assert skyvern.fake.started[0].parameters == parameters


SECRET = "s3cr3t-W4rd-of-mine"
SCHEMA = {"type": "array", "items": {"type": "object", "properties": {"invoice": {"type": "string"}}}}
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcDEF123"


def test_no_secret_of_the_run_is_in_the_file(
    skyvern: Skyvern, portal: FakeSkyvern, record: Record, tmp_path: Path
) -> None:
    run_id = finished(
        portal,
        {
            "portal_password": SECRET,
            "login": {"password": "other-" + SECRET, "user": "me"},
            "credential": "cred_123",
            "page": f"https://me:{SECRET}@example.com/?sig=1234567890abcdef1234",
            f"named {SECRET}": "x",
        },
        plan=("running", "failed"),
        failure_reason=f"the portal refused {SECRET} and Authorization: Bearer {JWT}",
        errors=[{**REFUSED, "reasoning": f"typed {SECRET}"}, STOPPED],
        output={"echo_output": {"body": f"pw={SECRET}", "headers": {"x-api-key": "k-1234"}, "token_count": 7}},
        artifacts={"log.txt": f"typed {SECRET}\n".encode(), "key.json": b'{"client_secret": "abc-def-1"}'},
    )
    text = record(run_id)
    for secret in (SECRET, JWT, "1234567890abcdef1234", "k-1234", "abc-def-1"):
        assert secret not in text
    assert "cred_123" in text
    assert "token_count" in text
    assert portal.api_key not in text
    the_test_in(tmp_path / "test_recorded.py")(skyvern)
    assert skyvern.fake.started[0].parameters["portal_password"] == "***"


def test_a_run_of_a_prompt_is_recorded_as_one(
    skyvern: Skyvern, portal: FakeSkyvern, record: Record, tmp_path: Path
) -> None:
    prompt = "Find {{ all }} of {vendor}'s invoices"
    data = [{"invoice": "4711"}]
    run_id = finished(
        portal,
        {"prompt": prompt, "url": "https://example.com", "schema": json.dumps(SCHEMA), "values": {"n": 1}},
        output={"task_output": {"extracted_information": data}, "extracted_information": data},
    )
    text = record(run_id)
    assert "skyvern.prompts(output=OUTPUT)" in text
    the_test_in(tmp_path / "test_recorded.py")(skyvern)
    (started,) = skyvern.started()
    assert (started.parameters["prompt"], started.parameters["url"]) == (prompt, "https://example.com")


def test_a_run_of_a_deleted_workflow_can_be_recorded(
    skyvern: Skyvern, portal: FakeSkyvern, record: Record, tmp_path: Path
) -> None:
    run_id = finished(portal)
    portal.runs[run_id].workflow.deleted = True
    record(run_id)
    the_test_in(tmp_path / "test_recorded.py")(skyvern)


@pytest.mark.usefixtures("skyvern")
def test_what_cannot_be_recorded_is_one_line(
    portal: FakeSkyvern, record: Record, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
    active = portal.run(plan=("running",))
    task = finished(portal)
    seen = httpx.Response(200, json={"run_id": task, "status": "completed", "run_type": "task_v1"})
    portal.next("GET", f"/v1/runs/{task}", seen)
    ended = finished(portal)
    for run_id, arguments, complaint in [
        (active, [], f"Skyvern run {active} is running: record it when it is over."),
        (task, [], f"Skyvern run {task} is of type task_v1: only runs of workflows"),
        ("wr_404", [], "Task run not found wr_404"),
        (ended, ["--conn-id", "nowhere"], "nowhere"),
        (ended, ["--to", "/no/such/folder/test_x.py"], "/no/such/folder/test_x.py: No such file or directory"),
        (ended, ["--to", __file__], f"{__file__}: File exists"),
    ]:
        assert main(["record", run_id, "--conn-id", "production", *arguments]) == 1
        errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
        assert len(errors) == 1
        assert complaint in errors[0]


def test_a_file_that_cannot_be_read_gets_a_placeholder(
    skyvern: Skyvern, portal: FakeSkyvern, record: Record, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run_id = finished(portal, artifacts={"a.pdf": b"%PDF-1.7 of mine", "b.pdf": b"%PDF-1.4" + b"x" * 9000})
    portal.next("GET", "/v1/artifacts/.*/content", httpx.Response(404, json={"detail": "gone"}))
    text = record(run_id)
    printed = capsys.readouterr().out
    assert "a.pdf is a placeholder: Could not download artifact" in printed
    assert "b.pdf is a placeholder: it has 9008 bytes." in printed
    assert '"a.pdf": b"placeholder",  # not what the run had' in text
    assert '"b.pdf": b"%PDF-1.7placeholder",  # not what the run had' in text
    the_test_in(tmp_path / "test_recorded.py")(skyvern)


@pytest.mark.parametrize("kind", ["completed with files", "failed with two codes", "approved", "paused"])
@pytest.mark.usefixtures("skyvern")
def test_the_file_is_formatted_and_has_no_unused_import(
    portal: FakeSkyvern, record: Record, tmp_path: Path, kind: str
) -> None:
    record(finished(portal, **KINDS[kind]))
    ruff = [sys.executable, "-m", "ruff"]
    file = str(tmp_path / "test_recorded.py")
    for arguments in (["format", "--diff"], ["check", "--select", "F,I,E9"]):
        done = subprocess.run([*ruff, *arguments, "--isolated", file], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.usefixtures("skyvern")
def test_a_stranger_runs_the_file_with_pytest(portal: FakeSkyvern, record: Record, tmp_path: Path) -> None:
    record(finished(portal, **KINDS["completed with files"]))
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["airflow_skyvern.testing"]\n')
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
