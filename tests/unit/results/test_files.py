"""The files of a run, from the operators' arguments to the folder they end in."""

from __future__ import annotations

import hashlib
import time
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import httpx
import pytest

from airflow_skyvern.compat.sdk import DAG, AirflowFailException
from airflow_skyvern.compat.since_3_0 import is_airflow_3
from airflow_skyvern.compat.stores import add_output_to_lineage
from airflow_skyvern.exceptions import (
    SkyvernAddressRefused,
    SkyvernConfigError,
    SkyvernFileConflict,
    SkyvernFilesMissing,
    SkyvernResponseError,
    SkyvernRunCanceled,
    SkyvernRunFailed,
    SkyvernTransferError,
    SkyvernWaitTimeout,
)
from airflow_skyvern.hooks import SkyvernHook
from airflow_skyvern.models import DownloadedFile, Run
from airflow_skyvern.operators import SkyvernDownloadFilesOperator, SkyvernRunWorkflowOperator
from airflow_skyvern.results import deliver, evidence, run_files
from airflow_skyvern.results.sources import RunFile, Source, downloads
from airflow_skyvern.sensors import SkyvernRunSensor
from airflow_skyvern.testing.fake.records import Media
from tests.support.file_server import FileServer
from tests.support.tasks import FakeTaskInstance, context_of, run_task

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
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


@pytest.mark.slow
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


PNG, WEBM, MP4, ZIP = (
    b"\x89PNG\r\n\x1a\n one",
    b"\x1a\x45\xdf\xa3 two",
    b"\0\0\0\x18ftypmp42 three",
    b"PK\x03\x04 four",
)
PICTURES = (
    Media("screenshot_action", PNG),
    Media("screenshot_llm", PNG),
    Media("screenshot_final", ZIP),
    Media("recording", MP4),
)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait for what Skyvern may still be working on."""
    monkeypatch.setattr(evidence, "STABLE_SECONDS", 0.0)
    monkeypatch.setattr(run_files, "STABLE_SECONDS", 0.0)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("ending", ["completed", "failed"])
def test_recording_and_screenshots_are_stored_by_what_they_are(
    skyvern: FakeSkyvern, tmp_path: Path, ending: str
) -> None:
    workflow_id, ti = (
        skyvern.workflow(plan=("running", ending), media=PICTURES, artifacts={"a.pdf": PDF}),
        FakeTaskInstance(),
    )
    task = partial(make, workflow_id, files_to=str(tmp_path), recording=True, screenshots=True)
    if ending == "failed":
        with pytest.raises(SkyvernRunFailed):
            run_task(task, ti)
    else:
        run_task(task, ti)
    run_id = ti.xcoms["run_id"]
    expected = {
        f"{run_id}-screenshot-01.png": PNG,
        f"{run_id}-screenshot-02.zip": ZIP,
        f"{run_id}-recording.mp4": MP4,
    }
    assert stored(tmp_path) == (expected if ending == "failed" else {**expected, "a.pdf": PDF})
    assert {entry["filename"] for entry in ti.xcoms["evidence"]} == set(expected)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("deferrable", [False, True])
def test_a_run_that_takes_too_long_leaves_its_evidence(
    skyvern: FakeSkyvern, tmp_path: Path, *, deferrable: bool
) -> None:
    workflow_id, ti = skyvern.workflow(plan=("running",), media=PICTURES), FakeTaskInstance()
    arguments = {"files_to": str(tmp_path), "screenshots": True, "timeout": 0.3, "deferrable": deferrable}
    with pytest.raises(SkyvernWaitTimeout, match="it is canceled now"):
        run_task(partial(make, workflow_id, **arguments), ti)
    names = [f"{ti.xcoms['run_id']}-screenshot-01.png", f"{ti.xcoms['run_id']}-screenshot-02.zip"]
    assert sorted(stored(tmp_path)) == names
    assert [entry["filename"] for entry in ti.xcoms["evidence"]] == names


@pytest.mark.slow
def test_a_recording_that_skyvern_is_replacing_is_waited_for(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    """Its new name is known before its bytes are there: first it is missing, then empty."""
    workflow_id = skyvern.workflow(plan=("running", "completed"), media=PICTURES[-1:])
    missing = httpx.Response(404, json={"detail": "Artifact content not available"})
    skyvern.next("GET", "/v1/artifacts/.*/content", missing, httpx.Response(200))
    run_task(partial(make, workflow_id, files_to=str(tmp_path), recording=True))
    assert list(stored(tmp_path).values()) == [MP4]


def test_a_recording_that_does_not_arrive_does_not_fail_the_task(
    skyvern: FakeSkyvern, tmp_path: Path, task_log: TaskLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "STABLE_SECONDS", 0.0)
    workflow_id = skyvern.workflow(plan=("running", "completed"), media=PICTURES[-1:])
    missing = httpx.Response(404, json={"detail": "Artifact content not available"})
    skyvern.next("GET", "/v1/artifacts/.*/content", missing, missing)
    run_task(partial(make, workflow_id, files_to=str(tmp_path), recording=True))
    assert stored(tmp_path) == {}
    assert "its recording cannot be read yet" in task_log()


@pytest.mark.usefixtures("quick")
def test_a_recording_that_skyvern_does_not_give_out_is_told_of(
    skyvern: FakeSkyvern, tmp_path: Path, task_log: TaskLog
) -> None:
    workflow_id = skyvern.workflow(plan=("running", "completed"), media=PICTURES[:1])
    run_task(partial(make, workflow_id, files_to=str(tmp_path), recording=True))
    assert stored(tmp_path) == {}
    assert "has no recording" in task_log()


@pytest.mark.usefixtures("quick")
def test_evidence_that_cannot_be_stored_does_not_hide_how_the_run_ended(
    skyvern: FakeSkyvern, tmp_path: Path, task_log: TaskLog
) -> None:
    skyvern.next("POST", START, (tmp_path / "a file").touch)
    workflow_id = skyvern.workflow(plan=("running", "failed"), media=PICTURES)
    with pytest.raises(SkyvernRunFailed):
        run_task(partial(make, workflow_id, files_to=f"{tmp_path}/a file/folder", screenshots=True))
    assert "its recording or screenshots could not be stored" in task_log()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("expected", "complaint"),
    [
        (3, "3 files were expected; it downloaded 2 (download-1.pdf, download-2.csv)"),
        ((3, None), "at least 3 files expected"),
        ([3, None], "at least 3 files expected"),
        ([0, 1], "0 to 1 files were expected"),
        ((0, 1), "0 to 1 files were expected"),
        (["*.pdf", "*.xlsx"], r"no file matches \*.xlsx"),
    ],
)
def test_a_run_that_downloaded_other_files_than_expected_fails_without_a_retry(
    skyvern: FakeSkyvern, tmp_path: Path, expected: Any, complaint: str
) -> None:
    with pytest.raises(AirflowFailException, match=complaint.replace("(", r"\(").replace(")", r"\)")) as failed:
        run_task(partial(make, workflow(skyvern), expect_files=expected, files_to=str(tmp_path)))
    assert isinstance(failed.value.__cause__, SkyvernFilesMissing)
    assert stored(tmp_path) == {}


@pytest.mark.parametrize("expected", [2, (1, 2), (2, None), [1, 5], [2, None], "*.PDF", ["download-*", "*.csv"]])
def test_a_run_that_downloaded_what_was_expected_succeeds_also_without_a_place(
    skyvern: FakeSkyvern, expected: Any
) -> None:
    ti = FakeTaskInstance()
    run_task(partial(make, workflow(skyvern), expect_files=expected), ti)
    assert "files" not in ti.xcoms


@pytest.mark.usefixtures("quick")
def test_a_file_without_an_id_on_the_servers_disk_is_refused(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    run_id = ended(skyvern)
    answer = {"run_id": run_id, "status": "completed", "downloaded_files": [{"url": "file:///etc/passwd"}]}
    skyvern.next("GET", "/v1/runs/.*", httpx.Response(200, json=answer))
    with pytest.raises(AirflowFailException, match="at a file: address") as failed:
        download(run_id, tmp_path)
    assert isinstance(failed.value.__cause__, SkyvernAddressRefused)
    assert stored(tmp_path) == {}


def test_a_file_on_a_foreign_host_of_this_network_is_refused_and_nobody_gets_the_key(
    skyvern: FakeSkyvern, tmp_path: Path
) -> None:
    run_id = ended(skyvern)
    with FileServer({"/x.pdf": b"inside"}) as foreign:
        answer = {
            "run_id": run_id,
            "status": "completed",
            "downloaded_files": [{"url": f"{foreign.url}/x.pdf?sig=1", "filename": "x.pdf"}],
        }
        skyvern.next("GET", "/v1/runs/.*", httpx.Response(200, json=answer))
        with pytest.raises(AirflowFailException, match="a host of a private network"):
            download(run_id, tmp_path)
        assert foreign.requests == []


@pytest.mark.slow
def test_a_redirect_of_the_content_is_not_followed(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    run_id = ended(skyvern, artifacts={"a.pdf": PDF})
    with FileServer({"/x": PDF}) as foreign:
        redirect = httpx.Response(302, headers={"location": f"{foreign.url}/x"})
        skyvern.next("GET", CONTENT, redirect)
        download(run_id, tmp_path)
        assert foreign.requests == []
    assert stored(tmp_path) == {"a.pdf": PDF}


@pytest.mark.slow
def test_a_kill_during_a_transfer_stops_it_and_cancels_nothing(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    workflow_id = workflow(skyvern)
    operator = make(workflow_id, files_to=str(tmp_path))

    def kill() -> None:
        operator.on_kill()
        time.sleep(2.5)  # the task looks once a second whether it was killed

    skyvern.next("GET", CONTENT, kill)
    with pytest.raises(SkyvernRunCanceled):
        operator.execute(context_of(FakeTaskInstance()))
    assert not any(path.name.startswith("download-1") for path in tmp_path.iterdir())
    assert skyvern.sent("POST", "/v1/runs/.*/cancel") == []


@pytest.mark.parametrize("mode", ["poke", "reschedule", "deferrable"])
def test_a_sensor_stores_the_files_of_its_run(skyvern: FakeSkyvern, tmp_path: Path, mode: str) -> None:
    run_id, ti = ended(skyvern, artifacts={"a.pdf": PDF}), FakeTaskInstance()
    more = {"deferrable": True} if mode == "deferrable" else {"mode": mode}
    run_task(partial(sensor, run_id, files_to=str(tmp_path), expect_files=1, **more), ti)
    assert stored(tmp_path) == {"a.pdf": PDF}
    assert [file["filename"] for file in ti.xcoms["files"]] == ["a.pdf"]


def sensor(run_id: str, **more: Any) -> SkyvernRunSensor:
    return SkyvernRunSensor(task_id="t", run_id=run_id, poke_interval=0.01, timeout=20, **more)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"files_to": "folder"}, "files_to must be an absolute path"),
        ({"files_to": "https://example.com/x"}, "files_to cannot be an http address"),
        ({"recording": True}, "recording needs files_to"),
        ({"file_name": "x", "overwrite": True}, "file_name and overwrite need files_to"),
        (
            {"files_to": "/x", "file_name": "{indx}.pdf"},
            "{indx} is not a placeholder; use {index}, {name}, {extension}",
        ),
        ({"files_to": "/x", "file_name": "a/b"}, "put folders into files_to"),
        ({"expect_files": -1}, "expect_files must not be negative"),
        ({"expect_files": (2, 1)}, "expect_files must be a number"),
        ({"expect_files": [2, 1]}, "expect_files must be a number"),
        ({"expect_files": [True, 5]}, "expect_files must be a number"),
        ({"expect_files": [-1, 5]}, "expect_files must be a number"),
        ({"expect_files": [1, 2, 3]}, "expect_files must be a number"),
        ({"expect_files": True}, "expect_files must be a number"),
        ({"expect_files": []}, "expect_files must be a number"),
        ({"expect_files": 1, "wait_for_completion": False}, "need wait_for_completion=True"),
    ],
)
def test_a_mistake_is_found_when_the_dag_is_parsed(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SkyvernConfigError, match=complaint):
        make("wpid_1", **arguments)


def test_a_sensor_that_ends_in_the_triggerer_cannot_store_files() -> None:
    with pytest.raises(SkyvernConfigError, match="need a worker at the end"):
        sensor("wr_1", files_to="/x", start_from_trigger=True, end_from_trigger=True)


def test_a_place_that_cannot_be_reached_is_found_before_a_run_is_started(skyvern: FakeSkyvern) -> None:
    with pytest.raises(AirflowFailException, match="no way to gs:// addresses"):
        run_task(partial(make, workflow(skyvern), files_to="gs://bucket/x"))
    assert skyvern.sent("POST", START) == []


def test_the_events_of_outlets_tell_run_and_files(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    run_id, context = ended(skyvern, artifacts={"a.pdf": PDF}), context_of(FakeTaskInstance())
    outlet, event = SimpleNamespace(uri="s3://invoices"), SimpleNamespace(extra={})

    class Events:
        def __getitem__(self, asked: object) -> SimpleNamespace:
            assert asked is outlet
            return event

    context["outlet_events"] = Events()
    operator = SkyvernDownloadFilesOperator(task_id="t", run_id=run_id, files_to=str(tmp_path))
    operator.outlets = [outlet]
    files = operator.execute(context)
    assert event.extra == {"skyvern_run_id": run_id, "files": files}


def alias_events(context: Any, alias: Any) -> dict[str, Any]:
    """Return the addresses for which an alias has an event, with their extra."""
    events = getattr(context["outlet_events"][alias], f"{ASSET}_alias_events")
    if is_airflow_3():
        return {event.dest_asset_key.uri: event.extra for event in events}
    return {event["dest_dataset_uri"]: event["extra"] for event in events}


ASSET = "asset" if is_airflow_3() else "dataset"
HOME = "airflow.sdk.execution_time.context" if is_airflow_3() else "airflow.utils.context"
TOO_LONG = "/".join(["a" * 200] * 16)


@pytest.mark.parametrize("folder", ["in", "größe C#", TOO_LONG])
def test_an_alias_gets_an_event_for_each_file_and_for_the_output(
    skyvern: FakeSkyvern, tmp_path: Path, folder: str, task_log: TaskLog
) -> None:
    alias_of = import_module("airflow.sdk" if is_airflow_3() else "airflow.datasets")
    alias = getattr(alias_of, f"{ASSET.capitalize()}Alias")("files")
    context = context_of(FakeTaskInstance())
    accessors = import_module(HOME).OutletEventAccessors
    context["outlet_events"] = accessors()
    place = f"{tmp_path}/{folder}"
    workflow_id = skyvern.workflow(artifacts={"a.pdf": PDF, "b.csv": CSV}, output={"x": 1})
    operator = make(workflow_id, files_to=place, output_to=f"{place}/out.json", outlets=[alias])
    operator.execute(context)
    events = alias_events(context, alias)
    if folder is TOO_LONG:
        assert events == {}
        assert "Airflow does not accept an asset with this address" in task_log()
        return
    written = place.replace("#", "%23")
    expected = {f"file://{written}/{name}" for name in ("out.json", "a.pdf", "b.csv")}
    assert {unquote(address) for address in events} == {unquote(address) for address in expected}
    assert is_airflow_3() or all(address.isascii() for address in events)
    [run_id] = skyvern.runs
    assert {extra["skyvern_run_id"] for extra in events.values()} == {run_id}


@pytest.fixture
def lineage(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What Airflow's lineage was told."""
    told: list[tuple[str, str]] = []
    for kind in ("input", "output"):
        monkeypatch.setattr(
            deliver, f"add_{kind}_to_lineage", lambda hook, address, kind=kind: told.append((kind, address))
        )
    return told


def test_lineage_is_told_of_each_file(skyvern: FakeSkyvern, tmp_path: Path, lineage: list[tuple[str, str]]) -> None:
    download(ended(skyvern, artifacts={"a.pdf": PDF}), tmp_path)
    assert lineage == [("output", f"file://{tmp_path}/a.pdf")]


def test_lineage_is_told_of_the_workflow_that_the_files_come_from(
    skyvern: FakeSkyvern, tmp_path: Path, lineage: list[tuple[str, str]]
) -> None:
    workflow_id = workflow(skyvern)
    run_task(lambda: make(workflow_id, files_to=str(tmp_path)))
    assert lineage[0] == ("input", f"skyvern://skyvern_default/{workflow_id}")
    assert {kind for kind, _ in lineage[1:]} == {"output"}


def test_a_lineage_that_refuses_an_address_does_not_fail_the_task() -> None:
    add_output_to_lineage(SkyvernHook(), "file:///tmp/a.pdf")
    add_output_to_lineage(SkyvernHook(), "nonsense")


def test_each_file_that_could_not_be_stored_is_named(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    run_id = ended(skyvern, artifacts={"a.pdf": PDF, "b.csv": CSV, "c.txt": b"c"})
    for name in ("a.pdf", "c.txt"):
        (tmp_path / name).write_bytes(b"another")
    with pytest.raises(AirflowFailException, match=r"2 of its 3 files .* \[1\] a\.pdf: .*c\.txt: "):
        download(run_id, tmp_path)
    assert stored(tmp_path)["b.csv"] == CSV


@pytest.mark.usefixtures("quick")
def test_an_output_that_does_not_fit_leaves_its_evidence(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    workflow_id = skyvern.workflow(output={"rows_output": "none"}, media=PICTURES)
    more = {"output_from": "rows", "output_schema": list[int], "screenshots": True, "files_to": str(tmp_path)}
    with pytest.raises(AirflowFailException, match="does not match output_schema and output_from"):
        run_task(partial(make, workflow_id, **more))
    assert any("screenshot" in name for name in stored(tmp_path))


def test_two_files_that_skyvern_describes_alike_stay_two_when_their_addresses_expire(tmp_path: Path) -> None:
    def listed(signature: int) -> list[DownloadedFile]:
        places = [f"https://store/{place}?sig={signature}" for place in ("b/1", "a/2", "a/3")]
        names = ["same.pdf", "same.pdf", "other.pdf"]
        return [DownloadedFile(url=url, filename=name) for url, name in zip(places, names, strict=True)]

    source = object.__new__(Source)
    before = downloads(Run(run_id="wr_1", status="completed", downloaded_files=listed(1)))
    after = downloads(Run(run_id="wr_1", status="completed", downloaded_files=listed(2)[::-1]))
    source._fetch = lambda: after
    renewed = [source._current(file) for file in before]
    assert renewed == [file.address.replace("sig=1", "sig=2") for file in before]
    assert len(set(renewed)) == 3


def test_files_that_nothing_tells_apart_are_told_by_their_order_or_not_at_all() -> None:
    def listed(*names: str) -> list[RunFile]:
        files = [DownloadedFile(url=f"https://store/get?id={name}", filename="same.pdf") for name in names]
        return downloads(Run(run_id="wr_1", status="completed", downloaded_files=files))

    source = object.__new__(Source)
    source._fetch = lambda: listed("1b", "2b")
    assert [source._current(file)[-2:] for file in listed("1a", "2a")] == ["1b", "2b"]
    source._fetch = lambda: listed("1b", "2b", "3b")
    with pytest.raises(SkyvernResponseError, match="nothing says which is which"):
        source._current(listed("1a", "2a")[0])
