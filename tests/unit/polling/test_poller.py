from __future__ import annotations

import asyncio
import contextvars
import gc
import os
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import certifi
import httpx
import pytest

from airflow_skyvern.client.sender import tls_context
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.exceptions import SkyvernAuthError, SkyvernConnectionError, SkyvernError, SkyvernNotFoundError
from airflow_skyvern.polling.circuit_breaker import CircuitBreaker
from airflow_skyvern.polling.listing import OFF_SECONDS
from airflow_skyvern.polling.poller import _POLLERS, poller_of
from airflow_skyvern.polling.queue import RECHECK_INTERVAL, QueueEntry
from airflow_skyvern.runs.wait import Wait
from airflow_skyvern.triggers.run import SkyvernRunTrigger
from tests.support.log_lines import LogLines
from tests.support.polling import PollerRig
from tests.support.tasks import first_event
from tests.support.virtual_time import run_virtually

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
    from tests.unit.conftest import Connect

Scenario = Callable[[PollerRig], Awaitable[None]]


def play(fake: FakeSkyvern, scenario: Scenario, **more: Any) -> None:
    async def played() -> None:
        watching = PollerRig(fake, **more)
        await scenario(watching)
        await asyncio.sleep(1)
        left = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        assert all(client._http.is_closed for client in watching.clients)

    run_virtually(played())


def refused(status: int) -> Callable[[httpx.Request], httpx.Response | None]:
    def answer(request: httpx.Request) -> httpx.Response | None:
        return httpx.Response(status, json={"detail": "no"}) if request.url.path == "/v1/runs" else None

    return answer


def everything(answer: httpx.Response | Exception) -> Callable[[httpx.Request], httpx.Response | None]:
    def instead(request: httpx.Request) -> httpx.Response | None:
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    return instead


@pytest.mark.slow
def test_a_thousand_waits_cost_ten_requests_per_interval_and_a_few_direct_checks(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        waits = [w.start(w.running()) for _ in range(1000)]
        await asyncio.sleep(10)
        w.sent.clear()
        await asyncio.sleep(100)
        ticks = 100 / (5 * 1.05)
        assert len(w.lists) == pytest.approx(10 * ticks, rel=0.15)
        assert len(w.sent) <= 12 * (ticks + 2)
        assert not any(task.done() for task in waits)

    play(fake, scenario)


def test_one_wait_asks_directly_and_many_list(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        w.start(w.running())
        await asyncio.sleep(20)
        assert w.lists == []
        for _ in range(9):
            w.start(w.running())
            await asyncio.sleep(0.4)
        w.sent.clear()
        await asyncio.sleep(60)
        assert len(w.sent) <= 15

    play(fake, scenario)


def test_waits_that_begin_at_any_time_share_the_lists(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        for _ in range(300):
            w.start(w.running())
            await asyncio.sleep(0.03)
        w.sent.clear()
        await asyncio.sleep(50)
        assert len(w.lists) <= 4 * 11

    play(fake, scenario)


@pytest.mark.parametrize("count", [1, 30])
def test_an_end_is_noticed_within_the_interval_and_its_jitter(fake: FakeSkyvern, count: int) -> None:
    async def scenario(w: PollerRig) -> None:
        runs = [w.running() for _ in range(count)]
        waits = [w.start(run_id) for run_id in runs]
        for run_id, task in zip(runs, waits, strict=True):
            await asyncio.sleep(7)
            w.end(run_id)
            ended = w.loop.time()
            seen = await task
            assert seen is not None
            assert seen.status == "completed"
            assert w.loop.time() - ended <= 5.1 + 10 * w.latency

    play(fake, scenario)


def test_a_run_that_is_missing_from_the_list_is_never_taken_for_finished(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        runs = [w.running() for _ in range(20)]
        waits = [w.start(run_id) for run_id in runs]
        w.instead = lambda request: httpx.Response(200, json=[]) if request.url.path == "/v1/runs" else None
        await asyncio.sleep(60)
        assert not any(task.done() for task in waits)
        assert min(Counter(path for _, path in w.sent if path != "/v1/runs").values()) >= 9
        assert len(w.lists) <= 3

    play(fake, scenario)


@pytest.mark.parametrize("status", ["failed", "thinking"])
def test_a_run_that_the_list_does_not_hold_is_asked_for_at_its_interval(fake: FakeSkyvern, status: str) -> None:
    async def scenario(w: PollerRig) -> None:
        others = [w.start(w.running()) for _ in range(20)]
        run_id = w.running()
        task = w.start(run_id)
        await asyncio.sleep(20)
        w.end(run_id, status, retry_pending=True)
        await asyncio.sleep(60)
        assert not task.done()
        assert 8 <= len([when for when in w.looks(run_id) if when > 20]) <= 13
        w.end(run_id, "running", attempt=2)
        await asyncio.sleep(20)
        w.end(run_id, "completed", attempt=2)
        ended = await task
        assert ended is not None
        assert ended.attempt == 2
        assert not any(other.done() for other in others)

    play(fake, scenario)


def test_a_list_that_calls_an_ended_run_active_delays_its_end_by_an_hour_at_most(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        runs = [w.running() for _ in range(40)]
        waits = [w.start(run_id, seconds=3 * RECHECK_INTERVAL) for run_id in runs]
        await asyncio.sleep(20)
        rows = fake.handle(httpx.Request("GET", "http://x/v1/runs?page_size=100", headers={"x-api-key": w.key}))
        w.instead = lambda request: (
            httpx.Response(200, content=rows.content) if request.url.path == "/v1/runs" else None
        )
        for run_id in runs[:20]:
            w.end(run_id)
        began = w.loop.time()
        await asyncio.wait(waits[:1], timeout=2 * RECHECK_INTERVAL)
        assert w.loop.time() - began <= RECHECK_INTERVAL + 10
        done = await asyncio.gather(*waits[:20])
        assert all(run is not None and run.status == "completed" for run in done)
        assert w.loop.time() - began <= RECHECK_INTERVAL + 10
        assert not any(task.done() for task in waits[20:])

    play(fake, scenario)


def test_pages_that_shift_while_they_are_read_are_harmless(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        runs = [w.running() for _ in range(350)]
        waits = [w.start(run_id) for run_id in runs]

        async def others_come_and_go() -> None:
            while True:
                mine = w.running()
                await asyncio.sleep(w.latency)
                w.end(mine)

        coming_and_going = asyncio.create_task(others_come_and_go())
        await asyncio.sleep(60)
        assert not any(task.done() for task in waits)
        coming_and_going.cancel()
        for run_id in runs[::7]:
            w.end(run_id)
        ended = await asyncio.gather(*waits[::7])
        assert all(run is not None and run.is_final for run in ended)
        assert not any(task.done() for number, task in enumerate(waits) if number % 7)

    play(fake, scenario)


def test_many_foreign_runs_make_listing_too_dear(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        waits = [w.start(w.running()) for _ in range(5)]
        for _ in range(1500):
            w.running()
        await asyncio.sleep(30)
        w.sent.clear()
        await asyncio.sleep(100)
        assert w.lists == []
        assert len(w.looks()) <= 5 * 21
        assert not any(task.done() for task in waits)

    play(fake, scenario)


@pytest.mark.parametrize("status", [400, 403, 404, 422, 500, 501])
def test_where_the_list_is_refused_the_runs_are_asked_for(fake: FakeSkyvern, status: int) -> None:
    async def scenario(w: PollerRig) -> None:
        w.instead = refused(status)
        runs = [w.running() for _ in range(20)]
        waits = [w.start(run_id) for run_id in runs]
        await asyncio.sleep(30)
        w.sent.clear()
        await asyncio.sleep(60)
        assert w.lists == []
        for run_id in runs:
            assert 9 <= len(w.looks(run_id)) <= 13
        for run_id in runs:
            w.end(run_id)
        assert all(run is not None for run in await asyncio.gather(*waits))

    play(fake, scenario)


def test_a_list_that_works_again_is_used_again(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        w.instead = refused(404)
        for _ in range(20):
            w.start(w.running())
        await asyncio.sleep(20)
        w.instead = lambda request: None
        await asyncio.sleep(OFF_SECONDS)
        w.sent.clear()
        await asyncio.sleep(50)
        assert len(w.sent) <= 12

    play(fake, scenario)


TROUBLE: dict[str, httpx.Response | Exception] = {
    "unavailable": httpx.Response(503, json={"error": "Database temporarily unavailable"}),
    "failing": httpx.Response(500, json={"error": "Unexpected error"}),
    "html": httpx.Response(200, text="<html>maintenance</html>"),
    "refused": httpx.ConnectError("refused"),
    "reset": httpx.ReadError("reset"),
}


@pytest.mark.parametrize("trouble", TROUBLE)
@pytest.mark.parametrize("count", [1, 300])
def test_a_failing_server_is_probed_by_one_request_and_nothing_is_lost(
    fake: FakeSkyvern, trouble: str, count: int
) -> None:
    async def scenario(w: PollerRig) -> None:
        runs = [w.running() for _ in range(count)]
        waits = [w.start(run_id) for run_id in runs]
        await asyncio.sleep(20)
        w.sent.clear()
        w.instead = everything(TROUBLE[trouble])
        for run_id in runs:
            w.end(run_id)
        await asyncio.sleep(600)
        tries = 2 if trouble == "reset" else 1
        assert len(w.sent) <= (16 + 12) * tries
        assert not any(task.done() for task in waits)
        w.instead = lambda request: None
        began = w.loop.time()
        assert all(run is not None for run in await asyncio.gather(*waits))
        assert w.loop.time() - began <= 70

    play(fake, scenario)


def test_a_server_that_is_away_for_days_is_still_probed_once_a_minute() -> None:
    breaker, now = CircuitBreaker(), 0.0
    for _ in range(5000):
        breaker.failed(SkyvernConnectionError("away"), now)
        assert breaker.is_open(now + 1)
        now = breaker.closes_at
    assert 5000 * 60 * 0.99 <= now <= 5000 * 66


@pytest.mark.parametrize("asked", ["60", "100000"])
def test_a_server_that_asks_to_be_left_alone_is_left_alone_by_all(fake: FakeSkyvern, asked: str) -> None:
    async def scenario(w: PollerRig) -> None:
        for _ in range(200):
            w.start(w.running())
        await asyncio.sleep(20)
        w.instead = everything(httpx.Response(429, headers={"retry-after": asked}))
        await asyncio.sleep(7)
        first = w.sent[-1][0]
        w.instead = lambda request: None
        w.sent.clear()
        await asyncio.sleep(700)
        again = w.sent[0][0]
        assert min(float(asked), 600) <= again - first <= 1.2 * min(float(asked), 600)

    play(fake, scenario)


def test_a_run_that_alone_cannot_be_read_does_not_hold_up_the_others(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        runs = [w.running() for _ in range(30)]
        waits = [w.start(run_id) for run_id in runs]
        broken = runs[0]
        w.end(broken)
        w.instead = lambda request: httpx.Response(500) if request.url.path.endswith(broken) else None
        for run_id, task in list(zip(runs, waits, strict=True))[1:]:
            await asyncio.sleep(10)
            w.end(run_id)
            ended = w.loop.time()
            await task
            assert w.loop.time() - ended <= 7
        assert not waits[0].done()
        assert w.looks(broken)[-1] - w.looks(broken)[-2] >= 30

    play(fake, scenario)


def test_nothing_is_asked_for_more_often_than_its_interval(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        intervals = [5.0, 7.0, 30.0, 60.0, 300.0] * 4
        runs = [w.running() for _ in intervals]
        for run_id, interval in zip(runs, intervals, strict=True):
            w.start(run_id, interval, first_poll_delay=1.0)
            await asyncio.sleep(1)
        await asyncio.sleep(1000)
        for run_id, interval in zip(runs, intervals, strict=True):
            looks = w.looks(run_id)
            gaps = [later - earlier for earlier, later in pairwise(looks)]
            assert all(gap >= interval for gap in gaps), (interval, gaps)

    play(fake, scenario)


def test_the_first_look_comes_when_it_is_wanted_whatever_the_others_do(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        for _ in range(30):
            w.start(w.running(), 1.0)
        await asyncio.sleep(5)
        run_id, soon = w.running(), w.running()
        for each in (run_id, soon):
            w.end(each)
        began = w.loop.time()
        late = w.start(run_id, 1.0, first_poll_delay=8.0)
        await w.wait(soon)
        assert w.loop.time() - began <= 3 * w.latency
        await late
        assert 8 <= w.loop.time() - began <= 8 + 3 * w.latency
        assert len(w.looks(run_id)) == 1

    play(fake, scenario)


@pytest.mark.parametrize("away", [False, True])
def test_a_deadline_ends_the_wait_after_one_last_look_if_there_is_a_server(fake: FakeSkyvern, *, away: bool) -> None:
    async def scenario(w: PollerRig) -> None:
        runs = [w.running() for _ in range(20)]
        for run_id in runs:
            w.start(run_id)
        await asyncio.sleep(20)
        began, task = w.loop.time(), w.start(runs[0], seconds=42.0)
        if away:
            w.instead = everything(httpx.Response(503, headers={"retry-after": "300"}))
        assert await task is None
        assert 42 <= w.loop.time() - began <= 42 + 2 * w.latency
        assert any(look - began >= 42 for look in w.looks(runs[0])) is not away

    play(fake, scenario)


def test_a_run_that_ends_at_the_deadline_counts(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        run_id = w.running()
        task = w.start(run_id, 60.0, seconds=100.0)
        await asyncio.sleep(99.5)
        w.end(run_id)
        run = await task
        assert run is not None
        assert run.is_final

    play(fake, scenario)


def test_a_run_that_never_existed_ends_only_its_own_wait(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        others = [w.start(w.running()) for _ in range(10)]
        with pytest.raises(SkyvernNotFoundError, match="Task run not found wr_123"):
            await w.wait("wr_123")
        assert not any(other.done() for other in others)

    play(fake, scenario)


def test_a_run_whose_workflow_was_deleted_is_waited_for_to_its_end(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        run_id = w.running()
        task = w.start(run_id)
        await asyncio.sleep(10)
        fake.runs[run_id].workflow.deleted = True
        await asyncio.sleep(30)
        w.end(run_id)
        run = await task
        assert run is not None
        assert run.status == "completed"
        assert len([path for _, path in w.sent if path == f"/v1/runs/{run_id}"]) <= 4

    play(fake, scenario)


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


FOREIGN = {
    "404 of an ingress": httpx.Response(404, text="404 page not found"),
    "403 of a WAF": httpx.Response(403, html="<h1>Request blocked</h1>"),
    "401 of a proxy": httpx.Response(401, html="<h1>Sign in</h1>"),
    "408": httpx.Response(408, json={"detail": "Request Timeout"}),
    "425": httpx.Response(425, text="Too Early"),
    "302 to a login": httpx.Response(302, headers={"location": "https://login.example.com"}),
    "404 of Spring": httpx.Response(404, json={"status": 404, "error": "Not Found", "path": "/v1/runs"}),
    "404 of FastAPI": httpx.Response(404, json={"detail": "Not Found"}),
    "501": httpx.Response(501, json={"error": "Not Implemented"}),
    "200 of another product": httpx.Response(200, json={"status": "ok"}),
    "200 of another run": httpx.Response(200, json={"run_id": "wr_0", "status": "completed"}),
}


@pytest.mark.parametrize("answer", FOREIGN)
def test_a_4xx_that_is_not_skyverns_ends_no_wait(fake: FakeSkyvern, answer: str) -> None:
    """An ingress answers 404 for 12 s during a deployment: 300 of 300 waits had ended."""

    async def scenario(w: PollerRig) -> None:
        runs = [w.running() for _ in range(300)]
        waits = [w.start(run_id) for run_id in runs]
        await asyncio.sleep(20)
        w.instead = everything(FOREIGN[answer])
        await asyncio.sleep(12)
        assert not any(task.done() for task in waits)
        w.instead = lambda request: None
        for run_id in runs:
            w.end(run_id)
        assert all(run is not None for run in await asyncio.gather(*waits))
        assert w.loop.time() <= 20 + 12 + 70

    play(fake, scenario)


def test_one_404_of_skyvern_about_a_run_that_was_polled_ends_no_wait(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        runs = [w.running() for _ in range(3)]
        waits = [w.start(run_id) for run_id in runs]
        await asyncio.sleep(20)
        for run_id in runs:
            w.end(run_id)
            fake.next(
                "GET", f"/v1/runs/{run_id}", httpx.Response(404, json={"detail": f"Task run not found {run_id}"})
            )
        assert all(run is not None for run in await asyncio.gather(*waits))

    play(fake, scenario)


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
        connect, failures = w.poller._session._connect, 4

        async def flaky() -> Settings:
            nonlocal failures
            if failures:
                failures -= 1
                raise LookupError("no such connection")
            return await connect()

        w.poller._session._connect = flaky
        w.poller._session.connect_patience = 30.0  # type: ignore[misc]  # of this object only
        run_id = w.running()
        w.loop.call_later(5, w.end, run_id)
        assert await w.wait(run_id) is not None

    play(fake, scenario)


def test_a_connection_that_cannot_be_read_is_logged_to_all(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        async def nowhere() -> Settings:
            raise SkyvernError("no such connection")

        w.poller._session._connect = nowhere
        ends = await asyncio.gather(*(w.wait(w.running()) for _ in range(3)), return_exceptions=True)
        assert [str(end) for end in ends] == ["no such connection"] * 3

    play(fake, scenario)


def test_a_pause_ends_a_wait_once_and_is_asked_for_once(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        runs = [w.running() for _ in range(10)]
        paused: list[str | None] = []
        waits = [w.start(run_id, on_pause=lambda run: paused.append(run.app_url)) for run_id in runs]
        await asyncio.sleep(20)
        w.end(runs[0], "paused")
        w.sent.clear()
        await asyncio.sleep(100)
        assert paused == [f"http://localhost:8080/runs/{runs[0]}"]
        assert len(w.looks(runs[0])) <= 2
        w.end(runs[0])
        assert await waits[0] is not None

    play(fake, scenario)


def test_two_who_wait_for_the_same_run_both_hear_of_its_end(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        run_id = w.running()
        waits = [w.start(run_id), w.start(run_id), w.start(run_id, 20.0)]
        await asyncio.sleep(30)
        waits[0].cancel()
        w.end(run_id)
        for task in waits[1:]:
            run = await task
            assert run is not None

    play(fake, scenario)


@pytest.mark.parametrize("when", [0.0, 0.01, 0.03, 12.0, 15.01])
def test_who_is_canceled_disturbs_nobody(fake: FakeSkyvern, when: float) -> None:
    async def scenario(w: PollerRig) -> None:
        runs = [w.running() for _ in range(20)]
        waits = [w.start(run_id) for run_id in runs]
        await asyncio.sleep(when)
        for task in waits[:10]:
            task.cancel()
        for run_id in runs:
            w.end(run_id)
        ended = await asyncio.gather(*waits, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended[:10])
        assert all(getattr(end, "is_final", False) for end in ended[10:])

    play(fake, scenario)


def test_the_last_who_leaves_closes_the_client_and_the_next_opens_another(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        for _ in range(3):
            run_id = w.running()
            w.end(run_id)
            assert await w.wait(run_id) is not None
            await asyncio.sleep(1)
            assert len(asyncio.all_tasks()) == 1
            assert all(client._http.is_closed for client in w.clients)
        assert len(w.clients) == 3

    play(fake, scenario)


def test_who_comes_in_the_moment_the_last_leaves_is_not_forgotten(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        for pause in (0.0, w.latency / 2, w.latency, 2 * w.latency):
            first, second = w.running(), w.running()
            w.end(first)
            w.end(second)
            await w.wait(first)
            await asyncio.sleep(pause)
            assert await w.wait(second) is not None

    play(fake, scenario)


def test_each_wait_logs_in_the_context_of_its_own_trigger(fake: FakeSkyvern) -> None:
    trigger = contextvars.ContextVar("trigger", default="nobody's")

    async def scenario(w: PollerRig) -> None:
        logged: list[tuple[str, str]] = []

        class Log(LogLines):
            def info(self, msg: str, /, *args: Any) -> None:
                logged.append((args[0], trigger.get()))

        w.lines = Log()
        runs = [w.running() for _ in range(5)]
        for run_id in runs:
            trigger.set(f"of {run_id}")
            w.start(run_id)
        trigger.set("nobody's")
        await asyncio.sleep(20)
        for run_id in runs:
            w.end(run_id)
        await asyncio.sleep(20)
        assert len(logged) == 10
        assert all(context == f"of {run_id}" for run_id, context in logged)

    play(fake, scenario)


def test_a_log_that_cannot_be_written_ends_only_its_own_wait(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        class Broken(LogLines):
            def info(self, msg: str, /, *args: Any) -> None:
                raise OSError("the disk is full")

        others = [w.start(w.running()) for _ in range(5)]
        await asyncio.sleep(0)
        w.lines = Broken()
        task = w.start(w.running())
        with pytest.raises(OSError, match="disk is full"):
            await task
        await asyncio.sleep(20)
        assert not any(other.done() for other in others)

    play(fake, scenario)


def test_waits_that_nobody_looks_at_say_so_now_and_then(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        for _ in range(10):
            w.start(w.running())
        await asyncio.sleep(10)
        w.instead = everything(httpx.Response(503))
        await asyncio.sleep(600)
        silent = [line for line in w.lines.lines if "not polled for some minutes" in line]
        assert 10 <= len(silent) <= 30

    play(fake, scenario)


def queue_entries() -> dict[int, QueueEntry]:
    """The entries of all queues of this process; it keeps them alive, and so their ids."""
    gc.collect()
    return {id(thing): thing for thing in gc.get_objects() if type(thing) is QueueEntry}


@pytest.mark.slow
def test_ten_thousand_waits_leave_nothing_behind(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        of_other_tests = queue_entries()
        runs = [w.running() for _ in range(100)]
        for number in range(100):
            waits = [w.start(run_id) for run_id in runs]
            await asyncio.sleep(0.5)
            for task in waits[number % 2 :]:
                task.cancel()
            if number % 2:
                w.end(runs[0])
                assert await waits[0] is not None
                w.end(runs[0], "running")
            await asyncio.gather(*waits, return_exceptions=True)
        del waits, task
        await asyncio.sleep(1)
        assert len(asyncio.all_tasks()) == 1
        assert queue_entries().keys() <= of_other_tests.keys()
        w.sent.clear()
        await asyncio.sleep(60)
        assert w.sent == []

    play(fake, scenario)


async def test_triggers_of_one_connection_share_and_others_do_not(skyvern: FakeSkyvern, connect: Connect) -> None:
    os.environ["AIRFLOW_CONN_OTHER"] = os.environ["AIRFLOW_CONN_SKYVERN_DEFAULT"]
    try:
        runs = [skyvern.run(plan=("running",)) for _ in range(4)]
        ids = ["skyvern_default", "skyvern_default", "skyvern_default", "other"]
        tasks = [
            asyncio.create_task(first_event(SkyvernRunTrigger(run_id, conn_id, 0.05, time.time() + 60)))
            for run_id, conn_id in zip(runs, ids, strict=True)
        ]
        await asyncio.sleep(0)
        mine = _POLLERS[asyncio.get_running_loop()]
        assert set(mine) == {"skyvern_default", "other"}
        for _ in range(500):
            if all(poller._session._client for poller in mine.values()):
                break
            await asyncio.sleep(0.01)
        assert len({id(mine[name]._session._client) for name in mine}) == 2
        elsewhere = asyncio.to_thread(asyncio.run, _poller_of_another_loop())
        assert await elsewhere is not mine["skyvern_default"]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert mine == {}
    finally:
        del os.environ["AIRFLOW_CONN_OTHER"]


async def _poller_of_another_loop() -> object:
    async def connect() -> Settings:
        raise AssertionError("nobody waits")

    return poller_of("skyvern_default", connect)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_hundreds_of_triggers_leave_no_task_and_no_socket_behind(skyvern: FakeSkyvern) -> None:
    before = open_files()
    for _ in range(3):
        runs = [skyvern.run(plan=("running", "running", "completed")) for _ in range(100)]
        events = await asyncio.gather(
            *(first_event(SkyvernRunTrigger(each, "skyvern_default", 0.05, time.time() + 60)) for each in runs)
        )
        assert [event["run_id"] for event in events] == runs
        assert all(event["reason"] == "ended" for event in events)
    for _ in range(100):
        await asyncio.sleep(0.02)
        if len(asyncio.all_tasks()) == 1 and open_files() <= before + 1:
            break
    assert len(asyncio.all_tasks()) == 1
    assert open_files() <= before + 1
    assert _POLLERS.get(asyncio.get_running_loop()) == {}


def test_a_wait_is_a_wait_also_without_a_trigger(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        run_id = w.running()
        w.end(run_id, "failed")
        wait: Wait[Any] = Wait(run_id, poll_interval=5, deadline=100, log=w.lines, clock=w.loop.time)
        run = await w.poller.wait(wait)
        assert run is not None
        assert run.status == "failed"

    play(fake, scenario)
