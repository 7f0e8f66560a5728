"""Python values as the text that ``ruff format`` would leave alone."""

from __future__ import annotations

from typing import Any


def literal(value: Any, indent: int = 0) -> str:
    """Write a JSON value as Python, one item per line where it is a mapping or a list that is not empty."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, dict) and value:
        return _lines("{", [f"{_text(key)}: {literal(item, indent + 4)}" for key, item in value.items()], "}", indent)
    if isinstance(value, list) and value:
        return _lines("[", [literal(item, indent + 4) for item in value], "]", indent)
    return repr(value)


def _lines(opening: str, items: list[str], closing: str, indent: int) -> str:
    inner = "".join(f"{' ' * (indent + 4)}{item},\n" for item in items)
    return f"{opening}\n{inner}{' ' * indent}{closing}"


def _text(value: str) -> str:
    """Write a text in double quotes, unless single ones spare escapes."""
    body = "".join(mark if mark in "'\"" else repr(mark)[1:-1] for mark in value)
    if value.count('"') > value.count("'"):
        return "'" + body.replace("'", "\\'") + "'"
    return '"' + body.replace('"', '\\"') + '"'
