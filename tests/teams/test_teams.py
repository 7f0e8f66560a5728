"""
A real Airflow 3.3 with two teams and a real Skyvern: what a connection of team a does, and for whom.

The tests follow one another: team a's triggerer starts without the connection, and is given it later.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from dev.airflow_server import AirflowServer
from dev.process import Process, wait_until
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer, workflows
from tests.support.events_rig import EventsRig

DAGS = Path(__file__).parent / "dags" / "teams_dags.py"
TEAMS = ("team_a", "team_b")
OWN, IN_ENVIRONMENT = "skyvern_a", "skyvern_in_environment"
WORKFLOWS = {
    "waits": "long_wait",
    "ends": "wait_5",
    "hooked": "ok_http",
    "watched": "ok_wait",
    "redelivered": "ok_http",
}
ENDED = ("completed", "canceled")
SLOW = 300.0
SOON = 120.0
ADVICE = "define it as AIRFLOW_CONN_SKYVERN_A in the environment of that team's triggerer"


class Rig:
    """Both servers, and the triggerer of team a."""

    def __init__(self, airflow: AirflowServer, skyvern: SkyvernServer, made: dict[str, str]) -> None:
        self.airflow, self.skyvern, self.made = airflow, skyvern, made
        self.started: Counter[str] = Counter()
        general = airflow.processes["triggerer"]
        command = [*general.command, "--team-name", "team_a"]
        self.triggerer = Process(
            "triggerer of team a",
            command,
            env=general.env,
            cwd=general.cwd,
            log_path=airflow.home / "triggerer-a.log",
        )

    def events(self, conn_id: str = OWN) -> EventsRig:
        return EventsRig(self.airflow, self.skyvern, self.made, conn_id)

    def start_run(self, name: str, *, webhook_of: str = "") -> str:
        """Start a run past Airflow, as somebody else would."""
        self.started[name] += 1
        return self.events(webhook_of).start_run(name, webhook=bool(webhook_of))

    def start(self, dag_id: str, workflow: str = "waits") -> str:
        """Start a DAG whose task runs a workflow, and return the DAG run."""
        return self.airflow.trigger(dag_id, {"workflow_id": self.made[workflow]}, timeout=SLOW)

    def start_and_defer(self, dag_id: str, workflow: str = "waits") -> tuple[str, str]:
        """Start a DAG, and return the DAG run and the Skyvern run once its task is deferred."""
        self.started[workflow] += 1
        dag_run = self.start(dag_id, workflow)
        self.airflow.wait_task(dag_id, dag_run, "run", "deferred", timeout=SLOW)
        return dag_run, str(self.airflow.xcom(dag_id, dag_run, "run", key="run_id"))

    def wait_canceled(self, run_id: str) -> None:
        def canceled() -> bool:
            return bool(self.skyvern.request("GET", f"/v1/runs/{run_id}")[1]["status"] == "canceled")

        wait_until(f"{run_id} canceled", canceled, SOON)

    def wait_shown(self, path: str, run_id: str) -> None:
        """Wait until a page shows a run: the lists of other viewers are shown again for some seconds."""
        wait_until(f"{run_id} in {path}", lambda: run_id in self.airflow.page(path), SOON)

    def triggers(self, what: str) -> list[tuple[str | None, int | None]]:
        """Return team and triggerer of the triggers of tasks or watchers, as Airflow's database has them."""
        with closing(sqlite3.connect(self.airflow.db_path)) as database:
            table = {"tasks": "task_instance", "watchers": "asset_watcher"}[what]
            return database.execute(
                f"SELECT team_name, triggerer_id FROM trigger JOIN {table} ON {table}.trigger_id = trigger.id"
            ).fetchall()

    def triggerer_logs(self, text: str) -> None:
        """Wait until team a's triggerer has logged something."""
        wait_until(f"triggerer: {text}", lambda: text in self.triggerer.log_path.read_text(), SLOW)

    def command(self, *arguments: str) -> str:
        """Run ``airflow-skyvern`` as a cron job beside the scheduler does."""
        command = [str(self.airflow.bin / "airflow-skyvern"), *arguments]
        done = subprocess.run(
            command, env=self.airflow.env, capture_output=True, text=True, timeout=SLOW, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


def bundle(folder: Path) -> dict[str, object]:
    return {
        "name": f"bundle_{folder.name}",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(folder), "refresh_interval": 3},
        "team_name": folder.name,
    }


def with_teams(home: Path, skyvern: SkyvernServer, made: dict[str, str]) -> AirflowServer:
    """Configure an Airflow with teams. Tasks of team a have an executor of their own."""
    folders = [home / team for team in TEAMS]
    for folder in folders:
        folder.mkdir()
    airflow = AirflowServer(home / "airflow", [])
    settings = {
        "AIRFLOW__CORE__MULTI_TEAM": "True",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor;team_a=LocalExecutor",
        "AIRFLOW__TEAM_A___CORE__EXECUTION_API_SERVER_URL": f"{airflow.ui_url}/execution/",
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle(folder) for folder in folders]),
        "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        "AIRFLOW__SKYVERN__INSTALLATION": "teams",
        "AIRFLOW__SKYVERN__WEBHOOK_CONNECTIONS": f"{OWN},{IN_ENVIRONMENT}",
        "AIRFLOW_CONN__TEAM_A___SKYVERN_IN_ENVIRONMENT": json.dumps(skyvern.connection),
        "TEAMS_RECEIVER": f"{airflow.ui_url}/skyvern/webhooks/{OWN}",
        **{f"TEAMS_{name.upper()}": workflow for name, workflow in made.items()},
    }
    for env in (airflow.env, *(process.env for process in airflow.processes.values())):
        env.update(settings)
    return airflow


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    home = tmp_path_factory.mktemp("teams")
    with SkyvernServer(home / "skyvern", SKYVERN_VENV) as skyvern:
        known = workflows(skyvern.peer_url)
        made = {name: skyvern.create_workflow(f"teams {name}", known[kind]) for name, kind in WORKFLOWS.items()}
        airflow = with_teams(home, skyvern, made)
        airflow.migrate()
        for team in TEAMS:
            airflow.cli("teams", "create", team)
        with airflow:
            fields = {"host": skyvern.base_url, "password": skyvern.api_key, "team_name": "team_a"}
            airflow.create_connection({"connection_id": OWN, "conn_type": "skyvern", **fields})
            rig = Rig(airflow, skyvern, made)
            for team in TEAMS:  # one after the other: a watcher belongs to the team whose file was parsed first
                shutil.copy(DAGS, home / team)
                airflow.wait_dag(f"{team[-1]}_waits", timeout=SLOW)
            yield rig
            rig.triggerer.stop()


def test_a_team_needs_a_triggerer_that_needs_the_connection_or_a_worker_waits(rig: Rig) -> None:
    dag_run, run_id = rig.start_and_defer("a_waits")
    rig.events().stays(lambda: rig.triggers("tasks"), seconds=10)
    assert rig.triggers("tasks") == [("team_a", None)]
    rig.triggerer.start()
    rig.airflow.wait_task("a_waits", dag_run, "run", "running", timeout=SLOW)
    log = "The triggerer stopped waiting; this worker continues. The conn_id `skyvern_a` isn't defined."
    wait_until("the worker", lambda: log in rig.airflow.log("a_waits", dag_run, "run"), SLOW)
    assert ADVICE in rig.airflow.log("a_waits", dag_run, "run")
    rig.airflow.mark("a_waits", dag_run, "run", "failed")
    rig.wait_canceled(run_id)


def test_a_sensor_that_starts_in_the_triggerer_is_continued_by_a_worker(rig: Rig) -> None:
    run_id = rig.start_run("ends")
    dag_run = rig.airflow.trigger("a_senses", {"run_id": run_id}, timeout=SLOW)
    assert rig.airflow.wait_run("a_senses", dag_run, timeout=SLOW) == "success"
    assert ADVICE in rig.airflow.log("a_senses", dag_run, "run")


def test_a_watcher_runs_in_the_triggerer_of_the_team_that_was_parsed_first_and_says_what_it_needs(rig: Rig) -> None:
    assert {team for team, _ in rig.triggers("watchers")} == {"team_a"}
    rig.triggerer_logs("cannot watch it yet, next try in")
    assert ADVICE in rig.triggerer.log_path.read_text()


def test_a_task_of_another_team_fails_starts_nothing_and_shows_no_run_on_the_connection(rig: Rig) -> None:
    dag_run = rig.start("b_waits")
    rig.airflow.wait_task("b_waits", dag_run, "run", "failed", timeout=SLOW)
    log = rig.airflow.log("b_waits", dag_run, "run")
    assert "The conn_id `skyvern_a` isn't defined. With teams ([core] multi_team), a connection of a team" in log
    path = f"/dags/b_waits/dagRuns/{dag_run}/taskInstances/run/xcomEntries"
    xcom = {"key": "run_id", "value": rig.start_run("ends"), "map_index": -1}  # without tags of any DAG
    assert rig.airflow.request("POST", path, xcom).is_success
    headers = {"authorization": f"Bearer {rig.airflow.token}", "accept": "text/html"}
    page = rig.airflow.client.get(f"/skyvern/ti/b_waits/{dag_run}/run/-1", headers=headers)
    assert page.status_code == 404
    assert "or on the connection of another team" in page.text


def test_a_connection_in_the_api_servers_environment_is_read_for_its_team(rig: Rig) -> None:
    """Its tasks, the run page, and the cancel after a mark; the triggerer does not read it there."""
    dag_run, run_id = rig.start_and_defer("a_waits_in_environment")
    rig.airflow.wait_task("a_waits_in_environment", dag_run, "run", "running", timeout=SLOW)
    assert run_id in rig.airflow.page(f"/ti/a_waits_in_environment/{dag_run}/run/-1")
    rig.airflow.mark("a_waits_in_environment", dag_run, "run", "failed")
    rig.wait_canceled(run_id)


@pytest.mark.parametrize(("conn_id", "way"), [(OWN, "hooked"), (IN_ENVIRONMENT, "hooked_in_environment")])
def test_a_webhook_starts_the_dag_of_its_team_only(rig: Rig, conn_id: str, way: str) -> None:
    events, run_id = rig.events(conn_id), rig.start_run("hooked", webhook_of=conn_id)
    events.wait_handed_over(f"a_{way}", [run_id], SLOW)
    events.stays(lambda: events.handed_over(f"b_{way}"), seconds=8)
    assert events.handed_over(f"b_{way}") == []
    assert events.deliver(events.finish(run_id), key="not-the-key").status_code == 401


def test_with_the_connection_in_its_environment_the_teams_triggerer_waits_and_watches(rig: Rig) -> None:
    rig.triggerer.stop()
    rig.triggerer.env["AIRFLOW_CONN_SKYVERN_A"] = json.dumps(rig.skyvern.connection)
    rig.triggerer.start()
    dag_run, run_id = rig.start_and_defer("a_waits", "ends")
    assert rig.airflow.wait_run("a_waits", dag_run, timeout=SLOW) == "success"
    log = rig.airflow.log("a_waits", dag_run, "run")
    assert f"Skyvern run {run_id}: completed after" in log
    assert "this worker continues" not in log
    for name in ("watched", "redelivered"):
        rig.triggerer_logs(f"Skyvern workflow {rig.made[name]}: watching for finished runs")


def test_events_of_a_watcher_start_dags_of_all_teams_unless_webhooks_deliver_them(rig: Rig) -> None:
    events, watched, redelivered = rig.events(), rig.start_run("watched"), rig.start_run("redelivered")
    for dag_id in ("a_watched", "b_watched"):
        events.wait_handed_over(dag_id, [watched], SLOW)
    events.wait_handed_over("a_redelivered", [redelivered], SLOW)
    events.stays(lambda: events.handed_over("b_redelivered"), seconds=8)
    assert events.handed_over("b_redelivered") == []


@pytest.mark.parametrize("state", ["failed", "success"])
@pytest.mark.parametrize("triggerer", ["running", "killed"])
def test_a_mark_of_a_deferred_task_cancels_its_run(rig: Rig, state: str, triggerer: str) -> None:
    """With the triggerer killed, it is the API server that cancels."""
    dag_run, run_id = rig.start_and_defer("a_waits")
    for path in (f"/ti/a_waits/{dag_run}/run/-1", f"/dag_run/a_waits/{dag_run}", "/runs"):
        rig.wait_shown(path, run_id)
        assert "does not exist" not in rig.airflow.page(path)
    if triggerer == "killed":
        rig.triggerer.kill()
    rig.airflow.mark("a_waits", dag_run, "run", state)
    rig.wait_canceled(run_id)
    if triggerer == "killed":
        rig.triggerer.start()


def test_the_scheduler_cancels_what_a_dag_run_has_left(rig: Rig) -> None:
    """The process of its task was killed; the DAG run times out before the retry, and the task with it."""
    dag_run = rig.start("a_times_out")
    rig.started["waits"] += 1
    assert rig.airflow.wait_run("a_times_out", dag_run, timeout=SLOW) == "failed"
    rig.wait_canceled(rig.airflow.xcom("a_times_out", dag_run, "run", key="run_id"))


def test_the_commands_read_the_connections_of_all_teams(rig: Rig) -> None:
    dag_run, run_id = rig.start_and_defer("a_waits")
    output = rig.command("runs", "orphans", "-o", "json").splitlines()
    [found] = [json.loads(line) for line in output if line.startswith("[{")]
    assert [(row["run_id"], row["task_state"], row["conn_id"]) for row in found] == [(run_id, "deferred", OWN)]
    lines = [line.split() for line in rig.command("check").splitlines()]
    for conn_id in (OWN, IN_ENVIRONMENT):
        assert ["ok", "key", f"{conn_id}:", "Skyvern", "accepts", "the", "API", "key."] in lines
    rig.airflow.mark("a_waits", dag_run, "run", "success")
    rig.wait_canceled(run_id)


def test_each_task_has_started_one_run_and_none_is_active(rig: Rig) -> None:
    runs = {name: rig.skyvern.runs_of(workflow) for name, workflow in rig.made.items()}
    assert {name: len(found) for name, found in runs.items()} == dict(rig.started)
    assert {run["status"] for found in runs.values() for run in found} <= set(ENDED)
