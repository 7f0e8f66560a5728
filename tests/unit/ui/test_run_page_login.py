"""What a page says of sessions, profiles, credentials, and of logins that have failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.compat import since_3_1

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

if not since_3_1.shows_external_views():
    pytest.skip("pages of plugins came with Airflow 3.1", allow_module_level=True)

from airflow_skyvern.testing.fake.resources import Credential
from tests.support.ui_rig import DAG, PAGE, RUN, TASK, Ui, add_task

TAGS = {"airflow_dag_id": DAG, "airflow_task_id": TASK, "airflow_run_id": RUN}
PASSWORD = "hunter2-of-the-portal"
AUTH = [{"category": "AUTH_FAILURE", "confidence_float": 0.9}, {"category": "UNKNOWN", "confidence_float": 0.1}]


def credential(skyvern: FakeSkyvern, name: str, number: int = 1) -> str:
    content = {"username": "bot", "password": PASSWORD}
    made = Credential(f"cred_{number}", name, "password", content)
    skyvern.credentials[made.credential_id] = made
    return made.credential_id


def started(skyvern: FakeSkyvern, parameters: dict[str, Any] | None = None, **workflow: Any) -> str:
    run_id = skyvern.run(**{"plan": ("completed",), **workflow})
    run = skyvern.runs[run_id]
    run.tags.update(TAGS)
    run.parameters.update(parameters or {})
    run.look()
    add_task(xcoms={"run_id": run_id}, state="failed" if "plan" in workflow else "success")
    return run_id


def refused(skyvern: FakeSkyvern, parameters: dict[str, Any] | None = None, **block: Any) -> str:
    told = {"label": "sign_in", "block_type": "login", "failure_category": AUTH, "failure_reason": "Denied.", **block}
    return started(skyvern, parameters, plan=("terminated",), blocks=[told], failure_reason="Denied.")


@pytest.mark.slow
async def test_session_profile_and_credential_are_shown_by_their_names(ui: Ui, skyvern: FakeSkyvern) -> None:
    login, profile = credential(skyvern, "The <portal>"), skyvern.profile("monthly login")
    run_id = started(skyvern, {"login": login, "month": "2026-11"})
    session = skyvern.session()
    skyvern.runs[run_id].request.update(browser_session_id=session, browser_profile_id=profile)
    page = (await ui.get(PAGE)).text
    assert f"<dt>Browser session</dt><dd><code>{session}</code></dd>" in page
    assert f"<dt>Browser profile</dt><dd>monthly login ({profile})</dd>" in page
    assert "<td>The &lt;portal&gt; (cred_1)</td>" in page
    assert PASSWORD not in page


@pytest.mark.slow
async def test_what_skyvern_no_longer_knows_is_shown_by_its_id(ui: Ui, skyvern: FakeSkyvern) -> None:
    run_id = started(skyvern, {"login": "cred_9"})
    skyvern.runs[run_id].request.update(browser_profile_id="bp_9")
    page = (await ui.get(PAGE)).text
    assert "<dt>Browser profile</dt><dd>bp_9</dd>" in page
    assert "<td>cred_9</td>" in page


async def test_what_only_looks_like_an_id_is_not_asked_for(ui: Ui, skyvern: FakeSkyvern) -> None:
    """It may be a secret, which has no place in an address."""
    started(skyvern, {"password": "cred_s3cr3t/value", "note": "cred_", "list": ["cred_1"]})
    assert (await ui.get(PAGE)).status_code == 200
    assert skyvern.sent("GET", "/v1/credentials/.*") == []


async def test_a_refused_login_says_so_with_block_and_credential(ui: Ui, skyvern: FakeSkyvern) -> None:
    refused(skyvern, {"login": credential(skyvern, "portal")})
    page = (await ui.get(PAGE)).text
    said = "Block sign_in: the portal refused the user name or the password (credential portal, cred_1)."
    assert f"<strong>{said}</strong>" in page
    assert "of the site" not in page  # the payload of the block's task
    assert PASSWORD not in page


async def test_of_several_credentials_it_is_that_of_the_block(ui: Ui, skyvern: FakeSkyvern) -> None:
    given = {"bank": credential(skyvern, "bank", 1), "shop": credential(skyvern, "shop", 2)}
    run_id = refused(skyvern, given)
    block = {"label": "sign_in", "block_type": "login", "parameter_keys": ["shop"]}
    rows = [{"parameter_type": "workflow", "key": key, "workflow_parameter_type": "credential_id"} for key in given]
    definition = {"title": "t", "workflow_definition": {"parameters": rows, "blocks": [block]}}
    skyvern.runs[run_id].workflow.definitions.append(definition)
    page = (await ui.get(PAGE)).text
    assert "(credential shop, cred_2)" in page
    assert "(credential bank" not in page


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"error_codes": ["OTP_TIMEOUT"]}, "no code came in time for the login"),
        ({"error_codes": ["MISSING_TOTP_SOURCE"]}, "Skyvern has nowhere to get the code for the login from"),
        ({"error_codes": ["CREDENTIAL_ACCOUNT_LOCKED"]}, "the portal has locked the account"),
        ({"failure_category": [{"category": "CREDENTIAL_ERROR"}]}, "Skyvern could not use the credential"),
        (
            {"actions": [{"action_type": "input_text", "text": "<redacted otp value>"}]},
            "the portal refused the login, in which a code was typed in",
        ),
    ],
)
async def test_other_failures_of_logins_read_as_such(
    ui: Ui, skyvern: FakeSkyvern, block: dict[str, Any], said: str
) -> None:
    refused(skyvern, **block)
    assert f"Block sign_in: {said}" in (await ui.get(PAGE)).text


@pytest.mark.slow
@pytest.mark.parametrize(
    "block",
    [
        {"failure_category": None},
        {"failure_category": []},
        {"failure_category": [{"category": "ELEMENT_NOT_FOUND", "confidence_float": 0.9}, *AUTH[1:]]},
        {"failure_category": [AUTH[0], {"category": "WEBSITE_ERROR", "confidence_float": 0.95}]},
        {"block_type": "wait"},
    ],
)
async def test_a_failure_that_is_no_login_s_is_not_called_one(
    ui: Ui, skyvern: FakeSkyvern, block: dict[str, Any]
) -> None:
    refused(skyvern, **block)
    page = (await ui.get(PAGE)).text
    assert "Denied." in page
    assert "<strong>" not in page[page.index('id="failure"') :].split("</section>")[0]


@pytest.mark.slow
@pytest.mark.parametrize("answer", [httpx.Response(404), httpx.Response(500), httpx.Response(200, json=[1])])
async def test_a_server_that_does_not_say_why_costs_only_the_sentence(
    ui: Ui, skyvern: FakeSkyvern, answer: Any
) -> None:
    refused(skyvern)
    skyvern.next("GET", "/api/v1/tasks/[^/]+", answer)
    page = (await ui.get(PAGE)).text
    assert "Denied." in page
    assert "the portal refused" not in page
