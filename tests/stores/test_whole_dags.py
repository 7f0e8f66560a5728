"""DAGs on a real Airflow, with a real Skyvern, S3 and PostgreSQL: cut transfers, a second time, a killed worker."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import psutil
import psycopg2
import pytest

from dev.airflow_server import AirflowServer
from dev.browser.site import size_in_bytes
from dev.postgres import PostgresServer
from tests.stores.conftest import BUCKET, HUGE, Rig, expected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dev.fault_proxy import Exchange

DAGS = Path(__file__).parent / "dags" / "vendors.py"
VENDORS = [f"Vendor {number}" for number in range(1, 21)]
SOON = {
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
}
"""When the scheduler notices that a worker is gone, in seconds."""


@pytest.fixture(scope="module")
def warehouse() -> Iterator[str]:
    with PostgresServer() as postgres:
        yield postgres.uri("postgres")


@pytest.fixture(scope="module")
def airflow(session_rig: Rig, warehouse: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AirflowServer]:
    env = {**session_rig.connections, "AIRFLOW_CONN_WAREHOUSE": warehouse, **SOON}
    with (
        PostgresServer() as postgres,
        AirflowServer(tmp_path_factory.mktemp("airflow"), [DAGS], env, postgres=postgres) as server,
    ):
        yield server


def skyvern_runs(rig: Rig) -> set[str]:
    return {run["workflow_run_id"] for run in rig.skyvern.runs_of(rig.skyvern.workflow("vendor"))}


def in_table(warehouse: str) -> set[tuple[str, int]]:
    """Each vendor and its number of rows."""
    connection = psycopg2.connect(warehouse)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT vendor, count(*) FROM statements GROUP BY vendor")
        found = set(cursor.fetchall())
    connection.close()
    return found


def test_twenty_runs_store_their_files_and_rows_once_though_transfers_are_cut(
    rig: Rig, airflow: AirflowServer, warehouse: str
) -> None:
    before, asked, not_whole = skyvern_runs(rig), rig.transfers, set[str]()
    cut: list[str] = []

    async def cut_every_third(exchange: Exchange) -> None:
        answer = await exchange.forward()
        not_whole.update(
            name for name, size in rig.s3.objects(BUCKET, "vendors/").items() if size != size_in_bytes("300KB")
        )
        if (rig.transfers - asked) % 3 == 0:
            cut.append(exchange.target)
            await exchange.half(answer)

    rig.on_content = cut_every_third
    conf = {"workflow_id": rig.skyvern.workflow("vendor"), "vendors": VENDORS}
    run_id = airflow.trigger("twenty_vendors", conf)
    assert airflow.wait_run("twenty_vendors", run_id, 600) == "success"

    transfers = rig.transfers - asked
    print(f"20 runs: {transfers} transfers, {len(cut)} of them cut")
    assert len(cut) >= 6
    assert len(skyvern_runs(rig) - before) == len(VENDORS)
    assert not not_whole
    wanted = {f"vendors/{name}.pdf": expected(name, "300KB") for name in VENDORS}
    assert {name: rig.checksum(name) for name in rig.s3.objects(BUCKET, "vendors/")} == wanted
    assert rig.s3.uploads(BUCKET, "vendors/") == []
    rows = {(name, len(name)) for name in VENDORS}
    assert in_table(warehouse) == rows
    total = sum(count for _, count in rows)
    assert airflow.xcom("twenty_vendors", run_id, "summary") == {"vendors": 20, "rows": total}

    asked, again = rig.transfers, airflow.trigger("twenty_vendors", conf)
    assert airflow.wait_run("twenty_vendors", again, 600) == "success"
    print(f"20 more runs into the same folder: {rig.transfers - asked} transfers")
    assert rig.transfers == asked
    assert len(skyvern_runs(rig) - before) == 2 * len(VENDORS)
    assert in_table(warehouse) == rows


def kill_worker(airflow: AirflowServer, port: int | None) -> int:
    """SIGKILL the process that talks to this port, a task's, and the worker above it; return how many there were."""
    scheduler = psutil.Process(airflow.processes["scheduler"].pid)
    victims: list[psutil.Process] = []
    for process in scheduler.children(recursive=True):
        with suppress(psutil.Error):
            if any(peer.raddr[1:] == (port,) for peer in process.net_connections("tcp")):
                victims += [process, *(above for above in process.parents() if above in scheduler.children())]
    for process in victims:
        process.kill()
    return len(victims)


def test_a_worker_that_is_killed_inside_200_mb_leaves_one_whole_file_of_one_run(
    rig: Rig, airflow: AirflowServer
) -> None:
    before, half_sent, killed = skyvern_runs(rig), threading.Event(), threading.Event()
    asked: list[Any] = []

    async def stop_in_the_middle(exchange: Exchange) -> None:
        asked.append(exchange.headers.get("range"))
        if len(asked) == 1:
            await exchange.half(await exchange.forward())
            half_sent.set()
            await asyncio.to_thread(killed.wait, 60)

    rig.on_content = stop_in_the_middle
    run_id = airflow.trigger("large_file", {"workflow_id": rig.skyvern.workflow("vendor")})
    try:
        assert half_sent.wait(180)
        assert rig.s3.objects(BUCKET, "killed-worker/") == {}
        victims = kill_worker(airflow, urlsplit(rig.proxy.url).port)
        assert rig.s3.objects(BUCKET, "killed-worker/") == {}
    finally:
        killed.set()
    print(f"killed {victims} processes after {size_in_bytes(HUGE) // 2:,} bytes")
    assert victims >= 2
    assert airflow.wait_run("large_file", run_id, 300) == "success"
    assert airflow.task("large_file", run_id, "fetch")["try_number"] == 2
    assert len(skyvern_runs(rig) - before) == 1
    assert rig.s3.objects(BUCKET, "killed-worker/") == {"killed-worker/statement.pdf": size_in_bytes(HUGE)}
    assert rig.checksum("killed-worker/statement.pdf") == expected("Killed", HUGE)
