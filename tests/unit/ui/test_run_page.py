"""The tab of a task instance, over Airflow's real authorization and database, and the fake for Skyvern."""

from __future__ import annotations

import asyncio
import json
import os
import re
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx
import pytest

from airflow_skyvern.compat import since_3_1
from airflow_skyvern.runs.key import task_tag
from airflow_skyvern.testing.fake import views
from airflow_skyvern.testing.fake.records import Media
from airflow_skyvern.testing.fake.skyvern import API_KEY

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
    from tests.unit.conftest import Connect

if not since_3_1.shows_external_views():
    pytest.skip("pages of plugins came with Airflow 3.1", allow_module_level=True)

from airflow.models.team import Team
from airflow.utils.log.file_task_handler import StructuredLogMessage
from airflow.utils.session import create_session

from airflow_skyvern.ui import media, task_log
from tests.support.ui_rig import (
    CONN,
    DAG,
    PAGE,
    RUN,
    SECRET_DAG,
    TASK,
    Ui,
    add_dag_run,
    add_earlier_try,
    add_task,
    empty_database,
    write_log,
)

PNG = b"\x89PNG\r\n\x1a\n" + b"a picture"
WEBM = b"\x1a\x45\xdf\xa3" + bytes(range(200))
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"
DAG_RUN = f"/skyvern/dag_run/{DAG}/{RUN}"
TAGS = {"airflow_dag_id": DAG, "airflow_task_id": TASK, "airflow_run_id": RUN}


@pytest.fixture(autouse=True)
def nothing_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the wait for a recording that Skyvern is about to replace."""
    monkeypatch.setattr(media, "REPLACING", 0.0)


def started(skyvern: FakeSkyvern, *, tags: dict[str, str] | None = None, **workflow: Any) -> str:
    """Start a run as the operator does, and store the task that did."""
    run_id = skyvern.run(**workflow)
    run = skyvern.runs[run_id]
    run.tags.update(TAGS if tags is None else tags)
    for _ in run.plan:
        run.look()
    return run_id


def block(label: str, **more: Any) -> dict[str, Any]:
    return {"label": label, "block_type": "navigation", "description": f"Going to {label}", **more}


async def test_the_page_shows_what_the_run_did(ui: Ui, skyvern: FakeSkyvern) -> None:
    run_id = started(
        skyvern,
        title="Fetch the invoices",
        blocks=[
            block("sign_in", duration=12.3),
            block("each_month", block_type="for_loop", children=[block("download")]),
        ],
        parameters={"customer": "string"},
    )
    skyvern.runs[run_id].parameters.update(customer="ACME")
    add_task(xcoms={"run_id": run_id})
    answer = await ui.get(PAGE)
    assert answer.status_code == 200
    for text in ("Fetch the invoices", "completed", "sign_in", "each_month", "download", "12 s", "ACME", run_id):
        assert text in answer.text
    assert len(skyvern.sent("GET", f"/v1/runs/{run_id}.*")) == 2


@pytest.mark.slow
async def test_the_page_says_which_version_of_which_file_is_run(ui: Ui, skyvern: FakeSkyvern) -> None:
    run_id = skyvern.run(plan=("completed",))
    skyvern.runs[run_id].tags.update(TAGS)
    note = {"file": "<invoices>.yaml", "workflow_id": "wpid_1", "version": 3, "digest": "0f"}
    add_task(xcoms={"run_id": run_id, "workflow_version": note})
    page = (await ui.get(PAGE)).text
    assert "<dt>Workflow file</dt><dd>&lt;invoices&gt;.yaml, version 3</dd>" in page
    empty_database()
    add_task(xcoms={"run_id": run_id, "workflow_version": "edited"})
    assert "Workflow file" not in (await ui.get(PAGE)).text


@pytest.mark.slow
async def test_strangers_and_readers_of_other_dags_see_nothing(ui: Ui, skyvern: FakeSkyvern) -> None:
    run_id = started(skyvern, tags={**TAGS, "airflow_dag_id": SECRET_DAG}, media=[Media("screenshot_final", PNG)])
    add_task(dag_id=SECRET_DAG, xcoms={"run_id": run_id})
    page = PAGE.replace(DAG, SECRET_DAG)
    for path in (page, f"{page}/tries/1/pictures/a_1", f"{page}/tries/1/recording", f"{page}/tries/1/files/a_1"):
        assert (await ui.get(path, username=None)).status_code == 401
        assert (await ui.get(path, username="eve")).status_code == 403
        assert (await ui.get(path, username="mallory")).status_code == 403
    assert skyvern.requests == []
    assert (await ui.get(page, username="admin")).status_code == 200


@pytest.mark.parametrize("tries", ["1/pictures/{id}", "1/recording", "1/files/{id}", "2/pictures/{id}"])
async def test_a_run_of_another_dag_is_not_shown_whatever_an_xcom_says(
    ui: Ui, skyvern: FakeSkyvern, tries: str
) -> None:
    other = started(skyvern, tags={**TAGS, "airflow_dag_id": SECRET_DAG}, media=[Media("screenshot_final", PNG)])
    add_task(xcoms={"run_id": other})
    answer = await ui.get(PAGE)
    assert answer.status_code == 404
    assert "was started by a DAG that you may not read" in answer.text
    media_id = f"a_{other[3:]}0"
    assert (await ui.get(f"{PAGE}/tries/{tries.format(id=media_id)}")).status_code == 404
    assert skyvern.sent("GET", "/v1/artifacts.*") == skyvern.sent("GET", f"/v1/runs/{other}.*") == []


@pytest.mark.skipif(hasattr(Team, "id"), reason="connections belong to teams since Airflow 3.2")
@pytest.mark.parametrize("tags", [TAGS, {}], ids=["with the tags of this DAG", "without tags"])
async def test_a_run_on_the_connection_of_another_team_is_not_shown(
    ui: Ui, skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch, tags: dict[str, str]
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    monkeypatch.setenv("AIRFLOW_CONN__OTHERS___OF_OTHERS", os.environ["AIRFLOW_CONN_SKYVERN_DEFAULT"])
    with create_session() as session:
        session.merge(Team(name="others"))
    run_id = started(skyvern, tags=tags)
    add_task(conn_id="of_others", xcoms={"run_id": run_id})
    answer = await ui.get(PAGE)
    assert answer.status_code == 404
    assert "or on the connection of another team" in answer.text
    assert skyvern.requests == []


@pytest.mark.slow
async def test_a_sensor_shows_the_run_of_another_dag_to_readers_of_both(ui: Ui, skyvern: FakeSkyvern) -> None:
    other = started(skyvern, tags={**TAGS, "airflow_dag_id": SECRET_DAG})
    add_dag_run(SECRET_DAG)
    add_task(xcoms={"run_id": other}, rendered={"run_id": other}, operator="SkyvernRunSensor")
    assert (await ui.get(PAGE)).status_code == 404
    assert other in (await ui.get(PAGE, username="admin")).text


@pytest.mark.slow
async def test_a_run_of_another_airflow_is_shown_only_where_airflow_itself_names_it(
    ui: Ui, skyvern: FakeSkyvern
) -> None:
    other = started(skyvern, tags={**TAGS, "airflow_dag_id": "of_another_airflow"})
    add_task(xcoms={"run_id": other})
    assert (await ui.get(PAGE, username="admin")).status_code == 404
    empty_database()
    add_task(operator="SkyvernRunSensor", rendered={"run_id": other})
    assert (await ui.get(PAGE)).status_code == 200


@pytest.mark.slow
async def test_the_connection_is_that_of_the_rendered_task_whatever_an_xcom_says(
    ui: Ui, skyvern: FakeSkyvern
) -> None:
    run_id = started(skyvern)
    add_task(xcoms={"run_id": run_id, "connection_and_run_key": {"skyvern_conn_id": "stolen", "group": None}})
    assert "completed" in (await ui.get(PAGE)).text
    empty_database()
    add_task(
        xcoms={"run_id": run_id, "connection_and_run_key": {"skyvern_conn_id": "gone", "group": None}}, conn_id=None
    )
    assert "The connection of this task does not exist any more" in (await ui.get(PAGE)).text
    assert "The connection gone does not exist any more" in (await ui.get(PAGE, role="op")).text


@pytest.mark.slow
async def test_a_run_that_a_schedule_has_started_links_to_it(ui: Ui, skyvern: FakeSkyvern) -> None:
    workflow = skyvern.workflow()
    schedule = skyvern.schedule(workflow).schedule_id
    at = datetime(2026, 11, 26, 8, tzinfo=timezone.utc)
    skyvern.fire(skyvern.schedule(workflow).schedule_id, at - timedelta(minutes=5))
    run_id = skyvern.fire(schedule, at)
    add_task(operator="SkyvernRunSensor", rendered={"run_id": run_id})
    page = (await ui.get(PAGE)).text
    address = f"http://localhost:8080/schedules/{workflow}/{schedule}"
    assert f'<a href="{address}" data-outside rel="noopener noreferrer">{schedule}</a>' in page
    await ui.get(PAGE)
    assert len(skyvern.sent("GET", f"/v1/workflows/{workflow}/runs")) == 1


async def test_a_run_that_a_task_has_started_is_not_searched_among_those_of_schedules(
    ui: Ui, skyvern: FakeSkyvern
) -> None:
    add_task(xcoms={"run_id": started(skyvern)})
    assert "Schedule" not in (await ui.get(PAGE)).text
    assert skyvern.sent("GET", "/v1/workflows/wpid.*") == []


async def test_a_run_of_another_organization_is_not_found(ui: Ui, skyvern: FakeSkyvern) -> None:
    add_task(xcoms={"run_id": "wr_404"})
    answer = await ui.get(PAGE)
    assert answer.status_code == 404
    assert "Skyvern does not know the run wr_404: it was deleted, or belongs to another organization." in answer.text


@pytest.mark.slow
async def test_an_artifact_of_another_run_is_not_found(ui: Ui, skyvern: FakeSkyvern) -> None:
    mine = started(skyvern, media=[Media("screenshot_final", PNG)])
    other = started(skyvern, media=[Media("screenshot_final", PNG)])
    add_task(xcoms={"run_id": mine})
    assert (await ui.get(f"{PAGE}/tries/1/pictures/a_{mine[3:]}0")).status_code == 200
    assert (await ui.get(f"{PAGE}/tries/1/pictures/a_{other[3:]}0")).status_code == 404


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["har", "llm_prompt", "llm_request", "html_scrape", "browser_console_log", "download"]
)
@pytest.mark.parametrize("route", ["pictures", "files"])
async def test_only_known_kinds_are_given_out(ui: Ui, skyvern: FakeSkyvern, kind: str, route: str) -> None:
    run_id = started(skyvern, media=[Media(kind, b"cookies and passwords", name="x.bin")])
    add_task(xcoms={"run_id": run_id})
    answer = await ui.get(f"{PAGE}/tries/1/{route}/a_{run_id[3:]}0")
    assert answer.status_code == (200 if (kind, route) == ("download", "files") else 404)


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"PK\x03\x04 an archive", b"<svg onload=alert(1)>", b"<html>", b"GIF89a"])
async def test_what_only_calls_itself_a_picture_is_a_broken_picture(
    ui: Ui, skyvern: FakeSkyvern, content: bytes
) -> None:
    run_id = started(skyvern, media=[Media("screenshot_final", content), Media("recording", content)])
    add_task(xcoms={"run_id": run_id})
    assert (await ui.get(f"{PAGE}/tries/1/pictures/a_{run_id[3:]}0")).status_code == 404
    assert (await ui.get(f"{PAGE}/tries/1/recording")).status_code == 404


@pytest.mark.slow
async def test_a_picture_is_fetched_once_for_all_viewers(ui: Ui, skyvern: FakeSkyvern) -> None:
    run_id = started(skyvern, media=[Media("screenshot_final", PNG)])
    add_task(xcoms={"run_id": run_id})
    path = f"{PAGE}/tries/1/pictures/a_{run_id[3:]}0"
    answers = await asyncio.gather(*(ui.get(path) for _ in range(20)))
    assert {(answer.headers["content-type"], answer.content) for answer in answers} == {("image/png", PNG)}
    assert len(skyvern.sent("GET", "/v1/artifacts/.*")) == 1


@pytest.mark.slow
async def test_a_recording_is_there_as_soon_as_the_run_has_one(ui: Ui, skyvern: FakeSkyvern) -> None:
    """Its list of artifacts is not the one that a picture was found in while the run went on."""
    run_id = skyvern.run(plan=("running", "completed"), media=[Media("recording", WEBM)])
    run = skyvern.runs[run_id]
    run.tags.update(TAGS)
    run.look()
    add_task(state="deferred", xcoms={"run_id": run_id})
    assert (await ui.get(f"{PAGE}/tries/1/pictures/a_1")).status_code == 404
    run.look()
    assert (await ui.get(f"{PAGE}/tries/1/recording")).status_code == 200


async def test_the_page_has_a_player_where_there_is_something_to_play(ui: Ui, skyvern: FakeSkyvern) -> None:
    add_task(xcoms={"run_id": started(skyvern, media=[Media("recording", WEBM)])})
    page = await ui.get(PAGE)
    assert "<video" in page.text
    assert "browser session" not in page.text


@pytest.mark.slow
async def test_the_recording_of_a_browser_session_has_no_player(ui: Ui, skyvern: FakeSkyvern) -> None:
    """It has an address on Skyvern's disk, and no artifact that the API would give out."""
    of_session = "file:///artifacts/o_1/browser_sessions/pbs_1/videos/wr_1/x.webm"
    ended = {"status": "completed", "recording_url": of_session}
    add_task(xcoms={"run_id": started(skyvern, plan=("running", ended), media=[Media("screenshot_final", PNG)])})
    page = await ui.get(PAGE)
    assert "<video" not in page.text
    assert "Skyvern keeps it with the run's browser session" in page.text
    assert of_session not in page.text
    assert (await ui.get(f"{PAGE}/tries/1/recording")).status_code == 404


NOT_THERE = (
    httpx.Response(404, json={"detail": "Artifact content not found"}),
    httpx.Response(416),
    httpx.Response(200),
)


@pytest.mark.slow
async def test_a_recording_that_skyvern_is_replacing_is_waited_for(
    ui: Ui, skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its new name is known before its bytes are there: first it is missing, then empty."""
    monkeypatch.setattr(media, "REPLACING", 10.0)
    add_task(xcoms={"run_id": started(skyvern, media=[Media("recording", WEBM)])})
    skyvern.next("GET", "/v1/artifacts/.*", *NOT_THERE)
    answers = await asyncio.gather(*(ui.get(f"{PAGE}/tries/1/recording") for _ in range(3)))
    assert [(answer.status_code, answer.content) for answer in answers] == [(200, WEBM)] * 3
    assert len(skyvern.sent("GET", "/v1/artifacts/.*")) == 3 + 1 + 3  # the viewers wait for one and the same
    skyvern.next("GET", "/v1/artifacts/.*", NOT_THERE[0])
    assert (await ui.get(f"{PAGE}/tries/1/recording")).status_code == 200


@pytest.mark.slow
async def test_a_recording_can_be_sought_in(ui: Ui, skyvern: FakeSkyvern) -> None:
    run_id = started(skyvern, media=[Media("recording", WEBM)])
    add_task(xcoms={"run_id": run_id})
    whole = await ui.get(f"{PAGE}/tries/1/recording")
    part = await ui.get(f"{PAGE}/tries/1/recording", range="bytes=100-109")
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, WEBM, "video/webm")
    assert (part.status_code, part.content) == (206, WEBM[100:110])
    assert part.headers["content-range"] == f"bytes 100-109/{len(WEBM)}"
    assert part.headers["content-encoding"] == "identity"
    assert (await ui.get(f"{PAGE}/tries/1/recording", range=f"bytes={len(WEBM)}-")).status_code == 416


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["x.svg", "x.html", 'a"b.html', "a\r\nset-cookie: x=1.html", "../../x.html", "é.pdf"]
)
async def test_a_downloaded_file_is_saved_and_never_shown(ui: Ui, skyvern: FakeSkyvern, name: str) -> None:
    run_id = started(skyvern, artifacts={"file": b"<svg xmlns='x'><script>alert(1)</script></svg>"})
    skyvern.next("GET", f"/v1/runs/{run_id}", lambda: _with_file_name(skyvern, run_id, name))
    add_task(xcoms={"run_id": run_id})
    answer = await ui.get(f"{PAGE}/tries/1/files/a_{run_id[3:]}0")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment; filename=")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
    assert "set-cookie" not in answer.headers
    assert not {"/", "\r", "\n"} & set(answer.headers["content-disposition"])


def _with_file_name(skyvern: FakeSkyvern, run_id: str, name: str) -> httpx.Response:
    run = views.view(skyvern.runs[run_id])
    run["downloaded_files"][0]["filename"] = name
    return httpx.Response(200, json=run)


@pytest.mark.slow
async def test_script_in_any_text_of_a_run_is_text(ui: Ui, skyvern: FakeSkyvern) -> None:
    run_id = started(
        skyvern,
        plan=("running", "failed"),
        title=EVIL,
        failure_reason=f"reason {EVIL}",
        errors=[{"error_code": f"CODE {EVIL}", "reasoning": f"because {EVIL}"}],
        artifacts={f"{EVIL.replace('/', '_')}.pdf": b"%PDF"},
        blocks=[
            block(
                f"label {EVIL}", description=f"description {EVIL}", failure_reason=f"block {EVIL}", error_codes=[EVIL]
            ),
            block(f"x {EVIL}", block_type="human_interaction", status="running", instructions=f"ask {EVIL}"),
            block("y", actions=[{"action_type": f"click {EVIL}", "intention": f"why {EVIL}", "status": EVIL}]),
            block("z", status=EVIL, block_type=EVIL),
        ],
        parameters={"a": "string"},
    )
    skyvern.runs[run_id].parameters.update({f"name {EVIL}": f"value {EVIL}", "nested": {EVIL: [EVIL]}})
    add_task(xcoms={"run_id": run_id, "app_url": f"javascript:{EVIL}"})
    answer = await ui.get(PAGE)
    assert answer.status_code == 200
    assert answer.text.count("<script") == 1
    assert "<img src=x" not in answer.text
    assert answer.text.count("&lt;script&gt;alert(1)") > 15
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self';" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "private, no-store"


async def test_an_address_that_is_not_of_the_web_is_no_link(ui: Ui, skyvern: FakeSkyvern) -> None:
    plan = ("running", {"status": "completed", "app_url": "javascript:alert(document.cookie)"})
    run_id = started(skyvern, plan=plan)
    add_task(xcoms={"run_id": run_id})
    assert "javascript:" not in (await ui.get(PAGE)).text


PASSWORD_FIELD = {"tagName": "input", "attributes": {"type": "password"}}
TEXT_FIELD = {"tagName": "input", "attributes": {"type": "text", "name": "q"}}


def fills(text: str, element: Any = None, intention: str = "", **more: Any) -> dict[str, Any]:
    more["skyvern_element_data"] = element
    return {"action_type": "input_text", "text": text, "intention": intention, **more}


@pytest.mark.slow
async def test_a_reason_names_what_the_run_was_about(ui: Ui, skyvern: FakeSkyvern) -> None:
    """What was typed is masked only where a password was typed, as a whole word, and never in a name."""
    actions = [
        fills("4711", TEXT_FIELD, "Search the invoice"),
        fills("ACME", None, "Enter the customer"),
        fills("demo", PASSWORD_FIELD),
        fills("2468", None, "Enter the PIN"),
    ]
    run_id = started(
        skyvern,
        plan=("running", "failed"),
        title="demo of 4711",
        failure_reason="Invoice 4711 of ACME: not found in demo-land by demo, with 2468, on demonstration day",
        errors=[{"error_code": "NO_demo", "reasoning": "4711"}],
        artifacts={"demo_2468.pdf": b"%PDF"},
        blocks=[block("find_demo", actions=actions), block("demo")],
    )
    add_task(xcoms={"run_id": run_id})
    page = (await ui.get(PAGE)).text
    assert "Invoice 4711 of ACME: not found in ***-land by ***, with ***, on demonstration day" in page
    for name in ("demo of 4711", "find_demo", '<span class="label">demo</span>', "NO_demo", "demo_2468.pdf"):
        assert name in page


async def test_an_error_that_the_reason_repeats_is_named_by_its_code_only(ui: Ui, skyvern: FakeSkyvern) -> None:
    errors = [
        {"error_code": "BAD_LOGIN", "reasoning": "the password is wrong"},
        {"error_code": "LATE", "reasoning": "too slow"},
    ]
    plan = ("running", "failed")
    run_id = started(skyvern, plan=plan, failure_reason="Login failed: the password is wrong.", errors=errors)
    add_task(xcoms={"run_id": run_id})
    page = (await ui.get(PAGE)).text
    assert page.count("the password is wrong") == 1
    assert re.search(r"<code>BAD_LOGIN</code>\s*</li>", page)
    assert "too slow" in page


@pytest.mark.slow
@pytest.mark.parametrize(
    "action",
    [
        fills("geheim", PASSWORD_FIELD),
        fills("geheim", {"attributes": {"type": "text", "autocomplete": "section-a one-time-code"}}),
        fills("geheim", {"attributes": {"type": "text", "name": "user_password"}}),
        fills("geheim", {"attributes": {"placeholder": "Security code"}}),
        fills("geheim", TEXT_FIELD, "The password of the user"),
        fills("geheim", None, "", reasoning="Das Passwort wird verlangt"),
        fills("geheim", None, "", input_or_select_context={"field": "Card number"}),
    ],
)
async def test_what_was_typed_into_a_password_field_is_hidden(ui: Ui, skyvern: FakeSkyvern, action: Any) -> None:
    blocks = [block("sign_in", actions=[action])]
    run_id = started(skyvern, plan=("running", "failed"), failure_reason="The page refused geheim.", blocks=blocks)
    add_task(xcoms={"run_id": run_id})
    page = (await ui.get(PAGE)).text
    assert "The page refused ***." in page
    assert "geheim" not in page


@pytest.mark.slow
@pytest.mark.parametrize("field", ["email", "search", "date"])
async def test_what_a_field_of_another_type_got_is_shown(ui: Ui, skyvern: FakeSkyvern, field: str) -> None:
    action = fills("eve@acme.test", {"attributes": {"type": field}}, "First the user, then the password")
    blocks = [block("sign_in", actions=[action])]
    run_id = started(skyvern, plan=("running", "failed"), failure_reason="eve@acme.test is not known.", blocks=blocks)
    add_task(xcoms={"run_id": run_id})
    assert "eve@acme.test is not known." in (await ui.get(PAGE)).text


@pytest.mark.slow
async def test_a_long_secret_is_hidden_wherever_and_however_it_stands(ui: Ui, skyvern: FakeSkyvern) -> None:
    secret = 'Tr0ub4dor&"3'
    run_id = started(
        skyvern,
        plan=("running", "failed"),
        title=f"with {secret}",
        failure_reason=f"x{secret}x {json.dumps(secret)} Tr0ub4dor%26%223",
        blocks=[block("a", actions=[fills(secret, PASSWORD_FIELD)])],
    )
    add_task(xcoms={"run_id": run_id})
    assert "Tr0ub4dor" not in (await ui.get(PAGE)).text


async def test_the_page_shows_the_output_and_what_it_cost(ui: Ui, skyvern: FakeSkyvern) -> None:
    output = {
        "rows": [{"invoice": 4711, "total": "12.50 €", "note": "pin 2468"}],
        "headers": {"Authorization": "Bearer abc.def"},
        "password": "s3cr3t-value",
    }
    actions = [fills("2468", PASSWORD_FIELD)]
    run_id = started(skyvern, output=output, blocks=[block("sign_in", actions=actions)], artifacts={"a.pdf": b"%PDF"})
    cost = httpx.Response(200, json={"total_steps": 12, "credits_used": 30, "cached_credits_used": 4})
    skyvern.next("GET", f"/v1/workflows/runs/{run_id}", cost)
    add_task(xcoms={"run_id": run_id})
    page = (await ui.get(PAGE)).text
    for shown in (
        "4711",
        "12.50 €",
        "pin ***",
        "<dt>Steps</dt><dd>12</dd>",
        "<dt>Credits</dt><dd>34</dd>",
        "4 bytes",
    ):
        assert shown in page
    for secret in ("2468", "abc.def", "s3cr3t-value"):
        assert secret not in page


async def test_the_page_of_a_run_of_a_prompt_shows_what_there_is(ui: Ui, skyvern: FakeSkyvern) -> None:
    run_id = skyvern.task(plan=({"status": "completed", "step_count": 3},), output={"total": "12.50 €"})
    skyvern.runs[run_id].look()
    add_task(xcoms={"run_id": run_id})
    page = (await ui.get(PAGE)).text
    for shown in (run_id, "completed", "12.50 €", "<dt>Steps</dt><dd>3</dd>", f"/tasks/{run_id}"):
        assert shown in page


async def test_the_page_of_a_run_whose_cost_is_not_told_has_all_else(ui: Ui, skyvern: FakeSkyvern) -> None:
    run_id = started(skyvern, output={"rows": 1})
    skyvern.next("GET", f"/v1/workflows/runs/{run_id}", httpx.Response(503))
    add_task(xcoms={"run_id": run_id})
    page = (await ui.get(PAGE)).text
    assert "&#34;rows&#34;: 1" in page
    assert "Credits" not in page


@pytest.mark.slow
@pytest.mark.parametrize(
    "output",
    [
        "long " * 10**6,
        [{"a": number} for number in range(10**5)],
        {f"k{number}": "x" * 1000 for number in range(10**4)},
        [[["y" * 50] * 30] * 30] * 30,
    ],
)
async def test_a_large_output_is_cut(ui: Ui, skyvern: FakeSkyvern, output: Any) -> None:
    add_task(xcoms={"run_id": started(skyvern, output=output)})
    page = (await ui.get(PAGE)).text
    assert "…" in page
    assert len(page) < 300_000


async def test_a_deeply_nested_output_is_cut(ui: Ui, skyvern: FakeSkyvern) -> None:
    output: Any = "bottom"
    for _ in range(100):
        output = [output]
    add_task(xcoms={"run_id": started(skyvern, output=output)})
    page = (await ui.get(PAGE)).text
    assert "bottom" not in page
    assert "…" in page


async def test_the_size_of_a_file_is_taken_from_its_artifact_where_the_run_has_none(
    ui: Ui, skyvern: FakeSkyvern
) -> None:
    run_id = started(skyvern, artifacts={"a.pdf": b"%PDF"})
    run = views.view(skyvern.runs[run_id])
    run["downloaded_files"][0]["file_size"] = None
    skyvern.next("GET", f"/v1/runs/{run_id}", httpx.Response(200, json=run))
    add_task(xcoms={"run_id": run_id})
    assert "4 bytes" in (await ui.get(PAGE)).text


@pytest.mark.slow
async def test_no_character_turns_a_name_around(ui: Ui, skyvern: FakeSkyvern) -> None:
    run_id = started(skyvern, title="t\u2066itle", artifacts={"file": b"MZ"})
    skyvern.next("GET", f"/v1/runs/{run_id}", lambda: _with_file_name(skyvern, run_id, "invoice_\u202efdp.exe"))
    add_task(xcoms={"run_id": run_id})
    page = (await ui.get(PAGE)).text
    assert "invoice_fdp.exe" in page
    assert ">title<" in page
    answer = await ui.get(f"{PAGE}/tries/1/files/a_{run_id[3:]}0")
    assert "invoice_fdp.exe" in answer.headers["content-disposition"]
    assert "%E2%80%AE" not in answer.headers["content-disposition"] + page


async def test_what_was_typed_and_secret_parameters_are_hidden(ui: Ui, skyvern: FakeSkyvern) -> None:
    typed = {"action_type": "input_text", "text": "hunter2!", "intention": "Type hunter2! as the password"}
    run_id = started(
        skyvern,
        plan=("running", "failed"),
        failure_reason="The page refused hunter2! and s3cr3t-value and the key abcd1234",
        blocks=[block("sign_in", actions=[typed], description="with s3cr3t-value")],
    )
    skyvern.runs[run_id].parameters.update(
        user="demo", password="s3cr3t-value", api_key="abcd1234", login={"user": "demo", "passwd": "nested-one"}
    )
    add_task(xcoms={"run_id": run_id})
    page = (await ui.get(PAGE)).text
    assert "demo" in page
    assert "The page refused *** and *** and the key ***" in page
    for secret in ("hunter2!", "s3cr3t-value", "abcd1234", "nested-one", API_KEY):
        assert secret not in page


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ({"state": None, "try_number": 0}, "Try 1 has not started a run yet."),
        ({"state": "running"}, "Try 1 has not started a run yet."),
        ({"state": "queued", "xcoms": {"run_id": "wr_of_the_try_before"}}, "Try 1 has not started a run yet."),
        ({"state": "failed"}, "Try 1 has started no run, or Airflow no longer knows which."),
        ({"state": "upstream_failed"}, "The task did not run, as one before it failed."),
        ({"operator": "BashOperator", "conn_id": None}, "This task has run nothing in Skyvern."),
        (
            {"operator": "DatabricksOperator", "conn_id": None, "xcoms": {"run_id": "1"}},
            "This task has run nothing in Skyvern.",
        ),
    ],
)
async def test_a_page_without_a_run_says_why(ui: Ui, task: dict[str, Any], sentence: str) -> None:
    add_task(**task)
    answer = await ui.get(PAGE)
    assert answer.status_code == 200
    assert sentence in answer.text


@pytest.mark.slow
async def test_a_page_says_what_is_wrong_with_skyvern(ui: Ui, skyvern: FakeSkyvern, connect: Connect) -> None:
    add_task(xcoms={"run_id": started(skyvern)})
    skyvern.api_key = "another"
    assert f"Skyvern refuses the API key of the connection {CONN}." in (await ui.get(PAGE, role="op")).text
    assert "Skyvern refuses the API key of the connection of this task." in (await ui.get(PAGE)).text
    connect(password="")
    assert f"The connection {CONN} is incomplete" in (await Ui().get(PAGE, role="op")).text
    connect(host="http://127.0.0.1:9")
    assert "Skyvern does not answer at the moment. This page tries again." in (await Ui().get(PAGE)).text


@pytest.mark.slow
async def test_a_key_that_was_rotated_is_read_again(ui: Ui, skyvern: FakeSkyvern, connect: Connect) -> None:
    run_id = started(skyvern)
    add_task(xcoms={"run_id": run_id})
    await ui.reader.clients.get(CONN)
    skyvern.api_key = "rotated"
    connect(password="rotated")
    await asyncio.sleep(1.01)
    assert "completed" in (await ui.get(PAGE)).text


@pytest.mark.slow
async def test_what_does_not_exist_is_not_found(ui: Ui, skyvern: FakeSkyvern) -> None:
    add_task(xcoms={"run_id": started(skyvern)})
    for path in (
        PAGE.replace(TASK, "other"),
        PAGE.replace(RUN, "other"),
        PAGE.replace(DAG, "other"),
        PAGE.replace(DAG, "~"),
        PAGE.replace("{MAP_INDEX}", "3"),
        PAGE.replace("{MAP_INDEX}", "x"),
        PAGE.replace("{MAP_INDEX}", "1" * 20),
        PAGE.replace("{MAP_INDEX}", "-" + "1" * 20),
        PAGE.replace("{MAP_INDEX}", "1_0"),
        f"{PAGE}?try_number=7",
        f"{PAGE}?try_number=x",
        f"{PAGE}/tries/7/recording",
        "/skyvern/static/x/../app.py",
        "/skyvern/static/x/app.py",
        "/skyvern/docs",
        "/skyvern/openapi.json",
    ):
        assert (await ui.get(path, username="admin")).status_code == 404, path


@pytest.mark.slow
async def test_an_earlier_try_shows_its_own_run(ui: Ui, skyvern: FakeSkyvern) -> None:
    first, second = started(skyvern, plan=("running", "failed")), started(skyvern)
    add_task(try_number=2, xcoms={"run_id": second})
    add_earlier_try(1, {"deadline": 1.0, "skyvern": {"run_id": first, "skyvern_conn_id": CONN, "app_url": None}})
    newest, earlier = await ui.get(PAGE), await ui.get(f"{PAGE}?try_number=1")
    assert second in newest.text
    assert "Try 1" in newest.text
    assert first in earlier.text
    assert second not in earlier.text


@pytest.mark.parametrize(
    "kwargs",
    [
        {"event": {"run_id": "{}", "reason": "ended"}},
        {"__type": "dict", "__var": {"skyvern": {"__type": "dict", "__var": {"run_id": "{}", "app_url": None}}}},
    ],
)
async def test_an_earlier_try_is_found_in_whatever_airflow_has_left_of_it(
    ui: Ui, skyvern: FakeSkyvern, kwargs: dict[str, Any]
) -> None:
    run_id = started(skyvern, plan=("running", "failed"))
    add_task(try_number=2)
    add_earlier_try(1, json.loads(json.dumps(kwargs).replace("{}", run_id)))
    assert run_id in (await ui.get(f"{PAGE}?try_number=1")).text


@pytest.mark.slow
async def test_an_earlier_try_that_airflow_has_forgotten_is_found_by_its_tag(ui: Ui, skyvern: FakeSkyvern) -> None:
    tag = {"airflow_task_key": task_tag(DAG, RUN, TASK, -1, "")}
    first, second = started(skyvern, tags={**TAGS, **tag}), started(skyvern, tags={**TAGS, **tag})
    started(skyvern, tags=TAGS)
    add_task(try_number=3, xcoms={"run_id": second})
    add_earlier_try(1, None, ended_at=skyvern.runs[first].created_at + timedelta(seconds=0.5))
    add_earlier_try(2, None, ended_at=skyvern.runs[first].created_at - timedelta(seconds=1))
    assert first in (await ui.get(f"{PAGE}?try_number=1")).text
    assert "Try 2 has started no run" in (await ui.get(f"{PAGE}?try_number=2")).text
    assert (await ui.get(f"{PAGE}/tries/2/recording")).status_code == 404


async def test_an_active_run_is_refreshed_and_shows_its_newest_picture(ui: Ui, skyvern: FakeSkyvern) -> None:
    click = {"action_type": "click", "screenshot": 0}
    run_id = started(
        skyvern,
        plan=("running",),
        blocks=[block("sign_in", status="running", actions=[click])],
        media=[Media("screenshot_action", PNG, label="sign_in")],
    )
    add_task(state="deferred", xcoms={"run_id": run_id})
    page = (await ui.get(PAGE)).text
    assert 'data-refresh="5"' in page
    assert page.count(f"/tries/1/pictures/a_{run_id[3:]}0") == 2


@pytest.mark.slow
async def test_fifty_viewers_cost_as_much_as_one(ui: Ui, skyvern: FakeSkyvern) -> None:
    run_id = started(skyvern, plan=("running",))
    add_task(state="deferred", xcoms={"run_id": run_id})
    answers = await asyncio.gather(*(ui.get(PAGE) for _ in range(50)))
    assert all(run_id in answer.text for answer in answers)
    assert len(skyvern.requests) == 3  # its tags, the run, its timeline


async def test_a_server_without_tags_shows_what_the_xcom_says(ui: Ui, skyvern: FakeSkyvern) -> None:
    run_id = started(skyvern, tags={})
    add_task(xcoms={"run_id": run_id})
    skyvern.next("GET", "/v1/run-tags", httpx.Response(404, json={"detail": "Not Found"}))
    assert "completed" in (await ui.get(PAGE)).text


async def test_a_mapped_task_has_its_own_page(ui: Ui, skyvern: FakeSkyvern) -> None:
    runs = [started(skyvern), started(skyvern)]
    for index, run_id in enumerate(runs):
        add_task(map_index=index, xcoms={"run_id": run_id})
    page = (await ui.get(PAGE.replace("{MAP_INDEX}", "1"))).text
    assert runs[1] in page
    assert runs[0] not in page


LOG = "The output does not match output_schema: total: must be a number."
"""What a task says at its end, in its log."""


def raised(kind: str, said: str, event: str = "Task failed with exception") -> dict[str, Any]:
    return {"event": event, "level": "error", "error_detail": [{"exc_type": kind, "exc_value": said}]}


WAYS = {
    "timed out": (
        ({"plan": ("running", "canceled")}),
        raised("SkyvernWaitTimeout", "The run did not end within 3600 s, and was canceled."),
        "The task failed, and its run was canceled.",
        "The run did not end within 3600 s, and was canceled.",
    ),
    "wrong key": (
        None,
        raised("AirflowFailException", "Skyvern refuses the API key (403)."),
        "The task failed.",
        "Skyvern refuses the API key (403).",
    ),
    "contract": (
        {},
        raised("AirflowFailException", LOG),
        "The task failed, although its run completed.",
        LOG,
    ),
    "files": (
        {},
        raised("AirflowFailException", "Expected 2 files, the run downloaded 1."),
        "The task failed, although its run completed.",
        "Expected 2 files, the run downloaded 1.",
    ),
    "rejected": (
        {"plan": ("running", "canceled")},
        raised("AirflowFailException", "Skyvern run wr_1: eve rejected it in Airflow (Stop)."),
        "The task failed, and its run was canceled.",
        "eve rejected it in Airflow (Stop).",
    ),
    "execution_timeout": (
        {"plan": ("running", "canceled")},
        raised("AirflowTaskTimeout", "Timeout, PID: 7"),
        "The task failed, and its run was canceled.",
        "The task took longer than its execution_timeout.",
    ),
    "killed": (
        {"plan": ("running",)},
        {"event": "Process was killed", "level": "error"},
        "its run is running.",
        "killed",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("page", [PAGE, DAG_RUN])
async def test_a_red_task_says_why_where_its_run_does_not(ui: Ui, skyvern: FakeSkyvern, way: str, page: str) -> None:
    workflow, line, what, reason = WAYS[way]
    run_id = None if workflow is None else started(skyvern, **workflow)
    add_task(state="failed", xcoms={"run_id": run_id} if run_id else {})
    write_log([{"event": "Starting", "level": "info"}, line, {"event": "Post", "level": "info"}])
    text = (await ui.get(page)).text
    assert reason in text
    if page == PAGE:
        assert what in text
        assert f'data-airflow="dags/{DAG}/runs/{quote(RUN, safe="")}/tasks/{TASK}?try_number=1"' in text


@pytest.mark.slow
async def test_a_run_that_failed_by_itself_is_reason_enough(ui: Ui, skyvern: FakeSkyvern) -> None:
    run_id = started(skyvern, plan=("running", "failed"), failure_reason="The portal is closed.")
    add_task(state="failed", xcoms={"run_id": run_id})
    write_log([raised("SkyvernRunFailed", "the same in other words")])
    page = (await ui.get(PAGE)).text
    assert "The portal is closed." in page
    assert "the same in other words" not in page
    assert "The portal is closed." in (await ui.get(DAG_RUN)).text


@pytest.mark.slow
async def test_each_try_says_its_own_reason(ui: Ui, skyvern: FakeSkyvern) -> None:
    add_task(state="failed", try_number=2)
    add_earlier_try(1, None)
    write_log([raised("AirflowFailException", "first reason")], try_number=1)
    write_log([raised("AirflowFailException", "second reason")], try_number=2)
    assert "second reason" in (await ui.get(PAGE)).text
    assert "first reason" in (await ui.get(f"{PAGE}?try_number=1")).text


@pytest.mark.slow
async def test_a_skipped_task_says_why(ui: Ui, skyvern: FakeSkyvern) -> None:
    add_task(state="skipped", xcoms={"run_id": started(skyvern, plan=("running", "canceled"))})
    write_log([{"event": "Skipping task.", "level": "info", "reason": "canceled by eve"}])
    page = (await ui.get(PAGE)).text
    assert "The task was skipped, and its run was canceled." in page
    assert "canceled by eve" in page


@pytest.mark.parametrize("page", [PAGE, DAG_RUN])
async def test_the_reason_is_for_those_who_may_read_the_log(ui: Ui, skyvern: FakeSkyvern, page: str) -> None:
    add_task(state="failed")
    write_log([raised("AirflowFailException", LOG)])
    answer = await ui.get(page, username="nolog")
    assert answer.status_code == 200
    assert LOG not in answer.text
    assert LOG in (await ui.get(page)).text


@pytest.mark.slow
async def test_a_reason_from_the_log_is_text_and_masked(ui: Ui, skyvern: FakeSkyvern) -> None:
    actions = [fills("hunter2!", PASSWORD_FIELD)]
    run_id = started(skyvern, plan=("running", "canceled"), blocks=[block("a", actions=actions)])
    add_task(state="failed", xcoms={"run_id": run_id})
    said = f"{EVIL} hunter2! Authorization: Bearer abcdefghijk1"
    write_log([raised("AirflowFailException", said)])
    page = (await ui.get(PAGE)).text
    assert page.count("<script") == 1
    assert "hunter2!" not in page
    assert "abcdefghijk1" not in page
    assert "&lt;img src=x onerror=alert(2)&gt; *** Authorization: ***" in page


async def test_a_log_that_cannot_be_read_leaves_its_link(ui: Ui, skyvern: FakeSkyvern) -> None:
    add_task(state="failed")
    page = (await ui.get(PAGE)).text
    assert "The task failed." in page
    assert "Airflow gives no reason here." in page
    assert "Log of try 1" in page


async def test_a_log_that_takes_long_is_there_with_the_next_refresh(
    ui: Ui, skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_log, "PATIENCE", 0.0)
    add_task(state="failed")
    write_log([raised("AirflowFailException", LOG)])
    page = (await ui.get(PAGE)).text
    assert "Its log is being read." in page
    assert 'data-refresh="5"' in page
    monkeypatch.setattr(task_log, "PATIENCE", 5.0)
    assert LOG in (await ui.get(PAGE)).text


def test_what_airflow_calls_the_reason_counts_most() -> None:
    lines = [
        raised("ValueError", "of a callback", "callback failed"),
        raised("SkyvernRunFailed", "the reason"),
        raised("KeyError", "of a listener", "error calling listener"),
        {"event": "something else", "level": "error"},
    ]
    assert task_log.error_in([StructuredLogMessage(**line) for line in lines]) == "the reason"
    del lines[1]
    assert task_log.error_in([StructuredLogMessage(**line) for line in lines]) == "KeyError: of a listener"
    assert task_log.error_in([StructuredLogMessage(**lines[-1])]) == "something else"
    assert task_log.error_in([StructuredLogMessage(event="all is well")]) == ""


@pytest.mark.slow
async def test_while_skyvern_is_away_the_page_shows_what_is_known(
    ui: Ui, skyvern: FakeSkyvern, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = started(skyvern, plan=("running",))
    address = f"https://skyvern.test/runs/{run_id}"
    add_task(state="deferred", xcoms={"run_id": run_id, "app_url": address})
    monkeypatch.setattr("airflow_skyvern.ui.reader.ACTIVE_TTL", 0.0)
    assert "Running for" in (await ui.get(PAGE)).text
    skyvern.next("GET", f"/v1/runs/{run_id}", httpx.Response(503))
    page = (await ui.get(PAGE, role="op")).text
    for known in (run_id, f'href="{address}"', "running", "as of", f"<dt>Connection</dt><dd>{CONN}</dd>"):
        assert known in page
    assert "Skyvern does not answer at the moment." in page


async def test_what_the_trigger_has_reported_last_is_known_without_skyvern(ui: Ui, connect: Connect) -> None:
    connect(host="http://127.0.0.1:9")
    add_task(state="failed", next_kwargs={"event": {"run_id": "wr_1", "reason": "ended", "status": "timed_out"}})
    page = (await ui.get(PAGE)).text
    assert "timed out" in page
    assert "wr_1" in page


@pytest.mark.slow
async def test_the_last_status_of_another_dags_run_is_for_its_readers(ui: Ui, skyvern: FakeSkyvern) -> None:
    run_id = started(skyvern, plan=("paused",), tags={**TAGS, "airflow_dag_id": SECRET_DAG})
    add_dag_run(SECRET_DAG)
    add_task(operator="SkyvernRunSensor", state="deferred", rendered={"run_id": run_id})
    assert "paused" in (await ui.get(PAGE, username="admin")).text
    skyvern.api_key = "another"
    await ui.reader.clients.get(CONN)
    ui.reader._pages = type(ui.reader._pages)(lambda _: 0.0)
    assert "paused" in (await ui.get(PAGE, username="admin")).text
    assert "paused" not in (await ui.get(PAGE)).text


@pytest.mark.slow
@pytest.mark.parametrize("failing", ["/v1/runs/.*", "/v1/runs/[^/]+/artifacts", "/v1/artifacts/.*", "/v1/run-tags"])
@pytest.mark.parametrize("path", ["pictures/{}", "recording", "files/{}"])
async def test_media_that_skyvern_does_not_give_are_no_error_of_airflow(
    ui: Ui, skyvern: FakeSkyvern, connect: Connect, failing: str, path: str
) -> None:
    media = [Media("screenshot_final", PNG), Media("recording", WEBM), Media("download", b"x", name="x")]
    run_id = started(skyvern, media=media)
    add_task(xcoms={"run_id": run_id})
    skyvern.next("GET", failing, httpx.Response(503))
    number = {"p": 0, "r": 1, "f": 2}[path[0]]
    answer = await ui.get(f"{PAGE}/tries/1/{path.format(f'a_{run_id[3:]}{number}')}", accept="*/*")
    if answer.status_code == 200:  # this medium needs no such request
        skyvern._scripts.clear()
    else:
        assert answer.status_code == 502
        assert answer.json()["detail"] in (
            "Skyvern does not answer at the moment. This page tries again.",
            "Skyvern does not give it out (status 503).",
        )


@pytest.mark.slow
async def test_the_connections_address_leads_to_skyvern(ui: Ui, skyvern: FakeSkyvern, connect: Connect) -> None:
    """Of a self-hosted server, whose own word for it leads nowhere; also where it was set after the run."""
    connect(extra={"app_url": "https://skyvern.acme.test"})
    run_id = started(skyvern)
    add_task(xcoms={"run_id": run_id, "app_url": f"http://localhost:8080/runs/{run_id}"})
    for page in (PAGE, DAG_RUN):
        text = (await ui.get(page)).text
        assert f'href="https://skyvern.acme.test/runs/{run_id}"' in text
        assert "localhost:8080" not in text


@pytest.mark.slow
async def test_the_name_of_a_connection_is_for_those_who_may_read_it(ui: Ui, skyvern: FakeSkyvern) -> None:
    add_task(xcoms={"run_id": started(skyvern)})
    assert CONN not in (await ui.get(PAGE)).text
    assert f"<dt>Connection</dt><dd>{CONN}</dd>" in (await ui.get(PAGE, role="op")).text


@pytest.mark.slow
async def test_each_run_of_an_agents_tool_calls_has_its_page(ui: Ui, skyvern: FakeSkyvern) -> None:
    runs = [started(skyvern, title=f"Call {number}", media=[Media("screenshot_final", PNG)]) for number in (0, 1)]
    calls = [{"skyvern_conn_id": CONN, "group": "g", "run_id": run_id, "agent": "wpid_1"} for run_id in runs]
    note = {"skyvern_conn_id": CONN, "group": "g", "calls": [*calls, {"skyvern_conn_id": CONN, "group": "h"}]}
    add_task(
        rendered={}, operator="AgentOperator", xcoms={"connection_and_run_key": note, "run_id": "the agent's own"}
    )
    newest = (await ui.get(PAGE)).text
    assert "has not started a run yet" in newest or "started no run" in newest
    assert "not started yet</a>" in newest
    for number in (0, 1):
        page = (await ui.get(f"{PAGE}?call={number}")).text
        assert f"Call {number}" in page
        assert f'call={number}" aria-current="page"' in page
        assert all(run_id in page for run_id in runs)
        mine, other = (f"a_{runs[one][3:]}0" for one in (number, 1 - number))
        assert (await ui.get(f"{PAGE}/tries/1.{number}/pictures/{mine}")).status_code == 200
        assert (await ui.get(f"{PAGE}/tries/1.{number}/pictures/{other}")).status_code == 404
    assert (await ui.get(f"{PAGE}?call=3")).status_code == 404
    assert (await ui.get(f"{PAGE}?call=x")).status_code == 404
