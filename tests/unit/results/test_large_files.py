"""A large file and the process that stores it: how much memory that takes, and what a kill leaves of the file."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random

import pytest

from airflow_skyvern.testing.serving import serve_in_thread

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
PIECE = Random(7).randbytes(2**20 + 1)
"""What files are made of; its length is no multiple of any buffer."""


class Skyvern(ThreadingHTTPServer):
    """Has runs with one file each, whose name says of how many pieces it is; can stop in the middle of a file."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.stops = False
        self.ends = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    server: Skyvern

    def do_GET(self) -> None:
        pieces = int(re.findall(r"\d+", self.path)[-1])
        if self.path.endswith("/content"):
            self._send_file(pieces)
            return
        checksum = hashlib.sha256()
        for _ in range(pieces):
            checksum.update(PIECE)
        file = {"filename": "x.pdf", "file_size": pieces * len(PIECE), "artifact_id": f"a_{pieces}", "url": ""}
        run = {"run_id": f"wr_{pieces}", "status": "completed"}
        body = json.dumps({**run, "downloaded_files": [{**file, "checksum": checksum.hexdigest()}]}).encode()
        self._send_head(len(body))
        self.wfile.write(body)

    def _send_file(self, pieces: int) -> None:
        self._send_head(pieces * len(PIECE))
        for number in range(pieces):
            if self.server.stops and number == pieces // 2:
                self.server.ends.wait()
                return
            self.wfile.write(PIECE)

    def _send_head(self, length: int) -> None:
        self.send_response(200)
        self.send_header("content-length", str(length))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def skyvern(monkeypatch: pytest.MonkeyPatch) -> Iterator[Skyvern]:
    server = Skyvern()
    serve_in_thread(server)
    given = {"conn_type": "skyvern", "host": f"http://127.0.0.1:{server.server_port}", "password": "made-up-key"}
    monkeypatch.setenv("AIRFLOW_CONN_SKYVERN_DEFAULT", json.dumps(given))
    yield server
    server.ends.set()
    server.shutdown()
    server.server_close()


@contextmanager
def storing(folder: Path, *run_ids: str) -> Iterator[subprocess.Popen[str]]:
    """Store the files of runs in a process of their own."""
    command = [sys.executable, "-m", "tests.support.store_files", str(folder), *run_ids]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def store(folder: Path, *run_ids: str) -> str:
    """Store the files of runs, and return what the process said."""
    with storing(folder, *run_ids) as process:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    return said


def wait_for_half(folder: Path, size: int) -> None:
    """Wait until a temporary file has this size, but for what is still in a buffer."""
    until = time.monotonic() + 120
    while not any(path.stat().st_size > size - 2**18 for path in folder.glob(".skyvern-*.part")):
        assert time.monotonic() < until
        time.sleep(0.05)


def test_200_mb_pass_while_the_process_grows_by_less_than_32_mb(skyvern: Skyvern, tmp_path: Path) -> None:
    found = re.search(r"grown: (\d+) KiB", store(tmp_path, "wr_1", "wr_200"))
    assert found is not None
    assert 0 < int(found[1]) < 32 * 1024
    assert (tmp_path / "wr_200.pdf").read_bytes() == PIECE * 200


def test_a_process_that_is_killed_inside_a_file_of_200_mb_leaves_none_and_the_next_one_a_whole_one(
    skyvern: Skyvern, tmp_path: Path
) -> None:
    skyvern.stops = True
    with storing(tmp_path, "wr_200") as process:
        wait_for_half(tmp_path, 100 * len(PIECE))
        process.kill()
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]
    assert process.returncode == -9
    skyvern.stops = False
    store(tmp_path, "wr_200")
    assert [path.name for path in tmp_path.iterdir()] == ["wr_200.pdf"]
    assert (tmp_path / "wr_200.pdf").read_bytes() == PIECE * 200
