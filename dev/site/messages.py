"""The messages that the package prints: what it raises, and what it logs as a warning or an error."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parents[2] / "airflow_skyvern"
GAP = "…"
LOGGED = ("warning", "error", "exception", "critical")
PLACEHOLDER = re.compile(r"%[-+ #0]*[\d.]*[srdfi]")


class Message(NamedTuple):
    """A message as it is written in the source, with … where a value is filled in."""

    kind: str
    text: str
    module: str


def texts() -> Iterator[str]:
    """Yield every text in the package, with … where a value is filled in."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr | ast.Constant) and (text := _text(node)):
                yield text


def messages() -> Iterator[Message]:
    """Yield what is raised and logged, each once, in the order of the modules."""
    seen = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        for kind, node in _printed(ast.parse(path.read_text())):
            text = _text(node)
            if text and len(text.replace(GAP, "").strip()) > len("polls. ") and (kind, text) not in seen:
                seen.add((kind, text))
                yield Message(kind, text, module)


def _printed(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in ast.walk(tree):
        match node:
            case ast.Raise(exc=ast.Call(func=ast.Name(id=kind), args=[first, *_])):
                yield kind, first
            case ast.Call(func=ast.Attribute(value=value, attr=level), args=[first, *_]) if level in LOGGED:
                if ast.unparse(value).rpartition(".")[2] in {"log", "logger"}:
                    yield "error in the log" if level != "warning" else "warning in the log", first


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return PLACEHOLDER.sub(GAP, node.value) if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else GAP for part in node.values)  # type: ignore[misc]
    return ""


def table() -> str:
    """Return all messages as a table in Markdown."""
    head = "| message | kind | module |\n|---|---|---|\n"
    rows = (f"| {_cell(text)} | {kind} | `{module}` |" for kind, text, module in sorted(messages()))
    return head + "\n".join(rows)


def _cell(text: str) -> str:
    quoted = text.strip().replace("|", "\\|")
    return f"`` {quoted} ``" if "`" in quoted else f"`{quoted}`"
