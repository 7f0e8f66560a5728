"""
Schedules change hands while they fire: on real servers, at real ticks, no tick is served twice and none is lost.

Each schedule has a workflow of its own, so that every run that Skyvern lists belongs to one schedule. Who started it
is said by its ``trigger_type``: ``scheduled`` by Skyvern, ``api`` by Airflow.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest

from tests.system.test_schedules import Schedules

if TYPE_CHECKING:
    from tests.system.conftest import Rig

pytestmark = pytest.mark.real_ticks

MINUTE = timedelta(minutes=1)
TICKS = {"Skyvern": "scheduled", "Airflow": "api"}
NOTICED = timedelta(seconds=75)
"""How long after the last tick its run must be there."""


def now() -> datetime:
    return datetime.now(timezone.utc)


def sleep_until(moment: datetime) -> None:
    time.sleep(max(0.0, (moment - now()).total_seconds()))


def every_five(rig: Rig, name: str, first: datetime, workflow: str) -> Schedules:
    return Schedules(rig, name, workflow=workflow, cron_expression=f"{first.minute % 5}-59/5 * * * *")


def served(mine: Schedules, first: datetime, ticks: int) -> list[list[str]]:
    """Return the trigger types of the runs of each tick."""
    found: list[list[str]] = [[] for _ in range(ticks)]
    for row in mine.rig.skyvern.runs_of(mine.workflow_id):
        created = datetime.fromisoformat(row["created_at"]).replace(tzinfo=timezone.utc)
        found[(created - first) // (5 * MINUTE)].append(row["trigger_type"])
    return found


def test_every_tick_around_a_hand_over_is_served_once(rig: Rig) -> None:
    first = (now() + 4 * MINUTE).replace(second=0, microsecond=0)
    taken = every_five(rig, "taken_after_a_tick", first, "ok_wait")
    early = every_five(rig, "taken_before_and_released", first + MINUTE, "ok_http")
    kept = every_five(rig, "exported_only", first + MINUTE, "wait_5")
    with ThreadPoolExecutor() as pool:
        begun = [pool.submit(mine.call, "export", mine.schedule_id) for mine in (taken, kept)]
        begun.append(pool.submit(early.call, "takeover", early.schedule_id))
        for call in begun:
            assert call.result()[0] == 0, call.result()
    assert now() < first + MINUTE, "this machine is too slow today"

    sleep_until(first + timedelta(seconds=3))
    with ThreadPoolExecutor() as pool:
        takeover = pool.submit(taken.call, "takeover", taken.schedule_id)
        sleep_until(first + 2 * MINUTE)
        release = pool.submit(early.call, "release", early.schedule_id)
        for call in (takeover, release):
            status, said, complained = call.result()
            print(said)
            assert status == 0, complained
    sleep_until(first + 6 * MINUTE + NOTICED)

    counts = {
        "taken over after its tick": (served(taken, first, 2), ["Skyvern", "Airflow"]),
        "taken over before, then released": (served(early, first + MINUTE, 2), ["Airflow", "Skyvern"]),
        "exported only": (served(kept, first + MINUTE, 2), ["Skyvern", "Skyvern"]),
    }
    for name, (ticks, _) in counts.items():
        print(f"{name}: {ticks}")
    for name, (ticks, owners) in counts.items():
        assert ticks == [[TICKS[owner]] for owner in owners], name
