"""
The run page in Chromium: a real Airflow, a real Skyvern that drives a real browser.

    make test SUITE=pages AIRFLOW=3.1

Takes ten minutes. A hostile run, of which every text, picture and file would like to run a script, comes from the
fake. With RUN_PAGE_IMAGES=docs/images it writes the pictures of the documentation.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Error as PlaywrightError

from airflow_skyvern.testing.fake.records import Media
from airflow_skyvern.testing.fake.skyvern import API_KEY, FakeSkyvern
from airflow_skyvern.testing.loopback import Loopback
from dev.airflow_server import AirflowServer
from dev.browser.site import RIGHT_CODE
from dev.browser.ui import AirflowUI, airflow_ui
from dev.process import wait_until
from dev.skyvern_server import SKYVERN_VENV, SkyvernServer
from tests.faults.leaks import Leaks

ROOT = Path(__file__).parents[2]
DAG, TASK = "invoices", "fetch_invoices"
ASKING_DAG, ASKING_TASK = "payments", "pay"
CODE_DAG, CODE_TASK, WRONG_CODE = "logins", "log_in", "570316"
PASSWORD = "demo-pass"
EVIL = (
    "<script>top.ran=1</script><img src=x onerror='top.ran=1'>[a](javascript:top.ran=1)![b](//evil.test/c){{ 7*7 }}"
)
SVG = b"<svg xmlns='http://www.w3.org/2000/svg' onload='top.ran=1'><script>top.ran=1</script></svg>"
HTML = b"<!doctype html><script>top.ran=1</script>"
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
    hostile: FakeSkyvern
    images: Path

    def start(self, workflow: str, dag_id: str = DAG) -> str:
        conf = {"workflow_id": self.skyvern.workflow(workflow)}
        return self.airflow.trigger(dag_id, conf, run_id=f"test_{workflow}", timeout=120)

    def start_hostile(self, name: str, dag_id: str = DAG, **workflow: Any) -> str:
        workflow_id = self.hostile.workflow(EVIL, parameters={"a": "string", EVIL: "string"}, **workflow)
        conf = {"skyvern_conn_id": "hostile", "workflow_id": workflow_id, "parameters": {"a": EVIL, EVIL: EVIL}}
        return self.airflow.trigger(dag_id, conf, run_id=name, timeout=120)

    def task(self, run_id: str, dag_id: str = DAG, task_id: str = TASK) -> str:
        return f"/dags/{dag_id}/runs/{run_id}/tasks/{task_id}"

    def page(self, run_id: str, dag_id: str = DAG, task_id: str = TASK) -> str:
        return f"{self.task(run_id, dag_id, task_id)}/plugin/skyvern"

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
    with SkyvernServer(home / "skyvern", SKYVERN_VENV, browser=True) as skyvern, Loopback() as loopback:
        loopback.fake = FakeSkyvern()
        env = {
            "AIRFLOW_CONN_SKYVERN_DEFAULT": connection(skyvern.base_url, skyvern.api_key),
            "AIRFLOW_CONN_HOSTILE": connection(loopback.url, API_KEY),
        }
        with AirflowServer(home / "airflow", Path(__file__).parent / "dags", env) as airflow:
            yield Rig(airflow, skyvern, loopback.fake, images)


def connection(host: str, key: str) -> str:
    return json.dumps({"conn_type": "skyvern", "host": host, "password": key})


@pytest.fixture
def ui(rig: Rig) -> Iterator[AirflowUI]:
    with airflow_ui(rig.airflow.ui_url, window={"width": 1280, "height": 1000}) as opened:
        opened.open("/")  # Airflow 3.1 forgets where a visitor without a cookie wanted to go
        opened.wait_for("Dags")
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


def test_a_person_decides_on_the_page(rig: Rig, ui: AirflowUI) -> None:
    run_id = rig.start("human", ASKING_DAG)
    page = rig.page(run_id, ASKING_DAG, ASKING_TASK)
    ui.open(page)
    ui.wait_in_frame("May INV-1 be paid?", seconds=120)  # once the run asks
    pay = ui.frame.get_by_role("button", name="Pay")
    pay.wait_for(timeout=60_000)  # once the task asks in Airflow, too
    rig.save_both(ui, page, "run-page-asks", "Pay")
    ui.open(f"{rig.task(run_id, ASKING_DAG, ASKING_TASK)}/required_actions", dark=False)
    ui.wait_for("Skyvern: Invoice INV-1")
    ui.wait_for("May INV-1 be paid?")
    ui.save(rig.images / "required-action-light.png")
    ui.open(page)
    pay.focus()
    ui.page.keyboard.press("Enter")
    ui.wait_in_frame("completed", seconds=120)  # without a reload
    ui.wait_in_frame("Skyvern keeps it with the run's browser session")  # a run that asks has a session, so no player
    assert rig.airflow.wait_run(ASKING_DAG, run_id) == "success"
    note = rig.airflow.xcom(ASKING_DAG, run_id, ASKING_TASK, "approval")
    assert (note["approved"], note["answer"], note["answered_in"]) == (True, "Pay", "airflow")
    assert ui.problems == []


def test_a_person_types_the_code_of_a_login_on_the_page(rig: Rig, ui: AirflowUI) -> None:
    """First a wrong one, which the portal refuses; then the right one. Neither is kept by Airflow."""
    run_id = rig.start("login_with_code", CODE_DAG)
    page = rig.page(run_id, CODE_DAG, CODE_TASK)
    ui.open(page)
    field = ui.frame.locator("#code-typed")
    field.wait_for(timeout=420_000)  # once the run waits, and Airflow says so
    rig.save_both(ui, page, "run-page-code", "Code for the login")
    ui.open(f"{rig.task(run_id, CODE_DAG, CODE_TASK)}/required_actions", dark=False)
    ui.wait_for("Skyvern: a code is wanted")
    ui.save(rig.images / "required-action-code-light.png")
    ui.open(page)
    send_code(ui, WRONG_CODE)
    ui.frame.locator("#code").wait_for(state="detached", timeout=120_000)
    field.wait_for(timeout=420_000)  # the portal has refused it: asked again
    send_code(ui, RIGHT_CODE)
    assert rig.airflow.wait_run(CODE_DAG, run_id, timeout=420) == "success"
    ui.wait_in_frame("Recording", seconds=120)
    assert ui.problems == []
    text = ui.frame.locator("html").inner_html()
    assert not {code for code in (WRONG_CODE, RIGHT_CODE) if code in text}
    leaks = Leaks(rig.airflow, {WRONG_CODE, RIGHT_CODE})
    leaks.look_into_files()  # the database is one of them
    assert leaks.found == set()
    assert any(
        RIGHT_CODE in str(code) for code in rig.skyvern.request("GET", "/v1/credentials/totp")[1]
    )  # so one was sent


def send_code(ui: AirflowUI, code: str) -> None:
    """Type a code, and send it with the keyboard."""
    ui.frame.get_by_label("Code", exact=True).fill(code)
    ui.page.keyboard.press("Enter")


def test_nothing_of_a_hostile_run_runs(rig: Rig, ui: AirflowUI) -> None:
    click = {"action_type": EVIL, "intention": EVIL, "status": EVIL, "screenshot": 0}
    run_id = rig.start_hostile(
        "hostile",
        plan=("running", {"status": "failed", "app_url": "javascript:top.ran=1"}),
        failure_reason=EVIL,
        errors=[{"error_code": EVIL, "reasoning": EVIL}],
        artifacts={"x.svg": SVG, "x.html": HTML, EVIL.replace("/", "_"): HTML},
        media=[Media("screenshot_action", SVG, label=EVIL), Media("recording", HTML)],
        blocks=[
            {"label": EVIL, "block_type": EVIL, "description": EVIL, "failure_reason": EVIL, "error_codes": [EVIL]},
            {"label": "clicks", "block_type": "navigation", "actions": [click]},
        ],
    )
    assert rig.airflow.wait_run(DAG, run_id) == "failed"
    ui.open(rig.page(run_id))
    ui.wait_in_frame("Downloaded files")
    ui.frame.locator("summary").first.click()
    assert ui.frame.locator("#page").inner_text().count("<script>top.ran=1</script>") > 10
    assert "49" not in ui.frame.locator("h1").inner_text()
    ui.frame.locator("[data-picture].broken").first.wait_for()
    assert ui.frame.locator("[data-picture]:not(.broken)").count() == 0
    assert ui.frame.locator("#page a[href^='javascript']").count() == 0
    files = ui.frame.locator("[data-download]")
    assert files.count() == 3
    for number in range(3):
        with ui.page.expect_download() as download:
            files.nth(number).click()
        assert b"top.ran=1" in Path(download.value.path()).read_bytes()
    addresses = files.evaluate_all("links => links.map(link => link.href)")
    assert ui.page.evaluate("window.ran") is None
    for address in addresses:
        with ui.page.expect_download(), contextlib.suppress(PlaywrightError):  # "Download is starting" is an error
            ui.page.goto(address)
        assert ui.page.evaluate("window.ran") is None
    for list_of_runs in (f"/dags/{DAG}/runs/{run_id}/plugin/skyvern_dag_run", "/plugin/skyvern_runs"):
        ui.open(list_of_runs)
        ui.wait_in_frame(TASK)
        assert ui.page.evaluate("window.ran") is None


def test_nothing_of_a_hostile_question_runs(rig: Rig, ui: AirflowUI) -> None:
    ask = {"label": EVIL, "block_type": "human_interaction", "status": "running", "subject": EVIL}
    ask |= {"instructions": EVIL, "positive_descriptor": EVIL, "negative_descriptor": "Stop"}
    run_id = rig.start_hostile("hostile_question", ASKING_DAG, plan=("running", "paused"), blocks=[ask])
    ui.open(rig.page(run_id, ASKING_DAG, ASKING_TASK))
    ui.frame.get_by_role("button", name="Stop").wait_for(timeout=120_000)
    assert ui.page.evaluate("window.ran") is None
    ui.open(f"{rig.task(run_id, ASKING_DAG, ASKING_TASK)}/required_actions")
    ui.wait_for("Run in Skyvern")
    assert ui.page.locator("a[href*='javascript'], [src*='evil.test'], [href*='evil.test']").count() == 0
    assert ui.page.evaluate("window.ran") is None


def test_the_keys_are_nowhere(rig: Rig) -> None:
    """In no log, the API server's with its requests included, and not in the database."""
    leaks = Leaks(rig.airflow, {rig.skyvern.api_key, API_KEY})
    leaks.look_into_files()
    assert leaks.found == set()
