"""Child processes for the rig: each in its own process group, with a log file, ended for certain.

Every process carries a mark in its environment, by which its descendants are found again even if they left
the group (Airflow 2 puts tasks into groups of their own). If this Python process dies without cleaning up
(SIGKILL, a CI timeout), a small reaper process (this file, run as a script) notices the closed pipe and ends
all processes that are still registered, so that no server outlives the tests that started it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import IO, TYPE_CHECKING, ClassVar

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Self

STOP_SECONDS = 8.0
MARK = "RIG_PROCESS"


class RigError(Exception):
    """A server of the rig failed; the message names it and shows the end of its log."""


def marked(mark: str) -> list[int]:
    """Return the ids of the running processes that carry `mark` in their environment."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(MARK) == mark:
                found.append(process.pid)
    return found


def signal_marked(mark: str, number: signal.Signals = signal.SIGKILL) -> None:
    """Signal every process that carries `mark`."""
    for pid in marked(mark):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


class _Reaper:
    """The reaper process: started with the first process, it learns every mark that begins and ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipe: IO[str] | None = None

    def notify(self, sign: str, mark: str) -> None:
        with self._lock:
            if self._pipe is None:
                command = [sys.executable, __file__]
                child = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)
                self._pipe = child.stdin
            assert self._pipe is not None
            self._pipe.write(f"{sign}{mark}\n")
            self._pipe.flush()


_reaper = _Reaper()


def reap() -> None:
    """Read marks until the parent's end of the pipe closes, then end the processes that still carry one."""
    marks: set[str] = set()
    for line in sys.stdin:
        (marks.add if line[0] == "+" else marks.discard)(line[1:].strip())
    for mark in marks:
        signal_marked(mark, signal.SIGTERM)
    deadline = time.monotonic() + STOP_SECONDS / 2
    while any(marked(mark) for mark in marks) and time.monotonic() < deadline:
        time.sleep(0.2)
    for mark in marks:
        signal_marked(mark)


def free_port() -> int:
    """Return a loopback TCP port that is free right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(what: str, probe: Callable[[], bool], timeout: float, interval: float = 0.2) -> None:
    """Call `probe` until it returns true; RigError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not probe():
        if time.monotonic() > deadline:
            raise RigError(f"{what}: not within {timeout:.0f} s")
        time.sleep(interval)


class Process:
    """One server process (the leader of its own group) that can be stopped, killed and started again."""

    def __init__(
        self, name: str, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, log_path: Path
    ) -> None:
        self.name = name
        self.command = list(command)
        self.mark = uuid.uuid4().hex
        self.env = {**env, MARK: self.mark, "SPT_NOENV": "1"}  # setproctitle would write over the environment
        self.cwd = cwd
        self.log_path = log_path
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        if self._child is None:
            raise RigError(f"{self.name} is not started")
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        if self.running:
            raise RigError(f"{self.name} is already running")
        with self.log_path.open("ab") as log:
            self._child = subprocess.Popen(
                self.command,
                env=self.env,
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        _reaper.notify("+", self.mark)

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Send SIGTERM to the leader, and SIGKILL to what remains of the group after `seconds`."""
        self.terminate()
        self.join(seconds)

    def terminate(self) -> None:
        """SIGTERM to the leader, which ends its own children in order."""
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()

    def join(self, seconds: float = STOP_SECONDS) -> None:
        """Wait for the leader, then kill all descendants that remain."""
        if self._child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(seconds)
            self.kill()

    def kill(self) -> None:
        """SIGKILL to the process and all its descendants, as when the machine fails."""
        if self._child is None:
            return
        self.signal(signal.SIGKILL)
        self._child.wait()
        while marked(self.mark):
            signal_marked(self.mark)
        _reaper.notify("-", self.mark)
        self._child = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal (SIGSTOP, SIGCONT, ...) to every process of the group."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def tail(self, lines: int = 30) -> str:
        """Return the end of the log."""
        if not self.log_path.exists():
            return ""
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-lines:])

    def check(self) -> None:
        """Raise RigError if the process has ended by itself."""
        if self._child is not None and self._child.poll() is not None:
            raise RigError(
                f"{self.name} ended with exit status {self._child.returncode}. "
                f"Its log ({self.log_path}) ends with:\n{self.tail()}"
            )


def start_and_wait(processes: Sequence[Process], healthy: Callable[[], bool], timeout: float) -> None:
    """Start `processes` and wait until `healthy`; if that fails, stop them and show the ends of their logs."""

    def probe() -> bool:
        for process in processes:
            process.check()
        return healthy()

    names = ", ".join(process.name for process in processes)
    try:
        for process in processes:
            process.start()
        wait_until(f"{names} healthy", probe, timeout)
    except RigError as error:
        logs = "\n\n".join(f"--- {process.name}:\n{process.tail()}" for process in processes)
        stop_all(processes)
        raise RigError(f"{error}\n{logs}") from None
    except BaseException:
        stop_all(processes)
        raise


class TemporaryServer:
    """
    A server with its files in a temporary directory, which goes with it; `with` starts and ends it.

    A subclass sets `home` and `process`, and says when it is `ready`.
    """

    home: Path
    process: Process
    start_seconds: ClassVar[float] = 60.0
    stop_seconds: ClassVar[float] = STOP_SECONDS

    def __enter__(self) -> Self:
        try:
            self.prepare()
            start_and_wait([self.process], self.ready, self.start_seconds)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop(self.stop_seconds)
        with contextlib.suppress(OSError):
            shutil.rmtree(self.home)

    def prepare(self) -> None:
        """Write what the process needs before it starts."""

    def ready(self) -> bool:
        raise NotImplementedError


def stop_all(processes: Sequence[Process], seconds: float = STOP_SECONDS) -> None:
    """Stop several processes at the same time."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + seconds
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))


if __name__ == "__main__":
    reap()
