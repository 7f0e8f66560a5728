from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_skyvern.results.names import (
    MOST_BYTES,
    RESERVED,
    file_names,
    filled,
    numbered,
    safe_name,
    unknown_placeholders,
)


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("invoice.pdf", "invoice.pdf"),
        ("Rechnung März № 7.pdf", "Rechnung März № 7.pdf"),
        ("../../x", "x"),
        ("../../etc/passwd", "passwd"),
        ("C:\\x", "x"),
        ("C:x.pdf", "C_x.pdf"),
        ("a\x00b\n.pdf", "ab.pdf"),
        ("\ud800.pdf", "pdf"),
        ("invoice\u202efdp.exe", "invoicefdp.exe"),
        ("", "file"),
        (None, "file"),
        ("..", "file"),
        (".env", "env"),
        ("a. ", "a"),
        ("NUL", "_NUL"),
        ("con.tar.gz", "_con.tar.gz"),
        ("what?#*.pdf", "what___.pdf"),
        ("请求.pdf", "请求.pdf"),
        ("👩‍👧.png", "👩‍👧.png"),
        (unicodedata.normalize("NFD", "é.pdf"), "é.pdf"),
    ],
)
def test_a_name_is_safe_and_keeps_what_it_can(name: str | None, safe: str) -> None:
    assert safe_name(name) == safe


def test_a_long_name_keeps_its_extension() -> None:
    safe = safe_name("ü" * 300 + ".pdf")
    assert safe.endswith("ü.pdf")
    assert MOST_BYTES - 2 <= len(safe.encode()) <= MOST_BYTES


def test_what_is_too_long_for_an_extension_is_cut_with_the_name() -> None:
    assert len(safe_name("a." + "b" * 300)) == MOST_BYTES


@given(st.text(max_size=400))
def test_no_text_becomes_a_name_that_is_not_safe(text: str) -> None:
    name = safe_name(text)
    assert 0 < len(name.encode()) <= MOST_BYTES
    assert not set(name) & set("/\\\0\n")
    assert not name.startswith(".")
    assert name.partition(".")[0].upper() not in RESERVED
    assert safe_name(name) == name


@given(st.lists(st.text(max_size=300), max_size=8), st.none() | st.text(max_size=300))
def test_no_two_files_get_one_name(names: list[str], template: str | None) -> None:
    found = file_names(names, template)
    assert len({name.casefold() for name in found}) == len(names)
    assert all(len(name.encode()) <= MOST_BYTES for name in found)


def test_the_same_name_is_numbered_also_in_other_case() -> None:
    assert file_names(["a.pdf", "A.PDF", "a.pdf", "b.pdf"]) == ["a.pdf", "A-2.PDF", "a-3.pdf", "b.pdf"]
    assert numbered("x" * 300 + ".pdf", [("x" * 300 + ".pdf")]).endswith("-2.pdf")


def test_a_template_names_the_files() -> None:
    assert file_names(["download-1.pdf", "download-2.csv"], "ACME-{index}{extension}") == ["ACME-1.pdf", "ACME-2.csv"]
    assert file_names(["x.pdf"], "{name}_{index}{extension}") == ["x_1.pdf"]
    assert file_names(["x.pdf", "y.pdf"], "same.pdf") == ["same.pdf", "same-2.pdf"]


def test_what_comes_from_jinja_is_no_path_and_no_format() -> None:
    assert filled("A/B {index.__class__} {0}.pdf", 1, "x.pdf") == "A_B {index.__class__} {0}.pdf"
    assert filled("../../x{extension}", 1, "y.pdf") == "_.._x.pdf"


def test_a_placeholder_that_is_none_is_found() -> None:
    assert unknown_placeholders("{{ run_id }}-{indx}{extension}") == ["indx"]
    assert unknown_placeholders("{{ {'a': 1}['a'] }}-{index}") == []
