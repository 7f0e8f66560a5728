from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernFileConflict
from airflow_skyvern.results.stores import FolderStore, Store, store_at


@pytest.fixture
def folder(tmp_path: Path) -> Store:
    return FolderStore(tmp_path / "made" / "on the way")


def put(store: Store, name: str, content: bytes, **more: bool) -> None:
    with store.sink(name, **more) as sink:
        sink.write(content)


def files_of(store: Store) -> list[str]:
    return sorted(path.name for path in Path(store.address("")).iterdir())


def test_a_file_is_there_when_it_is_whole(folder: Store) -> None:
    with folder.sink("a.pdf") as sink:
        sink.write(b"half ")
        assert folder.size("a.pdf") is None
        sink.write(b"and half")
    assert folder.size("a.pdf") == 13
    assert folder.checksum("a.pdf") == hashlib.sha256(b"half and half").hexdigest()
    assert files_of(folder) == ["a.pdf"]


def test_nothing_is_left_of_a_file_that_was_cut(folder: Store) -> None:
    with pytest.raises(TypeError), folder.sink("a.pdf") as sink:
        sink.write("no bytes")  # type: ignore[arg-type]  # that is what must fail
    assert files_of(folder) == []


def test_another_file_is_not_replaced_unless_it_may_be(folder: Store) -> None:
    put(folder, "a.pdf", b"one")
    with pytest.raises(SkyvernFileConflict, match="exists and holds something else"):
        put(folder, "a.pdf", b"two")
    assert folder.checksum("a.pdf") == hashlib.sha256(b"one").hexdigest()
    put(folder, "a.pdf", b"two", overwrite=True)
    assert folder.checksum("a.pdf") == hashlib.sha256(b"two").hexdigest()
    assert files_of(folder) == ["a.pdf"]


def test_what_a_killed_task_left_goes_when_the_file_is_stored_again(folder: Store) -> None:
    killed = folder.sink("a.pdf")
    killed.__enter__().write(b"half")
    put(folder, "b.pdf", b"another file's temporary one stays")
    assert len(files_of(folder)) == 2
    put(folder, "a.pdf", b"whole")
    assert files_of(folder) == ["a.pdf", "b.pdf"]
    with pytest.raises(FileNotFoundError):
        killed.__exit__(None, None, None)
    assert folder.checksum("a.pdf") == hashlib.sha256(b"whole").hexdigest()


def test_names_of_255_bytes_fit(folder: Store) -> None:
    put(folder, "ü" * 125 + ".pdf", b"x")
    assert folder.size("ü" * 125 + ".pdf") == 1


@pytest.mark.parametrize("address", ["{}/a b", "file://{}/a b", "file://{}/a%20b"])
def test_a_folder_is_named_by_path_or_address(tmp_path: Path, address: str) -> None:
    put(store_at(address.format(tmp_path)), "x", b"1")
    assert (tmp_path / "a b" / "x").read_bytes() == b"1"


def test_a_store_without_its_provider_says_what_to_install() -> None:
    with pytest.raises(
        SkyvernConfigError, match=r"no way to gs:// addresses .* Install apache-airflow-providers-google"
    ):
        store_at("gs://bucket/x")
