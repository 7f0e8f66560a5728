"""Values that Airflow's serializer or database would refuse after the run: what becomes of each."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.results.fitting import DEEPEST, fitted
from tests.support.tasks import FakeTaskInstance, run_task

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
    from tests.unit.conftest import TaskLog

NESTED: Any = "x"
for _ in range(DEEPEST + 10):
    NESTED = [NESTED]

CASES: list[tuple[Any, Any, Any]] = [
    (2**64 - 1, 2**64 - 1, 2**64 - 1),
    (2**64, "18446744073709551616", 2**64),
    (-(2**63) - 1, "-9223372036854775809", -(2**63) - 1),
    (10**5000, hex(10**5000), hex(10**5000)),
    (True, True, True),
    (math.nan, None, None),
    (math.inf, None, None),
    (-math.inf, None, None),
    (1.5, 1.5, 1.5),
    ("a\x00b", "a\ufffdb", "a\x00b"),
    ("a\ud800b", "a\ufffdb", "a\ufffdb"),
    ({"a\x00": 1, "b\udfff": 2}, {"a\ufffd": 1, "b\ufffd": 2}, {"a\x00": 1, "b\ufffd": 2}),
    (
        {1: "a", None: "b", False: "c", 2.5: "d"},
        {"1": "a", "null": "b", "false": "c", "2.5": "d"},
        {"1": "a", "null": "b", "false": "c", "2.5": "d"},
    ),
    ({"__classname__": "x", "n": math.nan}, '{"__classname__": "x", "n": null}', {"__classname__": "x", "n": None}),
    ({"__id__": 2**70}, '{"__id__": 1180591620717411303424}', {"__id__": 2**70}),
    ((1, {2}), [1, [2]], [1, [2]]),
]


@pytest.mark.parametrize(("value", "in_xcom", "in_file"), CASES, ids=map(str, range(len(CASES))))
def test_what_becomes_of_a_value(value: Any, in_xcom: Any, in_file: Any) -> None:
    assert fitted([deepcopy(value)], [], xcom=True) == [in_xcom]
    assert fitted([deepcopy(value)], [], xcom=False) == [in_file]


def test_what_is_nested_too_deep_for_a_recursive_serializer_becomes_text() -> None:
    value = fitted(NESTED, [], xcom=True)
    for _ in range(DEEPEST):
        [value] = value
    assert json.loads(value) == [[[[[[[[[["x"]]]]]]]]]]


def test_keys_that_become_the_same_stay_apart() -> None:
    assert sorted(fitted({"1": "a", 1: "b"}, [], xcom=True).values()) == ["a", "b"]


OUTPUT = '{"page_output": {"id": 18446744073709551616, "rate": NaN, "most": 1e999, "text": "a\\u0000b"}}'


def make(workflow_id: str, **more: Any) -> SkyvernRunWorkflowOperator:
    return SkyvernRunWorkflowOperator(task_id="t", workflow_id=workflow_id, poll_interval=0.01, timeout=20, **more)


def test_an_output_is_pushed_as_airflow_takes_it_and_the_log_names_what_was_changed(
    skyvern: FakeSkyvern, task_log: TaskLog
) -> None:
    workflow_id = skyvern.workflow(output={"page_output": {"id": 2**64, "text": "a\x00b", "n": [1, 2**65]}})
    pushed = run_task(lambda: make(workflow_id))
    assert pushed == {"page_output": {"id": str(2**64), "text": "a\ufffdb", "n": [1, str(2**65)]}}
    assert "page_output.id: an integer beyond 64 bits became text; page_output.text: characters" in task_log()
    assert "page_output.n.1: an integer beyond 64 bits became text" in task_log()


@pytest.mark.slow
def test_what_a_contract_lets_pass_is_fitted_after_it(skyvern: FakeSkyvern) -> None:
    workflow_id = skyvern.workflow(output={"page_output": ["nan", "inf", 1]})
    assert run_task(lambda: make(workflow_id, output_from="page", output_schema=list[float])) == [None, None, 1.0]
    keys = skyvern.workflow(output={"page_output": {"1": 2}})
    assert run_task(lambda: make(keys, output_from="page", output_schema=dict[int, int])) == {"1": 2}


def test_the_whole_run_is_fitted_too(skyvern: FakeSkyvern) -> None:
    workflow_id = skyvern.workflow(output={"page_output": 2**64}, parameters={"number": "integer"})
    value = run_task(lambda: make(workflow_id, parameters={"number": 2**64}, return_run=True))
    assert value["output"] == {"page_output": str(2**64)}
    assert value["parameters"] == {"number": str(2**64)}


def test_a_file_is_always_valid_json(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    workflow_id = skyvern.workflow(output={"page_output": ["nan", "-inf", 2]})
    more: dict[str, Any] = {"output_from": "page", "output_schema": list[float]}
    run_task(lambda: make(workflow_id, output_to=f"{tmp_path}/a.json", **more), FakeTaskInstance())
    assert (tmp_path / "a.json").read_text() == "[null,null,2.0]"
