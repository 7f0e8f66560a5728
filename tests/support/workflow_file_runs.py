"""DAG runs of ``tests/system/dags/workflow_file_dags.py``: a workflow file in each way, and twenty times at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dev.airflow_server import AirflowServer
    from dev.skyvern_server import SkyvernServer

DAG_FILE = Path(__file__).parents[1] / "system" / "dags" / "workflow_file_dags.py"
DAG_ID = "workflow_file"
TITLE = "Waits of the system tests"
SINGLE = ("deferred", "worker", "decorated")
MAPPED = 20
TASKS = len(SINGLE) + MAPPED
SLOW = 240


def workflows(skyvern: SkyvernServer) -> list[dict[str, Any]]:
    """Return what Skyvern has under the title of the file."""
    _, rows = skyvern.request("GET", "/v1/workflows?page_size=100")
    return [row for row in rows if row["title"] == TITLE]


def waits(skyvern: SkyvernServer, workflow_id: str) -> list[int]:
    """Return the contents of all versions, the newest first: how many seconds each waits."""
    _, rows = skyvern.request("GET", f"/v1/workflows/{workflow_id}/versions")
    assert [row["version"] for row in rows] == list(range(len(rows), 0, -1))
    return [row["workflow_definition"]["blocks"][0]["wait_sec"] for row in rows]


@dataclass
class FileRuns:
    """The DAG's runs on one Airflow."""

    airflow: AirflowServer

    def trigger(self) -> str:
        return self.airflow.trigger(DAG_ID)

    def edit(self, before: int, after: int) -> None:
        """Change the file's content: how many seconds it waits."""
        file = self.airflow.dags / "waits.yaml"
        text = file.read_text()
        assert f"wait_sec: {before}" in text
        file.write_text(text.replace(f"wait_sec: {before}", f"wait_sec: {after}"))

    def succeeds(self, run_id: str) -> None:
        """Wait for a DAG run, and show what a task of it that failed has logged."""
        if self.airflow.wait_run(DAG_ID, run_id, timeout=SLOW) != "success":
            states = self.airflow.task_states(DAG_ID, run_id)
            failed = [task_id for task_id in SINGLE if states.get((task_id, -1)) != "success"]
            logs = [self.airflow.log(DAG_ID, run_id, task_id)[-2000:] for task_id in failed]
            raise AssertionError("\n".join([str(states), *logs]))

    def ran(self, run_id: str) -> set[tuple[str, int, str]]:
        """Return what the tasks say that they have run: workflow, version, file."""
        single = [self.airflow.xcom(DAG_ID, run_id, task_id, "workflow_version") for task_id in SINGLE]
        mapped = [
            self.airflow.xcom(DAG_ID, run_id, "mapped", "workflow_version", map_index=number)
            for number in range(MAPPED)
        ]
        return {(note["workflow_id"], note["version"], note["file"]) for note in [*single, *mapped]}
