"""An answer about a run is read whatever the output holds: the run is paid for."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.client import api
from airflow_skyvern.client.uncommon_json import DEEPEST, read
from airflow_skyvern.results.fitting import fitted
from airflow_skyvern.results.masking import OutputMasker
from airflow_skyvern.sensors import SkyvernRunSensor
from tests.support.tasks import run_task

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

PLACE = "the output stands here"


def output_of(raw: str) -> Any:
    """Return the output of a run in whose answer this JSON stands."""
    answer = {
        "run_id": "wr_1",
        "run_type": "workflow_run",
        "status": "completed",
        "created_at": "2026-01-01T00:00:00Z",
        "modified_at": "2026-01-01T00:00:00Z",
        "output": PLACE,
    }
    return api.get_run("wr_1").parse(json.dumps(answer).replace(f'"{PLACE}"', raw).encode()).output


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (r'{"a": "x\ud800y"}', {"a": "x\ufffdy"}),
        (r'{"\udc00": 1}', {"\ufffd": 1}),
        (r'{"a": "\ud83d\ud83d\ude00"}', {"a": "\ufffd\U0001f600"}),
        (r'{"a": "\\ud800", "b": "\ud800"}', {"a": r"\ud800", "b": "\ufffd"}),
        ('{"a": ' + "9" * 5000 + "}", {"a": "9" * 5000}),
        ('{"a": 12, "b": ' + "9" * 5000 + "}", {"a": 12, "b": "9" * 5000}),
    ],
)
def test_what_pydantic_does_not_read_is_read(raw: str, value: Any) -> None:
    assert output_of(raw) == value


@pytest.mark.slow
@pytest.mark.parametrize("levels", [90, 101, 197, 205, 1_100, 100_000])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a": ', "}")])
def test_an_output_of_any_depth_reaches_xcom_without_its_secret(levels: int, opening: str, closing: str) -> None:
    output = output_of(opening * levels + '"[] {password=zX9!kLm2q"' + closing * levels)
    text = json.dumps(fitted(OutputMasker().masked(output), [], xcom=True))
    assert "password=***" in text
    assert "zX9" not in text


def test_what_is_too_deep_is_the_text_of_its_json() -> None:
    value = read(b"[" * (DEEPEST + 2) + b'1, "]"' + b"]" * (DEEPEST + 2))
    for _ in range(DEEPEST):
        [value] = value
    assert json.loads(value) == [[1, "]"]]


@pytest.mark.parametrize("body", [b"", b"<html>", b"[" * 300, b'{"a": [1}', b"]" * 300])
def test_what_is_no_json_says_so_as_before(body: bytes) -> None:
    with pytest.raises(ValueError, match="Invalid JSON"):
        api.get_run("wr_1").parse(body)


def test_a_task_takes_such_an_output(skyvern: FakeSkyvern) -> None:
    nested: Any = "x"
    for _ in range(300):
        nested = [nested]
    run_id = skyvern.run(output={"a": nested, "b": "\ud800", "c": 10**4000})
    output = run_task(lambda: SkyvernRunSensor(task_id="t", run_id=run_id, poke_interval=0.01, timeout=20))
    assert "[[[[" in json.dumps(output)
    assert output["b"] == "\ufffd"
    assert output["c"] == str(10**4000)
