from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from tests.support.tasks import FakeTaskInstance, run_task

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

OUTPUT = {"fetch_output": {"n": 42}}


def value_of(skyvern: FakeSkyvern, parameters: dict[str, Any], **more: Any) -> Any:
    kinds = dict.fromkeys(parameters, "json") if parameters else {}
    workflow = skyvern.workflow(output=OUTPUT, parameters=kinds)

    def make() -> SkyvernRunWorkflowOperator:
        given: dict[str, Any] = {"task_id": "t", "workflow_id": workflow, "poll_interval": 0.01, "timeout": 20}
        return SkyvernRunWorkflowOperator(**given, parameters=parameters, **more)

    return run_task(make, FakeTaskInstance(map_index=1))


@pytest.mark.parametrize("deferrable", [False, True])
def test_the_value_says_which_run_it_is_of_and_for_which_input(skyvern: FakeSkyvern, *, deferrable: bool) -> None:
    value = value_of(skyvern, {"vendors": {"B", "A"}}, deferrable=deferrable, return_run=True)
    [run_id] = skyvern.runs
    assert value == {
        "run_id": run_id,
        "status": "completed",
        "app_url": f"http://localhost:8080/runs/{run_id}",
        "parameters": {"vendors": ["A", "B"]},
        "output": OUTPUT,
        "files": [],
        "steps": 0,
        "credits": None,
    }
    json.dumps(value)


def test_the_simple_case_stays_the_output(skyvern: FakeSkyvern) -> None:
    assert value_of(skyvern, {}) == OUTPUT


@pytest.mark.parametrize(("mask", "shown"), [(True, "***"), (False, "s3cr3t")])
def test_a_secret_among_the_parameters_is_masked_as_in_the_output(
    skyvern: FakeSkyvern, *, mask: bool, shown: str
) -> None:
    given = {"login": {"password": "s3cr3t", "user": "ann"}}
    value = value_of(skyvern, given, return_run=True, mask_output=mask)
    assert value["parameters"] == {"login": {"password": shown, "user": "ann"}}
    [run] = skyvern.runs.values()
    assert run.parameters == given  # what was sent is whole
    assert given["login"]["password"] == "s3cr3t"
