"""
The pictures of the documentation, and whether they are older than what they show: python -m dev.pictures

`make pictures` takes them all from the real UIs and then records, in docs/images/pictures.json, a fingerprint of the
files that make what each shows. A unit test compares: a template that has changed since makes its pictures stale.

    python -m dev.pictures              # the stale ones
    python -m dev.pictures --record     # all are up to date: what `make pictures` does at its end
    python -m dev.pictures --record run-page-*.png
"""

from __future__ import annotations

import ast
import fnmatch
import hashlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
RECORD = IMAGES / "pictures.json"

RUN_PAGE = ("airflow_skyvern/ui/templates/*", "airflow_skyvern/ui/static/*.css")
SHOWS: dict[str, tuple[str, ...]] = {
    "connection-*.png": ("airflow_skyvern/provider_info.py::CONNECTION_TYPE",),
    "link-*.png": ("airflow_skyvern/links.py::name",),
    "events-*.png": ("airflow_skyvern/assets.py", "dags/watch_finished_runs.py", "dags/one_dag_run_per_webhook.py"),
    "run-page-*.png": RUN_PAGE,
    "required-action-*.png": ("airflow_skyvern/task/approval.py::_body",),
}
"""
Pictures, and the files whose change may change what they show.

`file::name` is the function or the value of that name in a file that holds much else.
"""


def pictures() -> list[Path]:
    """Return all pictures that are taken of a UI."""
    return sorted(IMAGES.glob("*.png"))


def sources_of(name: str) -> tuple[str, ...]:
    """Return what makes a picture, as patterns; nothing for one that nobody has described."""
    return next((sources for pattern, sources in SHOWS.items() if fnmatch.fnmatch(name, pattern)), ())


def fingerprint(name: str, root: Path = ROOT) -> str:
    """Return a hash of the files that make what a picture shows."""
    digest = hashlib.sha256()
    for source in sources_of(name):
        pattern, _, part = source.partition("::")
        for path in sorted(root.glob(pattern)):
            text = part_of(path.read_text(), part) if part else path.read_text()
            digest.update(f"{path.relative_to(root).as_posix()}\0{text}\0".encode())
    return digest.hexdigest()[:16]


def part_of(code: str, name: str) -> str:
    """Return the source of the function or the value of a name in a module, wherever it stands there."""
    for node in ast.walk(ast.parse(code)):
        targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [])
        if getattr(node, "name", None) == name or name in [getattr(target, "id", None) for target in targets]:
            return ast.get_source_segment(code, node) or ""
    raise LookupError(name)


def recorded() -> dict[str, str]:
    """Return the fingerprints of when the pictures were taken."""
    found: dict[str, str] = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    return found


def stale(root: Path = ROOT) -> list[str]:
    """Return the pictures that are older than what they show."""
    known = recorded()
    return [path.name for path in pictures() if known.get(path.name) != fingerprint(path.name, root)]


def record(patterns: list[str]) -> None:
    """Record that pictures show what is there now."""
    chosen = [path.name for path in pictures() if any(fnmatch.fnmatch(path.name, one) for one in patterns or ["*"])]
    kept = {name: value for name, value in recorded().items() if (IMAGES / name).exists()}
    RECORD.write_text(
        json.dumps(dict(sorted({**kept, **{n: fingerprint(n) for n in chosen}}.items())), indent=2) + "\n"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--record"]:
        record(sys.argv[2:])
    elif found := stale():
        sys.exit("\n".join(["older than what they show; make pictures takes them again:", *found]))
