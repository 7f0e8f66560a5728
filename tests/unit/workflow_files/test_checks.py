"""What Skyvern would take without a word, or refuse later, is named here."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.workflow_files.checks import check
from airflow_skyvern.workflow_files.text import WorkflowFile
from tests.unit.workflow_files.test_form import MONTH, PAUSE, workflow


def file(*blocks: dict[str, Any], **more: Any) -> WorkflowFile:
    return WorkflowFile("invoices.yaml", workflow(*blocks, **more))


HTTP = {"block_type": "http_request", "label": "call", "url": "https://example.com"}


@pytest.mark.parametrize(
    ("made", "complaint"),
    [
        (file({**PAUSE, "wait_secs": 3}), r"block pause: wait_secs: no such key. Did you mean wait_sec\?"),
        (file({**PAUSE, "Label": "x"}), r"block pause: Label: no such key. Did you mean label\?"),
        (file(PAUSE, proxi_location="X"), r"proxi_location: no such key. Did you mean proxy_location\?"),
        (
            file(PAUSE, definition={"finally_block": "x"}),
            r"finally_block: no such key. Did you mean finally_block_label",
        ),
        (file(PAUSE, parameters=[{**MONTH, "default": 1}]), r"parameter month: default: no such key"),
        (file(PAUSE, nope=1), r"nope: no such key. Known: "),
        (file({"block_type": "wait", "label": "a", "wait_sec": 1, "url": "x"}), r"block a: url: no such key"),
        (
            file({"block_type": "for_loop", "label": "l", "loop_blocks": [{**PAUSE, "wait_secs": 1}]}),
            r"block pause: wait_secs",
        ),
        (
            file(
                {"block_type": "conditional", "label": "c", "branch_conditions": [{"criteria": {"expresion": "x"}}]}
            ),
            r"block c, criteria: expresion: no such key. Did you mean expression\?",
        ),
        (
            file(PAUSE, definition={"retry_policy": {"max_retires": 2, "retry_on": [{"status": "failed"}]}}),
            r"retry_policy: max_retires: no such key. Did you mean max_retries\?",
        ),
        (
            file(PAUSE, definition={"retry_policy": {"retry_on": [{"status": "failed", "error_code": ["X"]}]}}),
            r"retry_policy, retry_on: error_code: no such key. Did you mean error_codes\?",
        ),
        (file(PAUSE, definition={"retry_policy": {"max_retries": 2}}), r"retry_policy: retry_on: is missing"),
        (
            file(PAUSE, definition={"browser_settings": {"timezone": "UTC"}}),
            r"browser_settings: timezone: no such key. Did you mean timezone_id\?",
        ),
        (file({"block_type": "goto_url", "label": "g"}), r"block g: url: is missing"),
        (file({"label": "g"}), r"block 1: block_type: is missing"),
        (file({"block_type": "wait", "wait_sec": 1}), r"block 1: label: is missing"),
        (file(PAUSE, PAUSE), r"block pause: appears 2 times"),
        (file({**PAUSE, "label": "my block"}), r"block 'my block': the name must be letters"),
        (file(PAUSE, parameters=[MONTH, MONTH]), r"parameter month: appears 2 times"),
        (file({**HTTP, "parameter_keys": ["moth"]}, parameters=[MONTH]), r"there is no moth. Did you mean month\?"),
        (file({**PAUSE, "next_block_label": "pose"}), r"next_block_label: there is no pose. Did you mean pause\?"),
        (file(PAUSE, definition={"finally_block_label": "x"}), r"finally_block_label: there is no x. Known: pause"),
    ],
)
def test_a_mistake_is_named_with_what_was_probably_meant(made: WorkflowFile, complaint: str) -> None:
    with pytest.raises(SkyvernConfigError, match=complaint) as caught:
        check(made)
    assert str(caught.value).startswith("invoices.yaml: ")


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(SkyvernConfigError, match=r"wait_secs.*nope|nope.*wait_secs"):
        check(file({**PAUSE, "wait_secs": 3}, nope=1))


def test_the_output_of_a_block_may_be_given_to_another() -> None:
    assert check(file(PAUSE, {**HTTP, "parameter_keys": ["pause_output"]})) == []


def test_types_of_tomorrow_and_keys_of_yesterday_are_warnings() -> None:
    teleport = {"block_type": "http_requests", "label": "t", "target": 1}
    (warning,) = check(file(teleport))
    assert "block t: block_type: http_requests is not a type that this version of the provider knows" in warning
    assert warning.endswith("Did you mean http_request?")
    assert "does not read this key" in check(file({**HTTP, "cache_actions": True}))[0]


def test_unknown_keys_can_be_allowed() -> None:
    (warning,) = check(file({**PAUSE, "wait_secs": 3}), keys=False)
    assert "wait_secs" in warning


SECRET = "hunter2-s3cr3t-W4rd"


@pytest.mark.parametrize(
    ("made", "where"),
    [
        (file({**HTTP, "headers": {"Authorization": f"Bearer {SECRET}"}}), "block call.headers.Authorization"),
        (file({**HTTP, "headers": {"X-Api-Key": SECRET}}), "block call.headers.X-Api-Key"),
        (file({**HTTP, "body": {"user": {"password": SECRET}}}), "block call.body.user.password"),
        (file({**HTTP, "url": f"https://example.com/?token={SECRET}"}), "block call.url"),
        (file({**HTTP, "url": f"https://me:{SECRET}@example.com"}), "block call.url"),
        (file(PAUSE, parameters=[{**MONTH, "key": "password", "default_value": SECRET}]), "parameter password"),
        (file(PAUSE, extra_http_headers={"Cookie": SECRET}), "extra_http_headers.Cookie"),
        (
            file({"block_type": "file_upload", "label": "up", "aws_secret_access_key": SECRET}),
            "block up.aws_secret_access_key",
        ),
        (
            file({"block_type": "for_loop", "label": "l", "loop_blocks": [{**HTTP, "headers": {"Cookie": SECRET}}]}),
            "block call.headers.Cookie",
        ),
        (file({"block_type": "code", "label": "c", "code": f"key = 'sk-live-{SECRET}'"}), "block c.code"),
        (file({**HTTP, "headers": {"Authorization": "Bearer " + SECRET + "{{ x }}"}}), "headers.Authorization"),
        (
            file({"block_type": "file_upload", "label": "up", "azure_storage_account_key": SECRET}),
            "block up.azure_storage_account_key",
        ),
        *(
            (file({"block_type": "code", "label": "c", "code": code.format(SECRET)}), "block c.code")
            for code in (
                "password = '{}'",
                "api_key: str = '{}'",
                "return {{'password': '{}'}}",
                "await portal.login('me', password='{}')",
                "headers['X-Api-Key'] = '{}'",
                "self.client_secret = '{}'",
            )
        ),
    ],
)
def test_a_secret_is_refused_with_the_way_that_works(made: WorkflowFile, where: str) -> None:
    with pytest.raises(SkyvernConfigError, match=r"holds a secret\. .*credential of Skyvern") as caught:
        check(made)
    assert where in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "made",
    [
        file({**HTTP, "headers": {"Authorization": "Bearer {{ token }}"}}),
        file({**HTTP, "body": {"password": "{{ login.password }}"}}),
        file(
            PAUSE,
            parameters=[
                {**MONTH, "key": "login", "workflow_parameter_type": "credential_id", "default_value": "cred_1"}
            ],
        ),
        file(PAUSE, parameters=[{"parameter_type": "credential", "key": "login", "credential_id": "cred_1"}]),
        file(
            PAUSE,
            parameters=[
                {
                    "parameter_type": "azure_vault_credential",
                    "key": "login",
                    "vault_name": "v",
                    "username_key": "portal-user",
                    "password_key": "portal-password",
                }
            ],
        ),
        file({"block_type": "code", "label": "c", "code": "login(password=password, token=token)"}),
        file({"block_type": "code", "label": "c", "code": "password = '{{ password }}'\nreturn 1"}),
        file({"block_type": "code", "label": "c", "code": "password = '#password'; api_key = ''"}),
        file({"block_type": "code", "label": "c", "code": "password = 'not Python"}),
        file(PAUSE, definition={"retry_policy": {"retry_on": [{"status": "failed", "error_codes": ["X"]}]}}),
        file({**HTTP, "block_type": "task", "error_code_mapping": {"BAD_PASSWORD": "the password is refused"}}),
        file({**HTTP, "block_type": "task", "data_schema": {"properties": {"token": {"type": "string"}}}}),
    ],
)
def test_what_names_a_secret_is_none(made: WorkflowFile) -> None:
    assert check(made) == []
