from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING

import certifi
import httpx
import pytest

from airflow_skyvern.client.sender import tls_context
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.exceptions import SkyvernAuthError, SkyvernError
from tests.support.polling import PollerRig, play

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern


@pytest.mark.slow
def test_a_rotated_key_is_picked_up_once_for_all(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        runs = [w.running() for _ in range(120)]
        waits = [w.start(run_id) for run_id in runs]
        await asyncio.sleep(20)
        fake.api_key = w.key = "the-next-key"
        for run_id in runs:
            w.end(run_id)
        assert all(run is not None for run in await asyncio.gather(*waits))
        assert (w.connected, len(w.clients)) == (2, 2)

    play(fake, scenario)


@pytest.mark.slow
def test_a_key_that_stays_refused_ends_the_waits_after_ten_minutes_with_the_reason(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        waits = [w.start(w.running()) for _ in range(120)]
        await asyncio.sleep(20)
        fake.api_key = "another"
        ends = await asyncio.gather(*waits, return_exceptions=True)
        assert all(isinstance(end, SkyvernAuthError) for end in ends)
        assert 600 <= w.loop.time() <= 600 + 20 + 2 * 66
        assert w.connected <= 2 + 12

    play(fake, scenario)


@pytest.mark.slow
def test_a_key_that_skyvern_rotates_before_airflow_ends_no_wait(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        runs = [w.running() for _ in range(120)]
        waits = [w.start(run_id) for run_id in runs]
        await asyncio.sleep(20)
        fake.api_key = "the-next-key"
        await asyncio.sleep(300)
        assert not any(task.done() for task in waits)
        w.key = "the-next-key"
        for run_id in runs:
            w.end(run_id)
        assert all(run is not None for run in await asyncio.gather(*waits))
        assert w.loop.time() <= 20 + 300 + 140

    play(fake, scenario)


def test_a_host_that_is_edited_while_the_old_one_is_away_is_used_within_a_minute(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        run_id = w.running()
        task = w.start(run_id)
        await asyncio.sleep(100)
        w.instead = lambda request: httpx.Response(502) if request.url.port == 1 else None
        await asyncio.sleep(30)
        w.base_url = "http://127.0.0.1:2"
        w.end(run_id)
        edited = w.loop.time()
        assert await task is not None
        assert w.loop.time() - edited <= 60 + 66

    play(fake, scenario)


@pytest.mark.slow
def test_a_wait_that_joins_after_the_connection_was_edited_uses_the_new_one(fake: FakeSkyvern) -> None:
    """It noticed its end nine hours late: both servers answered, and the old one knew nothing of its run."""

    async def scenario(w: PollerRig) -> None:
        w.start(w.running())
        await asyncio.sleep(600)
        w.base_url = "http://127.0.0.1:2"
        await asyncio.sleep(1)
        assert w.clients[-1].settings.base_url.endswith(":1")
        w.start(w.running(), first_poll_delay=8.0)
        await asyncio.sleep(1)
        assert w.clients[-1].settings.base_url.endswith(":2")
        assert w.connected == 2

    play(fake, scenario)


@pytest.mark.slow
def test_renewed_certificates_make_a_new_client(fake: FakeSkyvern, tmp_path: Path) -> None:
    certificates = tmp_path / "ca.pem"
    certificates.write_bytes(Path(certifi.where()).read_bytes())
    before = Settings("k", verify=str(certificates))
    one, stamp = tls_context(before), before.fingerprint
    os.utime(certificates, (1, 1))
    assert Settings("k", verify=str(certificates)).fingerprint != stamp
    assert tls_context(before) is not one


def test_a_connection_that_cannot_be_read_for_a_while_ends_no_wait(fake: FakeSkyvern) -> None:
    """Airflow says "not found" also of a secrets backend that is away."""

    async def scenario(w: PollerRig) -> None:
        connect, failures = w.poller.session._connect, 4

        async def flaky() -> Settings:
            nonlocal failures
            if failures:
                failures -= 1
                raise LookupError("no such connection")
            return await connect()

        w.poller.session._connect = flaky
        w.poller.session.connect_patience = 30.0  # type: ignore[misc]  # of this object only
        run_id = w.running()
        w.loop.call_later(5, w.end, run_id)
        assert await w.wait(run_id) is not None

    play(fake, scenario)


def test_a_connection_that_cannot_be_read_is_logged_to_all(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        async def nowhere() -> Settings:
            raise SkyvernError("no such connection")

        w.poller.session._connect = nowhere
        ends = await asyncio.gather(*(w.wait(w.running()) for _ in range(3)), return_exceptions=True)
        assert [str(end) for end in ends] == ["no such connection"] * 3

    play(fake, scenario)
