"""
The run page in Chromium: a real Airflow, a real Skyvern that drives a real browser.

    .venvs/airflow-3.3/bin/python -m pytest tests/run_page

Takes five minutes. With RUN_PAGE_IMAGES=docs/images it writes the pictures of the documentation. With another Airflow
in AIRFLOW_BIN (.venvs/airflow-3.1/bin) it tests that one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from dev.airflow_server import AirflowServer
from dev.browser.ui import AirflowUI, airflow_ui
from dev.process import wait_until
from dev.skyvern_server import SkyvernServer

ROOT = Path(__file__).parents[2]
SKYVERN_VENV = Path(os.environ.get("SKYVERN_VENV", ROOT / ".venvs" / "skyvern"))
AIRFLOW_BIN = Path(os.environ["AIRFLOW_BIN"]) if "AIRFLOW_BIN" in os.environ else None
DAG, TASK = "invoices", "fetch_invoices"
PASSWORD = "demo-pass"
SEEK = """async video => {
    video.muted = true;
    video.currentTime = video.duration / 2;
    await new Promise(resume => { video.onseeked = resume; });
    return video.currentTime;
}"""


@dataclass
class Rig:
    airflow: AirflowServer
    skyvern: SkyvernServer
    images: Path

    def start(self, workflow: str, parameters: dict[str, Any] | None = None) -> str:
        conf = {"workflow_id": self.skyvern.workflow(workflow), "parameters": parameters or {}}
        return self.airflow.trigger(DAG, conf, run_id=f"test_{workflow}", timeout=120)

    def page(self, run_id: str) -> str:
        return f"/dags/{DAG}/runs/{run_id}/tasks/{TASK}/plugin/skyvern"

    def save_both(self, ui: AirflowUI, path: str, name: str, text: str) -> None:
        for theme in ("light", "dark"):
            ui.open(path, dark=theme == "dark")
            ui.wait_in_frame(text)
            assert ui.is_dark == (theme == "dark")
            background = ui.frame.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
            assert background == ui.page.locator("html").evaluate("html => getComputedStyle(html).backgroundColor")
            ui.save(self.images / f"{name}-{theme}.png")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    home = tmp_path_factory.mktemp("run-page")
    images = Path(os.environ.get("RUN_PAGE_IMAGES", home / "images"))
    with SkyvernServer(home / "skyvern", SKYVERN_VENV, browser=True) as skyvern:
        connection = {"conn_type": "skyvern", "host": skyvern.base_url, "password": skyvern.api_key}
        env = {"AIRFLOW_CONN_SKYVERN_DEFAULT": json.dumps(connection)}
        with AirflowServer(home / "airflow", Path(__file__).parent / "dags", env, AIRFLOW_BIN) as airflow:
            yield Rig(airflow, skyvern, images)


@pytest.fixture
def ui(rig: Rig) -> Iterator[AirflowUI]:
    with airflow_ui(rig.airflow.ui_url, window={"width": 1280, "height": 1000}) as opened:
        yield opened


def pictures(ui: AirflowUI) -> list[bool]:
    """Tell of each thumbnail whether it shows a picture, once all have been loaded."""
    images = ui.frame.locator("[data-picture] img")
    for number in range(images.count()):
        images.nth(number).scroll_into_view_if_needed()
    ui.page.wait_for_timeout(1500)
    loaded: list[bool] = images.evaluate_all("images => images.map(image => image.naturalWidth > 0)")
    return loaded


def test_the_page_of_a_run_from_its_start_to_its_end(rig: Rig, ui: AirflowUI) -> None:
    run_id = rig.start("month_end")
    rig.airflow.wait_task(DAG, run_id, TASK, "deferred", timeout=180)
    ui.open(rig.page(run_id))
    ui.wait_in_frame("Running for")
    wait_until("a picture", lambda: ui.frame.locator("#newest img").count() > 0, 180)  # the page refreshes itself
    rig.save_both(ui, rig.page(run_id), "run-page-running", "Running for")
    ui.wait_in_frame("Recording", seconds=240)  # without a reload
    assert rig.airflow.wait_run(DAG, run_id) == "success"
    rig.save_both(ui, rig.page(run_id), "run-page-completed", "Timeline")
    shown = pictures(ui)
    assert len(shown) >= 4
    assert all(shown)
    text = ui.frame.locator("#page").inner_text()
    assert {"sign_in", "read_invoices", "get_pdf"} <= set(text.split())
    assert PASSWORD not in text
    assert rig.skyvern.api_key not in ui.page.content() + ui.frame.locator("html").inner_html()
    video = ui.frame.locator("video")
    assert video.evaluate(SEEK) > 0.5
    assert ui.problems == []


def test_a_picture_enlarges_and_a_file_is_saved(rig: Rig, ui: AirflowUI) -> None:
    ui.open(rig.page("test_month_end"))
    ui.wait_in_frame("Timeline")
    first = ui.frame.locator("[data-picture]").first
    first.focus()
    ui.page.keyboard.press("Enter")
    ui.frame.locator("dialog[open] img").wait_for()
    ui.page.keyboard.press("ArrowRight")
    assert "(2 of" in ui.frame.locator("#caption").inner_text()
    ui.page.keyboard.press("Escape")
    assert ui.frame.locator("dialog[open]").count() == 0
    assert first.evaluate("button => document.activeElement === button")
    with ui.page.expect_download() as download:
        ui.frame.locator("[data-download]").click()
    assert download.value.suggested_filename.endswith(".pdf")
    assert Path(download.value.path()).read_bytes().startswith(b"%PDF")
    with ui.page.context.expect_page():
        ui.frame.locator("[data-outside]").click()


def test_the_page_of_a_failed_run_says_why(rig: Rig, ui: AirflowUI) -> None:
    run_id = rig.start("wrong_password")
    assert rig.airflow.wait_run(DAG, run_id, timeout=240) == "failed"
    rig.save_both(ui, rig.page(run_id), "run-page-failed", "BAD_LOGIN")
    assert "The portal refused the user name or the password." in ui.frame.locator("#failure").inner_text()
    assert ui.problems == []


def test_the_lists_lead_to_the_page(rig: Rig, ui: AirflowUI) -> None:
    rig.save_both(ui, f"/dags/{DAG}/runs/test_wrong_password/plugin/skyvern_dag_run", "run-page-dag-run", TASK)
    ui.frame.locator("[data-airflow]").first.click()
    ui.wait_in_frame("BAD_LOGIN")
    rig.save_both(ui, "/plugin/skyvern_runs", "run-page-menu", TASK)
    assert ui.frame.locator("tbody tr").count() == 2
    ui.frame.locator("[name=status]").select_option("completed")
    ui.frame.locator("#filter button").click()
    ui.frame.locator("tbody tr").nth(1).wait_for(state="detached")
    assert ui.frame.locator("tbody .badge").all_inner_texts() == ["completed"]
    ui.frame.get_by_role("link", name=TASK).click()
    ui.wait_in_frame("Recording")
    assert ui.problems == []
