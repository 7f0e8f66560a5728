from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from airflow_skyvern.exceptions import SkyvernConnectionError, SkyvernNotFoundError
from airflow_skyvern.polling.circuit_breaker import CircuitBreaker
from tests.support.polling import PollerRig, everything, play

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern


TROUBLE: dict[str, httpx.Response | Exception] = {
    "unavailable": httpx.Response(503, json={"error": "Database temporarily unavailable"}),
    "failing": httpx.Response(500, json={"error": "Unexpected error"}),
    "html": httpx.Response(200, text="<html>maintenance</html>"),
    "refused": httpx.ConnectError("refused"),
    "reset": httpx.ReadError("reset"),
}


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
