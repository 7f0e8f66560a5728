"""Profiles by name, and profiles made of the browser that has logged in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.compat.sdk import AirflowFailException
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernConnectionError, SkyvernServerError
from airflow_skyvern.operators import SkyvernCreateBrowserProfileOperator
from airflow_skyvern.testing.fake.skyvern import LOST
from tests.support.run_workflow_tasks import START, execute, make, try_number
from tests.support.tasks import FakeTaskInstance, context_of

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

PROFILES = "/v1/browser_profiles"


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_skyvern.runs.browser_profiles.BEING_REPLACED", 0.0)
    monkeypatch.setattr("airflow_skyvern.client.retry.PACE", 0.01)
    monkeypatch.setattr("airflow_skyvern.operators.browser_profile.STORE_INTERVAL", 0.01)


def test_an_id_of_a_profile_takes_no_request(skyvern: FakeSkyvern) -> None:
    profile = skyvern.profile("portal")
    execute(make(skyvern.workflow(plan=("completed",)), browser_profile_id=profile))
    assert skyvern.sent("GET", PROFILES) == []
    assert skyvern.sent("POST", START)[0].json["browser_profile_id"] == profile


@pytest.mark.parametrize("durable", [True, False])
def test_a_name_becomes_the_id_right_before_the_start(skyvern: FakeSkyvern, durable: bool) -> None:
    skyvern.profile("portal of others"), skyvern.profile("Portal")
    profile = skyvern.profile("portal")
    execute(make(skyvern.workflow(plan=("completed",)), browser_profile_id="portal", durable=durable))
    assert skyvern.sent("POST", START)[0].json["browser_profile_id"] == profile


def test_a_retry_that_resumes_its_run_looks_no_name_up(skyvern: FakeSkyvern) -> None:
    profile, workflow = skyvern.profile("portal"), skyvern.workflow(plan=("running", "completed"))
    execute(make(workflow, browser_profile_id="portal", wait_for_completion=False), try_number(1))
    del skyvern.profiles[profile]
    execute(make(workflow, browser_profile_id="portal"), try_number(2))
    assert len(skyvern.sent("GET", PROFILES)) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("portl", r"no browser profile is called 'portl'. Did you mean portal\?"),
        ("x", r"no browser profile is called 'x'. Known: bank, portal\."),
        ("port", r"no browser profile is called 'port'. Did you mean portal\?"),
    ],
)
def test_an_unknown_name_is_permanent_and_nothing_is_started(skyvern: FakeSkyvern, name: str, message: str) -> None:
    skyvern.profile("portal"), skyvern.profile("bank"), skyvern.profile("made by Skyvern", is_managed=True)
    with pytest.raises(AirflowFailException, match=message):
        execute(make(skyvern.workflow(), browser_profile_id=name))
    assert skyvern.sent("POST", START) == []


def test_without_any_profile_the_message_says_so(skyvern: FakeSkyvern) -> None:
    with pytest.raises(AirflowFailException, match=r"There is none\."):
        execute(make(skyvern.workflow(), browser_profile_id="portal"))


def test_two_of_a_name_are_refused_with_both_ids(skyvern: FakeSkyvern) -> None:
    one, two = skyvern.profile("portal"), skyvern.profile("portal")
    with pytest.raises(AirflowFailException, match=f"2 browser profiles are called 'portal': {one}, {two}"):
        execute(make(skyvern.workflow(), browser_profile_id="portal"))
    assert skyvern.sent("POST", START) == []


def test_one_that_skyvern_keeps_for_a_workflow_does_not_stand_against_a_persons(skyvern: FakeSkyvern) -> None:
    skyvern.profile("portal", is_managed=True)
    mine = skyvern.profile("portal")
    execute(make(skyvern.workflow(plan=("completed",)), browser_profile_id="portal"))
    assert skyvern.sent("POST", START)[0].json["browser_profile_id"] == mine


def test_a_name_that_is_being_replaced_is_looked_up_once_more(skyvern: FakeSkyvern) -> None:
    profile = skyvern.profile("portal")
    skyvern.next("GET", PROFILES, httpx.Response(200, json=[]))
    execute(make(skyvern.workflow(plan=("completed",)), browser_profile_id="portal"))
    assert skyvern.sent("POST", START)[0].json["browser_profile_id"] == profile


# Making one


def saved(try_: int = 1, **more: Any) -> str:
    ti = FakeTaskInstance()
    ti.try_number = try_
    return SkyvernCreateBrowserProfileOperator(task_id="t", name="portal", **more).execute(context_of(ti))


def names(skyvern: FakeSkyvern) -> dict[str, str]:
    return {known.browser_profile_id: known.name for known in skyvern.profiles.values()}


def test_a_profile_is_made_of_an_open_session_which_is_closed_for_that(skyvern: FakeSkyvern) -> None:
    profile = saved(browser_session_id=skyvern.session())
    assert names(skyvern) == {profile: "portal"}
    assert skyvern.open_sessions == []


def test_a_profile_is_made_of_a_session_that_was_closed(skyvern: FakeSkyvern) -> None:
    session = skyvern.session(generate_browser_profile=True)
    skyvern.end_session(session)
    profile = saved(browser_session_id=session)
    assert names(skyvern) == {profile: "portal"}


def test_a_closed_session_without_a_profile_is_permanent_and_says_what_to_do(skyvern: FakeSkyvern) -> None:
    session = skyvern.session()
    skyvern.end_session(session)
    with pytest.raises(AirflowFailException, match=r"has kept no profile\. Make this task the last one within"):
        saved(browser_session_id=session)


def test_a_profile_is_made_of_a_run_that_has_completed(skyvern: FakeSkyvern) -> None:
    run = skyvern.run(plan=("completed",))
    profile = saved(run_id=run)
    assert names(skyvern) == {profile: "portal"}


@pytest.mark.parametrize("plan", [("running",), ("failed",)])
def test_a_run_that_has_not_completed_is_refused(skyvern: FakeSkyvern, plan: tuple[str, ...]) -> None:
    with pytest.raises(AirflowFailException, match="A profile is made of a run that has completed"):
        saved(run_id=skyvern.run(plan=plan))
    assert skyvern.profiles == {}


def test_a_retry_after_a_lost_answer_makes_no_second_one(skyvern: FakeSkyvern) -> None:
    session = skyvern.session()
    skyvern.next("POST", PROFILES, LOST)
    profile = saved(browser_session_id=session)
    assert names(skyvern) == {profile: "portal"}
    assert saved(2, browser_session_id=session) == profile
    assert len(skyvern.sent("POST", PROFILES)) == 1


@pytest.mark.slow
def test_a_profile_that_is_not_stored_yet_is_waited_for(skyvern: FakeSkyvern) -> None:
    words = "Browser session does not have a persisted profile archive. Close the session and wait for upload before"
    skyvern.next("POST", PROFILES, *[httpx.Response(400, json={"detail": words})] * 3)
    profile = saved(browser_session_id=skyvern.session())
    assert names(skyvern) == {profile: "portal"}


def test_the_login_of_this_month_takes_the_place_of_the_last_one(skyvern: FakeSkyvern) -> None:
    old = saved(browser_session_id=skyvern.session())
    new = saved(browser_session_id=skyvern.session())
    assert old != new
    assert names(skyvern) == {new: "portal"}


STEPS = (
    ("POST", PROFILES, LOST),
    ("POST", PROFILES, httpx.Response(502)),
    ("DELETE", f"{PROFILES}/.*", LOST),
    ("DELETE", f"{PROFILES}/.*", httpx.Response(502)),
    ("PATCH", f"{PROFILES}/.*", LOST),
    ("PATCH", f"{PROFILES}/.*", httpx.Response(502)),
)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path", "answer"), STEPS)
def test_wherever_it_is_interrupted_the_next_try_leaves_one_profile(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch, method: str, path: str, answer: Any
) -> None:
    saved(browser_session_id=skyvern.session())
    session = skyvern.session()
    monkeypatch.setattr("airflow_skyvern.operators.browser_profile.STORE_PATIENCE", 0.0)
    skyvern.next(method, path, *[answer] * (1 if method == "POST" else 5))
    with pytest.raises((SkyvernConnectionError, SkyvernServerError)):
        saved(browser_session_id=session)
    skyvern._scripts.clear()
    profile = saved(2, browser_session_id=session)
    assert names(skyvern) == {profile: "portal"}
    assert skyvern.profiles[profile].source == session


def test_a_profile_of_that_name_may_be_kept_by_refusing_another(skyvern: FakeSkyvern) -> None:
    old = skyvern.profile("portal")
    with pytest.raises(AirflowFailException, match=f"{old} is called 'portal' already"):
        saved(browser_session_id=skyvern.session(), replace=False)
    assert names(skyvern) == {old: "portal"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"name": "portal"}, "give either browser_session_id or run_id"),
        ({"name": "portal", "browser_session_id": "pbs_1", "run_id": "wr_1"}, "give either"),
        ({"name": " ", "run_id": "wr_1"}, "name: must be a text"),
        ({"name": "bp_1", "run_id": "wr_1"}, "does not begin with bp_"),
        ({"name": "portal", "run_id": "wr_1", "replace": "no"}, "replace must be True or False"),
    ],
)
def test_a_wrong_argument_is_refused_when_the_dag_is_parsed(more: dict[str, Any], message: str) -> None:
    with pytest.raises(SkyvernConfigError, match=message):
        SkyvernCreateBrowserProfileOperator(task_id="t", **more)
