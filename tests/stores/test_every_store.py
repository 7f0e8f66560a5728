"""What docs/files.md promises of each store, with a real server or an emulator of each: see `STORES`."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernFileConflict, SkyvernTransferError
from airflow_skyvern.results.manifest import Partition, manifest_at
from airflow_skyvern.results.options import FileOptions
from airflow_skyvern.results.store_kinds import BY_SCHEME, KINDS
from airflow_skyvern.results.stores import PART_BYTES, Store, store_at
from dev.other_stores import AzureServer, GoogleServer, SftpServer
from tests.stores.conftest import BUCKET

if TYPE_CHECKING:
    from dev.object_store import S3Server

Open = Callable[[str], Store]
STORES = ("file", "s3", "gs", "abfs", "sftp")
PAIRS = 20
IGNORES = "fake-gcs-server ignores the condition of an upload in parts; that it is sent is a test of its own"


@pytest.fixture(scope="module")
def stores(s3: S3Server, google: GoogleServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The address of each store and the id of its connection, as far as its server can be had here."""
    from airflow.sdk.io import attach

    found = {"file": f"file://{tmp_path_factory.mktemp('folders')}", "s3": f"s3://s3_every@{BUCKET}"}
    with ExitStack() as running, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_S3_EVERY", json.dumps(s3.connection))
        sftp = running.enter_context(SftpServer())
        patch.setenv("AIRFLOW_CONN_SFTP_EVERY", json.dumps(sftp.connection))
        found["sftp"] = "sftp://sftp_every@rig/data"
        client = running.enter_context(AzureServer()).client
        client.mkdir(BUCKET)
        attach("abfs", fs=client)
        found["abfs"] = f"abfs://{BUCKET}"
        attach("gs", fs=google.client)
        google.client.mkdir(BUCKET)
        found["gs"] = f"gs://{BUCKET}"
        yield found


@pytest.fixture(scope="module")
def google() -> Iterator[GoogleServer]:
    with GoogleServer() as server:
        yield server


@pytest.fixture(params=STORES)
def scheme(request: pytest.FixtureRequest, stores: dict[str, str]) -> str:
    return str(request.param)


@pytest.fixture
def place(scheme: str, stores: dict[str, str], request: pytest.FixtureRequest) -> str:
    return f"{stores[scheme]}/{request.node.originalname}/{os.urandom(4).hex()}"


def put(store: Store, name: str, content: bytes, **more: Any) -> None:
    with store.sink(name, **more) as sink:
        for start in range(0, len(content), 2**18):
            sink.write(content[start : start + 2**18])


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_every_store_of_the_table_is_tried_or_named_as_unproven() -> None:
    assert {BY_SCHEME[scheme] for scheme in STORES} == {kind for kind in KINDS if kind.proven_with}


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES])
def test_a_file_is_there_when_it_is_whole_and_stays_what_it_is(place: str, scheme: str, size: int) -> None:
    content, store = os.urandom(size), store_at(place)
    store.check()
    with store.sink("a b#ü.bin") as sink:
        for start in range(0, size, 2**18):
            sink.write(content[start : start + 2**18])
        assert store.size("a b#ü.bin") is None
    assert (store.size("a b#ü.bin"), store.checksum("a b#ü.bin")) == (size, sha256(content))
    if not (scheme == "gs" and size + len(b"other") > PART_BYTES):
        with pytest.raises(SkyvernFileConflict, match="exists and holds something else"):
            put(store, "a b#ü.bin", b"other" + content)
        assert store.checksum("a b#ü.bin") == sha256(content)
    put(store, "a b#ü.bin", b"other" + content, overwrite=True)
    assert store.checksum("a b#ü.bin") == sha256(b"other" + content)


@pytest.mark.parametrize("size", [1_000, 2 * PART_BYTES + 1])
def test_nothing_is_left_of_a_file_whose_writer_fails(place: str, size: int) -> None:
    store = store_at(place)
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="no more arrives"):
            fail_after(store, size, overwrite=overwrite)
    assert store.size("x") is None
    again = b"y" * size  # as the retry of the task does; Azurite takes parts without a commit for a blob of its name
    put(store, "x", again)
    assert store.checksum("x") == sha256(again)
    assert names_in(store) <= {"x"}


def fail_after(store: Store, size: int, *, overwrite: bool) -> None:
    with store.sink("x", overwrite=overwrite) as sink:
        sink.write(b"x" * size)
        raise ValueError("no more arrives")


def names_in(store: Store) -> set[str]:
    from airflow.sdk import ObjectStoragePath

    path = ObjectStoragePath(store.address("x"))
    path.fs.invalidate_cache()
    return {name.rpartition("/")[2] for name in path.fs.ls(path.path.rpartition("/")[0], detail=False)}


@pytest.mark.parametrize("size", [1_000, PART_BYTES + 1_000])
def test_of_two_tasks_that_store_one_name_exactly_one_does(place: str, scheme: str, size: int) -> None:
    if scheme == "gs" and size > PART_BYTES:
        pytest.skip(IGNORES)
    pairs = PAIRS if size == 1_000 else 6
    outcomes: Counter[tuple[str, ...]] = Counter()
    for number in range(pairs):
        outcomes[pair(place, f"{number}.bin", size)] += 1
    print(f"{scheme}, {size} bytes: {dict(outcomes)}")
    assert outcomes == {("conflict", "stored"): pairs}


def pair(place: str, name: str, size: int) -> tuple[str, ...]:
    """Let two tasks store different files of one name at the same time, and say how each ended."""
    begin = threading.Barrier(2)
    ended: dict[bytes, str] = {}

    def store(content: bytes) -> None:
        try:
            with store_at(place).sink(name) as sink:
                sink.write(content)
                begin.wait(60)
            ended[content] = "stored"
        except (
            SkyvernFileConflict,
            FileNotFoundError,
        ):  # in a folder the second writer ends the first; a retry finds it
            ended[content] = "conflict"
        except Exception as error:  # noqa: BLE001  the test says which
            ended[content] = f"{type(error).__name__}: {error}"

    threads = [threading.Thread(target=store, args=(mark * size,)) for mark in (b"1", b"2")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    there = store_at(place).checksum(name)
    assert all(sha256(content) == there for content, end in ended.items() if end == "stored")
    return tuple(sorted(ended.values()))


def test_an_upload_in_parts_to_google_asks_that_nothing_has_the_name(
    stores: dict[str, str], google: GoogleServer
) -> None:
    store, content = store_at(f"{stores['gs']}/parts"), b"x" * (PART_BYTES + 1)
    put(store, "alone", content)
    put(store, "replaced", content, overwrite=True)
    alone, replaced = google.uploads_in_parts()[-2:]
    assert "name=parts/alone&" in alone
    assert "ifGenerationMatch=0" in alone
    assert "name=parts/replaced&" in replaced
    assert "ifGenerationMatch" not in replaced


def test_a_bucket_that_does_not_exist_is_found_before_a_run(stores: dict[str, str]) -> None:
    for scheme in {"s3", "abfs", "gs"} & stores.keys():
        with pytest.raises(SkyvernConfigError, match="'nobody-made-this' does not exist there"):
            store_at(f"{stores[scheme].replace(BUCKET, 'nobody-made-this')}/x").check()


def test_a_file_in_the_place_of_a_folder_is_found_before_a_run(stores: dict[str, str]) -> None:
    put(store_at(stores["sftp"]), "file", b"x")
    with pytest.raises(SkyvernConfigError, match="is not a folder"):
        store_at(f"{stores['sftp']}/file/folder").check()


def test_a_store_that_does_not_answer_is_found_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"conn_type": "sftp", "host": "127.0.0.1", "port": 9, "login": "x", "password": "x"}
    monkeypatch.setenv("AIRFLOW_CONN_SFTP_AWAY", json.dumps(given))
    with pytest.raises(SkyvernTransferError, match="cannot be reached"):
        store_at("sftp://sftp_away@rig/data").check()


def test_an_unknown_connection_is_no_anonymous_access() -> None:
    for address, conn_id in ((f"s3://{BUCKET}/x", "nobody_made_this"), (f"s3://nobody_made_this@{BUCKET}/x", None)):
        with pytest.raises(SkyvernConfigError, match="no such connection"):
            store_at(address, conn_id)


def test_a_server_that_heeds_conditions_keeps_no_probe(stores: dict[str, str], s3: S3Server) -> None:
    store_at(f"{stores['s3']}/probed").check()
    assert s3.objects(BUCKET, "probed/") == {}


def test_a_partition_is_replaced_as_a_whole(place: str) -> None:
    def deliver(run_id: str, files: dict[str, bytes]) -> dict[str, Any]:
        partition, store = Partition(options, None, run_id, None, logging.getLogger(__name__)), store_at(place)
        entries = [
            {"path": store.address(name), "filename": name, "size": len(content), "checksum": sha256(content)}
            for name, content in files.items()
        ]
        try:
            assert not partition.begin(entries)
            assert manifest_at(f"{place}/manifest.json", None) is None
            for name, content in files.items():
                put(store, name, content, overwrite=True)
            return partition.finish(entries, None, [])
        finally:
            partition.close()

    options = FileOptions(files_to=place, manifest_to=f"{place}/manifest.json", if_exists="replace")
    deliver("wr_1", {"a b#ü.pdf": b"old", "b.pdf": b"old"})
    store = store_at(place)
    put(store, "of somebody else.pdf", b"kept")
    reference = deliver("wr_2", {"a b#ü.pdf": b"new", "c.pdf": b"new"})
    assert names_in(store) == {"a b#ü.pdf", "c.pdf", "of somebody else.pdf", "manifest.json"}
    assert store.checksum("manifest.json") == reference["checksum"]
    found = manifest_at(f"{place}/manifest.json", None)
    assert found is not None
    assert found.skyvern_run_id == "wr_2"
    with pytest.raises(SkyvernFileConflict, match="lists the files of Skyvern run wr_2"):
        Partition(replace(options, if_exists="fail"), None, "wr_3", None, logging.getLogger(__name__)).begin()


def test_of_runs_that_replace_one_partition_at_once_each_is_whole(place: str, scheme: str) -> None:
    options = FileOptions(files_to=place, manifest_to=f"{place}/manifest.json", if_exists="replace")
    begin, ended = threading.Barrier(3), Counter[str]()

    def deliver(run_id: str) -> None:
        files = {"a": run_id.encode(), "b": run_id.encode(), run_id: run_id.encode()}
        entries = [
            {"path": f"{store_at(place).address(name)}", "filename": name, "size": 4, "checksum": sha256(content)}
            for name, content in files.items()
        ]
        partition, store = Partition(options, None, run_id, None, logging.getLogger(__name__)), store_at(place)
        begin.wait(60)
        try:
            partition.begin(entries)
            for name, content in files.items():
                put(store, name, content, overwrite=True)
            partition.finish(entries, None, [])
            there = names_in(store) - {name for name in names_in(store) if name.startswith(".skyvern-")}
            assert there == {"a", "b", run_id, "manifest.json"}
            assert {store.checksum(name) for name in ("a", "b", run_id)} == {sha256(run_id.encode())}
            ended["whole"] += 1
        except Exception as error:  # noqa: BLE001  the test says which
            ended[f"{type(error).__name__}: {error}"] += 1
        finally:
            partition.close()

    tasks = [threading.Thread(target=deliver, args=(f"wr_{number}",)) for number in range(3)]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join(120)
    print(f"{scheme}: {dict(ended)}")
    assert ended == {"whole": 3}
    assert {name for name in names_in(store_at(place)) if name.startswith(".")} == set()
