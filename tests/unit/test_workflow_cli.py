"""`airflow-skyvern workflows`: what it prints, what it asks, and its exit statuses."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.cli import main
from airflow_skyvern.hooks import SkyvernHook
from tests.unit.workflow_files.test_sync import definition, edit, store, versions

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let what the command line sets for its own process end with the test; 2.11 logs to standard output."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def invoices(tmp_path: Path) -> Path:
    return store(tmp_path / "invoices.yaml")


def run(*arguments: object) -> int:
    return main(["workflows", *map(str, arguments)])


def rows(capsys: Capture) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.slow
def test_push_diff_and_list(skyvern: FakeSkyvern, invoices: Path, capsys: Capture) -> None:
    assert run("push", "--yes", invoices) == 0
    (workflow_id,) = skyvern.workflows
    assert capsys.readouterr().out == f"{invoices}: created, version 1 of {workflow_id}\n"
    assert run("diff", invoices) == 0
    assert "unchanged" in capsys.readouterr().out
    store(invoices, 6)
    assert run("diff", invoices) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{invoices}: differs, version 1 of {workflow_id}",
        "  block pause: wait_sec: 5 → 6",
    ]
    assert run("push", "--yes", invoices) == 0
    assert f"updated, version 2 of {workflow_id}" in capsys.readouterr().out
    assert run("list", "-o", "json") == 0
    row = {
        "workflow_id": workflow_id,
        "title": "Invoices",
        "version": 2,
        "file": "invoices.yaml",
        "state": "as pushed",
    }
    assert rows(capsys) == [row]
    edit(SkyvernHook().send, workflow_id, 99)
    run("list", "-o", "json")
    assert rows(capsys)[0]["state"] == "edited since"


def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    skyvern: FakeSkyvern, invoices: Path, capsys: Capture
) -> None:
    assert run("push", "--dry-run", invoices) == 0
    assert capsys.readouterr().out == f"{invoices}: would be created\n"
    assert skyvern.workflows == {}


@pytest.mark.parametrize(("answer", "status", "made"), [("y\n", 0, 1), ("n\n", 1, 0), ("", 1, 0)])
def test_a_person_is_asked_first(
    skyvern: FakeSkyvern,
    invoices: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    answer: str,
    status: int,
    made: int,
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert run("push", invoices) == status
    assert "Push 1 file? [y/N]" in capsys.readouterr().err
    assert len(skyvern.workflows) == made


@pytest.mark.slow
def test_nobody_is_asked_where_nobody_is(
    skyvern: FakeSkyvern, invoices: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert run("push", invoices) == 1
    assert "pass --yes to push without being asked, or --dry-run" in capsys.readouterr().err
    assert skyvern.workflows == {}
    run("push", "--yes", invoices)
    assert run("push", invoices) == 0  # nothing differs, so nothing is asked


@pytest.mark.slow
def test_many_files_are_counted_and_a_bad_one_does_not_stop_the_others(
    skyvern: FakeSkyvern, invoices: Path, capsys: Capture
) -> None:
    store(invoices.with_name("bills.yaml"), title="Bills")
    invoices.with_name("typo.yaml").write_text(invoices.read_text().replace("wait_sec", "wait_secs"))
    (invoices.parent / "values.yaml").write_text("a: 1")
    assert run("push", "-y", invoices.parent) == 1
    printed = capsys.readouterr()
    assert [line.split()[0] for line in printed.out.splitlines()] == ["[1/3]", "[2/3]", "[3/3]"]
    assert "Did you mean wait_sec?" in printed.err
    assert {made.title for made in skyvern.workflows.values()} == {"Bills", "Invoices"}
    assert run("diff", invoices.parent) == 2


@pytest.mark.slow
def test_the_result_for_a_program(skyvern: FakeSkyvern, invoices: Path, capsys: Capture) -> None:
    assert run("push", "-y", "-o", "json", invoices) == 0
    (row,) = rows(capsys)
    assert (row["action"], row["version"], row["file"]) == ("created", 1, str(invoices))
    store(invoices, 6)
    assert run("diff", "-o", "json", invoices) == 1
    assert rows(capsys)[0]["differences"] == ["block pause: wait_sec: 5 → 6"]


@pytest.mark.slow
def test_what_was_edited_in_skyvern_needs_force(skyvern: FakeSkyvern, invoices: Path, capsys: Capture) -> None:
    run("push", "-y", invoices)
    (workflow_id,) = skyvern.workflows
    edit(SkyvernHook().send, workflow_id, 99)
    store(invoices, 6)
    assert run("push", "-y", invoices) == 1
    assert "it was edited in Skyvern" in capsys.readouterr().err
    assert versions(skyvern) == [2]
    assert run("push", "-y", "--force", invoices) == 0
    assert versions(skyvern) == [3]


@pytest.mark.slow
def test_pull_writes_files(skyvern: FakeSkyvern, tmp_path: Path, capsys: Capture) -> None:
    send = SkyvernHook().send
    from airflow_skyvern.client.workflow_api import create_workflow

    one, two = (send(create_workflow(definition(title=title))).workflow_permanent_id for title in ("One", "Two"))
    assert run("pull", one, two, "--to", tmp_path) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.yaml", "two.yaml"]
    assert run("pull", "--all", "--to", tmp_path / "json", "--json", "-o", "json") == 0
    assert {Path(row["file"]).name for row in json.loads(capsys.readouterr().out.split("\n", 2)[2])} == {
        "one.yaml",
        "two.yaml",
    }
    assert run("pull", "wpid_none", one, "--to", tmp_path) == 1
    assert "Workflow not found" in capsys.readouterr().err
    assert run("pull", "--to", tmp_path) == 1
    assert "Pass the ids of workflows, or --all" in capsys.readouterr().err


@pytest.mark.slow
def test_warnings_do_not_stop_a_push(skyvern: FakeSkyvern, invoices: Path, capsys: Capture) -> None:
    invoices.write_text(invoices.read_text().replace("block_type: wait", "block_type: waiting"))
    assert run("push", "-y", invoices) == 0
    assert "warning: invoices.yaml: block pause: block_type: waiting is not a type" in capsys.readouterr().err
    invoices.write_text(invoices.read_text() + "a_setting_of_tomorrow: 1\n")
    assert run("push", "-y", "--allow-unknown-keys", invoices) == 0


@pytest.mark.parametrize(("command", "status"), [("list", 1), ("diff", 2), ("push", 1)])
def test_a_refused_key_is_one_line(
    skyvern: FakeSkyvern, invoices: Path, capsys: Capture, command: str, status: int
) -> None:
    skyvern.next("GET", "/v1/workflows", httpx.Response(403, json={"detail": "Invalid credentials"}))
    assert run(command, *([] if command == "list" else [invoices])) == status
    assert "error: Could not list workflows" in capsys.readouterr().err
