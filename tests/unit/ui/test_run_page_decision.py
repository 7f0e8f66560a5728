"""The buttons of a run that waits for a person, over Airflow's real authorization and database."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.compat import since_3_1

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

if not since_3_1.shows_external_views():
    pytest.skip("pages of plugins came with Airflow 3.1", allow_module_level=True)

from airflow.models.hitl import HITLDetail
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import select

from tests.support.ui_rig import DAG, FORGED, OUR_PAGE, PAGE, RUN, TASK, Ui, add_task, empty_database

EVIL = '"><script>alert(1)</script>'
TAGS = {"airflow_dag_id": DAG, "airflow_task_id": TASK, "airflow_run_id": RUN}


def asks(
    skyvern: FakeSkyvern, options: tuple[str, str] = ("Pay", "Stop"), approvers: tuple[str, ...] = (), **task: Any
) -> None:
    """Store a task that waits for a person, its request, and the paused run."""
    block = {"label": "ask", "block_type": "human_interaction", "instructions": "Pay ACME?"}
    run_id = skyvern.run(plan=("paused", "completed"), blocks=[block])
    skyvern.runs[run_id].tags.update(TAGS)
    skyvern.runs[run_id].look()
    add_task(state="deferred", xcoms={"run_id": run_id}, **task)
    with create_session() as session:
        ti_id = session.scalar(select(TaskInstance.id))
        assignees = [{"id": name, "name": name} for name in approvers]
        texts: dict[str, Any] = {"subject": "s", "body": "b", "params": {}, "multiple": False}
        session.add(HITLDetail(ti_id=ti_id, options=list(options), assignees=assignees, **texts))


def stored() -> Any:
    """Return the answer that Airflow has stored, and who gave it."""
    with create_session() as session:
        detail = session.scalars(select(HITLDetail)).one()
        return (detail.chosen_options, detail.responded_by_user_name) if detail.response_received else None


async def post(ui: Ui, option: Any, user: str | None = "eve", role: str = "user", **headers: str) -> int:
    async with ui.client(user, role=role) as client:
        answer = await client.post(f"{PAGE}/answer", json={"option": option}, headers=headers or OUR_PAGE)
    return int(answer.status_code)


@pytest.mark.slow
async def test_who_may_act_on_the_task_gets_the_buttons_as_the_block_names_them(ui: Ui, skyvern: FakeSkyvern) -> None:
    asks(skyvern, ("Pay", EVIL))
    async with ui.client("eve", role="user") as client:
        page = (await client.get(PAGE)).text
    assert 'data-answer="Pay"' in page
    assert "Pay ACME?" in page
    assert page.count("<script") == 1
    assert "data-answer" not in (await ui.get(PAGE, username="eve")).text  # who may look only


@pytest.mark.slow
async def test_only_the_approvers_get_the_buttons_and_may_answer(ui: Ui, skyvern: FakeSkyvern) -> None:
    asks(skyvern, approvers=("alice", EVIL))
    for name, has_buttons in (("alice", True), ("eve", False)):
        async with ui.client(name, role="user") as client:
            page = (await client.get(PAGE)).text
        assert ("data-answer" in page) is has_buttons
    assert "Only alice, &#34;&gt;&lt;script&gt;" in page
    assert await post(ui, "Pay", user="eve") == 403
    assert stored() is None
    assert await post(ui, "Pay", user="alice") == 200
    assert stored() == (["Pay"], "alice")


@pytest.mark.slow
async def test_an_answer_on_the_page_is_one_in_required_actions(ui: Ui, skyvern: FakeSkyvern) -> None:
    asks(skyvern, next_kwargs={"deadline": time.time() + 3700})
    assert await post(ui, "Pay") == 200
    assert stored() == (["Pay"], "eve")
    assert skyvern.sent("POST", ".*") == []  # the task gives it to Skyvern
    page = (await ui.get(PAGE, username="eve")).text
    assert "data-answer" not in page
    assert "<strong>Answered: Pay</strong>, by eve" in page


@pytest.mark.slow
async def test_a_request_that_nobody_has_answered_in_airflow_is_closed(ui: Ui, skyvern: FakeSkyvern) -> None:
    asks(skyvern)
    with create_session() as session:
        detail = session.scalars(select(HITLDetail)).one()
        detail.chosen_options, detail.responded_at = ["The time is up"], datetime.now(timezone.utc)
    page = (await ui.get(PAGE, username="eve", role="user")).text
    assert "<strong>Closed: The time is up</strong>" in page
    assert "data-answer" not in page


async def test_the_answer_that_cancels_says_so(ui: Ui, skyvern: FakeSkyvern) -> None:
    asks(skyvern)
    page = (await ui.get(PAGE, username="eve", role="user")).text
    assert 'class="button primary" data-answer="Pay"' in page
    assert 'class="button danger" data-answer="Stop" aria-describedby="rejects"' in page
    assert "“Stop” rejects: it cancels the run in Skyvern" in page


async def test_a_question_says_how_much_time_is_left(ui: Ui, skyvern: FakeSkyvern) -> None:
    asks(skyvern, next_kwargs={"deadline": time.time() + 3700})
    page = (await ui.get(PAGE, username="eve")).text
    assert "Time left: 1 h 1 min" in page
    assert "Who may edit task instances and answer required actions of this DAG can answer here." in page


@pytest.mark.slow
async def test_who_may_not_answer_requests_gets_no_buttons(ui: Ui, skyvern: FakeSkyvern) -> None:
    asks(skyvern)
    assert "data-answer" not in (await ui.get(PAGE, username="nohitl", role="user")).text
    assert await post(ui, "Pay", "nohitl") == 403


@pytest.mark.slow
async def test_the_page_says_what_was_answered(ui: Ui, skyvern: FakeSkyvern) -> None:
    run_id = skyvern.run(plan=("completed",))
    skyvern.runs[run_id].tags.update(TAGS)
    skyvern.runs[run_id].look()
    note = {"run_id": run_id, "approved": True, "answer": "Pay", "answered_by": "eve", "answered_in": "airflow"}
    add_task(xcoms={"run_id": run_id, "approval": note})
    assert "Approved in Airflow by eve (“Pay”)." in (await ui.get(PAGE)).text
    empty_database()
    add_task(xcoms={"run_id": run_id, "approval": {**note, "run_id": "wr_of_the_try_before"}})
    assert "Approved in Airflow" not in (await ui.get(PAGE)).text


async def test_the_first_answer_counts(ui: Ui, skyvern: FakeSkyvern) -> None:
    asks(skyvern)
    assert (await post(ui, "Pay"), await post(ui, "Stop")) == (200, 409)
    assert stored() == (["Pay"], "eve")


@pytest.mark.parametrize("option", ["Delete", "", ["Pay"], None])
async def test_only_what_the_block_offers_is_an_answer(ui: Ui, skyvern: FakeSkyvern, option: Any) -> None:
    asks(skyvern)
    assert await post(ui, option) in (409, 422)
    assert stored() is None


@pytest.mark.parametrize("headers", FORGED)
async def test_a_forged_request_answers_nothing(ui: Ui, skyvern: FakeSkyvern, headers: dict[str, str]) -> None:
    asks(skyvern)
    assert await post(ui, "Pay", **headers) == 403
    assert stored() is None


@pytest.mark.parametrize(
    ("user", "role", "status"), [(None, "", 401), ("eve", "viewer", 403), ("mallory", "user", 403)]
)
async def test_who_may_only_look_answers_nothing(
    ui: Ui, skyvern: FakeSkyvern, user: str | None, role: str, status: int
) -> None:
    asks(skyvern)
    assert await post(ui, "Pay", user, role) == status
    assert stored() is None


@pytest.mark.slow
async def test_a_task_that_asks_nothing_takes_no_answer(ui: Ui, skyvern: FakeSkyvern) -> None:
    add_task(state="deferred", xcoms={"run_id": "wr_1"})
    assert await post(ui, "Pay") == 409
