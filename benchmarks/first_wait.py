"""
What the first wait costs a triggerer: from the import of our trigger to the end of a run, over TLS, in CPU seconds.

`python -m benchmarks.first_wait`. Each time in a new process that has imported what a triggerer imports anyway, and
does not collect garbage meanwhile: that takes up to 0.1 s, of whatever the triggerer holds, at any moment.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import os
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from airflow_skyvern.testing.serving import LoopbackServer
from dev.peer import write_certificate

REPO = Path(__file__).resolve().parent.parent
REPEAT = 7
CONNECTION = "skyvern_default"


class Answer(BaseHTTPRequestHandler):
    """Answers for each run that it is completed."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Say that the run is completed."""
        run_id = self.path.rpartition("/")[2]
        body = json.dumps({"run_id": run_id, "status": "completed", "created_at": "2026-11-30T10:00:00"}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


def wait_once() -> None:
    """Wait for a run; print the CPU seconds and the number of modules that it took."""
    for name in ("airflow.jobs.triggerer_job_runner", "airflow.providers.standard.triggers.temporal"):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    gc.disable()
    loaded, began = len(sys.modules), time.process_time()
    trigger = importlib.import_module("airflow_skyvern.triggers.run").SkyvernRunTrigger

    async def wait() -> None:
        async for event in trigger("wr_1", CONNECTION, 1.0, time.time() + 60).run():
            assert event.payload["status"] == "completed", event
            return

    asyncio.run(wait())
    print(json.dumps([time.process_time() - began, len(sys.modules) - loaded]))


def main() -> None:
    """Print the median and the fastest of several first waits."""
    with tempfile.TemporaryDirectory() as folder:
        certificate = Path(folder, "certificate.pem")
        write_certificate(certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server = LoopbackServer(Answer)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        host = f"https://127.0.0.1:{server.server_port}"
        compiled = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        env = compiled | {
            "AIRFLOW_HOME": str(Path(folder, "airflow")),
            "AIRFLOW_CONN_SKYVERN_DEFAULT": json.dumps({"conn_type": "skyvern", "host": host, "password": "a key"}),
            "SSL_CERT_FILE": str(certificate),
            "NO_PROXY": "*",
        }
        command = [sys.executable, "-c", "from benchmarks.first_wait import wait_once; wait_once()"]
        with server:
            outputs = [
                subprocess.run(command, check=True, capture_output=True, text=True, cwd=REPO, env=env).stdout
                for _ in range(REPEAT + 1)
            ][1:]  # the first one may compile
    found = [json.loads(output.splitlines()[-1]) for output in outputs]
    seconds = [one for one, _ in found]
    print(f"first wait: {statistics.median(seconds):.3f} CPU s (fastest {min(seconds):.3f}), {found[0][1]} modules")


if __name__ == "__main__":
    main()
