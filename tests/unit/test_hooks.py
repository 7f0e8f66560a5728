from __future__ import annotations

import asyncio
import copy
import importlib.util
import inspect
import json
import pickle
import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import httpx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic_core import to_jsonable_python

from airflow_skyvern.client import api, browser_api, credential_api, retry, schedule_api, task_api, workflow_api
from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.client.settings import DEFAULT_BASE_URL, DEFAULT_TIMEOUT, EXTRAS, Settings
from airflow_skyvern.compat import internals
from airflow_skyvern.compat.sdk import AirflowNotFoundException, Connection
from airflow_skyvern.exceptions import (
    SkyvernAuthError,
    SkyvernConfigError,
    SkyvernConnectionError,
    SkyvernNotFoundError,
    SkyvernServerError,
)
from airflow_skyvern.hooks import SkyvernHook, settings_of
from airflow_skyvern.provider_info import CONNECTION_TYPE
from airflow_skyvern.testing.fake.skyvern import API_KEY, LOST, FakeSkyvern

if TYPE_CHECKING:
    from airflow_skyvern.testing.loopback import Loopback
    from tests.unit.conftest import Connect, TaskLog

ENV = "AIRFLOW_CONN_SKYVERN_DEFAULT"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Settings("key-of-this-test")),
        ({"password": " key-of-this-test\n"}, Settings("key-of-this-test")),
        ({"host": " https://skyvern.example.com/ "}, Settings("key-of-this-test", "https://skyvern.example.com")),
        ({"host": "skyvern.example.com"}, Settings("key-of-this-test", "https://skyvern.example.com")),
        (
            {"host": "skyvern.example.com", "schema": "http"},
            Settings("key-of-this-test", "http://skyvern.example.com"),
        ),
        (
            {"host": "skyvern.example.com", "port": 8443},
            Settings("key-of-this-test", "https://skyvern.example.com:8443"),
        ),
        (
            {"host": "https://x.example.com:8443", "port": 8443},
            Settings("key-of-this-test", "https://x.example.com:8443"),
        ),
        ({"host": "http://10.0.0.1:8000"}, Settings("key-of-this-test", "http://10.0.0.1:8000")),
        ({"host": "http://[::1]:8000/"}, Settings("key-of-this-test", "http://[::1]:8000")),
        (
            {"host": "https://x.example.com/skyvern/api/v1/"},
            Settings("key-of-this-test", "https://x.example.com/skyvern"),
        ),
        ({"host": "https://x.example.com/v1"}, Settings("key-of-this-test", "https://x.example.com")),
        ({"port": 443}, Settings("key-of-this-test", "https://api.skyvern.com:443")),
        ({"extra": {"timeout": 5, "verify": False}}, Settings("key-of-this-test", timeout=5, verify=False)),
        ({"extra": {"timeout": "5.5", "verify": "false"}}, Settings("key-of-this-test", timeout=5.5, verify=False)),
        ({"extra": {"timeout": None, "proxy": "", "verify": ""}}, Settings("key-of-this-test")),
        ({"extra": {"verify": "True"}}, Settings("key-of-this-test")),
        ({"extra": {"verify": "/etc/ca.pem"}}, Settings("key-of-this-test", verify="/etc/ca.pem")),
        ({"extra": {"proxy": "http://u:p@proxy:3128"}}, Settings("key-of-this-test", proxy="http://u:p@proxy:3128")),
        ({"extra": {"verify": "no"}}, Settings("key-of-this-test", verify=False)),
        ({"extra": {"verify": " Off "}}, Settings("key-of-this-test", verify=False)),
        ({"extra": {"verify": "0"}}, Settings("key-of-this-test", verify=False)),
        ({"extra": {"verify": "yes"}}, Settings("key-of-this-test")),
        ({"extra": {"verify": "1"}}, Settings("key-of-this-test")),
        ({"extra": {"verify": "ca.pem"}}, Settings("key-of-this-test", verify="ca.pem")),
        ({"host": "x.example.com", "schema": "HTTPS"}, Settings("key-of-this-test", "https://x.example.com")),
        ({"host": "x.example.com", "schema": "Http://"}, Settings("key-of-this-test", "http://x.example.com")),
        ({"host": "https://x.example.com", "schema": "HTTPS"}, Settings("key-of-this-test", "https://x.example.com")),
        ({"host": "https://x.example.com/api"}, Settings("key-of-this-test", "https://x.example.com/api")),
        ({"host": "https://x.example.com/api/"}, Settings("key-of-this-test", "https://x.example.com/api")),
        ({"host": "x.example.com", "schema": "api"}, Settings("key-of-this-test", "https://x.example.com/api")),
        ({"host": "https://x.example.com/api/v1"}, Settings("key-of-this-test", "https://x.example.com")),
        ({"host": "::1", "port": 8000, "schema": "http"}, Settings("key-of-this-test", "http://[::1]:8000")),
        ({"host": "HTTPS://X.Example.com:8443"}, Settings("key-of-this-test", "https://x.example.com:8443")),
    ],
    ids=str,
)
def test_a_connection_in_json_says_where_and_how(
    monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], expected: Settings
) -> None:
    monkeypatch.setenv(ENV, json.dumps({"conn_type": "skyvern", "password": "key-of-this-test", **fields}))
    assert settings_of(SkyvernHook.get_connection("skyvern_default")) == expected


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("skyvern://:key-of-this-test@", Settings("key-of-this-test")),
        (
            "skyvern://:key-of-this-test@skyvern.example.com",
            Settings("key-of-this-test", "https://skyvern.example.com"),
        ),
        (
            "skyvern://:key-of-this-test@skyvern.example.com:8443/prefix",
            Settings("key-of-this-test", "https://skyvern.example.com:8443/prefix"),
        ),
        (
            "skyvern://https://:key-of-this-test@skyvern.example.com",
            Settings("key-of-this-test", "https://skyvern.example.com"),
        ),
        (
            "skyvern://https://:key-of-this-test@x.example.com:8443/a/v1",
            Settings("key-of-this-test", "https://x.example.com:8443/a"),
        ),
        ("skyvern://http://:key-of-this-test@10.0.0.1:8000", Settings("key-of-this-test", "http://10.0.0.1:8000")),
        ("skyvern://http://:key-of-this-test@[::1]:8000", Settings("key-of-this-test", "http://[::1]:8000")),
        ("skyvern://:key-of-this-test@[2001:db8::1]", Settings("key-of-this-test", "https://[2001:db8::1]")),
        ("skyvern://:key-of-this-test@x.example.com/api", Settings("key-of-this-test", "https://x.example.com/api")),
        (
            "skyvern://:key-of-this-test@x.example.com?verify=no",
            Settings("key-of-this-test", "https://x.example.com", verify=False),
        ),
        ("skyvern://:a%2Fb%40c@x.example.com", Settings("a/b@c", "https://x.example.com")),
        (
            "skyvern://:key-of-this-test@x.example.com?timeout=5&verify=false&proxy=http%3A%2F%2Fproxy%3A3128",
            Settings("key-of-this-test", "https://x.example.com", 5, "http://proxy:3128", verify=False),
        ),
    ],
)
def test_a_connection_as_a_uri_says_the_same(monkeypatch: pytest.MonkeyPatch, uri: str, expected: Settings) -> None:
    monkeypatch.setenv(ENV, uri)
    assert settings_of(SkyvernHook.get_connection("skyvern_default")) == expected


hosts = st.one_of(
    st.from_regex(r"[a-zA-Z][a-zA-Z0-9-]{0,8}[a-zA-Z0-9](\.[a-z]{2,5}){0,2}", fullmatch=True),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda ip: f"[{ip}]"),
)
segments = st.text(st.characters(codec="utf-8", exclude_characters="/", exclude_categories=["C"]), min_size=1)
paths = st.lists(segments.filter(lambda part: part.strip() == part), max_size=3)


@pytest.mark.slow
@given(
    st.sampled_from(["", "http", "https"]),
    hosts,
    st.none() | st.integers(1, 65535),
    paths,
    st.sampled_from(["", "false", "no", "/etc/a b.pem"]),
    st.text(st.characters(codec="ascii", exclude_categories=["C", "Z"]), min_size=1),
)
def test_all_spellings_of_a_connection_mean_the_same(
    scheme: str, host: str, port: int | None, path: list[str], verify: str, key: str
) -> None:
    place = f"{host}:{port}" if port else host
    quoted = "".join(f"/{quote(part, safe='')}" for part in path)
    assume(path not in (["http"], ["https"]))  # in a URI these are the scheme
    extra = {"verify": verify} if verify else {}
    uri = f"skyvern://{scheme}{'://' if scheme else ''}:{quote(key, safe='')}@{place}{quoted}"
    address = f"{scheme or 'https'}://{place}{quoted}"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(ENV, f"{uri}?{urlencode(extra)}" if extra else uri)
        spellings = [SkyvernHook.get_connection("skyvern_default")]
    whole: dict[str, Any] = {"conn_type": "skyvern", "password": key, "extra": json.dumps(extra)}
    spellings.append(Connection(conn_id="c", host=address, **whole))
    if not path:
        split: dict[str, Any] = {"host": host, "port": port, "schema": scheme.upper()}
        spellings.append(Connection(conn_id="c", **whole, **split))
    first, *others = [settings_of(spelling) for spelling in spellings]
    assert all(other == first for other in others)
    assert httpx.URL(first.base_url).host == host.strip("[]").lower()


def test_the_form_has_every_extra_that_a_connection_takes() -> None:
    assert set(CONNECTION_TYPE["conn-fields"]) == set(EXTRAS)


def test_a_connection_as_the_form_stores_it() -> None:
    stored = Connection(
        conn_id="prod",
        conn_type="skyvern",
        host="https://skyvern.example.com",
        login="",
        password="key-of-this-test",
        schema="",
        port=443,
        extra='{"timeout": 60, "proxy": "", "verify": true}',
    )
    assert settings_of(stored) == Settings("key-of-this-test", "https://skyvern.example.com:443", 60)


def test_what_is_not_said_has_a_default() -> None:
    defaults = settings_of(Connection(conn_id="c", conn_type="skyvern", password="key-of-this-test"))
    assert defaults == Settings("key-of-this-test", DEFAULT_BASE_URL, DEFAULT_TIMEOUT, None, verify=True)


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"password": ""}, "the API key is missing; put it into the password field"),
        ({"password": "a b\tc"}, "the API key \\(password field\\) holds characters"),
        ({"password": "schlüssel"}, "the API key \\(password field\\) holds characters"),
        ({"host": "ftp://x.example.com"}, "the base URL \\(host field\\) must look like"),
        ({"host": "https://"}, "the base URL \\(host field\\) must look like"),
        ({"host": "https://x.example.com?a=b"}, "the base URL \\(host field\\) must look like"),
        ({"host": "https://x.example.com/#top"}, "the base URL \\(host field\\) must look like"),
        ({"host": "https://u:p@x.example.com"}, "the base URL \\(host field\\) must not hold a password"),
        ({"host": "https://x.example.com:port"}, "the base URL \\(host field\\) is not an address"),
        ({"host": "https://[::1"}, "the base URL \\(host field\\) is not an address"),
        (
            {"password": "", "login": "k"},
            "the API key is missing; it goes into the password field",
        ),
        ({"host": "https://x.example.com:0"}, "the port must be between 1 and 65535"),
        (
            {"host": "http://x.example.com", "schema": "https"},
            "the base URL says http, the schema field https",
        ),
        ({"host": "", "schema": "http"}, "the base URL says https, the schema field http; clear one"),
        ({"extra": '{"ssl_verify": false}'}, "extra: there is no 'ssl_verify'. Did you mean verify\\?"),
        ({"extra": '{"proxies": {}}'}, "extra: there is no 'proxies'. Did you mean proxy\\?"),
        ({"extra": '{"Timeout": 3}'}, "extra: there is no 'Timeout'. Did you mean timeout\\?"),
        ({"extra": '{"region": "eu"}'}, "extra: there is no 'region'. Known ones: timeout, proxy, verify, app_url"),
        ({"extra": '{"timeout": 1e9}'}, "timeout must be between 0 and 86,400 seconds"),
        ({"extra": '{"timeout": NaN}'}, "timeout must be more than 0 seconds, not nan"),
        ({"extra": '{"proxy": "http://u:s3cr3t#more@proxy:1"}'}, "proxy is not an address; .*percent-encode it"),
        ({"extra": '{"proxy": "socks4://proxy:1"}'}, "proxy must be an address such as"),
        ({"extra": '{"verify": "maybe"}'}, "verify must be true, false or the path"),
        ({"extra": '{"verify": []}'}, "verify must be true, false or the path"),
        ({"host": "https://x.example.com:80", "port": 81}, "the base URL says port 80, the port field 81"),
        ({"port": 65536}, "the port must be between 1 and 65535"),
        ({"port": -1}, "the port must be between 1 and 65535"),
        ({"extra": "{nonsense"}, "the extra field is not JSON"),
        ({"extra": "[1]"}, "the extra field must be a JSON object"),
        ({"extra": '{"timeout": 0}'}, "timeout must be more than 0 seconds, not 0"),
        ({"extra": '{"timeout": -1}'}, "timeout must be more than 0 seconds, not -1"),
        ({"extra": '{"timeout": Infinity}'}, "timeout must be more than 0 seconds, not inf"),
        ({"extra": '{"timeout": "soon"}'}, "timeout must be a number of seconds, not 'soon'"),
        ({"extra": '{"timeout": [1]}'}, "timeout must be a number of seconds"),
        ({"extra": '{"proxy": "proxy:3128"}'}, "proxy must be an address such as"),
        ({"extra": '{"proxy": 3128}'}, "proxy must be an address such as"),
        ({"extra": '{"verify": 1}'}, "verify must be true, false or the path"),
    ],
    ids=str,
)
def test_a_wrong_field_of_a_connection_names_itself(fields: dict[str, Any], complaint: str) -> None:
    stored = Connection(**{"conn_id": "prod", "conn_type": "skyvern", "password": "s3cr3t", **fields})
    with pytest.raises(SkyvernConfigError, match=f"Skyvern connection 'prod': {complaint}") as caught:
        settings_of(stored)
    assert "s3cr3t" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_missing_connection_is_reported_by_its_id() -> None:
    with pytest.raises(AirflowNotFoundException, match="nowhere"):
        SkyvernHook("nowhere").get_version()


MODES = ["sync", "async"]


def call(hook: SkyvernHook, mode: str, name: str, *args: Any) -> Any:
    if mode == "sync":
        return getattr(hook, name)(*args)

    async def acall() -> Any:
        try:
            return await getattr(hook, f"a{name}")(*args)
        finally:
            await hook.aclose()

    return asyncio.run(acall())


DEFINITION = {"title": "t", "workflow_definition": {"parameters": [], "blocks": []}}
SECRET = {"secret_value": "s"}
CREDENTIAL = {"name": "c", "credential_type": "secret", "credential": SECRET}
TAGGED = {"tags": [{"key": "a", "value": "1"}], "tags_to_delete": []}

ENDPOINTS: list[tuple[str, tuple[Any, ...], str, Any]] = [
    ("run_workflow", ("{workflow}",), "POST /v1/run/workflows", {"workflow_id": "{workflow}"}),
    ("get_run", ("{run}",), "GET /v1/runs/{run}", None),
    ("get_run_of_deleted_workflow", ("{run}",), "GET /v1/workflows/runs/{run}", None),
    ("find_runs", ({"a": "1"},), "GET /v1/runs", None),
    ("get_run_tags", (["{run}"],), "GET /v1/run-tags", None),
    ("cancel_run", ("{run}",), "POST /v1/runs/{run}/cancel", None),
    ("cancel_runs", (["{run}"],), "POST /v1/runs/cancel", {"run_ids": ["{run}"]}),
    ("retry_run", ("{ended}",), "POST /v1/workflows/runs/{ended}/retry", None),
    ("continue_run", ("{paused}",), "POST /v1/workflows/runs/{paused}/continue", None),
    ("list_runs", (), "GET /v1/runs", None),
    ("list_workflow_runs", ("{workflow}",), "GET /v1/workflows/{workflow}/runs", None),
    ("get_run_timeline", ("{run}",), "GET /v1/runs/{run}/timeline", None),
    ("list_run_artifacts", ("{run}",), "GET /v1/runs/{run}/artifacts", None),
    ("get_artifact_content", ("{artifact}",), "GET /v1/artifacts/{artifact}/content", None),
    ("list_workflows", (), "GET /v1/workflows", None),
    ("get_workflow", ("{workflow}",), "GET /v1/workflows/{workflow}", None),
    ("upload_file", (b"content",), "POST /v1/upload_file", None),
    (
        "retry_webhook",
        ("{ended}", "http://x/y"),
        "POST /v1/runs/{ended}/retry_webhook",
        {"webhook_url": "http://x/y"},
    ),
    ("get_version", (), "GET /v1/version", None),
    ("apply_run_tags", ("{run}", {"a": "1"}), "POST /v1/runs/{run}/tags", TAGGED),
    ("list_run_tags", ("{run}",), "GET /v1/runs/{run}/tags", None),
    ("delete_run_tag", ("{run}", "a"), "DELETE /v1/runs/{run}/tags/a", None),
    ("delete_file", ("{file}",), "DELETE /v1/files/{file}", None),
    ("create_workflow", (DEFINITION,), "POST /v1/workflows", {"json_definition": DEFINITION}),
    (
        "update_workflow",
        ("{workflow}", DEFINITION),
        "POST /v1/workflows/{workflow}",
        {"json_definition": DEFINITION},
    ),
    ("delete_workflow", ("{workflow}",), "POST /v1/workflows/{workflow}/delete", None),
    ("get_workflow_version", ("{workflow}", 1), "GET /v1/workflows/{workflow}", None),
    ("list_workflow_versions", ("{workflow}",), "GET /v1/workflows/{workflow}/versions", None),
    ("get_workflow_tags", ("{workflow}",), "GET /v1/workflows/{workflow}/tags", None),
    (
        "get_tags_of_workflows",
        (["{workflow}"],),
        "POST /v1/workflow-tags",
        {"workflow_permanent_ids": ["{workflow}"]},
    ),
    ("apply_workflow_tags", ("{workflow}", {"a": "1"}), "POST /v1/workflows/{workflow}/tags", TAGGED),
    ("delete_workflow_tag", ("{workflow}", "a"), "DELETE /v1/workflows/{workflow}/tags/a", None),
    ("create_folder", ("f",), "POST /v1/folders", {"title": "f"}),
    ("get_folder", ("{folder}",), "GET /v1/folders/{folder}", None),
    ("list_folders", (), "GET /v1/folders", None),
    ("update_folder", ("{folder}", "g"), "PUT /v1/folders/{folder}", {"title": "g"}),
    ("delete_folder", ("{folder}",), "DELETE /v1/folders/{folder}", None),
    ("move_workflow", ("{workflow}", None), "PUT /v1/workflows/{workflow}/folder", {"folder_id": None}),
    ("create_credential", ("c", "secret", SECRET), "POST /v1/credentials", CREDENTIAL),
    ("get_credential", ("{credential}",), "GET /v1/credentials/{credential}", None),
    ("list_credentials", (), "GET /v1/credentials", None),
    (
        "update_credential",
        ("{credential}", "c", "secret", SECRET),
        "POST /v1/credentials/{credential}/update",
        CREDENTIAL,
    ),
    ("rename_credential", ("{credential}", "d"), "PATCH /v1/credentials/{credential}", {"name": "d"}),
    ("delete_credential", ("{credential}",), "POST /v1/credentials/{credential}/delete", None),
    (
        "send_totp_code",
        ("a@example.com", "1"),
        "POST /v1/credentials/totp",
        {"totp_identifier": "a@example.com", "content": "1"},
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("name", "args", "request_line", "body"), ENDPOINTS, ids=[row[0] for row in ENDPOINTS])
def test_every_endpoint_is_a_method_in_both_modes(
    skyvern: FakeSkyvern, mode: str, *, name: str, args: tuple[Any, ...], request_line: str, body: Any
) -> None:
    workflow = skyvern.workflow()
    ids: dict[str, Any] = {
        "workflow": workflow,
        "run": skyvern.run(),
        "ended": skyvern.run(plan=("completed",), artifacts={"report.txt": b"hello file\n"}),
        "paused": skyvern.run(plan=("paused", "completed")),
    }
    for moved in (ids["ended"], ids["paused"]):
        skyvern.runs[moved].look()
    [artifact] = SkyvernHook().list_run_artifacts(ids["ended"])
    ids["artifact"] = artifact.artifact_id
    ids["file"] = SkyvernHook().upload_file(b"content").file_id
    ids["folder"] = SkyvernHook().create_folder("f").folder_id
    ids["credential"] = SkyvernHook().create_credential("c", "secret", SECRET).credential_id

    def filled(value: Any) -> Any:
        if isinstance(value, str):
            return value.format(**ids)
        if isinstance(value, list | tuple):
            return type(value)(filled(item) for item in value)
        return {key: filled(item) for key, item in value.items()} if isinstance(value, dict) else value

    call(SkyvernHook(), mode, name, *filled(args))
    seen = skyvern.requests[-1]
    assert f"{seen.method} {seen.path}" == filled(request_line)
    assert (seen.json if body else None) == filled(body)


ENDPOINT_MODULES = [api, browser_api, credential_api, schedule_api, task_api, workflow_api]
OF_REAL_SERVERS_ONLY = {
    *("get_run_tag_history", "get_workflow_tag_history", "reset_browser_profile"),
    *(name for module in (browser_api, task_api) for name in vars(module)),
}
"""What the fake does not know: client/test_resource_apis.py says what is sent, tests/contract what comes back."""

OF_WAITS = (
    "get_run_snapshot",
    "list_active_runs",
    "list_block_rows",
    "get_run_definition",
    "get_run_cost",
)  # lighter


def test_the_table_above_has_every_endpoint() -> None:
    of_the_hook = {name for name, value in vars(SkyvernHook).items() if hasattr(value, "endpoint")}
    synchronous = {name for name in of_the_hook if not (name.startswith("a") and name[1:] in of_the_hook)}
    schedules = {name for name in synchronous if "schedule" in name}  # in test_schedule_api
    assert {row[0] for row in ENDPOINTS} == synchronous - schedules - OF_REAL_SERVERS_ONLY


@pytest.mark.parametrize("module", ENDPOINT_MODULES)
def test_every_endpoint_is_a_method(module: ModuleType) -> None:
    endpoints = {
        name
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and not name.startswith("_")
    }
    hidden = {"get_block_task"}  # of waits and pages: Skyvern does not describe it
    helpers = {"probe", "start_run", "get_run_despite", "tags_query", "tags_body", *OF_WAITS, *hidden}
    assert [name for name in endpoints - helpers if not hasattr(SkyvernHook, name)] == []


def test_methods_are_described_by_their_endpoints() -> None:
    hook = SkyvernHook()
    assert hook.get_run.__doc__ == hook.aget_run.__doc__ == api.get_run.__doc__
    assert inspect.signature(hook.list_runs) == inspect.signature(api.list_runs)
    assert SkyvernHook.get_run.endpoint is api.get_run


@pytest.mark.parametrize("mode", MODES)
def test_the_connection_is_read_once(skyvern: FakeSkyvern, connect: Connect, mode: str) -> None:
    hook = SkyvernHook()

    async def twice() -> None:
        await hook.aget_version()
        connect(password="", host="nonsense://")
        await hook.aget_version()

    if mode == "sync":
        hook.get_version()
        connect(password="", host="nonsense://")
        hook.get_version()
    else:
        asyncio.run(twice())
    assert len(skyvern.requests) == 2


@pytest.mark.parametrize("mode", MODES)
def test_a_rotated_key_is_picked_up(skyvern: FakeSkyvern, connect: Connect, mode: str) -> None:
    run_id = skyvern.run()
    hook = SkyvernHook()

    def rotate() -> None:
        skyvern.api_key = "the-next-key"
        connect(password="the-next-key")

    async def around_a_rotation() -> str:
        await hook.aget_run(run_id)
        rotate()
        return (await hook.aget_run(run_id)).run_id

    if mode == "sync":
        hook.get_run(run_id)
        rotate()
        assert hook.get_run(run_id).run_id == run_id
    else:
        assert asyncio.run(around_a_rotation()) == run_id
    assert [seen.headers["x-api-key"] for seen in skyvern.requests] == [API_KEY, API_KEY, "the-next-key"]


@pytest.mark.slow
def test_a_host_that_has_moved_is_noticed_once_a_minute_when_no_answer_comes(
    skyvern: FakeSkyvern, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = skyvern.run()
    monkeypatch.setattr(retry, "PACE", 0.01)
    connect(host="http://127.0.0.1:1")
    hook = SkyvernHook()
    hook.get_conn()
    connect()
    with pytest.raises(SkyvernConnectionError):  # the connection was just read
        hook.get_run(run_id)
    monkeypatch.setattr("airflow_skyvern.client.session.REREAD_INTERVAL", 0.0)
    assert hook.get_run(run_id).run_id == run_id


def test_a_start_that_may_have_arrived_is_not_repeated_at_the_host_that_has_moved(
    skyvern: FakeSkyvern, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_skyvern.client.session.REREAD_INTERVAL", 0.0)
    hook = SkyvernHook()
    skyvern.next("POST", "/v1/run/workflows", LOST)
    hook.get_conn()
    connect(host=hook.get_conn().settings.base_url.replace("127.0.0.1", "localhost"))
    with pytest.raises(SkyvernConnectionError):
        hook.run_workflow("wpid_1")
    assert len(skyvern.sent("POST", "/v1/run/workflows")) == 1


@pytest.mark.parametrize("mode", MODES)
def test_a_wrong_key_that_was_not_rotated_is_tried_once(skyvern: FakeSkyvern, connect: Connect, mode: str) -> None:
    connect(password="wrong")
    with pytest.raises(SkyvernAuthError, match="Could not validate credentials"):
        call(SkyvernHook(), mode, "get_run", "wr_1")
    assert len(skyvern.requests) == 1


@pytest.mark.slow
def test_threads_that_share_a_hook_all_take_a_rotated_key(skyvern: FakeSkyvern, connect: Connect) -> None:
    run_id = skyvern.run(plan=("running",))
    hook = SkyvernHook()
    together = threading.Barrier(24, timeout=120)  # ends if a thread fails

    def ask(number: int) -> None:
        for turn in range(6):
            together.wait()
            if number == 0 and turn in (1, 3, 4):
                connect(password=f"key-{turn}")
                skyvern.api_key = f"key-{turn}"
            if number % 3:
                hook.get_run(run_id)
            else:
                with hook.stream(api.get_run(run_id)) as incoming:
                    assert b"".join(incoming.chunks)

    with ThreadPoolExecutor(24) as pool:
        list(pool.map(ask, range(24)))
    hook.close()


def test_a_thread_that_is_reading_is_not_cut_off_when_the_hook_is_closed(skyvern: FakeSkyvern) -> None:
    hook = SkyvernHook()
    with hook.stream(api.get_version()) as incoming:
        hook.close()
        assert b"version" in b"".join(incoming.chunks)
    assert hook.get_version().version


@pytest.mark.slow
async def test_tasks_that_share_a_hook_all_take_a_rotated_key(skyvern: FakeSkyvern, connect: Connect) -> None:
    run_id = skyvern.run(plan=("running",))
    hook = SkyvernHook()
    await hook.aget_run(run_id)
    before = await hook.aget_conn()
    asking = [asyncio.ensure_future(hook.aget_run(run_id)) for _ in range(30)]
    await asyncio.sleep(0.01)
    connect(password="the-next-key")
    skyvern.api_key = "the-next-key"
    asking += [asyncio.ensure_future(hook.aget_run(run_id)) for _ in range(30)]
    assert {run.run_id for run in await asyncio.gather(*asking)} == {run_id}
    assert await hook.aget_conn() is not before
    assert (await before.send(api.get_version())).version  # whoever still holds it may use it
    await hook.aclose()


def test_a_hook_can_be_used_in_one_event_loop_after_another(skyvern: FakeSkyvern) -> None:
    run_id = skyvern.run(plan=("running",))
    hook = SkyvernHook()
    assert [asyncio.run(hook.afetch_run(run_id)).run_id for _ in range(5)] == [run_id] * 5
    assert hook.get_run(run_id).run_id == run_id


@pytest.mark.slow
def test_a_hook_can_be_used_in_several_event_loops_at_once(skyvern: FakeSkyvern) -> None:
    run_id = skyvern.run(plan=("running",))
    hook = SkyvernHook()

    async def several() -> set[str]:
        found = await asyncio.gather(*(hook.aget_run(run_id) for _ in range(10)))
        await hook.aclose()
        return {run.run_id for run in found}

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: asyncio.run(several()), range(16))) == [{run_id}] * 16


def test_the_test_button_answers_whatever_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SkyvernHook("nowhere").test_connection()[0] is False
    monkeypatch.setenv(ENV, "no connection at all")
    assert SkyvernHook().test_connection()[0] is False


def test_how_often_a_request_is_repeated_can_be_set(skyvern: FakeSkyvern) -> None:
    skyvern.next("GET", "/v1/version", httpx.Response(500))
    with pytest.raises(SkyvernServerError):
        SkyvernHook(retry=RetryPolicy(attempts=1)).get_version()
    assert len(skyvern.requests) == 1


def test_closing_a_hook_that_never_spoke_does_nothing() -> None:
    hook = SkyvernHook()
    hook.close()
    asyncio.run(hook.aclose())


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_a_look_sees_a_run_whose_workflow_was_deleted(skyvern: FakeSkyvern, mode: str) -> None:
    run_id = skyvern.run(plan=("running", "completed"), output={"sum": 1})
    assert call(SkyvernHook(), mode, "fetch_run", run_id).status == "running"
    skyvern.runs[run_id].workflow.deleted = True
    run = call(SkyvernHook(), mode, "fetch_run", run_id)
    assert (run.run_id, run.status, run.output) == (run_id, "completed", {"sum": 1})


@pytest.mark.parametrize("mode", MODES)
def test_a_look_at_a_run_that_never_was_says_so(skyvern: FakeSkyvern, mode: str) -> None:
    with pytest.raises(SkyvernNotFoundError, match="Task run not found wr_123"):
        call(SkyvernHook(), mode, "fetch_run", "wr_123")
    assert len(skyvern.requests) == 1


def test_a_signal_handler_gets_a_client_that_touches_nothing_of_the_hook(
    skyvern: FakeSkyvern, connect: Connect
) -> None:
    run_id = skyvern.run(plan=("running",))
    hook = SkyvernHook()
    hook.get_run(run_id)
    connect(password="", host="nonsense://")
    client = hook.emergency_client(timeout=1.5)
    assert client is not None
    assert client is not hook.get_conn()
    assert client.settings == hook.get_conn().settings.within(1.5)
    with client:
        client.send(api.cancel_run(run_id))
    assert skyvern.status(run_id) == "canceled"


def test_a_signal_handler_does_not_try_again(skyvern: FakeSkyvern) -> None:
    run_id = skyvern.run(plan=("running",))
    hook = SkyvernHook()
    hook.get_run(run_id)
    skyvern.next("POST", ".*/cancel", httpx.ReadTimeout("lost"))
    client = hook.emergency_client()
    assert client is not None
    with client, pytest.raises(SkyvernConnectionError):
        client.send(api.cancel_run(run_id))
    assert len(skyvern.sent("POST", ".*/cancel")) == 1


def test_a_hook_that_never_read_its_connection_has_nothing_to_cancel(skyvern: FakeSkyvern) -> None:
    assert SkyvernHook().emergency_client() is None


def test_the_test_button_proves_the_key(skyvern: FakeSkyvern, loopback: Loopback) -> None:
    assert SkyvernHook().test_connection() == (
        True,
        f"The API key is valid. Server: {loopback.url}. Its version is 1.0.56.",
    )
    assert [seen.path for seen in skyvern.requests] == ["/v1/workflows", "/v1/version"]


def test_the_test_button_says_that_the_key_is_wrong(skyvern: FakeSkyvern, connect: Connect) -> None:
    connect(password="wrong")
    good, message = SkyvernHook().test_connection()
    assert not good
    assert "403: Could not validate credentials. Check the API key" in message


def test_the_test_button_says_that_something_else_lives_there(
    skyvern: FakeSkyvern, loopback: Loopback, connect: Connect
) -> None:
    connect(host=f"{loopback.url}/elsewhere")
    good, message = SkyvernHook().test_connection()
    assert not good
    assert "There is no Skyvern API at this base URL (the host field" in message
    assert f": {loopback.url}/elsewhere." in message


def test_the_test_button_says_that_nobody_answers(connect: Connect) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{unused.getsockname()[1]}"
    connect(host=address)
    good, message = SkyvernHook().test_connection()
    assert not good
    assert f"no answer from {address} (ConnectError" in message


def test_the_test_button_says_which_field_is_wrong(connect: Connect) -> None:
    connect(extra={"timeout": "soon"})
    good, message = SkyvernHook().test_connection()
    assert not good
    assert message == "Skyvern connection 'skyvern_default': timeout must be a number of seconds, not 'soon'."


def test_a_key_that_travels_unencrypted_is_warned_about(connect: Connect, task_log: TaskLog) -> None:
    connect(host="http://skyvern.example.com")
    hook = SkyvernHook()
    hook.get_conn()
    assert "sends its API key unencrypted to http://skyvern.example.com: use https" in task_log()


def test_a_key_that_stays_on_the_machine_is_not_warned_about(skyvern: FakeSkyvern, task_log: TaskLog) -> None:
    SkyvernHook().get_version()
    assert "unencrypted" not in task_log()


def test_older_airflow_versions_get_the_form_from_the_hook() -> None:
    behaviour = SkyvernHook.get_ui_field_behaviour()
    assert behaviour["relabeling"]["password"] == "API key"
    assert behaviour["hidden_fields"] == CONNECTION_TYPE["ui-field-behaviour"]["hidden-fields"]


@pytest.mark.skipif(
    not importlib.util.find_spec("flask_appbuilder"), reason="only Airflow 2 asks the hook for widgets"
)
def test_airflow_2_gets_a_widget_for_every_field() -> None:
    assert list(SkyvernHook.get_connection_form_widgets()) == list(CONNECTION_TYPE["conn-fields"])


@pytest.mark.parametrize("app_url", ["https://skyvern.example.com/ui/", "https://skyvern.example.com/ui/runs"])
def test_the_page_of_a_run_is_where_the_connection_says(skyvern: FakeSkyvern, connect: Connect, app_url: str) -> None:
    """A self-hosted server gives http://localhost:8080, whatever its address is."""
    connect(extra={"app_url": app_url})
    run_id = skyvern.run()
    hook = SkyvernHook()
    expected = f"https://skyvern.example.com/ui/runs/{run_id}"
    assert hook.fetch_run(run_id).app_url == expected
    assert hook.send(api.get_run_snapshot(run_id)).app_url == expected
    workflow = skyvern.workflow()
    started = hook.run_workflow(workflow)
    assert str(started.app_url) == f"https://skyvern.example.com/ui/runs/{started.run_id}"


def test_without_an_address_of_the_ui_the_servers_is_used(skyvern: FakeSkyvern) -> None:
    run_id = skyvern.run()
    assert SkyvernHook().fetch_run(run_id).app_url == f"http://localhost:8080/runs/{run_id}"


@pytest.mark.parametrize(
    "app_url", ["skyvern.example.com", "ftp://x", "https://", "https://x?a=1", 5, "javascript:x"]
)
def test_an_address_of_the_ui_that_is_none_is_named(connect: Connect, app_url: Any) -> None:
    connect(extra={"app_url": app_url})
    with pytest.raises(SkyvernConfigError, match="app_url must be an address such as"):
        SkyvernHook().get_conn()


def test_an_address_of_the_ui_must_not_hold_a_password(connect: Connect) -> None:
    connect(extra={"app_url": "https://me:s3cr3t@skyvern.example.com"})
    with pytest.raises(SkyvernConfigError, match="app_url must not hold a password") as caught:
        SkyvernHook().get_conn()
    assert "s3cr3t" not in str(caught.value)


def test_without_the_ai_provider_an_agent_says_what_is_missing() -> None:
    if internals.module_exists("airflow.providers.common.ai.managed_agents"):
        pytest.skip("it is here: tests/agents")
    with pytest.raises(SkyvernConfigError, match=r"needs Airflow 3|airflow-provider-skyvern\[ai\]"):
        SkyvernHook().agent("wpid_1")


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, lambda hook: pickle.loads(pickle.dumps(hook))])
def test_a_copy_of_a_hook_reads_its_own_connection(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch, make: Callable[[SkyvernHook], SkyvernHook]
) -> None:
    hook = SkyvernHook()
    hook.get_version()
    made = make(hook)
    made.skyvern_conn_id = "nowhere"
    with pytest.raises(Exception, match="nowhere"):
        made.get_version()
    assert hook.get_version().version


def test_a_run_is_started_with_plain_arguments(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow(parameters={"vendor": "string"})
    run = SkyvernHook().run_workflow(workflow, {"vendor": "ACME"}, title="One", max_steps=3)
    (sent,) = skyvern.sent("POST", "/v1/run/workflows")
    assert sent.json == {"workflow_id": workflow, "parameters": {"vendor": "ACME"}, "title": "One"}
    assert skyvern.runs[run.run_id].parameters == {"vendor": "ACME"}
    with pytest.raises(SkyvernConfigError, match="max_steps"):
        SkyvernHook().run_workflow(workflow, max_steps=0)


def test_what_a_method_returns_can_be_serialized_by_others(skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow()
    run = SkyvernHook().run_workflow(workflow)
    assert to_jsonable_python(run)["run_id"] == run.run_id
    assert to_jsonable_python(SkyvernHook().list_workflow_runs(workflow))[0]["run_id"] == run.run_id


def test_annotations_are_plain_types() -> None:
    assert SkyvernHook().cancel_runs.__annotations__["run_ids"] == list[str]
    assert SkyvernHook().list_runs.__annotations__["tags"] == dict[str, Any] | None
    assert SkyvernHook().create_credential.__annotations__["credential_type"] is str
    assert SkyvernHook().upload_file.__annotations__["file"] == str | bytes
