"""The tab of a DAG run and the page in the menu, over Airflow's real authorization, and the fake for Skyvern."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.compat import since_3_1

if not since_3_1.shows_external_views():
    pytest.skip("pages of plugins came with Airflow 3.1", allow_module_level=True)

from airflow.models.connection import Connection
from airflow.models.team import Team
from airflow.utils.session import create_session
from fastapi import FastAPI

from airflow_skyvern.runs.key import READABLE_TAGS
from airflow_skyvern.ui.access import CHANGE
from tests.support.ui_rig import (
    CONN,
    DAG,
    OUR_PAGE,
    PAGE,
    RUN,
    SECRET_DAG,
    TASK,
    Ui,
    add_dag_run,
    add_earlier_try,
    add_serialized_dag,
    add_task,
    write_log,
)
from tests.support.xcom_backends import BACKENDS, FolderXCom

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

DAG_RUN = f"/skyvern/dag_run/{DAG}/{RUN}"
RUNS = "/skyvern/runs"


def failure(said: str) -> dict[str, Any]:
    detail = [{"exc_type": "AirflowFailException", "exc_value": said}]
    return {"event": "Task failed with exception", "level": "error", "error_detail": detail}


ANNOUNCED = {"connection_and_run_key": {"skyvern_conn_id": CONN, "group": "g"}}


def started(
    skyvern: FakeSkyvern, task: str = TASK, *, dag_id: str = DAG, run_id: str = RUN, plan: str = "completed"
) -> str:
    """Start a run as a task does."""
    skyvern_id = skyvern.run(plan=(plan,), title=f"for {task}")
    skyvern.runs[skyvern_id].tags.update(zip(READABLE_TAGS, (dag_id, task, run_id), strict=True))
    skyvern.runs[skyvern_id].look()
    return skyvern_id


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
async def test_all_pages_read_xcoms_through_the_configured_backend(
    ui: Ui, skyvern: FakeSkyvern, backend: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("airflow.sdk.execution_time.xcom.XCom", backend)
    monkeypatch.setenv("XCOM_FOLDER", str(tmp_path))
    run_id = started(skyvern)
    add_task(xcoms={"run_id": run_id, **ANNOUNCED}, conn_id=None, backend=backend)
    for path in (PAGE, DAG_RUN, RUNS):
        assert run_id in (await ui.get(path)).text


@pytest.mark.parametrize("path", [PAGE, DAG_RUN, RUNS])
async def test_a_backend_that_cannot_read_here_leaves_a_page_without_the_run(
    ui: Ui, skyvern: FakeSkyvern, path: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("airflow.sdk.execution_time.xcom.XCom", FolderXCom)
    add_task(xcoms={"run_id": "/gone", **ANNOUNCED}, conn_id=None)
    page = await ui.get(path)
    assert page.status_code == httpx.codes.OK
    assert "/gone" not in page.text
    assert "Could not read XCom" in caplog.text


@pytest.mark.slow
async def test_a_dag_run_shows_the_runs_of_its_tasks_with_one_request_for_all(ui: Ui, skyvern: FakeSkyvern) -> None:
    runs = {"fetch": started(skyvern), "fail": started(skyvern, "fail", plan="terminated")}
    for task_id, run_id in runs.items():
        add_task(task_id=task_id, xcoms={"run_id": run_id, **ANNOUNCED})
    mapped = started(skyvern, "each[3]", plan="running")
    add_task(task_id="each", map_index=3, state="deferred", xcoms={"run_id": mapped})
    add_task(task_id="bash", operator="BashOperator", conn_id=None, xcoms={"run_id": "not ours"})
    page = (await ui.get(DAG_RUN)).text
    assert page.count("<tr>") == 1 + 3
    for text in ("terminated", "completed", "running", "deferred", mapped, *runs.values()):
        assert text in page
    assert "tasks/each/mapped/3/plugin/skyvern" in page
    assert "not ours" not in page
    paths = [seen.path for seen in skyvern.requests]
    assert paths[:2] == ["/v1/runs", "/v1/run-tags"]
    assert all(runs["fail"] in path for path in paths[2:])  # why it failed


@pytest.mark.skipif(hasattr(Team, "id"), reason="connections belong to teams since Airflow 3.2")
@pytest.mark.parametrize("was_seen", [False, True], ids=["never seen", "seen before"])
async def test_a_dag_run_shows_nothing_on_the_connection_of_another_team(
    ui: Ui, skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch, was_seen: bool
) -> None:
    """Not even what this process has read for the DAGs of that team."""
    run_id = skyvern.run(plan=("terminated",))
    add_task(conn_id="of_others", xcoms={"run_id": run_id})
    given = os.environ["AIRFLOW_CONN_SKYVERN_DEFAULT"]
    if was_seen:
        monkeypatch.setenv("AIRFLOW_CONN_OF_OTHERS", given)
        assert "terminated" in (await ui.get(DAG_RUN)).text
        monkeypatch.delenv("AIRFLOW_CONN_OF_OTHERS")
    skyvern.requests.clear()
    monkeypatch.setenv("AIRFLOW__CORE__MULTI_TEAM", "True")
    monkeypatch.setenv("AIRFLOW_CONN__OTHERS___OF_OTHERS", given)
    with create_session() as session:
        session.merge(Team(name="others"))
    page = (await ui.get(DAG_RUN)).text
    assert TASK in page
    assert run_id not in page
    assert "terminated" not in page
    assert skyvern.requests == []


@pytest.mark.slow
async def test_a_dag_run_lists_every_skyvern_task_with_its_state(ui: Ui, skyvern: FakeSkyvern) -> None:
    add_task(task_id="good", xcoms={"run_id": started(skyvern, "good")})
    add_task(task_id="wrong_key", state="failed")
    write_log([failure("Skyvern refuses the API key.")], task_id="wrong_key")
    add_task(task_id="before", state="upstream_failed", conn_id=None)
    add_task(task_id="waits", state="scheduled", conn_id=None)
    add_task(task_id="bash", state="failed", operator="BashOperator", conn_id=None)
    page = (await ui.get(DAG_RUN)).text
    assert page.count("<tr>") == 1 + 4
    for text in (
        "Skyvern refuses the API key.",
        "The task did not run, as one before it failed.",
        "scheduled",
        "failed",
    ):
        assert text in page
    assert "bash" not in page


@pytest.mark.slow
async def test_a_subclass_that_failed_before_anything_is_listed(ui: Ui, skyvern: FakeSkyvern) -> None:
    """Its class has another name, and its templates were not rendered; but Airflow knows its arguments."""
    add_task(task_id="invoices", state="failed", operator="InvoiceOperator", conn_id=None)
    add_task(task_id="bash", state="failed", operator="BashOperator", conn_id=None)
    mine = {"task_id": "invoices", "template_fields": ["workflow_id", "skyvern_conn_id"]}
    bash = {"task_id": "bash", "template_fields": ["bash_command"]}
    add_serialized_dag([{"__type": "operator", "__var": task} for task in (mine, bash)])
    page = (await ui.get(DAG_RUN)).text
    assert "tasks/invoices/plugin/skyvern" in page
    assert "tasks/bash" not in page
    assert "has run nothing in Skyvern" not in (await ui.get(PAGE.replace(TASK, "invoices"))).text


@pytest.mark.slow
async def test_while_skyvern_is_away_a_dag_run_shows_what_is_known(ui: Ui, skyvern: FakeSkyvern) -> None:
    run_id = started(skyvern, plan="paused")
    add_task(state="deferred", xcoms={"run_id": run_id, "app_url": "https://skyvern.test/runs/1"})
    assert run_id in (await ui.get(PAGE)).text
    skyvern.api_key = "another"
    page = (await ui.get(DAG_RUN)).text
    for known in (run_id, "paused", "deferred", 'href="https://skyvern.test/runs/1"'):
        assert known in page


async def test_a_large_dag_run_shows_what_failed(
    ui: Ui, skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_skyvern.ui.dag_run.MOST_TASKS", 2)
    for index in range(3):
        add_task(task_id="each", map_index=index, state="failed" if index == 2 else "success")
    page = (await ui.get(DAG_RUN)).text
    assert "mapped/2/" in page
    assert "1 more tasks are not shown." in page


@pytest.mark.parametrize(
    ("app_url", "is_link"),
    [("https://skyvern.test/runs/1", True), ("javascript:alert(1)", False), ({"a": 1}, False), (None, False)],
)
async def test_a_dag_run_links_to_skyvern(ui: Ui, skyvern: FakeSkyvern, app_url: Any, *, is_link: bool) -> None:
    add_task(xcoms={"run_id": started(skyvern), "app_url": app_url})
    page = (await ui.get(DAG_RUN)).text
    assert (f'<a href="{app_url}" data-outside' in page) == is_link
    assert "javascript" not in page


async def test_a_dag_run_tells_nothing_of_runs_that_an_edited_xcom_names(ui: Ui, skyvern: FakeSkyvern) -> None:
    other = started(skyvern, dag_id=SECRET_DAG, plan="failed")
    add_task(xcoms={"run_id": other})
    page = (await ui.get(DAG_RUN)).text
    assert other in page
    assert "failed" not in page


async def test_a_server_that_ignores_the_filter_tells_nothing_more(ui: Ui, skyvern: FakeSkyvern) -> None:
    other = started(skyvern, dag_id=SECRET_DAG, plan="failed")
    add_task(xcoms={"run_id": other})
    row = {"run_id": other, "status": "failed", "created_at": "2026-11-22T20:00:00"}
    skyvern.next("GET", "/v1/runs", httpx.Response(200, json=[row]))
    assert "failed" not in (await ui.get(DAG_RUN)).text


@pytest.mark.slow
async def test_a_dag_run_shows_the_runs_that_sensors_wait_for(ui: Ui, skyvern: FakeSkyvern) -> None:
    waited_for = started(skyvern, run_id="another run", plan="terminated")
    add_task(xcoms={"run_id": waited_for}, operator="SkyvernRunSensor")
    assert "terminated" in (await ui.get(DAG_RUN)).text


async def test_a_dag_run_without_runs_and_without_skyvern(ui: Ui, skyvern: FakeSkyvern) -> None:
    add_dag_run()
    assert "No task of this DAG run has started a run in Skyvern." in (await ui.get(DAG_RUN)).text
    add_task(xcoms={"run_id": started(skyvern)})
    skyvern.api_key = "another"
    page = (await ui.get(DAG_RUN)).text
    assert "Skyvern refuses the API key of the connection of this task." in page
    assert TASK in page
    assert f"of the connection {CONN}." in (await ui.get(DAG_RUN, role="op")).text


async def test_a_dag_run_is_for_readers_of_its_dag(ui: Ui, skyvern: FakeSkyvern) -> None:
    add_dag_run(SECRET_DAG)
    path = f"/skyvern/dag_run/{SECRET_DAG}/{RUN}"
    statuses = {user: (await ui.get(path, username=user)).status_code for user in (None, "eve", "mallory", "admin")}
    assert statuses == {None: 401, "eve": 403, "mallory": 403, "admin": 200}
    assert (await ui.get(f"/skyvern/dag_run/{DAG}/other")).status_code == 404
    assert skyvern.requests == []


@pytest.mark.slow
async def test_the_menu_shows_the_runs_of_dags_that_the_user_may_read(ui: Ui, skyvern: FakeSkyvern) -> None:
    mine, secret = started(skyvern), started(skyvern, dag_id=SECRET_DAG)
    elsewhere, untagged = started(skyvern, dag_id="of_another_airflow"), skyvern.run()
    add_task(xcoms=ANNOUNCED)
    add_task(dag_id=SECRET_DAG, xcoms=ANNOUNCED)
    for user, shown in (("eve", {mine}), ("admin", {mine, secret}), ("mallory", set())):
        page = (await ui.get(RUNS, username=user)).text
        assert {run_id for run_id in (mine, secret, elsewhere, untagged) if run_id in page} == shown
    assert (await ui.get(RUNS, username=None)).status_code == 401


@pytest.mark.slow
async def test_the_menu_asks_each_connection_once_for_all_viewers(ui: Ui, skyvern: FakeSkyvern) -> None:
    started(skyvern)
    add_task(xcoms=ANNOUNCED)
    for user in ("eve", "admin", "eve"):
        await ui.get(RUNS, username=user)
    assert [seen.path for seen in skyvern.requests] == ["/v1/runs", "/v1/run-tags"]


async def test_a_connection_that_no_task_has_announced_is_found_in_the_database(ui: Ui, skyvern: FakeSkyvern) -> None:
    run_id = started(skyvern)
    add_task()
    assert run_id not in (await ui.get(RUNS)).text
    with create_session() as session:
        session.add(Connection(conn_id=CONN, conn_type="skyvern"))
    assert run_id in (await ui.get(RUNS)).text
    with create_session() as session:
        session.query(Connection).delete()


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", ["fetch", "fail"]),
        ("?status=completed", ["fetch"]),
        ("?status=nonsense", ["fetch", "fail"]),
        (f"?dag={DAG}", ["fetch", "fail"]),
        ("?dag=other", []),
        ("?workflow=wpid_0", []),
    ],
)
async def test_the_menu_filters(ui: Ui, skyvern: FakeSkyvern, query: str, shown: list[str]) -> None:
    runs = {"fetch": started(skyvern), "fail": started(skyvern, "fail", plan="terminated")}
    add_task(xcoms=ANNOUNCED)
    page = (await ui.get(RUNS + query)).text
    assert [name for name, run_id in runs.items() if run_id in page] == shown


async def test_a_filter_is_text(ui: Ui, skyvern: FakeSkyvern) -> None:
    page = (await ui.get(f"{RUNS}?dag=\"><script>alert(1)</script>&workflow='x")).text
    assert page.count("<script") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("?dag=INVOI", ["fetch", "fail"]),
        ("?task=etc", ["fetch"]),
        ("?task=f", ["fetch", "fail"]),
        ("?workflow=for fail", ["fail"]),
        ("?workflow=for%20FETCH&dag=inv", ["fetch"]),
        ("?sort=task&order=asc", ["fail", "fetch"]),
        ("?sort=task&order=desc", ["fetch", "fail"]),
        ("?sort=status&order=asc", ["fetch", "fail"]),
        ("?sort=started", ["fail", "fetch"]),
        ("?sort=nonsense&page=-1&order=x", ["fail", "fetch"]),
        ("?page=99999", ["fail", "fetch"]),
    ],
)
async def test_the_menu_searches_by_part_and_sorts(
    ui: Ui, skyvern: FakeSkyvern, query: str, shown: list[str]
) -> None:
    runs = {"fetch": started(skyvern), "fail": started(skyvern, "fail", plan="terminated")}
    add_task(xcoms=ANNOUNCED)
    page = (await ui.get(RUNS + query)).text
    found = sorted((name for name in runs if runs[name] in page), key=lambda name: page.index(runs[name]))
    assert found == shown if "sort" in query or "page" in query else sorted(found) == sorted(shown)


async def test_the_menu_says_why_a_run_failed(ui: Ui, skyvern: FakeSkyvern) -> None:
    run_id = skyvern.run(plan=("failed",), failure_reason="The portal is closed.")
    skyvern.runs[run_id].tags.update(zip(READABLE_TAGS, (DAG, TASK, RUN), strict=True))
    skyvern.runs[run_id].look()
    add_task(xcoms=ANNOUNCED)
    assert "The portal is closed." in (await ui.get(RUNS)).text


@pytest.mark.slow
async def test_no_run_is_out_of_reach(ui: Ui, skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others' runs fill the organization's newest pages: the search goes on behind them, page by page."""
    monkeypatch.setattr("airflow_skyvern.ui.newest_runs.PAGES_AT_ONCE", 2)
    oldest = started(skyvern)
    for _ in range(250):
        skyvern.run()
    add_task(xcoms=ANNOUNCED)
    first = (await ui.get(RUNS)).text
    assert oldest not in first
    assert "Of the runs 1 to 200 of Skyvern none fits." in first
    assert 'href="?page=3">Older<' in first
    second = (await ui.get(f"{RUNS}?page=3")).text
    assert oldest in second
    assert 'href="?">Newest<' in second
    assert "Older<" not in second


async def test_rows_of_earlier_tries_open_their_tries(ui: Ui, skyvern: FakeSkyvern) -> None:
    runs = [started(skyvern) for _ in range(3)]
    for number, run_id in enumerate(runs):
        skyvern.runs[run_id].created_at += timedelta(minutes=number)
    at = [skyvern.runs[run_id].created_at for run_id in runs]
    add_task(try_number=3, xcoms={"run_id": runs[2], **ANNOUNCED}, start_date=at[2])
    add_earlier_try(1, {"skyvern": {"run_id": runs[0], "skyvern_conn_id": CONN}}, start_date=at[0])
    add_earlier_try(2, None, start_date=at[1])
    page = (await ui.get(RUNS)).text
    rows = {run_id: page[: page.index(run_id)].rsplit("try_number=", 1)[1][0] for run_id in runs}
    assert rows == {runs[0]: "1", runs[1]: "2", runs[2]: "3"}


@pytest.fixture
def acting(ui: Ui) -> Ui:
    """An app with a route that changes something, as the page's buttons need it."""
    app = FastAPI()
    app.add_api_route("/act/{dag_id}", lambda dag_id: "done", methods=["POST"], dependencies=CHANGE)
    ui.airflow.mount("/acting", app)
    return ui


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (OUR_PAGE, 200),
        ({"x-skyvern-page": "1", "origin": "http://airflow.test"}, 200),
        ({}, 403),
        ({"sec-fetch-site": "same-origin"}, 403),
        ({"x-skyvern-page": "1"}, 403),
        ({"x-skyvern-page": "1", "origin": "http://airflow.test:8081"}, 403),
        ({"x-skyvern-page": "1", "origin": "null"}, 403),
        ({"x-skyvern-page": "1", "sec-fetch-site": "same-site", "origin": "http://airflow.test"}, 403),
        ({"x-skyvern-page": "1", "sec-fetch-site": "cross-site", "origin": "http://airflow.test"}, 403),
    ],
)
async def test_only_our_own_page_can_change_something(acting: Ui, headers: dict[str, str], status: int) -> None:
    async with acting.client("admin", role="user") as client:
        assert (await client.post(f"/acting/act/{DAG}", headers=headers)).status_code == status


async def test_only_who_may_mark_a_task_can_change_something(acting: Ui) -> None:
    for user, role, dag_id, status in (
        ("eve", "user", DAG, 200),
        ("eve", "viewer", DAG, 403),
        ("eve", "user", SECRET_DAG, 403),
        ("eve", "user", "~", 404),
        ("mallory", "user", DAG, 403),
        (None, "", DAG, 401),
    ):
        async with acting.client(user, role=role) as client:
            assert (await client.post(f"/acting/act/{dag_id}", headers=OUR_PAGE)).status_code == status


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1.0.40", "1.0.45"])
async def test_an_old_server_shows_the_page_of_a_paused_run_and_says_why_no_runs_are_listed(
    ui: Ui, skyvern: FakeSkyvern, version: str
) -> None:
    skyvern.version = version
    run_id = started(skyvern, plan="paused")
    add_task(xcoms={"run_id": run_id, **ANNOUNCED})
    page = await ui.get(PAGE)
    assert (page.status_code, run_id in page.text, "paused" in page.text) == (200, True, True)
    assert run_id in (await ui.get(DAG_RUN)).text
    listed = (await ui.get(RUNS)).text
    assert run_id not in listed
    assert "A Skyvern without run tags does not say whose its runs are: they came with version 1.0.48" in listed
