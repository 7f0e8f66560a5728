"""Agents on a real Airflow, with runs on a real Skyvern: how many there are after a retry, and after a mark."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dev.airflow_server import AirflowServer
from dev.process import wait_until
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer

ROOT = Path(__file__).parents[2]
DAGS = [ROOT / "tests" / "agents" / "dags" / "agent_dags.py"]
CALLS = [{"vendor": "ACME"}, {"vendor": "Oak"}, {"vendor": "ACME"}]
SLOW = 400.0


@pytest.fixture(scope="module")
def skyvern(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SkyvernServer]:
    with SkyvernServer(tmp_path_factory.mktemp("agents") / "skyvern", SKYVERN_VENV) as server:
        yield server


@pytest.fixture(scope="module")
def airflow(skyvern: SkyvernServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowServer]:
    env = {
        "AIRFLOW_CONN_SKYVERN_DEFAULT": json.dumps(skyvern.connection),
        "AIRFLOW__SKYVERN__INSTALLATION": "agents",
        "AGENTS_WORKFLOW": skyvern.workflow("vendor"),
        "AGENTS_LONG_WORKFLOW": skyvern.workflow("long_wait"),
    }
    home = tmp_path_factory.mktemp("agents")
    env["AIRFLOW__COMMON_AI__DURABLE_CACHE_PATH"] = f"file://{home}/journal"  # below 3.3, `durable` needs a place
    with AirflowServer(home / "airflow", DAGS, env) as server:
        yield server


def runs_of(skyvern: SkyvernServer, workflow: str) -> list[dict[str, Any]]:
    return list(skyvern.runs_of(skyvern.workflow(workflow)))


def has_page(airflow: AirflowServer) -> bool:
    return airflow.version >= (3, 1)


def noted(airflow: AirflowServer) -> str:
    """Return what is known of the runs of the task that is marked: by its page, or by its log where there is none."""
    if has_page(airflow):
        return airflow.page("/ti/long_agents/marked/killed/-1")
    return airflow.log("long_agents", "marked", "killed")


def test_a_retried_agent_has_one_run_for_each_call(
    skyvern: SkyvernServer, airflow: AirflowServer, tmp_path: Path
) -> None:
    before = {run["workflow_run_id"] for run in runs_of(skyvern, "vendor")}
    conf = {"calls": json.dumps(CALLS), "fails_until": str(tmp_path)}
    airflow.trigger("agents", conf, run_id="retried", timeout=SLOW)
    for task_id in ("durable", "again"):
        airflow.wait_task("agents", "retried", task_id, "success", timeout=SLOW)
        assert airflow.task("agents", "retried", task_id)["try_number"] == 2
    after = [run["workflow_run_id"] for run in runs_of(skyvern, "vendor") if run["workflow_run_id"] not in before]
    print("runs of two agents with three calls each, after a retry:", len(after))
    assert len(after) == len(set(after)) == 2 * len(CALLS)
    if has_page(airflow):
        shown = airflow.page("/ti/agents/retried/durable/-1")
        assert sum(run in shown for run in after) == len(CALLS)
    link = airflow.links("agents", "retried", "durable")["Skyvern run"]
    assert any(run in (link or "") for run in after)


def test_a_mark_cancels_the_runs_of_all_calls(skyvern: SkyvernServer, airflow: AirflowServer) -> None:
    airflow.trigger("long_agents", {}, run_id="marked", timeout=SLOW)
    at_once = 2 if airflow.version >= (3, 2) else 1  # before, calls of one answer are made one after the other
    wait_until("the runs", lambda: len(runs_of(skyvern, "long_wait")) == at_once, SLOW)
    wait_until("the notes", lambda: len(set(re.findall(r"\bwr_\d+", noted(airflow)))) == at_once, SLOW)
    airflow.mark("long_agents", "marked", "killed", "failed")

    def canceled() -> bool:
        ids = [run["workflow_run_id"] for run in runs_of(skyvern, "long_wait")]
        states = {skyvern.request("GET", f"/v1/runs/{run_id}")[1]["status"] for run_id in ids}
        return states == {"canceled"}

    wait_until("the cancels", canceled, 60)
