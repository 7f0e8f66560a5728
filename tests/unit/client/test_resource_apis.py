"""The endpoints around sessions, profiles, credentials and prompts: what they send; and their checks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.client import api, browser_api, credential_api, schedule_api, task_api, workflow_api
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.hooks import SkyvernHook
from tests.support.cards import CARD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_skyvern.client.calls import Call
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

SESSION, PROFILE = "/v1/browser_sessions", "/v1/browser_profiles"

ENDPOINTS: list[tuple[Call[Any], str, Any]] = [
    (browser_api.create_browser_session(), f"POST {SESSION}", {}),
    (
        browser_api.create_browser_session(10, "bp_1", "NONE", generate_browser_profile=True),
        f"POST {SESSION}",
        {"timeout": 10, "browser_profile_id": "bp_1", "proxy_location": "NONE", "generate_browser_profile": True},
    ),
    (browser_api.get_browser_session("../x"), f"GET {SESSION}/..%2Fx", None),
    (browser_api.list_browser_sessions(), f"GET {SESSION}", None),
    (browser_api.extend_browser_session("pbs_1", 5), f"POST {SESSION}/pbs_1/extend", {"additional_minutes": 5}),
    (
        browser_api.update_browser_session("pbs_1", generate_browser_profile=False),
        f"PATCH {SESSION}/pbs_1",
        {"generate_browser_profile": False},
    ),
    (browser_api.close_browser_session("pbs_1"), f"POST {SESSION}/pbs_1/close", None),
    (browser_api.list_runs_of_browser_session("pbs_1"), f"GET {SESSION}/pbs_1/workflow_runs", None),
    (
        browser_api.create_browser_profile("login", "pbs_1"),
        f"POST {PROFILE}",
        {"name": "login", "browser_session_id": "pbs_1"},
    ),
    (browser_api.get_browser_profile("bp_1"), f"GET {PROFILE}/bp_1", None),
    (browser_api.list_browser_profiles(), f"GET {PROFILE}", None),
    (browser_api.get_browser_profile_usage("bp_1"), f"GET {PROFILE}/bp_1/usage", None),
    (browser_api.update_browser_profile("bp_1", "n"), f"PATCH {PROFILE}/bp_1", {"name": "n"}),
    (browser_api.delete_browser_profile("bp_1"), f"DELETE {PROFILE}/bp_1", None),
    (browser_api.list_browser_types(), "GET /v1/browser_types", None),
    (
        task_api.run_task("read", "https://x", {"type": "object"}, 5),
        "POST /v1/run/tasks",
        {"prompt": "read", "url": "https://x", "data_extraction_schema": {"type": "object"}, "max_steps": 5},
    ),
    (
        task_api.run_login_task(credential_id="cred_1"),
        "POST /v1/run/tasks/login",
        {"credential_type": "skyvern", "credential_id": "cred_1"},
    ),
    (
        task_api.run_download_task("the invoice", "https://x", max_steps_per_run=3),
        "POST /v1/run/tasks/download_files",
        {"navigation_goal": "the invoice", "url": "https://x", "max_steps_per_run": 3},
    ),
    (task_api.list_scripts(), "GET /v1/scripts", None),
    (task_api.get_script("s_1"), "GET /v1/scripts/s_1", None),
    (api.get_run_tag_history("wr_1"), "GET /v1/runs/wr_1/tags/history", None),
    (workflow_api.get_workflow_tag_history("wpid_1"), "GET /v1/workflows/wpid_1/tags/history", None),
    (
        workflow_api.reset_browser_profile("wpid_1"),
        "POST /v1/agents/wpid_1/browser_session/reset_profile",
        None,
    ),
    (schedule_api.cancel_schedule("wpid_1", "wfs_1"), "POST /v1/workflows/wpid_1/schedules/wfs_1/cancel", None),
]


@pytest.mark.parametrize(("call", "request_line", "body"), ENDPOINTS, ids=lambda value: str(value)[:60])
def test_every_endpoint_says_what_to_send(call: Call[Any], request_line: str, body: Any) -> None:
    assert f"{call.method} {call.path}" == request_line
    assert call.body == body


def test_what_makes_something_anew_each_time_must_not_be_repeated() -> None:
    once = {line for call, line, _ in ENDPOINTS if not call.repeatable}
    assert once == {
        f"POST {SESSION}",
        f"POST {SESSION}/pbs_1/extend",
        f"POST {PROFILE}",
        "POST /v1/run/tasks",
        "POST /v1/run/tasks/login",
        "POST /v1/run/tasks/download_files",
    }


def test_a_workflow_with_an_idempotency_key_may_be_created_twice() -> None:
    keyed = workflow_api.create_workflow({"title": "t"}, "fld_1", "k")
    assert keyed.headers == {"Idempotency-Key": "k"}
    assert keyed.query == {"folder_id": "fld_1"}
    assert keyed.repeatable
    assert not workflow_api.create_workflow({"title": "t"}).repeatable
    assert not workflow_api.update_workflow("wpid_1", {"title": "t"}).repeatable


@pytest.mark.slow
def test_a_creation_waits_for_another_one_with_its_key(skyvern: FakeSkyvern) -> None:
    words = "Workflow creation with this idempotency key is still in progress."
    skyvern.next("POST", "/v1/workflows", httpx.Response(409, json={"detail": words}))
    definition = {"title": "t", "workflow_definition": {"parameters": [], "blocks": []}}
    assert SkyvernHook().create_workflow(definition, idempotency_key="k").title == "t"
    assert len(skyvern.sent("POST", "/v1/workflows")) == 2


def test_the_headers_of_a_call_are_sent_beside_the_key(skyvern: FakeSkyvern) -> None:
    definition = {"title": "t", "workflow_definition": {"parameters": [], "blocks": []}}
    SkyvernHook().create_workflow(definition, idempotency_key="k")
    [seen] = skyvern.sent("POST", "/v1/workflows")
    assert seen.headers["idempotency-key"] == "k"
    assert seen.headers["x-api-key"] == skyvern.api_key


@pytest.mark.parametrize(
    ("name", "credential_type", "content", "message"),
    [
        ("c", "password", {"username": "u"}, "credential 'c': password is missing or empty"),
        ("c", "password", {"username": "u", "password": ""}, "credential 'c': password is missing or empty"),
        ("c", "password", {"username": "", "password": "s3cr3t"}, "credential 'c': username is missing or empty"),
        ("c", "password", {"username": "u", "password": None}, "credential 'c': password is missing or empty"),
        ("c", "password", {"username": "u", "password": "s3cr3t", "pin": "s3cr3t"}, "'c': pin is unknown; known:"),
        ("c", "credit_card", {**CARD, "card_cvv": ""}, "credential 'c': card_cvv is missing or empty"),
        ("c", "secret", {"secret_label": "s3cr3t"}, "credential 'c': secret_value is missing or empty"),
        ("c", "login", {}, "credential_type must be one of password, credit_card, secret"),
        (" ", "secret", {"secret_value": "s3cr3t"}, "credential: name is empty"),
    ],
)
def test_an_incomplete_credential_is_refused_and_none_of_its_values_repeated(
    name: str, credential_type: Any, content: Mapping[str, Any], message: str
) -> None:
    with pytest.raises(SkyvernConfigError, match=message) as caught:
        credential_api.create_credential(name, credential_type, content)
    assert "s3cr3t" not in str(caught.value)
