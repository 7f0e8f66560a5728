"""The field for a code that a run waits for at its login, over Airflow's real authorization and database."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import sqlalchemy as sa

from airflow_skyvern.compat import since_3_1

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

if not since_3_1.shows_external_views():
    pytest.skip("pages of plugins came with Airflow 3.1", allow_module_level=True)

from airflow.models.base import Base
from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session

from airflow_skyvern.runs.login_code import code_step_of
from airflow_skyvern.task.login_code import SENT
from airflow_skyvern.testing.fake.records import Media
from airflow_skyvern.testing.fake.run_details import artifact_id, timeline
from tests.support.ui_rig import DAG, FORGED, OUR_PAGE, PAGE, RUN, TASK, Ui, add_task

CODE = "482913"
IDENTIFIER = "ops@example.com"
TOTP = "/v1/credentials/totp"
TAGS = {"airflow_dag_id": DAG, "airflow_task_id": TASK, "airflow_run_id": RUN}
LOGIN: dict[str, Any] = {"label": "sign_in", "block_type": "login", "totp_identifier": IDENTIFIER, "code": CODE}
PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


def waits(
    skyvern: FakeSkyvern, approvers: tuple[str, ...] = (), block: dict[str, Any] | None = None, **task: Any
) -> str:
    """Store a task whose run waits for a code, and its request; return the run."""
    run_id = skyvern.run(
        plan=(*["running"] * 9, "completed"), blocks=[block or LOGIN], media=[Media("screenshot_action", PNG)]
    )
    skyvern.runs[run_id].tags.update(TAGS)
    skyvern.runs[run_id].look()
    request = {
        "run_id": run_id,
        "block_id": "",
        "label": "sign_in",
        "options": [SENT],
        "step": step_of(skyvern, run_id),
    }
    kwargs = {"deadline": time.time() + 3700, "try_number": 1, "request": request}
    add_task(**{"state": "deferred", "xcoms": {"run_id": run_id}, "next_kwargs": kwargs, **task})
    with create_session() as session:
        ti_id = session.scalar(sa.select(TaskInstance.id))
        texts: dict[str, Any] = {"subject": "s", "body": "b", "params": {}, "multiple": False}
        assignees = [{"id": name, "name": name} for name in approvers]
        session.add(HITLDetail(ti_id=ti_id, options=[SENT], assignees=assignees, **texts))
    return run_id


def step_of(skyvern: FakeSkyvern, run_id: str) -> dict[str, Any]:
    from airflow_skyvern.client import api

    told = json.dumps(timeline(skyvern.runs[run_id])).encode()
    step = code_step_of(api.get_run_timeline(run_id).parse(told))
    assert step is not None
    return step.stored()


def stored() -> Any:
    """Return the answer that Airflow has stored, and who gave it."""
    with create_session() as session:
        detail = session.scalars(sa.select(HITLDetail)).one()
        return (detail.chosen_options, detail.responded_by_user_name) if detail.response_received else None


def whole_database() -> str:
    """Return all that Airflow's database holds, as a text."""
    with create_session() as session:
        known = set(sa.inspect(session.get_bind()).get_table_names())
        tables = [table for table in Base.metadata.sorted_tables if table.name in known]
        return repr([session.execute(sa.select(table)).all() for table in tables])


async def answer_to(
    ui: Ui, code: Any, user: str | None = "eve", role: str = "user", **headers: str
) -> httpx.Response:
    async with ui.client(user, role=role) as client:
        return await client.post(
            f"{PAGE}/code", json={"code": code}, headers={"accept": "*/*", **(headers or OUR_PAGE)}
        )


async def post(ui: Ui, code: Any, user: str | None = "eve", role: str = "user", **headers: str) -> int:
    return (await answer_to(ui, code, user, role, **headers)).status_code


@pytest.mark.slow
async def test_a_code_goes_to_skyvern_for_this_run_and_expires_soon(ui: Ui, skyvern: FakeSkyvern) -> None:
    run_id = waits(skyvern)
    assert await post(ui, "482 913") == 200
    [sent] = skyvern.sent("POST", TOTP)
    until = datetime.fromisoformat(sent.json["expired_at"]) - datetime.now(timezone.utc)
    assert timedelta(0) < until <= timedelta(seconds=30)
    assert {key: value for key, value in sent.json.items() if key != "expired_at"} == {
        "totp_identifier": IDENTIFIER,
        "content": CODE,
        "workflow_run_id": run_id,
    }
    assert stored() == ([SENT], "eve")
    assert skyvern.runs[run_id].typed == [("sign_in", CODE)]


@pytest.mark.slow
async def test_the_code_is_nowhere_in_airflow(
    ui: Ui, skyvern: FakeSkyvern, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    waits(skyvern)
    page = (await ui.get(PAGE, role="user")).text
    answer = await answer_to(ui, CODE)
    later = (await ui.get(PAGE, role="user")).text
    assert CODE not in page + answer.text + later + whole_database() + caplog.text + "".join(capfd.readouterr())


@pytest.mark.slow
async def test_who_may_send_the_code_gets_the_field(ui: Ui, skyvern: FakeSkyvern) -> None:
    waits(skyvern)
    page = (await ui.get(PAGE, role="user")).text
    assert 'autocomplete="one-time-code"' in page
    assert '<label for="code-typed">' in page
    assert f"<strong>{IDENTIFIER}</strong>" in page
    looking = (await ui.get(PAGE)).text
    assert "code-typed" not in looking
    assert IDENTIFIER not in looking
    assert "Who may edit task instances and answer required actions of this DAG can send it here." in looking


@pytest.mark.slow
async def test_only_the_approvers_get_the_field_and_may_send(ui: Ui, skyvern: FakeSkyvern) -> None:
    waits(skyvern, approvers=("alice",))
    assert "code-typed" not in (await ui.get(PAGE, role="user")).text
    assert "Only alice can send it." in (await ui.get(PAGE, role="user")).text
    assert await post(ui, CODE) == 403
    assert (skyvern.totp_codes, stored()) == ([], None)
    assert "code-typed" in (await ui.get(PAGE, username="alice", role="user")).text
    assert await post(ui, CODE, "alice") == 200


@pytest.mark.slow
async def test_the_page_says_who_has_sent_it(ui: Ui, skyvern: FakeSkyvern) -> None:
    waits(skyvern)
    await post(ui, CODE)
    page = (await ui.get(PAGE, role="user")).text
    assert f"<strong>{SENT}</strong>, by eve" in page
    assert "code-typed" not in page


@pytest.mark.slow
async def test_twice_is_sent_once(ui: Ui, skyvern: FakeSkyvern) -> None:
    waits(skyvern)
    assert (await post(ui, CODE), await post(ui, "111111")) == (200, 409)
    assert len(skyvern.totp_codes) == 1


@pytest.mark.parametrize("code", ["", "   ", None, 482913, ["482913"], "12345678901", "Your code is 482913."])
async def test_what_is_no_code_is_refused_and_not_repeated(ui: Ui, skyvern: FakeSkyvern, code: Any) -> None:
    waits(skyvern)
    answer = await answer_to(ui, code)
    assert answer.status_code == 422
    assert "482913" not in answer.text
    assert (skyvern.totp_codes, stored()) == ([], None)


@pytest.mark.slow
@pytest.mark.parametrize("code", ["A1b2C3", "1234567890", "123-456", "12 34 56"])
async def test_codes_as_portals_send_them_are_taken(ui: Ui, skyvern: FakeSkyvern, code: str) -> None:
    waits(skyvern)
    assert await post(ui, code) == 200
    assert skyvern.totp_codes[0]["content"] == code.replace("-", "").replace(" ", "")


async def test_a_code_that_is_too_late_is_not_sent(ui: Ui, skyvern: FakeSkyvern) -> None:
    """The run has typed in another code meanwhile: what a person types now may be for the next question."""
    run_id = waits(skyvern)
    skyvern.runs[run_id].typed.append(("sign_in", "000000"))
    assert await post(ui, CODE) == 409
    assert (skyvern.totp_codes, stored()) == ([], None)


@pytest.mark.parametrize("change", [{"canceled": True}, {"step": 9}])
async def test_a_run_that_is_over_gets_no_code(ui: Ui, skyvern: FakeSkyvern, change: dict[str, Any]) -> None:
    """A canceled run's block still takes one."""
    run = skyvern.runs[waits(skyvern)]
    for name, value in change.items():
        setattr(run, name, value)
    assert await post(ui, CODE) == 409
    assert skyvern.totp_codes == []


@pytest.mark.slow
@pytest.mark.parametrize("state", [None, "scheduled", "queued", "running", "failed", "success"])
async def test_a_task_that_was_cleared_or_has_ended_gets_no_code(
    ui: Ui, skyvern: FakeSkyvern, state: str | None
) -> None:
    """What it waited for stays in Airflow's database, and its request too."""
    waits(skyvern, state=state)
    assert await post(ui, CODE) == 409
    assert skyvern.totp_codes == []
    assert "code-typed" not in (await ui.get(PAGE, role="user")).text


async def test_a_task_whose_xcom_names_another_run_gets_no_code(ui: Ui, skyvern: FakeSkyvern) -> None:
    run_id = waits(skyvern)
    with create_session() as session:
        ti: Any = session.scalars(sa.select(TaskInstance)).one()
        request = {**ti.next_kwargs["request"], "run_id": "wr_other"}
        ti.next_kwargs = {**ti.next_kwargs, "request": request}
    assert await post(ui, CODE) == 409
    assert skyvern.runs[run_id].typed == []


async def test_a_run_of_another_dag_gets_no_code(ui: Ui, skyvern: FakeSkyvern) -> None:
    run = skyvern.runs[waits(skyvern)]
    run.tags["airflow_dag_id"] = "secret"
    add_task(dag_id="secret", conn_id=None)
    assert await post(ui, CODE) == 404
    assert skyvern.totp_codes == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "answer"),
    [
        (TOTP, httpx.Response(500, text=f"no: {CODE}")),
        (TOTP, httpx.Response(400, json={"detail": f"Failed to parse {CODE}"})),
        (TOTP, httpx.ReadTimeout("lost")),
        (TOTP, httpx.Response(200, json={"code": CODE})),
        ("/v1/runs/[^/]+/timeline", httpx.Response(503)),
        ("/api/v1/tasks/[^/]+", httpx.Response(200, text="<html>")),
    ],
)
async def test_a_skyvern_that_does_not_take_it_leaves_the_request_open(
    ui: Ui, skyvern: FakeSkyvern, path: str, answer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    waits(skyvern)
    skyvern.next("GET" if path != TOTP else "POST", path, answer)
    got = await answer_to(ui, CODE)
    assert (got.status_code, got.json()["detail"]) == (502, "Skyvern did not take the code. Send it again.")
    assert stored() is None
    assert CODE not in got.text + caplog.text
    assert await post(ui, CODE) == 200


@pytest.mark.parametrize("headers", FORGED)
async def test_a_forged_request_sends_nothing(ui: Ui, skyvern: FakeSkyvern, headers: dict[str, str]) -> None:
    waits(skyvern)
    assert await post(ui, CODE, **headers) == 403
    assert skyvern.totp_codes == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("user", "role", "status"),
    [(None, "", 401), ("eve", "viewer", 403), ("mallory", "user", 403), ("nohitl", "user", 403)],
)
async def test_who_may_not_answer_requests_sends_nothing(
    ui: Ui, skyvern: FakeSkyvern, user: str | None, role: str, status: int
) -> None:
    waits(skyvern)
    assert await post(ui, CODE, user, role) == status
    assert skyvern.totp_codes == []


@pytest.mark.slow
async def test_a_task_that_asks_for_an_approval_takes_no_code(ui: Ui, skyvern: FakeSkyvern) -> None:
    waits(skyvern, next_kwargs={"request": {"run_id": "wr_1", "options": ["Approve", "Reject"]}})
    assert await post(ui, CODE) == 409


async def test_a_task_of_no_run_takes_no_code(ui: Ui, skyvern: FakeSkyvern) -> None:
    add_task(state="deferred")
    assert await post(ui, CODE) == 409


@pytest.mark.slow
async def test_hostile_labels_and_identifiers_are_texts(ui: Ui, skyvern: FakeSkyvern) -> None:
    evil = '"><script>alert(1)</script>'
    waits(skyvern, block={**LOGIN, "label": evil, "totp_identifier": evil})
    page = (await ui.get(PAGE, role="user")).text
    assert page.count("<script") == 1
    assert "&lt;script&gt;" in page


CLICK, TYPED = {"action_type": "click"}, {"action_type": "input_text", "text": "<redacted otp value>"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "typed",
    [TYPED, {"action_type": "verification_code"}, {"action_type": "input_text", "totp_timing_info": {"a": 1}}],
)
async def test_no_picture_shows_the_step_of_the_code(ui: Ui, skyvern: FakeSkyvern, typed: dict[str, Any]) -> None:
    actions = [{**CLICK, "screenshot": 0}, {**typed, "screenshot": 1}, {**CLICK, "screenshot": 2}]
    media = [Media("screenshot_action", PNG, "sign_in")] * 3 + [Media("screenshot_final", PNG, "sign_in")]
    blocks = [{"label": "sign_in", "block_type": "login", "actions": actions, "output": {}}]
    run_id = skyvern.run(plan=("completed",), blocks=blocks, media=media)
    run = skyvern.runs[run_id]
    blocks[0]["output"] = {"task_screenshot_artifact_ids": [artifact_id(run, 3)]}
    run.tags.update(TAGS)
    run.look()
    add_task(xcoms={"run_id": run_id})
    page = (await ui.get(PAGE)).text
    assert [number for number in range(4) if artifact_id(run, number) in page] == [0]
    for number in (1, 2, 3):  # nor for one who knows its id
        assert (await ui.get(f"{PAGE}/tries/1/pictures/{artifact_id(run, number)}")).status_code == 404


@pytest.mark.slow
async def test_no_picture_is_shown_while_a_code_is_awaited(ui: Ui, skyvern: FakeSkyvern) -> None:
    waits(skyvern, block={**LOGIN, "actions": [{**CLICK, "screenshot": 0}]})
    page = (await ui.get(PAGE, role="user")).text
    assert "<img" not in page.replace('<img alt="">', "")
