"""Airflow's UI in the system's Chromium, for tests that click and for the pictures of the documentation.

    with airflow_ui(airflow.ui_url) as ui:
        ui.log_in("admin", "admin")
        ui.open("/dags/fetch/runs/manual__1/tasks/fetch/plugin/skyvern")
        ui.wait_for("completed")
        ui.save(folder / "completed.png")
        assert ui.problems == []

It leaves loopback for nothing: no other name resolves.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from playwright.sync_api import FrameLocator, Locator, Page, ViewportSize, expect, sync_playwright

from dev.browser.chromium import LOOPBACK_ONLY, require_chromium

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from playwright.sync_api import ConsoleMessage, Response

TIMEOUT = 30.0
WINDOW: ViewportSize = {"width": 1280, "height": 800}
ANIMATIONS = 700.0
"""Milliseconds until what moves has come to rest."""


class AirflowUI:
    """
    One tab of a browser at Airflow's UI.

    :param page: Playwright's page, for what this class does not do.
    :param problems: Errors of the console, scripts that failed, and requests that were answered with 400 or more,
        since the last :meth:`open`.
    """

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.address = address.rstrip("/")
        self.problems: list[str] = []
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self.problems.append(f"script: {error}"))
        page.on("response", self._note_response)

    def _note_console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.problems.append(f"console: {message.text}")

    def _note_response(self, response: Response) -> None:
        if response.status >= 400:
            self.problems.append(f"{response.status}: {response.request.method} {response.url}")

    def log_in(self, username: str, password: str) -> None:
        """Fill in the login form, which the simple auth manager and FAB both have."""
        self.page.goto(self.address)
        self.page.locator("[name=username]").fill(username)
        self.page.locator("[name=password]").fill(password)
        self.page.locator("[type=submit]").first.click()
        self.page.wait_for_url(re.compile(rf"{re.escape(self.address)}/(?!.*login)"))

    def open(self, path: str, *, dark: bool | None = None) -> None:
        """Go to a path of the UI; with `dark`, as somebody who has chosen that theme."""
        if dark is not None:
            self._choose_theme("dark" if dark else "light")
        self.problems.clear()
        self.page.goto(f"{self.address}{path}")

    def _choose_theme(self, theme: str) -> None:
        self.page.goto(f"{self.address}/api/v2/version")  # the same origin, and no script
        self.page.evaluate("theme => localStorage.setItem('theme', theme)", theme)

    @property
    def frame(self) -> FrameLocator:
        """The frame of a plugin's page, where such a one is shown."""
        return self.page.frame_locator("iframe").first

    def wait_for(self, text: str | re.Pattern[str], *, seconds: float = TIMEOUT) -> Locator:
        """Wait until the page shows this text, and return where."""
        return self._visible(self.page.get_by_text(text).first, seconds)

    def wait_in_frame(self, text: str | re.Pattern[str], *, seconds: float = TIMEOUT) -> Locator:
        """Wait until the plugin's page shows this text, and return where."""
        return self._visible(self.frame.get_by_text(text).first, seconds)

    @staticmethod
    def _visible(target: Locator, seconds: float) -> Locator:
        expect(target).to_be_visible(timeout=1000 * seconds)
        return target

    @property
    def is_dark(self) -> bool:
        """Whether Airflow shows its dark theme."""
        return "dark" in (self.page.locator("html").get_attribute("class") or "").split()

    def save(self, path: Path, *, full_page: bool = False) -> Path:
        """Take a picture of the window, when what moves has come to rest."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.wait_for_timeout(ANIMATIONS)
        self.page.screenshot(path=path, full_page=full_page)
        return path


@contextlib.contextmanager
def airflow_ui(address: str, *, window: ViewportSize = WINDOW) -> Iterator[AirflowUI]:
    """Open a tab of a new browser, without cookies."""
    arguments = ["--no-sandbox", "--disable-gpu", LOOPBACK_ONLY]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=require_chromium(), args=arguments)
        page = browser.new_page(viewport=window, reduced_motion="reduce", locale="en-US")
        page.set_default_timeout(1000 * TIMEOUT)
        yield AirflowUI(page, address)
        browser.close()
