"""What can be known about the delivery of files and outputs is checked before a run is started and paid for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pydantic.v1
import pydantic.v1.dataclasses
import pytest
from pydantic import BaseModel

from airflow_skyvern.compat.sdk import AirflowFailException
from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.operators import SkyvernDownloadFilesOperator, SkyvernRunWorkflowOperator
from airflow_skyvern.results.contract import JsonSchemaContract, Misfit
from airflow_skyvern.results.destination import OutputFile
from airflow_skyvern.results.store_kinds import KINDS, Address
from airflow_skyvern.results.stores import store_of
from airflow_skyvern.sensors import SkyvernRunSensor
from tests.support.tasks import run_task

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern


class Old(pydantic.v1.BaseModel):
    total: int


@pydantic.v1.dataclasses.dataclass
class OldData:
    total: int


class WithOld(NamedTuple):
    old: Old | None


LOOP = {"a": {"$ref": "#/$defs/b"}, "b": {"allOf": [{"$ref": "#/$defs/a"}]}}


class Unfinished(BaseModel):
    total: Missing  # type: ignore[name-defined]  # noqa: F821  that is what must be found


def make(workflow_id: str, **more: Any) -> SkyvernRunWorkflowOperator:
    return SkyvernRunWorkflowOperator(task_id="t", workflow_id=workflow_id, poll_interval=0.01, timeout=20, **more)


BROKEN: list[tuple[dict[str, Any], str]] = [
    ({"output_to": "gs://bucket/a.json"}, "no way to gs:// addresses"),
    ({"output_to": "abfs://container/a.json"}, "no way to abfs:// addresses"),
    ({"output_to": "hdfs://host/a.json"}, "hdfs:// is not a store"),
    ({"files_to": "webhdfs://host/folder"}, "webhdfs:// is not a store"),
    ({"files_to": "s3://bucket/x", "files_conn_id": "nobody_made_this"}, "no such connection"),
    ({"output_to": "s3://nobody_made_this@bucket/x.json"}, "no such connection"),
    ({"output_to": "s3://bucket"}, "does not name a file"),
    ({"files_to": "s3://"}, "does not name a place"),
    ({"files_to": "gs:///folder"}, "does not name a place"),
    ({"output_to": "s3:///folder/a.json"}, "does not name a place"),
    ({"files_to": "/tmp/{skyvern_runid}"}, "{skyvern_runid} is not a placeholder; use {skyvern_run_id}"),
    ({"output_to": "s3://bucket/{run_id}.json"}, "{run_id} is not a placeholder"),
    ({"files_to": "/tmp/x", "manifest_to": "file:///tmp/{ Skyvern_Run_Id }.json"}, "is not a placeholder"),
    ({"files_to": "file://data/x"}, "three slashes: file:///data/x"),
    ({"output_to": "file://data/x.json"}, "three slashes"),
    ({"output_schema": {"$ref": "#/nowhere"}}, "#/nowhere' is not within the schema"),
    ({"output_schema": {"properties": {"a": {"items": {"$ref": "http://x/y"}}}}}, "is not within the schema"),
    ({"output_schema": {"$ref": "#"}}, "leads back to itself"),
    ({"output_schema": Unfinished}, "not defined"),
    ({"output_schema": list[Unfinished]}, "not defined"),
    ({"output_schema": Old}, "Old is a model of pydantic 1"),
    ({"output_schema": dict[str, list[Old]]}, "Old is a model of pydantic 1"),
    ({"output_schema": OldData}, "OldData is a model of pydantic 1"),
    ({"output_schema": list[WithOld]}, "Old is a model of pydantic 1"),
    ({"output_schema": {"properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": LOOP}}, "leads back to itself"),
    ({"output_schema": {"items": {"anyOf": [{"$ref": "#/$defs/b"}]}, "$defs": LOOP}}, "leads back to itself"),
    ({"output_schema": {"$defs": {"a": {"if": {"not": {"$ref": "#/$defs/a"}}}}}}, "leads back to itself"),
    ({"files_to": "/tmp/x", "files_conn_id": "nobody_made_this"}, "no such connection"),
    ({"output_to": "/tmp/x/a.json", "output_conn_id": "nobody_made_this"}, "no such connection"),
    ({"output_to": "file:///tmp/" + 300 * "a"}, "a name of more than 255 bytes"),
    ({"output_to": "/tmp/" + 128 * "ü" + "/a.json"}, "a name of more than 255 bytes"),
    ({"files_to": "/tmp/" + 300 * "a"}, "a name of more than 255 bytes"),
    ({"output_to": "s3://bucket/" + 1100 * "a"}, "at most 1024 bytes"),
    ({"output_to": "/tmp/a\0b.json"}, "a control character"),
    ({"output_to": "file:///tmp/a%00b.json"}, "a control character"),
    ({"files_to": "/tmp/a\nb"}, "a control character"),
    ({"files_to": "s3://bucket/a\u202eb"}, "a control character"),
    ({"output_to": "/tmp/x/.."}, r"holds \. or \.\."),
    ({"output_to": "/tmp/x/."}, r"holds \. or \.\."),
    ({"files_to": "file:///tmp/%2e%2e/etc"}, r"holds \. or \.\."),
    ({"files_to": "s3://bucket/../other"}, r"holds \. or \.\."),
    ({"output_to": "/tmp"}, "/tmp is a folder"),
    ({"output_to": "file:///tmp"}, "/tmp is a folder"),
    ({"expect_files": ""}, "expect_files must be a number"),
    ({"expect_files": ["*.pdf", ""]}, "expect_files must be a number"),
    ({"files_to": "/tmp/x", "expect_files": "{{ params.count }}"}, "expect_files is not templated"),
    ({"expect_files": ["{{ params.name }}.pdf"]}, "expect_files is not templated"),
]


@pytest.mark.parametrize(("given", "complaint"), BROKEN, ids=[complaint for _, complaint in BROKEN])
def test_what_cannot_be_delivered_starts_no_run(skyvern: FakeSkyvern, given: dict[str, Any], complaint: str) -> None:
    workflow_id = skyvern.workflow(output={"a": 1})
    with pytest.raises((SkyvernConfigError, AirflowFailException), match=complaint):
        run_task(lambda: make(workflow_id, **given))
    assert skyvern.runs == {}


@pytest.mark.parametrize(
    "schema",
    [
        {"properties": {"child": {"$ref": "#"}}},
        {"$defs": {"n": {"anyOf": [{"type": "null"}, {"properties": {"next": {"$ref": "#/$defs/n"}}}]}}},
        {"$ref": "#/$defs/n", "$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}},
        {"allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#/$defs/a"}], "$defs": {"a": {}}},
    ],
)
def test_a_schema_of_trees_and_lists_is_none_that_leads_back(schema: dict[str, Any]) -> None:
    make("w", output_schema=schema)


def test_a_value_that_is_nested_too_deeply_does_not_fit() -> None:
    value: dict[str, Any] = {}
    for _ in range(2000):
        value = {"child": value}
    with pytest.raises(Misfit, match="nested too deeply"):
        JsonSchemaContract({"properties": {"child": {"$ref": "#"}}}).validated(value)


def test_the_sensor_finds_it_before_it_waits(skyvern: FakeSkyvern) -> None:
    run_id = skyvern.run()
    with pytest.raises(AirflowFailException, match="no way to gs://"):
        run_task(lambda: SkyvernRunSensor(task_id="t", run_id=run_id, output_to="gs://bucket/a.json"))
    assert skyvern.sent("GET", "/v1/runs/.*") == []


@pytest.mark.parametrize("place", ["file", "file/folder/deeper"])
def test_a_folder_that_cannot_be_one_starts_no_run(skyvern: FakeSkyvern, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").touch()
    for given in ({"files_to": f"{tmp_path}/{place}"}, {"output_to": f"{tmp_path}/{place}/a.json"}):
        with pytest.raises(NotADirectoryError):
            run_task(lambda given=given: make(skyvern.workflow(), **given))  # type: ignore[misc]
    assert skyvern.runs == {}


@pytest.mark.parametrize("address", ["/zz-skyvern.json", "file:///zz-skyvern.json", "/{skyvern_run_id}.json"])
def test_a_file_in_the_root_folder_is_one(address: str) -> None:
    OutputFile(address).check()


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("file:///data/C#/in/a b.json", "/data/C#/in/a b.json"),
        ("file:///data/a%20b/c%20d.json", "/data/a b/c d.json"),
        ("file://localhost/data/x?y.json", "/data/x?y.json"),
        ("/data/a%20b/c%20d#e.json", "/data/a%20b/c%20d#e.json"),
        ("/a.json", "/a.json"),
    ],
)
def test_an_address_is_read_in_one_way_as_a_whole(address: str, path: str) -> None:
    store, name = store_of(address)
    assert store.address(name) == path


@pytest.mark.parametrize("address", ["s3://b/C#/in", "gs://b/a%20b?c", "abfs://b/x", "sftp://conn@host/data"])
def test_the_address_of_an_object_is_not_decoded(address: str) -> None:
    folder, name = Address.of(f"{address}/x y%20.pdf").split()
    assert (folder.text, name) == (address, "x y%20.pdf")


@pytest.mark.slow
def test_the_id_of_the_run_stands_in_folders_and_names(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    run_id = skyvern.run(plan=("completed",), artifacts={"a.pdf": b"%PDF"})
    more: dict[str, Any] = {
        "files_to": f"{tmp_path}/{{skyvern_run_id}}/in",
        "file_name": "{skyvern_run_id}-{index}{extension}",
    }
    [file] = run_task(lambda: SkyvernDownloadFilesOperator(task_id="t", run_id=run_id, **more))
    assert file["path"] == f"{tmp_path}/{run_id}/in/{run_id}-1.pdf"
    assert os.path.isfile(file["path"])  # noqa: PTH113  it is a text


def test_the_table_in_the_documentation_is_the_one_that_the_code_uses() -> None:
    text = (Path(__file__).parents[3] / "docs" / "files.md").read_text()
    for kind in KINDS:
        schemes = ", ".join(f"`{scheme}://`" for scheme in kind.schemes)
        row = f"| {kind.name} ({schemes}) | {kind.whole} | {kind.create_only} | {kind.proven_with or 'unproven'} |"
        assert row in text, row
