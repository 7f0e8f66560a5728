"""
Lists the fields of a workflow's definition, by Skyvern's own names, with Skyvern's defaults.

``fields.json`` has the models of ``POST /v1/workflows`` of Skyvern 1.0.56. A contract test compares it with the
server's own description.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

REQUIRED: Final = "<required>"
"""Stands for the default of a field that must be given."""

Fields = Mapping[str, Any]
"""The fields of one mapping of a definition, in the order in which files have them, and their defaults."""

CRITERIA: Fields = {"criteria_type": "jinja2_template", "expression": REQUIRED, "description": None}
BRANCH: Fields = {"criteria": None, "next_block_label": None, "description": None, "is_default": False}
"""In the conditions of ``conditional`` and ``while_loop`` blocks."""

RETRY_POLICY: Fields = {
    "max_retries": 1,
    "delay_seconds": 0,
    "webhook_on_retry": "final_only",
    "retry_on": REQUIRED,
}
RETRY_RULE: Fields = {"status": REQUIRED, "error_codes": None}
BROWSER_SETTINGS: Fields = {"timezone_id": None}
"""Within a definition; for other mappings within blocks, Skyvern has no table."""

UNKNOWN_BLOCK: Fields = dict.fromkeys(("block_type", "label"), REQUIRED)
UNKNOWN_PARAMETER: Fields = dict.fromkeys(("parameter_type", "key"), REQUIRED)
"""Of types that this version does not know: their fields stay as they are."""

STORED_AS: Mapping[str, Fields] = {"validation": {"max_steps_per_run": 2}, "action": {"max_steps_per_run": 1}}
"""The values that Skyvern stores for omitted fields of such a block, if they differ from its own table's defaults."""

NOT_STORED: Mapping[str, str] = {"validation": "disable_cache", "task_v2": "disable_cache"}
"""A field that Skyvern accepts in such a block, and forgets."""

OBSOLETE = frozenset({"cache_actions"})
"""Keys of older exports, which Skyvern no longer reads."""


@cache
def tables() -> Mapping[str, Any]:
    """Return all tables; they are read at first use."""
    loaded: Mapping[str, Any] = json.loads((Path(__file__).parent / "fields.json").read_text())
    return loaded


def of_root() -> Fields:
    """Return the top-level fields, including ``workflow_definition``."""
    fields: Fields = tables()["root"]
    return fields


def of_definition() -> Fields:
    """Return the fields of ``workflow_definition``."""
    fields: Fields = tables()["definition"]
    return fields


@cache
def of_block(kind: str) -> Fields | None:
    """Return the fields of a block of this type; None for a type that this version does not know."""
    return _with_common("block", "blocks", kind, ("block_type", "label"))


@cache
def of_parameter(kind: str) -> Fields | None:
    """Return the fields of a parameter of this type; None for a type that this version does not know."""
    return _with_common("parameter", "parameters", kind, ("parameter_type", "key"))


@cache
def of_all_blocks() -> frozenset[str]:
    """Return the names that blocks of any type have: an answer has many that its block does not accept."""
    return frozenset(name for fields in tables()["blocks"].values() for name in fields)


def block_types() -> Mapping[str, Fields]:
    """Return the types of blocks."""
    kinds: Mapping[str, Fields] = tables()["blocks"]
    return kinds


def parameter_types() -> Mapping[str, Fields]:
    """Return the types of parameters that a definition may have."""
    kinds: Mapping[str, Fields] = tables()["parameters"]
    return kinds


def _with_common(common: str, special: str, kind: str, first: tuple[str, ...]) -> Fields | None:
    own = tables()[special].get(kind)
    if own is None:
        return None
    return {**dict.fromkeys(first, REQUIRED), **own, **tables()[common]}
