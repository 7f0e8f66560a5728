"""Files, outputs and uploads with a real S3: whole or not there, and nothing fetched twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.compat.sdk import AirflowFailException
from airflow_skyvern.exceptions import SkyvernTransferError
from airflow_skyvern.operators import SkyvernDownloadFilesOperator, SkyvernRunWorkflowOperator
from airflow_skyvern.results.stores import PART_BYTES, store_at
from dev.browser.site import size_in_bytes
from dev.process import wait_until
from tests.stores.conftest import BUCKET, HUGE, LARGE, ROOT, Rig, expected, forward
from tests.support.tasks import FakeTaskInstance, run_task

if TYPE_CHECKING:
    from airflow_skyvern.results.stores import Store
    from dev.fault_proxy import Exchange

LARGE_BYTES = size_in_bytes(LARGE)
CUT_AFTER = 12_000_000


def fetch(run_id: str, folder: str, **more: Any) -> list[dict[str, Any]]:
    """Store the files of a run that is over, as a task does."""
    task = SkyvernDownloadFilesOperator(
        task_id="t", run_id=run_id, files_to=f"s3://{BUCKET}/{folder}", files_conn_id="s3", **more
    )
    return list(run_task(lambda: task))


def left(rig: Rig, folder: str) -> tuple[dict[str, int], list[str]]:
    """The objects of a folder, and the uploads that are neither completed nor aborted."""
    return rig.s3.objects(BUCKET, folder), rig.s3.uploads(BUCKET, folder)


def test_parts_without_a_completed_upload_show_no_object(rig: Rig) -> None:
    upload = rig.s3.client.create_multipart_upload(Bucket=BUCKET, Key="parts/x")["UploadId"]
    part = {"Bucket": BUCKET, "Key": "parts/x", "UploadId": upload}
    rig.s3.client.upload_part(PartNumber=1, Body=b"x" * PART_BYTES, **part)
    assert left(rig, "parts/") == ({}, ["parts/x"])
    rig.s3.client.abort_multipart_upload(**part)
    assert left(rig, "parts/") == ({}, [])


@pytest.mark.parametrize("size", [0, 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES])
def test_a_file_of_any_size_is_stored_as_it_is(rig: Rig, size: int) -> None:
    content, name = os.urandom(size), f"{size}.bin"
    store = store_at(f"s3://{BUCKET}/sizes", "s3")
    with store.sink(name) as sink:
        for start in range(0, size, 2**16):
            sink.write(content[start : start + 2**16])
        assert store.size(name) is None
    assert rig.s3.read(BUCKET, f"sizes/{name}") == content
    assert (store.size(name), store.checksum(name)) == (size, hashlib.sha256(content).hexdigest())


def fail_after_three_parts(store: Store) -> None:
    with store.sink("x") as sink:
        sink.write(b"x" * 3 * PART_BYTES)
        raise ValueError("no more arrives")


def test_nothing_is_left_of_an_object_whose_writer_fails(rig: Rig) -> None:
    with pytest.raises(ValueError, match="no more arrives"):
        fail_after_three_parts(store_at(f"s3://{BUCKET}/failed", "s3"))
    assert left(rig, "failed/") == ({}, [])


def test_a_large_file_is_uploaded_in_parts_while_it_is_read(rig: Rig, large_run: str) -> None:
    [file] = fetch(large_run, "large", file_name="statement{extension}")
    assert file == {
        "path": f"s3://{BUCKET}/large/statement.pdf",
        "filename": "statement.pdf",
        "size": LARGE_BYTES,
        "checksum": expected("Large", LARGE),
    }
    assert rig.s3.objects(BUCKET, "large/") == {"large/statement.pdf": LARGE_BYTES}
    assert rig.checksum("large/statement.pdf") == file["checksum"]
    tag = rig.s3.client.head_object(Bucket=BUCKET, Key="large/statement.pdf")["ETag"]
    assert re.search(r"-6\W*$", tag), f"{tag} is not the tag of six parts"


def test_what_is_in_the_bucket_is_not_fetched_again(rig: Rig, large_run: str) -> None:
    first, before = fetch(large_run, "again"), rig.transfers
    assert before > 0
    assert fetch(large_run, "again") == first
    assert rig.transfers == before


def test_a_cut_transfer_continues_where_it_was_cut_and_no_half_object_is_seen(rig: Rig, large_run: str) -> None:
    asked: list[str | None] = []
    seen: list[tuple[int, int]] = []

    async def cut_twice(exchange: Exchange) -> None:
        asked.append(exchange.headers.get("range"))
        objects, uploads = left(rig, "cut/")
        seen.append((len(objects), len(uploads)))
        if len(asked) <= 2:
            await exchange.first(await exchange.forward(), CUT_AFTER)

    rig.on_content = cut_twice
    [file] = fetch(large_run, "cut")
    assert asked == [None, "bytes=12000000-", "bytes=24000000-"]
    assert seen == [(0, 0), (0, 1), (0, 1)]  # no object, and an upload that is not completed
    assert rig.checksum(f"cut/{file['filename']}") == file["checksum"] == expected("Large", LARGE)


def test_a_transfer_that_arrives_damaged_is_repeated_and_not_seen(rig: Rig, large_run: str) -> None:
    seen: list[int] = []

    async def damage_the_first(exchange: Exchange) -> None:
        seen.append(len(rig.s3.objects(BUCKET, "damaged/")))
        if len(seen) == 1:
            answer = await exchange.forward()
            await exchange.reply(replace(answer, body=answer.body[:-1] + b"?"))

    rig.on_content = damage_the_first
    [file] = fetch(large_run, "damaged")
    assert seen == [0, 0]
    assert rig.checksum(f"damaged/{file['filename']}") == expected("Large", LARGE)


def test_a_file_that_never_arrives_whole_leaves_nothing(rig: Rig, large_run: str) -> None:
    async def damage(exchange: Exchange) -> None:
        answer = await exchange.forward()
        await exchange.reply(replace(answer, body=b"?" + answer.body[1:]))

    rig.on_content = damage
    with pytest.raises(SkyvernTransferError, match="what arrived is not what Skyvern lists"):
        fetch(large_run, "never")
    assert left(rig, "never/") == ({}, [])


def test_another_object_of_the_same_name_is_kept_unless_it_may_be_replaced(rig: Rig, large_run: str) -> None:
    rig.s3.client.put_object(Bucket=BUCKET, Key="taken/x.pdf", Body=b"somebody else's")
    with pytest.raises(AirflowFailException, match="exists and holds something else"):
        fetch(large_run, "taken", file_name="x.pdf")
    assert rig.s3.read(BUCKET, "taken/x.pdf") == b"somebody else's"
    fetch(large_run, "taken", file_name="x.pdf", overwrite=True)
    assert rig.checksum("taken/x.pdf") == expected("Large", LARGE)


def test_an_object_that_appears_during_the_transfer_is_kept(rig: Rig, large_run: str) -> None:
    async def race(exchange: Exchange) -> None:
        rig.s3.client.put_object(Bucket=BUCKET, Key="race/x.pdf", Body=b"the other task's")

    rig.on_content = race
    with pytest.raises(AirflowFailException, match="exists and holds something else"):
        fetch(large_run, "race", file_name="x.pdf")
    assert rig.s3.read(BUCKET, "race/x.pdf") == b"the other task's"
    assert rig.s3.uploads(BUCKET, "race/") == []


def test_200_mb_pass_while_the_process_grows_by_less_than_32_mb(rig: Rig, small_run: str, huge_run: str) -> None:
    command = [sys.executable, "-m", "tests.support.store_files", f"s3://{BUCKET}/memory", small_run, huge_run]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = re.search(r"grown: (\d+) KiB", done.stderr)
    assert found is not None
    print(f"200 MB: the process grew by {int(found[1]) / 1024:.1f} MiB")
    assert int(found[1]) < 32 * 1024
    assert rig.checksum(f"memory/{huge_run}.pdf") == expected("Huge", HUGE)


def workflow(rig: Rig, name: str, **more: Any) -> SkyvernRunWorkflowOperator:
    given = {"task_id": "t", "workflow_id": rig.skyvern.workflow(name), "poll_interval": 0.5, "timeout": 60, **more}
    return SkyvernRunWorkflowOperator(**given)


def test_an_output_goes_into_the_bucket_and_a_reference_into_xcom(rig: Rig) -> None:
    def task() -> SkyvernRunWorkflowOperator:
        address = f"s3://{BUCKET}/output/{{skyvern_run_id}}.json"
        more = {"output_to": address, "output_conn_id": "s3", "output_from": "rows", "deferrable": True}
        return workflow(rig, "vendor", parameters={"vendor": "ACME"}, **more)

    ti = FakeTaskInstance()
    reference = run_task(task, ti)
    name = f"output/{ti.xcoms['run_id']}.json"
    content = rig.s3.read(BUCKET, name)
    checksum = hashlib.sha256(content).hexdigest()
    assert reference == {"path": f"s3://{BUCKET}/{name}", "size": len(content), "checksum": checksum}
    assert [int(row["item"]) for row in json.loads(content)] == [1, 2, 3, 4]


def test_an_object_is_sent_to_skyvern_which_reads_its_rows(rig: Rig) -> None:
    rig.s3.client.put_object(Bucket=BUCKET, Key="in/statement.csv", Body=b"item,price\npaper,1.5\n")
    upload = {"upload": {"statement": f"s3://{BUCKET}/in/statement.csv"}, "upload_conn_id": "s3"}
    [row] = run_task(lambda: workflow(rig, "csv_rows", output_from="rows", **upload))
    assert (row["item"], float(row["price"])) == ("paper", 1.5)


def test_a_killed_writer_leaves_an_upload_that_a_second_one_does_not_need(rig: Rig, large_run: str) -> None:
    stalled = asyncio.Event()

    async def stall(exchange: Exchange) -> None:
        await exchange.first(await exchange.forward(), LARGE_BYTES // 2)
        await stalled.wait()

    rig.on_content = stall
    command = [sys.executable, "-m", "tests.support.store_files", f"s3://{BUCKET}/killed", large_run, large_run]
    writer = subprocess.Popen(command, cwd=ROOT)
    wait_until("parts are uploaded", lambda: bool(rig.s3.uploads(BUCKET, "killed/")), 60)
    writer.kill()
    writer.wait()
    rig.proxy.run(_set(stalled))
    assert rig.s3.objects(BUCKET, "killed/") == {}
    rig.on_content = forward
    fetch(large_run, "killed", file_name=f"{large_run}{{extension}}")
    [name] = rig.s3.objects(BUCKET, "killed/")
    assert rig.checksum(name) == expected("Large", LARGE)


async def _set(event: asyncio.Event) -> None:
    event.set()
