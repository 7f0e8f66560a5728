"""The command line: what it prints, what it refuses, and that Airflow can offer it too."""

from __future__ import annotations

import argparse
import os
import re
from datetime import datetime, timezone
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from airflow.utils.yaml import safe_load as load
from sqlalchemy import create_engine
from sqlalchemy.orm import sessionmaker

from airflow_skyvern.cli import COMMANDS, WORKFLOW_COMMANDS, get_cli_commands, main, run_for_airflow
from airflow_skyvern.provider_info import get_provider_info
from airflow_skyvern.schedules.airflow_db import AirflowDatabase, KnownDag

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

COLUMNS = ("next_run", "fired_by", "dag_id", "dag_state")
NEXT = datetime(2026, 11, 24, 1, 30, tzinfo=timezone.utc)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what the command line sets for its own process end with the test."""
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")


def known(dag_id: str, *, paused: bool = False, present: bool = True) -> KnownDag:
    return KnownDag(dag_id, "/dags/x.py", paused, present, NEXT, NEXT, 0)


@pytest.fixture
def five_schedules(skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """One schedule for each state of its DAG; return the ids by name."""
    workflow_id = skyvern.workflow("Invoices")
    names = ["Skyvern's", "Airflow's", "paused", "gone", "disabled"]
    ids = {
        name: skyvern.schedule(workflow_id, "30 2 * * *", name=name, enabled=name == "Skyvern's").schedule_id
        for name in names
    }
    dags = {
        ids["Skyvern's"]: [known("a")],
        ids["Airflow's"]: [known("b")],
        ids["paused"]: [known("c", paused=True)],
        ids["gone"]: [known("d", present=False)],
    }
    monkeypatch.setattr(AirflowDatabase, "dags", lambda self: dags)
    return ids


@pytest.mark.parametrize("command", ["airflow-skyvern", "airflow skyvern"])
@pytest.mark.parametrize("output", ["table", "plain", "json", "yaml"])
def test_the_list_says_who_fires_what(
    five_schedules: dict[str, str], capsys: pytest.CaptureFixture[str], output: str, command: str
) -> None:
    if command == "airflow-skyvern":
        assert main(["schedules", "list", "-o", output]) == 0
    else:
        listing = get_cli_commands()[0].subcommands[0].subcommands[0]
        parser = argparse.ArgumentParser()
        for argument in listing.args:
            argument.add_to_parser(parser)
        listing.func(parser.parse_args(["-o", output]))
    printed = "".join(
        line for line in capsys.readouterr().out.splitlines(keepends=True) if line[:3] != "[20"
    )  # no logs
    if output in ("json", "yaml"):
        rows = {row["name"]: [row[column] for column in COLUMNS] for row in load(printed)}
    else:
        lines = {line.split()[0]: line.replace("|", " ").split() for line in printed.splitlines() if line.strip()}
        rows = {name: lines[schedule_id] for name, schedule_id in five_schedules.items()}
        assert lines["schedule_id"][-3:] == list(COLUMNS[-3:])
    assert "2026-11-24T01:30Z" in rows["Airflow's"]
    assert "nothing" in rows["disabled"]
    found = {name: row[-3:] for name, row in rows.items()}
    assert {name: row for name, row in found.items() if name != "disabled"} == {
        "Skyvern's": ["Skyvern", "a", "active"],
        "Airflow's": ["Airflow", "b", "active"],
        "paused": ["nothing", "c", "paused"],
        "gone": ["nothing", "d", "missing"],
    }


def test_an_export_goes_through_and_tells(
    skyvern: FakeSkyvern, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workflow_id = skyvern.workflow("Invoices")
    skyvern.schedule(workflow_id, name="nightly")
    skyvern.schedule(workflow_id, name="every two hours", interval_seconds=7200)
    arguments = ["schedules", "export", "--all", "--owner", "finance", "--dags-folder", str(tmp_path)]
    assert main([*arguments, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert f"would write {tmp_path}/skyvern_nightly.py: DAG skyvern_nightly, " in printed
    assert "with DAG(" not in printed
    assert list(tmp_path.iterdir()) == []
    assert main(arguments) == 0
    assert '"owner": "finance"' in (tmp_path / "skyvern_nightly.py").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["skyvern_nightly.py"]


@pytest.mark.slow
def test_a_dry_run_names_the_files_that_are_written_then(
    skyvern: FakeSkyvern, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workflow_id = skyvern.workflow("Invoices")
    for _ in range(3):
        skyvern.schedule(workflow_id, name="nightly")
    arguments = ["schedules", "export", "--all", "--dags-folder", str(tmp_path)]
    assert main([*arguments, "--dry-run"]) == 0
    announced = re.findall(rf"^would write {tmp_path}/(\S+\.py): DAG (\w+),", capsys.readouterr().out, re.MULTILINE)
    assert main(arguments) == 0
    written = re.findall(rf"^{tmp_path}/(\S+\.py): written, DAG (\w+)$", capsys.readouterr().out, re.MULTILINE)
    assert announced == written
    assert len({name for name, _ in written}) == 3
    assert main([*arguments, "--dry-run"]) == 0
    assert "would write" not in capsys.readouterr().out


def test_a_dry_run_shows_the_files_if_it_is_asked_to(
    skyvern: FakeSkyvern, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    skyvern.schedule(skyvern.workflow("Invoices"), name="nightly")
    arguments = ["schedules", "export", "--all", "--dags-folder", str(tmp_path), "--dry-run", "--show-files"]
    assert main(arguments) == 0
    assert "with DAG(" in capsys.readouterr().out


@pytest.mark.parametrize("action", ["export", "takeover"])
@pytest.mark.parametrize("dry_run", [["--dry-run"], []])
def test_all_says_what_stays_in_skyvern_and_why(
    skyvern: FakeSkyvern,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    action: str,
    dry_run: list[str],
) -> None:
    workflow_id = skyvern.workflow("Invoices")
    interval = skyvern.schedule(workflow_id, name="often", interval_seconds=7200).schedule_id
    once = skyvern.schedule(workflow_id, name="someday", run_at=NEXT).schedule_id
    disabled = skyvern.schedule(workflow_id, name="off", enabled=False).schedule_id
    taken = skyvern.schedule(workflow_id, name="taken", enabled=False).schedule_id
    monkeypatch.setattr(AirflowDatabase, "dags", lambda self: {taken: [known("skyvern_taken")]})
    assert main(["schedules", action, "--all", "--dags-folder", str(tmp_path), *dry_run]) == 0
    printed = capsys.readouterr().out
    assert f"{interval} (often): stays in Skyvern. It fires at an interval (every 2:00:00), and only" in printed
    assert f"{once} (someday): stays in Skyvern. It fires once (once at 2026-11-24 01:30 UTC), and only" in printed
    if action == "takeover":
        assert f"{disabled} (off): stays in Skyvern, where it is disabled, so nothing fires it." in printed
        assert f"{taken} (taken): is taken over already, DAG skyvern_taken fires it" in printed
        assert "0 of 4 schedules selected, 4 left as they are" in printed
    else:
        assert "2 of 4 schedules selected, 2 left as they are" in printed
        assert ("created paused" in printed) == bool(dry_run)  # of what is disabled in Skyvern


def test_what_cannot_be_exported_does_not_keep_the_others_from_it(
    skyvern: FakeSkyvern, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workflow_id = skyvern.workflow("Invoices")
    first = skyvern.schedule(workflow_id, name="every two hours", interval_seconds=7200).schedule_id
    second = skyvern.schedule(workflow_id, name="nightly").schedule_id
    assert main(["schedules", "export", first, second, "--dags-folder", str(tmp_path)]) == 1
    assert f"error: Schedule {first} fires every 2:00:00" in capsys.readouterr().err
    assert (tmp_path / "skyvern_nightly.py").exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["export"], "Pass the ids of schedules, or --all"),
        (["export", "wfs_1", "wfs_2"], "No such schedule in Skyvern: wfs_1, wfs_2."),
        (["export", "--all", "--dags-folder", "/no/such/folder"], "The folder /no/such/folder does not exist"),
        (["list", "--conn-id", "nowhere"], "nowhere"),
    ],
    ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else "",
)
def test_what_is_wrong_is_one_line(
    skyvern: FakeSkyvern, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    more = ["--dags-folder", str(tmp_path)] if arguments[0] == "export" and "--dags-folder" not in arguments else []
    assert main(["schedules", *arguments, *more]) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert complaint in errors[0]


def test_a_database_that_cannot_be_read_is_told_of_in_one_line(
    skyvern: FakeSkyvern, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "airflow.settings.Session", sessionmaker(create_engine("sqlite:////no/such/folder/airflow.db"))
    )
    assert main(["schedules", "list"]) == 1
    assert "error: Airflow's database cannot be read: run this where Airflow runs" in capsys.readouterr().err


def test_airflow_offers_the_same_commands() -> None:
    (path,) = get_provider_info()["cli"]
    module, _, name = path.rpartition(".")
    assert EntryPoint("cli", f"{module}:{name}", "x").load() is get_cli_commands
    (group,) = get_cli_commands()
    schedules, runs, sessions, workflows, credentials, check, record = group.subcommands
    assert [action.name for action in schedules.subcommands] == list(COMMANDS)
    assert [action.name for action in runs.subcommands] == ["orphans"]
    assert [action.name for action in sessions.subcommands] == ["orphans"]
    assert [action.name for action in workflows.subcommands] == list(WORKFLOW_COMMANDS)
    assert [action.name for action in credentials.subcommands] == ["list", "sync"]
    assert [check.name, record.name] == ["check", "record"]
    needed = {"record": ["wr_1"], "diff": ["a.yaml"], "push": ["a.yaml"], "sync": ["portal"]}
    groups = (schedules, runs, sessions, workflows, credentials)
    for action in (*(action for one in groups for action in one.subcommands), check, record):
        parser = argparse.ArgumentParser()
        for argument in action.args:
            argument.add_to_parser(parser)
        given = vars(parser.parse_args(needed.get(action.name, [])))
        assert given["conn_id"] == (None if action.name in ("orphans", "check") else "skyvern_default")


@pytest.mark.usefixtures("five_schedules")
def test_both_command_lines_read_connections_from_the_database(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow 3 asks an API server otherwise, also in a command of its own: no connection of the UI is found."""
    monkeypatch.delenv("_AIRFLOW_PROCESS_CONTEXT")
    run_for_airflow("list", argparse.Namespace(conn_id="skyvern_default", output="plain"))
    assert os.environ["_AIRFLOW_PROCESS_CONTEXT"] == "server"
