"""Opening and closing browser sessions: what stays open after each way in which a task ends."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from importlib import import_module
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.compat.sdk import DAG, AirflowFailException, BaseOperator, task
from airflow_skyvern.compat.since_3_0 import is_airflow_3
from airflow_skyvern.exceptions import (
    SkyvernConfigError,
    SkyvernConnectionError,
    SkyvernServerError,
    SkyvernWaitInterrupted,
)
from airflow_skyvern.operators import (
    SkyvernCloseBrowserSessionOperator,
    SkyvernOpenBrowserSessionOperator,
    SkyvernRunPromptOperator,
    SkyvernRunWorkflowOperator,
    skyvern_browser_session,
)
from airflow_skyvern.testing.fake.skyvern import LOST
from tests.support.tasks import FakeTaskInstance, context_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

SESSIONS = "/v1/browser_sessions"
CLOSE = f"{SESSIONS}/[^/]+/close"


class Store:
    """What outlives a try, as Airflow 3.3 has it."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    def set(self, key: str, value: Any) -> None:
        self.values[key] = value


def opening(**more: Any) -> SkyvernOpenBrowserSessionOperator:
    return SkyvernOpenBrowserSessionOperator(task_id="open", **more)


def opened(skyvern: FakeSkyvern, ti: FakeTaskInstance | None = None, store: Store | None = None, **more: Any) -> str:
    context = context_of(ti or FakeTaskInstance("open"))
    if store is not None:
        context["task_state_store"] = store
    return opening(**more).execute(context)


def closed(session_id: str | None) -> None:
    operator = SkyvernCloseBrowserSessionOperator(task_id="close", browser_session_id=session_id)
    operator.execute(context_of(FakeTaskInstance("close")))


@pytest.fixture(autouse=True)
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("airflow_skyvern.runs.browser_sessions.CLOSE_INTERVAL", 0.01)
    monkeypatch.setattr("airflow_skyvern.client.retry.PACE", 0.01)


def test_a_session_is_opened_with_a_short_timeout_and_published(skyvern: FakeSkyvern) -> None:
    ti = FakeTaskInstance("open")
    session = opened(skyvern, ti)
    assert skyvern.open_sessions == [session]
    assert skyvern.sent("POST", SESSIONS)[0].json == {"timeout": 30}
    assert ti.xcoms["browser_session"]["browser_session_id"] == session
    assert ti.xcoms["browser_session"]["ends_with_dag_run"] is False


@pytest.mark.parametrize(
    ("timeout", "minutes"), [(timedelta(minutes=5), 5), (301, 6), (timedelta(hours=24), 1440), (600.0, 10)]
)
def test_a_timeout_is_rounded_up_to_minutes(skyvern: FakeSkyvern, timeout: Any, minutes: int) -> None:
    opened(skyvern, timeout=timeout)
    assert skyvern.sent("POST", SESSIONS)[0].json["timeout"] == minutes


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"timeout": 30}, r"Task 'open': timeout must be between 300.*for 30 minutes, give timedelta\(minutes=30\)"),
        ({"timeout": timedelta(hours=25)}, "between 300 and 86,400"),
        ({"timeout": True}, "timeout must be a positive number"),
        ({"timeout": "{{ params.t }}"}, "timeout is not templated"),
        ({"generate_browser_profile": "yes"}, "generate_browser_profile must be True or False"),
        ({"proxy_location": "RESIDENTAL_DE"}, "proxy_location: no such location. Did you mean RESIDENTIAL_DE?"),
    ],
)
def test_a_wrong_argument_is_refused_when_the_dag_is_parsed(more: dict[str, Any], message: str) -> None:
    with pytest.raises(SkyvernConfigError, match=message):
        opening(**more)


def test_a_profile_is_taken_by_its_name(skyvern: FakeSkyvern) -> None:
    profile = skyvern.profile("portal")
    session = opened(skyvern, browser_profile_id="portal")
    assert skyvern.sessions[session].browser_profile_id == profile


def test_an_opening_that_is_not_answered_leaves_at_most_its_timeout_and_says_so(
    skyvern: FakeSkyvern, task_log: Callable[[], str]
) -> None:
    skyvern.next("POST", SESSIONS, LOST)
    with pytest.raises(SkyvernConnectionError):
        opened(skyvern, timeout=timedelta(minutes=7))
    assert [known.timeout for known in skyvern.sessions.values()] == [7]
    assert len(skyvern.sent("POST", SESSIONS)) == 1  # a second one would be a second unknown session
    assert "closes by itself after its timeout of 7 minutes" in task_log()


def test_an_opening_that_skyvern_refused_says_nothing_of_an_unknown_session(
    skyvern: FakeSkyvern, task_log: Callable[[], str]
) -> None:
    skyvern.api_key = "rotated"
    with pytest.raises(AirflowFailException):
        opened(skyvern)
    assert "was not answered" not in task_log()


@pytest.mark.parametrize("error", [RuntimeError("no API server"), KeyboardInterrupt()])
def test_a_task_that_fails_after_it_has_opened_closes_its_session(skyvern: FakeSkyvern, error: BaseException) -> None:
    ti = FakeTaskInstance("open")

    def fail(_: str) -> None:
        raise error

    ti.on_push = fail
    with pytest.raises(type(error)):
        opened(skyvern, ti)
    assert (len(skyvern.sessions), skyvern.open_sessions) == (1, [])


def test_a_task_that_is_killed_while_it_opens_closes_its_session(skyvern: FakeSkyvern) -> None:
    operator = opening()
    skyvern.next("POST", SESSIONS, operator.on_kill)
    with pytest.raises(SkyvernWaitInterrupted, match="its browser session closed"):
        operator.execute(context_of(FakeTaskInstance("open")))
    assert (len(skyvern.sessions), skyvern.open_sessions) == (1, [])


def test_a_kill_after_the_opening_closes_it_at_once(skyvern: FakeSkyvern) -> None:
    operator, ti = opening(), FakeTaskInstance("open")
    ti.on_push = lambda _: operator.on_kill()
    with pytest.raises(SkyvernWaitInterrupted, match="its browser session closed"):
        operator.execute(context_of(ti))
    assert skyvern.open_sessions == []


def test_a_cleared_or_retried_opening_closes_the_session_before(skyvern: FakeSkyvern) -> None:
    store = Store()
    first = opened(skyvern, store=store)
    second = opened(skyvern, store=store)
    third = opened(skyvern, store=store)
    assert skyvern.open_sessions == [third]
    assert len({first, second, third}) == 3


def test_a_session_of_another_installation_is_left(skyvern: FakeSkyvern) -> None:
    """A copy of a database has the notes of the original."""
    store = Store()
    first = opened(skyvern, store=store)
    store.values["skyvern_browser_session"]["installation"] = "production"
    second = opened(skyvern, store=store)
    assert skyvern.open_sessions == [first, second]


@pytest.mark.slow
def test_a_predecessor_that_cannot_be_closed_yet_fails_the_try_before_it_opens_another(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("airflow_skyvern.runs.browser_sessions.CLOSE_PATIENCE", 0.05)
    store = Store()
    first = opened(skyvern, store=store)
    skyvern.next("POST", CLOSE, *[httpx.Response(503)] * 5)
    with pytest.raises(SkyvernServerError):
        opened(skyvern, store=store)
    assert skyvern.open_sessions == [first]


@pytest.mark.slow
def test_closing_is_repeated_until_the_session_is_closed(skyvern: FakeSkyvern) -> None:
    session = skyvern.session()
    skyvern.next("POST", CLOSE, *[httpx.Response(502)] * 7)
    closed(session)
    assert skyvern.open_sessions == []


@pytest.mark.slow
def test_a_close_whose_answer_is_late_counts_when_the_session_says_so(skyvern: FakeSkyvern) -> None:
    session = skyvern.session()
    skyvern.next("POST", CLOSE, *[LOST] * 5)
    closed(session)
    assert skyvern.open_sessions == []


@pytest.mark.parametrize("session", [None, "", "pbs_gone"])
def test_nothing_to_close_is_no_error(skyvern: FakeSkyvern, session: str | None) -> None:
    closed(session)
    assert skyvern.sent("POST", CLOSE) == []


def test_a_closed_session_is_not_closed_again(skyvern: FakeSkyvern) -> None:
    session = skyvern.session()
    skyvern.end_session(session)
    closed(session)
    assert skyvern.sent("POST", CLOSE) == []


def test_a_wrong_key_fails_the_close_without_retry(skyvern: FakeSkyvern) -> None:
    session = skyvern.session()
    skyvern.api_key = "rotated"
    with pytest.raises(AirflowFailException):
        closed(session)


# The block


def dag() -> Any:
    return DAG("d", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=timezone.utc))


def run(task_id: str, session: Any, **more: Any) -> SkyvernRunWorkflowOperator:
    return SkyvernRunWorkflowOperator(task_id=task_id, workflow_id="wpid_1", browser_session_id=session, **more)


OPEN, CLOSED = "open_browser_session", "close_browser_session"


def test_every_task_in_the_block_is_between_setup_and_teardown() -> None:
    with dag() as made:
        with skyvern_browser_session() as session:
            first, last = run("first", session), run("last", session)
            aside = BaseOperator(task_id="aside")
            first >> last
        after = BaseOperator(task_id="after")
        last >> after
    assert made.get_task(OPEN).is_setup
    assert made.get_task(CLOSED).is_teardown
    for inner in (first, last, aside):
        assert CLOSED in inner.downstream_task_ids
        assert OPEN in inner.get_flat_relative_ids(upstream=True)
        cleared = {one.task_id for one in inner.get_upstreams_only_setups_and_teardowns()}
        assert cleared == {OPEN, CLOSED}
    assert CLOSED not in after.get_flat_relative_ids(upstream=True)
    made.validate_setup_teardown()


def test_functions_mapped_tasks_prompts_and_groups_are_linked_too() -> None:
    task_group = import_module("airflow.sdk" if is_airflow_3() else "airflow.utils.task_group").TaskGroup

    with dag() as made, skyvern_browser_session(name="portal") as session:
        decorated: Any = task.skyvern

        def invoices_of(vendor: str) -> dict[str, str]:
            return {"vendor": vendor}

        invoices: Any = decorated(workflow_id="wpid_1", browser_session_id=session, task_id="invoices")(invoices_of)

        mapped = SkyvernRunWorkflowOperator.partial(
            task_id="mapped", workflow_id="wpid_1", browser_session_id=session
        ).expand(parameters=[{"n": 1}, {"n": 2}])
        many = invoices.override(task_id="many").expand(vendor=["a", "b"])
        with task_group("group"):
            prompt = SkyvernRunPromptOperator(task_id="prompt", prompt="p", browser_session_id=session)
        invoices("a") >> mapped >> many >> prompt
    for task_id in ("invoices", "mapped", "many", "group.prompt"):
        inner = made.get_task(task_id)
        assert "close_portal" in inner.downstream_task_ids
        assert "open_portal" in inner.get_flat_relative_ids(upstream=True)
    assert made.get_task("mapped").max_active_tis_per_dagrun == 1
    assert made.get_task("many").max_active_tis_per_dagrun == 1


def test_a_task_with_another_trigger_rule_is_fine_behind_a_task_of_the_session() -> None:
    with dag() as made, skyvern_browser_session() as session:
        handler = BaseOperator(task_id="handler", trigger_rule="one_failed")
        run("first", session) >> handler
    made.validate_setup_teardown()
    assert CLOSED in handler.downstream_task_ids


def test_a_block_without_tasks_opens_and_closes() -> None:
    with dag() as made, skyvern_browser_session():
        pass
    assert made.get_task(OPEN).downstream_task_ids == {CLOSED}


def test_two_sessions_may_be_within_each_other() -> None:
    with dag() as made, skyvern_browser_session(name="a") as a, skyvern_browser_session(name="b") as b:
        run("x", a) >> run("y", b)
    made.validate_setup_teardown()
    assert {"close_a", "close_b"} <= set(made.get_task("x").downstream_task_ids)


def test_two_runs_that_could_be_in_the_session_at_once_are_refused_when_the_dag_is_parsed() -> None:
    with (
        pytest.raises(SkyvernConfigError, match=r"'a' and 'b' can run at once.*within the block: a >> b;"),
        dag(),
        skyvern_browser_session() as session,
    ):
        run("a", session), run("b", session)


def test_order_may_come_through_other_tasks_and_branches_exclude_each_other() -> None:
    with dag(), skyvern_browser_session() as session:

        @task.branch
        def either() -> str:
            return "c"

        (
            run("a", session)
            >> BaseOperator(task_id="between")
            >> run("b", session)
            >> either()
            >> [
                run("c", session),
                run("d", session),
            ]
        )


def refused() -> Any:
    return pytest.raises(SkyvernConfigError, match="'c' and 'd' can run at once")


def test_a_task_that_skips_all_or_none_excludes_nothing() -> None:
    with refused(), dag(), skyvern_browser_session() as session:

        @task.short_circuit
        def goes_on() -> bool:
            return True

        goes_on() >> [run("c", session), run("d", session)]


def test_two_tasks_on_one_arm_of_a_branch_do_not_exclude_each_other() -> None:
    with refused(), dag(), skyvern_browser_session() as session:

        @task.branch
        def either() -> str:
            return "arm"

        arm = BaseOperator(task_id="arm")
        either() >> [arm, run("other", session)]
        arm >> [run("c", session), run("d", session)]


def test_a_branch_on_the_arm_of_another_one_excludes_again() -> None:
    with dag(), skyvern_browser_session() as session:

        @task.branch
        def either(_: Any = None) -> str:
            return "inner"

        inner = either.override(task_id="inner")()
        either() >> [inner, run("other", session)]
        inner >> [run("c", session), run("d", session)]


def test_the_tasks_of_a_mapped_group_run_one_at_a_time() -> None:
    decorators = import_module("airflow.sdk" if is_airflow_3() else "airflow.decorators")
    with dag() as made, skyvern_browser_session() as session:

        @decorators.task_group  # type: ignore[untyped-decorator]  # loaded by its name
        def each(item: Any) -> None:
            run("a", session, parameters={"item": item}) >> run("b", session)

        each.expand(item=[1, 2])
    assert [made.get_task(f"each.{name}").max_active_tis_per_dagrun for name in "ab"] == [1, 1]


def test_a_task_that_uses_no_session_may_run_beside_one_that_does() -> None:
    with dag(), skyvern_browser_session() as session:
        run("a", session), run("b", None), run("c", "pbs_of_another_one")


def test_a_mapped_task_that_asks_for_several_at_once_is_refused() -> None:
    with (
        pytest.raises(SkyvernConfigError, match=r"'m': max_active_tis_per_dagrun=4: .*one run at a time"),
        dag(),
        skyvern_browser_session() as session,
    ):
        SkyvernRunWorkflowOperator.partial(
            task_id="m", workflow_id="wpid_1", browser_session_id=session, max_active_tis_per_dagrun=4
        ).expand(parameters=[{"n": 1}])


def test_an_error_in_the_block_is_the_authors_own() -> None:
    with pytest.raises(ZeroDivisionError), dag(), skyvern_browser_session():
        1 / 0  # noqa: B018


def test_a_block_outside_of_a_dag_is_refused() -> None:
    with pytest.raises(SkyvernConfigError, match="use it within a DAG"), skyvern_browser_session():
        pass


def test_options_of_tasks_are_for_both() -> None:
    with dag() as made, skyvern_browser_session(retries=4, skyvern_conn_id="other"):
        pass
    assert [made.get_task(one).retries for one in (OPEN, CLOSED)] == [4, 4]
    assert [made.get_task(one).skyvern_conn_id for one in (OPEN, CLOSED)] == ["other", "other"]


def test_the_note_says_that_the_session_ends_with_the_dag_run(skyvern: FakeSkyvern) -> None:
    with dag() as made, skyvern_browser_session():
        pass
    ti = FakeTaskInstance(OPEN)
    context = context_of(ti)
    context["task_state_store"] = Store()
    made.get_task(OPEN).execute(context)
    assert ti.xcoms["browser_session"]["ends_with_dag_run"] is True
