"""Who may import whom: by package, for every import, also those for types and those within functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.layers import RANK, WITHOUT_AIRFLOW

PACKAGE = Path(__file__).parents[3] / "airflow_skyvern"

MODULES = {path: path.relative_to(PACKAGE).with_suffix("").parts for path in sorted(PACKAGE.rglob("*.py"))}
PARTS = frozenset(MODULES.values())


@cache
def imports_of(path: Path) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The modules that a file imports, and the names it takes from each."""
    return tuple(_imports_of(path))


def _imports_of(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            yield node.module or "", tuple(alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ()


def our_imports_of(path: Path) -> Iterator[tuple[tuple[str, ...], str]]:
    """The parts of the path of each of our modules that a file imports, and one name that it takes from it."""
    for module, names in imports_of(path):
        if module.split(".")[0] != "airflow_skyvern":
            continue
        parts = tuple(module.split(".")[1:])
        for name in names or ("",):
            if (*parts, name) in PARTS or (*parts, name, "__init__") in PARTS:
                yield (*parts, name), ""
            else:
                yield parts, name


def test_every_module_has_its_layer() -> None:
    assert {parts[0] for parts in MODULES.values()} - {"__init__"} == set(RANK)


@pytest.mark.slow
@pytest.mark.parametrize("path", MODULES, ids=lambda path: ".".join(MODULES[path]))
def test_imports_point_down(path: Path) -> None:
    mine = MODULES[path][0]
    packages = {parts[0] for parts, _ in our_imports_of(path) if parts} - {mine}
    assert {name for name in packages if RANK[name] >= RANK.get(mine, -1)} == set()


@pytest.mark.slow
@pytest.mark.parametrize("path", MODULES, ids=lambda path: ".".join(MODULES[path]))
def test_no_module_takes_what_another_keeps_for_itself(path: Path) -> None:
    assert {name for _, name in our_imports_of(path) if name.startswith("_") and name != "__version__"} == set()


@pytest.mark.parametrize(
    "path",
    [path for path, parts in MODULES.items() if RANK.get(parts[0], 0) < WITHOUT_AIRFLOW],
    ids=lambda path: ".".join(MODULES[path]),
)
def test_the_lower_layers_do_without_airflow(path: Path) -> None:
    assert {module for module, _ in imports_of(path) if module.split(".")[0] in ("airflow", "pendulum")} == set()


def test_no_module_imports_itself_by_way_of_others() -> None:
    arrows = {
        parts: {target if target in PARTS else (*target, "__init__") for target, _ in our_imports_of(path) if target}
        for path, parts in MODULES.items()
        if parts[-1] != "__init__"
    }
    circles = [parts for parts in arrows if parts in _reachable(arrows, parts)]
    assert circles == []


def _reachable(arrows: dict[tuple[str, ...], set[tuple[str, ...]]], start: tuple[str, ...]) -> set[tuple[str, ...]]:
    found: set[tuple[str, ...]] = set()
    left = list(arrows[start])
    while left:
        if (module := left.pop()) not in found:
            found.add(module)
            left.extend(arrows.get(module, ()))
    return found
