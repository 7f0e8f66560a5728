"""The workflows that a browser runs, as Skyvern's API wants them; they work on the portal of `site`."""

from __future__ import annotations

from typing import Any

from dev.browser.site import DEMO_PASSWORD, DEMO_USER
from dev.process import free_port

INVOICE = {key: {"type": "string"} for key in ("invoice", "customer", "status")} | {"amount": {"type": "number"}}
INVOICES_SCHEMA = {
    "type": "object",
    "properties": {
        "total_open": {"type": "number"},
        "invoices": {"type": "array", "items": {"type": "object", "properties": INVOICE}},
    },
}


def _parameter(key: str, kind: str = "string", **more: Any) -> dict[str, Any]:
    return {"parameter_type": "workflow", "key": key, "workflow_parameter_type": kind, **more}


def _text(key: str, default: str) -> dict[str, Any]:
    return _parameter(key, default_value=default)


def _block(block_type: str, label: str, **fields: Any) -> dict[str, Any]:
    return {"block_type": block_type, "label": label, **fields}


def _workflow(*blocks: dict[str, Any], parameters: tuple[dict[str, Any], ...] = ()) -> dict[str, Any]:
    return {"workflow_definition": {"parameters": list(parameters), "blocks": list(blocks)}}


def browser_workflows(site: str) -> dict[str, dict[str, Any]]:
    """Return every workflow by name; `site` is the portal's address."""
    invoices = f"{site}/invoices?open=1"
    login = _block(
        "login",
        "sign_in",
        url=f"{site}/login",
        navigation_goal="Log in with the given user name and password.",
        parameter_keys=["username", "password"],
        max_retries=0,
    )
    extract = _block(
        "extraction",
        "read_invoices",
        data_extraction_goal="Extract all invoices and the total that is open.",
        data_schema=INVOICES_SCHEMA,
    )
    download = _block(
        "file_download",
        "get_pdf",
        navigation_goal="Download the invoice {{ invoice }}.",
        parameter_keys=["invoice"],
    )
    ask = _block(
        "human_interaction",
        "ask",
        instructions="May the invoice {{ invoice }} be downloaded?",
        positive_descriptor="Download it",
        negative_descriptor="Stop here",
        recipients=["a@example.com"],
        subject="Approval",
        body="Please decide.",
        timeout_seconds=600,
    )
    with_code = {**login, "url": f"{site}/login2", "totp_identifier": "ops@example.com"}
    user = (_text("username", DEMO_USER), _text("password", DEMO_PASSWORD))
    bad_login = {"error_code_mapping": {"BAD_LOGIN": "the portal refuses user name or password"}}
    return {
        "month_end": _workflow(login, extract, download, parameters=(*user, _text("invoice", "INV-1003"))),
        "login": _workflow(login, parameters=user),
        "private": _workflow({**extract, "url": f"{site}/invoices"}),
        "login_credential": _workflow(
            {**login, "parameter_keys": ["portal"]}, parameters=(_parameter("portal", "credential_id"),)
        ),
        "login_with_code": _workflow({**with_code, "max_steps_per_run": 10}, parameters=user),
        "extract": _workflow({**extract, "url": invoices}),
        "download_pdf": _workflow(
            {**download, "url": f"{invoices}&size={{{{ size }}}}", "parameter_keys": ["invoice", "size"]},
            parameters=(_text("invoice", "INV-1002"), _text("size", "20KB")),
        ),
        "download_csv": _workflow(
            _block("file_download", "get_csv", url=invoices, navigation_goal="Download all invoices as CSV.")
        ),
        "approve": _workflow({**extract, "url": invoices}, ask, download, parameters=(_text("invoice", "INV-1001"),)),
        "upload_receipt": _workflow(
            _block(
                "navigation",
                "send_receipt",
                url=f"{site}/upload",
                navigation_goal="Upload the receipt.",
                parameter_keys=["receipt"],
            ),
            parameters=(_parameter("receipt", "file_url"),),
        ),
        "slow_page": _workflow(
            _block("goto_url", "wait_for_page", url=f"{site}/slow?s=20"), {**extract, "url": invoices}
        ),
        # These end badly.
        "wrong_password": _workflow(
            {**login, **bad_login}, parameters=(_text("username", DEMO_USER), _text("password", "wrong"))
        ),
        "missing_invoice": _workflow({**download, "url": invoices}, parameters=(_text("invoice", "INV-9999"),)),
        "server_error": _workflow(
            _block("navigation", "open_portal", url=f"{site}/fail", navigation_goal="Open the list of invoices.")
        ),
        "too_many_steps": _workflow(
            _block("navigation", "stuck", url=f"{site}/login", navigation_goal="Keep trying.", max_steps_per_run=2)
        ),
        "refused": _workflow(
            _block(
                "navigation",
                "nobody_home",
                url=f"http://127.0.0.1:{free_port()}/",
                navigation_goal="Open the list.",
            )
        ),
    }
