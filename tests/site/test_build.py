"""`make docs` is strict: each kind of fault fails it, and is named."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pytest

if TYPE_CHECKING:
    from tests.site.conftest import Copy

FAULTS = {
    "a broken link": ("docs/guide.md", "\n[x](no-such-page.md)\n", "no-such-page.md"),
    "a broken link to a file of the repository": ("docs/guide.md", "\n[x](../dags/no_such.py)\n", "no_such."),
    "a broken link of the changelog": ("CHANGELOG.md", "\n[x](dags/no_such.py)\n", "no_such."),
    "a broken link of an example": ("dags/README.md", "\n[x](no_such.py)\n", "no_such."),
    "a broken anchor": ("docs/guide.md", "\n[x](files.md#no-such-heading)\n", "no-such-heading"),
    "a broken anchor of its own page": ("docs/guide.md", "\n[x](#no-such-heading)\n", "no-such-heading"),
    "a broken anchor of the changelog": ("CHANGELOG.md", "\n[x](docs/files.md#no-such-heading)\n", "no-such-heading"),
    "a picture that is missing": ("docs/guide.md", "\n![x](images/no-such.png)\n", "no-such.png"),
    "a page that is in no menu": ("docs/orphan.md", "# Orphan\n", "orphan.md"),
    "a menu entry without a page": ("mkdocs.yml", "      - no-such-entry.md\n", "no-such-entry.md"),
    "a name that is not in the reference": ("docs/guide.md", "\n[x][airflow_skyvern.No]\n", "airflow_skyvern.No"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_fails_the_build_and_is_named(copy: Copy, fault: str) -> None:
    path, text, named = FAULTS[fault]
    copy.add(path, text)
    built = copy.make_docs()
    assert built.returncode != 0, f"{fault} passes"
    assert named in built.stderr
    assert re.search(r"Aborted with 1 warnings? in strict mode", built.stdout), built.stderr


class Links(HTMLParser):
    """What a page leads to and loads, and the anchors that it has."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.targets: list[str] = []
        self.anchors: set[str] = set()
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors |= {given.get(name) or "" for name in ("id", "name")}
        if tag in {"a", "link"}:
            self.targets.append(given.get("href") or "")
        elif tag in {"img", "script"}:
            self.targets.append(given.get("src") or "")


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Links]:
    return {path: Links(path.read_text()) for path in site.rglob("*.html")}


def test_every_link_of_the_site_leads_somewhere(site: Path, pages: dict[Path, Links]) -> None:
    """Also those that mkdocs does not look at: in HTML, in what docstrings make, in the theme."""
    dead = []
    for page, links in pages.items():
        if page.name == "404.html":
            continue
        for target in links.targets:
            path, _, anchor = unquote(target).partition("#")
            if re.match(r"[a-z]+:", path):
                continue
            file = (page.parent / path.partition("?")[0]).resolve() if path else page
            if not file.exists() or (anchor and anchor not in pages[file].anchors):
                dead.append(f"{page.relative_to(site)}: {target}")
    assert len(pages) > 40
    assert dead == []


def test_the_site_asks_no_other_host_and_has_no_placeholder(pages: dict[Path, Links]) -> None:
    for page, links in pages.items():
        html = page.read_text()
        assert not re.search(r'<(script|link|img)[^>]+(src|href)="https?://(?!127)[^"]+"[^>]*>', html) or re.search(
            r'rel="canonical"', html
        ), page
        assert "OWNER" not in html.replace("make published OWNER=", ""), page
        assert not [target for target in links.targets if "OWNER" in target]
