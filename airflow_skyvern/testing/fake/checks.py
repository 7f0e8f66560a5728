"""What the server refuses, in its own words."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.records import Seen, Workflow

STATUSES = (
    "created",
    "queued",
    "running",
    "paused",
    "timed_out",
    "failed",
    "terminated",
    "completed",
    "canceled",
)
STATUSES_OF_A_WORKFLOW = (
    *("created", "queued", "running", "failed", "terminated", "canceled", "timed_out", "completed", "paused"),
)

PROXY_LOCATIONS = (
    *("RESIDENTIAL", "US-CA", "US-NY", "US-TX", "US-FL", "US-WA", "RESIDENTIAL_ES", "RESIDENTIAL_IE"),
    *(
        "RESIDENTIAL_GB",
        "RESIDENTIAL_IN",
        "RESIDENTIAL_JP",
        "RESIDENTIAL_FR",
        "RESIDENTIAL_DE",
        "RESIDENTIAL_NZ",
    ),
    *(
        "RESIDENTIAL_ZA",
        "RESIDENTIAL_AR",
        "RESIDENTIAL_AU",
        "RESIDENTIAL_BR",
        "RESIDENTIAL_TR",
        "RESIDENTIAL_CA",
    ),
    *(
        "RESIDENTIAL_MX",
        "RESIDENTIAL_IT",
        "RESIDENTIAL_NL",
        "RESIDENTIAL_PH",
        "RESIDENTIAL_KR",
        "RESIDENTIAL_SA",
    ),
    *("RESIDENTIAL_ISP", "NONE"),
)


class Refusal(Exception):
    def __init__(self, status: int, body: Any) -> None:
        super().__init__(status)
        self.response = httpx.Response(status, json=body)


def detail(status: int, detail: Any) -> Refusal:
    return Refusal(status, {"detail": detail})


def complaint(kind: str, loc: list[Any], msg: str, given: Any, **ctx: Any) -> Refusal:
    """Answer 422 as FastAPI does, which repeats what it was given."""
    item = {"type": kind, "loc": loc, "msg": msg, "input": given}
    return detail(422, [{**item, "ctx": ctx} if ctx else item])


def one_of(values: Sequence[str]) -> str:
    """Name the choices as pydantic does."""
    quoted = [f"'{value}'" for value in values]
    return f"{', '.join(quoted[:-1])} or {quoted[-1]}"


def checked_body(content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content)
    except ValueError:
        raise complaint("json_invalid", ["body", 0], "JSON decode error", {}, error="Expecting value") from None
    if not isinstance(body, dict):
        msg = "Input should be a valid dictionary or object to extract fields from"
        raise complaint("model_attributes_type", ["body"], msg, body)
    if "workflow_id" not in body:
        raise complaint("missing", ["body", "agent_id"], "Field required", body)
    if not isinstance(body["workflow_id"], str):
        raise complaint("string_type", ["body", "workflow_id"], "Input should be a valid string", body["workflow_id"])
    _check_fields(body)
    return body


def _check_fields(body: dict[str, Any]) -> None:
    if not isinstance(parameters := body.get("parameters") or {}, dict):
        raise complaint("dict_type", ["body", "parameters"], "Input should be a valid dictionary", parameters)
    location = body.get("proxy_location")
    if isinstance(location, str) and location not in PROXY_LOCATIONS:
        where = ["body", "proxy_location", "str-enum[ProxyLocation]"]
        raise complaint("enum", where, f"Input should be {one_of(PROXY_LOCATIONS)}", location, expected="…")
    minutes = body.get("max_elapsed_time_minutes")
    if minutes is not None and minutes > 480:
        msg = "Input should be less than or equal to 480"
        raise complaint("less_than_equal", ["body", "max_elapsed_time_minutes"], msg, minutes, le=480)
    metadata = body.get("run_metadata") or {}
    for key, value in metadata.items():
        if not isinstance(value, str):
            raise complaint("string_type", ["body", "run_metadata", key], "Input should be a valid string", value)
    complaints = [
        (len(metadata) > 20, "run_metadata can include at most 20 entries"),
        (any(len(key) > 64 for key in metadata), "run_metadata keys must be at most 64 characters"),
        (any(len(value) > 256 for value in metadata.values()), "run_metadata values must be at most 256 characters"),
    ]
    for wrong, message in complaints:
        if wrong:
            raise complaint("value_error", ["body", "run_metadata"], f"Value error, {message}", metadata, error={})
    if len(files := body.get("file_ids") or []) > 50:
        msg = f"List should have at most 50 items after validation, not {len(files)}"
        ctx = {"field_type": "List", "max_length": 50, "actual_length": len(files)}
        raise complaint("too_long", ["body", "file_ids"], msg, files, **ctx)


def check_run_parameters(workflow: Workflow, parameters: Mapping[str, Any], version: int | None = None) -> None:
    kinds, defaults = workflow.parameters_of(version)
    given = {key: _given(parameters.get(key), defaults.get(key)) for key in kinds}
    if missing := sorted(key for key, value in given.items() if _is_required(value, kinds[key])):
        raise detail(400, f"Missing value for parameter {', '.join(missing)} in workflow {workflow.workflow_id}")
    for key, kind in kinds.items():
        stored = json.dumps(given[key]) if isinstance(given[key], dict | list) else given[key]
        if kind == "credential_id":
            continue
        try:
            _CONVERT.get(kind, str)(stored)
        except (TypeError, ValueError):
            raise detail(
                400, f"Invalid workflow parameter. Expected parameter type: {kind}. Value: {stored}."
            ) from None


def check_credentials(
    workflow: Workflow, parameters: Mapping[str, Any], known: Collection[str], version: int | None = None
) -> None:
    kinds, defaults = workflow.parameters_of(version)
    given = [_given(parameters.get(key), defaults.get(key)) for key, kind in kinds.items() if kind == "credential_id"]
    for value in given:
        if value and value not in known:
            raise detail(400, f"Invalid credential ID: {value}. Failed to resolve to a valid credential.")


def _given(value: Any, default: Any) -> Any:
    return default if value is None else value


def _is_missing(value: Any, kind: str) -> bool:
    return value is None or (kind != "string" and isinstance(value, str) and not value.strip())


def _is_required(value: Any, kind: str) -> bool:
    return kind != "credential_id" and _is_missing(value, kind)


def _boolean(value: Any) -> bool:
    if str(value).lower() not in ("true", "false", "1", "0"):
        raise ValueError(value)
    return True


_CONVERT: dict[str, Any] = {"integer": int, "float": float, "boolean": _boolean, "json": json.loads}


def check_webhook(url: str | None, name: str, advice: str) -> None:
    if url is None:
        return
    if re.search(r"\s", url) or url.endswith("://") or len(url) > 2083:
        raise detail(400, f"Invalid {name}: malformed. {advice}")
    if "://" in url and not url.startswith(("http://", "https://")):
        raise detail(400, f"Invalid {name}: unsupported scheme. {advice}")


def check_statuses(seen: Seen, known: Sequence[str]) -> None:
    for index, status in enumerate(seen.query.get("status") or []):
        if status not in known:
            msg = f"Input should be {one_of(known)}"
            raise complaint("enum", ["query", "status", index], msg, status, expected=one_of(known))


def check_number(seen: Seen, name: str, most: int) -> None:
    given = seen.query.get(name) or []
    if len(given) > most:
        msg = f"List should have at most {most} items after validation, not {len(given)}"
        ctx = {"field_type": "List", "max_length": most, "actual_length": len(given)}
        raise complaint("too_long", ["query", name], msg, given, **ctx)


def page_of(seen: Seen, most_pages: int | None = None, most_rows: int | None = None) -> tuple[int, int]:
    for name, most in (("page", most_pages), ("page_size", most_rows)):
        value = int((seen.query.get(name) or ["1"])[0])
        if value < 1:
            msg = "Input should be greater than or equal to 1"
            raise complaint("greater_than_equal", ["query", name], msg, str(value), ge=1)
        if most is not None and value > most:
            msg = f"Input should be less than or equal to {most}"
            raise complaint("less_than_equal", ["query", name], msg, str(value), le=most)
    return int((seen.query.get("page") or ["1"])[0]), int((seen.query.get("page_size") or ["10"])[0])
