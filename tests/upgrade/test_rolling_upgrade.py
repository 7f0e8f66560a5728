"""
The provider is upgraded and taken back, process by process, while tasks wait.

On a real Airflow and a real Skyvern: ``make test SUITE=upgrade``. From the last released wheel; to this version, and
that also stores what nothing of it knows, as a later one may.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dev.airflow_server import AirflowServer
from dev.postgres import PostgresServer
from dev.process import wait_until
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer, workflows
from tests.upgrade import wheels

DAGS = Path(__file__).parent / "dags"  # as it is: the file itself leaves out what an older Airflow does not have
TRIGGERER, WORKERS = ("triggerer",), ("scheduler", "dag-processor", "api-server", "webserver")
ALWAYS = ("upgrade_waits", "upgrade_logs_blocks", "upgrade_senses", "upgrade_senses_without_worker")
PATIENCE = 240.0


class Waiting:
    """A DAG run of each kind of wait, each with a run in Skyvern that asks a person."""

    def __init__(self, rig: Rig, name: str) -> None:
        self._rig = rig
        self._workflow = rig.skyvern.create_workflow(name, workflows(rig.skyvern.peer_url)["human"])
        conf = {"workflow_id": self._workflow}
        self.dag_runs = {
            dag_id: rig.airflow.trigger(dag_id, conf, run_id=name, timeout=PATIENCE) for dag_id in rig.dag_ids
        }
        for dag_id in self.dag_runs:
            wait_until(f"{dag_id} waits", partial(self._waits, dag_id), PATIENCE, interval=1.0)

    def _waits(self, dag_id: str) -> bool:
        """Return whether the task waits, and no worker is about to resume it as its run has begun to ask."""
        states = self._rig.airflow.task_states(dag_id, self.dag_runs[dag_id])
        assert "failed" not in states.values(), self.logs()
        return "deferred" in states.values() and ("senses" in dag_id or self._has_paused(dag_id))

    def _has_paused(self, dag_id: str) -> bool:
        try:
            self._rig.airflow.xcom(dag_id, self.dag_runs[dag_id], "run", key="awaiting_person")
        except KeyError:
            return False
        return str(self._rig.airflow.task(dag_id, self.dag_runs[dag_id], "run")["state"]) == "deferred"

    def runs(self) -> list[dict[str, Any]]:
        return self._rig.skyvern.runs_of(self._workflow)

    def let_continue(self) -> None:
        """Answer each run in Skyvern, once it asks."""
        for run in self.runs():
            wait_until("continued", partial(self._rig.continues, str(run["workflow_run_id"])), PATIENCE)

    def check_ends(self) -> None:
        """Each task succeeds, with one run that has completed."""
        states = {
            dag_id: self._rig.airflow.wait_run(dag_id, dag_run, PATIENCE) for dag_id, dag_run in self.dag_runs.items()
        }
        assert states == dict.fromkeys(self.dag_runs, "success"), self.logs()
        assert Counter(run["status"] for run in self.runs()) == {"completed": len(self.dag_runs)}

    def logs(self) -> str:
        """Return the logs of all tasks."""
        return "\n".join(
            self._rig.airflow.log(dag_id, dag_run, task_id)
            for dag_id, dag_run in self.dag_runs.items()
            for task_id, _ in self._rig.airflow.task_states(dag_id, dag_run)
        )


class Rig:
    """Both servers, and which version each process of Airflow has."""

    def __init__(self, airflow: AirflowServer, skyvern: SkyvernServer, versions: dict[str, Path]) -> None:
        self.airflow, self.skyvern, self._versions = airflow, skyvern, versions
        self._has = dict.fromkeys(airflow.processes, "older")
        self.dag_ids = [*ALWAYS, *(["upgrade_asks"] if airflow.version >= (3, 1) else [])]

    def have(self, version: str, *names: str) -> None:
        """Restart processes with this version, if they have another one."""
        moved = [name for name in names if self._has.get(name, version) != version]
        for name in moved:
            self.airflow.move(name, self._versions[version])
            self._has[name] = version
        if moved:
            time.sleep(15)  # a process that was stopped is taken for healthy for so long
            self.airflow.wait_healthy()

    def continues(self, run_id: str) -> bool:
        status, _ = self.skyvern.request("POST", f"/v1/workflows/runs/{run_id}/continue")
        return status == 200


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("versions")
    wheel = wheels.built(home)
    return {"older": wheels.older(home / "older", wheel), "newer": wheels.newer(home / "newer", wheel)}


@pytest.fixture(scope="module")
def rig(versions: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    home = tmp_path_factory.mktemp("upgrade")
    with PostgresServer() as postgres, SkyvernServer(home / "skyvern", SKYVERN_VENV) as skyvern:
        env = {
            "AIRFLOW_CONN_SKYVERN_DEFAULT": json.dumps(skyvern.connection),
            "AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT": "60",
        }
        airflow = AirflowServer(home / "airflow", DAGS, env, python_bin=versions["older"], postgres=postgres)
        with airflow:
            airflow.wait_dag("upgrade_waits", PATIENCE)
            yield Rig(airflow, skyvern, versions)


def test_each_version_is_the_one_in_its_own_folder(versions: dict[str, Path]) -> None:
    code = "import airflow_skyvern.triggers.run as run; print(run.__file__, hasattr(run, '_init_later'))"
    for name, commands in versions.items():
        file, is_newer = wheels.run(commands / "python", "-I", "-c", code).splitlines()[-1].split()
        assert Path(file).is_relative_to(commands.parent)
        assert is_newer == str(name == "newer")


@pytest.mark.parametrize(
    ("name", "before", "moved", "to"),
    [
        ("triggerer_first", {"older": (*TRIGGERER, *WORKERS)}, TRIGGERER, "newer"),
        ("workers_last", {"newer": TRIGGERER, "older": WORKERS}, WORKERS, "newer"),
        ("triggerer_back", {"newer": (*TRIGGERER, *WORKERS)}, TRIGGERER, "older"),
        ("workers_back", {"older": TRIGGERER, "newer": WORKERS}, WORKERS, "older"),
        ("workers_first", {"older": (*TRIGGERER, *WORKERS)}, WORKERS, "newer"),
    ],
)
def test_waits_continue_across_a_swap(
    rig: Rig, name: str, before: dict[str, tuple[str, ...]], moved: tuple[str, ...], to: str
) -> None:
    for version, names in before.items():
        rig.have(version, *names)
    waiting = Waiting(rig, name)
    rig.have(to, *moved)
    waiting.let_continue()
    waiting.check_ends()
    if to == "older":  # both times the triggerer has the older version at last, and the waits are of newer workers
        assert "this triggerer ignores: of_a_later_version" in waiting.logs()
