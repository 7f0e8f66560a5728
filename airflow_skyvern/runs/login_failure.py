"""Says in a sentence why a login failed: what the portal rejected, at which block, from which credential."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from airflow_skyvern.client import api, browser_api, credential_api, task_api
from airflow_skyvern.client.calls import OtherAnswer
from airflow_skyvern.exceptions import SkyvernError
from airflow_skyvern.runs.blocks import definitions_of
from airflow_skyvern.runs.browser_profiles import ID_PREFIX
from airflow_skyvern.runs.login_code import types_code

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call
    from airflow_skyvern.client.session import Send
    from airflow_skyvern.models import Block, BlockTask, Run

CREDENTIAL_ID = re.compile(r"cred_\d+", re.ASCII)

CODES = {
    "OTP_TIMEOUT": "no code came in time for the login",
    "OTP_EXPIRED": "the code for the login had expired",
    "OTP_ERROR": "Skyvern could not get the code for the login",
    "MISSING_TOTP_SOURCE": "Skyvern has nowhere to get the code for the login from: neither the block nor its "
    "credential has a totp_identifier, or the secret of an authenticator",
    "CREDENTIAL_ACCOUNT_LOCKED": "the portal has locked the account",
}
"""The meanings of Skyvern's own error codes for logins."""

REFUSED = "the portal refused the user name or the password"
CODE_REFUSED = "the portal refused the login, in which a code was typed in"
UNUSABLE = "Skyvern could not use the credential: it does not exist any more, or lacks what the login needs"
GONE = "Could not find credential parameter"
"""The beginning of Skyvern's reason for a run whose credential was deleted."""


def login_failure(send: Send, run: Run, block: Block | None) -> str:
    """
    Return in a few words why a run's login failed, if that is why the run ended badly; otherwise an empty text.

    :param block: The block at which it failed.
    """
    try:
        what = _what(send, run, block)
        return f"{what}{_whose(send, run, block)}" if what else ""
    except (SkyvernError, ValidationError, OtherAnswer):  # the run's own reason is known in any case
        return ""


def named_ids(run: Run) -> list[str]:
    """Return the ids of a run's objects that have names: its browser profile, and its credentials."""
    profile = [run.browser_profile_id] if run.browser_profile_id else []
    return [*profile, *credential_ids(run)]


def credential_ids(run: Run) -> list[str]:
    """Return the ids of the credentials among the parameters of a run."""
    return [value for value in _parameters(run).values() if is_credential_id(value)]


def is_credential_id(value: Any) -> bool:
    """Return whether the value of a parameter is the id of a credential."""
    return isinstance(value, str) and CREDENTIAL_ID.fullmatch(value) is not None


def call_for_name(wanted: str) -> Call[Any]:
    """Return the call that fetches a browser profile or a credential, which has a name."""
    is_profile = wanted.startswith(ID_PREFIX)
    return browser_api.get_browser_profile(wanted) if is_profile else credential_api.get_credential(wanted)


def _what(send: Send, run: Run, block: Block | None) -> str | None:
    codes = [*run.error_codes, *(block.error_codes if block else ())]
    if (known := next((CODES[code] for code in codes if code in CODES), None)) is not None:
        return known
    if GONE in (run.failure_reason or ""):
        return UNUSABLE
    if block is None or not block.task_id:
        return None
    category = _category(send(task_api.get_block_task(block.task_id)))
    if category == "AUTH_FAILURE":
        return CODE_REFUSED if any(map(types_code, block.actions)) else REFUSED
    return UNUSABLE if category == "CREDENTIAL_ERROR" else None


def _category(task: BlockTask) -> str | None:
    """Return the likeliest of Skyvern's reasons why a block failed."""
    found = task.get("failure_category") or []
    likeliest = max(found, key=lambda one: one.get("confidence_float") or 0.0, default=None)
    return likeliest["category"] if likeliest else None


def _whose(send: Send, run: Run, block: Block | None) -> str:
    """Return which credential it was, if the run says so."""
    given = {key: value for key, value in _parameters(run).items() if is_credential_id(value)}
    if len(given) > 1 and block is not None:
        keys = set(_keys_of(send(api.get_run_definition(run.run_id)), block))
        given = {key: value for key, value in given.items() if key in keys} or given
    shown = ", ".join(_shown(send, one) for one in given.values())
    return f" (credential {shown})" if shown else ""


def _shown(send: Send, credential_id: str) -> str:
    try:
        return f"{send(credential_api.get_credential(credential_id)).name}, {credential_id}"
    except (SkyvernError, ValidationError, OtherAnswer):  # it was deleted, say
        return credential_id


def _keys_of(definition: Any, block: Block) -> Iterator[str]:
    """Yield the parameters of a block, as the workflow of its run defines it."""
    workflow = (definition.get("workflow") or {}).get("workflow_definition") or {}
    for one in definitions_of(workflow.get("blocks")):
        if one.get("label") == block.label:
            yield from (str(parameter.get("key")) for parameter in one.get("parameters") or ())


def _parameters(run: Run) -> Mapping[str, Any]:
    given = (run.run_request or {}).get("parameters")
    return given if isinstance(given, Mapping) else {}
