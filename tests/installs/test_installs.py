"""The wheel, installed by pip beside each Airflow's dependencies of its time: the first hour of a user."""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from airflow_skyvern.testing.fake.skyvern import API_KEY, FakeSkyvern
from airflow_skyvern.testing.loopback import Loopback
from dev.airflow_2 import needs_ai
from dev.airflow_server import AirflowServer
from dev.constraints import AIRFLOW, FOLDER
from dev.process import RigError

ROOT = Path(__file__).parents[2]
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
NOT_ON_3_13 = ("2.11", "3.0")
FEW = {("2.11", "3.12"), ("3.0", "3.10"), ("3.3", "3.10"), ("3.3", "3.13")}
"""What is tried besides each Airflow on the Python of the tests; with ALL=1 in the environment, everything is."""

PAIRS = [
    pytest.param((airflow, python), marks=pytest.mark.xdist_group(f"{airflow} {python}"))
    for airflow in AIRFLOW
    for python in PYTHONS
    if not (python == "3.13" and airflow in NOT_ON_3_13)
    and (python == HERE or (airflow, python) in FEW or os.environ.get("ALL"))
]
PARSED = """
import json, sys
from pathlib import Path
from airflow_skyvern.compat.since_3_1 import dag_bag

bag = dag_bag(Path(sys.argv[1]))
print(json.dumps({"dags": sorted(bag.dags), "errors": bag.import_errors}))
"""

AS_INSTALLED = """
import os, sys

del os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"]
sys.stderr = sys.stdout
from airflow.dag_processing.bundles.manager import DagBundlesManager

print("BUNDLES", *(bundle.name for bundle in DagBundlesManager().get_all_dag_bundles()))
"""
"""The folders of DAGs as a fresh Airflow looks for them: with the examples of every provider, from 3.3 on."""


def run(command: Sequence[str | Path], timeout: float = 600) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def interpreter(version: str) -> Path:
    """Where this machine has a Python: the one of the tests, pyenv's, or one on the PATH."""
    if version == HERE:
        return Path(sys.executable)
    of_pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python3"))
    found = of_pyenv[-1] if of_pyenv else shutil.which(f"python{version}")
    if found is None:
        pytest.skip(f"there is no Python {version} here")
    return Path(found)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run([os.environ.get("UV", "uv"), "build", "--quiet", "--wheel", "--out-dir", folder, ROOT])
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module", params=PAIRS, ids=lambda pair: f"Airflow {pair[0]} on Python {pair[1]}")
def airflow(
    request: pytest.FixtureRequest, wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AirflowServer]:
    """An Airflow with a database and the examples, and no process."""
    short, python = request.param
    home = tmp_path_factory.mktemp("install")
    run([interpreter(python), "-m", "venv", home / "venv"])
    install = [
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--constraint",
        str(FOLDER / f"airflow-{short}.txt"),
    ]
    run([str(home / "venv/bin/pip"), *install, wheel, f"apache-airflow=={AIRFLOW[short][0]}"])
    server = AirflowServer(
        home / "airflow",
        [path for path in sorted((ROOT / "dags").glob("*.py")) if not needs_ai(path.read_text())],
        python_bin=home / "venv/bin",
    )
    server.cli("db", "migrate", timeout=400)
    yield server
    shutil.rmtree(home / "venv")


@pytest.fixture(scope="module")
def loopback(airflow: AirflowServer) -> Iterator[Loopback]:
    """Where the connection ``skyvern_default`` in the database of Airflow leads to."""
    with Loopback() as server:
        stored = {"conn_type": "skyvern", "host": server.url, "password": API_KEY}
        airflow.cli("connections", "add", "skyvern_default", "--conn-json", json.dumps(stored))
        yield server


@pytest.fixture
def skyvern(fake: FakeSkyvern, loopback: Loopback) -> FakeSkyvern:
    loopback.fake = fake
    return fake


def test_airflow_lists_the_provider(airflow: AirflowServer) -> None:
    listed = json.loads(airflow.cli("providers", "list", "--output", "json"))
    assert "airflow-provider-skyvern" in [provider["package_name"] for provider in listed]


def test_an_airflow_that_loads_examples_logs_no_error(airflow: AirflowServer) -> None:
    """As it does unless it is told not to; the rigs of the other suites are told."""
    if not airflow.is_3:
        pytest.skip("Airflow 2 has one folder of DAGs")
    said = airflow.python(AS_INSTALLED)
    assert re.search(r"^BUNDLES .*example", said, re.MULTILINE)
    assert "rror" not in said


def test_pip_finds_no_conflict(airflow: AirflowServer) -> None:
    assert "No broken requirements found" in run([airflow.bin / "pip", "check"])


def test_the_examples_are_dags(airflow: AirflowServer) -> None:
    files = [path.stem for path in airflow.dags.glob("*.py")]
    parsed = json.loads(airflow.python(PARSED, str(airflow.dags)).splitlines()[-1])
    assert parsed == {"dags": sorted(f"skyvern_{name}" for name in files), "errors": {}}


def test_the_connection_is_tested(airflow: AirflowServer, skyvern: FakeSkyvern) -> None:
    assert "Connection success!" in _tested(airflow)
    skyvern.api_key = "another key"
    refused = _tested(airflow)
    assert "Connection failed!" in refused
    assert "Check the API key" in " ".join(refused.split())


def _tested(airflow: AirflowServer) -> str:
    """What the command says, which ends in an error after a refusal, on 2.11 without one."""
    try:
        return airflow.cli("connections", "test", "skyvern_default")
    except RigError as error:
        return str(error)


def test_a_deferrable_run_is_tried_with_dags_test(airflow: AirflowServer, skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(parameters={"vendor": "string", "month": "string"})
    conf = json.dumps({"workflow_id": workflow})
    log = airflow.cli("dags", "test", "skyvern_run_and_use_output", "--conf", conf)
    started = [(run.workflow.workflow_id, run.parameters) for run in skyvern.runs.values()]
    assert started == [(workflow, {"vendor": "ACME", "month": "2026-10"})], log
    with closing(sqlite3.connect(airflow.db_path)) as database:
        assert database.execute("SELECT state FROM dag_run").fetchall() == [("success",)], log
        tasks = database.execute("SELECT task_id, state FROM task_instance ORDER BY task_id").fetchall()
    assert tasks == [("fetch", "success"), ("report", "success")], log
