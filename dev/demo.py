"""`make demo`: run an example DAG on a real Airflow and a real Skyvern, and print the result.

Where there is a Chromium, a browser logs in, extracts, and downloads a file into a folder; else the workflow is an
HTTP request, which needs no browser. Both servers run on loopback in a temporary directory, which is removed at the
end, also after Ctrl-C. `UI=1` leaves them up until Ctrl-C. With SKYVERN_API_KEY set, Skyvern Cloud (or
SKYVERN_BASE_URL) is used instead of a local server; SKYVERN_WORKFLOW_ID then names the workflow, which gets the
parameters `vendor` and `month`.
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
from typing import TYPE_CHECKING, Any, NoReturn

from dev.airflow_server import RUN_FINAL, AirflowServer
from dev.browser.chromium import find_chromium
from dev.process import RigError
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer

if TYPE_CHECKING:
    from collections.abc import Iterator

REPO = Path(__file__).resolve().parent.parent
CLOUD = "https://api.skyvern.com"
TASK_ID = "fetch"
RUN_SECONDS = 120.0
BROWSER_RUN_SECONDS = 300.0
CLOUD_RUN_SECONDS = 1800.0
VENDOR = {"vendor": "Acme", "month": "2026-10"}
_BEGUN = time.monotonic()


@dataclass(frozen=True)
class Target:
    """The Skyvern to use, the workflow to run there, and the example DAG that does it, with its parameters."""

    base_url: str
    api_key: str
    workflow_id: str
    run_seconds: float
    login: str
    conf: dict[str, str]
    dag_id: str = "skyvern_run_and_use_output"

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
    return Target(base_url, os.environ["SKYVERN_API_KEY"], workflow_id, CLOUD_RUN_SECONDS, "your API key", VENDOR)


@contextlib.contextmanager
def skyvern(folder: Path) -> Iterator[Target]:
    """Use the Skyvern that the environment names, or start one."""
    if os.environ.get("SKYVERN_API_KEY"):
        yield cloud_target()
        return
    if chromium := find_chromium():
        say(f"starting a Skyvern server with a browser, {chromium}, and a scripted language model ...")
        with SkyvernServer(folder, SKYVERN_VENV, browser=True) as server:
            yield browser_target(server, folder / "kept")
        return
    say("starting a Skyvern server without a browser: there is no Chromium here (apt-get install chromium) ...")
    with SkyvernServer(folder, SKYVERN_VENV) as server:
        login = f"API key {server.api_key}"
        yield Target(server.base_url, server.api_key, server.workflow("invoices"), RUN_SECONDS, login, VENDOR)


def browser_target(server: SkyvernServer, folder: Path) -> Target:
    """Return the example that logs in, extracts, and downloads a file into a folder."""
    return Target(
        server.base_url,
        server.api_key,
        server.workflow("month_end"),
        BROWSER_RUN_SECONDS,
        f"API key {server.api_key}",
        {"invoice": "INV-1003", "folder": str(folder)},
        "skyvern_keep_downloaded_files",
    )


def follow(airflow: AirflowServer, dag_id: str, run_id: str, timeout: float) -> str:
    """Print the states of the tasks whenever they change, until the run is finished; return its state."""
    shown: dict[tuple[str, int], str | None] = {}
    deadline = time.monotonic() + timeout
    while True:
        state = airflow.run_state(dag_id, run_id)
        for key, task_state in airflow.task_states(dag_id, run_id).items():
            if task_state is not None and shown.get(key) != task_state:
                say(f"  task {key[0]}: {task_state}")
                shown[key] = task_state
        if state in RUN_FINAL:
            return state
        if time.monotonic() > deadline:
            raise RigError(f"the DAG run was still {state} after {timeout:.0f} s")
        time.sleep(0.2)


def show_result(airflow: AirflowServer, dag_id: str, run_id: str) -> None:
    """Print what the run left in Airflow: states, the link to Skyvern, the output in XCom, the files."""
    print("\nTask states")
    for (task_id, _), state in sorted(airflow.task_states(dag_id, run_id).items()):
        print(f"  {task_id:<12} {state}")
    with contextlib.suppress(KeyError):
        print(f"\nThe run in Skyvern\n  {airflow.xcom(dag_id, run_id, TASK_ID, 'app_url')}")
    with contextlib.suppress(KeyError):
        output = airflow.xcom(dag_id, run_id, TASK_ID)
        print(f"\nXCom of task {TASK_ID}\n{json.dumps(output, indent=2, ensure_ascii=False)}")
    for key in ("files", "evidence"):
        with contextlib.suppress(KeyError):
            show_files(key, airflow.xcom(dag_id, run_id, TASK_ID, key))


def show_files(key: str, files: list[dict[str, Any]]) -> None:
    """Print the files that an XCom names, as they are on the disk."""
    print(f"\nXCom {key} of task {TASK_ID}")
    for path in (Path(file["path"]) for file in files):
        print(f"  {path} ({path.stat().st_size:,} bytes)")


def show_failure(airflow: AirflowServer, dag_id: str, run_id: str) -> None:
    for (task_id, map_index), state in airflow.task_states(dag_id, run_id).items():
        if state == "failed":
            print(f"\nLog of task {task_id}\n{airflow.log(dag_id, run_id, task_id, map_index=map_index)}")


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
            dag_id, conf = target.dag_id, {"workflow_id": target.workflow_id, **target.conf}
            run_id = airflow.trigger(dag_id, conf)
            say(f"DAG {dag_id}, run {run_id}, {conf}")
            state = follow(airflow, dag_id, run_id, target.run_seconds)
            say(f"DAG run: {state}")
            show_result(airflow, dag_id, run_id)
            if state != "success":
                show_failure(airflow, dag_id, run_id)
            if os.environ.get("UI") in {"1", "true", "yes"}:
                wait_for_ctrl_c(airflow, target)
            say("stopping both servers and removing all files (UI=1 leaves them until Ctrl-C) ...")
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
