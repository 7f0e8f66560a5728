"""The site in headless Chromium, as a reader searches it. `python -m tests.site.search` prints what is found."""

from __future__ import annotations

import contextlib
import functools
import http.server
import re
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from playwright.sync_api import Page, expect, sync_playwright

from dev.browser.chromium import LOOPBACK_ONLY, require_chromium

TIMEOUT = 20_000
FIRST_RESULT = ".md-search-result__item .md-search-result__link"


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on loopback."""
    handler = functools.partial(_Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@dataclass(frozen=True)
class Hit:
    """
    A result as the reader sees it: a page, and those of its sections that are shown below it.

    :param page: Its address on the site, without a highlight.
    :param sections: Addresses of sections that are shown without another click, best first.
    """

    page: str
    sections: tuple[str, ...]


class SiteSearch:
    """The search of the site in a tab."""

    def __init__(self, page: Page, address: str) -> None:
        self._page, self._address = page, address
        page.goto(f"{address}/index.html")
        page.locator(".md-search__input").wait_for(state="visible")

    def ask(self, question: str) -> list[Hit]:
        """Type a question, and return what is listed."""
        box, meta = self._page.locator(".md-search__input"), self._page.locator(".md-search-result__meta")
        box.fill("")
        box.press("End")  # the theme listens to keys
        expect(meta).to_have_text(re.compile("Type to start"), timeout=TIMEOUT)
        box.fill(question)
        box.press("End")
        expect(meta).to_have_text(re.compile("matching"), timeout=TIMEOUT)
        items = self._links()
        while not items or items != (items := self._links_later()):
            pass
        return [Hit(*self._split(links)) for links in items if links]

    def _links(self) -> list[list[str]]:
        found: list[list[str]] = self._page.evaluate(
            """() => [...document.querySelectorAll(".md-search-result__item")].map(item =>
                [...item.querySelectorAll(".md-search-result__link")]
                .filter(link => !link.closest("details"))
                .map(link => link.href))"""
        )
        return found

    def _links_later(self) -> list[list[str]]:
        self._page.wait_for_timeout(300)
        return self._links()

    def _split(self, links: list[str]) -> tuple[str, tuple[str, ...]]:
        first, *more = (self._short(link) for link in links)
        return first, tuple(more)

    def _short(self, link: str) -> str:
        path, _, anchor = link.removeprefix(self._address + "/").partition("#")
        return path.partition("?")[0] + (f"#{anchor}" if anchor else "")


@contextlib.contextmanager
def site_search(site: Path) -> Iterator[SiteSearch]:
    """Open the site in the system's Chromium."""
    with served(site) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=require_chromium(), args=["--no-sandbox", "--disable-gpu", LOOPBACK_ONLY]
        )
        try:
            yield SiteSearch(browser.new_page(), address)
        finally:
            browser.close()


if __name__ == "__main__":
    from tests.site.test_search import QUESTIONS

    with site_search(Path("site").resolve()) as search:
        for asked in sys.argv[1:] or QUESTIONS:
            print(asked)  # noqa: T201  this is what it is for
            for hit in search.ask(asked)[:4]:
                print("   ", hit.page, *hit.sections[:3])  # noqa: T201
