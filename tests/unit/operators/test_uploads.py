"""Files that are sent for a run: when, how often, and what a retry finds the run by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httpx
import pytest

from airflow_skyvern.compat.sdk import AirflowFailException
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernConnectionError, SkyvernStartUnknown
from airflow_skyvern.limits import LARGEST_UPLOAD
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.testing.fake.skyvern import LOST
from tests.support.tasks import FakeTaskInstance, run_task

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
    from tests.unit.conftest import TaskLog

START = "/v1/run/workflows"
UPLOAD = "/v1/upload_file"
ROWS = b"item,price\na,1\n"


@pytest.fixture
def statement(tmp_path: Path) -> Path:
    path = tmp_path / "statement.csv"
    path.write_bytes(ROWS)
    return path


@pytest.fixture
def workflow(skyvern: FakeSkyvern) -> str:
    return skyvern.workflow(parameters={"statement": "file_url", "vendor": "string"}, defaults={"vendor": "ACME"})


@pytest.fixture
def ti() -> FakeTaskInstance:
    instance = FakeTaskInstance()
    instance.max_tries = 3
    return instance


def make(workflow_id: str, path: Any, **more: Any) -> SkyvernRunWorkflowOperator:
    given: dict[str, Any] = {"task_id": "t", "poll_interval": 0.01, "timeout": 20, "retries": 3, **more}
    return SkyvernRunWorkflowOperator(workflow_id=workflow_id, upload={"statement": str(path)}, **given)


def attempt(operator: SkyvernRunWorkflowOperator, ti: FakeTaskInstance) -> Any:
    try:
        return run_task(lambda: operator, ti)
    finally:
        ti.try_number += 1


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_file_is_sent_before_the_start_and_its_id_takes_the_place_of_its_address(
    skyvern: FakeSkyvern, workflow: str, statement: Path, scheme: str, *, durable: bool
) -> None:
    given = {"parameters": {"vendor": "EMCA"}, "run_options": {"file_ids": []}, "durable": durable}
    run_task(lambda: make(workflow, f"{scheme}{statement}", **given))
    [(file_id, (name, content))] = skyvern.uploads.items()
    assert (name, content) == ("statement.csv", ROWS)
    [started] = skyvern.sent("POST", START)
    assert started.json["parameters"] == {"vendor": "EMCA", "statement": file_id}
    assert started.json["file_ids"] == [file_id]
    posts = [seen.path for seen in skyvern.requests if seen.method == "POST"]
    assert posts == [UPLOAD, START]


def test_files_of_the_author_are_attached_too(skyvern: FakeSkyvern, workflow: str, statement: Path) -> None:
    skyvern.uploads["file_1"] = ("a.txt", b"")
    run_task(lambda: make(workflow, statement, run_options={"file_ids": ["file_1"]}))
    [started] = skyvern.sent("POST", START)
    assert started.json["file_ids"] == ["file_1", started.json["parameters"]["statement"]]


def test_a_retry_that_resumes_a_run_sends_no_file(
    skyvern: FakeSkyvern, workflow: str, statement: Path, ti: FakeTaskInstance
) -> None:
    def fail(key: str) -> None:
        raise KeyError(key)

    ti.on_push = lambda key: fail(key) if key == "run_id" else None
    with pytest.raises(KeyError):
        attempt(make(workflow, statement, cancel_on_kill=False), ti)
    ti.on_push = lambda key: None
    statement.unlink()
    attempt(make(workflow, statement), ti)
    assert len(skyvern.sent("POST", UPLOAD)) == len(skyvern.sent("POST", START)) == 1


@pytest.mark.slow
def test_the_run_of_a_lost_start_is_found_although_the_file_has_another_id_each_time(
    skyvern: FakeSkyvern, workflow: str, statement: Path, ti: FakeTaskInstance
) -> None:
    ti.map_index = 0  # the key of a mapped task holds its input
    skyvern.next("POST", START, LOST)
    skyvern.next("GET", "/v1/runs", *[httpx.Response(200, json=[])] * 2)
    with pytest.raises(SkyvernStartUnknown):
        attempt(make(workflow, statement, lost_start_timeout=1e-6), ti)
    attempt(make(workflow, statement), ti)
    assert len(skyvern.sent("POST", UPLOAD)) == len(skyvern.sent("POST", START)) == len(skyvern.runs) == 1


@pytest.mark.slow
def test_another_file_at_the_same_index_is_another_input(
    skyvern: FakeSkyvern, workflow: str, statement: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.csv"
    other.write_bytes(ROWS)
    for path in (statement, other):
        mapped = FakeTaskInstance(map_index=0)
        run_task(lambda path=path: make(workflow, path), mapped)  # type: ignore[misc]
    keys = {run.tags["airflow_key"] for run in skyvern.runs.values()}
    assert len(keys) == 2


@pytest.mark.slow
def test_a_retry_after_a_failed_run_sends_the_file_again_as_skyvern_has_deleted_it(
    skyvern: FakeSkyvern, statement: Path, ti: FakeTaskInstance
) -> None:
    workflow_id = skyvern.workflow(plan=("failed",), parameters={"statement": "file_url"})
    for _ in range(2):
        with pytest.raises(Exception, match="ended as failed"):
            attempt(make(workflow_id, statement), ti)
    starts = skyvern.sent("POST", START)
    assert len({started.json["parameters"]["statement"] for started in starts}) == len(skyvern.uploads) == 2


def test_an_upload_that_fails_starts_no_run(skyvern: FakeSkyvern, workflow: str, statement: Path) -> None:
    skyvern.next("POST", UPLOAD, httpx.ReadTimeout("lost"))
    with pytest.raises(SkyvernConnectionError, match=r"Could not upload statement\.csv"):
        run_task(lambda: make(workflow, statement))
    assert skyvern.sent("POST", START) == []


@pytest.mark.parametrize("status", [413, 422])
def test_an_upload_that_is_refused_fails_at_once(
    skyvern: FakeSkyvern, workflow: str, statement: Path, status: int
) -> None:
    skyvern.next("POST", UPLOAD, httpx.Response(status, json={"detail": "File size exceeds"}))
    with pytest.raises(AirflowFailException, match=f"{status}: File size exceeds"):
        run_task(lambda: make(workflow, statement))
    assert skyvern.runs == {}


def test_a_file_that_is_too_large_is_not_sent(skyvern: FakeSkyvern, workflow: str, statement: Path) -> None:
    with statement.open("wb") as file:
        file.truncate(LARGEST_UPLOAD + 1)
    with pytest.raises(
        AirflowFailException, match=r"upload\.statement: .* has 31,457,281 bytes; Skyvern takes at most"
    ):
        run_task(lambda: make(workflow, statement))
    assert [seen.path for seen in skyvern.requests if seen.method == "POST"] == []


def test_a_file_that_is_missing_is_for_a_retry_and_starts_no_run(
    skyvern: FakeSkyvern, workflow: str, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.csv"):
        run_task(lambda: make(workflow, tmp_path / "missing.csv"))
    assert skyvern.runs == {}


def test_a_server_without_file_ids_gets_the_address_in_its_store(
    skyvern: FakeSkyvern, workflow: str, statement: Path
) -> None:
    answer = {"s3_uri": "s3://skyvern/o_1/statement.csv", "presigned_url": "https://x/?sig=s3cr3t"}
    skyvern.next("POST", UPLOAD, httpx.Response(200, json=answer))
    run_task(lambda: make(workflow, statement))
    [started] = skyvern.sent("POST", START)
    assert started.json["parameters"]["statement"] == answer["s3_uri"]
    assert "file_ids" not in started.json


def test_the_log_names_the_file_and_no_signed_address(
    skyvern: FakeSkyvern, workflow: str, statement: Path, task_log: TaskLog
) -> None:
    run_task(lambda: make(workflow, statement))
    log = task_log()
    assert f"statement.csv: {len(ROWS)} bytes sent to Skyvern as file_" in log
    assert "/artifacts/" not in log


@pytest.mark.parametrize(
    ("upload", "complaint"),
    [
        ({"statement": "statement.csv"}, "upload.statement: must be an absolute path or an address"),
        ({"vendor": "/tmp/a.csv"}, "upload.vendor: the parameter vendor is given in parameters, too"),
        ({"statement": "file://tmp/a.csv"}, "upload.statement: .* three slashes: file:///tmp/a.csv"),
        ("/tmp/a.csv", "upload must be a mapping from parameters to files"),
    ],
)
def test_a_mistake_is_found_when_the_dag_is_parsed(upload: Any, complaint: str) -> None:
    with pytest.raises(SkyvernConfigError, match=f"Task 't': {complaint}"):
        SkyvernRunWorkflowOperator(task_id="t", workflow_id="w", parameters={"vendor": "A"}, upload=upload)


@pytest.mark.parametrize("name", ["C#/in/a b?.csv", "100%25/a%20b.csv"])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_the_address_of_a_folder_is_read_as_that_of_files_to(
    skyvern: FakeSkyvern, workflow: str, tmp_path: Path, name: str, scheme: str
) -> None:
    path = tmp_path / (unquote(name) if scheme else name)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"statement")
    run_task(lambda: make(workflow, f"{scheme}{tmp_path}/{name}"))
    [upload] = skyvern.sent("POST", UPLOAD)
    assert b"statement" in upload.content


def test_a_connection_that_nobody_made_starts_no_run(skyvern: FakeSkyvern, workflow: str, statement: Path) -> None:
    for address in (str(statement), "s3://bucket/x.csv"):
        with pytest.raises(AirflowFailException, match="no such connection"):
            run_task(lambda address=address: make(workflow, address, upload_conn_id="nobody"))  # type: ignore[misc]
    assert skyvern.runs == {}


def test_an_address_may_be_a_template() -> None:
    templates: list[Any] = [{"statement": "{{ params.file }}"}, "{{ params.files }}"]
    for upload in templates:
        SkyvernRunWorkflowOperator(task_id="t", workflow_id="w", upload=upload)
    assert {"upload", "upload_conn_id"} <= set(SkyvernRunWorkflowOperator.template_fields)
