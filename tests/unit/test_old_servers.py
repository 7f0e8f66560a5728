"""What users of an older Skyvern get: the right result, or one sentence that says what their version cannot do."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.cli import main
from airflow_skyvern.client import api
from airflow_skyvern.client.retry import RetryPolicy
from airflow_skyvern.client.run_request import RunRequest
from airflow_skyvern.client.sender import SkyvernClient
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.compat.sdk import AirflowFailException
from airflow_skyvern.exceptions import SkyvernStartAmbiguous
from airflow_skyvern.finished_runs.poller import active_runs_of, runs_of, starting_watermark
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.runs.key import RunKey
from airflow_skyvern.runs.lookup import TagsRefused
from airflow_skyvern.runs.orphan_search import active_runs
from airflow_skyvern.runs.submission import Attempt, Submission
from airflow_skyvern.runs.twins import cancel_twins
from airflow_skyvern.schedules.guard import SkyvernScheduleGuard
from airflow_skyvern.testing.fake.skyvern import API_KEY, LOST
from tests.support.log_lines import LogLines
from tests.support.polling import PollerRig, play
from tests.support.run_workflow_tasks import CANCEL, START, execute, make
from tests.support.tasks import run_task

if TYPE_CHECKING:
    from airflow_skyvern.client.session import Send
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

OLD = ("1.0.30", "1.0.40", "1.0.45")
WITHOUT_TAGS = [("1.0.30", "below 1.0.40"), ("1.0.40", "1.0.40"), ("1.0.45", "1.0.45")]
TICK = datetime(2026, 11, 24, 1, 30, tzinfo=timezone.utc)


def sending(fake: FakeSkyvern) -> Send:
    transport = httpx.MockTransport(fake.handle)
    return SkyvernClient(Settings(API_KEY), transport=transport, retry=RetryPolicy(attempts=1)).send


def submission(fake: FakeSkyvern, log: LogLines) -> Submission:
    request = RunRequest.of({"workflow_id": fake.workflow(plan=("running",))})
    names: dict[str, Any] = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "max_tries": 1}
    return Submission(sending(fake), request, RunKey.of(**names, request=request), log=log, sleep=lambda _: None)


@pytest.mark.parametrize("deferrable", [True, False])
@pytest.mark.parametrize("version", OLD)
def test_the_main_path_works_without_a_word(skyvern: FakeSkyvern, version: str, *, deferrable: bool) -> None:
    skyvern.version = version
    workflow = skyvern.workflow(output={"ok": True})
    assert run_task(lambda: make(workflow, deferrable=deferrable)) == {"ok": True}
    assert skyvern.sent("GET", "/v1/version") == []


@pytest.mark.parametrize(("version", "named"), WITHOUT_TAGS)
def test_a_retry_names_the_version_for_which_it_finds_nothing(fake: FakeSkyvern, version: str, named: str) -> None:
    fake.version = version
    log = LogLines()
    fake.run(plan=("running",))
    with pytest.raises(SkyvernStartAmbiguous) as caught:
        submission(fake, log).start(Attempt(1))
    assert f"as this Skyvern {named} has no run tags, which came with 1.0.48, and Airflow below 3.3" in str(
        caught.value
    )
    assert "organization" not in str(caught.value)
    assert "There is no Skyvern API" not in f"{caught.value} {log}"
    assert fake.sent("POST", ".*") == []


@pytest.mark.parametrize(("version", "named"), WITHOUT_TAGS)
def test_a_start_without_an_answer_names_the_version(fake: FakeSkyvern, version: str, named: str) -> None:
    fake.version = version
    fake.next("POST", START, LOST)
    with pytest.raises(SkyvernStartAmbiguous, match=f"this Skyvern {named} has no run tags"):
        submission(fake, LogLines()).start(Attempt())
    assert len(fake.runs) == 1


@pytest.mark.parametrize("version", OLD)
def test_nobody_cancels_a_foreign_run(fake: FakeSkyvern, version: str) -> None:
    fake.version = version
    foreign = fake.run(plan=("running",))
    send = sending(fake)
    with pytest.raises(TagsRefused):
        active_runs(send)
    cancel_twins(send, "group", "wr_1", LogLines())
    assert fake.sent("POST", CANCEL) == []
    assert fake.status(foreign) != "canceled"


@pytest.mark.parametrize("version", OLD)
@pytest.mark.parametrize("option", [{"file_ids": ["file_1"]}, {"browser_type": "msedge"}])
def test_a_task_whose_option_would_be_dropped_starts_nothing_and_is_not_retried(
    skyvern: FakeSkyvern, version: str, option: dict[str, Any]
) -> None:
    skyvern.version = version
    with pytest.raises(AirflowFailException, match=r"is too old for .*needs Skyvern 1.0.55 or newer"):
        execute(make(skyvern.workflow(), run_options=option))
    assert skyvern.runs == {}


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1.0.40", "1.0.45"])
async def test_a_watcher_gets_the_runs_of_its_workflow_only(skyvern: FakeSkyvern, version: str) -> None:
    skyvern.version = version
    hook = SkyvernHook()
    ours, foreign = skyvern.workflow(plan=("running",)), skyvern.workflow(plan=("running",))
    mine = [(await hook.arun_workflow(ours)).run_id for _ in range(3)]
    for _ in range(130):
        await hook.arun_workflow(foreign)
    mark = await starting_watermark(hook, ours)
    assert mark.active == set(mine)
    assert {row.run_id for row in await runs_of(hook, [ours], TICK - timedelta(days=1000))} == set(mine)
    assert {row.run_id for row in await active_runs_of(hook, [ours])} == set(mine)
    await hook.aclose()


@pytest.mark.slow
async def test_a_watcher_of_an_idle_workflow_begins_at_its_last_run(skyvern: FakeSkyvern) -> None:
    """On an old server the newest hundred runs may all be foreign; that must not hand over its whole history."""
    skyvern.version = "1.0.45"
    hook = SkyvernHook()
    ours, foreign = skyvern.workflow(plan=("completed",)), skyvern.workflow(plan=("running",))
    run = await hook.arun_workflow(ours)
    await hook.aget_run(run.run_id)
    for _ in range(120):
        await hook.arun_workflow(foreign)
    mark = await starting_watermark(hook, ours)
    ended, _ = mark.take(await runs_of(hook, [ours], mark.since))
    assert ended == []
    await hook.aclose()


@pytest.mark.parametrize("version", ["1.0.40", "1.0.45", "1.0.56"])
def test_no_tick_is_lost_to_a_run_of_the_day_before(skyvern: FakeSkyvern, version: str) -> None:
    skyvern.version = version
    made = skyvern.schedule(skyvern.workflow(), created_at=TICK - timedelta(days=2), modified_at=TICK)
    made.enabled, made.modified_at = False, TICK + timedelta(seconds=30)
    skyvern.fire(made.schedule_id, TICK - timedelta(days=1))
    guard = SkyvernScheduleGuard(task_id="g", workflow_id=made.workflow.workflow_id, schedule_id=made.schedule_id)
    times = {"logical_date": TICK, "data_interval_end": TICK}
    guard.execute({"dag_run": SimpleNamespace(run_type="scheduled"), **times})  # type: ignore[typeddict-item]


@pytest.mark.slow
@pytest.mark.parametrize("version", [*OLD, "1.0.48"])
def test_waits_go_on_over_a_pause_and_share_the_list(fake: FakeSkyvern, version: str) -> None:
    fake.version = version

    async def scenario(rig: PollerRig) -> None:
        running = [rig.running() for _ in range(20)]
        waits = [rig.start(run_id) for run_id in running]
        paused = fake.run(plan=("paused", "completed"))
        wait = rig.start(paused)
        await asyncio.sleep(60)
        assert not wait.done()
        assert len(rig.lists) >= 5
        assert len(rig.looks(running[0])) <= 3
        fake.runs[paused].continued = True
        await asyncio.sleep(30)
        run = await wait
        assert run is not None
        assert run.status == "completed"
        for each in waits:
            each.cancel()

    play(fake, scenario)


@pytest.mark.parametrize(("version", "named"), [*WITHOUT_TAGS, ("1.0.48", "1.0.48"), ("1.0.55", "1.0.55")])
def test_the_test_button_says_what_the_version_cannot_do(skyvern: FakeSkyvern, version: str, named: str) -> None:
    skyvern.version = version
    works, text = SkyvernHook().test_connection()
    assert works
    assert text.startswith("The API key is valid. Server: http://127.0.0.1:")
    assert f"Its version is {named}. Skyvern {named} is too old for: " in text
    assert text.endswith("refused starts that leave no failed run behind. Upgrade it to 1.0.56.")


def test_the_check_knows_a_server_that_does_not_tell_its_version(
    skyvern: FakeSkyvern, capsys: pytest.CaptureFixture[str]
) -> None:
    skyvern.version = "1.0.30"
    only = [part for check in ("server", "key", "version", "clock") for part in ("--only", check)]
    assert main(["check", "-o", "json", *only]) == 0
    printed = capsys.readouterr().out
    lines = {line["check"]: line for line in json.loads(printed[printed.index("[{") :])}
    assert {name: line["state"] for name, line in lines.items() if name != "connection"} == {
        "server": "ok",
        "key": "ok",
        "version": "warning",
        "clock": lines["clock"]["state"],
    }
    assert lines["server"]["fact"] == "Skyvern below 1.0.40 answers."
    assert "too old for: " in lines["version"]["fact"]
    assert "no Skyvern API" not in printed


def test_a_wrong_key_of_an_old_server_is_a_wrong_key(
    skyvern: FakeSkyvern, capsys: pytest.CaptureFixture[str]
) -> None:
    skyvern.version, skyvern.api_key = "1.0.30", "another"
    assert main(["check", "-o", "json", "--only", "server", "--only", "key"]) == 1
    printed = capsys.readouterr().out
    problems = [line["check"] for line in json.loads(printed[printed.index("[{") :]) if line["state"] == "problem"]
    assert problems == ["key"]


def test_a_refused_start_of_an_older_server_leaves_a_run(fake: FakeSkyvern) -> None:
    fake.version = "1.0.55"
    workflow = fake.workflow(parameters={"name": "string"})
    with pytest.raises(Exception, match="Missing value for parameter name"):
        sending(fake)(api.start_run(RunRequest.of({"workflow_id": workflow})))
    assert [fake.status(run_id) for run_id in fake.runs] == ["failed"]
