"""
The form of a workflow in files: Skyvern's own export, without values that Skyvern adds or assumes.

Skyvern answers with a definition that it would not accept: with ids and times, the outputs of blocks as parameters,
and whole parameters where a definition has their names. This module converts both to one form, so that a file can be
compared with the server's workflow.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_skyvern.workflow_files import fields

if TYPE_CHECKING:
    from airflow_skyvern.workflow_files.fields import Fields

Form = Mapping[str, Any]
"""A workflow in the form of files."""

WHEN_LEFT_OUT: Form = {
    "proxy_location": None,
    "webhook_callback_url": None,
    "totp_verification_url": None,
    "totp_identifier": None,
    "mask_secrets": False,
    "pin_saved_session_ip": False,
    "max_elapsed_time_minutes": None,
    "extra_http_headers": {},
    "cdp_connect_headers": {},
    "browser_type": None,
    "enable_self_healing": False,
    "code_version": 2,
}
"""Fields that an update sets, or the version before would supply them; ``code_version`` is a new workflow's."""

OF_THE_SERVER = ("folder_id",)
"""Fields that a file may set when the workflow is created, and that are not compared: people move workflows."""

MASKED = "***"
"""Skyvern's placeholder for the values of ``cdp_connect_headers``."""

VERSION_WITH_ROUTES = 2
"""The form of a definition whose blocks name the next one."""

PLATFORM_KEYS = frozenset({
    "SKYVERN_SMTP_HOST_AWS_SES", "SKYVERN_SMTP_PORT_AWS_SES", "SKYVERN_SMTP_USERNAME_SES",
    "SKYVERN_SMTP_PASSWORD_SES", "UNUSED_CUSTOM_SMTP_PLACEHOLDER",
})  # fmt: skip
"""Secrets of Skyvern itself, for which it adds parameters where a block sends mail."""

SMTP = ("smtp_host", "smtp_port", "smtp_username", "smtp_password")

LOGIN_PROMPT = "ae611bcbaf61544ed67bfab239155247c012ec024b6e11251c1d90eaafb2fa3f"
"""The sha256 of the goal that Skyvern gives to a ``login`` block without one."""

EMPTY_IS_NOTHING = ("parameter_keys", "file_attachments")

NOISE_OF_WORKFLOWS = frozenset({
    "workflow_id", "agent_id", "organization_id", "workflow_permanent_id", "version", "is_template", "created_at",
    "modified_at", "deleted_at", "created_by", "edited_by", "import_error", "copilot_authored",
    "effective_default_engine", "original_created_by", "original_created_at",
})  # fmt: skip
NOISE_OF_BLOCKS = frozenset(
    {"output_parameter", "parameters", "loop_over", "task_type", "include_extracted_text", *SMTP}
)
NOISE_OF_PARAMETERS = frozenset({"workflow_id", "created_at", "modified_at", "deleted_at", "source", "value"})


def form_of(definition: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return a workflow as files have it.

    :param definition: Skyvern's answer, or the content of a file; Skyvern's default values are left out.
    """
    fields_of_root = {**fields.of_root(), **WHEN_LEFT_OUT}
    form = _kept(definition, fields_of_root, {*NOISE_OF_WORKFLOWS, *OF_THE_SERVER})
    if "cdp_connect_headers" in form:
        form["cdp_connect_headers"] = dict.fromkeys(form["cdp_connect_headers"], MASKED)
    form.pop("workflow_definition", None)
    return {**form, "workflow_definition": _definition(definition.get("workflow_definition") or {})}


def to_send(raw: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return the request for a version with exactly the file's content: it sets all that an update would otherwise keep.

    :param raw: The content of the file.
    """
    definition = {"browser_settings": None, **raw["workflow_definition"]}
    return {**WHEN_LEFT_OUT, **raw, "workflow_definition": definition}


def are_equal(one: Form, other: Form) -> bool:
    """Return whether two forms mean the same; Skyvern stores parameters of type ``context`` after all others."""
    return comparable(one) == comparable(other)


def digest_of(form: Form) -> str:
    """Return a short name of the content, the same for all forms that mean the same."""
    return _digest(json.dumps(comparable(form), sort_keys=True, default=str))[:16]


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def comparable(form: Form) -> dict[str, Any]:
    """Return a form for comparison: with the parameters in the order in which Skyvern stores them."""
    definition = form["workflow_definition"]
    ordered = sorted(definition.get("parameters") or (), key=lambda row: row.get("parameter_type") == "context")
    return {**form, "workflow_definition": {**definition, "parameters": ordered}}


def _definition(given: Mapping[str, Any]) -> dict[str, Any]:
    parameters, blocks = given.get("parameters") or (), given.get("blocks") or ()
    platform = {row.get("key") for row in parameters if row.get("aws_key") in PLATFORM_KEYS}
    own = [
        _parameter(row)
        for row in parameters
        if row.get("parameter_type") != "output" and row.get("key") not in platform
    ]
    form = _kept(given, fields.of_definition(), {"parameters", "blocks"})
    if form.get("version") == (VERSION_WITH_ROUTES if _has_routes(blocks) else 1):
        del form["version"]
    _settle(form, "browser_settings", _without_nulls)
    _settle(form, "retry_policy", _retry_policy)
    return {"parameters": own, "blocks": [_block(row, platform) for row in blocks], **form}


def _has_routes(blocks: Any) -> bool:
    return any(row.get("block_type") == "conditional" or row.get("next_block_label") is not None for row in blocks)


def _parameter(given: Mapping[str, Any]) -> dict[str, Any]:
    kind = str(given.get("parameter_type"))
    raw, known = dict(given), fields.of_parameter(kind) or fields.UNKNOWN_PARAMETER
    if isinstance(source := raw.get("source"), Mapping):
        raw["source_parameter_key"] = source.get("key")
    if kind == "workflow":
        raw["default_value"] = _as_stored(str(raw.get("workflow_parameter_type")), raw.get("default_value"))
    noise = NOISE_OF_PARAMETERS | {name for name in raw if name.endswith("_parameter_id")}
    return _kept(raw, known, noise)


def _as_stored(kind: str, value: Any) -> Any:
    """Return a default as Skyvern stores it: of the parameter's type."""
    convert: dict[str, Any] = {"string": str, "integer": int, "float": float, "boolean": _as_boolean}
    if value is None or kind not in convert:
        return value
    try:
        return convert[kind](value)
    except (TypeError, ValueError, OverflowError):
        return value  # which Skyvern refuses


def _as_boolean(value: Any) -> Any:
    return {"true": True, "1": True, "false": False, "0": False}.get(str(value).lower(), value)


def _block(given: Mapping[str, Any], platform: set[Any]) -> dict[str, Any]:
    kind = str(given.get("block_type"))
    known = fields.of_block(kind)
    raw = _with_names_of_parameters(given, platform)
    if kind == "code":
        raw.pop("steps", None)  # which Skyvern generates from the code
    noise = (
        NOISE_OF_BLOCKS
        | fields.OBSOLETE
        | ((fields.of_all_blocks() | {"disable_cache"}) - set(known) if known else set())
    )
    raw.pop(fields.NOT_STORED.get(kind, ""), None)
    form = _kept(raw, {**(known or fields.UNKNOWN_BLOCK), **fields.STORED_AS.get(kind, {})}, noise)
    if kind == "login":
        _settle(form, "navigation_goal", lambda goal: {} if _digest(goal) == LOGIN_PROMPT else goal)
    _settle(form, "condition", lambda value: _kept(value, fields.CRITERIA, {"id"}))
    _settle(form, "branch_conditions", lambda rows: [_branch(row) for row in rows])
    if "loop_blocks" in form:
        form["loop_blocks"] = [_block(row, platform) for row in form["loop_blocks"] or ()]
    return form


def _with_names_of_parameters(given: Mapping[str, Any], platform: set[Any]) -> dict[str, Any]:
    """Put the names of parameters where Skyvern answers with the parameters."""
    raw = dict(given)
    if isinstance(rows := raw.get("parameters"), list):
        raw.setdefault("parameter_keys", [row.get("key") for row in rows])
    if isinstance(over := raw.get("loop_over"), Mapping):
        raw.setdefault("loop_over_parameter_key", over.get("key"))
    if raw.get("loop_variable_reference"):
        raw.pop("loop_over_parameter_key", None)  # Skyvern finds it itself
    for name in SMTP:
        if isinstance(secret := raw.get(name), Mapping):
            raw.setdefault(f"{name}_secret_parameter_key", secret.get("key"))
        if raw.get(f"{name}_secret_parameter_key") in platform:
            raw.pop(f"{name}_secret_parameter_key")
    return {name: value for name, value in raw.items() if not (value == [] and name in EMPTY_IS_NOTHING)}


def _branch(given: Mapping[str, Any]) -> dict[str, Any]:
    form = _kept(given, fields.BRANCH, {"id"})
    _settle(form, "criteria", lambda value: _kept(value, fields.CRITERIA, {"id"}))
    return form


def _retry_policy(given: Mapping[str, Any]) -> dict[str, Any]:
    form = _kept(given, fields.RETRY_POLICY, set())
    _settle(form, "retry_on", lambda rows: [_without_nulls(row) for row in rows])
    return form


def _without_nulls(given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if value is not None}


def _settle(form: dict[str, Any], name: str, settled: Any) -> None:
    """Convert a part of another form into this one; values of an unexpected type stay, for the checks to report."""
    if name not in form:
        return
    try:
        form[name] = settled(form[name])
    except (AttributeError, TypeError):
        return
    if form[name] in ({}, []):
        del form[name]


def _kept(given: Mapping[str, Any], known: Fields, noise: set[str] | frozenset[str]) -> dict[str, Any]:
    """Return the fields that are neither noise nor defaults, in the order of the table; unknown ones last."""
    unknown = sorted(name for name in given if name not in known and name not in noise)
    names = [*(name for name in known if name in given and name not in noise), *unknown]
    return {name: given[name] for name in names if not _is_assumed(given[name], known.get(name, fields.REQUIRED))}


def _is_assumed(value: Any, default: Any) -> bool:
    if default == fields.REQUIRED:
        return value is None
    return value is None or (value == default and type(value) is type(default))
