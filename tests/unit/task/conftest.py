"""Airflow's Required Actions, for the tests of tasks that ask a person."""

from __future__ import annotations

import pytest

from airflow_skyvern.triggers.approval import RequestTrigger
from tests.support.required_actions import RequiredActions


@pytest.fixture
def actions(monkeypatch: pytest.MonkeyPatch) -> RequiredActions:
    pytest.importorskip("airflow.sdk.execution_time.hitl")
    from airflow.sdk.execution_time import task_runner

    known = RequiredActions()
    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", known, raising=False)
    monkeypatch.setattr(RequestTrigger, "answer_interval", 0.02)
    monkeypatch.setattr(RequestTrigger, "slow_answer_interval", 0.02)
    return known


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What Airflow says about the trigger's task."""
    from airflow.sdk.execution_time.task_runner import RuntimeTaskInstance

    answers = ["deferred"]
    monkeypatch.setattr(
        RuntimeTaskInstance, "get_task_states", staticmethod(lambda **_: {"manual__1": {"t": answers[0]}})
    )
    return answers
