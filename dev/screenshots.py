"""
Take the pictures of docs/images/ from the real UI: Airflow 3.3, a real Skyvern, headless Chromium.

    make pictures

It drives the system's Chromium ($CHROMIUM, default /usr/bin/chromium). Both servers run on loopback in a temporary
directory.

The connection is made by filling in the form, as a user does, and tested with the button in the list; the tasks
then use that very connection. Check the pictures before you commit them.
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dev.airflow_server import AirflowServer
from dev.process import RigError, wait_until
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer

if TYPE_CHECKING:
    from collections.abc import Iterator

REPO = Path(__file__).resolve().parent.parent
IMAGES = REPO / "docs" / "images"
AIRFLOW = REPO / ".venvs" / "airflow-3.3" / "bin"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
DAG_ID, TASK_ID = "skyvern_run_and_use_output", "fetch"
WINDOW: Any = {"width": 1280, "height": 800}
TALL: Any = {"width": 1280, "height": 960}


@contextmanager
def browser_page() -> Iterator[Any]:
    """Open a page in headless Chromium."""
    try:
        sync_playwright = importlib.import_module("playwright.sync_api").sync_playwright
    except ImportError:
        sys.exit(f"Playwright is missing; install it:\n    {sys.executable} -m pip install playwright")
    if not Path(CHROMIUM).exists():
        sys.exit(f"No Chromium at {CHROMIUM}: install it (Debian: apt-get install chromium) or set CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport=WINDOW, reduced_motion="reduce")
        page.set_default_timeout(30_000)
        yield page
        browser.close()


def save(page: Any, name: str) -> None:
    IMAGES.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(700)  # animations
    page.screenshot(path=IMAGES / f"{name}.png")
    print(f"docs/images/{name}.png", flush=True)


def fill_form(page: Any, ui: str, skyvern: SkyvernServer) -> None:
    """Make the connection in the form; of its two groups of fields only one is open at a time."""
    page.set_viewport_size(TALL)
    page.goto(f"{ui}/connections")
    page.get_by_role("button", name="Add Connection").click()
    form = page.get_by_role("dialog")
    form.locator("[name=connection_id]").fill("skyvern_default")
    form.get_by_role("combobox").fill("Skyvern")
    page.get_by_role("option", name="Skyvern", exact=True).click()
    form.locator("[name=host]").wait_for()
    save(page, "connection-form")
    form.get_by_role("button", name="Extra Fields", exact=True).click()
    save(page, "connection-form-extra")
    form.get_by_role("button", name="Standard Fields").click()
    address, port = skyvern.base_url.rsplit(":", 1)
    form.locator("[name=host]").fill(address)
    form.locator("[name=port]").fill(port)
    form.locator("[name=password]").fill(skyvern.api_key)
    form.get_by_role("button", name="Save").click()
    form.wait_for(state="hidden")
    page.set_viewport_size(WINDOW)


def press_test(page: Any, ui: str) -> None:
    """Test the connection with the button of the list, and insist on the green answer."""
    page.goto(f"{ui}/connections")
    with page.expect_response("**/api/v2/connections/test") as answer:
        page.get_by_role("button", name="Test Connection").first.click()
    body = answer.value.json()
    if not (answer.value.ok and body.get("status") is True):
        raise RigError(f"the Test button: {answer.value.status} {body}")
    print(f"Test button: {body['message']}", flush=True)
    save(page, "connection-test")


def show_details(page: Any, airflow: AirflowServer, run_id: str, name: str) -> None:
    """Show the task's Details tab, where the link is."""
    page.goto(f"{airflow.ui_url}/dags/{DAG_ID}/runs/{run_id}/tasks/{TASK_ID}/details")
    link = page.get_by_role("link", name="Skyvern run")
    link.wait_for()
    print(f"{name}: the link leads to {link.get_attribute('href')}", flush=True)
    save(page, name)


def take_all(page: Any, airflow: AirflowServer, skyvern: SkyvernServer) -> None:
    fill_form(page, airflow.ui_url, skyvern)
    press_test(page, airflow.ui_url)
    waiting = airflow.trigger(DAG_ID, {"workflow_id": skyvern.workflow("long_wait")})
    failing = airflow.trigger(DAG_ID, {"workflow_id": skyvern.workflow("fail_http")})
    airflow.wait_task(DAG_ID, waiting, TASK_ID, "deferred")
    wait_until("the link", lambda: bool(airflow.links(DAG_ID, waiting, TASK_ID).get("Skyvern run")), 30)
    show_details(page, airflow, waiting, "link-while-deferred")
    airflow.wait_task(DAG_ID, failing, TASK_ID, "failed", timeout=120)
    show_details(page, airflow, failing, "link-after-failure")
    airflow.mark(DAG_ID, waiting, TASK_ID, "failed")


def main() -> int:
    with browser_page() as page, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        with (
            SkyvernServer(home / "skyvern", SKYVERN_VENV) as skyvern,
            AirflowServer(home / "airflow", REPO / "dags", python_bin=AIRFLOW) as airflow,
        ):
            take_all(page, airflow, skyvern)
    return 0


if __name__ == "__main__":
    sys.exit(main())
