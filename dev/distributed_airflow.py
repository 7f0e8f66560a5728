"""
A real Airflow 3 as it runs on several machines: CeleryExecutor, Redis, PostgreSQL, and two of every component.

Each component is a process of its own with an address of its own (127.0.0.11, .12, ...) as its host name; they share
a folder for logs, as by a volume. The API servers are behind a load balancer; workers reach them only there.
Everything listens on loopback.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import tenacity

from dev.airflow_server import DATABASE, AirflowServer
from dev.balancer import Balancer
from dev.process import Process, free_port

if TYPE_CHECKING:
    from typing_extensions import Self

    from dev.postgres import PostgresServer
    from dev.redis_server import RedisServer

QUEUE = "skyvern"
"""The dedicated queue, which only the last worker has."""

FIRST_HOST = 11
PATIENTLY = tenacity.Retrying(
    retry=tenacity.retry_if_exception_type(httpx.TransportError),
    wait=tenacity.wait_fixed(1),
    stop=tenacity.stop_after_attempt(120),
    reraise=True,
)
"""For a request of the rig's own: a server may just have died."""

_HOSTNAME = """import os


def get() -> str:
    return os.environ["RIG_HOST"]
"""


class DistributedAirflow(AirflowServer):
    """
    Start with `with DistributedAirflow(home, dags, redis=redis, postgres=postgres) as airflow:`.

    :param concurrency: How many tasks each worker runs at a time.
    """

    start_seconds = 600.0

    def __init__(
        self,
        home: Path,
        dags: Path | Iterable[Path],
        env: Mapping[str, str] | None = None,
        python_bin: Path | None = None,
        *,
        redis: RedisServer,
        postgres: PostgresServer,
        concurrency: int = 6,
    ) -> None:
        self.redis = redis
        self.schedulers = ("scheduler", "scheduler-2")
        self.workers = {"worker": "default", "worker-2": f"default,{QUEUE}"}
        self.hosts: dict[str, str] = {}
        self.api_servers = {
            name: (f"127.0.0.{FIRST_HOST + place}", free_port())
            for place, name in enumerate(("api-server", "api-server-2"))
        }
        self._turns = itertools.cycle(self.api_servers)
        self._concurrency = concurrency
        (home / "path").mkdir(parents=True, exist_ok=True)
        (home / "path" / "rig_hostname.py").write_text(_HOSTNAME)
        path = [str(home.absolute() / "path"), *filter(None, [(env or {}).get("PYTHONPATH")])]
        env = {**(env or {}), "PYTHONPATH": os.pathsep.join(path)}
        super().__init__(home, dags, env, python_bin, postgres=postgres, triggerers=2)
        self.balancer = Balancer(self.port, self.api_servers)

    # --- configuration -----------------------------------------------------------------------------------

    def _settings(self) -> dict[str, str]:
        assert self.postgres is not None
        options = {
            "CORE__EXECUTOR": "CeleryExecutor",
            "CORE__HOSTNAME_CALLABLE": "rig_hostname.get",
            "CELERY__BROKER_URL": self.redis.url,
            "CELERY__RESULT_BACKEND": f"db+{self.postgres.url(DATABASE)}",
            "CELERY__WORKER_CONCURRENCY": str(self._concurrency),
        }
        named = {f"AIRFLOW__{name}": value for name, value in options.items()}
        return {**super()._settings(), **named, "RIG_HOST": "127.0.0.1"}

    def _commands(self) -> dict[str, list[str]]:
        worker = ["celery", "worker", "--skip-serve-logs", "--without-mingle", "--without-gossip"]
        return {
            **{
                name: ["api-server", "--host", host, "--port", str(port), "--workers", "1"]
                for name, (host, port) in self.api_servers.items()
            },
            **{name: ["scheduler", "--skip-serve-logs"] for name in self.schedulers},
            **{name: ["triggerer", "--skip-serve-logs"] for name in self.triggerers},
            **{name: [*worker, "-H", name, "-q", queues] for name, queues in self.workers.items()},
            "dag-processor": ["dag-processor"],
        }

    def _process(self, name: str, arguments: list[str]) -> Process:
        process = super()._process(name, arguments)
        process.env["RIG_HOST"] = self.hosts[name] = f"127.0.0.{FIRST_HOST + len(self.hosts)}"
        return process

    # --- start and stop ----------------------------------------------------------------------------------

    def start(self) -> Self:
        self.balancer.__enter__()
        return super().start()

    def stop(self) -> None:
        super().stop()
        self.balancer.__exit__()

    def _healthy(self) -> bool:
        return super()._healthy() and not self.missing()

    def missing(self) -> set[str]:
        """Return the components that have not been heard of lately."""
        alive = self._alive("SchedulerJob") | self._alive("TriggererJob")
        heard = {name for name, host in self.hosts.items() if host in alive} | self._answering()
        return {*self.schedulers, *self.triggerers, *self.workers} - heard

    def _alive(self, job_type: str) -> set[str]:
        """Return the hosts of the schedulers or triggerers that have sent a heartbeat of late."""
        found = self.request("GET", "/jobs", params={"job_type": job_type, "is_alive": True})
        return {row["hostname"] for row in found.json()["jobs"]} if found.is_success else set()

    def _answering(self) -> set[str]:
        """Return the workers that answer a ping through Redis."""
        from celery import Celery

        with Celery(broker=self.redis.url) as app, app.connection_for_write() as connection:
            # Not one of Celery's pool, which keeps dead ones when Redis has been restarted.
            answers = app.control.ping(timeout=2, connection=connection)
            return {name.removeprefix("celery@") for answer in answers for name in answer}

    def request(self, method: str, path: str, json: Any = None, **options: Any) -> httpx.Response:
        """Call the REST API, again where a server has died with the connection."""
        return PATIENTLY(super().request, method, path, json, **options)

    # --- one of several ----------------------------------------------------------------------------------

    @property
    def worker_marks(self) -> set[str]:
        """What the processes of tasks carry in their environment."""
        return {self.processes[name].mark for name in self.workers}

    def for_a_user(self) -> AirflowServer:
        return self.through(next(self._turns))

    def through(self, api_server: str) -> AirflowServer:
        """Return this Airflow as it is seen through one of its API servers, past the balancer."""
        host, port = self.api_servers[api_server]
        return self.at(f"http://{host}:{port}")
