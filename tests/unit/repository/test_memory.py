"""How much memory a task takes for a large output: measured in a process of its own, which ends as a task does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from airflow_skyvern.testing.serving import serve_in_thread

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]


@contextmanager
def serving(answer: bytes) -> Iterator[int]:
    """Answer every GET with these bytes; yields the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    serve_in_thread(server)
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def rows() -> list[dict[str, Any]]:
    text = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et. "
    return [{"row": number, "vendor": f"ACME {number}", "text": f"{number} {text}"} for number in range(150_000)]


@pytest.mark.parametrize(("output", "most"), [(lambda: "word " * 5_000_000, 4.5), (rows, 5.5)], ids=["text", "rows"])
def test_a_large_output_takes_a_few_times_its_size(output: Callable[[], Any], most: float, tmp_path: Path) -> None:
    answer = json.dumps({"run_id": "wr_1", "status": "completed", "output": {"b_output": output()}}).encode()
    with serving(answer) as port:
        done = subprocess.run(
            [sys.executable, "-m", "tests.support.take_output", str(port), f"{tmp_path}/output.json"],
            cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=300, check=True,
        )  # fmt: skip
    found = re.search(r"peak: (\d+)", done.stderr)
    assert found is not None
    assert int(found[1]) * 1024 < most * len(answer)
    assert json.loads((tmp_path / "output.json").read_bytes()).keys() == {"b_output"}
