"""``airflow-skyvern schedules`` on a real Airflow and a real Skyvern, also when it is killed at any line it says."""

from __future__ import annotations

import json
import subprocess
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from dev.process import wait_until

if TYPE_CHECKING:
    from tests.system.conftest import Rig

COMMAND = "import sys; from airflow_skyvern.cli import main; sys.exit(main(sys.argv[1:]))"
LONG = 300.0


class Schedules:
    """The command line, and what both servers say of one schedule."""

    def __init__(self, rig: Rig, name: str, **more: Any) -> None:
        self.rig, self.name = rig, name
        hour = (datetime.now(timezone.utc) + timedelta(hours=12)).hour
        self.workflow_id = rig.skyvern.workflow(more.pop("workflow", "ok_wait"))
        body = {"cron_expression": f"30 {hour} * * *", "timezone": "UTC", "name": name, **more}
        status, answer = rig.skyvern.request("POST", f"/v1/workflows/{self.workflow_id}/schedules", body)
        assert status == 200, answer
        self.schedule_id = str(answer["schedule"]["workflow_schedule_id"])
        self.dag_id = f"skyvern_{name}"

    @property
    def enabled(self) -> bool:
        path = f"/v1/workflows/{self.workflow_id}/schedules/{self.schedule_id}"
        status, answer = self.rig.skyvern.request("GET", path)
        assert status == 200, answer
        return bool(answer["schedule"]["enabled"])

    @property
    def dag(self) -> dict[str, Any]:
        answer = self.rig.airflow.request("GET", f"/dags/{self.dag_id}")
        return dict(answer.json()) if answer.is_success else {}

    @property
    def row(self) -> dict[str, str]:
        """What the command line says of the schedule; on Airflow 2 lines of log come first."""
        output = self.call("list", "-o", "json")[1].splitlines()
        rows = json.loads("\n".join(line for line in output if not line.startswith("[20")))
        (row,) = (row for row in rows if row["schedule_id"] == self.schedule_id)
        return dict(row)

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        airflow = self.rig.airflow
        command = [str(airflow.bin / "python"), "-W", "ignore", "-c", COMMAND, "schedules", *arguments]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen(command, env=airflow.env, cwd=airflow.home, **pipes)

    def call(self, *arguments: str) -> tuple[int, str, str]:
        with self.begin(*arguments) as process:
            output, errors_text = process.communicate(timeout=LONG)
        return process.returncode, output, errors_text

    def run_now(self) -> dict[str, Any]:
        """Run the DAG by hand, and return what reached the workflow. Airflow 2 runs no task before `start_date`."""
        run_id = self.rig.airflow.trigger(self.dag_id)
        assert self.rig.airflow.wait_run(self.dag_id, run_id, timeout=LONG) == "success"
        return dict(self.rig.airflow.xcom(self.dag_id, run_id, "run")["echo_output"]["body"]["got"])

    def check_somebody_fires_it(self) -> None:
        """Skyvern does, or a DAG that Airflow knows and that is not paused."""
        if not self.enabled:
            assert self.dag["is_paused"] is False, f"nobody fires {self.schedule_id}"


def test_a_schedule_goes_to_airflow_and_back(rig: Rig) -> None:
    mine = Schedules(rig, "there_and_back", workflow="params_http", parameters={"name": "ACME"})
    status, output, _ = mine.call("export", "--dry-run", mine.schedule_id)
    assert (status, "would write" in output, mine.dag) == (0, True, {})
    status, output, errors_text = mine.call("takeover", "--owner", "finance", mine.schedule_id)
    assert (status, errors_text.count("error:")) == (0, 0), output + errors_text
    assert f"{mine.schedule_id}: disabled in Skyvern; DAG {mine.dag_id} fires it, next at " in output
    assert (mine.enabled, mine.dag["is_paused"], mine.dag["owners"]) == (False, False, ["finance"])
    assert {tag["name"] for tag in mine.dag["tags"]} == {"skyvern", f"skyvern:{mine.schedule_id}"}
    row = mine.row
    assert (row["fired_by"], row["dag_id"], row["dag_state"]) == ("Airflow", mine.dag_id, "active")

    if rig.airflow.is_3:
        assert mine.run_now()["name"] == "ACME"

    assert mine.call("takeover", mine.schedule_id)[1].endswith("fires it already\n")
    status, output, errors_text = mine.call("release", mine.schedule_id)
    assert (status, f"{mine.schedule_id}: Skyvern fires it from now on" in output) == (0, True), output + errors_text
    assert (mine.enabled, mine.dag["is_paused"]) == (True, True)
    row = mine.row
    assert (row["fired_by"], row["dag_id"], row["dag_state"]) == ("Skyvern", mine.dag_id, "paused")


def test_a_takeover_killed_at_any_line_leaves_somebody_who_fires_and_is_mended(rig: Rig) -> None:
    mine = Schedules(rig, "killed")
    for lines in range(1, 10):
        with mine.begin("takeover", mine.schedule_id) as process:
            assert process.stdout is not None
            seen = [process.stdout.readline() for _ in range(lines)]
            process.kill()
        mine.check_somebody_fires_it()
        if "taken it over already" in "".join(seen):
            break
    assert mine.call("takeover", mine.schedule_id)[1].endswith("fires it already\n")
    assert (mine.enabled, mine.dag["is_paused"]) == (False, False)
    for _ in range(2):
        with mine.begin("release", mine.schedule_id) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.kill()
        mine.check_somebody_fires_it()
    assert mine.call("release", mine.schedule_id)[0] == 0
    assert mine.enabled
    wait_until("paused", lambda: bool(mine.dag["is_paused"]), 10)


def test_a_secret_must_be_a_variable_first_and_is_in_no_file(rig: Rig) -> None:
    secret = {"name": "Bearer s3cr3tt0ken"}
    mine = Schedules(rig, "secret", workflow="params_http", parameters=secret)
    status, output, errors_text = mine.call("takeover", mine.schedule_id)
    assert (status, mine.enabled, mine.dag) == (1, True, {})
    assert "airflow variables set skyvern_secret_name '<value>'" in errors_text
    rig.airflow.cli("variables", "set", "skyvern_secret_name", secret["name"])
    status, more, errors = mine.call("takeover", mine.schedule_id)
    assert (status, mine.enabled) == (0, False), more + errors
    assert "s3cr3t" not in output + errors_text + more + errors
    assert "s3cr3t" not in (rig.airflow.dags / "skyvern_secret.py").read_text()
    if rig.airflow.is_3:
        assert mine.run_now()["name"] == "Bearer ***"  # it reached the workflow, and is masked in XCom


def test_what_cannot_be_done_says_why(rig: Rig) -> None:
    mine = Schedules(rig, "refused", enabled=False)
    status, _, errors_text = mine.call("takeover", mine.schedule_id)
    assert (status, "nothing fires it" in errors_text) == (1, True)
    status, _, errors_text = mine.call("takeover", "wfs_1")
    assert (status, errors_text.endswith("error: No such schedule in Skyvern: wfs_1.\n")) == (1, True)
    status, _, errors_text = mine.call("list", "--conn-id", "nowhere")
    assert (status, "nowhere" in errors_text, "Traceback" in errors_text) == (1, True, False)
    status, _, errors_text = mine.call("list", "--conn-id", "skyvern_wrong_key")
    assert (status, "answered 403" in errors_text, "Traceback" in errors_text) == (1, True, False)


def test_a_connection_in_airflows_database_serves(rig: Rig) -> None:
    skyvern = rig.skyvern
    fields = skyvern.connection
    rig.airflow.create_connection({"connection_id": "stored", **fields})
    mine = Schedules(rig, "stored_connection")
    status, output, errors_text = mine.call("list", "--conn-id", "stored")
    assert (status, mine.schedule_id in output) == (0, True), errors_text


def test_the_commands_are_airflows_too(rig: Rig) -> None:
    if rig.airflow.version < (3, 3):
        pytest.skip("providers can add commands since Airflow 3.3")
    mine = Schedules(rig, "as_airflow_command")
    assert mine.schedule_id in rig.airflow.cli("skyvern", "schedules", "list")
