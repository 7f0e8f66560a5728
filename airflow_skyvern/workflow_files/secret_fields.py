"""Finds secrets in a definition by their names and by their form, in the same way as outputs are masked."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_skyvern.secret_values import REFERENCE
from airflow_skyvern.secret_values.names import is_header_of_secret, kind_of
from airflow_skyvern.secret_values.texts import masked_text, secret_by_form
from airflow_skyvern.workflow_files.form import MASKED

TEMPLATE = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
CODE = "code"
"""The field whose text is Python, where ``password=password`` is not a secret, and ``password="…"`` is one."""

SELECTOR = re.compile(r"\s*([#.\[]\w|//|\w+\[)")
"""The beginnings of texts that locate an element of a page: the field for a password is not a password."""

NAMES_OF_SECRETS = re.compile(r"(_parameter_key|_aws_secret_key|^aws_key|^(username|password|totp_secret)_key)$")
"""Fields that name a secret in a vault, or a parameter, but hold no secret."""

FIELDS_OF_SECRETS = frozenset({"azure_storage_account_key"})
"""Skyvern's fields that hold a secret, though their name alone could name data."""

NAMES_OF_THE_AUTHOR = ("error_code_mapping", "column_mapping")
"""Fields that map codes or columns, where a name such as ``BAD_PASSWORD`` says nothing about its value."""


def secrets_of(raw: Mapping[str, Any]) -> Iterator[str]:
    """Yield the paths of fields that hold a secret, never their values."""
    definition = raw["workflow_definition"]
    rest = {key: value for key, value in raw.items() if key != "workflow_definition"}
    yield from _secrets("", rest)
    yield from _secrets(
        "workflow_definition", {k: v for k, v in definition.items() if k not in ("parameters", "blocks")}
    )
    for parameter in definition["parameters"]:
        where = f"parameter {parameter.get('key')}"
        yield from _secrets(f"{where}.default_value", parameter.get("default_value"), str(parameter.get("key")))
        yield from _secrets(f"{where}.description", parameter.get("description"))
    yield from _of_blocks(definition["blocks"])


def is_secret_at(name: str, value: Any) -> bool:
    """Return whether something must not be printed because it contains a secret, or has a secret's name."""
    return any(_secrets("", value, name))


def _of_blocks(blocks: list[dict[str, Any]]) -> Iterator[str]:
    for block in blocks:
        own = {key: value for key, value in block.items() if key != "loop_blocks"}
        yield from _secrets(f"block {block.get('label')}", own)
        yield from _of_blocks(block.get("loop_blocks") or [])


def _secrets(where: str, value: Any, name: str = "") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            known_as = "" if name in NAMES_OF_THE_AUTHOR else str(key)
            yield from _secrets(f"{where}.{key}" if where else str(key), item, known_as)
        if isinstance(entry := value.get("name", value.get("key")), str) and "value" in value:
            yield from _secrets(f"{where}.value", value["value"], entry)
    elif isinstance(value, list):
        for item in value:
            yield from _secrets(where, item, name)
    elif _is_secret(name, value):
        yield where or name


def _is_secret(name: str, value: Any) -> bool:
    if not isinstance(value, str) or not value.strip() or value == MASKED or NAMES_OF_SECRETS.search(name):
        return isinstance(value, int) and not isinstance(value, bool) and kind_of(name) == "certain"
    text = TEMPLATE.sub("", value)
    if name == CODE:
        return secret_by_form(text) or any(_is_named_secret(name, literal) for name, literal in _literals(text))
    if text == value and _stands_under(name) and not REFERENCE.match(value):
        return True
    return masked_text(text) != text


def _stands_under(name: str) -> bool:
    return name in FIELDS_OF_SECRETS or kind_of(name) == "certain" or is_header_of_secret(name)


def _is_named_secret(name: str, literal: str) -> bool:
    return bool(literal.strip()) and _stands_under(name) and not SELECTOR.match(literal)


def _literals(code: str) -> Iterator[tuple[str, str]]:
    """Yield each text of a program that has a name: assigned, in a mapping, or as an argument."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):  # Skyvern will say so
        return
    for node in ast.walk(tree):
        for name, value in _named_values(node):
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield name, value.value


def _named_values(node: ast.AST) -> Iterator[tuple[str, ast.expr | None]]:
    if isinstance(node, ast.Assign):
        yield from ((_name_of(target), node.value) for target in node.targets)
    elif isinstance(node, ast.AnnAssign):
        yield _name_of(node.target), node.value
    elif isinstance(node, ast.keyword):
        yield node.arg or "", node.value
    elif isinstance(node, ast.Dict):
        yield from ((_name_of(key), value) for key, value in zip(node.keys, node.values, strict=True))


def _name_of(target: ast.expr | None) -> str:
    """Return the name that a value gets: of a variable, an attribute or an entry."""
    if isinstance(target, ast.Subscript):
        target = target.slice
    if isinstance(target, ast.Constant):
        return str(target.value)
    return str(getattr(target, "attr", getattr(target, "id", "")))
