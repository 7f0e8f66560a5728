from __future__ import annotations

import asyncio
import gc
import gzip
import logging
import ssl
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import pytest

from airflow_skyvern import __version__
from airflow_skyvern.client import api
from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.client.run_request import RunRequest
from airflow_skyvern.client.sender import AsyncSkyvernClient, SkyvernClient, tls_context
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.exceptions import (
    SkyvernAnswerTooLarge,
    SkyvernAPIError,
    SkyvernAuthError,
    SkyvernConfigError,
    SkyvernConnectionError,
    SkyvernError,
    SkyvernNotFoundError,
    SkyvernRateLimitError,
    SkyvernRequestError,
    SkyvernResponseError,
    SkyvernServerError,
)
from airflow_skyvern.testing.fake.skyvern import API_KEY, LOST, FakeSkyvern

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call

T = TypeVar("T")

SETTINGS = Settings(API_KEY, base_url="https://skyvern.example.com/prefix")
START = "/v1/run/workflows"
BUSY = httpx.Response(503, json={"detail": "The server is busy. No run was created; retry this request."})


class Client:
    """Either client, driven from a test that need not know which; its pauses are kept, not slept."""

    def __init__(self, mode: str, fake: FakeSkyvern) -> None:
        self.mode = mode
        self.pauses: list[float] = []
        self.use(Settings(API_KEY, base_url="https://skyvern.example.com"), fake.handle)

    def use(self, settings: Settings, handler: Callable[[httpx.Request], httpx.Response], **more: Any) -> None:
        transport = httpx.MockTransport(handler)
        self._sync = SkyvernClient(settings, transport=transport, sleep=self.pauses.append, **more)
        self._async = AsyncSkyvernClient(settings, transport=transport, sleep=self._asleep, **more)

    async def _asleep(self, seconds: float) -> None:
        self.pauses.append(seconds)

    def send(self, call: Call[T]) -> T:
        if self.mode == "sync":
            return self._sync.send(call)
        return asyncio.run(self._async.send(call))


@pytest.fixture(params=["sync", "async"])
def client(request: pytest.FixtureRequest, fake: FakeSkyvern) -> Client:
    return Client(request.param, fake)


def start(workflow_id: str, **parameters: Any) -> Call[Any]:
    return api.start_run(RunRequest.of({"workflow_id": workflow_id, "parameters": parameters}))


def test_a_run_is_started_watched_and_read(client: Client, fake: FakeSkyvern) -> None:
    workflow = fake.workflow(plan=("queued", "running", "completed"), output={"sum": 45})
    run = client.send(start(workflow))
    assert (run.status, run.app_url) == ("created", f"http://localhost:8080/runs/{run.run_id}")
    seen = [client.send(api.get_run(run.run_id)) for _ in range(3)]
    assert [look.status for look in seen] == ["queued", "running", "completed"]
    assert seen[-1].output == {"sum": 45}


def test_the_key_goes_in_its_header_and_nowhere_else(client: Client, fake: FakeSkyvern) -> None:
    client.send(start(fake.workflow()))
    [request] = fake.requests
    assert request.headers["x-api-key"] == API_KEY
    assert request.headers["user-agent"] == f"airflow-provider-skyvern/{__version__}"
    assert "authorization" not in request.headers
    assert API_KEY not in f"{request.path}{request.query}{request.content!r}"


def test_the_path_of_the_base_url_is_kept(client: Client) -> None:
    paths: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        paths.append(str(request.url))
        return httpx.Response(200, json={"version": "1"})

    client.use(SETTINGS, handler)
    client.send(api.get_version())
    assert paths == ["https://skyvern.example.com/prefix/v1/version"]


def test_timeouts_are_those_of_the_settings(client: Client) -> None:
    timeouts: list[Any] = []

    def handler(request: httpx.Request) -> httpx.Response:
        timeouts.append(request.extensions["timeout"])
        return httpx.Response(200, json={"version": "1"})

    client.use(Settings("k", timeout=30), handler)
    client.send(api.get_version())
    client.use(Settings("k", timeout=4), handler)
    client.send(api.get_version())
    assert timeouts == [
        {"connect": 10, "read": 30, "write": 30, "pool": 30},
        {"connect": 4, "read": 4, "write": 4, "pool": 4},
    ]


def test_lists_are_read_to_the_end(client: Client, fake: FakeSkyvern) -> None:
    runs = [fake.run() for _ in range(201)]
    rows = client.send(api.list_runs())
    assert [row.run_id for row in rows] == runs[::-1]
    assert [request.query["page"] for request in fake.requests] == [["1"], ["2"], ["3"]]


def test_a_row_that_moves_to_the_next_page_while_reading_comes_once(client: Client, fake: FakeSkyvern) -> None:
    runs = [fake.run() for _ in range(150)]

    def handler(request: httpx.Request) -> httpx.Response:
        answer = fake.handle(request)
        fake.run()
        return answer

    client.use(Settings(API_KEY), handler)
    assert [row.run_id for row in client.send(api.list_runs())] == runs[::-1]


def test_a_file_is_uploaded_with_its_name_and_days(client: Client, fake: FakeSkyvern) -> None:
    uploaded = client.send(api.upload_file(b"%PDF \x00\xff", "cv.pdf", retention_days=3))
    assert fake.uploads[str(uploaded.file_id)] == ("cv.pdf", b"%PDF \x00\xff")
    assert uploaded.expires_at is not None


@pytest.mark.parametrize(
    ("status", "body", "kind", "detail"),
    [
        (403, {"detail": "Invalid credentials"}, SkyvernAuthError, "Invalid credentials"),
        (404, {"detail": "Task run not found wr_1"}, SkyvernNotFoundError, "Task run not found wr_1"),
        (
            *(422, {"detail": [{"type": "t", "loc": ["body", "a"], "msg": "no", "input": "s"}]}),
            *(SkyvernRequestError, "a: no"),
        ),
    ],
)
def test_errors_that_stay_are_raised_at_once(
    client: Client, fake: FakeSkyvern, *, status: int, body: Any, kind: type[SkyvernAPIError], detail: str
) -> None:
    fake.next("GET", "/v1/runs/wr_1", httpx.Response(status, json=body))
    with pytest.raises(kind) as caught:
        client.send(api.get_run("wr_1"))
    assert (caught.value.status_code, caught.value.detail) == (status, detail)
    assert len(fake.requests) == 1
    assert client.pauses == []


@pytest.mark.parametrize(
    ("result", "kind"),
    [
        (httpx.Response(429, json={"detail": "Rate limit exceeded"}), SkyvernRateLimitError),
        (httpx.Response(500, json={"error": "Unexpected error: KeyError"}), SkyvernServerError),
        (httpx.Response(502, html="<h1>Bad Gateway</h1>"), SkyvernServerError),
        (httpx.Response(200, html="<h1>Welcome</h1>"), SkyvernResponseError),
        (httpx.Response(200, content=b'{"run_id": "wr_'), SkyvernResponseError),
        (httpx.Response(200, json={"status": "running"}), SkyvernResponseError),
        (httpx.Response(204), SkyvernResponseError),
        (httpx.ConnectError("refused"), SkyvernConnectionError),
        (httpx.ReadTimeout("too slow"), SkyvernConnectionError),
        (httpx.RemoteProtocolError("hung up"), SkyvernConnectionError),
        (httpx.ReadError("reset"), SkyvernConnectionError),
        (httpx.DecodingError("bad gzip"), SkyvernConnectionError),
    ],
    ids=str,
)
def test_a_question_is_asked_again_after_errors_that_may_pass(
    client: Client, fake: FakeSkyvern, result: httpx.Response | Exception, kind: type[SkyvernError]
) -> None:
    run_id = fake.run(plan=("running",))
    fake.next("GET", "/v1/runs/.*", *[result] * 4)
    assert client.send(api.get_run(run_id)).status == "running"
    assert len(client.pauses) == 4
    fake.next("GET", "/v1/runs/.*", *[result] * 5)
    with pytest.raises(kind):
        client.send(api.get_run(run_id))


def test_pauses_double_with_a_little_jitter(client: Client, fake: FakeSkyvern) -> None:
    fake.next("GET", "/v1/version", *[httpx.Response(500)] * 5)
    with pytest.raises(SkyvernServerError):
        client.send(api.get_version())
    for pause, low in zip(client.pauses, (0.5, 1, 2, 4), strict=True):
        assert low <= pause <= low * 1.25


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_the_server_is_left_alone_as_long_as_it_asks(client: Client, fake: FakeSkyvern, form: str) -> None:
    moment = datetime.now(timezone.utc) + timedelta(seconds=20)
    asked = "20" if form == "seconds" else format_datetime(moment, usegmt=True)
    fake.next("GET", "/v1/version", httpx.Response(429, headers={"retry-after": asked}))
    client.send(api.get_version())
    assert len(client.pauses) == 1
    assert 17 <= client.pauses[0] <= 25


def test_a_server_that_asks_for_too_long_is_not_waited_for(client: Client, fake: FakeSkyvern) -> None:
    fake.next("GET", "/v1/version", httpx.Response(503, headers={"retry-after": "31"}))
    with pytest.raises(SkyvernServerError) as caught:
        client.send(api.get_version())
    assert caught.value.retry_after == 31
    assert client.pauses == []


@pytest.mark.parametrize("asked", ["soon", "", "-5", "Sun, 22 Nov 2020 20:00:00 GMT"])
def test_a_retry_after_that_says_nothing_is_ignored(client: Client, fake: FakeSkyvern, asked: str) -> None:
    fake.next("GET", "/v1/version", httpx.Response(429, headers={"retry-after": asked}))
    client.send(api.get_version())
    assert client.pauses[0] < 1


def test_how_often_is_a_setting(client: Client, fake: FakeSkyvern) -> None:
    client.use(Settings(API_KEY), fake.handle, retry=RetryPolicy(attempts=1))
    fake.next("GET", "/v1/version", httpx.Response(500))
    with pytest.raises(SkyvernServerError):
        client.send(api.get_version())
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    "result",
    [
        LOST,
        httpx.RemoteProtocolError("hung up"),
        httpx.WriteError("reset"),
        httpx.Response(500, json={"error": "Unexpected error"}),
        httpx.Response(502, html="<h1>Bad Gateway</h1>"),
        httpx.Response(503, json={"error": "Database temporarily unavailable"}),
        httpx.Response(504, html="<h1>Gateway Timeout</h1>"),
        httpx.Response(200, html="<h1>Welcome</h1>"),
    ],
    ids=str,
)
def test_a_start_whose_answer_was_lost_is_never_sent_twice(client: Client, fake: FakeSkyvern, result: Any) -> None:
    workflow = fake.workflow()
    fake.next("POST", START, result)
    with pytest.raises(SkyvernError) as caught:
        client.send(start(workflow))
    assert caught.value.transient
    assert len(fake.sent("POST", START)) == 1
    assert client.pauses == []


@pytest.mark.parametrize(
    "result",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("too slow"),
        httpx.PoolTimeout("too busy"),
        httpx.Response(429, json={"detail": "Rate limit exceeded"}),
        BUSY,
    ],
    ids=str,
)
def test_a_start_that_provably_did_nothing_is_sent_again(client: Client, fake: FakeSkyvern, result: Any) -> None:
    workflow = fake.workflow()
    fake.next("POST", START, result)
    client.send(start(workflow))
    assert len(fake.sent("POST", START)) == 2
    assert len(fake.runs) == 1


def test_what_cannot_be_done_twice_is_repeated_after_a_lost_answer(client: Client, fake: FakeSkyvern) -> None:
    run_id = fake.run(plan=("running",))
    fake.next("POST", "/v1/runs/.*/cancel", LOST)
    client.send(api.cancel_run(run_id))
    assert len(fake.sent("POST", "/v1/runs/.*/cancel")) == 2
    assert fake.status(run_id) == "canceled"


@pytest.mark.parametrize(
    "call",
    [
        api.retry_run("wr_1"),
        api.continue_run("wr_1"),
        api.upload_file(b"x"),
        api.retry_webhook("wr_1"),
    ],
    ids=lambda call: call.what,
)
def test_nothing_else_that_acts_is_repeated_after_a_lost_answer(
    client: Client, fake: FakeSkyvern, call: Call[Any]
) -> None:
    fake.next(call.method, call.path, httpx.ReadTimeout("lost"))
    with pytest.raises(SkyvernConnectionError):
        client.send(call)
    assert len(fake.requests) == 1


def test_no_answer_says_who_did_not_answer_and_whether_the_request_left(client: Client, fake: FakeSkyvern) -> None:
    fake.next("POST", START, httpx.ReadTimeout("timed out"))
    with pytest.raises(SkyvernConnectionError) as caught:
        client.send(start("wpid_1"))
    assert not caught.value.never_sent
    assert "Could not start workflow wpid_1: no answer from https://skyvern.example.com" in str(caught.value)
    assert "(ReadTimeout: nothing was received for 30 s, see the timeout field" in str(caught.value)
    assert "; the request may have arrived" in str(caught.value)

    fake.next("GET", "/v1/version", *[httpx.ConnectError("")] * 5)
    with pytest.raises(SkyvernConnectionError) as caught:
        client.send(api.get_version())
    assert caught.value.never_sent
    assert "(ConnectError); the request was not sent" in str(caught.value)


def test_an_answer_of_something_else_is_described(client: Client, fake: FakeSkyvern) -> None:
    fake.next("POST", START, httpx.Response(200, html="<h1>Welcome to s3cr3t</h1>"))
    with pytest.raises(SkyvernResponseError) as caught:
        client.send(start("wpid_1"))
    assert "the answer (200, text/html; charset=utf-8, 26 bytes) is not what the Skyvern API" in str(caught.value)
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.status_code == 200


def test_a_wrong_field_of_an_answer_is_named_without_its_value(client: Client, fake: FakeSkyvern) -> None:
    fake.next("POST", START, httpx.Response(200, json={"run_id": "wr_1", "status": ["s3cr3t"]}))
    with pytest.raises(SkyvernResponseError, match="status: Input should be a valid string") as caught:
        client.send(start("wpid_1"))
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_host_name_that_no_resolver_takes_was_asked_nothing() -> None:
    settings = Settings("k", base_url=f"https://{'x' * 64}.example.com")
    client = SkyvernClient(settings, retry=RetryPolicy(attempts=1))
    with client, pytest.raises(SkyvernConnectionError) as caught:
        client.send(api.get_version())
    assert caught.value.never_sent


def test_a_redirect_is_not_followed_but_explained(client: Client, fake: FakeSkyvern) -> None:
    location = "https://login.example.com/sso?token=s3cr3t#x"
    fake.next("GET", "/v1/version", *[httpx.Response(302, headers={"location": location})] * 5)
    with pytest.raises(
        SkyvernAPIError,
        match=r"redirects to https://login\.example\.com/sso; if that is a login page, a proxy asks for a login",
    ) as caught:
        client.send(api.get_version())
    assert "s3cr3t" not in str(caught.value)


def test_neither_reprs_nor_logs_show_the_key(
    client: Client, fake: FakeSkyvern, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    settings = Settings("s3cr3t-key", proxy="http://user:s3cr3t-key@proxy:3128")
    client.use(Settings("s3cr3t-key"), fake.handle)
    with pytest.raises(SkyvernAuthError) as caught:
        client.send(api.get_run("wr_1"))
    assert "s3cr3t-key" not in f"{settings!r} {caught.value!r} {caught.value} {caplog.text}"
    assert fake.requests[0].headers["x-api-key"] == "s3cr3t-key"


@pytest.mark.parametrize(
    ("base_url", "exposes"),
    [
        ("https://api.skyvern.com", False),
        ("http://skyvern.internal:8000", True),
        ("http://127.0.0.1:8000", False),
        ("http://localhost", False),
        ("http://[::1]:8000", False),
        ("http://localhost.example.com", True),
    ],
)
def test_plain_http_exposes_the_key_unless_it_stays_on_the_machine(base_url: str, *, exposes: bool) -> None:
    assert Settings("k", base_url=base_url).exposes_key is exposes


def test_settings_can_be_held_to_fewer_seconds_but_not_to_more() -> None:
    settings = Settings("k", base_url="https://x", timeout=30, proxy="http://p", verify=False)
    assert settings.within(4) == Settings("k", base_url="https://x", timeout=4, proxy="http://p", verify=False)
    assert settings.within(60) == settings


def test_the_tls_context_is_made_once_and_checks_certificates() -> None:
    assert tls_context(Settings("k", verify=True)) is tls_context(Settings("another", verify=True))
    assert tls_context(Settings("k", verify=True)).verify_mode is ssl.CERT_REQUIRED
    assert tls_context(Settings("k", verify=False)).verify_mode is ssl.CERT_NONE


def test_a_certificate_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SkyvernConfigError, match=r"verify: cannot read certificates from .*missing\.pem"):
        SkyvernClient(Settings("k", verify=str(tmp_path / "missing.pem")))
    (tmp_path / "wrong.pem").write_text("no certificate")
    with pytest.raises(SkyvernConfigError, match=r"verify: cannot read certificates from .*wrong\.pem"):
        AsyncSkyvernClient(Settings("k", verify=str(tmp_path / "wrong.pem")))


async def test_waits_that_share_a_client_do_not_share_their_retries(fake: FakeSkyvern) -> None:
    runs = [fake.run(plan=("running",)) for _ in range(20)]
    for run_id in runs[::2]:
        fake.next("GET", f"/v1/runs/{run_id}", httpx.Response(500), httpx.Response(500))
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    async with AsyncSkyvernClient(
        Settings(API_KEY), transport=httpx.MockTransport(fake.handle), sleep=sleep
    ) as client:
        answers = await asyncio.gather(*(client.send(api.get_run(run_id)) for run_id in runs))
    assert [answer.run_id for answer in answers] == runs
    assert len(pauses) == 20
    assert max(pauses) <= 1.25


def test_a_client_closes_its_connections_at_the_end_of_its_block(fake: FakeSkyvern) -> None:
    with SkyvernClient(Settings(API_KEY), transport=httpx.MockTransport(fake.handle)) as client:
        client.send(api.get_version())
    with pytest.raises(RuntimeError, match="closed"):
        client.send(api.get_version())


class Closable(httpx.MockTransport):
    def __init__(self, fake: FakeSkyvern) -> None:
        super().__init__(fake.handle)
        self.closings: list[str] = []

    def close(self) -> None:
        self.closings.append("closed")

    async def aclose(self) -> None:
        self.closings.append("closed")


@pytest.mark.slow
async def test_a_client_closes_its_connections_when_nobody_uses_it_any_more(fake: FakeSkyvern) -> None:
    transport, other = Closable(fake), Closable(fake)
    client = SkyvernClient(Settings(API_KEY), transport=transport)
    client.close_when_unused()
    client.send(api.get_version())
    twin = AsyncSkyvernClient(Settings(API_KEY), transport=other)
    twin.close_when_unused()
    await twin.send(api.get_version())
    assert transport.closings + other.closings == []
    del client, twin
    gc.collect()
    await asyncio.sleep(0.01)
    assert transport.closings + other.closings == ["closed", "closed"]


def test_requests_leave_no_line_each_in_the_log_of_a_task(
    fake: FakeSkyvern, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    transport = httpx.MockTransport(fake.handle)
    with SkyvernClient(Settings(api_key=API_KEY), transport=transport) as client:
        client.send(api.get_version())
    assert "HTTP Request" not in caplog.text


@pytest.mark.parametrize("mark", "/?#")
def test_an_unreadable_proxy_is_named_without_any_part_of_its_password(mark: str) -> None:
    proxy = f"http://user:s3cr3t{mark}more@proxy.example.com:3128"
    with pytest.raises(SkyvernConfigError, match="percent-encode") as caught:
        SkyvernClient(Settings(API_KEY, proxy=proxy))
    assert "s3cr3t" not in repr(caught.value)
    assert "more" not in str(caught.value).replace("no more", "")


@pytest.mark.slow
def test_an_answer_is_bounded_after_decompression_and_not_asked_for_again(fake: FakeSkyvern) -> None:
    bomb = gzip.compress(b'{"run_id": "wr_1", "status": "' + b"x" * 5_000_000 + b'"}')
    assert len(bomb) < 10_000
    fake.next("GET", "/v1/runs/.*", lambda: httpx.Response(200, content=bomb, headers={"content-encoding": "gzip"}))
    settings = Settings(API_KEY, max_answer_bytes=1_000_000)
    client = SkyvernClient(settings, transport=httpx.MockTransport(fake.handle))
    with client, pytest.raises(SkyvernAnswerTooLarge, match="larger than 1,000,000 bytes") as error:
        client.send(api.get_run("wr_1"))
    assert not error.value.transient


@pytest.mark.parametrize("endpoint", [api.get_run("wr_1"), api.cancel_run("wr_1")], ids=lambda call: call.method)
def test_an_error_page_of_any_size_is_no_final_word(fake: FakeSkyvern, endpoint: Any) -> None:
    fake.next(endpoint.method, ".*", lambda: httpx.Response(502, content=b" " * 2_000_000))
    settings, once = Settings(API_KEY, max_answer_bytes=1_000_000), RetryPolicy(attempts=1)
    client = SkyvernClient(settings, retry=once, transport=httpx.MockTransport(fake.handle))
    with client, pytest.raises(SkyvernResponseError, match="larger than 1,000,000 bytes") as error:
        client.send(endpoint)
    assert error.value.transient


def test_half_a_large_answer_is_named_as_any_other(client: Client, fake: FakeSkyvern) -> None:
    fake.next("GET", "/v1/runs/.*", *[lambda: httpx.Response(200, content=b'{"run_id": "wr_1", "output": [1')] * 5)
    with pytest.raises(SkyvernResponseError, match="not what the Skyvern API promises: Invalid JSON: EOF"):
        client.send(api.get_run("wr_1"))
