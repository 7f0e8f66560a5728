"""What is logged of a run's blocks, and what that costs."""

from __future__ import annotations

import asyncio
import json
import time
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.client import api
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.polling.block_requests import LAST_SECONDS, MOST_WAITS
from airflow_skyvern.runs.block_log import INTERVAL, BlockLog
from airflow_skyvern.sensors import SkyvernRunSensor
from airflow_skyvern.triggers.run import SkyvernRunTrigger, SkyvernSensorTrigger
from dev.virtual_time import run_virtually
from tests.support.log_lines import LogLines
from tests.support.polling import PollerRig, play
from tests.support.tasks import deferral, first_event, rebuilt, run_task

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
    from tests.unit.conftest import TaskLog

BLOCKS = [
    {"label": "sign_in", "block_type": "login", "duration": 12.4},
    {"label": "read_invoices", "block_type": "extraction", "duration": 34.0},
    {"label": "get_pdf", "block_type": "file_download", "duration": 61.0},
]


def row(label: str, status: str = "completed", *children: Any, **more: Any) -> dict[str, Any]:
    """A step of a timeline, with what a wait does not read."""
    block = {"label": label, "block_type": "login", "status": status, "output": {"a": 1}, "actions": [{}], **more}
    return {"type": "block", "attempt": 1, "block": block, "thought": None, "children": list(children)}


def logged(*timelines: list[dict[str, Any]], total: int | None = None) -> list[str]:
    """What is logged of timelines, each of which is given oldest first."""
    lines = LogLines()
    blocks = BlockLog("wr_1", lines)
    blocks.set_total({"workflow": {"workflow_definition": {"blocks": [{}] * total}}} if total else None)
    for timeline in timelines:
        blocks.update(api.list_block_rows("wr_1").parse(json.dumps(timeline[::-1]).encode()))
    return [line.removeprefix("Skyvern run wr_1: ") for line in lines.lines]


def test_each_block_is_logged_when_it_has_begun_and_when_it_has_ended() -> None:
    first = [row("sign_in", "running")]
    second = [row("sign_in", duration=34.2), row("read", "running")]
    assert logged(first, first, second, total=5) == [
        "block 1 of 5: sign_in, running",
        "block 1 of 5: sign_in, completed in 34 s",
        "block 2 of 5: read, running",
    ]


@pytest.mark.parametrize(
    ("block", "state"),
    [
        (row("a", "failed", duration=90), "failed after 1 min 30 s"),
        (row("a", created_at="2026-11-26T08:00:00.5", modified_at="2026-11-26T08:00:07.5"), "completed in 7 s"),
        (row("a", created_at="2026-11-26T08:00:00", modified_at="soon"), "completed"),
        (row("a", created_at=None, modified_at="2026-11-26T08:00:00"), "completed"),
        (row("a", "skipped", duration=None), "skipped"),
        (row("a", "thinking"), "thinking"),
        (row("a", "running", row("b", current_index=6), row("b", current_index=5), loop_values=[0] * 20), None),
    ],
)
def test_a_block_that_has_ended_says_how_and_after_how_long(block: dict[str, Any], state: str | None) -> None:
    assert logged([block]) == [f"block 1: a, {state or 'running, at 7 of 20'}"]


def test_the_blocks_of_a_loop_are_not_logged_one_by_one() -> None:
    loop = row("each", "completed", *(row(f"inner{n}", current_index=n) for n in range(500)), duration=4)
    assert logged([loop, row("last", "running")], total=2) == [
        "block 1 of 2: each, completed in 4 s",
        "block 2 of 2: last, running",
    ]


def test_each_attempt_counts_its_blocks_from_one() -> None:
    again = [{**row("a", "failed"), "attempt": 1}, {**row("a", "running"), "attempt": 2}]
    assert logged(again) == ["block 1: a, failed", "block 1: a, running"]


def test_a_workflow_with_branches_may_run_more_blocks_than_a_definition_seems_to_have() -> None:
    assert logged([row("a"), row("b")], total=1) == ["block 1 of 1: a, completed", "block 2: b, completed"]


def test_thoughts_are_no_blocks_and_a_label_stays_one_line() -> None:
    thought = {"type": "thought", "block": None, "thought": {"a": 1}}
    assert logged([thought, row("a\nERROR all is lost")]) == ["block 1: a ERROR all is lost, completed"]


def begin(w: PollerRig, run_id: str, count: int) -> None:
    w.fake.runs[run_id].workflow.plan = [{"status": "running", "blocks": count}]


def add(w: PollerRig) -> str:
    run_id = w.running()
    w.fake.runs[run_id].workflow.blocks = BLOCKS
    return run_id


@pytest.mark.slow
@pytest.mark.parametrize("others", [0, 40])
def test_a_timeline_is_requested_once_a_minute_and_at_the_end(fake: FakeSkyvern, others: int) -> None:
    async def scenario(w: PollerRig) -> None:
        run_id = add(w)
        for _ in range(others):  # with these the runs are listed, not fetched
            w.start(w.running())
        wait = w.start(run_id, log_blocks=True)
        for count in (1, 2, 3):
            begin(w, run_id, count)
            await asyncio.sleep(200)
        assert len(w.timelines) == pytest.approx(10, abs=1)
        assert all(later - earlier >= INTERVAL for earlier, later in pairwise(w.timelines))
        before = len(w.timelines)
        w.end(run_id)
        await wait
        assert len(w.timelines) == before + 1
        text = f"Skyvern run {run_id}: "
        assert [line.removeprefix(text) for line in w.lines.lines if line.startswith(text + "block")] == [
            "block 1 of 3: sign_in, running",
            "block 1 of 3: sign_in, completed in 12 s",
            "block 2 of 3: read_invoices, running",
            "block 2 of 3: read_invoices, completed in 34 s",
            "block 3 of 3: get_pdf, running",
            "block 3 of 3: get_pdf, completed in 1 min 1 s",
        ]
        assert [line for line in w.lines.lines if run_id in line][-1].startswith(f"{text}completed")

    play(fake, scenario)


@pytest.mark.slow
def test_nothing_is_requested_for_waits_that_did_not_ask(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        run_id = add(w)
        wait = w.start(run_id)
        await asyncio.sleep(300)
        w.end(run_id)
        await wait
        assert w.timelines == []

    play(fake, scenario)


@pytest.mark.slow
def test_nothing_is_requested_for_a_run_that_has_not_begun(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        run_id = fake.run(plan=("queued",))
        w.start(run_id, log_blocks=True)
        await asyncio.sleep(300)
        assert w.timelines == []

    play(fake, scenario)


@pytest.mark.slow
def test_the_number_of_blocks_is_requested_once(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        w.start(add(w), log_blocks=True)
        await asyncio.sleep(600)
        assert sum("/workflows/runs/" in path for _, path in w.sent) == 1

    play(fake, scenario)


@pytest.mark.slow
def test_hundreds_of_waits_turn_the_timelines_off_until_there_are_fewer(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        run_id = add(w)
        w.start(run_id, log_blocks=True)
        others = [w.start(w.running()) for _ in range(MOST_WAITS)]
        await asyncio.sleep(300)
        assert w.timelines == []
        told = [line for line in w.lines.lines if "blocks are not logged" in line]
        assert told == [
            f"Skyvern run {run_id}: its blocks are not logged while this triggerer waits for {MOST_WAITS + 1} runs"
        ]
        for other in others:
            other.cancel()
        await asyncio.sleep(100)
        assert w.timelines

    play(fake, scenario)


@pytest.mark.slow
def test_a_triggerer_that_starts_spreads_the_timelines_of_all_its_waits(fake: FakeSkyvern) -> None:
    async def scenario(w: PollerRig) -> None:
        for _ in range(200):
            w.start(add(w), log_blocks=True)
        await asyncio.sleep(10)
        assert len(w.timelines) <= 5
        await asyncio.sleep(60)
        assert len(w.timelines) >= 195

    play(fake, scenario)


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer", [httpx.Response(500), httpx.Response(404, json={"detail": "no"}), httpx.Response(200, text="<html>")]
)
def test_a_timeline_that_cannot_be_read_costs_only_its_lines(fake: FakeSkyvern, answer: httpx.Response) -> None:
    def instead(request: httpx.Request) -> httpx.Response | None:
        if not request.url.path.endswith("/timeline"):
            return None
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    async def scenario(w: PollerRig) -> None:
        w.instead = instead
        run_id = add(w)
        wait = w.start(run_id, log_blocks=True)
        await asyncio.sleep(200)
        polls = len(w.looks(run_id))
        w.end(run_id)
        run = await wait
        assert run is not None
        assert run.status == "completed"
        assert polls >= 35
        assert "block" not in w.lines.text

    play(fake, scenario)


def test_a_timeline_that_does_not_come_holds_the_end_back_for_seconds_only(fake: FakeSkyvern) -> None:
    class Slow(PollerRig):
        async def _answer(self, request: httpx.Request) -> httpx.Response:
            if request.url.path.endswith("/timeline"):
                await asyncio.sleep(50)
            return await super()._answer(request)

    async def scenario() -> None:
        w = Slow(fake)
        run_id = add(w)
        wait = w.start(run_id, log_blocks=True)
        await asyncio.sleep(100)
        w.end(run_id)
        began = w.loop.time()
        run = await wait
        assert run is not None
        assert w.loop.time() - began <= 5.2 + LAST_SECONDS

    run_virtually(scenario())


def test_a_wait_that_was_stored_before_the_option_existed_is_loaded() -> None:
    old = SkyvernRunTrigger("wr_1", "c", 10.0, 1.0).serialize()[1]
    assert "log_blocks" not in old
    assert SkyvernRunTrigger(**old).log_blocks is False


@pytest.mark.parametrize(
    "trigger",
    [
        SkyvernRunTrigger("wr_1", "c", 10.0, 1.0, log_blocks=True),
        SkyvernSensorTrigger("wr_1", "c", 10.0, 1.0, backstop=1.0, log_blocks=True),
    ],
)
def test_the_option_survives_the_database(trigger: SkyvernRunTrigger) -> None:
    again = rebuilt(trigger)
    assert isinstance(again, SkyvernRunTrigger)
    assert again.log_blocks is True


async def test_a_deferred_task_has_the_blocks_in_its_log(skyvern: FakeSkyvern, task_log: TaskLog) -> None:
    run_id = skyvern.run(plan=("running", "completed"), blocks=BLOCKS)
    trigger = SkyvernRunTrigger(run_id, "skyvern_default", 0.01, time.time() + 10, log_blocks=True)
    assert (await first_event(trigger))["status"] == "completed"
    text = task_log()
    assert "block 2 of 3: read_invoices, completed in 34 s" in text
    assert text.index("block 3 of 3: get_pdf") < text.index(f"Skyvern run {run_id}: completed")


def test_a_task_that_waits_on_its_worker_has_the_blocks_in_its_log(skyvern: FakeSkyvern, task_log: TaskLog) -> None:
    workflow_id = skyvern.workflow(plan=("running", "completed"), blocks=BLOCKS)
    operator = SkyvernRunWorkflowOperator(
        task_id="t", workflow_id=workflow_id, deferrable=False, poll_interval=0.01, log_blocks=True
    )
    run_task(lambda: operator)
    text = task_log()
    assert "block 1 of 3: sign_in, completed in 12 s" in text
    assert len(skyvern.sent("GET", "/v1/runs/.*/timeline")) == 1


@pytest.mark.slow
def test_a_task_that_waits_on_its_worker_does_not_need_the_timeline(skyvern: FakeSkyvern) -> None:
    workflow_id = skyvern.workflow(plan=("running", "completed"), output={"a": 1})
    skyvern.next("GET", "/v1/runs/.*/timeline", httpx.Response(404, json={"detail": "no"}))
    operator = SkyvernRunWorkflowOperator(
        task_id="t", workflow_id=workflow_id, deferrable=False, poll_interval=0.01, log_blocks=True
    )
    assert run_task(lambda: operator) == {"a": 1}


def test_operator_and_sensor_pass_the_option_to_their_triggers(skyvern: FakeSkyvern) -> None:
    workflow_id, run_id = skyvern.workflow(plan=("running",)), skyvern.run(("running",))
    tasks = (
        SkyvernRunWorkflowOperator(task_id="o", workflow_id=workflow_id, deferrable=True, log_blocks=True),
        SkyvernRunSensor(task_id="s", run_id=run_id, deferrable=True, log_blocks=True),
    )
    for task in tasks:
        trigger = deferral(task).trigger
        assert isinstance(trigger, SkyvernRunTrigger)
        assert trigger.log_blocks is True
