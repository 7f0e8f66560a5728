"""Where a watcher keeps its watermark: Airflow 3.3's store of the asset; older versions have none."""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from typing import Any

from airflow_skyvern.finished_runs.poller import log_failure
from airflow_skyvern.finished_runs.watermark import Watermark


class WatermarkStore:
    """
    Reads and writes the watermark of one watcher.

    A trigger cannot store its watermark in the transaction of its event. So a watermark is written ``commit_delay``
    after the event that it counts as done: a triggerer that is killed meanwhile repeats a run, and loses none.

    :param store: Airflow's store, or None where this Airflow has none.
    :param identity: Identifies the watcher among all watchers of the same asset.
    :param commit_delay: Seconds after which an event is assumed to be in Airflow's database.
    """

    def __init__(self, store: Any, identity: Any, *, commit_delay: float) -> None:
        self._store = store
        self._commit_delay = commit_delay
        self._key = f"skyvern_watermark_{hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:12]}"
        self._written: Watermark | None = None
        self._pending: deque[tuple[float, Watermark]] = deque()
        self._committed_at = 0.0

    @property
    def exists(self) -> bool:
        """Whether anything is kept."""
        return self._store is not None

    async def read(self) -> Watermark | None:
        """Return what was kept."""
        self._written = None if self._store is None else Watermark.from_json(await self._store.aget(self._key))
        return self._written

    def event_sent(self) -> None:
        """Note that an event is on its way to the database; the watermark that counts it as handed over must wait."""
        self._committed_at = time.monotonic() + self._commit_delay

    async def write(self, mark: Watermark) -> Watermark:
        """Store the newest watermark all of whose events are in the database, and return the one given."""
        self._pending.append((self._committed_at, mark))
        ready = None
        while self._pending and self._pending[0][0] <= time.monotonic():
            ready = self._pending.popleft()[1]
        if self._store is None or ready is None or ready == self._written:
            return mark
        try:
            await self._store.aset(self._key, ready.to_json())
            self._written = ready
        except Exception as error:  # noqa: BLE001  whatever it is: what is not stored is repeated after a restart
            log_failure("The watermark could not be stored; a restart would repeat the last runs", error)
        return mark
