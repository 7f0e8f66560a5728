"""A real Airflow (the version installed beside `python_bin`) on loopback, on SQLite or PostgreSQL, and its REST API.

The scheduler, triggerer, API server (2.11: webserver) and DAG processor are separate processes of their own
groups, so that a test can stop or kill one of them: `server.processes["triggerer"].kill()`. The same methods
work with the REST API v1 of Airflow 2 and v2 of Airflow 3.
"""

from __future__ import annotations

import base64
import copy
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import httpx

from dev.airflow_2 import for_airflow_2, runs_on
from dev.process import Process, RigError, free_port, start_and_wait, stop_all, wait_until

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from typing_extensions import Self

    from dev.postgres import PostgresServer

START_SECONDS = 300.0
DATABASE = "airflow"
_SIMPLE_AUTH_MANAGER = "airflow.api_fastapi.auth.managers.simple.simple_auth_manager.SimpleAuthManager"
RUN_FINAL = ("success", "failed")
TaskKey = tuple[str, int]

# Fields of every log record that repeat which task it is of, or that come first in the line anyway.
_LOG_NOISE = {
    "timestamp",
    "level",
    "event",
    "dag_id",
    "run_id",
    "task_id",
    "ti_id",
    "try_number",
    "map_index",
} | {
    "filename",
    "lineno",
}

# Airflow 2: every visitor (from loopback) is an administrator.
_WEBSERVER_CONFIG = """
AUTH_ROLE_PUBLIC = "Admin"
WTF_CSRF_ENABLED = True
RATELIMIT_ENABLED = False
"""

# Arguments: dag, run, task.
_CLEAR_AS_UI_2 = """
import sys

from airflow.models.dagbag import DagBag
from airflow.models.taskinstance import TaskInstance, clear_task_instances
from airflow.utils.session import create_session
dag_id, run_id, task_id = sys.argv[1:]
with create_session() as session:
    found = session.query(TaskInstance).filter_by(dag_id=dag_id, run_id=run_id, task_id=task_id).all()
    clear_task_instances(found, session, dag=DagBag(read_dags_from_db=True).get_dag(dag_id))
"""


class AirflowServer:
    """Start with `with AirflowServer(home, dags) as airflow:`; `dags` is a folder, or DAG files to copy."""

    start_seconds: ClassVar[float] = START_SECONDS

    def __init__(
        self,
        home: Path,
        dags: Path | Iterable[Path],
        env: Mapping[str, str] | None = None,
        python_bin: Path | None = None,
        *,
        postgres: PostgresServer | None = None,
        triggerers: int = 1,
    ) -> None:
        self.home = home.absolute()
        self.home.mkdir(parents=True, exist_ok=True)
        self.bin = (python_bin or Path(sys.executable).parent).absolute()
        self.version = _airflow_version(self.bin)
        self.dags = self._dags_folder(dags)
        self.port = free_port()
        self.ui_url = f"http://127.0.0.1:{self.port}"
        self.db_path = self.home / "airflow.db"
        self.postgres = postgres
        self.triggerers = ["triggerer", *(f"triggerer-{number}" for number in range(2, triggerers + 1))]
        self.token: str | None = None
        self._migrated = postgres is None and self.db_path.exists()
        if not self.is_3:
            (self.home / "webserver_config.py").write_text(_WEBSERVER_CONFIG)
        self.env = {**_inherited(self.bin), **self._settings(), **(env or {})}
        self.processes = {name: self._process(name, command) for name, command in self._commands().items()}
        self.client = httpx.Client(base_url=self.ui_url, timeout=60, trust_env=False)

    @property
    def is_3(self) -> bool:
        return self.version >= (3, 0)

    def _dags_folder(self, dags: Path | Iterable[Path]) -> Path:
        if isinstance(dags, Path):
            return dags.absolute()
        folder = self.home / "dags"
        folder.mkdir(exist_ok=True)
        for file in dags:
            code = file.read_text()
            if runs_on(code, self.version):
                (folder / file.name).write_text(code if self.is_3 else for_airflow_2(code))
                for beside in file.parent.glob("*.yaml"):
                    shutil.copy(beside, folder)
        return folder

    # --- configuration -----------------------------------------------------------------------------------

    def _settings(self) -> dict[str, str]:
        options: dict[str, dict[str, object]] = {
            "core": {
                "dags_folder": self.dags,
                "load_examples": False,
                "executor": "LocalExecutor",
                "parallelism": 3,
                "dags_are_paused_at_creation": False,
                "fernet_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
                "test_connection": "Enabled",
            },
            "database": self._database(),
            "logging": {"base_log_folder": self.home / "logs"},
            "scheduler": {
                "scheduler_idle_sleep_time": 0.3,
                "job_heartbeat_sec": 2,
                # SQLite has no row locks: a task that schedules the next ones would race with the scheduler.
                "schedule_after_task_execution": self.postgres is not None,
            },
            # After this long without a heartbeat, a triggerer's triggers go to another one (default 30 s).
            "triggerer": {"job_heartbeat_sec": 2, "triggerer_health_check_threshold": 12},
            "usage_data_collection": {"enabled": False},
        }
        for section, more in (self._settings_3() if self.is_3 else self._settings_2()).items():
            options.setdefault(section, {}).update(more)
        return {
            "AIRFLOW_HOME": str(self.home),
            # With SQLite, Airflow 2 insists on the SequentialExecutor: an interpreter (5 s) for every task, while
            # the scheduler blocks. This option allows the LocalExecutor, as Airflow 3 does.
            "_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK": "1",
            **{
                f"AIRFLOW__{section.upper()}__{option.upper()}": str(value)
                for section, values in options.items()
                for option, value in values.items()
            },
        }

    def _database(self) -> dict[str, object]:
        if self.postgres is None:
            return {"sql_alchemy_conn": f"sqlite:///{self.db_path}?timeout=30"}
        urls = {"sql_alchemy_conn": self.postgres.url(DATABASE)}
        if self.is_3:
            urls["sql_alchemy_conn_async"] = self.postgres.url(DATABASE, "asyncpg")
        return {**urls}

    def _settings_3(self) -> dict[str, dict[str, object]]:
        return {
            "core": {
                "execution_api_server_url": f"{self.ui_url}/execution/",
                "auth_manager": _SIMPLE_AUTH_MANAGER,
                "simple_auth_manager_all_admins": True,
            },
            "api": {"base_url": self.ui_url, "secret_key": secrets.token_hex(16)},
            "api_auth": {"jwt_secret": secrets.token_hex(32)},
            "dag_processor": {
                "refresh_interval": 3,
                "bundle_refresh_check_interval": 1,
                "parsing_processes": 1,
            },
        }

    def _settings_2(self) -> dict[str, dict[str, object]]:
        return {
            "api": {"auth_backends": "airflow.api.auth.backend.default"},
            "webserver": {
                "base_url": self.ui_url,
                "secret_key": secrets.token_hex(16),
                "config_file": self.home / "webserver_config.py",
                "workers": 1,
                "worker_refresh_interval": 0,
            },
            "scheduler": {"dag_dir_list_interval": 3, "parsing_processes": 1},
        }

    def _commands(self) -> dict[str, list[str]]:
        loopback = ["--host", "127.0.0.1"] if self.is_3 else ["--hostname", "127.0.0.1"]
        web = [*loopback, "--port", str(self.port), "--workers", "1"]
        commands = {
            "scheduler": ["scheduler", "--skip-serve-logs"],
            **{name: ["triggerer", "--skip-serve-logs"] for name in self.triggerers},
        }
        if self.is_3:
            return {**commands, "api-server": ["api-server", *web], "dag-processor": ["dag-processor"]}
        return {**commands, "webserver": ["webserver", *web]}

    def _process(self, name: str, arguments: list[str]) -> Process:
        command = [str(self.bin / "python"), "-m", "airflow", *arguments]
        log_path = self.home / f"{name}.log"
        return Process(f"airflow {name}", command, env=self.env, cwd=self.home, log_path=log_path)

    # --- start and stop ----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.client.close()

    def start(self) -> Self:
        """Create the database if it is missing, start the processes, wait until all report healthy."""
        self.migrate()
        start_and_wait(list(self.processes.values()), self._healthy, self.start_seconds)
        return self

    def migrate(self) -> None:
        """Create the database if it is missing, for what has to be in it before the processes start."""
        if self._migrated:
            return
        if self.postgres is not None:
            self.postgres.create(DATABASE)
        self.cli("db", "migrate", timeout=400)
        self._migrated = True

    def stop(self) -> None:
        """Stop all processes; what takes more than 5 s (the triggerer of Airflow 3 needs 11 s) is killed."""
        stop_all(list(self.processes.values()), seconds=5)

    def move(self, name: str, python_bin: Path) -> None:
        """Stop a process, and start it in another environment, with the same settings."""
        old = self.processes[name]
        old.stop()
        command = [str(python_bin / "python"), *old.command[1:]]
        env = {**self.env, "PATH": f"{python_bin}{os.pathsep}{self.env['PATH']}"}
        self.processes[name] = Process(old.name, command, env=env, cwd=old.cwd, log_path=old.log_path)
        self.processes[name].start()

    def wait_healthy(self, timeout: float = START_SECONDS) -> None:
        """Wait until all processes report healthy; a dead one still does so for about 12 s."""
        wait_until("Airflow healthy", self._healthy, timeout)

    def cli(self, *arguments: str, timeout: float = 180) -> str:
        """Run `airflow ...` with this server's settings and return its standard output."""
        return self._run("-m", "airflow", *arguments, timeout=timeout)

    def python(self, code: str, *arguments: str, timeout: float = 180) -> str:
        """Run Python code with this server's settings and return its standard output."""
        return self._run("-c", code, *arguments, timeout=timeout)

    def _run(self, *arguments: str, timeout: float) -> str:
        command = [str(self.bin / "python"), *arguments]
        done = subprocess.run(
            command, env=self.env, cwd=self.home, capture_output=True, text=True, timeout=timeout, check=False
        )
        if done.returncode:
            raise RigError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def _healthy(self) -> bool:
        try:
            answer = self.client.get("/api/v2/monitor/health" if self.is_3 else "/api/v1/health", timeout=5)
            if self.is_3 and self.token is None and answer.is_success:
                self.token = str(self.client.get("/auth/token").raise_for_status().json()["access_token"])
        except httpx.HTTPError:
            return False
        wanted = ["metadatabase", "scheduler", "triggerer", *(["dag_processor"] if self.is_3 else [])]
        return answer.is_success and all(
            (answer.json().get(name) or {}).get("status") == "healthy" for name in wanted
        )

    @property
    def worker_marks(self) -> set[str]:
        """What the environment of tasks' processes has: with the LocalExecutor, they are the scheduler's."""
        return {self.processes["scheduler"].mark}

    def at(self, url: str) -> Self:
        """Return this server as it is reached at another address."""
        seen = copy.copy(self)
        seen.client = httpx.Client(base_url=url, timeout=60, trust_env=False)
        return seen

    def for_a_user(self) -> AirflowServer:
        """Return this server as the next user reaches it; several API servers take turns."""
        return self

    # --- REST --------------------------------------------------------------------------------------------

    def request(self, method: str, path: str, json: Any = None, **options: Any) -> httpx.Response:
        """Call the REST API; `path` begins behind /api/v1 or /api/v2."""
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        headers |= options.pop("headers", {})
        url = f"/api/{'v2' if self.is_3 else 'v1'}{path}"
        return self.client.request(method, url, json=json, headers=headers, **options)

    def page(self, path: str) -> str:
        """Return one of the provider's pages, as a browser gets it; Airflow 3.1 or newer."""
        headers = {"authorization": f"Bearer {self.token}", "accept": "text/html"}
        answer = self.client.get(f"/skyvern{path}", headers=headers)
        assert answer.status_code == httpx.codes.OK, answer.text
        return answer.text

    def _call(self, method: str, path: str, json: Any = None, **options: Any) -> Any:
        response = self.request(method, path, json, **options)
        if response.is_error:
            raise RigError(f"{method} {path}: {response.status_code} {response.text[:2000]}")
        return response.json() if response.content else None

    @staticmethod
    def _ti_path(dag_id: str, run_id: str, task_id: str) -> str:
        return f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}"

    def trigger(
        self, dag_id: str, conf: dict[str, Any] | None = None, run_id: str | None = None, timeout: float = 60
    ) -> str:
        """Start a run of a DAG, waiting until the DAG is known; return the run's id."""
        body: dict[str, Any] = {"dag_run_id": run_id or f"rig_{uuid.uuid4().hex[:8]}", "conf": conf or {}}
        if self.is_3:
            body["logical_date"] = None
        self.wait_dag(dag_id, timeout)
        return str(self._call("POST", f"/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def wait_dag(self, dag_id: str, timeout: float = 60) -> None:
        """Wait until a DAG has been parsed; RigError with the import errors if that takes too long."""
        try:
            wait_until(
                f"DAG {dag_id} known",
                lambda: self.request("GET", f"/dags/{dag_id}/details").is_success,
                timeout,
            )
        except RigError as error:
            raise RigError(f"{error}; import errors: {json.dumps(self.import_errors(), indent=1)}") from None

    def run_state(self, dag_id: str, run_id: str) -> str:
        return str(self._call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def task(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, Any]:
        """Return a task instance as the REST API shows it (state, try_number, max_tries, ...)."""
        path = self._ti_path(dag_id, run_id, task_id) + (f"/{map_index}" if map_index >= 0 else "")
        found = self._call("GET", path)
        assert isinstance(found, dict)
        return found

    def task_states(self, dag_id: str, run_id: str) -> dict[TaskKey, str | None]:
        """Return {(task_id, map_index): state} of a run."""
        rows = self._call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances", params={"limit": 100})
        return {(row["task_id"], row["map_index"]): row["state"] for row in rows["task_instances"]}

    def wait_task(
        self,
        dag_id: str,
        run_id: str,
        task_id: str,
        states: Collection[str] | str,
        timeout: float = 60,
        *,
        map_index: int = -1,
        try_number: int | None = None,
    ) -> dict[str, Any]:
        """Wait until a task instance is in one of `states` (and at `try_number`, if given) and return it."""
        wanted = (states,) if isinstance(states, str) else tuple(states)
        deadline = time.monotonic() + timeout
        while True:
            states_now = self.task_states(dag_id, run_id)
            if states_now.get((task_id, map_index)) in wanted:
                found = self.task(dag_id, run_id, task_id, map_index)
                if found["state"] in wanted and try_number in (None, found["try_number"]):
                    return found
            if time.monotonic() > deadline:
                raise RigError(
                    f"{dag_id}.{task_id} [{map_index}] of {run_id}: not {' or '.join(wanted)} "
                    f"within {timeout:.0f} s, but {states_now}\n"
                    f"{self._logs_of(dag_id, run_id, task_id, map_index)}"
                )
            time.sleep(0.3)

    def wait_run(self, dag_id: str, run_id: str, timeout: float = 120) -> str:
        """Wait until a run is finished and return its state, success or failed."""
        deadline = time.monotonic() + timeout
        while (state := self.run_state(dag_id, run_id)) not in RUN_FINAL:
            if time.monotonic() > deadline:
                tasks = self.task_states(dag_id, run_id)
                raise RigError(f"run {run_id} of {dag_id}: {state} after {timeout:.0f} s, tasks {tasks}")
            time.sleep(0.3)
        return state

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value", map_index: int = -1) -> Any:
        """Return an XCom value as JSON holds it; KeyError if there is none."""
        path = f"{self._ti_path(dag_id, run_id, task_id)}/xcomEntries/{key}"
        response = self.request("GET", path, params={"map_index": map_index, "stringify": False})
        if response.status_code == httpx.codes.NOT_FOUND:
            raise KeyError(key)
        if response.is_error:
            raise RigError(f"GET {path}: {response.status_code} {response.text[:2000]}")
        return response.json()["value"]

    def links(self, dag_id: str, run_id: str, task_id: str, map_index: int = -1) -> dict[str, str | None]:
        """Return the extra links of a task instance: {name: url}."""
        path = f"{self._ti_path(dag_id, run_id, task_id)}/links"
        found = self._call("GET", path, params={"map_index": map_index})
        return dict(found["extra_links"] if self.is_3 else found)

    def log(self, dag_id: str, run_id: str, task_id: str, try_number: int = 1, map_index: int = -1) -> str:
        """Return the text of a task's log, the triggerer's part included."""
        path = f"{self._ti_path(dag_id, run_id, task_id)}/logs/{try_number}"
        accept = {"accept": "application/json" if self.is_3 else "text/plain"}
        response = self.request("GET", path, params={"map_index": map_index, "full_content": True}, headers=accept)
        if response.is_error:
            raise RigError(f"GET {path}: {response.status_code} {response.text[:2000]}")
        if not self.is_3:
            return response.text
        return "\n".join(_log_line(entry) for entry in response.json()["content"])

    def _logs_of(self, dag_id: str, run_id: str, task_id: str, map_index: int) -> str:
        try:
            tries = self.task(dag_id, run_id, task_id, map_index)["try_number"]
            return self.log(dag_id, run_id, task_id, max(1, tries), map_index)[-4000:]
        except Exception as error:
            return f"(no log: {error})"

    def mark(self, dag_id: str, run_id: str, task_id: str, state: str, map_index: int = -1) -> None:
        """Set a task's state as a user does in the UI."""
        path = self._ti_path(dag_id, run_id, task_id) + (f"/{map_index}" if map_index >= 0 else "")
        self._call("PATCH", path, {"new_state": state, **({} if self.is_3 else {"dry_run": False})})

    def mark_run(self, dag_id: str, run_id: str, state: str) -> None:
        """Set the state of a DAG run as a user does in the UI."""
        self._call("PATCH", f"/dags/{dag_id}/dagRuns/{run_id}", {"state": state})

    def delete_dag(self, dag_id: str) -> None:
        """Delete what the database holds of a DAG, as a user does in the UI."""
        self._call("DELETE", f"/dags/{dag_id}")

    def clear(self, dag_id: str, run_id: str, task_id: str) -> None:
        """
        Clear a task as a user does in the UI, so that it runs again.

        The REST API of Airflow 2, unlike its UI, does not clear a running task.
        """
        if not self.is_3 and self.task(dag_id, run_id, task_id)["state"] == "running":
            self.python(_CLEAR_AS_UI_2, dag_id, run_id, task_id)
            return
        body = {
            "dry_run": False,
            "dag_run_id": run_id,
            "task_ids": [task_id],
            "only_failed": False,
            "reset_dag_runs": True,
        }
        self._call("POST", f"/dags/{dag_id}/clearTaskInstances", body)

    def test_connection(self, body: dict[str, Any]) -> dict[str, Any]:
        """Press the Test button: {status: bool, message: str}."""
        return dict(self._call("POST", "/connections/test", body))

    def create_connection(self, body: dict[str, Any]) -> dict[str, Any]:
        return dict(self._call("POST", "/connections", body))

    def change_connection(self, body: dict[str, Any]) -> None:
        """Change a connection as a whole."""
        self._call("PATCH", f"/connections/{body['connection_id']}", body)

    def import_errors(self) -> list[dict[str, Any]]:
        return list(self._call("GET", "/importErrors")["import_errors"])


def _log_line(entry: dict[str, Any] | str) -> str:
    """Return one structured log record of Airflow 3 as a line."""
    if isinstance(entry, str):
        return entry
    if "error_detail" in entry:
        entry = {**entry, "error_detail": _traceback(entry["error_detail"])}
    more = [
        f"{name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in entry.items()
        if name not in _LOG_NOISE and value is not None
    ]
    head = [str(entry[name]) for name in ("timestamp", "level", "event") if entry.get(name) is not None]
    return " ".join([*head, *more])


def _traceback(errors: list[dict[str, Any]]) -> str:
    """Return the exceptions of a log record as Python prints them, without source lines."""
    lines = []
    for error in errors:
        lines += [f'  File "{f["filename"]}", line {f["lineno"]}, in {f["name"]}' for f in error["frames"]]
        lines.append(f"{error['exc_type']}: {error['exc_value']}")
    return "\n" + "\n".join(lines)


def _airflow_version(python_bin: Path) -> tuple[int, int]:
    code = "from importlib.metadata import version; print(version('apache-airflow'))"
    command = [str(python_bin / "python"), "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RigError(f"no Airflow in {python_bin}:\n{done.stderr}")
    major, minor = done.stdout.split(".")[:2]
    return int(major), int(minor)


def _inherited(python_bin: Path) -> dict[str, str]:
    """This process's environment without its Airflow settings, with the chosen Airflow first on PATH."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
    for name in ("VIRTUAL_ENV", "PYTHONHOME", "PYTHONPATH", "PYTHONWARNINGS"):
        kept.pop(name, None)
    return {**kept, "PATH": f"{python_bin}{os.pathsep}{kept.get('PATH', os.defpath)}", "PYTHONUNBUFFERED": "1"}
