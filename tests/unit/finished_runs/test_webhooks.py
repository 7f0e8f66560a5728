"""The receiver, in front of a hand-over that only notes; Airflow 3."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import airflow
import httpx
import pytest

if airflow.__version__.startswith("2."):
    pytest.skip("the API server came with Airflow 3", allow_module_level=True)

from fastapi import Request

from airflow_skyvern.finished_runs import webhooks
from airflow_skyvern.finished_runs.webhooks import (
    REFUSED_AFTER,
    Limits,
    Receiver,
    SigningKeys,
    TokenBucket,
    app,
    parse_delivery,
)
from airflow_skyvern.provider_info import CONFIG

if TYPE_CHECKING:
    from airflow_skyvern.finished_runs.registry import Delivered, DeliveryResult

KEY = "made-up-key"
BODY = {
    "run_id": "wr_1",
    "workflow_run_id": "wr_1",
    "workflow_id": "wpid_1",
    "status": "completed",
    "retry_pending": False,
    "created_at": "2026-11-22T20:02:56.133966",
    "finished_at": "2026-11-22T20:02:57.413436",
    "app_url": "http://localhost:8080/runs/wr_1",
    "outputs": {"secret": "in the output"},
}


class Desk:
    """Takes what the receiver hands over."""

    def __init__(self) -> None:
        self.batches: list[list[Delivered]] = []
        self.result: DeliveryResult = "event created"
        self.seconds = 0.0
        self.error: Exception | None = None

    def __call__(self, batch: Sequence[Delivered]) -> list[DeliveryResult]:
        time.sleep(self.seconds)
        self.batches.append(list(batch))
        if self.error is not None:
            raise self.error
        return [self.result] * len(batch)

    @property
    def taken(self) -> list[Delivered]:
        return [finished for batch in self.batches for finished in batch]


class Ring:
    """The keys of the connections."""

    def __init__(self) -> None:
        self.keys = {"prod": KEY.encode()}
        self.asked: list[str] = []

    def __call__(self, conn_id: str) -> bytes | None:
        self.asked.append(conn_id)
        return self.keys.get(conn_id)


@pytest.fixture(autouse=True)
def refusals_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the half second, but where it is what a test is about."""
    monkeypatch.setattr(webhooks, "REFUSED_AFTER", 0.02)


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def ring() -> Ring:
    return Ring()


@pytest.fixture
async def client(desk: Desk, ring: Ring) -> AsyncIterator[httpx.AsyncClient]:
    limits = Limits(frozenset({"prod", "broken", "team/prod"}), max_bytes=20_000)
    async with client_of(Receiver(limits, ring, desk)) as made:
        yield made


def client_of(receiver: Receiver) -> httpx.AsyncClient:
    receiver._requeue_soon = lambda *key: None  # type: ignore[method-assign]  # there is no database here
    return httpx.AsyncClient(transport=httpx.ASGITransport(app(receiver)), base_url="http://airflow")


def sign(body: bytes, key: str = KEY) -> str:
    return hmac.new(key.encode(), body, hashlib.sha256).hexdigest()


async def deliver(
    client: httpx.AsyncClient, body: Any = None, *, path: str = "prod", signature: str | None = None
) -> httpx.Response:
    raw = body if isinstance(body, bytes) else json.dumps(BODY if body is None else body).encode()
    headers = {"x-skyvern-signature": sign(raw) if signature is None else signature}
    return await client.post(f"/webhooks/{path}", content=raw, headers=headers)


async def test_a_signed_delivery_is_handed_over(client: httpx.AsyncClient, desk: Desk) -> None:
    answer = await deliver(client)
    assert (answer.status_code, answer.json()) == (200, {"result": "event created", "run_id": "wr_1"})
    [finished] = desk.taken
    assert finished.conn_id == "prod"
    assert finished.ended == datetime(2026, 11, 22, 20, 2, 57, 413436, timezone.utc)
    assert finished.run == {
        "run_id": "wr_1",
        "status": "completed",
        "workflow_id": "wpid_1",
        "finished_at": "2026-11-22T20:02:57.413436+00:00",
        "app_url": "http://localhost:8080/runs/wr_1",
    }


@pytest.mark.parametrize(
    "signature", ["", "0" * 64, "nonsense", "\u00e9".encode("latin-1").decode("latin-1"), sign(b"another body")]
)
async def test_a_wrong_signature_is_401_and_nothing_else_happens(
    client: httpx.AsyncClient, desk: Desk, signature: str
) -> None:
    raw = json.dumps(BODY).encode()
    headers = [(b"x-skyvern-signature", signature.encode("latin-1"))]
    answer = await client.post("/webhooks/prod", content=raw, headers=headers)
    assert (answer.status_code, answer.json()) == (401, {"detail": "Invalid signature"})
    assert desk.taken == []


async def test_no_signature_is_401(client: httpx.AsyncClient, desk: Desk) -> None:
    assert (await client.post("/webhooks/prod", json=BODY)).status_code == 401
    assert desk.taken == []


@pytest.mark.parametrize("path", ["nobody", "", "../prod", "skyvern_default", "broken", "prod/"])
async def test_an_unknown_connection_answers_as_a_wrong_signature_does(
    client: httpx.AsyncClient, desk: Desk, path: str
) -> None:
    wrong = await deliver(client, signature="0" * 64)
    unknown = await deliver(client, path=path)
    if path not in ("", "../prod"):  # those are no address of a receiver
        assert (unknown.status_code, unknown.content) == (wrong.status_code, wrong.content)
        assert dict(unknown.headers) == dict(wrong.headers)
    assert desk.taken == []


@pytest.mark.slow
async def test_the_time_of_a_refusal_does_not_show_which_connections_take_webhooks(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "REFUSED_AFTER", REFUSED_AFTER)

    def read_slowly(conn_id: str) -> bytes:
        time.sleep(0.1)
        return b"key"

    async def refused_after(client: httpx.AsyncClient, path: str) -> float:
        began = time.monotonic()
        assert (await deliver(client, path=path, signature="0" * 64)).status_code == 401
        return time.monotonic() - began

    async with client_of(Receiver(Limits(frozenset({"prod"})), read_slowly, desk)) as client:
        prod = [await refused_after(client, "prod") for _ in range(3)]
        nobody = [await refused_after(client, "nobody") for _ in range(3)]
    assert abs(min(prod) - min(nobody)) < 0.08  # a busy machine only adds to a time


async def test_only_configured_connections_are_looked_up(client: httpx.AsyncClient, ring: Ring) -> None:
    for path in ("nobody", "aws_default", "prod"):
        await deliver(client, path=path)
    assert ring.asked == ["prod"]


async def test_a_connection_may_have_a_slash_in_its_id(client: httpx.AsyncClient, ring: Ring) -> None:
    ring.keys["team/prod"] = KEY.encode()
    assert (await deliver(client, path="team/prod")).status_code == 200


async def test_one_byte_more_is_another_body(client: httpx.AsyncClient, desk: Desk) -> None:
    raw = json.dumps(BODY).encode()
    assert (await deliver(client, raw + b" ", signature=sign(raw))).status_code == 401
    assert desk.taken == []


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"{", "Invalid JSON"),
        (b"", "Invalid JSON"),
        (b"\xff\xfe", "Invalid JSON"),
        (b"[" * 10_000, "Invalid JSON"),
        (b"[]", "should be an object"),
        ({}, "run_id"),
        ({**BODY, "run_id": 5, "workflow_run_id": 5}, "run_id"),
        ({**BODY, "run_id": ""}, "run_id"),
        ({**BODY, "run_id": "x" * 300}, "run_id"),
        ({**BODY, "status": None}, "status"),
        ({**BODY, "created_at": "yesterday"}, "created_at"),
    ],
)
async def test_a_signed_body_that_is_no_webhook_is_400(
    client: httpx.AsyncClient, desk: Desk, body: Any, complaint: str
) -> None:
    answer = await deliver(client, body)
    assert answer.status_code == 400
    assert complaint in answer.json()["detail"]
    assert "secret" not in answer.text
    assert desk.taken == []


@pytest.mark.parametrize(
    ("change", "result"),
    [
        ({"status": "failed", "retry_pending": True}, "not finished"),
        ({"status": "running"}, "not finished"),
        ({"status": "of tomorrow"}, "not finished"),
        ({"workflow_id": None}, "not of a workflow"),
    ],
)
async def test_what_starts_nothing_is_accepted_all_the_same(
    client: httpx.AsyncClient, desk: Desk, change: dict[str, Any], result: str
) -> None:
    answer = await deliver(client, {**BODY, **change})
    assert (answer.status_code, answer.json()["result"]) == (200, result)
    assert desk.taken == []


@pytest.mark.parametrize(
    ("result", "status"),
    [("duplicate", 200), ("too old", 200), ("no asset", 404), ("in the future", 400)],
)
async def test_the_answer_says_what_has_become_of_the_run(
    client: httpx.AsyncClient, desk: Desk, result: DeliveryResult, status: int
) -> None:
    desk.result = result
    assert (await deliver(client)).status_code == status


async def test_a_body_is_bounded_whatever_it_says_of_its_length(client: httpx.AsyncClient, desk: Desk) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(1000):
            read += 1000
            yield b"x" * 1000

    answer = await client.post("/webhooks/prod", content=endless(), headers={"x-skyvern-signature": "0"})
    assert answer.status_code == 413
    assert read < 30_000
    lying = {"x-skyvern-signature": "0", "content-length": "5"}
    assert (await client.post("/webhooks/prod", content=b"x" * 30_000, headers=lying)).status_code == 413
    assert desk.taken == []


async def test_a_body_that_never_ends_is_given_up(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "READ_TIMEOUT", 0.05)

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.sleep(5)
        yield b"}"

    assert (await client.post("/webhooks/prod", content=slow())).status_code == 408


@pytest.mark.slow
async def test_all_bodies_together_are_bounded(desk: Desk, ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks, "MAX_BYTES_HELD", 10_000)
    receiver = Receiver(Limits(frozenset({"prod"}), max_bytes=4_000), ring, desk)
    gate = asyncio.Event()

    async def waiting() -> AsyncIterator[bytes]:
        yield b"x" * 3_500
        await gate.wait()

    async with client_of(receiver) as client:
        held = [asyncio.create_task(client.post("/webhooks/prod", content=waiting())) for _ in range(2)]
        await asyncio.sleep(0.1)
        refused = await deliver(client, {**BODY, "more": "x" * 3_500})
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        gate.set()
        assert {answer.status_code for answer in await asyncio.gather(*held)} == {401}
        assert (await deliver(client, {**BODY, "more": "x" * 3_400})).status_code == 200
    assert receiver._held == 0


async def test_the_rate_is_bounded(desk: Desk, ring: Ring) -> None:
    async with client_of(Receiver(Limits(frozenset({"prod"}), rate=5), ring, desk)) as client:
        answers = [await deliver(client) for _ in range(15)]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) in (4, 5)
    assert refused[0].headers["retry-after"] == "1"


def test_a_bucket_fills_again() -> None:
    now = 0.0
    bucket = TokenBucket(2, clock=lambda: now)
    assert [bucket.take() for _ in range(5)] == [True] * 4 + [False]
    now = 1.0
    assert [bucket.take() for _ in range(3)] == [True, True, False]


@pytest.mark.slow
async def test_many_deliveries_are_handed_over_in_few_batches(client: httpx.AsyncClient, desk: Desk) -> None:
    desk.seconds = 0.1
    answers = await asyncio.gather(*(deliver(client, {**BODY, "run_id": f"wr_{n}"}) for n in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(desk.taken) == 50
    assert len(desk.batches) <= 5


async def test_a_batch_that_fails_fails_its_own_deliveries_only(
    desk: Desk, ring: Ring, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = Receiver(Limits(frozenset({"prod"})), ring, desk)
    receiver._requeue_soon = lambda *key: None  # type: ignore[method-assign]  # there is no database here
    transport = httpx.ASGITransport(app(receiver), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://airflow") as client:
        desk.error = RuntimeError("the database is gone")
        assert (await deliver(client)).status_code == 500
        desk.error = None
        assert (await deliver(client)).status_code == 200


async def test_keys_are_kept_for_a_while_and_a_new_one_is_noticed(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, body = SigningKeys(ring), b"{}"
    for _ in range(5):
        assert await keys.signed("prod", body, sign(body))
    assert ring.asked == ["prod"]
    ring.keys["prod"] = b"the-next-key"
    keys._known["prod"].read_at -= 2
    assert await keys.signed("prod", body, sign(body, "the-next-key"))
    assert not await keys.signed("prod", body, sign(body))
    assert len(ring.asked) == 2


async def test_wrong_signatures_do_not_make_the_connection_be_read_each_time(ring: Ring) -> None:
    keys = SigningKeys(ring)
    for _ in range(100):
        assert not await keys.signed("prod", b"{}", "0" * 64)
    assert len(ring.asked) == 1


async def test_a_connection_that_cannot_be_read_is_no_open_door(caplog: pytest.LogCaptureFixture) -> None:
    assert await asyncio.to_thread(webhooks.read_api_key, "nowhere") is None
    keys = SigningKeys(webhooks.read_api_key)
    assert not await keys.signed("nowhere", b"{}", sign(b"{}", ""))


def test_the_defaults_are_those_of_the_metadata() -> None:
    options = CONFIG["skyvern"]["options"]
    limits = Limits(frozenset())
    ours = {name for name in options if name.startswith("webhook_")}
    assert ours == {"webhook_connections", "webhook_max_bytes", "webhook_rate", "webhook_max_age"}
    for name in ("max_bytes", "rate", "max_age"):
        assert float(options[f"webhook_{name}"]["default"]) == getattr(limits, name)
    assert options["webhook_connections"]["default"] == ""


def test_the_configuration_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__SKYVERN__WEBHOOK_CONNECTIONS", " prod, team/prod ,")
    monkeypatch.setenv("AIRFLOW__SKYVERN__WEBHOOK_MAX_BYTES", "5")
    monkeypatch.setenv("AIRFLOW__SKYVERN__WEBHOOK_RATE", "2.5")
    assert Limits.configured() == Limits(frozenset({"prod", "team/prod"}), 5, 2.5)


async def test_the_log_holds_neither_key_nor_output(
    client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    await deliver(client)
    await deliver(client, signature="0" * 64)
    assert KEY not in caplog.text
    assert "in the output" not in caplog.text


async def test_unsigned_requests_do_not_use_up_the_rate_of_signed_ones(desk: Desk, ring: Ring) -> None:
    receiver = Receiver(Limits(frozenset({"prod"}), rate=1), ring, desk)
    stranger = httpx.ASGITransport(app(receiver), client=("10.0.0.1", 1))
    async with client_of(receiver) as client, httpx.AsyncClient(transport=stranger, base_url="http://airflow") as bad:
        at_once = await asyncio.gather(*(deliver(bad, signature="0") for _ in range(30)))
        assert Counter(answer.status_code for answer in at_once)[401] >= 2
        assert (await deliver(bad, signature="0")).status_code == 429
        assert (await deliver(client)).status_code == 200


@pytest.mark.slow
async def test_wrong_signatures_read_a_connection_one_at_a_time(desk: Desk) -> None:
    reading = most = reads = 0

    def read(conn_id: str) -> bytes:
        nonlocal reading, most, reads
        reading, reads = reading + 1, reads + 1
        most = max(most, reading)
        time.sleep(0.01)
        reading -= 1
        return KEY.encode()

    async with client_of(Receiver(Limits(frozenset({"prod"}), rate=1000), read, desk)) as client:
        await asyncio.gather(*(deliver(client, signature="0") for _ in range(200)))
    assert (most, reads <= 3) == (1, True)


@pytest.mark.slow
async def test_a_refused_body_is_not_kept_by_its_error(desk: Desk, ring: Ring) -> None:
    receiver = Receiver(Limits(frozenset({"prod"}), max_bytes=9_000_000), ring, desk)
    kept: list[bytearray] = []
    check = receiver._checked

    async def checked(conn_id: str, body: bytearray, signature: str, client: str) -> Any:
        kept.append(body)
        return await check(conn_id, body, signature, client)

    receiver._checked = checked  # type: ignore[method-assign]  # to get hold of the body
    async with client_of(receiver) as client:
        assert (await deliver(client, b"x" * 8_000_000, signature="0")).status_code == 401
        assert (await deliver(client, {**BODY, "output": "x" * 8_000_000})).status_code == 200
    assert [len(body) for body in kept] == [0, 0]
    assert receiver._held == 0


async def test_an_output_becomes_no_objects(client: httpx.AsyncClient, desk: Desk) -> None:
    assert (await deliver(client, {**BODY, "output": {"deep": [1, 2]}})).status_code == 200
    assert parse_delivery(json.dumps({**BODY, "output": {"deep": [1, 2]}}).encode()).model_extra in (None, {})


@pytest.mark.parametrize("field", ["run_id", "workflow_id"])
async def test_an_id_with_control_characters_is_refused(client: httpx.AsyncClient, desk: Desk, field: str) -> None:
    """PostgreSQL stores no NUL: the DAG run that such an id started failed."""
    answer = await deliver(client, {**BODY, field: "wr_\x00"})
    assert answer.status_code == 400
    assert desk.taken == []


async def test_a_client_that_hangs_up_is_no_error(desk: Desk, ring: Ring) -> None:
    receiver = Receiver(Limits(frozenset({"prod"})), ring, desk)

    async def hang_up() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "POST", "headers": [], "path": "/", "query_string": b"", "client": ("c", 1)}
    answer = await receiver.receive("prod", Request(scope, hang_up))
    assert answer.status_code == 400
