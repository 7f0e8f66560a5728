"""One task at a time in a place of a store."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from airflow_skyvern.exceptions import SkyvernRunCanceled, SkyvernTransferError
from airflow_skyvern.results.lease import LOST_SECONDS, POLL_SECONDS, RENEW_SECONDS, STALE_SECONDS, Lease
from airflow_skyvern.results.stores import FolderStore

NAME = "lease.json"


class Clock:
    """Time that passes when somebody sleeps, and what happens meanwhile."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.happens: Callable[[], object] = lambda: None

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.happens()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lease(folder: Path, clock: Clock, run_id: str, check_stop: Callable[[], object] = lambda: None) -> Lease:
    log = logging.getLogger(__name__)
    return Lease(FolderStore(folder), NAME, run_id, log=log, check_stop=check_stop, sleep=clock.sleep, clock=clock)


def test_it_is_held_until_it_is_released(tmp_path: Path, clock: Clock) -> None:
    first, second = (lease(tmp_path, clock, run_id) for run_id in ("wr_1", "wr_2"))
    first.acquire()
    first.confirm()
    waited: list[float] = []

    def end_after_a_while() -> None:
        waited.append(clock.now)
        if len(waited) == 5:
            first.release()

    clock.happens = end_after_a_while
    second.acquire()
    assert len(waited) == 5
    second.confirm()
    with pytest.raises(SkyvernTransferError, match="may have taken its place"):
        first.confirm()
    first.release()  # not another task's
    second.confirm()
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_one_that_is_renewed_is_waited_for_however_long(tmp_path: Path, clock: Clock) -> None:
    first, second = (lease(tmp_path, clock, run_id) for run_id in ("wr_1", "wr_2"))
    first.acquire()
    renewals = 0

    def renew() -> None:
        nonlocal renewals
        renewals += 1
        if renewals == 200:
            first.release()
        elif renewals % 20 == 0:
            first._write(overwrite=True)

    clock.happens = renew
    second.acquire()
    assert clock.now - 1000 >= 200 * POLL_SECONDS > STALE_SECONDS
    second.release()


def test_one_whose_holder_was_killed_is_taken_over(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (lease(tmp_path, clock, run_id) for run_id in ("wr_1", "wr_2"))
    first.acquire()
    second.acquire()
    assert clock.now - 1000 > STALE_SECONDS > LOST_SECONDS > 2 * RENEW_SECONDS
    assert "taking the place of a task that no longer stores what run wr_1 left" in caplog.text
    for check in (first.check, first.confirm):
        with pytest.raises(SkyvernTransferError):
            check()
    second.confirm()
    second.release()


def test_of_two_that_take_over_at_once_one_does(tmp_path: Path, clock: Clock) -> None:
    dead, second, third = (lease(tmp_path, clock, run_id) for run_id in ("wr_1", "wr_2", "wr_3"))
    dead.acquire()
    taken: list[float] = []

    def take_over_right_after() -> None:
        if not taken and b"wr_2" in (tmp_path / NAME).read_bytes():
            taken.append(clock.now)
            third._write(overwrite=True)

    clock.happens = take_over_right_after
    second.acquire()
    assert taken
    assert clock.now - taken[0] > STALE_SECONDS  # the third is killed as well
    second.confirm()
    second.release()


def test_a_retry_takes_over_from_the_killed_try_of_its_own_run(tmp_path: Path, clock: Clock) -> None:
    first, retry = (lease(tmp_path, clock, "wr_1") for _ in range(2))
    first.acquire()
    retry.acquire()
    assert clock.now - 1000 < STALE_SECONDS / 10
    retry.confirm()
    retry.release()


@pytest.mark.parametrize("content", [b"", b"[]", b"\xff", b"{}"])
def test_what_is_no_lease_becomes_stale_like_one(tmp_path: Path, clock: Clock, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    lease(tmp_path, clock, "wr_1").acquire()
    assert clock.now - 1000 > STALE_SECONDS


def test_a_task_that_has_to_stop_waits_no_longer(tmp_path: Path, clock: Clock) -> None:
    def stop() -> None:
        raise SkyvernRunCanceled("killed")

    lease(tmp_path, clock, "wr_1").acquire()
    with pytest.raises(SkyvernRunCanceled):
        lease(tmp_path, clock, "wr_2", stop).acquire()


def test_a_holder_that_was_frozen_holds_it_no_longer(tmp_path: Path, clock: Clock) -> None:
    frozen = lease(tmp_path, clock, "wr_1")
    frozen.acquire()
    frozen.check()
    clock.now += LOST_SECONDS + 1
    with pytest.raises(SkyvernTransferError, match="stood still for so long"):
        frozen.check()
