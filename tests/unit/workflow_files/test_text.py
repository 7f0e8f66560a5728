"""Files are read as Skyvern reads them, and written so that the same workflow gives the same bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_skyvern.exceptions import SkyvernConfigError
from airflow_skyvern.workflow_files.form import form_of
from airflow_skyvern.workflow_files.text import parsed, read, store, with_base, written
from tests.unit.workflow_files.test_form import PAUSE, workflow

PROMPT = "Log in. \n\nThen open the invoices:\n\t- of October\n  - that are open  \nDone 😀"


@pytest.mark.parametrize("name", ["invoices.yaml", "invoices.yml", "invoices.json"])
def test_what_is_written_is_read_again(name: str) -> None:
    block = {"block_type": "navigation", "label": "a", "navigation_goal": PROMPT}
    form = form_of(workflow(block, description="2026-10-01"))
    text = written(name, form)
    assert parsed(name, text).raw == form
    assert written(name, parsed(name, text).form) == text


def test_long_texts_are_blocks_of_lines() -> None:
    goal = "Read all invoices in the list, and return number, date, customer and amount of each of them as a row."
    text = written("a.yaml", workflow({"block_type": "task", "label": "a", "navigation_goal": PROMPT, "title": goal}))
    assert "navigation_goal: |-\n        Log in. \n\n        Then open" in text
    assert "title: >-\n" in text
    assert "\\n" not in text


@pytest.mark.slow
@example("\x85", None)
@example("a\r\nb", "\u2028")
@given(
    st.text(max_size=200),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=10,
    ),
)
def test_any_content_survives(prompt: str, value: Any) -> None:
    form = workflow({**PAUSE, "prompt": prompt, "value": value})
    assert parsed("a.yaml", written("a.yaml", form)).raw == form


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("title: [x", r"a.yaml, line 1: is not YAML"),
        ("title: a\ntitle: b\n", r"'title' appears twice"),
        ("- a", "must hold a mapping"),
        ("title: a", "workflow_definition: is missing"),
        ("workflow_definition: {parameters: [], blocks: []}", "title: is missing"),
        ("title: a\nworkflow_definition: {parameters: [], blocks: {}}", "blocks: must be a list of mappings"),
        ("title: a\nworkflow_definition: {parameters: [x], blocks: []}", "parameters: must be a list of mappings"),
        (
            "title: a\nworkflow_definition: {parameters: [], blocks: [{label: l, loop_blocks: 3}]}",
            "loop_blocks of l: must be a list",
        ),
        ("!!python/object/apply:os.system [ls]", "is not YAML"),
    ],
)
def test_what_is_no_workflow_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(SkyvernConfigError, match=complaint):
        parsed("a.yaml", text)


@pytest.mark.parametrize(
    ("text", "complaint"), [("{", "is not JSON"), ('{"title": "a", "title": "b"}', "'title' appears twice")]
)
def test_what_is_no_json_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(SkyvernConfigError, match=complaint):
        parsed("a.json", text)


def test_dates_stay_texts_as_for_skyvern() -> None:
    text = "title: 2026-10-01\nworkflow_definition: {parameters: [], blocks: []}"
    assert parsed("a.yaml", text).title == "2026-10-01"


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path: Path) -> None:
    with pytest.raises(SkyvernConfigError, match=r"gone.yaml: cannot be read: No such file"):
        read(tmp_path / "gone.yaml")
    (tmp_path / "latin.yaml").write_bytes("title: Zürich".encode("latin-1"))
    with pytest.raises(SkyvernConfigError, match=r"latin.yaml: is not UTF-8"):
        read(tmp_path / "latin.yaml")
    with pytest.raises(SkyvernConfigError, match=r"a workflow file ends in .yaml, .yml, .json"):
        parsed("a.txt", "")


def test_the_first_line_says_what_was_pulled_and_all_else_stays() -> None:
    text = written("a.yaml", workflow(PAUSE))
    file = parsed("a.yaml", text)
    assert file.base == file.digest
    edited = text.replace("wait_sec: 5", "wait_sec: 6  # long enough")
    later = with_base(edited, "0123456789abcdef")
    assert parsed("a.yaml", later).base == "0123456789abcdef"
    assert later.splitlines()[1:] == edited.splitlines()[1:]
    assert parsed("a.yaml", edited.split("\n", 1)[1]).base is None


def test_a_file_is_replaced_as_a_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "a.yaml"
    store(path, "one")
    path.chmod(0o640)
    store(path, "two")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("two", 0o640)
    assert [one.name for one in path.parent.iterdir()] == ["a.yaml"]
    (link := tmp_path / "link.yaml").symlink_to(path)
    store(link, "three")
    assert (link.is_symlink(), path.read_text()) == (True, "three")
