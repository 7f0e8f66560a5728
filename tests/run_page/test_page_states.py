"""
Each state of the pages in Chromium: light, dark, wide and narrow, with names as long as they get.

The pages are the real ones, over Airflow's database and the fake for Skyvern, without Airflow's UI around them. Each
goes through axe-core, which finds what keeps people from using a page that they cannot see, or without a mouse. With
RUN_PAGE_STATES=folder the pictures stay there.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal

import pytest
import uvicorn
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from playwright.sync_api import Browser, Page, sync_playwright
from sqlalchemy import select

from airflow_skyvern.runs.key import READABLE_TAGS
from airflow_skyvern.testing.fake.records import Media
from airflow_skyvern.testing.fake.skyvern import API_KEY, FakeSkyvern
from airflow_skyvern.testing.loopback import Loopback
from dev.browser.chromium import LOOPBACK_ONLY, require_chromium
from dev.process import wait_until
from tests.support.ui_rig import CONN, DAG, RUN, TASK, Ui, add_earlier_try, add_task, create_database, pages
from tests.support.ui_rig import write_log as _write_log

AXE = Path(__file__).parents[2] / ".venvs" / "axe" / "node_modules" / "axe-core" / "axe.min.js"
LONG = "a_name_as_long_as_names_of_tasks_and_blocks_get_which_are_typed_without_a_single_space_" * 2
LONG_TITLE = f"{'A title that goes on and on, as titles of workflows do, ' * 3}{LONG}"
TASK_PAGE = f"/skyvern/ti/{DAG}/{RUN}/{TASK}/-1"
THEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
WIDTHS = (1280, 400)


@dataclass
class Site:
    """The pages on a port of loopback, and a browser."""

    ui: Ui
    address: str
    browser: Browser
    pictures: Path


def picture(colour: tuple[int, int, int], width: int = 640, height: int = 400) -> bytes:
    """Return a PNG in one colour."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = (b"\0" + bytes(colour) * width) * height
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        arguments = [LOOPBACK_ONLY, "--no-sandbox"]
        opened = playwright.chromium.launch(executable_path=require_chromium(), args=arguments)
        yield opened
        opened.close()


@pytest.fixture
def site(browser: Browser, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    create_database()
    pictures = Path(os.environ.get("RUN_PAGE_STATES", tmp_path))
    pictures.mkdir(parents=True, exist_ok=True)
    listening = socket.create_server(("127.0.0.1", 0))
    with pages(monkeypatch) as ui:
        server = uvicorn.Server(uvicorn.Config(ui.airflow, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        wait_until("the pages", lambda: server.started, 60)
        yield Site(ui, f"http://127.0.0.1:{listening.getsockname()[1]}", browser, pictures)
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def skyvern(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSkyvern]:
    with Loopback() as loopback:
        loopback.fake = FakeSkyvern()
        connection = {"conn_type": "skyvern", "host": loopback.url, "password": API_KEY}
        monkeypatch.setenv("AIRFLOW_CONN_SKYVERN_DEFAULT", json.dumps(connection))
        yield loopback.fake


def started(skyvern: FakeSkyvern, task: str = TASK, **workflow: Any) -> str:
    run_id = skyvern.run(**workflow)
    run = skyvern.runs[run_id]
    run.tags.update(zip(READABLE_TAGS, (DAG, task, RUN), strict=True))
    for _ in run.plan:
        run.look()
    return run_id


def write_log(said: str, task_id: str = TASK) -> None:
    detail = [{"exc_type": "AirflowFailException", "exc_value": said}]
    line = {"event": "Task failed with exception", "level": "error", "error_detail": detail}
    _write_log([line], task_id=task_id)


def blocks(label: str = "sign_in", **last: Any) -> list[dict[str, Any]]:
    click = {"action_type": "click", "intention": "Open the list of invoices", "screenshot": 0}
    typed = {"action_type": "input_text", "text": "4711", "intention": f"Search for {label}", "status": "failed"}
    return [
        {"label": label, "block_type": "navigation", "description": f"Going to {label}", "duration": 12.3}
        | {"actions": [click, typed]},
        {"label": "each_month", "block_type": "for_loop", "status": "completed"}
        | {"children": [{"label": label, "block_type": "file_download", "current_index": 0}]},
        {"label": "last", "block_type": "extraction", **last},
    ]


MEDIA = [Media("screenshot_action", picture((90, 140, 200)), label="sign_in")]


def completed(skyvern: FakeSkyvern) -> str:
    output = {"rows": [{"invoice": number, "total": f"{number}.50 €"} for number in range(40)]}
    run_id = started(
        skyvern,
        title="Fetch the invoices of a month",
        blocks=blocks(),
        media=MEDIA,
        output=output,
        artifacts={"invoice_4711.pdf": b"%PDF" * 9000},
    )
    skyvern.runs[run_id].parameters.update(customer="ACME", month="2026-11", password="s3cr3t-value")
    note = {"run_id": run_id, "approved": True, "answer": "Pay", "answered_by": "eve", "answered_in": "airflow"}
    add_task(try_number=2, xcoms={"run_id": run_id, "approval": note})
    add_earlier_try(1, None)
    return TASK_PAGE


def running(skyvern: FakeSkyvern) -> str:
    run_id = started(skyvern, plan=("running",), title="Fetch the invoices", blocks=blocks()[:1], media=MEDIA)
    add_task(state="deferred", xcoms={"run_id": run_id})
    return TASK_PAGE


def failed(skyvern: FakeSkyvern) -> str:
    reason = "Invoice 4711 of ACME was not found."
    errors = [{"error_code": "NO_INVOICE", "reasoning": "The list of invoices is empty."}]
    last = blocks(status="failed", failure_reason=reason, error_codes=["NO_INVOICE"])
    told: dict[str, Any] = {"failure_reason": reason, "errors": errors, "blocks": last, "media": MEDIA}
    run_id = started(skyvern, plan=("running", "failed"), title="Fetch the invoices", **told)
    add_task(state="failed", xcoms={"run_id": run_id})
    return TASK_PAGE


def timed_out(skyvern: FakeSkyvern) -> str:
    run_id = started(
        skyvern, plan=("running", "canceled"), title="Fetch the invoices", blocks=blocks()[:1], media=MEDIA
    )
    add_task(state="failed", xcoms={"run_id": run_id})
    write_log("Skyvern run wr_1 did not end within 3600 s, and was canceled.")
    return TASK_PAGE


def without_run(skyvern: FakeSkyvern) -> str:
    add_task(state="failed")
    write_log("Skyvern refuses the API key (403). Check the API key (the password field of the Airflow connection).")
    return TASK_PAGE


def skyvern_away(skyvern: FakeSkyvern) -> str:
    skyvern.api_key = "rotated"
    address = "https://skyvern.test/runs/wr_600000000000000001"
    event = {"run_id": "wr_600000000000000001", "reason": "ended", "status": "running"}
    add_task(state="deferred", xcoms={"app_url": address}, next_kwargs={"event": event})
    return TASK_PAGE


def asks(skyvern: FakeSkyvern, **answered: Any) -> str:
    block = {"label": "ask", "block_type": "human_interaction", "instructions": "May INV-1 of ACME be paid?\n1,234 €"}
    run_id = started(skyvern, plan=("paused",), title="Pay the invoices", blocks=[block])
    add_task(state="deferred", xcoms={"run_id": run_id}, next_kwargs={"deadline": time.time() + 3000})
    with create_session() as session:
        ti_id = session.scalar(select(TaskInstance.id))
        options: Any = ["Pay", "Do not pay"]
        known: dict[str, Any] = {"subject": "s", "body": "b", "params": {}, "multiple": False, **answered}
        session.add(HITLDetail(ti_id=ti_id, options=options, **known))
    return TASK_PAGE


def answered(skyvern: FakeSkyvern) -> str:
    by = {"id": "eve", "name": "eve"}
    return asks(skyvern, chosen_options=["Pay"], responded_by=by, responded_at=datetime.now(timezone.utc))


def wants_code(skyvern: FakeSkyvern, **answered: Any) -> str:
    login = {"label": "sign_in", "block_type": "login", "totp_identifier": "ops@example.com", "code": "482913"}
    run_id = started(skyvern, plan=("running",), title="Fetch the invoices", blocks=[login])
    step = {"block_id": f"wrb_{run_id[3:]}0", "task_id": f"tsk_{run_id[3:]}0", "label": "sign_in", "actions": 3}
    request = {"run_id": run_id, "options": ["The code was sent"], "step": step}
    add_task(state="deferred", xcoms={"run_id": run_id}, next_kwargs={"request": request})
    with create_session() as session:
        ti_id = session.scalar(select(TaskInstance.id))
        known: dict[str, Any] = {"subject": "s", "body": "b", "params": {}, "multiple": False, **answered}
        session.add(HITLDetail(ti_id=ti_id, options=request["options"], **known))
    return TASK_PAGE


def code_sent(skyvern: FakeSkyvern) -> str:
    by = {"id": "eve", "name": "eve"}
    now = datetime.now(timezone.utc)
    return wants_code(skyvern, chosen_options=["The code was sent"], responded_by=by, responded_at=now)


def of_dag_run(skyvern: FakeSkyvern) -> str:
    reason = "Invoice 4711 of ACME was not found."
    add_task(task_id="fetch", xcoms={"run_id": started(skyvern, "fetch"), "app_url": "https://skyvern.test/runs/1"})
    failing = started(skyvern, "fail", plan=("running", "failed"), failure_reason=reason)
    add_task(task_id="fail", state="failed", xcoms={"run_id": failing})
    add_task(task_id="wrong_key", state="failed")
    write_log("Skyvern refuses the API key (403).", "wrong_key")
    add_task(task_id="after", state="upstream_failed", conn_id=None)
    add_task(task_id=LONG, map_index=12, state="up_for_retry", xcoms={"run_id": started(skyvern, f"{LONG}[12]")})
    write_log(f"{LONG} {LONG}", LONG)
    return f"/skyvern/dag_run/{DAG}/{RUN}"


def menu(skyvern: FakeSkyvern) -> str:
    of_dag_run(skyvern)
    started(skyvern, LONG, title=LONG_TITLE, plan=("running", "failed"), failure_reason=f"{LONG} is not there. " * 3)
    for _ in range(100):
        skyvern.run()
    add_task(task_id="other", xcoms={"connection_and_run_key": {"skyvern_conn_id": CONN, "group": "g"}})
    return "/skyvern/runs"


def nothing_there(skyvern: FakeSkyvern) -> str:
    return "/skyvern/ti/no/such/task/-1"


def long_names(skyvern: FakeSkyvern) -> str:
    run_id = started(
        skyvern,
        title=LONG_TITLE,
        plan=("running", "failed"),
        failure_reason=f"{LONG} was not found. " * 5,
        errors=[{"error_code": LONG, "reasoning": LONG}],
        blocks=blocks(LONG, failure_reason=LONG, error_codes=[LONG], description=LONG * 3),
        artifacts={f"{LONG}.pdf": b"%PDF"},
        output={LONG: [LONG, LONG * 20]},
        media=[Media("screenshot_action", picture((200, 90, 90)), label=LONG)],
    )
    skyvern.runs[run_id].parameters.update({LONG: LONG * 4, "customer": "ACME"})
    add_task(state="failed", xcoms={"run_id": run_id})
    return TASK_PAGE


STATES: list[Callable[[FakeSkyvern], str]] = [
    *(completed, running, failed, timed_out, without_run, skyvern_away, asks, answered, of_dag_run, menu),
    *(wants_code, code_sent),
    *(nothing_there, long_names),
]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_every_state_can_be_used_by_everybody(
    site: Site, skyvern: FakeSkyvern, state: Callable[[FakeSkyvern], str]
) -> None:
    path, problems = state(skyvern), []
    cookies: Any = [{"name": "_token", "value": site.ui.cookie("eve", "op")["_token"], "url": site.address}]
    with site.browser.new_context(bypass_csp=True) as opened:
        opened.add_cookies(cookies)
        page = opened.new_page()
        page.set_default_timeout(120_000)
        for theme in THEMES:
            page.emulate_media(color_scheme=theme)
            page.goto(f"{site.address}{path}")
            for summary in page.locator("summary").all():
                summary.click()
            for width in WIDTHS:
                page.set_viewport_size({"width": width, "height": 900})
                found = problems_of(page)
                problems += [f"{theme} {width}: {problem}" for problem in found]
                page.screenshot(path=site.pictures / f"{state.__name__}-{theme}-{width}.png", full_page=True)
    assert problems == []


def problems_of(page: Page) -> list[str]:
    """Return what axe-core finds, and whether a reader would have to scroll sideways."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")["violations"]
    problems = [f"{one['id']}: {[node['html'][:200] for node in one['nodes']]}" for one in found]
    wider = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return [*problems, f"{wider} px wider than the window"] if wider > 0 else problems
