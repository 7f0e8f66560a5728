"""What is checked when a request is about to be written to its connection, on a real socket."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.client import api
from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.client.run_request import RunRequest
from airflow_skyvern.client.sender import AsyncSkyvernClient, SkyvernClient
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.exceptions import SkyvernOvertaken
from airflow_skyvern.testing.fake.skyvern import API_KEY, FakeSkyvern

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call
    from airflow_skyvern.testing.loopback import Loopback

START = "/v1/run/workflows"


class Checks:
    """Refuses a start at its so-manieth check; the first is before the headers, the second before the body."""

    def __init__(self, refuse: int | None = None) -> None:
        self.refuse = refuse
        self.made = 0

    def __call__(self) -> None:
        self.made += 1
        if self.made == self.refuse:
            raise SkyvernOvertaken("too late")


def start_of(fake: FakeSkyvern, checks: Callable[[], object]) -> Call[Any]:
    request = RunRequest.of({"workflow_id": fake.workflow(), "parameters": {}}, {})
    return replace(api.start_run(request), before_sending=checks)


@pytest.fixture
def settings(fake: FakeSkyvern, loopback: Loopback) -> Settings:
    loopback.fake = fake
    return Settings(API_KEY, base_url=loopback.url)


@pytest.mark.parametrize("refuse", [1, 2])
def test_a_start_that_is_refused_at_the_last_moment_starts_nothing(
    fake: FakeSkyvern, settings: Settings, refuse: int
) -> None:
    with SkyvernClient(settings) as client:
        with pytest.raises(SkyvernOvertaken):
            client.send(start_of(fake, Checks(refuse)))
        assert client.send(start_of(fake, Checks())).run_id in fake.runs  # the client is as good as before
    assert len(fake.runs) == 1


@pytest.mark.parametrize("refuse", [1, 2])
async def test_the_same_in_an_event_loop(fake: FakeSkyvern, settings: Settings, refuse: int) -> None:
    async with AsyncSkyvernClient(settings) as client:
        with pytest.raises(SkyvernOvertaken):
            await client.send(start_of(fake, Checks(refuse)))
        assert (await client.send(start_of(fake, Checks()))).run_id in fake.runs
    assert len(fake.runs) == 1


def test_each_repetition_is_checked_as_pauses_may_be_long(fake: FakeSkyvern, settings: Settings) -> None:
    fake.next("POST", START, httpx.Response(429, json={"detail": "Rate limit exceeded for organization o_1."}))
    checks = Checks(refuse=3)
    client = SkyvernClient(settings, retry=RetryPolicy(attempts=3), sleep=lambda _: None)
    with client, pytest.raises(SkyvernOvertaken):
        client.send(start_of(fake, checks))
    assert fake.runs == {}


def test_the_check_comes_after_a_connection_that_took_long(fake: FakeSkyvern) -> None:
    """It takes part of the time that a check is good for."""
    seen: list[str] = []
    with (
        listener() as (port, accepted),
        SkyvernClient(Settings(API_KEY, base_url=f"http://127.0.0.1:{port}")) as client,
    ):

        def check() -> None:
            seen.append("connected" if accepted() else "not connected")
            raise SkyvernOvertaken("too late")

        with pytest.raises(SkyvernOvertaken):
            client.send(start_of(fake, check))
    assert seen == ["connected"]


@contextmanager
def listener() -> Iterator[tuple[int, Callable[[], bool]]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        yield server.getsockname()[1], lambda: bool(server.accept())
