"""
Two Airflows, each with its own copy of a workflow file and twenty tasks at once, and one Skyvern.

``make test SUITE=two_airflows AIRFLOW=2.11``: on another Airflow.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from dev.airflow_server import AirflowServer
from dev.postgres import PostgresServer
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer
from tests.support.workflow_file_runs import DAG_FILE, TASKS, FileRuns, waits, workflows


@pytest.fixture(scope="module")
def skyvern(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SkyvernServer]:
    with SkyvernServer(tmp_path_factory.mktemp("skyvern"), SKYVERN_VENV) as server:
        yield server


@pytest.fixture(scope="module")
def both(skyvern: SkyvernServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[FileRuns]]:
    env = {
        "AIRFLOW_CONN_SKYVERN_DEFAULT": json.dumps(skyvern.connection),
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        "AIRFLOW__CORE__PARALLELISM": "8",
    }
    homes = [tmp_path_factory.mktemp(name) for name in ("staging", "production")]
    with PostgresServer() as one, PostgresServer() as other:
        servers = [
            AirflowServer(home, [DAG_FILE], {**env, "AIRFLOW__SKYVERN__INSTALLATION": home.name}, postgres=postgres)
            for home, postgres in zip(homes, (one, other), strict=True)
        ]
        with servers[0], servers[1]:
            yield [FileRuns(server) for server in servers]


def at_once(both: list[FileRuns]) -> list[set[tuple[str, int, str]]]:
    """Run the DAG on both Airflows, and return what the tasks of each have run."""
    started = [runs.trigger() for runs in both]
    for runs, run_id in zip(both, started, strict=True):
        runs.succeeds(run_id)
    return [runs.ran(run_id) for runs, run_id in zip(both, started, strict=True)]


def test_two_airflows_make_one_workflow_and_one_version_per_content(
    skyvern: SkyvernServer, both: list[FileRuns]
) -> None:
    """The same file; one of the two is deployed later; the workflow is deleted."""
    same = at_once(both)
    (workflow,) = workflows(skyvern)
    workflow_id = workflow["workflow_permanent_id"]
    assert same == [{(workflow_id, 1, "waits.yaml")}] * 2
    assert waits(skyvern, workflow_id) == [1]
    assert len(skyvern.runs_of(workflow_id)) == 2 * TASKS

    both[0].edit(1, 2)
    assert at_once(both) == [{(workflow_id, 2, "waits.yaml")}, {(workflow_id, 1, "waits.yaml")}]
    both[1].edit(1, 2)
    assert at_once(both) == [{(workflow_id, 2, "waits.yaml")}] * 2
    assert waits(skyvern, workflow_id) == [2, 1]

    assert skyvern.request("POST", f"/v1/workflows/{workflow_id}/delete")[0] == 200
    again = at_once(both)
    (workflow,) = workflows(skyvern)
    assert workflow["workflow_permanent_id"] != workflow_id
    assert again == [{(workflow["workflow_permanent_id"], 1, "waits.yaml")}] * 2
    assert len(skyvern.runs_of(workflow["workflow_permanent_id"])) == 2 * TASKS
