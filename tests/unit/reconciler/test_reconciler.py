"""Skyvern's active runs and Airflow's metadata database, compared: by the command line and by the scheduler."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern import cli
from airflow_skyvern.client import retry
from airflow_skyvern.client.answers import NO_TAGS
from airflow_skyvern.compat import since_3_0
from airflow_skyvern.reconciler import listener
from airflow_skyvern.reconciler.airflow_tasks import AirflowTasks
from airflow_skyvern.reconciler.ended_dag_runs import (
    EndedDagRun,
    EndedDagRuns,
    Outcome,
    cancel_orphans_of,
    warn_of_missing_name,
)
from airflow_skyvern.reconciler.sweep import skyvern_connections
from airflow_skyvern.runs.key import ENDS_WITH_TASK, GROUP_TAG, READABLE_TAGS, TASK_TAG, task_tag
from airflow_skyvern.runs.orphans import Place
from tests.support.metadata_database import LONG_AGO, MetadataDatabase, metadata_database
from tests.support.xcom_backends import BACKENDS, FolderXCom

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

HERE = "production"
BASE_URL = f"AIRFLOW__{'API' if since_3_0.is_airflow_3() else 'WEBSERVER'}__BASE_URL"
XCOM_CLASS = f"airflow.{'sdk.execution_time' if since_3_0.is_airflow_3() else 'models'}.xcom.XCom"
PLACE = Place("d", "r", "t")
CREATED = datetime(2026, 11, 22, 20, 0, 2, tzinfo=timezone.utc)
"""When the fake creates its first run."""

NO_SUCH_STATUS = {"type": "enum", "loc": ["query", "status", 1], "msg": "Input should be 'created'"}


@pytest.fixture(autouse=True)
def _this_installation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__SKYVERN__INSTALLATION", HERE)
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")


@pytest.fixture
def airflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[MetadataDatabase]:
    with metadata_database(monkeypatch) as database:
        database.dag("d")
        yield database


def started(skyvern: FakeSkyvern, place: Place = PLACE, *, airflow: str = HERE, group: str = "g", **more: Any) -> str:
    """Start a run as the task does, and return its id."""
    run_id = skyvern.run(**{"plan": ("running",), **more})
    name = place.task_id if place.map_index < 0 else f"{place.task_id}[{place.map_index}]"
    readable = dict(zip(READABLE_TAGS, (place.dag_id, name, place.run_id), strict=True))
    skyvern.runs[run_id].tags = {
        **readable,
        GROUP_TAG: group,
        TASK_TAG: task_tag(*place, airflow),
        **ENDS_WITH_TASK,
    }
    return run_id


def pushed(run_id: str | None, group: str = "g") -> dict[str, Any]:
    """The XComs of a task that has started a run."""
    key = {"skyvern_conn_id": "skyvern_default", "group": group}
    return {"connection_and_run_key": key, **({"run_id": run_id} if run_id else {})}


def deferred_on(run_id: str) -> dict[str, Any]:
    """What a deferral keeps."""
    return {"deadline": 1.0, "skyvern": {"run_id": run_id, "skyvern_conn_id": "skyvern_default", "app_url": None}}


class Orphans:
    """Runs ``airflow-skyvern runs orphans``."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.errors = ""

    def __call__(self, *arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
        self._capsys.readouterr()
        status = cli.main(["runs", "orphans", "-o", "json", *arguments])
        printed = self._capsys.readouterr()
        self.errors = "\n".join(line for line in printed.err.splitlines() if line.startswith("error: "))
        rows = [line for line in printed.out.splitlines() if line.startswith("[")]
        return status, {row["run_id"]: row for row in json.loads(rows[-1])} if rows else {}


@pytest.fixture
def orphans(capsys: pytest.CaptureFixture[str]) -> Orphans:
    return Orphans(capsys)


def test_without_runs_there_is_nothing_to_do(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, orphans: Orphans
) -> None:
    assert orphans() == (0, {})
    assert airflow.statements
    assert skyvern.sent("POST", ".*") == []


@pytest.mark.slow
def test_the_run_of_a_task_that_is_over_is_listed_and_canceled_only_if_asked(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, orphans: Orphans
) -> None:
    run_id = started(skyvern)
    airflow.task("skipped", **pushed(run_id))
    status, rows = orphans()
    assert (status, list(rows)) == (3, [run_id])
    assert rows[run_id] == {
        "run_id": run_id,
        "orphan": True,
        "reason": "its task is skipped",
        "action": None,
        "status": "running",
        "created_at": "2026-11-22T20:00:02Z",
        "dag_id": "d",
        "dag_run_id": "r",
        "task_id": "t",
        "map_index": -1,
        "task_state": "skipped",
        "conn_id": "skyvern_default",
    }
    assert skyvern.status(run_id) == "running"
    status, rows = orphans("--cancel")
    assert (status, rows[run_id]["action"]) == (0, "canceled")
    assert skyvern.status(run_id) == "canceled"
    assert orphans("--cancel") == (0, {})


@pytest.mark.parametrize("output", ["table", "plain", "yaml"])
def test_the_list_can_be_read_by_people(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, capsys: pytest.CaptureFixture[str], output: str
) -> None:
    airflow.task("skipped", **pushed(started(skyvern)))
    assert cli.main(["runs", "orphans", "-o", output]) == 3
    assert "its task is skipped" in " ".join(capsys.readouterr().out.replace("|", " ").split())


@pytest.mark.parametrize("state", ["deferred", "running", "up_for_retry", "queued", "restarting", None])
def test_a_task_that_is_not_over_keeps_its_run(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, orphans: Orphans, state: str | None
) -> None:
    run_id = started(skyvern)
    airflow.task(state, next_kwargs=deferred_on(run_id) if state == "deferred" else None, **pushed(run_id))
    status, rows = orphans("--cancel")
    assert (status, rows[run_id]["orphan"], rows[run_id]["task_state"]) == (0, False, state)
    assert skyvern.status(run_id) == "running"


@pytest.mark.slow
def test_mapped_tasks_are_told_apart(skyvern: FakeSkyvern, airflow: MetadataDatabase, orphans: Orphans) -> None:
    places = [Place("d", "r", "t", index) for index in range(3)]
    runs = [started(skyvern, place, group=f"g{place.map_index}") for place in places]
    for place, run_id, state in zip(places, runs, ("failed", "deferred", "failed"), strict=True):
        airflow.task(state, place, **pushed(run_id, f"g{place.map_index}"))
    status, rows = orphans("--cancel")
    assert status == 0
    assert [rows[run_id]["orphan"] for run_id in runs] == [True, False, True]
    assert [skyvern.status(run_id) for run_id in runs] == ["canceled", "running", "canceled"]


@pytest.mark.slow
def test_a_deleted_task_is_known_by_the_audit_log(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, orphans: Orphans
) -> None:
    run_id = started(skyvern)
    airflow.task("deferred", **pushed(run_id))
    airflow.logged("running", CREATED - timedelta(seconds=2))
    airflow.logged("deferred", CREATED + timedelta(seconds=1))
    assert orphans()[0] == 0
    airflow.delete(PLACE)
    status, rows = orphans("--cancel")
    assert (status, rows[run_id]["reason"]) == (0, "its DAG, DAG run or task was deleted")
    assert skyvern.status(run_id) == "canceled"


def test_a_task_that_this_database_never_saw_is_not_ours(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, orphans: Orphans
) -> None:
    run_id = started(skyvern)
    airflow.logged("running", CREATED - timedelta(days=2))
    airflow.logged("cli_task_run", CREATED - timedelta(seconds=2))
    status, rows = orphans("--cancel")
    assert (status, rows[run_id]["orphan"]) == (0, False)
    assert "its task instance does not exist" in rows[run_id]["reason"]


@pytest.mark.slow
def test_a_dag_whose_file_is_gone_abandons_its_tasks(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, orphans: Orphans
) -> None:
    airflow.dag("gone", present=False)
    airflow.dag("paused", paused=True)
    places = [Place(dag_id, "r", "t") for dag_id in ("gone", "never_there", "paused")]
    runs = [started(skyvern, place) for place in places]
    for place, run_id in zip(places, runs, strict=True):
        airflow.task("up_for_retry", place, **pushed(run_id))
    status, rows = orphans("--cancel")
    assert status == 0
    assert [rows[run_id]["orphan"] for run_id in runs] == [True, True, False]
    assert rows[runs[2]]["reason"] == "its task is up_for_retry and its DAG is paused"


def test_of_two_runs_of_one_start_the_one_that_is_waited_for_stays(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, orphans: Orphans
) -> None:
    taken, twin = started(skyvern), started(skyvern)
    airflow.task("deferred", next_kwargs=deferred_on(taken), **pushed(taken))
    status, rows = orphans("--cancel")
    assert (status, rows[taken]["orphan"], rows[twin]["orphan"]) == (0, False, True)
    assert rows[twin]["reason"] == f"the same start was carried out twice: its task waits for {taken}"
    assert (skyvern.status(taken), skyvern.status(twin)) == ("running", "canceled")


@pytest.mark.parametrize("known", ["rendered", "deferral", "trigger", "template"])
def test_a_run_that_another_task_waits_for_stays(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, orphans: Orphans, known: str
) -> None:
    run_id, sensor = started(skyvern), Place("d2", "r", "sensor")
    airflow.task("failed", **pushed(run_id))
    if known == "rendered":
        airflow.task("up_for_reschedule", sensor)
        airflow.rendered(sensor, run_id=run_id, skyvern_conn_id="skyvern_default")
    elif known == "deferral":
        airflow.task("deferred", sensor, next_kwargs=deferred_on(run_id))
    else:
        sensor = Place("d", "r", "sensor")
        argument = run_id if known == "trigger" else "{{ ti.xcom_pull(task_ids='t', map_indexes=-1) }}"
        trigger = airflow.trigger("airflow_skyvern.triggers.SkyvernSensorTrigger", run_id=argument)
        airflow.task("deferred", sensor, trigger_id=trigger)
    status, rows = orphans("--cancel")
    assert (status, rows[run_id]["reason"]) == (0, f"{sensor} waits for it")
    assert skyvern.status(run_id) == "running"


def test_a_sensor_that_is_over_waits_for_nothing(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, orphans: Orphans
) -> None:
    run_id, sensor = started(skyvern), Place("d2", "r", "sensor")
    airflow.task("failed", **pushed(run_id))
    airflow.task("success", sensor)
    airflow.rendered(sensor, run_id=run_id)
    assert orphans("--cancel")[1][run_id]["action"] == "canceled"


@pytest.mark.parametrize("installation", ["staging", ""])
def test_another_airflow_cancels_nothing_even_with_a_copy_of_the_database(
    skyvern: FakeSkyvern,
    airflow: MetadataDatabase,
    orphans: Orphans,
    monkeypatch: pytest.MonkeyPatch,
    installation: str,
) -> None:
    monkeypatch.setenv("AIRFLOW__SKYVERN__INSTALLATION", installation)
    monkeypatch.setenv(BASE_URL, "http://localhost:8080")
    run_id, nameless = started(skyvern), started(skyvern, Place("d", "r", "u"), airflow="")
    for place, started_run in ((PLACE, run_id), (Place("d", "r", "u"), nameless)):
        airflow.task("failed", place, **pushed(started_run))
    status, rows = orphans("--cancel")
    assert not any(row["orphan"] for row in rows.values())
    assert skyvern.sent("POST", ".*") == []
    assert status == (0 if installation else 1)
    assert ("set [skyvern] installation" in orphans.errors) is not bool(installation)


def test_two_airflows_with_names_cancel_only_their_own(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, orphans: Orphans
) -> None:
    ours, theirs = started(skyvern), started(skyvern, airflow="staging", group="h")
    airflow.task("failed", **pushed(ours))
    status, rows = orphans("--cancel")
    assert (status, list(rows)) == (0, [ours, theirs])
    assert "of another Airflow" in rows[theirs]["reason"]
    assert skyvern.status(theirs) == "running"


def test_a_run_that_may_outlive_its_task_is_not_even_listed(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, orphans: Orphans
) -> None:
    run_id = started(skyvern)
    del skyvern.runs[run_id].tags["airflow_ends_with_task"]
    airflow.task("success", run_id=run_id)
    assert orphans("--cancel") == (0, {})


@pytest.mark.parametrize(("min_age", "orphan"), [("0s", True), ("10m", True), ("999999d", False)])
def test_the_least_age_is_an_option(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, orphans: Orphans, min_age: str, *, orphan: bool
) -> None:
    run_id = started(skyvern)
    airflow.task("failed", **pushed(run_id))
    assert orphans("--min-age", min_age)[1][run_id]["orphan"] is orphan


@pytest.mark.parametrize("min_age", ["10", "m", "-5m", "1w", "ten minutes", "1.5h"])
def test_a_least_age_that_is_none_is_refused(min_age: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(["runs", "orphans", f"--min-age={min_age}"])
    assert caught.value.code == 2
    assert "write 90s, 10m, 2h or 1d" in capsys.readouterr().err


@pytest.mark.slow
def test_more_than_a_page_of_runs_takes_few_requests_and_statements(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, orphans: Orphans
) -> None:
    runs = {}
    for number in range(250):
        place = Place("d", f"r{number}", "t")
        runs[number] = started(skyvern, place, group=f"g{number}")
        airflow.task("failed" if number == 123 else "deferred", place, **pushed(runs[number], f"g{number}"))
    airflow.statements.clear()
    status, rows = orphans()
    assert (status, len(rows)) == (3, 250)
    assert [row["run_id"] for row in rows.values() if row["orphan"]] == [runs[123]]
    reads = [text for text in airflow.statements if text.startswith("SELECT")]
    assert len(reads) < 10
    assert len(skyvern.requests) < 12


@pytest.mark.slow
def test_a_start_that_comes_while_this_reads_is_not_taken_for_an_orphan(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, orphans: Orphans
) -> None:
    """A cleared task: its row says "failed" when it is read first, and it runs again before the cancel."""
    run_id = started(skyvern)
    airflow.task("failed", **pushed(run_id))

    def cleared() -> None:
        airflow.delete(PLACE)
        airflow.task("running", **pushed(run_id))

    skyvern.next("GET", f"/v1/workflows/runs/{run_id}", cleared)
    status, rows = orphans("--cancel")
    assert (status, rows[run_id]["orphan"], rows[run_id]["reason"]) == (0, False, "its task is running")
    assert skyvern.status(run_id) == "running"


@pytest.mark.slow
def test_a_run_that_ends_meanwhile_is_not_canceled(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, orphans: Orphans
) -> None:
    run_id = started(skyvern, plan=("running", "completed"))
    airflow.task("failed", **pushed(run_id))
    assert orphans("--cancel")[0] == 0
    assert skyvern.sent("POST", ".*/cancel") == []


@pytest.mark.slow
def test_what_cannot_be_canceled_is_told_of(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, orphans: Orphans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "REFUSAL_PATIENCE", 0.0)
    first, second = started(skyvern), started(skyvern, Place("d", "r", "u"), group="h")
    airflow.task("failed", **pushed(first))
    airflow.task("failed", Place("d", "r", "u"), **pushed(second, "h"))
    refusal = httpx.Response(400, json={"detail": "Invalid run type to cancel: x"})
    skyvern.next("POST", f"/v1/runs/{second}/cancel", refusal)
    status, rows = orphans("--cancel")
    assert (status, rows[first]["action"], rows[second]["action"]) == (1, "canceled", "not canceled")
    assert f"Skyvern run {second} may still be running" in orphans.errors


@pytest.mark.slow
@pytest.mark.parametrize("backend", BACKENDS)
def test_xcoms_are_read_by_their_backend(
    skyvern: FakeSkyvern,
    airflow: MetadataDatabase,
    orphans: Orphans,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    backend: Any,
) -> None:
    monkeypatch.setenv("XCOM_FOLDER", str(tmp_path))
    monkeypatch.setattr(XCOM_CLASS, backend)
    run_id = started(skyvern)
    airflow.stored_by = backend.serialize_value
    airflow.task("failed", **pushed(run_id))
    assert orphans("--cancel")[1][run_id]["action"] == "canceled"


@pytest.mark.slow
def test_an_xcom_that_its_backend_cannot_read_leaves_the_decision_to_the_audit_log(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, orphans: Orphans, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = started(skyvern)
    airflow.task("failed", **pushed(run_id))
    monkeypatch.setattr(XCOM_CLASS, FolderXCom)
    assert orphans("--cancel")[1][run_id]["orphan"] is False
    airflow.logged("running", CREATED - timedelta(seconds=2))
    assert orphans("--cancel")[1][run_id]["action"] == "canceled"


@pytest.mark.slow
def test_every_connection_is_read_and_a_run_is_listed_once(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, orphans: Orphans, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = started(skyvern)
    airflow.task("failed", **pushed(run_id))
    value = os.environ["AIRFLOW_CONN_SKYVERN_DEFAULT"]
    monkeypatch.setenv("AIRFLOW_CONN_SECOND", value)
    monkeypatch.setenv("AIRFLOW_CONN_OTHER", "http://example.com")
    monkeypatch.setenv("AIRFLOW_CONN_BROKEN", "{no json")
    assert skyvern_connections() == ["second", "skyvern_default"]
    status, rows = orphans()
    assert (status, len(rows)) == (3, 1)
    assert orphans("--conn-id", "skyvern_default", "--conn-id", "nowhere")[0] == 1
    assert "nowhere" in orphans.errors


def test_connections_of_the_database_are_found(airflow: MetadataDatabase) -> None:
    assert skyvern_connections() == ["skyvern_default"]
    airflow.connection("one")
    airflow.connection("postgres", "postgres")
    airflow.connection("two")
    assert skyvern_connections() == ["one", "two"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "answer", "complaint"),
    [
        ("/v1/runs", httpx.Response(403, json={"detail": NO_TAGS}), "cannot be found by their tags"),
        ("/v1/runs", httpx.Response(422, json={"detail": [NO_SUCH_STATUS]}), "cannot be found by their tags"),
        ("/v1/run-tags", httpx.Response(404, json={"detail": "Not Found"}), "cannot be found by their tags here"),
    ],
    ids=["an organization without tags", "an old server", "no tags at all"],
)
def test_a_server_without_tags_is_told_of(
    skyvern: FakeSkyvern,
    airflow: MetadataDatabase,
    orphans: Orphans,
    path: str,
    answer: httpx.Response,
    complaint: str,
) -> None:
    airflow.task("failed", **pushed(started(skyvern)))
    skyvern.next("GET", path, *[answer] * (5 if path == "/v1/run-tags" else 1))  # what names no run may be a proxy's
    assert orphans("--cancel")[0] == 1
    assert complaint in orphans.errors
    assert skyvern.sent("POST", ".*") == []


@pytest.mark.slow
def test_a_skyvern_that_is_away_is_told_of(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, orphans: Orphans, monkeypatch: pytest.MonkeyPatch
) -> None:
    airflow.task("failed")
    nobody = '{"conn_type": "skyvern", "host": "http://127.0.0.1:9", "password": "key"}'
    monkeypatch.setenv("AIRFLOW_CONN_SKYVERN_DEFAULT", nobody)
    monkeypatch.setattr("airflow_skyvern.client.retry.RetryPolicy.base", 0.01)
    assert orphans()[0] == 1
    assert orphans.errors.startswith("error: connection skyvern_default")
    assert skyvern.requests == []


def test_a_server_that_ignores_the_filter_is_no_danger(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, orphans: Orphans, monkeypatch: pytest.MonkeyPatch
) -> None:
    foreign = skyvern.run(plan=("running",))
    airflow.task("failed", **pushed(foreign))
    chosen = type(skyvern)._chosen

    def ignoring(self: FakeSkyvern, seen: Any) -> Any:
        seen.query.pop("tags", None)
        return chosen(self, seen)

    monkeypatch.setattr(type(skyvern), "_chosen", ignoring)
    assert orphans("--cancel") == (0, {})


# In the scheduler.


def just_ended(dag_id: str = "d", run_id: str = "r") -> EndedDagRun:
    return EndedDagRun(0.0, dag_id, run_id, datetime.now(timezone.utc))


@pytest.mark.slow
def test_a_dag_run_that_ended_takes_the_runs_of_its_tasks_with_it(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, caplog: pytest.LogCaptureFixture
) -> None:
    now = datetime.now(timezone.utc)
    runs = {}
    for task_id, state in (("skipped_between_tries", "skipped"), ("teardown", "deferred")):
        place = Place("d", "r", task_id)
        runs[task_id] = started(skyvern, place, group=task_id)
        airflow.task(state, place, changed=now, **pushed(runs[task_id], task_id))
    elsewhere = started(skyvern, Place("d", "r2", "t"))
    airflow.task("skipped", Place("d", "r2", "t"), changed=now, **pushed(elsewhere))
    with caplog.at_level("WARNING"):
        assert cancel_orphans_of(just_ended()) is Outcome.DONE
    assert [skyvern.status(run_id) for run_id in (*runs.values(), elsewhere)] == ["canceled", "running", "running"]
    assert f"{runs['skipped_between_tries']}: canceled, as r of d has ended and its task is skipped" in caplog.text


@pytest.mark.slow
def test_a_run_is_found_although_a_retry_that_came_to_nothing_has_deleted_the_xcoms(
    skyvern: FakeSkyvern, airflow: MetadataDatabase
) -> None:
    """Airflow deletes a task's XComs as a retry begins; one that is killed right then pushes none."""
    now, run_id = datetime.now(timezone.utc), started(skyvern)
    place = airflow.task("failed", changed=now)
    airflow.rendered(place, skyvern_conn_id="skyvern_default", workflow_id="wpid_1")
    airflow.logged("running", CREATED - timedelta(seconds=2))
    assert cancel_orphans_of(just_ended()) is Outcome.DONE
    assert skyvern.status(run_id) == "canceled"


@pytest.mark.slow
def test_a_run_that_waits_for_its_own_next_attempt_is_found_too(
    skyvern: FakeSkyvern, airflow: MetadataDatabase
) -> None:
    run_id = started(skyvern, plan=({"status": "failed", "retry_pending": True},))
    skyvern.runs[run_id].look()
    airflow.task("skipped", changed=datetime.now(timezone.utc), **pushed(run_id))
    assert cancel_orphans_of(just_ended()) is Outcome.DONE
    assert skyvern.runs[run_id].canceled


@pytest.mark.parametrize("why", ["no task of ours", "it ended long ago", "no name"])
def test_a_dag_run_without_anything_to_cancel_costs_no_request(
    skyvern: FakeSkyvern, airflow: MetadataDatabase, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    changed = LONG_AGO if why == "it ended long ago" else datetime.now(timezone.utc)
    airflow.task("skipped", changed=changed, **(pushed(started(skyvern)) if why != "no task of ours" else {}))
    if why == "no name":
        monkeypatch.setenv("AIRFLOW__SKYVERN__INSTALLATION", "")
        monkeypatch.setenv(BASE_URL, "")
        warn_of_missing_name.cache_clear()
    assert cancel_orphans_of(just_ended()) is Outcome.NOTHING
    assert skyvern.requests == []


@pytest.mark.slow
def test_a_look_that_fails_says_so(skyvern: FakeSkyvern, airflow: MetadataDatabase) -> None:
    run_id = started(skyvern)
    airflow.task("skipped", changed=datetime.now(timezone.utc), **pushed(run_id))
    skyvern.next("GET", "/v1/runs", httpx.Response(403, json={"detail": NO_TAGS}))
    assert cancel_orphans_of(just_ended()) is Outcome.FAILED
    assert cancel_orphans_of(just_ended()) is Outcome.DONE
    assert skyvern.status(run_id) == "canceled"


class Clock:
    """A clock that jumps to each moment at which something is due."""

    def __init__(self) -> None:
        self.now = 0.0
        self.step = 100.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def looked(outcomes: list[Outcome | Exception], looks: tuple[float, ...]) -> list[EndedDagRun]:
    """Let a DAG run end, and return how often it was looked at."""
    seen: list[EndedDagRun] = []

    def look(ended: EndedDagRun) -> Outcome:
        seen.append(ended)
        outcome = outcomes.pop(0) if outcomes else Outcome.DONE
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    queue = EndedDagRuns(look, clock=Clock())
    queue.add("d", "r", looks)
    assert queue.join(10)
    return seen


@pytest.mark.parametrize(
    ("outcomes", "looks", "times"),
    [
        ([], (10.0, 60.0), 2),
        ([], (10.0,), 1),
        ([Outcome.NOTHING], (10.0, 60.0), 1),
        ([Outcome.FAILED, RuntimeError("the database is away")], (10.0, 60.0), 4),
        ([Outcome.FAILED] * 99, (10.0, 60.0), 11),
    ],
    ids=["twice", "once", "nothing there", "repeated", "given up"],
)
def test_a_dag_run_is_looked_at(outcomes: list[Outcome | Exception], looks: tuple[float, ...], times: int) -> None:
    assert len(looked(outcomes, looks)) == times


def test_the_listener_only_notes_two_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def look(ended: EndedDagRun) -> Outcome:
        seen.append(f"{ended.dag_id} {ended.run_id}")
        return Outcome.DONE

    queue = EndedDagRuns(look, clock=Clock())
    monkeypatch.setattr(listener, "ended_dag_runs", lambda: queue)

    class DagRunOfAirflow:
        """Fails where anything but the ids is asked for: its session is the scheduler's."""

        dag_id, run_id = "d", "r"

        def __getattr__(self, name: str) -> Any:
            raise AssertionError(name)

    hooks: list[Callable[..., None]] = [listener.on_dag_run_failed, listener.on_dag_run_success]
    for notify in hooks:
        notify(dag_run=DagRunOfAirflow())
    assert queue.join(10)
    assert seen == ["d r"] * 4  # each twice


def test_periods_of_a_task_are_read_from_the_audit_log(airflow: MetadataDatabase) -> None:
    minutes = [LONG_AGO + timedelta(minutes=number) for number in range(6)]
    for what, when in zip(("running", "deferred", "running", "failed", "cli", "running"), minutes, strict=True):
        airflow.logged(what, when)
    periods = AirflowTasks().periods([PLACE])[PLACE]
    assert periods == [(minutes[0], minutes[1]), (minutes[2], minutes[3]), (minutes[5], None)]
