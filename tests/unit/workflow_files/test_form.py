"""A file and what Skyvern answers become the same form."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_skyvern.workflow_files.form import are_equal, digest_of, form_of, to_send

WHEN = {"created_at": "2026-11-29T17:43:47", "modified_at": "2026-11-29T17:43:47", "deleted_at": None}
MONTH = {"parameter_type": "workflow", "key": "month", "workflow_parameter_type": "string"}
STORED_MONTH = {**MONTH, "description": None, "workflow_parameter_id": "wp_1", "workflow_id": "w_1", **WHEN}
PAUSE = {"block_type": "wait", "label": "pause", "wait_sec": 5}


def workflow(*blocks: dict[str, Any], parameters: Any = (), **more: Any) -> dict[str, Any]:
    definition = {"parameters": list(parameters), "blocks": list(blocks), **more.pop("definition", {})}
    return {"title": "invoices", "workflow_definition": definition, **more}


def output(label: str) -> dict[str, Any]:
    key = f"{label}_output"
    return {"parameter_type": "output", "key": key, "output_parameter_id": "op_1", "workflow_id": "w_1", **WHEN}


def stored(**block: Any) -> dict[str, Any]:
    """A block as the server answers with it."""
    common = {"next_block_label": None, "continue_on_failure": False, "model": None, "disable_cache": False}
    return {**common, "next_loop_on_failure": False, "output_parameter": output(block["label"]), **block}


def test_what_the_server_adds_is_left_out() -> None:
    answer = {
        **workflow(
            stored(**PAUSE, parameters=[]), parameters=[output("pause"), STORED_MONTH], definition={"version": 1}
        ),
        **WHEN,
        "workflow_id": "w_1",
        "workflow_permanent_id": "wpid_1",
        "agent_id": "wpid_1",
        "organization_id": "o_1",
        "version": 3,
        "is_template": False,
        "status": "published",
        "run_with": "agent",
        "code_version": 2,
        "cache_key": "default",
        "created_by": None,
        "extra_http_headers": {},
        "folder_id": "fld_1",
    }
    assert form_of(answer) == workflow(PAUSE, parameters=[MONTH])


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        (
            {"block_type": "for_loop", "label": "each", "loop_over_parameter_key": "month", "loop_blocks": [PAUSE]},
            {"block_type": "for_loop", "label": "each", "loop_over": STORED_MONTH, "loop_blocks": [stored(**PAUSE)]},
        ),
        (
            {"block_type": "for_loop", "label": "each", "loop_variable_reference": "month", "loop_blocks": [PAUSE]},
            {
                "block_type": "for_loop", "label": "each", "loop_over": STORED_MONTH,
                "loop_variable_reference": "month", "loop_blocks": [stored(**PAUSE)],
            },
        ),
        (
            {"block_type": "code", "label": "sum", "code": "return 1", "parameter_keys": ["month"]},
            stored(block_type="code", label="sum", code="return 1", parameters=[STORED_MONTH], steps=[{}]),
        ),
        (
            {"block_type": "goto_url", "label": "open", "url": "https://example.com"},
            stored(
                block_type="goto_url", label="open", url="https://example.com", engine="skyvern-1.0", max_retries=0,
                task_type="general", include_extracted_text=True, complete_verification=False,
            ),
        ),
        (
            {"block_type": "validation", "label": "seen", "complete_criterion": "a list", "disable_cache": True},
            stored(block_type="validation", label="seen", complete_criterion="a list", max_steps_per_run=2),
        ),
        (
            {"block_type": "conditional", "label": "if", "branch_conditions": [{"is_default": True}]},
            stored(
                block_type="conditional", label="if",
                branch_conditions=[{"id": "1f", "criteria": None, "next_block_label": None, "is_default": True}],
            ),
        ),
    ],
    ids=lambda value: str(value.get("block_type")),
)  # fmt: skip
def test_a_block_of_a_file_is_the_same_as_the_servers(given: dict[str, Any], answer: dict[str, Any]) -> None:
    file, server = workflow(given, parameters=[MONTH]), workflow(answer, parameters=[STORED_MONTH])
    assert are_equal(form_of(file), form_of(server))
    assert digest_of(form_of(file)) == digest_of(form_of(server))


@pytest.mark.parametrize(
    ("kind", "given", "as_stored"),
    [
        ("integer", "3", 3),
        ("boolean", "true", True),
        ("float", 1, 1.0),
        ("string", 7, "7"),
        ("json", {"a": 1}, {"a": 1}),
    ],
)
def test_a_default_is_compared_as_skyvern_stores_it(kind: str, given: Any, as_stored: Any) -> None:
    files, servers = (
        form_of(workflow(PAUSE, parameters=[{**MONTH, "workflow_parameter_type": kind, "default_value": value}]))
        for value in (given, as_stored)
    )
    assert files == servers


@pytest.mark.parametrize(
    "change",
    [
        {"wait_sec": 6},
        {"label": "wait"},
        {"continue_on_failure": True},
        {"next_block_label": "pause"},
        {"a_key_of_tomorrow": 1},
    ],
)
def test_whatever_differs_is_seen(change: dict[str, Any]) -> None:
    assert not are_equal(form_of(workflow(PAUSE)), form_of(workflow({**PAUSE, **change})))


def test_order_is_content_but_for_parameters_that_skyvern_stores_last() -> None:
    other = {**PAUSE, "label": "other"}
    assert not are_equal(form_of(workflow(PAUSE, other)), form_of(workflow(other, PAUSE)))
    context = {"parameter_type": "context", "key": "c", "source_parameter_key": "month"}
    one, two = (form_of(workflow(PAUSE, parameters=rows)) for rows in ([context, MONTH], [MONTH, context]))
    assert are_equal(one, two)
    assert one != two


def test_parameters_that_skyvern_adds_for_its_own_mail_server_are_left_out() -> None:
    secret = {"parameter_type": "aws_secret", "key": "smtp_host", "aws_key": "SKYVERN_SMTP_HOST_AWS_SES"}
    mail = {
        "block_type": "send_email",
        "label": "mail",
        "sender": "a@b.c",
        "recipients": ["d@b.c"],
        "subject": "s",
        "body": "b",
    }
    answer = workflow(stored(**mail, smtp_host=secret, file_attachments=[], cc=[]), parameters=[secret])
    assert form_of(answer) == form_of(workflow(mail))


def test_what_is_sent_leaves_nothing_of_the_version_before() -> None:
    sent = to_send(workflow(PAUSE))
    assert sent["proxy_location"] is None
    assert sent["extra_http_headers"] == {}
    assert sent["workflow_definition"]["browser_settings"] is None
    assert to_send(workflow(PAUSE, proxy_location="RESIDENTIAL"))["proxy_location"] == "RESIDENTIAL"


def test_a_field_of_an_unknown_type_of_block_stays() -> None:
    new = {"block_type": "teleport", "label": "t", "target": "x", "careful": False}
    assert form_of(workflow(stored(**new)))["workflow_definition"]["blocks"][0]["careful"] is False
