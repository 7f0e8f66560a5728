"""
Looks for API keys where none may be: in everything the metadata database holds, and in every log file.

What Airflow encrypts (the arguments of triggers) is decrypted first; only the rows of the connection table, which
are meant to hold keys, are left out. Much of it is short-lived, so the database is dumped repeatedly.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

from cryptography.fernet import Fernet, InvalidToken

from dev.airflow_server import DATABASE

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

    from dev.airflow_server import AirflowServer

ENCRYPTED = re.compile(r"gAAAAA[\w-]{60,}=*")
CONNECTIONS = re.compile(r"^COPY public\.connection .*?^\\\.$", re.MULTILINE | re.DOTALL)
LOOK_EVERY = 8.0


class Leaks:
    """Watches while used as a context; `found` says where which key was."""

    def __init__(self, airflow: AirflowServer, keys: set[str]) -> None:
        self.keys = keys
        self.found: set[str] = set()
        self.dumps = 0
        self.decrypted = 0
        self._airflow = airflow
        self._fernet = Fernet(airflow.env["AIRFLOW__CORE__FERNET_KEY"].encode())
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="leaks", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(60)
        if kind is None:
            self.look_into_database()
            self.look_into_files()

    def _watch(self) -> None:
        while not self._stop.wait(LOOK_EVERY):
            self.look_into_database()

    def look_into_database(self) -> None:
        """Search a dump of all tables."""
        assert self._airflow.postgres is not None
        dump = CONNECTIONS.sub("", self._airflow.postgres.dump(DATABASE))
        self.dumps += 1
        plain = [self._decrypted(token) for token in set(ENCRYPTED.findall(dump))]
        self.decrypted += sum(bool(text) for text in plain)
        self._search("metadata database", dump)
        self._search("metadata database, encrypted", "\n".join(plain))

    def look_into_files(self) -> None:
        """Search every file of Airflow's home: task logs and the logs of its processes."""
        for file in self._airflow.home.rglob("*"):
            if file.is_file():
                self._search(str(file.relative_to(self._airflow.home)), file.read_text(errors="replace"))

    def _decrypted(self, token: str) -> str:
        try:
            return self._fernet.decrypt(token.encode()).decode(errors="replace")
        except InvalidToken:
            return ""

    def _search(self, location: str, text: str) -> None:
        self.found.update(f"{location}: {key[:8]}..." for key in set(self.keys) if key in text)
