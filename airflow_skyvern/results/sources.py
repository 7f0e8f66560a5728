"""Lists the files of a run, and reads each of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from airflow_skyvern.client import api
from airflow_skyvern.client.signed_addresses import AddressReader
from airflow_skyvern.exceptions import SkyvernResponseError

if TYPE_CHECKING:
    from airflow_skyvern.client.streaming import Incoming
    from airflow_skyvern.hooks import SkyvernHook
    from airflow_skyvern.models import DownloadedFile, Run


@dataclass(frozen=True)
class RunFile:
    """
    A file of a run.

    :param name: The name that Skyvern has for it.
    :param artifact_id: The id for reading it; ids do not expire.
    :param address: A signed address, which expires; a secret.
    :param number: Its position, from 0, among the files with the same description, in Skyvern's order.
    :param alike: How many files have that description.
    """

    name: str | None
    size: int | None = None
    checksum: str | None = None
    artifact_id: str | None = None
    address: str = field(default="", repr=False)
    number: int = 0
    alike: int = 1

    @classmethod
    def of(cls, file: DownloadedFile) -> RunFile:
        """Create it from the API's description of a downloaded file."""
        return cls(file.filename, file.file_size, file.checksum, file.artifact_id, file.url)

    @property
    def is_readable(self) -> bool:
        """Whether it has an id, or an address that may be read."""
        return self.artifact_id is not None or self.address.startswith(("http://", "https://"))

    @property
    def place(self) -> str:
        """The address without its signature, which differs in each answer."""
        return self.address.partition("?")[0]

    @property
    def description(self) -> tuple[object, ...]:
        """Skyvern's description of the file, without its address."""
        return self.name, self.size, self.checksum


def downloads(run: Run) -> list[RunFile]:
    """
    Return a run's downloads, in the order in which Skyvern stored them.

    Servers list them in any order, which may change with each request; the names of a retry must not depend on that.
    """
    found = [RunFile.of(file) for file in sorted(run.downloaded_files, key=_age)]
    total, before = Counter(file.description for file in found), Counter[object]()
    numbered = []
    for file in found:
        numbered.append(replace(file, number=before[file.description], alike=total[file.description]))
        before[file.description] += 1
    return numbered


def _age(file: DownloadedFile) -> tuple[object, ...]:
    when = file.modified_at.timestamp() if file.modified_at else 0.0
    artifact_id = file.artifact_id or ""  # increases with time
    return len(artifact_id), artifact_id, when, file.filename or "", file.url.partition("?")[0]


class Source:
    """
    Reads the files of runs: by artifact id with the key of the connection, else from the signed address without it.

    :param hook: The hook of the task.
    :param fetch: Fetches the run again if an address has expired.
    """

    def __init__(self, hook: SkyvernHook, fetch: Callable[[], Sequence[RunFile]]) -> None:
        self._hook = hook
        self._fetch = fetch
        self._reader = AddressReader(hook.get_conn().settings)
        self._refused: set[str] = set()

    def close(self) -> None:
        """Close the connections of signed addresses; the hook's connections belong to the hook."""
        self._reader.close()

    @contextmanager
    def open(self, file: RunFile, start: int = 0) -> Iterator[Incoming]:
        """Open a file from a byte on."""
        if file.artifact_id is not None:
            with self._hook.stream(api.get_artifact_content(file.artifact_id), start) as incoming:
                yield incoming
            return
        address = self._current(file) if file.address in self._refused else file.address
        with ExitStack() as stack:
            try:
                incoming = stack.enter_context(self._reader.stream(address, start))
            except SkyvernResponseError:
                self._refused.add(file.address)
                raise
            yield incoming

    def _current(self, file: RunFile) -> str:
        """Return the current address of a file: each answer has new signatures."""
        alike = [found for found in self._fetch() if found.description == file.description]
        here = [found for found in alike if found.place == file.place] or alike
        if not here:
            raise SkyvernResponseError(f"Skyvern does not list the file {file.name} of the run any more.")
        if len(here) > 1 and len(alike) != file.alike:
            raise SkyvernResponseError(
                f"Skyvern lists {len(alike)} files {file.name} of the run, and nothing says which is which."
            )
        return (here[0] if len(here) == 1 else alike[file.number]).address
