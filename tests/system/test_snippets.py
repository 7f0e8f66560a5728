"""
Every DAG in README.md and docs/ runs as written: scheduled, triggered by hand, and by `airflow dags test`.

``make test SUITE=snippets``. One of them extracts, and so needs Chromium.
"""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from dev.process import wait_until
from tests.support.snippet_dags import Snippet, locations, write_snippets
from tests.support.snippets import BLOCKS, ROOT

if TYPE_CHECKING:
    from dev.airflow_server import AirflowServer
    from tests.system.conftest import Rig

pytestmark = pytest.mark.snippets

SLOW = 240.0
ALL_WITH_DAGS_TEST = 1500.0
BY_HAND = "by_hand"
SCHEDULED = [location for location in locations() if 'schedule="@' in BLOCKS[location]]
WITH_A_RUN = [location for location in locations() if "skyvern_runs(" in BLOCKS[location]]

DAGS_TEST = """
import sys
from airflow.cli.cli_parser import get_parser
from airflow.models.dagrun import DagRun

for dag_id in sys.argv[1:]:
    arguments = get_parser().parse_args(["dags", "test", dag_id])
    try:
        arguments.func(arguments)
    except SystemExit as failed:
        print(failed)
    print("ENDED", dag_id, *(run.state for run in DagRun.find(dag_id=dag_id)))
"""
"""`airflow dags test` for one DAG after another: starting the command line takes longer than most of them."""


@dataclass
class Started:
    """All snippets at work."""

    rig: Rig
    snippets: dict[str, Snippet]
    unstarted: AirflowServer

    @cached_property
    def log_of_dags_test(self) -> str:
        """What `dags test` says of all: after the others, as they would keep each other waiting."""
        return dags_test(self.unstarted, self.snippets.values())

    def runs_of(self, dag_id: str) -> list[dict[str, Any]]:
        return list(self.rig.airflow.request("GET", f"/dags/{dag_id}/dagRuns").raise_for_status().json()["dag_runs"])


@pytest.fixture(scope="module")
def started(rig: Rig, unstarted: AirflowServer) -> Started:
    for airflow in (rig.airflow, unstarted):
        make_pool(airflow)
    folder = unstarted.dags / "snippets"
    snippets = write_snippets(folder, rig.skyvern, rig.airflow.ui_url)
    shutil.copytree(folder, rig.airflow.dags / "snippets")
    for snippet in snippets.values():
        for dag_id in snippet.dag_ids:
            rig.airflow.trigger(dag_id, run_id=BY_HAND, timeout=SLOW)
    return Started(rig, snippets, unstarted)


def make_pool(airflow: AirflowServer) -> None:
    """Run the command of the guide."""
    [command] = re.findall(r"^airflow (pools set .*)$", (ROOT / "docs" / "guide.md").read_text(), re.MULTILINE)
    airflow.cli(*shlex.split(command))


def dags_test(airflow: AirflowServer, snippets: Iterable[Snippet]) -> str:
    return airflow.python(
        DAGS_TEST, *(dag_id for snippet in snippets for dag_id in snippet.dag_ids), timeout=ALL_WITH_DAGS_TEST
    )


def snippet_of(started: Started, location: str) -> Snippet:
    return started.snippets[location]


def check(started: Started, dag_id: str, run_id: str) -> None:
    airflow = started.rig.airflow
    if airflow.wait_run(dag_id, run_id, timeout=SLOW) != "success":
        states = airflow.task_states(dag_id, run_id)
        logs = [
            airflow.log(dag_id, run_id, task, map_index=n) for (task, n), state in states.items() if state == "failed"
        ]
        raise AssertionError("\n".join([str(states), *logs]))


@pytest.mark.parametrize("location", locations())
def test_a_snippet_runs_when_it_is_triggered_by_hand(started: Started, location: str) -> None:
    for dag_id in snippet_of(started, location).dag_ids:
        check(started, dag_id, BY_HAND)


@pytest.mark.parametrize("location", SCHEDULED)
def test_a_snippet_runs_when_its_time_has_come(started: Started, location: str) -> None:
    [dag_id] = snippet_of(started, location).dag_ids
    [run_id] = {run["dag_run_id"] for run in started.runs_of(dag_id) if run["run_type"] == "scheduled"}
    check(started, dag_id, run_id)


@pytest.mark.parametrize("location", WITH_A_RUN)
def test_a_snippet_runs_when_a_run_has_finished(started: Started, location: str) -> None:
    rig, snippet = started.rig, snippet_of(started, location)
    run_id = start_and_finish(rig, snippet.workflow_id)
    rig.events.wait_handed_over(snippet.dag_ids[0], [run_id], timeout=SLOW)
    [dag_run] = [name for name, runs in rig.events.events_of(snippet.dag_ids[0]).items() if run_id in runs]
    check(started, snippet.dag_ids[0], dag_run)


def start_and_finish(rig: Rig, workflow_id: str) -> str:
    """Run a workflow past Airflow, as somebody else would, with a webhook for those who listen for it."""
    body = {"workflow_id": workflow_id, "webhook_url": rig.events.receiver}
    status, run = rig.skyvern.request("POST", "/v1/run/workflows", body)
    assert status == 200, run
    rig.events.finish(run["run_id"])
    return str(run["run_id"])


def test_a_dag_that_handles_each_run_once_was_started_for_it(started: Started) -> None:
    """The DAG run that `TriggerDagRunOperator` makes is called after the Skyvern run."""
    if not WITH_A_RUN:
        pytest.skip("watchers and webhooks came with Airflow 3")
    [snippet] = [found for found in started.snippets.values() if "TriggerDagRunOperator" in found.code]
    run_id = start_and_finish(started.rig, snippet.workflow_id)
    handler = snippet.dag_ids[1]
    wait_until("started", lambda: run_id in {run["dag_run_id"] for run in started.runs_of(handler)}, SLOW)
    check(started, handler, run_id)


@pytest.mark.parametrize("location", locations())
def test_a_snippet_runs_with_dags_test(started: Started, location: str) -> None:
    log = started.log_of_dags_test
    for dag_id in snippet_of(started, location).dag_ids:
        assert re.findall(rf"^ENDED {dag_id} (.*)$", log, re.MULTILINE) == ["success"], log
