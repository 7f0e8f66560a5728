"""The form of an output's file, by its extension."""

from __future__ import annotations

import csv
import gzip
import importlib.util
import io
import json
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.compat.sdk import AirflowFailException
from airflow_skyvern.operators import SkyvernRunWorkflowOperator
from airflow_skyvern.results.formats import Format
from tests.support.tasks import run_task

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern

ROWS = [{"item": 'größe, "a"', "price": 1.5}, {"item": "b\nc", "tags": ["x"], "paid": True}]


def write(skyvern: FakeSkyvern, address: str, output: Any = ROWS, **more: Any) -> dict[str, Any]:
    workflow_id = skyvern.workflow(output={"rows_output": output})
    given: dict[str, Any] = {"task_id": "t", "poll_interval": 0.01, "timeout": 20, "output_from": "rows", **more}
    return dict(run_task(lambda: SkyvernRunWorkflowOperator(workflow_id=workflow_id, output_to=address, **given)))


def content(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode()


@pytest.mark.parametrize("name", ["a.json", "a.json.gz", "a", "a.txt"])
def test_json(skyvern: FakeSkyvern, tmp_path: Path, name: str) -> None:
    reference = write(skyvern, f"{tmp_path}/{name}")
    assert json.loads(content(tmp_path / name)) == ROWS
    assert reference["size"] == (tmp_path / name).stat().st_size


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "A.NDJSON"])
def test_a_line_per_row(skyvern: FakeSkyvern, tmp_path: Path, name: str) -> None:
    write(skyvern, f"{tmp_path}/{name}")
    assert [json.loads(line) for line in content(tmp_path / name).split("\n")[:-1]] == ROWS


def test_csv_has_the_columns_of_all_rows_and_lists_as_json(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    write(skyvern, f"{tmp_path}/a.csv")
    assert list(csv.DictReader(io.StringIO(content(tmp_path / "a.csv"), newline=""))) == [
        {"item": 'größe, "a"', "price": "1.5", "tags": "", "paid": ""},
        {"item": "b\nc", "price": "", "tags": '["x"]', "paid": "true"},
    ]


def test_rows_may_carry_the_run_and_the_time(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    write(skyvern, f"{tmp_path}/a.jsonl", output_run_columns=True)
    [run_id] = skyvern.runs
    rows = [json.loads(line) for line in content(tmp_path / "a.jsonl").splitlines()]
    assert [row.pop("_skyvern_run_id") for row in rows] == [run_id, run_id]
    assert len({row.pop("_loaded_at") for row in rows}) == 1
    assert rows == ROWS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("output", "rows"), [(5, [{"value": 5}]), ({"a": 1}, [{"a": 1}]), ([], []), (None, [{"value": None}])]
)
def test_an_output_that_is_no_list_of_objects_is_written_too(
    skyvern: FakeSkyvern, tmp_path: Path, output: Any, rows: list[Any]
) -> None:
    for name in ("a.jsonl", "a.csv"):
        write(skyvern, f"{tmp_path}/{name}", output)
    assert [json.loads(line) for line in content(tmp_path / "a.jsonl").splitlines()] == rows


@pytest.mark.slow
def test_the_same_output_is_not_written_again(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    first = write(skyvern, f"{tmp_path}/a.json.gz")
    inode = (tmp_path / "a.json.gz").stat().st_ino
    assert write(skyvern, f"{tmp_path}/a.json.gz") == first
    assert (tmp_path / "a.json.gz").stat().st_ino == inode
    assert write(skyvern, f"{tmp_path}/a.json.gz", [1])["checksum"] != first["checksum"]


@pytest.mark.skipif(importlib.util.find_spec("pyarrow") is not None, reason="pyarrow is installed")
def test_a_worker_without_pyarrow_starts_no_run(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    with pytest.raises(AirflowFailException, match=r"no pyarrow, which writes \.parquet files\. Install"):
        write(skyvern, f"{tmp_path}/a.parquet")
    assert skyvern.runs == {}


def test_parquet_keeps_types_and_makes_texts_of_mixed_columns() -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [{"n": 1, "mixed": 1, "huge": 2**70}, {"n": 2, "mixed": "a", "huge": 1}]
    table = parquet.read_table(io.BytesIO(b"".join(Format.of("a.parquet").pieces(rows))))
    assert table.to_pylist() == [
        {"n": 1, "mixed": "1", "huge": str(2**70)},
        {"n": 2, "mixed": "a", "huge": "1"},
    ]


@pytest.mark.parametrize("item", [{}, {"b": {}}, [{}], {"b": [{"c": {}}]}])
def test_parquet_has_no_form_for_an_object_without_names(item: Any) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    content = b"".join(Format.of("a.parquet").pieces([{"a": item, "n": 1}]))
    assert parquet.read_table(io.BytesIO(content)).to_pylist() == [{"a": json.dumps(item), "n": 1}]


def test_the_time_of_loading_is_read_in_each_form() -> None:
    rows, columns = [{"at": "2020-01-01T00:00:00+00:00"}], {"_loaded_at": "2026-11-29T21:00:00+00:00"}
    names = ["a.json", "a.jsonl", "a.csv", "a.csv.gz"]
    if importlib.util.find_spec("pyarrow") is not None:
        names.append("a.parquet")
    for name in names:
        content = b"".join(Format.of(name).pieces(rows, columns))
        assert Format.of(name).loaded_at(io.BytesIO(content)) == columns["_loaded_at"], name
        assert Format.of(name).loaded_at(io.BytesIO(b"something else")) is None, name
