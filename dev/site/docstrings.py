"""Prepare the package's docstrings for the site: reST references become links, generated methods become methods.

A griffe extension, named in mkdocs.yml. A reference that leads nowhere is a warning, and so fails `make docs`.
"""

from __future__ import annotations

import builtins
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # griffe loads this file by its path

from dev.site.hook_methods import hook_methods

log = logging.getLogger("mkdocs.plugins.airflow_skyvern")

PACKAGE = "airflow_skyvern"
ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc):`(~?)([\w.]+)`")
LITERAL = re.compile(r"(?m)^( *)(.*?)::$")


class Docstrings(griffe.Extension):  # type: ignore[misc]  # griffe is not in the environment that mypy sees
    """Rewrites the docstrings of this package once it is loaded."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Expand the hook's methods, then rewrite all docstrings."""
        if pkg.path != PACKAGE:
            return
        expand_methods(pkg)
        for item in walk(pkg):
            check_parameters(item)
            if item.docstring:
                item.docstring.value = LITERAL.sub(_literal, linked(item, item.docstring.value))


def walk(item: griffe.Object) -> Iterator[griffe.Object]:
    """Yield an object and all that it holds, but not what it only imports."""
    yield item
    for member in item.members.values():
        if not member.is_alias:
            yield from walk(member)


def check_parameters(item: griffe.Object) -> None:
    """Warn of a documented parameter that is none; where a base class of Airflow takes more, it is not known."""
    if not (item.docstring and (item.is_class or item.is_function)):
        return
    taken = {parameter.name for parameter in getattr(item, "parameters", ())} | set(item.members)
    if taken.isdisjoint({"kwargs", "**kwargs"}):
        for name in re.findall(r"(?m)^:param (\w+):", item.docstring.value):
            if name not in taken:
                log.warning("The docstring of %s has a parameter %s, which does not exist", item.path, name)


def _literal(found: re.Match[str]) -> str:
    indent, text = found.groups()
    return f"{indent}{text}:" if text else ""


def linked(item: griffe.Object, text: str) -> str:
    """Return a docstring whose references are links."""
    return ROLE.sub(lambda found: _link(item, found[2], short=bool(found[1])), text)


def _link(item: griffe.Object, name: str, *, short: bool) -> str:
    shown = name.rpartition(".")[2] if short else name
    path = resolved(item, name)
    if path is None:
        return f"`{shown}`"
    return f'<autoref identifier="{path}" optional>`{shown}`</autoref>'


def resolved(item: griffe.Object, name: str) -> str | None:
    """Return the full path that a name in a docstring stands for; None if it is not of this package."""
    package = item.package
    path = name.removeprefix(f"{PACKAGE}.")
    if path != name:
        if path in package.members or _holds(package, path):
            return name
    elif found := _in_scope(item, name):
        return found
    elif hasattr(builtins, name) or name.startswith("Airflow"):
        return None
    log.warning("The docstring of %s refers to %s, which does not exist", item.path, name)
    return None


def _holds(scope: griffe.Object, path: str) -> bool:
    try:
        scope[path]
    except KeyError:
        return False
    return True


def _in_scope(item: griffe.Object, name: str) -> str | None:
    scope: griffe.Object | None = item
    while scope is not None:
        if _holds(scope, name):
            return str(scope[name].target_path if scope[name].is_alias else scope[name].path)
        scope = scope.parent
    return None


def expand_methods(package: griffe.Module) -> None:
    """Give SkyvernHook the methods that its class makes of endpoints: ``get_run, aget_run = _both(api.get_run)``."""
    hook = package["hooks.SkyvernHook"]
    for made in hook_methods():
        endpoint = package[f"client.{made.module}.{made.endpoint}"]
        hook.set_member(made.name, method_of(endpoint, hook, made.name, made.line, endpoint.docstring.value))
        twin = method_of(endpoint, hook, made.twin, made.line, f":meth:`{made.name}` for an event loop.")
        twin.labels.add("async")
        hook.set_member(made.twin, twin)


def method_of(endpoint: griffe.Function, hook: griffe.Class, name: str, line: int, text: str) -> griffe.Function:
    """Return the method of the hook that sends an endpoint."""
    itself = griffe.Parameter("self", kind=griffe.ParameterKind.positional_or_keyword)
    return griffe.Function(
        name,
        parameters=griffe.Parameters(itself, *endpoint.parameters),
        returns=endpoint.returns.slice,  # Call[Run] → Run
        lineno=line,
        endlineno=line,
        parent=hook,
        docstring=griffe.Docstring(text, lineno=line, parser=griffe.Parser.sphinx),
    )
