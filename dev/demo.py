"""`make demo`: run example DAGs on a real Airflow and a real Skyvern, and print the results.

Where there is a Chromium, a browser runs one of each: a workflow, in which it logs in, extracts, and downloads a file
into a folder; a prompt with a schema; and a workflow file. Without one, a workflow runs that is an HTTP request, and
the demo says what it leaves out. The last example needs no browser: it fetches a file and some rows from each of
twenty vendors, all at once, and writes one table. Both servers run on loopback in a temporary directory, which is
removed at the end, also after Ctrl-C. `UI=1` leaves them up until Ctrl-C. With SKYVERN_API_KEY set, Skyvern Cloud (or
SKYVERN_BASE_URL) is used instead of a local server; SKYVERN_WORKFLOW_ID then names the workflow, which gets the
parameters `vendor` and `month`, and runs once.
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
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from dev.airflow_server import RUN_FINAL, AirflowServer
from dev.browser.chromium import INSTALL_CHROMIUM, find_chromium
from dev.process import RigError
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer

if TYPE_CHECKING:
    from collections.abc import Iterator

REPO = Path(__file__).resolve().parent.parent
CLOUD = "https://api.skyvern.com"
RUN_SECONDS = 120.0
BROWSER_RUN_SECONDS = 300.0
VENDORS_RUN_SECONDS = 300.0
CLOUD_RUN_SECONDS = 1800.0
VENDOR = {"vendor": "Acme", "month": "2026-10"}
_BEGUN = time.monotonic()


@dataclass(frozen=True)
class Example:
    """An example DAG, its parameters, and the task whose result is shown."""

    conf: dict[str, str]
    run_seconds: float
    dag_id: str = "skyvern_run_and_use_output"
    task_id: str = "fetch"


@dataclass(frozen=True)
class Target:
    """The Skyvern to use, and the examples to run there."""

    base_url: str
    api_key: str
    login: str
    examples: list[Example]

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
    example = Example({"workflow_id": workflow_id, **VENDOR}, CLOUD_RUN_SECONDS)
    return Target(base_url, os.environ["SKYVERN_API_KEY"], "your API key", [example])


@contextlib.contextmanager
def skyvern(folder: Path) -> Iterator[Target]:
    """Use the Skyvern that the environment names, or start one."""
    if os.environ.get("SKYVERN_API_KEY"):
        yield cloud_target()
        return
    if chromium := find_chromium():
        say(f"starting a Skyvern server with a browser, {chromium}, and a scripted language model ...")
        with SkyvernServer(folder, SKYVERN_VENV, browser=True) as server:
            yield local_target(server, [*browser_examples(server, folder / "kept"), vendors_example(server, folder)])
        return
    say(f"left out: logging in, a prompt and a workflow file; they need Chromium ({INSTALL_CHROMIUM})")
    say("starting a Skyvern server without a browser ...")
    with SkyvernServer(folder, SKYVERN_VENV) as server:
        first = Example({"workflow_id": server.workflow("invoices"), **VENDOR}, RUN_SECONDS)
        yield local_target(server, [first, vendors_example(server, folder)])


def local_target(server: SkyvernServer, examples: list[Example]) -> Target:
    """Return the examples on a server of this machine."""
    return Target(server.base_url, server.api_key, f"API key {server.api_key}", examples)


def browser_examples(server: SkyvernServer, folder: Path) -> list[Example]:
    """Return a workflow that logs in, extracts, and downloads a file into a folder, a prompt, and a workflow file."""
    portal = f"{server.site.url}/invoices?open=1"
    kept = {"workflow_id": server.workflow("month_end"), "invoice": "INV-1003", "folder": str(folder)}
    return [
        Example(kept, BROWSER_RUN_SECONDS, "skyvern_keep_downloaded_files"),
        Example({"url": portal}, BROWSER_RUN_SECONDS, "skyvern_prompt_to_rows", "invoices"),
        Example({"portal": portal}, BROWSER_RUN_SECONDS, "skyvern_workflow_in_git", "invoices"),
    ]


def vendors_example(server: SkyvernServer, folder: Path) -> Example:
    """Return the example that fetches a file and some rows from each of twenty vendors."""
    conf = {"workflow_id": server.workflow("vendor"), "folder": str(folder / "statements")}
    return Example(conf, VENDORS_RUN_SECONDS, "skyvern_files_and_rows", "summary")


def states_of(airflow: AirflowServer, dag_id: str, run_id: str) -> dict[str, str]:
    """Return the state of each task that has one; of a mapped task, how many of its instances are in which."""
    counts: dict[str, Counter[str]] = {}
    for (task_id, _), state in sorted(airflow.task_states(dag_id, run_id).items()):
        if state is not None:
            counts.setdefault(task_id, Counter())[state] += 1
    return {
        task_id: ", ".join(f"{number} {state}" if states.total() > 1 else state for state, number in states.items())
        for task_id, states in counts.items()
    }


def follow(airflow: AirflowServer, dag_id: str, run_id: str, timeout: float) -> str:
    """Print the states of the tasks whenever they change, until the run is finished; return its state."""
    shown: dict[str, str] = {}
    deadline = time.monotonic() + timeout
    while True:
        state = airflow.run_state(dag_id, run_id)
        for task_id, states in states_of(airflow, dag_id, run_id).items():
            if shown.get(task_id) != states:
                say(f"  task {task_id}: {states}")
                shown[task_id] = states
        if state in RUN_FINAL:
            return state
        if time.monotonic() > deadline:
            raise RigError(f"the DAG run was still {state} after {timeout:.0f} s")
        time.sleep(0.5)


def show_result(airflow: AirflowServer, example: Example, run_id: str) -> None:
    """Print what the run left in Airflow: states, the link to Skyvern, the output in XCom, the files."""
    dag_id, task_id = example.dag_id, example.task_id
    print("\nTask states")
    for name, states in states_of(airflow, dag_id, run_id).items():
        print(f"  {name:<12} {states}")
    with contextlib.suppress(KeyError):
        print(f"\nThe run in Skyvern\n  {airflow.xcom(dag_id, run_id, task_id, 'app_url')}")
    with contextlib.suppress(KeyError):
        output = airflow.xcom(dag_id, run_id, task_id)
        print(f"\nXCom of task {task_id}\n{json.dumps(output, indent=2, ensure_ascii=False)}")
    for key in ("files", "evidence"):
        with contextlib.suppress(KeyError):
            files = airflow.xcom(dag_id, run_id, task_id, key)
            if isinstance(files, list):  # a summary has a number there
                show_files(f"XCom {key} of task {task_id}", [Path(file["path"]) for file in files])
    table = Path(example.conf.get("folder", "")) / "rows.csv"
    if table.is_file():
        show_files(f"Files in {table.parent}", sorted(table.parent.iterdir()))
        with table.open() as lines:
            print(f"\n{table.name} begins with\n  " + "  ".join(islice(lines, 5)))


def show_files(what: str, files: list[Path]) -> None:
    """Print files as they are on the disk."""
    print(f"\n{what}")
    for path in files:
        print(f"  {path} ({path.stat().st_size:,} bytes)")


def show_failure(airflow: AirflowServer, dag_id: str, run_id: str) -> None:
    for (task_id, map_index), state in airflow.task_states(dag_id, run_id).items():
        if state == "failed":
            print(f"\nLog of task {task_id}\n{airflow.log(dag_id, run_id, task_id, map_index=map_index)}")


def wait_for_ctrl_c(airflow: AirflowServer, target: Target) -> NoReturn:
    print(f"\nAirflow: {airflow.ui_url} (no login; every visitor from this machine is admin)")
    print(f"Skyvern: {target.base_url} ({target.login})")
    print("Ctrl-C stops both.", flush=True)
    while True:
        threading.Event().wait(3600)


def run_example(airflow: AirflowServer, example: Example) -> bool:
    """Run an example's DAG once and print the result; return whether it succeeded."""
    run_id = airflow.trigger(example.dag_id, example.conf)
    say(f"DAG {example.dag_id}, run {run_id}, {example.conf}")
    state = follow(airflow, example.dag_id, run_id, example.run_seconds)
    say(f"DAG run: {state}")
    show_result(airflow, example, run_id)
    if state != "success":
        show_failure(airflow, example.dag_id, run_id)
    return state == "success"


def run(folder: Path) -> int:
    """Start everything, run the examples, print the results; return the exit status."""
    with skyvern(folder / "skyvern") as target:
        say(f"Skyvern: {target.base_url}; starting Airflow ...")
        env = {"AIRFLOW_CONN_SKYVERN_DEFAULT": target.connection}
        with AirflowServer(folder / "airflow", REPO / "dags", env) as airflow:
            say(f"Airflow {'.'.join(map(str, airflow.version))}: {airflow.ui_url}")
            results = [run_example(airflow, example) for example in target.examples]
            if os.environ.get("UI") in {"1", "true", "yes"}:
                wait_for_ctrl_c(airflow, target)
            say("stopping both servers and removing all files (UI=1 leaves them until Ctrl-C) ...")
    return 0 if all(results) else 1


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
