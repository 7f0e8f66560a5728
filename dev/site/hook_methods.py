"""The methods that `SkyvernHook` makes of endpoints, read from its source."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

HOOKS = Path(__file__).resolve().parents[2] / "airflow_skyvern" / "hooks.py"


class HookMethod(NamedTuple):
    """A line `get_run, aget_run = _both(api.get_run)`."""

    name: str
    twin: str
    module: str
    endpoint: str
    line: int


def hook_methods() -> Iterator[HookMethod]:
    """Yield all of them, in the order of the source."""
    for node in ast.walk(ast.parse(HOOKS.read_text())):
        match node:
            case ast.Assign(
                targets=[ast.Tuple(elts=[ast.Name(id=name), ast.Name(id=twin)])],
                value=ast.Call(
                    func=ast.Name(id="_both"), args=[ast.Attribute(value=ast.Name(id=module), attr=endpoint)]
                ),
            ):
                yield HookMethod(name, twin, module, endpoint, node.lineno)
