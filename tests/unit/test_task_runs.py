"""Runs of Skyvern's own endpoint for prompts, which are no runs of workflows: `tsk_…`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.client.settings import Settings
from airflow_skyvern.compat.sdk import AirflowFailException
from airflow_skyvern.exceptions import SkyvernRequestError
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.runs.blocks import has_blocks
from airflow_skyvern.runs.cancel import cancel_unless_ended, cancel_unless_ended_async
from airflow_skyvern.sensors import SkyvernRunSensor
from tests.support.tasks import FakeTaskInstance, run_task

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
    from tests.unit.conftest import TaskLog

TIMELINE = "/v1/runs/.*/timeline"
COST = "/v1/workflows/runs/.*"


def wait(run_id: str, ti: FakeTaskInstance | None = None, **more: Any) -> Any:
    given: dict[str, Any] = {"task_id": "t", "run_id": run_id, "poke_interval": 0.01, "timeout": 20, **more}
    return run_task(lambda: SkyvernRunSensor(**given), ti)


@pytest.fixture(params=[False, True], ids=["on the worker", "deferred"])
def deferrable(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_a_sensor_waits_for_one_and_returns_what_it_has_extracted(skyvern: FakeSkyvern, *, deferrable: bool) -> None:
    ti = FakeTaskInstance()
    run_id = skyvern.task(output={"total": 12.5})
    assert wait(run_id, ti, deferrable=deferrable) == {"total": 12.5}
    assert ti.xcoms == {"run_id": run_id, "app_url": f"http://localhost:8080/tasks/{run_id}"}


def test_that_it_has_no_blocks_costs_no_request(skyvern: FakeSkyvern, task_log: TaskLog, *, deferrable: bool) -> None:
    run_id = skyvern.task(plan=("running", {"status": "completed", "step_count": 3}))
    assert wait(run_id, deferrable=deferrable, log_blocks=True) is None
    assert [skyvern.sent("GET", path) for path in (TIMELINE, COST)] == [[], []]
    assert ": completed, used 3 steps" in task_log()


def test_one_that_failed_says_why(skyvern: FakeSkyvern, *, deferrable: bool) -> None:
    errors = [{"error_code": "REACH_MAX_STEPS"}]
    reason = "Reached the maximum steps (1)."
    run_id = skyvern.task(plan=("running", "failed"), failure_reason=reason, errors=errors)
    with pytest.raises(AirflowFailException, match=f"{run_id} ended as failed: Reached .* It reached its limit of s"):
        wait(run_id, deferrable=deferrable)


def test_its_files_are_stored(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    run_id = skyvern.task(artifacts={"a.pdf": b"%PDF"})
    wait(run_id, files_to=str(tmp_path))
    assert (tmp_path / "a.pdf").read_bytes() == b"%PDF"


def test_output_from_a_block_is_refused_in_words(skyvern: FakeSkyvern) -> None:
    with pytest.raises(AirflowFailException, match="a run of a prompt has no blocks; leave output_from out"):
        wait(skyvern.task(output={"read": 1}), output_from="read")


def test_one_that_skyvern_does_not_know_fails_the_sensor(skyvern: FakeSkyvern, *, deferrable: bool) -> None:
    with pytest.raises(AirflowFailException, match="Task run not found tsk_404"):
        wait("tsk_404", deferrable=deferrable)


def test_the_button_leads_to_it_also_where_people_reach_the_ui_elsewhere() -> None:
    settings = Settings("key", app_url="https://skyvern.example.com")
    assert settings.run_page("http://localhost:8080/tasks/tsk_1") == "https://skyvern.example.com/tasks/tsk_1"
    assert settings.run_page("http://localhost:8080/runs/wr_1") == "https://skyvern.example.com/runs/wr_1"
    assert settings.run_page("http://localhost:8080/else") == "http://localhost:8080/else"


def test_one_that_is_over_cannot_be_canceled_and_is_not(skyvern: FakeSkyvern) -> None:
    hook, run_id = SkyvernHook(), skyvern.task(plan=("completed",))
    hook.get_run(run_id)
    with pytest.raises(SkyvernRequestError, match="from completed to canceled"):
        hook.cancel_run(run_id)
    sent = len(skyvern.sent("POST", ".*/cancel"))
    assert not cancel_unless_ended(hook.send, run_id).canceled
    assert len(skyvern.sent("POST", ".*/cancel")) == sent


def test_one_that_ends_right_before_its_cancel_is_taken_as_it_ended(skyvern: FakeSkyvern) -> None:
    run_id, hook = skyvern.task(plan=("running", "completed")), SkyvernHook()
    refused = f"Invalid task status transition from completed to canceled for {run_id}"
    skyvern.next("POST", ".*/cancel", httpx.Response(400, json={"detail": refused}))
    ended = cancel_unless_ended(hook.send, run_id, sleep=lambda _: None)
    assert ended.run.is_final


def test_a_trigger_that_cancels_does_so_for_one_that_is_active(skyvern: FakeSkyvern) -> None:
    run_id, hook = skyvern.task(plan=("running",)), SkyvernHook()

    async def cancel() -> None:
        async def nap(_: float) -> None:
            """Wait not at all."""

        ended = await cancel_unless_ended_async(
            lambda: hook.aget_run(run_id), lambda: hook.acancel_run(run_id), nap, 60
        )
        assert (ended.canceled, ended.run.status) == (True, "canceled")
        await hook.aclose()

    asyncio.run(cancel())


@pytest.mark.parametrize(("run_id", "known"), [("wr_1", True), ("tsk_1", False), ("tsk_v2_1", True)])
def test_only_simple_prompts_have_no_blocks(run_id: str, *, known: bool) -> None:
    assert has_blocks(run_id) is known
