"""A partition: what a run puts in the place of an earlier one's files and output, with a manifest."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.compat.sdk import AirflowFailException
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernFileConflict, SkyvernTransferError
from airflow_skyvern.operators import SkyvernDownloadFilesOperator, SkyvernRunWorkflowOperator
from airflow_skyvern.results import lease, run_files
from airflow_skyvern.results.lease import Lease
from airflow_skyvern.results.manifest import Partition
from airflow_skyvern.results.options import FileOptions
from airflow_skyvern.results.stores import FolderStore
from airflow_skyvern.sensors import SkyvernRunSensor
from tests.support.tasks import FakeTaskInstance, run_task

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

START = "/v1/run/workflows"
OLD, NEW = {"a.pdf": b"old a", "b.pdf": b"old b"}, {"a.pdf": b"new a", "c.pdf": b"new c"}


def run(skyvern: FakeSkyvern, ti: FakeTaskInstance | None = None, /, **more: Any) -> Any:
    """Run a workflow that returns and downloads this."""
    made = {name: more.pop(name) for name in ("artifacts", "output", "media") if name in more}
    workflow_id = skyvern.workflow(**made)
    given: dict[str, Any] = {"task_id": "t", "workflow_id": workflow_id, "poll_interval": 0.01, "timeout": 20, **more}
    return run_task(lambda: SkyvernRunWorkflowOperator(**given), ti or FakeTaskInstance())


def there(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def starts(skyvern: FakeSkyvern) -> int:
    return len(skyvern.sent("POST", START))


def manifest(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def partition(folder: Path, **more: Any) -> dict[str, Any]:
    return {"files_to": f"{folder}/in", "manifest_to": f"{folder}/manifest.json", **more}


def test_the_manifest_says_what_was_stored(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    ti = FakeTaskInstance()
    output = run(
        skyvern,
        ti,
        artifacts=OLD,
        output={"x": 1},
        output_to=f"{tmp_path}/{{skyvern_run_id}}.jsonl",
        **partition(tmp_path),
    )
    [run_id] = skyvern.runs
    found = manifest(tmp_path / "manifest.json")
    assert found.pop("written_at").startswith("20")
    assert found == {
        "skyvern_run_id": run_id,
        "files": [
            {"path": f"{tmp_path}/in/{name}", "filename": name, "size": 5, "checksum": sha256(content)}
            for name, content in OLD.items()
        ],
        "output": output,
        "evidence": [],
    }
    content = (tmp_path / "manifest.json").read_bytes()
    path = f"{tmp_path}/manifest.json"
    assert ti.xcoms["manifest"] == {"path": path, "size": len(content), "checksum": sha256(content)}


@pytest.mark.slow
def test_an_output_alone_may_have_a_manifest_and_so_may_other_tasks(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    reference = run(
        skyvern, output={"x": 1}, output_to=f"{tmp_path}/a.csv", manifest_to=f"{tmp_path}/{{skyvern_run_id}}.json"
    )
    [run_id] = skyvern.runs
    assert manifest(tmp_path / f"{run_id}.json")["output"] == reference
    given = partition(tmp_path)
    run_task(lambda: SkyvernDownloadFilesOperator(task_id="t", run_id=run_id, **given))
    assert manifest(tmp_path / "manifest.json")["files"] == []
    run_task(lambda: SkyvernRunSensor(task_id="t", run_id=run_id, poke_interval=0.01, **given))
    assert manifest(tmp_path / "manifest.json")["skyvern_run_id"] == run_id


@pytest.mark.slow
def test_a_partition_is_replaced_as_a_whole(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    run(skyvern, artifacts=OLD, **partition(tmp_path))
    (tmp_path / "in" / "of somebody else.pdf").write_bytes(b"kept")
    run(skyvern, artifacts=NEW, **partition(tmp_path, if_exists="replace"))
    assert there(tmp_path / "in") == {**NEW, "of somebody else.pdf": b"kept"}
    found = manifest(tmp_path / "manifest.json")
    assert [file["filename"] for file in found["files"]] == list(NEW)
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["manifest.json"]


@pytest.mark.slow
def test_what_was_changed_since_is_not_removed(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    run(skyvern, artifacts=OLD, **partition(tmp_path))
    (tmp_path / "in" / "b.pdf").write_bytes(b"by hand")
    run(skyvern, artifacts=NEW, **partition(tmp_path, if_exists="replace"))
    assert there(tmp_path / "in") == {**NEW, "b.pdf": b"by hand"}


@pytest.mark.slow
def test_while_a_partition_is_replaced_it_has_no_manifest_and_the_retry_completes_it(
    skyvern: FakeSkyvern, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_files, "WHOLE_ATTEMPTS", 1)
    run(skyvern, artifacts=OLD, **partition(tmp_path))
    workflow_id, ti = skyvern.workflow(artifacts=NEW), FakeTaskInstance()
    ti.max_tries = 1
    given = {"task_id": "t", "workflow_id": workflow_id, "poll_interval": 0.01, "timeout": 20, "retries": 1}

    def task() -> SkyvernRunWorkflowOperator:
        return SkyvernRunWorkflowOperator(**given, **partition(tmp_path, if_exists="replace"))  # type: ignore[arg-type]

    skyvern.next("GET", "/v1/artifacts/.*/content", *[httpx.Response(200, content=b"cut") for _ in range(2)])
    with pytest.raises(SkyvernTransferError):
        run_task(task, ti)
    assert not (tmp_path / "manifest.json").exists()
    assert there(tmp_path / "in") == OLD
    ti.try_number = 2
    before = starts(skyvern)
    run_task(task, ti)
    assert starts(skyvern) == before
    assert there(tmp_path / "in") == NEW
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["manifest.json"]


def half_stored(skyvern: FakeSkyvern, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a partition of which a second run has replaced one file of two, and then failed."""
    monkeypatch.setattr(run_files, "WHOLE_ATTEMPTS", 1)
    run(skyvern, artifacts=OLD, **partition(folder))
    skyvern.next("GET", "/v1/artifacts/.*/content", lambda: None, httpx.Response(200, content=b"cut"))
    with pytest.raises(SkyvernTransferError):
        run(skyvern, artifacts={"x.pdf": b"x", "y.pdf": b"y"}, **partition(folder, if_exists="replace"))


@pytest.mark.slow
def test_a_third_run_removes_what_the_second_has_half_stored(
    skyvern: FakeSkyvern, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_stored(skyvern, tmp_path, monkeypatch)
    [half] = {*there(tmp_path / "in")} - {*OLD}
    assert half in ("x.pdf", "y.pdf")
    run(skyvern, artifacts=NEW, **partition(tmp_path, if_exists="replace"))
    assert there(tmp_path / "in") == NEW


@pytest.mark.slow
def test_with_a_folder_per_run_the_manifest_is_there_at_every_moment(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    given: dict[str, Any] = {"files_to": f"{tmp_path}/{{skyvern_run_id}}", "manifest_to": f"{tmp_path}/manifest.json"}
    run(skyvern, artifacts=OLD, **given)
    seen = []
    skyvern.next("GET", "/v1/artifacts/.*/content", lambda: seen.append(manifest(tmp_path / "manifest.json")))
    run(skyvern, artifacts=NEW, if_exists="replace", **given)
    first, second = skyvern.runs
    assert [found["skyvern_run_id"] for found in seen] == [first]
    assert manifest(tmp_path / "manifest.json")["skyvern_run_id"] == second
    assert there(tmp_path / first) == OLD


@pytest.mark.slow
def test_a_run_that_is_refused_leaves_the_partition_as_it_was(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    given = partition(tmp_path, output_to=f"{tmp_path}/out.json", if_exists="replace")
    run(skyvern, artifacts=OLD, output={"x": 1}, **given)
    before = there(tmp_path), there(tmp_path / "in")
    for more in ({"expect_files": 7}, {"output_schema": {"type": "array"}}, {"output_from": "nothing"}):
        with pytest.raises(AirflowFailException):
            run(skyvern, artifacts=NEW, output={"x": 2}, **given, **more)
        assert (there(tmp_path), there(tmp_path / "in")) == before


@pytest.mark.slow
def test_a_task_waits_until_another_one_has_replaced_its_partition(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    run(skyvern, artifacts=OLD, **partition(tmp_path))
    name = hashlib.sha256(b"manifest.json").hexdigest()[:16]
    other = Lease(FolderStore(tmp_path), f".skyvern-replacing-{name}.json", "wr_other", log=logging.getLogger("t"))
    other.acquire()
    seen = []

    def end_the_other() -> None:
        seen.append((there(tmp_path / "in"), len(manifest(tmp_path / "manifest.json")["files"])))
        other.release()

    ends = threading.Timer(3.0, end_the_other)
    ends.start()
    run(skyvern, artifacts=NEW, **partition(tmp_path, if_exists="replace"))
    assert seen == [(OLD, 2)]
    assert there(tmp_path / "in") == NEW
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["manifest.json"]


@pytest.mark.slow
def test_tasks_that_replace_one_partition_at_once_leave_it_whole(tmp_path: Path) -> None:
    place = tmp_path / "in"
    options = FileOptions(files_to=str(place), manifest_to=f"{tmp_path}/manifest.json", if_exists="replace")
    begin, seen = threading.Barrier(4), []

    def deliver(run_id: str) -> None:
        store, files = FolderStore(place), {"a": run_id, "b": run_id, run_id: run_id}
        entries = [
            {"path": f"{place}/{name}", "filename": name, "size": 4, "checksum": sha256(content.encode())}
            for name, content in files.items()
        ]
        turn = Partition(options, None, run_id, None, logging.getLogger("t"))
        begin.wait(60)
        turn.begin(entries)
        for name, content in files.items():
            with store.sink(name, overwrite=True) as sink:
                sink.write(content.encode())
            time.sleep(0.1)
        turn.finish(entries, None, [])
        seen.append((there(place), manifest(tmp_path / "manifest.json")["skyvern_run_id"], run_id))
        turn.close()

    tasks = [threading.Thread(target=deliver, args=(f"wr_{number}",), daemon=True) for number in range(4)]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join(60)
    assert len(seen) == 4
    for files, listed, run_id in seen:
        assert listed == run_id
        assert files == dict.fromkeys(["a", "b", run_id], run_id.encode())


@pytest.mark.slow
def test_a_run_that_may_not_replace_adds_nothing_to_what_another_has_half_stored(
    skyvern: FakeSkyvern, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half_stored(skyvern, tmp_path, monkeypatch)
    before = there(tmp_path / "in")
    with pytest.raises(AirflowFailException, match="if_exists='replace'"):
        run(skyvern, artifacts={"z.pdf": b"z"}, **partition(tmp_path))
    assert there(tmp_path / "in") == before


@pytest.mark.slow
def test_a_task_that_stood_still_too_long_stores_nothing_more(
    skyvern: FakeSkyvern, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(skyvern, artifacts=OLD, **partition(tmp_path))
    monkeypatch.setattr(lease, "LOST_SECONDS", -1.0)
    with pytest.raises(SkyvernTransferError, match="A retry stores them again"):
        run(skyvern, artifacts=NEW, **partition(tmp_path, if_exists="replace"))
    assert there(tmp_path / "in") == OLD
    monkeypatch.setattr(lease, "LOST_SECONDS", 45.0)
    run(skyvern, artifacts=NEW, **partition(tmp_path, if_exists="replace"))
    assert there(tmp_path / "in") == NEW


@pytest.mark.slow
@pytest.mark.parametrize("how", [None, "skip_same"])
def test_another_run_does_not_mix_its_files_into_a_partition(
    skyvern: FakeSkyvern, tmp_path: Path, how: str | None
) -> None:
    run(skyvern, artifacts=OLD, **partition(tmp_path))
    before = there(tmp_path), there(tmp_path / "in")
    for other in (NEW, {"c.pdf": b"c"}, {"a.pdf": b"old a"}, {**OLD, "c.pdf": b"c"}, {}):
        with pytest.raises(AirflowFailException, match="if_exists='replace'") as failed:
            run(skyvern, artifacts=other, **partition(tmp_path, if_exists=how))
        assert isinstance(failed.value.__cause__, SkyvernFileConflict)
        assert (there(tmp_path), there(tmp_path / "in")) == before
    run(skyvern, artifacts=OLD, **partition(tmp_path, if_exists=how))  # the same files
    assert (there(tmp_path), there(tmp_path / "in")) == before


@pytest.mark.slow
def test_fail_starts_no_run_for_a_place_that_is_taken(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    run(skyvern, artifacts=OLD, **partition(tmp_path, if_exists="fail"))
    (tmp_path / "out.json").write_text("{}")
    for given in (partition(tmp_path), {"output_to": f"{tmp_path}/out.json"}):
        with pytest.raises(AirflowFailException, match="so no run is started"):
            run(skyvern, artifacts=OLD, if_exists="fail", **given)
    assert starts(skyvern) == 1


@pytest.mark.slow
def test_fail_lets_a_retry_take_the_run_of_its_own(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    workflow_id, ti = skyvern.workflow(artifacts=OLD, output=[{"x": 1}]), FakeTaskInstance()
    ti.max_tries = 1
    given: dict[str, Any] = {"task_id": "t", "workflow_id": workflow_id, "poll_interval": 0.01, "retries": 1}
    given |= partition(tmp_path, if_exists="fail", output_to=f"{tmp_path}/out.csv.gz", output_run_columns=True)
    references = []
    for ti.try_number in (1, 2):
        references.append(run_task(lambda: SkyvernRunWorkflowOperator(**given), ti))
    assert references[0] == references[1]
    assert starts(skyvern) == 1


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.jsonl.gz", "a.parquet"])
def test_the_time_of_loading_makes_no_other_output(
    skyvern: FakeSkyvern, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name.endswith("parquet"):
        pytest.importorskip("pyarrow")
    run_id = skyvern.run(output=[{"x": 1, "at": "2020-01-01T00:00:00+00:00"}, {"x": 2}])
    given: dict[str, Any] = {"output_to": f"{tmp_path}/{name}", "output_run_columns": True, "if_exists": "skip_same"}
    times = iter(["2026-11-29T21:00:00+00:00", "2026-11-29T22:00:00+00:00"])
    monkeypatch.setattr("airflow_skyvern.results.destination._now", lambda: next(times))
    task = {"task_id": "t", "run_id": run_id, "poke_interval": 0.01, **given}
    first, second = (run_task(lambda: SkyvernRunSensor(**task)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(("how", "kept"), [(None, False), ("replace", False), ("skip_same", True), ("fail", True)])
def test_another_output_of_the_same_name(
    skyvern: FakeSkyvern, tmp_path: Path, how: str | None, *, kept: bool
) -> None:
    given: dict[str, Any] = {"output_to": f"{tmp_path}/a.json", "if_exists": how}
    run_id = skyvern.run(output={"x": 2})
    (tmp_path / "a.json").write_text('{"x":1}')

    def task() -> SkyvernRunSensor:
        return SkyvernRunSensor(task_id="t", run_id=run_id, poke_interval=0.01, **given)

    if kept:
        with pytest.raises(AirflowFailException, match=r"a\.json exists and holds something else"):
            run_task(task)
    else:
        run_task(task)
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": 1 if kept else 2}
    (tmp_path / "a.json").write_text('{"x":2}')
    assert run_task(task)["size"] == 7


def test_a_hostile_manifest_removes_nothing_elsewhere(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    precious = {tmp_path / "precious": b"p", tmp_path / "in" / "precious": b"q"}
    for path, content in precious.items():
        path.write_bytes(content)
    entries = [
        {"path": f"{tmp_path}/precious", "filename": "precious", "size": 1, "checksum": sha256(b"p")},
        {"path": f"{tmp_path}/in/../precious", "filename": "../precious", "size": 1, "checksum": sha256(b"p")},
        {"path": f"{tmp_path}/in/..", "filename": "..", "size": 4096, "checksum": ""},
        {"path": f"{tmp_path}/in/precious", "filename": "precious", "size": 1, "checksum": sha256(b"p")},
        {"path": 5, "filename": None},
        {},
    ]
    (tmp_path / "manifest.json").write_text(json.dumps({"skyvern_run_id": "wr_other", "files": entries}))
    run(skyvern, artifacts=NEW, **partition(tmp_path, if_exists="replace"))
    assert there(tmp_path / "in") == {**NEW, "precious": b"q"}
    assert (tmp_path / "precious").read_bytes() == b"p"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"skyvern_run_id": 5, "files": []}', '{"files": "x"}', "\0"])
def test_what_is_no_manifest_is_kept_and_starts_no_run(skyvern: FakeSkyvern, tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(AirflowFailException, match=r"manifest\.json exists and is not a manifest"):
        run(skyvern, artifacts=NEW, **partition(tmp_path, if_exists="replace"))
    assert starts(skyvern) == 0
    assert (tmp_path / "manifest.json").read_text() == content


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (
            {"if_exists": "append", "files_to": "/x"},
            "if_exists must be 'fail', 'skip_same' or 'replace', not 'append'",
        ),
        ({"if_exists": True, "files_to": "/x"}, "if_exists must be 'fail'"),
        ({"if_exists": "fail", "overwrite": True, "files_to": "/x"}, "overwrite=True contradicts if_exists"),
        ({"if_exists": "replace"}, "if_exists needs files_to or output_to"),
        ({"manifest_to": "/x/m.json"}, "manifest_to needs files_to or output_to"),
        ({"manifest_to": "m.json", "files_to": "/x"}, "manifest_to must be the absolute path of a file"),
        ({"manifest_to": "/x/m/", "files_to": "/x"}, "manifest_to must be the absolute path of a file"),
        ({"manifest_to": "hdfs://x/m", "files_to": "/x"}, "manifest_to: hdfs:// is not a store"),
        ({"manifest_to": "/x/a.json", "output_to": "/x/a.json"}, "manifest_to and output_to are the same file"),
    ],
)
def test_a_mistake_is_found_when_the_dag_is_parsed(given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(SkyvernConfigError, match=complaint):
        SkyvernRunWorkflowOperator(task_id="t", workflow_id="w", **given)


@pytest.mark.slow
def test_a_manifest_that_cannot_be_written_starts_no_run(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (f"{tmp_path}/file/m.json", str(tmp_path), "gs://bucket/m.json"):
        with pytest.raises((OSError, AirflowFailException)):
            run(skyvern, files_to=f"{tmp_path}/in", manifest_to=place)
    assert starts(skyvern) == 0
