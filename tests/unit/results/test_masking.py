"""What is masked in outputs and in messages, and what is data and stays."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from copy import deepcopy
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_skyvern.exceptions import SkyvernRunFailed
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.results.masking import OutputMasker
from airflow_skyvern.secret_values import masked_text
from airflow_skyvern.sensors import SkyvernRunSensor
from tests.support.tasks import run_task

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
    from tests.unit.conftest import TaskLog

SECRET = "s3cr3t-W4rd"

ECHO = {
    "fetch_output": {
        "status_code": 200,
        "response_headers": {"Set-Cookie": f"sid={SECRET}; Path=/", "Content-Type": "application/json"},
        "response_body": {"ok": True, "access_token": SECRET, "rows": [{"vendor": "ACME", "total": 12.5}]},
        "request_url": f"https://api.example.com/v1/invoices?api_key={SECRET}&page=2",
        "request_headers": {"Authorization": f"Bearer {SECRET}", "X-Api-Key": SECRET, "Accept": "*/*"},
        "request_body": json.dumps({"password": SECRET, "page": 2}),
    },
    "extracted_information": [],
}
"""What an HTTP request block of Skyvern 1.0.56 returns."""

MASKED_ECHO = {
    "fetch_output": {
        "status_code": 200,
        "response_headers": {"Set-Cookie": "***", "Content-Type": "application/json"},
        "response_body": {"ok": True, "access_token": "***", "rows": [{"vendor": "ACME", "total": 12.5}]},
        "request_url": "https://api.example.com/v1/invoices?api_key=***&page=2",
        "request_headers": {"Authorization": "***", "X-Api-Key": "***", "Accept": "*/*"},
        "request_body": '{"password": "***", "page": 2}',
    },
    "extracted_information": [],
}


def masked(value: Any) -> Any:
    return OutputMasker().masked(deepcopy(value))


def test_secrets_that_an_http_request_block_echoes_are_masked_and_nothing_else() -> None:
    assert masked(ECHO) == MASKED_ECHO


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (
            f"https://b.s3.amazonaws.com/a.pdf?X-Amz-Date=1&X-Amz-Signature={SECRET}&X-Amz-Credential=AK%2F2",
            "https://b.s3.amazonaws.com/a.pdf?X-Amz-Date=1&X-Amz-Signature=***&X-Amz-Credential=***",
        ),
        (
            f"https://x.blob.core.windows.net/c/a.pdf?sv=2023&sig={SECRET}",
            "https://x.blob.core.windows.net/c/a.pdf?sv=2023&sig=***",
        ),
        (f"/v1/artifacts/a_1/content?sig={SECRET}&expiry=1", "/v1/artifacts/a_1/content?sig=***&expiry=1"),
        (f"https://me:{SECRET}@example.com/x", "https://me:***@example.com/x"),
        (
            f"https://e.com/a.pdf?page=2&amp;sig={SECRET}&amp;x=1",
            "https://e.com/a.pdf?page=2&amp;sig=***&amp;x=1",
        ),
        ("postgres://me:p@s3cr3t@db.example.com/x", "postgres://me:***@db.example.com/x"),
        (f"see https://e.com/?key={SECRET} for it", "see https://e.com/?key=*** for it"),
        (f"grant_type=password&client_secret={SECRET}", "grant_type=password&client_secret=***"),
        (f"user[password]={SECRET}", "user[password]=***"),
        (f"Authorization: Basic {SECRET}\r\nAccept: */*", "Authorization: ***\r\nAccept: */*"),
        (f"Cookie: a={SECRET}; b={SECRET}\nHost: e.com", "Cookie: ***\nHost: e.com"),
        (f"refused, sent was 'Bearer {SECRET}'", "refused, sent was 'Bearer ***'"),
        ("basic dXNlcjpwYXNzd29yZA==", "basic ***"),
        (f"{{'api_key': '{SECRET}', 'page': 2}}", "{'api_key': '***', 'page': 2}"),
        (f'"{{\\"token\\": \\"{SECRET}\\", \\"page\\": 2}}"', '"{\\"token\\": \\"***\\", \\"page\\": 2}"'),
        (f'{{"password": "a\\"{SECRET}", "page": 2}}', '{"password": "***", "page": 2}'),
        (f"jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx.{SECRET}", "jwt ***"),
        (f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}\n-----END RSA PRIVATE KEY-----", "***"),
        (f"-----BEGIN PRIVATE KEY-----\n{SECRET}", "***"),
    ],
)
def test_a_secret_within_a_text_is_masked(text: str, shown: str) -> None:
    assert masked_text(text) == shown
    assert masked({"note": [text]}) == {"note": [shown]}


@pytest.mark.parametrize(
    ("text"),
    [
        "Basic authentication",
        "Bearer bonds are not traded",
        "token economy",
        "https://example.com/a?b=c&page=2",
        "Total: 12.50",
        "=SUM(A1:A3)",
        "Password: choose at least 8 characters",
        "https://example.com/a:b@c",
        "a=b=c",
        "data:image/png;base64,iVBORw0KGgo=",
        "wpid_123",
        "12:30",
        "",
        "Cookies: we use them",
        "bearer 12345678",
        "https://e.com:8080/?mail=jo@example.com",
        "key=value",
    ],
)
def test_a_text_without_a_secret_stays_as_it_is(text: str) -> None:
    assert masked_text(text) == text


@pytest.mark.parametrize(
    "row",
    [
        {"secretary": "Jo", "token_count": 12, "tokens": 512, "password_required": True, "cookie_policy": "none"},
        {"iban": "DE02120300000000202051", "pin": "560001", "author": "A. Keys", "result": "pass", "key": "value"},
        {"password": None, "token": "", "api_key": False, "browser_session_id": "pbs_123", "session_id": "pbs_123"},
        {"name": "Accept", "value": "text/html"},
        {"session_id": 4711, "token": 3.5, "password": 12},
        {"authorization": {"number": "A-1234567", "amount": 12.5}},
        {"license_key": "AB12-CD34-EF56"},
        {"name": "Cookies", "value": "3.99 EUR"},
        {"name": "Victoria's Secret", "value": "SKU 12345"},
        {"Victoria's Secret": "SKU 12345", "Victoria\u2019s Secret": "SKU 2"},
        {"rows": [["Cookies", "3.99"], ["Authorization", "Cookie", "Token"]]},
        {"url": "https://shop.example.com/item?code=AB12"},
    ],
)
def test_data_whose_name_resembles_a_secret_stays(row: dict[str, Any]) -> None:
    assert masked(row) == row


def test_what_looks_like_a_secret_below_a_name_of_secrets_is_masked() -> None:
    cookies = [{"name": "sid", "value": SECRET, "secure": True}, SECRET, 12]
    assert masked({"cookies": cookies}) == {"cookies": [{"name": "sid", "value": "***", "secure": True}, "***", 12]}


def test_a_list_of_headers_with_name_and_value_is_masked() -> None:
    headers = [{"name": "Authorization", "value": SECRET}, {"key": "Accept", "value": "*/*"}]
    assert masked(headers) == [{"name": "Authorization", "value": "***"}, {"key": "Accept", "value": "*/*"}]


@pytest.mark.parametrize("entry", [("Name", "Value"), ("KEY", "VALUE"), ("name", "value")])
def test_an_entry_is_read_in_any_case(entry: tuple[str, str]) -> None:
    assert masked({entry[0]: "Authorization", entry[1]: SECRET}) == {entry[0]: "Authorization", entry[1]: "***"}


def test_headers_as_pairs_are_masked() -> None:
    pairs = [["X-Api-Key", SECRET], ["Accept", "*/*"], ["cookie", f"sid={SECRET}"]]
    assert masked({"sent": pairs}) == {"sent": [["X-Api-Key", "***"], ["Accept", "*/*"], ["cookie", "***"]]}


def test_names_that_differ_only_in_their_secrets_stay_two() -> None:
    pages = {f"https://e.com/?sig={SECRET}1": "a", f"https://e.com/?sig={SECRET}2": "b"}
    assert sorted(masked(pages).values()) == ["a", "b"]
    assert SECRET not in str(masked(pages))


def test_what_airflow_knows_as_a_secret_is_masked() -> None:
    mask_secret = secret_masker()
    mask_secret("opensesame")
    assert masked({"page": "the magic word is opensesame", "opensesame": 1}) == {
        "page": "the magic word is ***",
        "***": 1,
    }


def secret_masker() -> Any:
    """What DAG authors use: it moved in Airflow 3.0 and 3.1."""
    homes = ("airflow.sdk.log", "airflow.sdk.execution_time.secrets_masker", "airflow.utils.log.secrets_masker")
    for home in homes:
        with suppress(ModuleNotFoundError, AttributeError):
            return import_module(home).mask_secret
    raise AssertionError("This Airflow has no mask_secret")


def test_names_can_be_added_in_airflows_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__SENSITIVE_VAR_CONN_NAMES", "iban, ssn")
    assert masked({"vendor_IBAN": "DE02", "ssn": "1", "name": "Jo"}) == {
        "vendor_IBAN": "***",
        "ssn": "***",
        "name": "Jo",
    }


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return [shape(item) for item in value.values()]
    return [shape(item) for item in value] if isinstance(value, list) else None


@pytest.mark.slow
@given(VALUES)
def test_the_structure_of_any_output_stays_and_masking_it_again_changes_nothing(value: Any) -> None:
    once = masked(value)
    assert shape(once) == shape(value)
    assert masked(once) == once


@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    [
        "A",
        "a.b-",
        '"',
        ":",
        "\\",
        "://",
        "a=b&",
        "eyJ",
        "bearer ",
        "-----BEGIN PRIVATE KEY",
        '"a": "',
        "x-a-",
        "cookie: ",
    ],
)
def test_no_text_of_a_website_makes_masking_slow(part: str) -> None:
    began = time.process_time()
    masked_text(part * 300_000)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize(("arguments", "pushed"), [({}, MASKED_ECHO), ({"mask_output": False}, ECHO)])
def test_the_operator_pushes_the_output_masked(
    skyvern: FakeSkyvern, arguments: dict[str, Any], pushed: Any, *, deferrable: bool
) -> None:
    workflow_id = skyvern.workflow(output=ECHO)

    def operator() -> SkyvernRunWorkflowOperator:
        return SkyvernRunWorkflowOperator(
            task_id="t", workflow_id=workflow_id, poll_interval=0.01, deferrable=deferrable, **arguments
        )

    assert run_task(operator) == pushed


@pytest.mark.parametrize("deferrable", [False, True])
@pytest.mark.parametrize(("arguments", "pushed"), [({}, MASKED_ECHO), ({"mask_output": False}, ECHO)])
def test_the_sensor_pushes_the_output_masked(
    skyvern: FakeSkyvern, arguments: dict[str, Any], pushed: Any, *, deferrable: bool
) -> None:
    run_id = skyvern.run(output=ECHO)

    def sensor() -> SkyvernRunSensor:
        return SkyvernRunSensor(task_id="t", run_id=run_id, poke_interval=0.01, deferrable=deferrable, **arguments)

    result = run_task(sensor)
    assert result == pushed


@pytest.mark.parametrize("deferrable", [False, True])
def test_a_failure_names_no_secret_in_its_error_and_in_the_log(
    skyvern: FakeSkyvern, task_log: TaskLog, *, deferrable: bool
) -> None:
    reason = f"GET https://api.example.com/?token={SECRET} with {{'Authorization': 'Bearer {SECRET}'}} gave 500"
    workflow_id = skyvern.workflow(plan=("running", "failed"), failure_reason=reason)

    def operator() -> SkyvernRunWorkflowOperator:
        return SkyvernRunWorkflowOperator(
            task_id="t", workflow_id=workflow_id, poll_interval=0.01, deferrable=deferrable
        )

    with pytest.raises(SkyvernRunFailed, match=r"token=\*\*\* with .* gave 500") as failed:
        run_task(operator)
    assert SECRET not in str(failed.value) + task_log()
