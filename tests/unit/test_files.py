"""The files of a run, from the operators' arguments to the folder they end in."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.compat.sdk import DAG, AirflowFailException
from airflow_skyvern.exceptions import (
    SkyvernFileConflict,
    SkyvernTransferError,
)
from airflow_skyvern.operators import SkyvernDownloadFilesOperator, SkyvernRunWorkflowOperator
from airflow_skyvern.results import run_files
from tests.support.tasks import FakeTaskInstance, context_of, run_task

if TYPE_CHECKING:
    from dev.fake.skyvern import FakeSkyvern
    from tests.unit.conftest import TaskLog

PDF = b"%PDF-1.7 " + b"x" * 100_000
CSV = b"a,b\n1,2\n"
START = "/v1/run/workflows"
CONTENT = "/v1/artifacts/.*/content"


def make(workflow_id: str, **more: Any) -> SkyvernRunWorkflowOperator:
    given: dict[str, Any] = {"task_id": "t", "workflow_id": workflow_id, "poll_interval": 0.01, "timeout": 20, **more}
    return SkyvernRunWorkflowOperator(**given)


def workflow(skyvern: FakeSkyvern, **more: Any) -> str:
    return skyvern.workflow(artifacts={"download-1.pdf": PDF, "download-2.csv": CSV}, **more)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def stored(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("deferrable", [False, True], ids=["on the worker", "deferred"])
def test_the_files_of_a_run_are_stored_and_listed(skyvern: FakeSkyvern, tmp_path: Path, deferrable: bool) -> None:
    workflow_id, ti = workflow(skyvern), FakeTaskInstance()
    run_task(lambda: make(workflow_id, files_to=str(tmp_path), deferrable=deferrable), ti)
    assert stored(tmp_path) == {"download-1.pdf": PDF, "download-2.csv": CSV}
    assert ti.xcoms["files"] == [
        {
            "path": str(tmp_path / name),
            "filename": name,
            "size": len(content),
            "checksum": sha256(content),
        }
        for name, content in (("download-1.pdf", PDF), ("download-2.csv", CSV))
    ]


def test_files_get_the_names_of_the_template(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    with DAG("d", schedule=None):
        operator = make(
            workflow(skyvern), files_to=f"{tmp_path}/{{{{ ds }}}}", file_name="{{ params.v }}-{index}{extension}"
        )
    operator.render_template_fields({"ds": "2026-11-26", "params": {"v": "ACME/../x"}})
    operator.execute(context_of(FakeTaskInstance()))
    assert sorted(stored(tmp_path / "2026-11-26")) == ["ACME_.._x-1.pdf", "ACME_.._x-2.csv"]


def test_names_that_lead_elsewhere_stay_in_the_folder(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    names = ["../../x", "C:\\x", "n" * 300 + ".pdf", "nul\0.pdf", "x", "\x07"]
    workflow_id = skyvern.workflow(artifacts={name: name.encode() for name in names})
    run_task(lambda: make(workflow_id, files_to=str(tmp_path / "in")))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert sorted(stored(tmp_path / "in")) == sorted(
        ["x", "x-2", "n" * 251 + ".pdf", "_nul.pdf", "x-3", "file"],
    )


def test_a_run_without_files_pushes_an_empty_list(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    workflow_id, ti = skyvern.workflow(), FakeTaskInstance()
    run_task(lambda: make(workflow_id, files_to=str(tmp_path)), ti)
    assert ti.xcoms["files"] == []


def test_a_task_without_files_to_fetches_none_and_pushes_none(skyvern: FakeSkyvern) -> None:
    workflow_id, ti = workflow(skyvern), FakeTaskInstance()
    run_task(lambda: make(workflow_id), ti)
    assert "files" not in ti.xcoms
    assert skyvern.sent("GET", CONTENT) == []


def test_what_is_there_already_is_not_fetched_again(skyvern: FakeSkyvern, tmp_path: Path, task_log: TaskLog) -> None:
    run_id = ended(skyvern, artifacts={"a.pdf": PDF, "b.csv": CSV})
    download(run_id, tmp_path)
    (tmp_path / "b.csv").unlink()
    before = len(skyvern.sent("GET", CONTENT))
    files = download(run_id, tmp_path)
    assert [file["checksum"] for file in files] == [sha256(PDF), sha256(CSV)]
    assert len(skyvern.sent("GET", CONTENT)) == before + 1
    assert "a.pdf is there already" in task_log()


def test_another_file_of_the_same_name_is_kept_unless_it_may_be_replaced(
    skyvern: FakeSkyvern, tmp_path: Path
) -> None:
    run_id = ended(skyvern, artifacts={"a.pdf": PDF})
    for other in (b"another", b"y" * len(PDF)):
        (tmp_path / "a.pdf").write_bytes(other)
        with pytest.raises(AirflowFailException, match="exists and holds something else") as failed:
            download(run_id, tmp_path)
        assert isinstance(failed.value.__cause__, SkyvernFileConflict)
        assert stored(tmp_path) == {"a.pdf": other}
    download(run_id, tmp_path, overwrite=True)
    assert stored(tmp_path) == {"a.pdf": PDF}


def download(run_id: str, folder: Path, ti: FakeTaskInstance | None = None, **more: Any) -> list[dict[str, Any]]:
    operator = SkyvernDownloadFilesOperator(task_id="t", run_id=run_id, files_to=str(folder), **more)
    return operator.execute(context_of(ti or FakeTaskInstance()))


def ended(skyvern: FakeSkyvern, **more: Any) -> str:
    run_id = skyvern.run(**more)
    for _ in range(3):
        skyvern.runs[run_id].look()
    return run_id


def test_the_files_of_a_run_that_is_over_can_be_stored_later(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    run_id, ti = ended(skyvern, plan=("running", "failed"), artifacts={"a.pdf": PDF}), FakeTaskInstance()
    files = download(run_id, tmp_path, ti)
    assert stored(tmp_path) == {"a.pdf": PDF}
    assert files == ti.xcoms["files"]
    assert ti.xcoms["run_id"] == run_id


def test_a_run_that_is_not_over_has_no_files_yet(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    with pytest.raises(SkyvernTransferError, match="is running: its files are known when it has ended"):
        download(skyvern.run(plan=("running",)), tmp_path)


def test_a_retry_after_a_transfer_that_failed_takes_the_same_run(
    skyvern: FakeSkyvern, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_files, "WHOLE_ATTEMPTS", 1)
    workflow_id, ti = workflow(skyvern), FakeTaskInstance()
    ti.max_tries = 1
    skyvern.next("GET", CONTENT, httpx.Response(200, content=b"cut"), httpx.Response(200, content=b"cut"))
    with pytest.raises(SkyvernTransferError, match="3 bytes arrived, and Skyvern lists"):
        make(workflow_id, files_to=str(tmp_path), retries=1).execute(context_of(ti))
    assert stored(tmp_path) == {}
    ti.try_number = 2
    make(workflow_id, files_to=str(tmp_path), retries=1).execute(context_of(ti))
    assert stored(tmp_path) == {"download-1.pdf": PDF, "download-2.csv": CSV}
    assert len(skyvern.sent("POST", START)) == 1
    assert skyvern.sent("POST", "/v1/runs/.*/cancel") == []
