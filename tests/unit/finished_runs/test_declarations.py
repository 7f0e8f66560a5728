"""DAG files that make the asset of a workflow's runs differently; Airflow 3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import airflow
import pytest

if airflow.__version__.startswith("2."):
    pytest.skip("watchers came with Airflow 3", allow_module_level=True)

from airflow_skyvern.compat.since_3_1 import dag_bag

ROOT = Path(__file__).parents[3]

PARSE = """
import json, os, sys
from pathlib import Path
from airflow_skyvern.compat.since_3_1 import dag_bag

dag_bag(Path(sys.argv[2]).parent / "none")  # imports Airflow once for all
for file in sys.argv[2:]:
    if ">" in file:
        os.replace(*file.split(">"))
    elif os.fork() == 0:
        print(json.dumps(list(dag_bag(Path(file)).import_errors.values())), flush=True)
        os._exit(0)
    else:
        os.wait()
"""
"""What a DAG processor does: it parses each file in a process of its own. `new>old` replaces a file in between."""

DAG_FILE = """
from airflow.sdk import DAG
from airflow_skyvern.assets import skyvern_runs

with DAG("{dag_id}", schedule=[skyvern_runs({arguments})], catchup=False):
    pass
"""
WATCHED = "'wpid_1', watch=True"


def write(folder: Path, name: str, *arguments: str) -> Path:
    file = folder / f"{name}.py"
    code = [DAG_FILE.format(dag_id=f"{name}_{number}", arguments=given) for number, given in enumerate(arguments)]
    file.write_text("".join(code))
    return file


def processed(home: Path, *files: Path | str) -> list[list[str]]:
    """Return the import errors of each parse."""
    command = [sys.executable, "-c", PARSE, "dag-processor", *map(str, files)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    env = {**kept, "AIRFLOW_HOME": str(home), "AIRFLOW__CORE__LOAD_EXAMPLES": "False", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith(("[]", '["'))]


def test_a_file_that_watches_otherwise_is_refused_and_both_are_named(tmp_path: Path) -> None:
    first = write(tmp_path, "first", f"{WATCHED}, poll_interval=5")
    second = write(tmp_path, "second", f"{WATCHED}, poll_interval=7")
    same = write(tmp_path, "third", f"{WATCHED}, poll_interval=5")
    errors = dag_bag(tmp_path).import_errors
    assert [Path(file).name for file in errors] == [second.name]
    [message] = errors.values()
    assert (
        f"skyvern://skyvern_default/wpid_1: poll_interval=7.0 in {second}, line 5; poll_interval=5.0 in " in message
    )
    assert any(f"poll_interval=5.0 in {file}, line 5. Airflow" in message for file in (first, same))


@pytest.mark.parametrize(
    ("arguments", "difference"),
    [
        ("'wpid_1'", "watch=False in "),
        (f"{WATCHED}, redeliver_to='https://a.example/skyvern/webhooks/c'", "redeliver_to='https://a.example/skyv"),
    ],
)
def test_one_file_cannot_make_the_asset_in_two_ways(tmp_path: Path, arguments: str, difference: str) -> None:
    file = write(tmp_path, "both", WATCHED, arguments)
    [message] = dag_bag(file).import_errors.values()
    assert difference in message
    assert f"in {file}, line 5. Airflow" in message
    assert f"in {file}, line 11;" in message


def test_files_about_other_runs_do_not_disagree(tmp_path: Path) -> None:
    write(tmp_path, "first", WATCHED, "'wpid_2'", "'wpid_1', statuses='failed'", "'wpid_1', 'other', watch=True")
    write(tmp_path, "second", WATCHED, "'wpid_1', 'other', watch=True", "'wpid_3', watch=True, poll_interval=2")
    assert dag_bag(tmp_path).import_errors == {}


def test_a_file_that_has_changed_is_parsed_as_it_is_now(tmp_path: Path) -> None:
    file = write(tmp_path, "changed", WATCHED)
    assert dag_bag(file).import_errors == {}
    write(tmp_path, "changed", f"{WATCHED}, poll_interval=9")
    assert dag_bag(file).import_errors == {}
    other = write(tmp_path, "other", f"{WATCHED}, poll_interval=9")
    assert dag_bag(other).import_errors == {}


@pytest.mark.slow
def test_the_processes_of_a_dag_processor_know_what_the_others_have_parsed(tmp_path: Path) -> None:
    first = write(tmp_path, "first", f"{WATCHED}, poll_interval=5")
    second = write(tmp_path, "second", f"{WATCHED}, poll_interval=7")
    agreeing = write(tmp_path, "agreeing", f"{WATCHED}, poll_interval=7")
    other = write(tmp_path, "other", WATCHED)
    before: list[Path | str] = [first, second, first, second]
    corrected: list[Path | str] = [f"{agreeing}>{first}", second, first, second]
    both_changed: list[Path | str] = [f"{other}>{second}", second, f"{second}>{first}", first]
    errors = processed(tmp_path / "home", *before, *corrected, *both_changed)
    assert [len(found) for found in errors] == [0, 1, 0, 1, 0, 0, 0, 1, 0]
    assert f"poll_interval=7.0 in {second}, line 5; poll_interval=5.0 in {first}, line 5" in errors[1][0]


@pytest.mark.slow
def test_without_a_folder_to_write_to_a_dag_processor_parses_all_the_same(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "skyvern_assets").write_text("no folder")
    first, second = write(tmp_path, "first", WATCHED), write(tmp_path, "second", "'wpid_1'")
    assert processed(home, first, second) == [[], []]
