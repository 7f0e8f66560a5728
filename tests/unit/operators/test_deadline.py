from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from airflow_skyvern.exceptions import (
    SkyvernWaitTimeout,
)
from airflow_skyvern.runs import cancel
from tests.support.run_workflow_tasks import CANCEL, execute, make, not_found
from tests.support.tasks import run_task

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern


@pytest.mark.slow
def test_a_run_that_takes_too_long_is_canceled_once(skyvern: FakeSkyvern, *, deferrable: bool) -> None:
    workflow = skyvern.workflow(plan=("running",))
    with pytest.raises(SkyvernWaitTimeout, match="did not end in time; it is canceled now") as caught:
        run_task(lambda: make(workflow, deferrable=deferrable, timeout=0.1))
    assert len(skyvern.sent("POST", CANCEL)) == 1
    assert caught.value.run is not None
    assert caught.value.run.status == "canceled"
    assert str(caught.value.run.app_url) in str(caught.value)


@pytest.mark.slow
def test_a_run_that_completes_while_it_is_being_canceled_is_a_success(skyvern: FakeSkyvern) -> None:
    plan = (*["running"] * 1000, "completed")

    def complete() -> None:
        for run in skyvern.runs.values():
            run.step = len(plan) - 1

    skyvern.next("POST", CANCEL, complete)
    assert execute(make(skyvern.workflow(plan=plan, output={"sum": 1}), timeout=0.05)) == {"sum": 1}


@pytest.mark.slow
def test_a_cancel_that_stays_refused_says_that_the_run_may_still_run(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cancel, "DEADLINE_PATIENCE", 0.0)
    skyvern.next("POST", CANCEL, lambda: not_found("Run", skyvern))
    with pytest.raises(SkyvernWaitTimeout, match=r"may still be running: .*Run not found.* See http://localhost"):
        execute(make(skyvern.workflow(plan=("running",)), timeout=0.05))
