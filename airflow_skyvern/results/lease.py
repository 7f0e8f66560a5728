"""
Admits one task at a time to a place in a store, by a file that only one task can create, and that its holder renews.

A holder that was killed renews nothing, so another task takes its place after a while; a retry that delivers the same
run does so at once. A task that was frozen notices that its place was taken, and stores nothing more.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_skyvern.exceptions import SkyvernFileConflict, SkyvernTransferError

if TYPE_CHECKING:
    from airflow_skyvern.results.stores import Store
    from airflow_skyvern.runs.wait import Log

RENEW_SECONDS = 10.0
"""How often the holder renews its lease."""

LOST_SECONDS = 45.0
"""Seconds without a renewal after which the holder stores nothing more: before another task could take over."""

STALE_SECONDS = 60.0
"""Seconds for which a waiting task has to see no renewal before it takes over."""

SETTLE_SECONDS = 2.0
"""Seconds after which a task that took over checks whether another task did so, too."""

POLL_SECONDS = 1.0

VANISHED = 10
"""How often the file may vanish while it is written, because another task starts to write it, too."""

Content = Mapping[str, Any]


class Lease:
    """
    Keeps all tasks but one from changing a place.

    :param store: Where its file is; the store must be able to create without replacing.
    :param name: The file's name.
    :param run_id: The Skyvern run whose files the task delivers.
    :param check_stop: Called about once a second while it waits; raises when the task has to stop.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        run_id: str,
        *,
        log: Log,
        check_stop: Callable[[], object] = lambda: None,
        sleep: Callable[[float], Any] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._name = name
        self._run_id = run_id
        self._token = secrets.token_hex(8)
        self._log = log
        self._check_stop = check_stop
        self._sleep = sleep
        self._clock = clock
        self._renewals = 0
        self._renewed_at = 0.0
        self._lost = False
        self._released = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        """Wait until no other task holds it, and hold it until :meth:`release`."""
        while not self._created():
            if (there := self._there()) is not None and self._waited_for(there):
                self._sleep(SETTLE_SECONDS)
                if self._is_own(self._there()):
                    break
        self._renewed_at = self._clock()
        self._thread = threading.Thread(target=self._renew, name="skyvern lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """
        Check that it is still held, as far as possible without a request.

        :raises SkyvernTransferError: another task may hold it; a retry delivers the same run again.
        """
        if self._lost or self._clock() - self._renewed_at > LOST_SECONDS:
            raise self._taken_over()

    def confirm(self) -> None:
        """
        Ask the store whether it is still held.

        :raises SkyvernTransferError: it is not; a retry delivers the same run again.
        """
        self.check()
        if not self._is_own(self._there()):
            raise self._taken_over()

    def release(self) -> None:
        """Release it for the next task; if that fails, it becomes stale."""
        self._released.set()
        if self._thread is None:
            return
        self._thread.join(RENEW_SECONDS)
        try:
            if self._is_own(self._there()):
                self._store.remove(self._name)
        except Exception as error:  # noqa: BLE001  what was stored is whole all the same
            self._log.warning("%s could not be removed: %s", self._store.address(self._name), error)

    def _created(self) -> bool:
        for _ in range(VANISHED):
            if self._there() is not None:
                return False
            try:
                self._write(overwrite=False)
            except SkyvernFileConflict:
                pass
            except FileNotFoundError:
                continue
            return self._is_own(self._there())
        raise SkyvernTransferError(f"{self._store.address(self._name)} cannot be written.")

    def _waited_for(self, there: Content) -> bool:
        """Wait until another task's lease ends, and return whether that task is gone."""
        self._say_for_whom(there)
        since, seen = self._clock(), there
        while not (self._is_of_this_run(there) or self._clock() - since > STALE_SECONDS):
            self._check_stop()
            self._sleep(POLL_SECONDS)
            if (now := self._there()) is None:
                return False
            if (there := now) != seen:
                since, seen = self._clock(), there
        if there != self._there():
            return False
        self._take_over(there)
        return True

    def _say_for_whom(self, there: Content) -> None:
        if not self._is_of_this_run(there):
            self._log.info(
                "Skyvern run %s: waiting until another task has stored what run %s left in the same place (%s)",
                self._run_id,
                there.get("skyvern_run_id"),
                self._store.address(self._name),
            )

    def _take_over(self, seen: Content) -> None:
        self._log.warning(
            "Skyvern run %s: taking the place of a task that no longer stores what run %s left (%s)",
            self._run_id,
            seen.get("skyvern_run_id"),
            self._store.address(self._name),
        )
        self._write(overwrite=True)

    def _renew(self) -> None:
        while not self._released.wait(RENEW_SECONDS):
            began = self._clock()
            try:
                if not self._is_own(self._there()) or began - self._renewed_at > LOST_SECONDS:
                    self._lost = True
                    return
                self._write(overwrite=True)
            except Exception as error:  # noqa: BLE001  the next renewal may succeed; without one, the lease is lost
                self._log.warning("%s was not renewed, and will be tried again: %s", self._name, error)
            else:
                self._renewed_at = began

    def _write(self, *, overwrite: bool) -> None:
        self._renewals += 1
        content = {"skyvern_run_id": self._run_id, "token": self._token, "renewals": self._renewals}
        with self._store.sink(self._name, overwrite=overwrite) as sink:
            sink.write(json.dumps(content).encode())

    def _there(self) -> Content | None:
        """Return the file's content; empty for a file that is not a lease, which becomes stale like one."""
        try:
            if self._store.size(self._name) is None:
                return None
            with self._store.opened(self._name) as file:
                found = json.loads(file.read(2**16))
        except FileNotFoundError:
            return None
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    def _is_own(self, there: Content | None) -> bool:
        return there is not None and there.get("token") == self._token

    def _is_of_this_run(self, there: Content) -> bool:
        return there.get("skyvern_run_id") == self._run_id

    def _taken_over(self) -> SkyvernTransferError:
        return SkyvernTransferError(
            f"Skyvern run {self._run_id}: while its files were stored, this worker stood still for so long that "
            f"another task may have taken its place ({self._store.address(self._name)}). A retry stores them again."
        )
