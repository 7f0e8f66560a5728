"""
``make bench RIG=pages``: fifty viewers of one running run, on a real API server of Airflow.

Measures how many requests a second reach Skyvern, how long the page takes, and what Airflow's own API takes then,
compared with nobody looking. Skyvern is the fake, which answers at once. Fails if viewers cost Skyvern more than two
requests a second, or Airflow's API more than twice as long (median) in the middle one of three rounds.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx

from airflow_skyvern.testing.fake.records import Media
from airflow_skyvern.testing.fake.skyvern import API_KEY, FakeSkyvern
from airflow_skyvern.testing.serving import serve_in_thread
from dev.airflow_server import AirflowServer
from dev.process import start_and_wait, stop_all

VIEWERS, REFRESH, SECONDS, ROUNDS = 50, 5.0, 20.0, 3
MOST_REQUESTS_PER_SECOND = 2.0
SLOWDOWN = 2.0
PAGE = "/skyvern/ti/d/r/t/{MAP_INDEX}"
PICTURE = re.compile(r'<img[^>]* src="([^"]+/pictures/[^"]+)"')
PNG = b"\x89PNG\r\n\x1a\n" + bytes(60_000)

STORE_TASK = """
import sys, uuid
import sqlalchemy as sa
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
with create_session() as session:
    session.add(DagBundleModel(name="b"))
    session.flush()
    session.add(DagModel(dag_id="d", bundle_name="b", fileloc="f", has_task_concurrency_limits=False))
    session.flush()
    run = DagRun(dag_id="d", run_id="r", run_type="manual")
    session.add(run)
    session.flush()
    ids = dict(dag_id="d", run_id="r", task_id="t", map_index=-1)
    kind = TaskInstance.__table__.c.id.type.python_type
    session.execute(sa.insert(TaskInstance.__table__).values(
        id=kind(str(uuid.uuid4())), **ids, state="deferred", try_number=1, max_tries=0, pool="default_pool",
        pool_slots=1, queue="default", operator="SkyvernRunWorkflowOperator"))
    for key, value in (("run_id", sys.argv[1]),
                       ("connection_and_run_key", {"skyvern_conn_id": "skyvern_default", "group": None})):
        session.add(XComModel(dag_run_id=run.id, key=key, value=value, **ids))
"""


class Handler(BaseHTTPRequestHandler):
    """Answers as the fake does."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    fake: FakeSkyvern

    def do_GET(self) -> None:
        """Answer a request."""
        url = f"http://skyvern{self.path}"
        answer = self.fake.handle(httpx.Request(self.command, url, headers=list(self.headers.items())))
        self.send_response(answer.status_code)
        self.send_header("content-type", answer.headers.get("content-type", ""))
        self.send_header("content-length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


def percentiles(times: list[float]) -> tuple[float, float]:
    """Return the median and the 95th percentile, in milliseconds."""
    ordered = sorted(times)
    return 1000 * statistics.median(ordered), 1000 * ordered[int(0.95 * (len(ordered) - 1))]


async def timed(client: httpx.AsyncClient, path: str) -> float:
    """Return how long a request takes."""
    began = time.perf_counter()
    (await client.get(path)).raise_for_status()
    return time.perf_counter() - began


async def view(client: httpx.AsyncClient, number: int, until: float) -> list[float]:
    """Look at the page as a browser does: refresh it, and load a picture that it has not loaded before."""
    times = []
    loaded: set[str] = set()
    await asyncio.sleep(REFRESH * number / VIEWERS)
    while time.monotonic() < until:
        began = time.perf_counter()
        page = (await client.get(PAGE)).raise_for_status().text
        times.append(time.perf_counter() - began)
        for picture in set(PICTURE.findall(page)) - loaded:
            (await client.get(picture)).raise_for_status()
            loaded.add(picture)
        await asyncio.sleep(REFRESH)
    assert loaded or not times
    return times


async def probe(client: httpx.AsyncClient, until: float) -> list[float]:
    """Use Airflow's own API."""
    times = []
    while time.monotonic() < until:
        times.append(await timed(client, "/api/v2/dags?limit=10"))
        await asyncio.sleep(0.1)
    return times


async def measure(ui_url: str, token: str, viewers: int) -> tuple[list[float], list[float]]:
    """Return what the page and Airflow's API took."""
    options: dict[str, Any] = {"base_url": ui_url, "timeout": 30, "trust_env": False}
    headers = {"authorization": f"Bearer {token}", "accept": "text/html"}
    async with (
        httpx.AsyncClient(**options, headers=headers, limits=httpx.Limits(max_connections=100)) as browsers,
        httpx.AsyncClient(**options, headers=headers | {"accept": "application/json"}) as api,
    ):
        for client, path in ((browsers, PAGE), (api, "/api/v2/dags?limit=10")):
            await timed(client, path)
        until = time.monotonic() + SECONDS
        seen, *pages = await asyncio.gather(
            probe(api, until), *(view(browsers, number, until) for number in range(viewers))
        )
    return [taken for page in pages for taken in page], seen


@dataclass(frozen=True)
class Round:
    """Airflow's API with nobody looking, then with all viewers, in seconds per answer."""

    alone: list[float]
    beside: list[float]
    pages: list[float]
    requests: int

    @property
    def slowdown(self) -> float:
        """How much longer Airflow's API takes."""
        return statistics.median(self.beside) / statistics.median(self.alone)


def one_round(fake: FakeSkyvern, airflow: AirflowServer) -> Round:
    """Measure both, one right after the other: other programs come and go."""
    assert airflow.token is not None
    _, alone = asyncio.run(measure(airflow.ui_url, airflow.token, 0))
    before = len(fake.requests)
    pages, beside = asyncio.run(measure(airflow.ui_url, airflow.token, VIEWERS))
    return Round(alone, beside, pages, len(fake.requests) - before)


def report(fake: FakeSkyvern, airflow: AirflowServer) -> bool:
    """Measure and print; return whether all is as it should be."""
    rounds = [one_round(fake, airflow) for _ in range(ROUNDS)]
    middle = sorted(rounds, key=lambda each: each.slowdown)[ROUNDS // 2]
    per_second = max(each.requests for each in rounds) / SECONDS
    slowdowns = ", ".join(f"{each.slowdown:.2f}" for each in rounds)
    print(f"{VIEWERS} viewers, {len(middle.pages)} pages in {SECONDS:.0f} s, load average {os.getloadavg()[0]:.1f}")
    print(f"requests to Skyvern: at most {per_second:.2f} a second")
    for name, times in (
        ("page", middle.pages),
        ("Airflow's API, nobody looking", middle.alone),
        ("Airflow's API meanwhile", middle.beside),
    ):
        print("{}: median {:.1f} ms, 95 % {:.1f} ms".format(name, *percentiles(times)))
    print(f"Airflow's API takes {middle.slowdown:.2f} times as long (rounds: {slowdowns})")
    return per_second <= MOST_REQUESTS_PER_SECOND and middle.slowdown <= SLOWDOWN


def main() -> int:
    """Start the API server, and measure."""
    fake = FakeSkyvern()
    run_id = fake.run(
        plan=({"status": "running", "blocks": 1},),
        blocks=[
            {"label": "sign_in", "block_type": "navigation", "actions": [{"action_type": "click", "screenshot": 0}]}
        ],
        media=[Media("screenshot_action", PNG, label="sign_in")],
    )
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("_Handler", (Handler,), {"fake": fake}))
    serve_in_thread(server)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        host = f"http://127.0.0.1:{server.server_port}"
        connection = json.dumps({"conn_type": "skyvern", "host": host, "password": API_KEY})
        (Path(folder) / "dags").mkdir()
        airflow = AirflowServer(
            Path(folder) / "airflow", Path(folder) / "dags", {"AIRFLOW_CONN_SKYVERN_DEFAULT": connection}
        )
        airflow.cli("db", "migrate", timeout=400)
        airflow.python(STORE_TASK, run_id)
        process = airflow.processes["api-server"]
        start_and_wait([process], lambda: has_token(airflow), 200)
        try:
            return 0 if report(fake, airflow) else 1
        finally:
            stop_all([process], seconds=5)
            server.shutdown()


def has_token(airflow: AirflowServer) -> bool:
    """Sign in, once the API server answers."""
    try:
        answer = httpx.get(f"{airflow.ui_url}/auth/token", trust_env=False, timeout=5)
    except httpx.HTTPError:
        return False
    if answer.is_success:
        airflow.token = str(answer.json()["access_token"])
    return answer.is_success


if __name__ == "__main__":
    sys.exit(main())
