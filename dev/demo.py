"""`make demo`: run the example DAG on a real Airflow and a real Skyvern, and print the result.

Both servers run on loopback in a temporary directory, which is removed at the end, also after Ctrl-C. `UI=1`
leaves them up until Ctrl-C. With SKYVERN_API_KEY set, Skyvern Cloud (or SKYVERN_BASE_URL) is used instead of a
local server; SKYVERN_WORKFLOW_ID then names the workflow, which gets the parameters `vendor` and `month`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from dev.airflow_server import RUN_FINAL, AirflowServer
from dev.process import RigError
from dev.skyvern_server import SkyvernServer

if TYPE_CHECKING:
    from collections.abc import Iterator

REPO = Path(__file__).resolve().parent.parent
CLOUD = "https://api.skyvern.com"
DAG_ID = "skyvern_run_and_use_output"
TASK_ID = "fetch"
RUN_SECONDS = 120.0
CLOUD_RUN_SECONDS = 1800.0
_BEGUN = time.monotonic()


@dataclass(frozen=True)
class Target:
    """The Skyvern to use and the workflow to run there."""

    base_url: str
    api_key: str
    workflow_id: str
    run_seconds: float
    login: str

    @property
    def connection(self) -> str:
        return json.dumps({"conn_type": "skyvern", "host": self.base_url, "password": self.api_key})


def say(text: str) -> None:
    print(f"[{time.monotonic() - _BEGUN:5.1f} s] {text}", flush=True)


def cloud_target() -> Target:
    """Return the Skyvern that the environment names."""
    workflow_id = os.environ.get("SKYVERN_WORKFLOW_ID")
    if not workflow_id:
        raise RigError(
            "SKYVERN_API_KEY is set, so the demo would run on Skyvern Cloud: set SKYVERN_WORKFLOW_ID to the "
            "workflow to run (wpid_...), or unset SKYVERN_API_KEY to run on a local server"
        )
    base_url = os.environ.get("SKYVERN_BASE_URL") or CLOUD
    return Target(base_url, os.environ["SKYVERN_API_KEY"], workflow_id, CLOUD_RUN_SECONDS, "your API key")


@contextlib.contextmanager
def skyvern(folder: Path) -> Iterator[Target]:
    """Use the Skyvern that the environment names, or start one."""
    if os.environ.get("SKYVERN_API_KEY"):
        yield cloud_target()
        return
    venv = Path(os.environ.get("SKYVERN_VENV") or REPO / ".venvs" / "skyvern")
    say("starting a Skyvern server (no language model, no browser) ...")
    with SkyvernServer(folder, venv) as server:
        workflow_id = server.workflow("invoices")
        yield Target(server.base_url, server.api_key, workflow_id, RUN_SECONDS, f"API key {server.api_key}")


def follow(airflow: AirflowServer, run_id: str, timeout: float) -> str:
    """Print the states of the tasks whenever they change, until the run is finished; return its state."""
    shown: dict[tuple[str, int], str | None] = {}
    deadline = time.monotonic() + timeout
    while True:
        state = airflow.run_state(DAG_ID, run_id)
        for key, task_state in airflow.task_states(DAG_ID, run_id).items():
            if task_state is not None and shown.get(key) != task_state:
                say(f"  task {key[0]}: {task_state}")
                shown[key] = task_state
        if state in RUN_FINAL:
            return state
        if time.monotonic() > deadline:
            raise RigError(f"the DAG run was still {state} after {timeout:.0f} s")
        time.sleep(0.2)


def show_result(airflow: AirflowServer, run_id: str) -> None:
    """Print what the run left in Airflow: states, the link to Skyvern, the output in XCom."""
    print("\nTask states")
    for (task_id, _), state in sorted(airflow.task_states(DAG_ID, run_id).items()):
        print(f"  {task_id:<12} {state}")
    with contextlib.suppress(KeyError):
        print(f"\nThe run in Skyvern\n  {airflow.xcom(DAG_ID, run_id, TASK_ID, 'app_url')}")
    with contextlib.suppress(KeyError):
        output = airflow.xcom(DAG_ID, run_id, TASK_ID)
        print(f"\nXCom of task {TASK_ID}\n{json.dumps(output, indent=2, ensure_ascii=False)}")


def show_failure(airflow: AirflowServer, run_id: str) -> None:
    for (task_id, map_index), state in airflow.task_states(DAG_ID, run_id).items():
        if state == "failed":
            print(f"\nLog of task {task_id}\n{airflow.log(DAG_ID, run_id, task_id, map_index=map_index)}")


def wait_for_ctrl_c(airflow: AirflowServer, target: Target) -> NoReturn:
    print(f"\nAirflow: {airflow.ui_url} (no login; every visitor from this machine is admin)")
    print(f"Skyvern: {target.base_url} ({target.login}; workflow {target.workflow_id})")
    print("Ctrl-C stops both.", flush=True)
    while True:
        threading.Event().wait(3600)


def run(folder: Path) -> int:
    """Start everything, run the DAG once, print the result; return the exit status."""
    with skyvern(folder / "skyvern") as target:
        say(f"Skyvern: {target.base_url}; starting Airflow ...")
        env = {"AIRFLOW_CONN_SKYVERN_DEFAULT": target.connection}
        with AirflowServer(folder / "airflow", REPO / "dags", env) as airflow:
            say(f"Airflow {'.'.join(map(str, airflow.version))}: {airflow.ui_url}")
            conf = {"workflow_id": target.workflow_id, "vendor": "Acme", "month": "2026-10"}
            run_id = airflow.trigger(DAG_ID, conf)
            say(f"DAG {DAG_ID}, run {run_id}, {conf}")
            state = follow(airflow, run_id, target.run_seconds)
            say(f"DAG run: {state}")
            show_result(airflow, run_id)
            if state != "success":
                show_failure(airflow, run_id)
            if os.environ.get("UI") in {"1", "true", "yes"}:
                wait_for_ctrl_c(airflow, target)
            say("stopping both servers ...")
    return 0 if state == "success" else 1


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # clean up as after Ctrl-C
    cache = REPO / ".cache" / "demo"
    cache.mkdir(parents=True, exist_ok=True)
    try:
        if os.environ.get("SKYVERN_API_KEY"):
            cloud_target()  # fail before anything is started
        with tempfile.TemporaryDirectory(dir=cache, ignore_cleanup_errors=True) as folder:
            return run(Path(folder))
    except RigError as error:
        print(f"demo failed: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped")
        return 130
    finally:
        say("done")


if __name__ == "__main__":
    sys.exit(main())
