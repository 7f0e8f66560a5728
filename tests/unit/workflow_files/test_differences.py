"""What differs, block by block, and no secret in it."""

from __future__ import annotations

from typing import Any

from airflow_skyvern.workflow_files.differences import differences
from tests.unit.workflow_files.test_form import MONTH, PAUSE, workflow


def shown(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [str(one) for one in differences(before, after)]


def test_blocks_and_parameters_that_come_and_go() -> None:
    read_rows = {"block_type": "extraction", "label": "rows", "data_extraction_goal": "x"}
    before, after = workflow(PAUSE, parameters=[MONTH]), workflow(PAUSE, read_rows)
    assert shown(before, after) == ["parameter month: removed", "block rows: added (extraction)"]
    assert shown(after, before) == ["parameter month: added (string)", "block rows: removed"]


def test_a_block_in_a_loop_stands_behind_its_loop() -> None:
    loops = [
        workflow({"block_type": "for_loop", "label": "each", "loop_blocks": [{**PAUSE, "wait_sec": seconds}]})
        for seconds in (5, 6)
    ]
    assert shown(*loops) == ["block each / pause: wait_sec: 5 → 6"]


def test_another_order_is_one_difference() -> None:
    other = {**PAUSE, "label": "other"}
    assert shown(workflow(PAUSE, other), workflow(other, PAUSE)) == [
        "blocks: another order: pause, other → other, pause"
    ]


def test_of_a_long_text_the_lines_that_differ() -> None:
    goals = ["Log in.\nOpen the list.\nDone.", "Log in.\nOpen the invoices.\nDone."]
    before, after = (workflow({"block_type": "task", "label": "a", "navigation_goal": goal}) for goal in goals)
    (difference,) = differences(before, after)
    assert (difference.where, difference.field, difference.change) == ("block a", "navigation_goal", "changed")
    assert difference.lines[1:] == (" Log in.", "-Open the list.", "+Open the invoices.", " Done.")


def test_settings_that_come_and_go() -> None:
    plain, located = workflow(PAUSE), workflow(PAUSE, proxy_location="RESIDENTIAL")
    assert shown(plain, located) == ['proxy_location: added: "RESIDENTIAL"']
    assert shown(located, plain) == ['proxy_location: removed: "RESIDENTIAL"']


def test_no_secret_is_shown() -> None:
    call = {"block_type": "http_request", "label": "call", "url": "x"}
    secrets = ["s3cr3t-W4rd-77", "0ther-S3cret-88"]
    before, after = (workflow({**call, "headers": {"Cookie": one}, "body": f"token={one}"}) for one in secrets)
    text = "\n".join(shown(before, after))
    assert text.count("block call: ") == 2
    assert not any(secret in text for secret in secrets)


def test_what_is_equal_has_no_difference() -> None:
    assert shown(workflow(PAUSE), workflow(PAUSE)) == []
