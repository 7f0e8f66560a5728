"""
``make bench RIG=files``: storing the files of a run in a folder, beside curl and beside a naive get-and-write.

Each contender is a process of its own, and all read from the same server, round by round. Prints MB/s and how much
memory each takes for it. This package compares what arrives with the checksum that Skyvern lists and flushes it to
the disk, which curl does not: a row has ``curl && sync && sha256sum`` for that. Fails if a large file takes more than
1.3 times as long as with these three.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from airflow_skyvern.results.run_files import AT_ONCE
from dev.memory import memory_kib

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
KEY = "made-up-key"
CASES = {1: 200, 10: 20, 100: 2}
"""The number of files of a run, and the megabytes of each."""

SMALL = 3
"""The number of files of the run that each contender stores before it is measured, so that all is loaded."""

LABELS = {
    "curl": "`curl`",
    "checked": "`curl && sync && sha256sum`",
    "ours": "this package",
    "naive": "get and write",
}
ROUNDS = int(os.environ.get("ROUNDS") or 5)
MOST_TIMES_CURL = 1.3
MB = 10**6


class Server(ThreadingHTTPServer):
    """Answers as Skyvern does, for one run per case; the files come from the disk by ``sendfile``."""

    daemon_threads = True
    request_queue_size = 200

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[int, Path] = {}
        self.runs: dict[int, bytes] = {}
        for count, size in {SMALL: 1000, **{count: megabytes * MB for count, megabytes in CASES.items()}}.items():
            self.files[count] = folder / str(size)
            content = os.urandom(size)
            self.files[count].write_bytes(content)
            self.runs[count] = json.dumps(run(count, len(content), hashlib.sha256(content).hexdigest())).encode()


def run(count: int, size: int, checksum: str) -> dict[str, Any]:
    """Return a run as Skyvern describes it, with its files."""
    files = [
        {"filename": f"{number}.pdf", "artifact_id": f"a_{count}_{number}", "url": "", "file_size": size}
        for number in range(count)
    ]
    return {
        "run_id": f"wr_{count}",
        "status": "completed",
        "downloaded_files": [{**file, "checksum": checksum} for file in files],
    }


class Handler(BaseHTTPRequestHandler):
    """Sends runs and files."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        """Answer a request."""
        count = int(re.findall(r"\d+", self.path.removeprefix("/v1"))[0])
        if not self.path.endswith("/content"):
            self._send_head(len(self.server.runs[count]))
            self.wfile.write(self.server.runs[count])
            return
        with self.server.files[count].open("rb") as file:
            self._send_head(self.server.files[count].stat().st_size)
            self.wfile.flush()
            self.connection.sendfile(file)

    def _send_head(self, size: int) -> None:
        self.send_response(200)
        self.send_header("content-length", str(size))
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serve(folder: str) -> None:
    """Print the port, and serve until killed."""
    server = Server(Path(folder))
    print(server.server_port, flush=True)
    server.serve_forever()


# --- the contenders: each writes the files of a run into a folder, in a process of its own ----------------------


def contents(url: str, count: int) -> list[str]:
    """Return the addresses of the files of a run."""
    return [f"{url}/v1/artifacts/a_{count}_{number}/content" for number in range(count)]


def ours(url: str, count: int, folder: Path) -> None:
    """Store them as a task does."""
    os.environ["AIRFLOW_CONN_SKYVERN_DEFAULT"] = json.dumps({"conn_type": "skyvern", "host": url, "password": KEY})
    from airflow_skyvern.operators import SkyvernDownloadFilesOperator

    class TaskInstance:
        """What the operator needs of one."""

        dag_id, run_id, task_id, map_index, try_number, max_tries = "d", "r", "t", -1, 1, 0

        def xcom_push(self, key: str, value: Any) -> None:
            """Forget it."""

        def xcom_pull(self, **_: Any) -> None:
            """Return nothing."""

    context: Any = {"ti": TaskInstance(), "task_instance": TaskInstance()}
    task = SkyvernDownloadFilesOperator(task_id="t", run_id=f"wr_{count}", files_to=str(folder))
    assert len(task.execute(context)) == count


def naive(url: str, count: int, folder: Path) -> None:
    """Get and write, one after the other."""
    with httpx.Client(headers={"x-api-key": KEY}, trust_env=False) as client:
        for number, content in enumerate(contents(url, count)):
            (folder / f"{number}.pdf").write_bytes(client.get(content).raise_for_status().content)


def work(name: str, url: str, count: str, folder: str) -> None:
    """Be a contender: store a run of small files, by which all is loaded, then the run; print what that took."""
    store = {"ours": ours, "naive": naive}[name]
    with tempfile.TemporaryDirectory(prefix="bench-files-") as warm:
        store(url, SMALL, Path(warm))
    before, began = memory_kib("VmHWM"), time.perf_counter()
    store(url, int(count), Path(folder))
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "kib": memory_kib("VmHWM") - before}))


# --- one round ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What a contender took for the files of a run."""

    seconds: float
    kib: int


def in_python(name: str, url: str, count: int, folder: Path) -> Result:
    """Let a contender that is written in Python store the files."""
    command = [sys.executable, "-m", "benchmarks.files", name, url, str(count), str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr}")
    return Result(**json.loads(done.stdout.splitlines()[-1]))


def with_curl(url: str, count: int, folder: Path) -> Result:
    """Let curl write as many at once as this package does."""
    options = ["--no-progress-meter", "--fail", "--parallel", "--parallel-max", str(AT_ONCE)]
    targets = [
        part
        for number, content in enumerate(contents(url, count))
        for part in ("--output", str(folder / f"{number}.pdf"), content)
    ]
    highest, began = 0, time.perf_counter()
    with subprocess.Popen(["curl", *options, "--header", f"x-api-key: {KEY}", *targets]) as process:
        while process.poll() is None:
            highest = max(highest, memory_kib("VmHWM", process.pid))
            time.sleep(0.002)
        seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(f"curl: exit status {process.returncode}")
    return Result(seconds, highest)


def checked(fetched: Result, folder: Path) -> Result:
    """Add to what curl has done what it lacks: the files are on the disk, and their checksums are known."""
    files, began = [str(path) for path in folder.iterdir()], time.perf_counter()
    for command in ("sync", "sha256sum"):
        subprocess.run([command, *files], stdout=subprocess.DEVNULL, check=True)
    return Result(fetched.seconds + time.perf_counter() - began, fetched.kib)


def rounds(url: str, count: int) -> Iterator[dict[str, Result]]:
    """Let all contenders store the files of one run, ROUNDS times."""
    for _ in range(ROUNDS):
        found: dict[str, Result] = {}
        with stored_files(count) as folder:
            found["curl"] = with_curl(url, count, folder)
            found["checked"] = checked(found["curl"], folder)
        for name in ("ours", "naive"):
            with stored_files(count) as folder:
                found[name] = in_python(name, url, count, folder)
        yield found


@contextmanager
def stored_files(count: int) -> Iterator[Path]:
    """Make a folder for the files of a run, and check that they have all come."""
    with tempfile.TemporaryDirectory(prefix="bench-files-") as folder:
        yield Path(folder)
        assert [file.stat().st_size for file in Path(folder).iterdir()] == [CASES[count] * MB] * count


def report(url: str) -> bool:
    """Measure and print a table; return whether large files are as fast as they should be."""
    print(f"{os.cpu_count()} processors, Python {platform.python_version()}; medians of {ROUNDS} rounds\n")
    print("| files of a run | | MB/s | times curl's seconds | memory for it |")
    print("|---|---|---|---|---|")
    good = True
    for count, megabytes in CASES.items():
        found = list(rounds(url, count))
        times = {name: statistics.median(each[name].seconds for each in found) for name in found[0]}
        ratio = statistics.median(each["ours"].seconds / each["checked"].seconds for each in found)
        for name, label in LABELS.items():
            memory = max(each[name].kib for each in found) / 1024
            slower = statistics.median(each[name].seconds / each["curl"].seconds for each in found)
            rate = count * megabytes / times[name]
            print(f"| {count} of {megabytes} MB | {label} | {rate:.0f} | {slower:.2f} | {memory:.0f} MiB |")
        good = good and (count > 1 or ratio <= MOST_TIMES_CURL)
    return good


def main() -> int:
    """Start the server, and measure."""
    if shutil.which("curl") is None:
        raise SystemExit("no curl: apt-get install curl")
    with tempfile.TemporaryDirectory(prefix="bench-files-") as folder:
        command = [sys.executable, "-m", "benchmarks.files", "serve", folder]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                good = report(f"http://127.0.0.1:{int(server.stdout.readline())}")
            finally:
                server.kill()
    if not good:
        print(
            f"a large file takes more than {MOST_TIMES_CURL} times as long as with curl and checks", file=sys.stderr
        )
    return 0 if good else 1


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2])
    elif sys.argv[1:]:
        work(*sys.argv[1:])
    else:
        sys.exit(main())
