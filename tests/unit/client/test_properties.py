"""Whatever a server, a proxy or a user may say: typed errors of ours only, and no secret in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_args

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_skyvern.client import api
from airflow_skyvern.client.failures import detail_of
from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.client.run_request import RunOptions, RunRequest
from airflow_skyvern.client.sender import SkyvernClient
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.exceptions import (
    MAX_QUOTE,
    SkyvernAPIError,
    SkyvernConfigError,
    SkyvernError,
    SkyvernResponseError,
)
from airflow_skyvern.hooks import settings_of
from airflow_skyvern.models import FINAL_STATUSES, Run, RunSummary
from airflow_skyvern.runs.wait import Reason, event_of

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call

SECRET = "s3cr3t-value"
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.just(SECRET),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
CALLS: list[Call[Any]] = [
    api.get_run("wr_1"),
    api.cancel_run("wr_1"),
    api.cancel_runs(["wr_1"]),
    api.list_runs(),
    api.list_workflow_runs("wpid_1"),
    api.get_run_tags(["wr_1"]),
    api.get_run_timeline("wr_1"),
    api.list_run_artifacts("wr_1"),
    api.list_workflows(),
    api.get_workflow("wpid_1"),
    api.retry_webhook("wr_1"),
    api.upload_file(b"x"),
    api.get_version(),
    api.start_run(RunRequest.of({"workflow_id": "wpid_1", "parameters": {"password": SECRET}})),
]
FULL_RUN = json.dumps(
    {
        "run_id": "wr_1",
        "status": "completed",
        "output": {"fetch_output": {"body": [1, 2.5, None, "ü"]}},
        "errors": [{"error_code": "A"}],
        "downloaded_files": [{"url": "file:///x"}],
        "created_at": "2026-11-22T20:00:00",
    }
).encode()


def error_of(kind: type[SkyvernError], work: Callable[[], object]) -> SkyvernError | None:
    """Return the error of this kind that came, if one came; any other error fails the test."""
    try:
        work()
    except kind as error:
        return error
    return None


def answer(call: Call[Any], response: httpx.Response) -> Any:
    client = SkyvernClient(
        Settings(SECRET), retry=RetryPolicy(attempts=1), transport=httpx.MockTransport(lambda _: response)
    )
    return client.send(call)


@pytest.mark.slow
@given(st.dictionaries(st.text().filter(lambda name: name not in Run.model_fields), JSON))
def test_unknown_fields_survive(more: dict[str, Any]) -> None:
    more.pop("workflow_run_id", None)
    more.pop("outputs", None)
    dumped = Run.model_validate_json(json.dumps({**more, "run_id": "wr_1", "status": "running"})).model_dump()
    assert {name: dumped[name] for name in more} == more


@given(st.text(), st.none() | st.booleans())
def test_only_known_final_statuses_end_a_wait(status: str, pending: bool | None) -> None:
    for kind in (Run, RunSummary):
        state = kind.model_validate({"run_id": "wr_1", "status": status, "retry_pending": pending})
        assert state.is_final == (status in FINAL_STATUSES and not pending)
        assert state.status == status


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.what)
@given(body=st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_a_result_or_an_error_of_ours(call: Call[Any], body: bytes) -> None:
    error = error_of(SkyvernResponseError, lambda: answer(call, httpx.Response(200, content=body)))
    assert SECRET not in f"{error} {error!r}"


@given(st.integers(0, len(FULL_RUN) - 1))
def test_half_a_body_is_no_run(length: int) -> None:
    with pytest.raises(SkyvernResponseError):
        answer(api.get_run("wr_1"), httpx.Response(200, content=FULL_RUN[:length]))


@given(st.integers(300, 599), st.binary() | st.text().map(str.encode))
def test_any_error_is_an_error_of_ours_with_a_message_of_reasonable_length(status: int, body: bytes) -> None:
    with pytest.raises(SkyvernAPIError) as caught:
        answer(api.get_run("wr_1"), httpx.Response(status, content=body))
    assert caught.value.status_code == status
    assert len(str(caught.value)) < MAX_QUOTE + 500


@pytest.mark.slow
@given(
    st.lists(st.fixed_dictionaries({}, optional={"loc": JSON, "msg": JSON, "input": st.just(SECRET), "ctx": JSON}))
)
def test_what_a_422_repeats_of_the_request_is_left_out(complaints: list[dict[str, Any]]) -> None:
    clean = json.loads(json.dumps(complaints).replace(SECRET, "harmless"))
    for complaint in clean:
        complaint["input"] = {"password": SECRET}
    with pytest.raises(SkyvernAPIError) as caught:
        answer(CALLS[-1], httpx.Response(422, json={"detail": clean}))
    assert SECRET not in f"{caught.value} {caught.value!r} {caught.value.detail}"


@given(st.text())
def test_any_text_is_a_detail(body: str) -> None:
    assert 0 < len(detail_of(body)) <= MAX_QUOTE + len("(not JSON) ")


@given(st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0")), st.sampled_from([302, 429, 503]))
def test_any_header_is_read_or_ignored(value: str, status: int) -> None:
    headers = [(name, value.encode("latin-1")) for name in (b"retry-after", b"location")]
    with pytest.raises(SkyvernError):
        answer(api.get_version(), httpx.Response(status, headers=headers))


@pytest.mark.parametrize(
    "value", ["http://[", "//[x", "Mon, 01 Jan 0001 00:00:00 -0000", "Mon, 32 Jan 2026 00:00:00 GMT", "nan", "1e999"]
)
def test_headers_that_nobody_can_read_are_ignored(value: str) -> None:
    for status in (302, 429):
        with pytest.raises(SkyvernAPIError):
            answer(api.get_version(), httpx.Response(status, headers={"retry-after": value, "location": value}))


def test_a_huge_output_is_read_as_it_is() -> None:
    data = "x" * 5_000_000
    run = answer(
        api.get_run("wr_1"), httpx.Response(200, json={"run_id": "wr_1", "status": "completed", "output": data})
    )
    assert run.output == data


FIELDS = ("workflow_id", "parameters", "title", "proxy_location", "webhook_url", "browser_session_id")


@pytest.mark.slow
@given(
    st.dictionaries(st.sampled_from(FIELDS), JSON),
    JSON | st.dictionaries(st.sampled_from(sorted(RunOptions.model_fields)), JSON),
)
def test_any_arguments_make_a_request_or_an_error_without_their_values(fields: dict[str, Any], options: Any) -> None:
    error = error_of(SkyvernConfigError, lambda: json.dumps(RunRequest.of(fields, options).body()))
    assert SECRET not in str(error)


class Stored:
    """A connection with anything in its fields."""

    conn_id = "c"

    def __init__(self, **fields: Any) -> None:
        self.password, self.login, self.host, self.port, self.schema, self.extra = ("k", None, None, None, None, None)
        vars(self).update(fields)


HOSTS = st.text() | st.text("htps:/[]@?#%.1 ", max_size=20).map(lambda text: f"https://{text}")


@given(
    HOSTS,
    st.none() | st.integers(-(10**6), 10**6),
    st.none() | st.text("htps/.v1a", max_size=6),
    st.fixed_dictionaries(
        {}, optional={"timeout": JSON, "proxy": JSON | HOSTS, "verify": st.booleans() | st.integers()}
    ),
)
def test_any_connection_makes_a_client_or_an_error_that_names_it(
    host: str, port: int | None, schema: str | None, extra: dict[str, Any]
) -> None:
    stored: Any = Stored(host=host, port=port, schema=schema, extra=json.dumps(extra))
    error = error_of(SkyvernConfigError, lambda: settings_of(stored))
    if error is None:
        error_of(SkyvernConfigError, lambda: SkyvernClient(settings_of(stored)).close())
    else:
        assert "'c'" in str(error)


@pytest.mark.parametrize(
    "fields",
    [
        {"host": "https://\x01.example.com"},
        {"host": "https://1.2.3.999"},
        {"extra": json.dumps({"timeout": 10**400})},
        {"extra": json.dumps({"timeout": True})},
    ],
    ids=str,
)
def test_an_address_or_number_that_cannot_work_is_a_mistake_in_the_connection(fields: dict[str, Any]) -> None:
    stored: Any = Stored(**fields)
    with pytest.raises(SkyvernConfigError):
        SkyvernClient(settings_of(stored)).close()


@given(JSON | st.fixed_dictionaries({"run_id": st.text(), "reason": st.sampled_from(["ended", "won", None])}))
def test_any_event_is_valid_or_an_error_of_ours(value: Any) -> None:
    error = error_of(SkyvernError, lambda: event_of(value))
    named = value if isinstance(value, dict) else {}
    assert (error is None) == all(isinstance(named.get(name), str) for name in ("run_id", "reason"))
    if error is None:
        assert event_of(value)["reason"] in get_args(Reason)
