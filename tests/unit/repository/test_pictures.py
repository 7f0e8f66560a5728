"""The documentation's pictures show the product as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dev import pictures
from dev.pictures import ROOT, SHOWS, fingerprint, part_of, sources_of, stale


@pytest.mark.parametrize("name", [path.name for path in pictures.pictures()])
def test_a_picture_is_not_older_than_what_it_shows(name: str) -> None:
    assert name not in stale(), f"make pictures (python -m dev.pictures --record {name}, if it looks the same)"


@pytest.mark.parametrize("pattern", SHOWS)
def test_what_a_picture_shows_is_there(pattern: str) -> None:
    for source in SHOWS[pattern]:
        pattern, _, part = source.partition("::")
        files = list(ROOT.glob(pattern))
        assert files, f"{source} is gone"
        assert not part or part_of(files[0].read_text(), part)


def test_every_picture_has_something_that_it_shows() -> None:
    assert [path.name for path in pictures.pictures() if not sources_of(path.name)] == []


@pytest.mark.slow
def test_a_template_that_changes_makes_its_pictures_stale_and_no_others(tmp_path: Path) -> None:
    for name in ("airflow_skyvern", "dags"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    before = set(stale(tmp_path))
    template = min((tmp_path / "airflow_skyvern/ui/templates").iterdir())
    template.write_text(template.read_text() + "<p>new</p>")
    shown = {path.name for path in pictures.pictures() if path.name.startswith("run-page-")}
    assert shown
    assert set(stale(tmp_path)) - before == shown - before
    assert fingerprint("run-page-x.png", tmp_path) != fingerprint("run-page-x.png")
