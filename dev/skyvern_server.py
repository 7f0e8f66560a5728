"""A real Skyvern server on loopback, with SQLite or PostgreSQL; with `browser=True` with a Chromium that a scripted
model drives.

The blocks wait, http_request, terminate, conditional, for_loop and human_interaction need neither. It is
Skyvern's own app factory served by uvicorn on 127.0.0.1: `skyvern run server` would listen on all addresses.
"""

from __future__ import annotations

import os
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from dev.browser.chromium import browser_settings, require_chromium
from dev.browser.scripted_model import ScriptedModel
from dev.browser.site import Site
from dev.browser.workflows import browser_workflows
from dev.peer import Peer
from dev.process import Process, RigError, free_port, start_and_wait

if TYPE_CHECKING:
    from typing_extensions import Self

    from dev.postgres import PostgresServer

SKYVERN_VENV = Path(os.environ.get("SKYVERN_VENV") or Path(__file__).resolve().parent.parent / ".venvs" / "skyvern")
"""The environment that has Skyvern."""

START_SECONDS = 300.0
TITLE_PREFIX = "rig "

ECHOED_SECRET = "echoed-s3cr3t-W4rd"
"""What the workflow ``secret_http`` sends, and its output repeats."""

# email_validator would resolve the recipients of human_interaction blocks in the public DNS.
_SERVE = """
import sys, email_validator, uvicorn
email_validator.CHECK_DELIVERABILITY = False
uvicorn.run("skyvern.forge.api_app:create_api_app", factory=True, host="127.0.0.1", port=int(sys.argv[1]),
            loop="asyncio", access_log=False, timeout_graceful_shutdown=3, timeout_keep_alive=125)
"""

# The same, and first what the server does by itself where its database is SQLite: tables, an organization, a key.
# Without the index for searches in texts, whose extension the rig's PostgreSQL does not have.
_SERVE_ON_POSTGRES = """
import contextlib, sys, email_validator, uvicorn
email_validator.CHECK_DELIVERABILITY = False

def create():
    from skyvern.forge import api_app
    for table in api_app.Base.metadata.tables.values():
        table.indexes -= {index for index in table.indexes if "gin_trgm_ops" in str(dict(index.dialect_kwargs))}
    app = api_app.create_api_app()
    lifespan = app.router.lifespan_context

    @contextlib.asynccontextmanager
    async def prepared(app):
        await api_app._bootstrap_sqlite()
        async with lifespan(app) as state:
            yield state

    app.router.lifespan_context = prepared
    return app

uvicorn.run(create, factory=True, host="127.0.0.1", port=int(sys.argv[1]), loop="asyncio", access_log=False,
            timeout_graceful_shutdown=3, timeout_keep_alive=125)
"""
DATABASE = "skyvern"


def _parameter(key: str, kind: str, **more: Any) -> dict[str, Any]:
    return {"parameter_type": "workflow", "key": key, "workflow_parameter_type": kind, **more}


def _wait(seconds: int) -> dict[str, Any]:
    return {"block_type": "wait", "label": "pause", "wait_sec": seconds}


def _http(label: str, url: str, **more: Any) -> dict[str, Any]:
    return {"block_type": "http_request", "label": label, "method": "GET", "url": url, "timeout": 10, **more}


def _echo(label: str, peer: str, keys: list[str]) -> dict[str, Any]:
    body = {key: f"{{{{ {key} }}}}" for key in keys}
    return _http(label, f"{peer}/echo", method="POST", parameter_keys=keys, body=body)


def _loop(label: str, values: str, *blocks: dict[str, Any]) -> dict[str, Any]:
    each = {"loop_variable_reference": f"{{{{ {values} }}}}", "loop_over_parameter_key": ""}
    return {"block_type": "for_loop", "label": label, "loop_blocks": list(blocks), **each}


def _workflow(*blocks: dict[str, Any], parameters: tuple[dict[str, Any], ...] = (), **more: Any) -> dict[str, Any]:
    definition = {"parameters": list(parameters), "blocks": list(blocks), **more.pop("definition", {})}
    return {"workflow_definition": definition, **more}


def workflows(peer: str) -> dict[str, dict[str, Any]]:
    """Return every workflow of the rig by name, as Skyvern's API wants it; `peer` is the peer's address."""
    human = {
        "block_type": "human_interaction",
        "label": "ask",
        "recipients": ["a@example.com"],
        "sender": "skyvern@example.com",  # before 1.0.55 it has to be said
        "subject": "Invoice {{ invoice }}",
        "body": "Please decide.",
        "instructions": "May {{ invoice }} be paid?",
        "positive_descriptor": "Pay",
        "negative_descriptor": "Stop",
    }
    invoice = (_parameter("invoice", "string", default_value="INV-1"),)
    stop = {"block_type": "terminate", "label": "stop", "reason": "{{ why }}", "error_code": "STOPPED"}
    retry = {"max_retries": 1, "delay_seconds": 15, "retry_on": [{"status": "failed"}]}
    return {
        "ok_wait": _workflow(_wait(1)),
        "wait_5": _workflow(_wait(5)),
        "wait_30": _workflow(_wait(30)),
        "long_wait": _workflow(_wait(600), parameters=(_parameter("note", "string", default_value=""),)),
        "ok_http": _workflow(_http("fetch", f"{peer}/json")),
        "params_http": _workflow(
            _echo("echo", peer, ["name", "count", "flag", "ratio", "items"]),
            parameters=(
                _parameter("name", "string"),
                _parameter("count", "integer", default_value=3),
                _parameter("flag", "boolean", default_value=False),
                _parameter("ratio", "float", default_value=0.5),
                _parameter("items", "json", default_value=["a", "b"]),
            ),
        ),
        "invoices": _workflow(
            _echo("fetch_invoices", peer, ["vendor", "month"]),
            parameters=(_parameter("vendor", "string"), _parameter("month", "string")),
        ),
        "slow_http": _workflow(_http("fetch", f"{peer}/slow?s=5")),
        "fail_http": _workflow(_http("refused", f"{peer}/status/500")),
        "terminate": _workflow(_wait(1), stop, parameters=(_parameter("why", "string", default_value="not today"),)),
        "timeout_1min": _workflow(_wait(240), max_elapsed_time_minutes=1),
        "human": _workflow({**human, "timeout_seconds": 600}, parameters=invoice),
        "human_10s": _workflow({**human, "timeout_seconds": 10}, parameters=invoice),
        "retry_policy": _workflow(_http("refused", f"{peer}/status/500"), definition={"retry_policy": retry}),
        "loops": _workflow(
            _loop(
                "each_vendor",
                "vendors",
                _http("hello", f"{peer}/json"),
                _loop("each_month", "months", _http("fetch", f"{peer}/json")),
            ),
            parameters=(
                _parameter("vendors", "json", default_value=["ACME", "Oak"]),
                _parameter("months", "json", default_value=["10", "11"]),
            ),
        ),
        "big_output": _workflow(
            _http("fetch", f"{peer}/big?kb={{{{ kb }}}}", parameter_keys=["kb"]),
            parameters=(_parameter("kb", "integer", default_value=1000),),
        ),
        "file_out": _workflow(
            _http("fetch", f"{peer}/file", download_filename="report.txt", save_response_as_file=True)
        ),
        "vendor": _workflow(
            _http(
                "statement",
                f"{peer}/statement.pdf?vendor={{{{ vendor | urlencode }}}}&size={{{{ size }}}}",
                parameter_keys=["vendor", "size"],
                download_filename="statement.pdf",
                save_response_as_file=True,
                timeout=120,
            ),
            {
                "block_type": "file_url_parser",
                "label": "rows",
                "file_url": f"{peer}/rows.csv?vendor={{{{ vendor | urlencode }}}}",
                "file_type": "csv",
            },
            parameters=(
                _parameter("vendor", "string"),
                _parameter("month", "string", default_value=""),
                _parameter("size", "string", default_value="100KB"),
            ),
        ),
        "secret_http": _workflow(
            _http(
                "fetch",
                f"{peer}/json?token={ECHOED_SECRET}&page=2",
                headers={"Authorization": f"Bearer {ECHOED_SECRET}", "Cookie": f"sid={ECHOED_SECRET}"},
            )
        ),
        "csv_rows": _workflow(
            {"block_type": "file_url_parser", "label": "rows", "file_url": "{{ statement }}", "file_type": "csv"},
            parameters=(_parameter("statement", "file_url"),),
        ),
        "login_code": _workflow(
            {"block_type": "login", "label": "sign_in", "url": f"{peer}/json", "totp_identifier": "ops@example.com"}
        ),
        "webhook": _workflow(_wait(1), webhook_callback_url=f"{peer}/hook?from=workflow"),
        # The next one needs SkyvernServer(browser=True), as those of dev/browser/workflows.py do.
        "code": _workflow({"block_type": "code", "label": "compute", "code": "return {'total': sum(range(10))}"}),
    }


def version_in(venv: Path) -> str:
    """Return the version of the Skyvern in an environment; empty if it has none."""
    found = venv.glob("lib/python*/site-packages/skyvern-*.dist-info")
    return next((path.name.removeprefix("skyvern-").removesuffix(".dist-info") for path in found), "")


class SkyvernServer:
    """
    Start with `with SkyvernServer(data_dir, venv) as server:`; address and key survive `restart()`.

    With `browser=True` it also has a scripted model and a web site, see `dev.browser`. Run browser runs one at a
    time: SQLite locks, and two cores are busy with one.
    """

    def __init__(
        self, data_dir: Path, venv: Path, *, browser: bool = False, postgres: PostgresServer | None = None
    ) -> None:
        if not (venv / "bin" / "python").exists():
            raise RigError(f"no Skyvern environment in {venv}: run `make {venv}/.installed`, or set SKYVERN_VENV")
        data_dir.mkdir(parents=True, exist_ok=True)
        self.data_dir = data_dir.resolve()
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.log_path = self.data_dir / "skyvern.log"
        if browser:
            require_chromium()
        self.browser = browser
        self.postgres = postgres
        self.peer = Peer(self.data_dir)
        self.peer_url = self.peer.url
        self.model = ScriptedModel()
        self.site = Site()
        self.api_key = ""
        self._ids: dict[str, str] = {}
        self._lock = threading.Lock()
        self._client = httpx.Client(base_url=self.base_url, timeout=30, trust_env=False)
        python = str(venv.absolute() / "bin" / "python")
        env = {**_inherited(), **self._settings()}
        if browser:
            env |= browser_settings(python, self.data_dir, self.model.url)
        self.process = Process(
            "skyvern",
            [python, "-W", "ignore", "-c", _SERVE if postgres is None else _SERVE_ON_POSTGRES, str(self.port)],
            env=env,
            cwd=self.data_dir,
            log_path=self.log_path,
        )

    def _settings(self) -> dict[str, str]:
        data = self.data_dir
        return {
            "ENV": "local",
            "PORT": str(self.port),
            "SKYVERN_BASE_URL": self.base_url,
            "SKYVERN_ENV_FILE": str(data / "server.env"),  # the server writes its API key here on the first start
            "DATABASE_STRING": self._database(),
            "SECRET_KEY": "signing-key-of-a-test-server-on-loopback",
            "SKYVERN_TELEMETRY": "false",
            "OTEL_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "ALLOWED_HOSTS": '["127.0.0.1"]',  # before 1.0.56 no block and no webhook reaches the peer without it
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # or a price list is downloaded at import
            "BROWSER_TYPE": "chromium-headless",
            "BROWSER_STREAMING_MODE": "cdp",
            "SMTP_HOST": "127.0.0.1",
            "SMTP_PORT": str(self.peer.smtp_port),
            "SMTP_USERNAME": "u",
            "SMTP_PASSWORD": "p",
            "WORKFLOW_SCHEDULE_POLL_INTERVAL_SECONDS": "5",
            "ARTIFACT_STORAGE_PATH": str(data / "artifacts"),
            "VIDEO_PATH": str(data / "video"),
            "HAR_PATH": str(data / "har"),
            "LOG_PATH": str(data / "log"),
            "TEMP_PATH": str(data / "temp"),
            "DOWNLOAD_PATH": str(data / "downloads"),
            "LOCAL_CREDENTIAL_VAULT_PATH": str(data / "vault"),
        }

    def _database(self) -> str:
        if self.postgres is None:
            return f"sqlite+aiosqlite:///{self.data_dir / 'skyvern.db'}?timeout=60"
        return self.postgres.url(DATABASE, "psycopg")

    def __enter__(self) -> Self:
        for helper in self._helpers:
            helper.start()
        try:
            if self.postgres is not None:
                self.postgres.create(DATABASE)
            return self.start()
        except BaseException:
            self._stop_helpers()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._stop_helpers()
        self._client.close()

    @property
    def _helpers(self) -> tuple[Peer | ScriptedModel | Site, ...]:
        return (self.peer, self.model, self.site)

    def _stop_helpers(self) -> None:
        for helper in self._helpers:
            helper.stop()

    @property
    def pid(self) -> int:
        return self.process.pid

    def start(self) -> Self:
        """Start the server process and wait until it answers; its helpers run from __enter__ to __exit__."""
        start_and_wait([self.process], self._healthy, START_SECONDS)
        self.api_key = self._read_key()
        return self

    def stop(self) -> None:
        self.process.stop()

    def kill(self) -> None:
        """SIGKILL, as when the server's machine fails."""
        self.process.kill()

    def restart(self) -> None:
        self.stop()
        self.start()

    def _healthy(self) -> bool:
        try:
            return self._client.get("/v1/version", timeout=2).is_success
        except httpx.HTTPError:
            return False

    def _read_key(self) -> str:
        found = re.search(r"^SKYVERN_API_KEY='?([^'\n]+)", (self.data_dir / "server.env").read_text(), re.MULTILINE)
        if found is None:
            raise RigError(f"the Skyvern server wrote no API key; see {self.log_path}")
        return found.group(1)

    @property
    def connection(self) -> dict[str, Any]:
        """The Airflow connection to this server, as JSON has it."""
        return {"conn_type": "skyvern", "host": self.base_url, "password": self.api_key}

    def request(self, method: str, path: str, json: Any = None) -> tuple[int, Any]:
        """Send a request to the server directly; return (status, decoded body or text)."""
        response = self._client.request(method, path, json=json, headers={"x-api-key": self.api_key})
        try:
            return response.status_code, response.json()
        except ValueError:
            return response.status_code, response.text

    def runs_of(self, workflow_id: str) -> list[dict[str, Any]]:
        """Return the newest hundred runs of a workflow."""
        status, body = self.request("GET", f"/v1/workflows/{workflow_id}/runs?page_size=100")
        if status != httpx.codes.OK:
            raise RigError(f"Skyvern does not list the runs of {workflow_id}: {status} {body}")
        return list(body)

    def workflow(self, name: str) -> str:
        """Return the permanent id of a workflow of the rig, which the first call creates."""
        with self._lock:
            if name not in self._ids:
                known = {**workflows(self.peer_url), **(browser_workflows(self.site.url) if self.browser else {})}
                self._ids[name] = self.create_workflow(f"{TITLE_PREFIX}{name}", known[name])
            return self._ids[name]

    def create_workflow(self, title: str, definition: dict[str, Any]) -> str:
        """Create a workflow from a definition and return its permanent id."""
        status, body = self.request("POST", "/v1/agents", {"json_definition": {"title": title, **definition}})
        if status != httpx.codes.OK:
            raise RigError(f"Skyvern refused workflow {title!r}: {status} {body}")
        return str(body["workflow_permanent_id"])


def _inherited() -> dict[str, str]:
    """Return the basic variables only, none that would point to another database or a language model."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "TZ")
    return {name: os.environ[name] for name in kept if name in os.environ}
