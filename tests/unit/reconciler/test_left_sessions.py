"""Browser sessions that no teardown closes: at the end of their DAG run, and on the command line."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern import cli
from airflow_skyvern.client import retry
from airflow_skyvern.reconciler.ended_dag_runs import EndedDagRun, Outcome, cancel_orphans_of
from airflow_skyvern.runs.key import READABLE_TAGS, TASK_TAG, task_tag
from airflow_skyvern.runs.orphans import Place
from tests.support.metadata_database import LONG_AGO, MetadataDatabase, metadata_database

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

HERE = "production"
PLACE = Place("d", "r", "open_browser_session")
CLOSE = "/v1/browser_sessions/[^/]+/close"


@pytest.fixture(autouse=True)
def _this_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__SKYVERN__INSTALLATION", HERE)
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
    monkeypatch.setattr(retry, "PACE", 0.001)
    monkeypatch.setattr("airflow_skyvern.runs.browser_sessions.CLOSE_INTERVAL", 0.001)
    monkeypatch.setattr("airflow_skyvern.runs.browser_sessions.CLOSE_PATIENCE", 0.05)


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetadataDatabase]:
    with metadata_database(monkeypatch) as database:
        database.dag("d")
        yield database


def note(session: str, **other: Any) -> dict[str, Any]:
    own = {"browser_session_id": session, "skyvern_conn_id": "skyvern_default", "installation": HERE}
    return {**own, "ends_with_dag_run": True, **other}


def ended(run_id: str = "r") -> Outcome:
    return cancel_orphans_of(EndedDagRun(0.0, "d", run_id, LONG_AGO))


def listed(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, list[dict[str, Any]]]:
    status = cli.main(["sessions", "orphans", "--output", "json", *options])
    return status, rows_in(capsys.readouterr().out)


def rows_in(output: str) -> list[dict[str, Any]]:
    """Read the last line: 2.11 logs to the same stream."""
    rows: list[dict[str, Any]] = json.loads(output.splitlines()[-1])
    return rows


def test_a_dag_run_that_ended_without_its_teardown_takes_its_session_with_it(
    skyvern: FakeSkyvern, airflow: MetadataDatabase
) -> None:
    session, other = skyvern.session(), skyvern.session()
    airflow.task("success", PLACE, browser_session=note(session))
    assert ended() is Outcome.DONE
    assert skyvern.open_sessions == [other]


@pytest.mark.parametrize(
    "other",
    [{"installation": "staging"}, {"installation": ""}, {"ends_with_dag_run": False}],
    ids=["of the original of this database", "of an Airflow without a name", "opened without a closing task"],
)
def test_what_is_not_certainly_to_be_closed_is_left(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, other: dict[str, Any]
) -> None:
    session = skyvern.session()
    airflow.task("success", PLACE, browser_session=note(session, **other))
    assert ended() is Outcome.NOTHING
    assert skyvern.open_sessions == [session]
    assert skyvern.requests == []


def test_a_session_of_another_dag_run_is_left(skyvern: FakeSkyvern, airflow: MetadataDatabase) -> None:
    session = skyvern.session()
    airflow.task("success", Place("d", "next", "open_browser_session"), browser_session=note(session))
    ended()
    assert skyvern.open_sessions == [session]


def test_a_dag_run_that_was_cleared_meanwhile_keeps_its_session(
    skyvern: FakeSkyvern, airflow: MetadataDatabase
) -> None:
    session = skyvern.session()
    airflow.task("success", PLACE, browser_session=note(session))
    airflow.set_dag_run_state("running")
    assert ended() is Outcome.NOTHING
    assert skyvern.open_sessions == [session]


def test_a_session_that_the_teardown_has_closed_costs_one_request(
    skyvern: FakeSkyvern, airflow: MetadataDatabase
) -> None:
    session = skyvern.session()
    skyvern.end_session(session)
    airflow.task("success", PLACE, browser_session=note(session))
    assert ended() is Outcome.DONE
    assert [seen.method for seen in skyvern.requests] == ["GET"]


def test_a_close_that_fails_is_tried_again_later(skyvern: FakeSkyvern, airflow: MetadataDatabase) -> None:
    session = skyvern.session()
    airflow.task("success", PLACE, browser_session=note(session))
    skyvern.api_key = "rotated"
    assert ended() is Outcome.FAILED
    skyvern.api_key = "made-up-key-of-the-fake"
    assert ended() is Outcome.DONE
    assert skyvern.open_sessions == []


@pytest.mark.slow
def test_the_command_lists_what_nobody_closes_and_closes_it_only_if_asked(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    session = skyvern.session()
    airflow.task("success", PLACE, changed=datetime.now(timezone.utc), browser_session=note(session))
    status, [row] = listed(capsys, "--min-age", "0s")
    assert (status, row["orphan"], row["reason"], row["action"]) == (3, True, "its DAG run is failed", None)
    assert (row["browser_session_id"], row["dag_run_id"], row["task_id"]) == (session, "r", PLACE.task_id)
    assert skyvern.open_sessions == [session]
    status, [row] = listed(capsys, "--min-age", "0s", "--close")
    assert (status, row["action"], skyvern.open_sessions) == (0, "closed", [])


def test_a_dag_run_that_is_running_keeps_its_session(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    session = skyvern.session()
    airflow.task("success", PLACE, changed=datetime.now(timezone.utc), browser_session=note(session))
    airflow.set_dag_run_state("running")
    status, [row] = listed(capsys, "--min-age", "0s", "--close")
    assert (status, row["reason"], skyvern.open_sessions) == (0, "its DAG run is running", [session])


def run_in(skyvern: FakeSkyvern, session: str, place: Place, installation: str = HERE) -> None:
    tags = dict(zip(READABLE_TAGS, (place.dag_id, place.task_id, place.run_id), strict=True))
    run = skyvern.runs[skyvern.run()]
    run.request["browser_session_id"] = session
    run.tags.update({**tags, TASK_TAG: task_tag(*place, installation)})


def test_a_session_of_which_only_deleted_tasks_are_known_is_named_and_left(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    session = skyvern.session()
    run_in(skyvern, session, Place("d", "deleted", "t"))
    status, [row] = listed(capsys, "--min-age", "0s", "--close")
    assert row["reason"].startswith("all its runs are of tasks that were deleted; if a person has not opened it")
    assert (status, row["orphan"], skyvern.open_sessions) == (0, False, [session])


@pytest.mark.parametrize("whose", ["a person's, without runs", "another Airflow's", "a person's, used by a task"])
def test_sessions_of_others_are_left(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, capsys: pytest.CaptureFixture[str], whose: str
) -> None:
    session = skyvern.session()
    if whose == "another Airflow's":
        run_in(skyvern, session, Place("d", "deleted", "t"), "staging")
    if whose == "a person's, used by a task":
        run_in(skyvern, session, airflow.task("success", Place("d", "r", "t")))
    status, [row] = listed(capsys, "--min-age", "0s", "--close")
    assert (status, row["orphan"], skyvern.open_sessions) == (0, False, [session])


def test_a_young_session_is_left(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    session = skyvern.session()
    skyvern.sessions[session].created_at = datetime.now(timezone.utc)
    airflow.task("success", PLACE, changed=datetime.now(timezone.utc), browser_session=note(session))
    status, [row] = listed(capsys, "--close")
    assert (status, row["orphan"], skyvern.open_sessions) == (0, False, [session])


def test_what_cannot_be_closed_is_told_of(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, capsys: pytest.CaptureFixture[str]
) -> None:
    session = skyvern.session()
    airflow.task("success", PLACE, changed=datetime.now(timezone.utc), browser_session=note(session))
    skyvern.next("POST", CLOSE, *[httpx.Response(400, json={"detail": "no"})])
    assert cli.main(["sessions", "orphans", "--min-age", "0s", "--close", "--output", "json"]) == 1
    captured = capsys.readouterr()
    assert rows_in(captured.out)[0]["action"] == "not closed"
    assert f"browser session {session} may be open" in captured.err
