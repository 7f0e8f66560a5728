"""Where an output goes: into XCom with a warning, into a file, or nowhere as it is too large."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.compat.sdk import AirflowFailException
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernOutputTooLarge
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.sensors import SkyvernRunSensor
from tests.support.tasks import FakeTaskInstance, run_task

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
    from tests.unit.conftest import TaskLog

OUTPUT = {"fetch_output": {"request_headers": {"Authorization": "Bearer s3cr3t"}, "text": "größer"}}
WRITTEN = {"fetch_output": {"request_headers": {"Authorization": "***"}, "text": "größer"}}
LARGE = {"page_output": "x" * 2_000_000}


def make(workflow_id: str, **more: Any) -> SkyvernRunWorkflowOperator:
    given: dict[str, Any] = {"task_id": "t", "workflow_id": workflow_id, "poll_interval": 0.01, "timeout": 20, **more}
    return SkyvernRunWorkflowOperator(**given)


@pytest.mark.parametrize("deferrable", [False, True])
def test_an_output_is_written_into_a_file_and_a_reference_is_pushed(
    skyvern: FakeSkyvern, tmp_path: Path, *, deferrable: bool
) -> None:
    workflow_id = skyvern.workflow(output=OUTPUT)
    address = f"{tmp_path}/new/{{skyvern_run_id}}.json"
    pushed = run_task(lambda: make(workflow_id, output_to=address, deferrable=deferrable))
    [file] = (tmp_path / "new").iterdir()
    content = file.read_bytes()
    assert file.name == f"{next(iter(skyvern.runs))}.json"
    assert json.loads(content) == WRITTEN
    assert pushed == {"path": str(file), "size": len(content), "checksum": hashlib.sha256(content).hexdigest()}


def test_the_sensor_writes_it_too_and_again_in_the_same_place(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    run_id = skyvern.run(output=OUTPUT)
    address = f"file://{tmp_path}/output.json"
    sensor: dict[str, Any] = {"task_id": "t", "run_id": run_id, "output_to": address, "poke_interval": 0.01}
    references = [run_task(lambda: SkyvernRunSensor(**sensor)) for _ in range(2)]
    assert references[0] == references[1]
    assert [file.name for file in tmp_path.iterdir()] == ["output.json"]


def test_the_chosen_and_validated_part_is_written(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    workflow_id = skyvern.workflow(output={"compute_output": [{"total": "1"}]})
    given = {"output_from": "compute", "output_schema": list[dict[str, float]]}
    run_task(lambda: make(workflow_id, output_to=f"{tmp_path}/a.json", **given))
    assert json.loads((tmp_path / "a.json").read_text()) == [{"total": 1.0}]


def test_output_to_is_a_template() -> None:
    for kind in (SkyvernRunWorkflowOperator, SkyvernRunSensor):
        assert {"output_to", "output_conn_id"} <= set(kind.template_fields)


@pytest.mark.slow
def test_a_failure_to_write_keeps_the_run_for_the_retry(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    def take_the_place() -> None:
        (tmp_path / "folder").write_text("a file where a folder is needed")

    skyvern.next("POST", "/v1/run/workflows", take_the_place)
    workflow_id = skyvern.workflow(output=OUTPUT)
    ti = FakeTaskInstance()
    ti.max_tries = 1
    given = {"output_to": f"{tmp_path}/folder/a.json", "retries": 1}
    with pytest.raises(OSError, match="folder"):
        run_task(lambda: make(workflow_id, **given), ti)
    (tmp_path / "folder").unlink()
    ti.try_number = 2
    assert run_task(lambda: make(workflow_id, **given), ti)["path"] == f"{tmp_path}/folder/a.json"
    assert len(skyvern.runs) == 1


@pytest.mark.parametrize("address", ["relative.json", "s3://bucket/folder/", "", 5])
def test_what_is_no_file_is_found_when_the_dag_is_parsed(address: Any) -> None:
    with pytest.raises(SkyvernConfigError, match="Task 't': output_to must be the absolute path of a file or"):
        make("wpid_1", output_to=address)


def test_a_task_that_gets_no_output_writes_none() -> None:
    with pytest.raises(SkyvernConfigError, match="output_to: this task does not wait for an output"):
        make("wpid_1", output_to="/tmp/a.json", wait_for_completion=False)


def test_a_template_that_became_no_file_starts_no_run(skyvern: FakeSkyvern) -> None:
    operator = make(skyvern.workflow(), output_to="{{ params.place }}")
    operator.output_to = "None"
    with pytest.raises(AirflowFailException, match="output_to must be the absolute path of a file"):
        run_task(lambda: operator)
    assert skyvern.runs == {}


@pytest.mark.slow
def test_a_large_output_in_xcom_is_pushed_with_a_warning(skyvern: FakeSkyvern, task_log: TaskLog) -> None:
    workflow_id = skyvern.workflow(output=LARGE)
    assert run_task(lambda: make(workflow_id)) == LARGE
    assert "the output has 2.0 MB, and Airflow stores it in its database. output_to=" in task_log()


@pytest.mark.slow
def test_an_output_of_usual_size_needs_no_warning(skyvern: FakeSkyvern, task_log: TaskLog) -> None:
    workflow_id = skyvern.workflow(output={"page_output": "x" * 1_000_000})
    run_task(lambda: make(workflow_id))
    assert "output_to" not in task_log()


@pytest.mark.slow
def test_an_output_that_is_too_large_for_xcom_is_an_error_and_the_retry_takes_the_same_run(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AIRFLOW__SKYVERN__MAX_XCOM_BYTES", "1000000")
    workflow_id = skyvern.workflow(output=LARGE)
    ti = FakeTaskInstance()
    ti.max_tries = 1
    with pytest.raises(
        SkyvernOutputTooLarge, match=r"2\.0 MB.*\[skyvern\] max_xcom_bytes.*output_to=.*takes the same"
    ):
        run_task(lambda: make(workflow_id, retries=1), ti)
    ti.try_number = 2
    reference = run_task(lambda: make(workflow_id, retries=1, output_to=f"{tmp_path}/a.json"), ti)
    assert reference["size"] > 2_000_000
    assert len(skyvern.runs) == 1


@pytest.mark.slow
def test_an_answer_that_is_too_large_to_read_fails_at_once(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__SKYVERN__MAX_ANSWER_BYTES", "1000000")
    workflow_id = skyvern.workflow(output=LARGE)
    with pytest.raises(AirflowFailException, match=r"larger than 1,000,000 bytes\. .* raise max_answer_bytes"):
        run_task(lambda: make(workflow_id))
    assert len(skyvern.sent("GET", "/v1/runs/wr_[^/]+")) <= 4  # running, completed, before and after canceling


def test_a_start_whose_answer_is_too_large_may_have_started_a_run(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__SKYVERN__MAX_ANSWER_BYTES", "100000")
    skyvern.next("POST", "/v1/run/workflows", lambda: httpx.Response(200, content=b" " * 200_000))
    workflow_id = skyvern.workflow(output={"a": 1})
    assert run_task(lambda: make(workflow_id)) == {"a": 1}
    assert len(skyvern.runs) == 1


def test_nul_characters_are_replaced_in_xcom_as_postgresql_refuses_them(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    output = {"page_output": ["a\x00b", "a\\u0000b", "\\\x00", "a\\b"]}
    workflow_id = skyvern.workflow(output=output)
    pushed = run_task(lambda: make(workflow_id))
    assert pushed == {"page_output": ["a\ufffdb", "a\\u0000b", "\\\ufffd", "a\\b"]}
    run_task(lambda: make(workflow_id, output_to=f"{tmp_path}/a.json"))
    assert json.loads((tmp_path / "a.json").read_text()) == output
