"""Reads a run's timeline: the block that failed, the block that waits for a person, and the times of each block."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter

from airflow_skyvern.models import UtcDatetime

if TYPE_CHECKING:
    from airflow_skyvern.models import Block, BlockRow, TimelineItem, TimelineRow

MOMENT: TypeAdapter[datetime] = TypeAdapter(UtcDatetime)
"""Reads a time as Skyvern writes it; the parser of Python 3.10 itself takes three or six decimals only."""

HUMAN_INTERACTION = "human_interaction"
"""The type of a block that waits for a person."""

FAILED = frozenset({"failed", "terminated", "timed_out", "canceled"})
"""The statuses of a block that did not do what it should."""

ENDED = FAILED | {"completed", "skipped"}
"""The statuses of a block that is over."""


def has_blocks(run_id: str) -> bool:
    """Return whether Skyvern lists the blocks of a run; for a prompt without a workflow (``tsk_…``) it does not."""
    return not run_id.startswith("tsk_") or run_id.startswith("tsk_v2_")


def blocks_of(timeline: Sequence[TimelineItem], deepest: float = math.inf) -> Iterator[Block]:
    """
    Yield the blocks in the order in which they began, a loop's blocks after the loop; the timeline is newest first.

    :param deepest: Levels of nested loops; deeper blocks are left out.
    """
    for item in reversed(timeline):
        if item.block is not None:
            yield item.block
        if deepest > 0:
            yield from blocks_of(item.children, deepest - 1)


def rows_of(timeline: Sequence[TimelineRow], depth: int = 0) -> Iterator[tuple[TimelineRow, int]]:
    """Yield the rows of a timeline in the same order, each with the number of rows that it is within."""
    for row in reversed(timeline):
        yield row, depth
        yield from rows_of(row.get("children") or (), depth + 1)


def block_seconds(duration: float | None, begun: datetime | None, modified: datetime | None) -> float | None:
    """Return how long a finished block took; blocks that need no browser do not report a duration."""
    if duration is not None:
        return duration
    if begun is None or modified is None:
        return None
    return max(0.0, (modified - begun).total_seconds())


def seconds_of(block: BlockRow) -> float | None:
    """Return how long a finished block took, of a row of a timeline."""
    begun, modified = _moment(block.get("created_at")), _moment(block.get("modified_at"))
    return block_seconds(block.get("duration"), begun, modified)


def times_of(block: BlockRow, run_ended: datetime) -> tuple[datetime, datetime] | None:
    """
    Return when a block of a finished run began and ended; None if Skyvern does not report it.

    :param run_ended: When the run ended: so did a block that was still running then.
    """
    begun, seconds = _moment(block.get("created_at")), seconds_of(block)
    if begun is None:
        return None
    is_over = block.get("status") in ENDED and seconds is not None
    return begun, begun + timedelta(seconds=seconds or 0.0) if is_over else max(begun, run_ended)


def _moment(text: Any) -> datetime | None:
    try:
        return MOMENT.validate_python(text)
    except ValueError:
        return None


def failing_block(timeline: Sequence[TimelineItem]) -> Block | None:
    """Return the block at which the run failed: the last one that failed, and the innermost of nested ones."""
    failed = [block for block in blocks_of(timeline) if block.status in FAILED]
    return failed[-1] if failed else None


def waiting_block(timeline: Sequence[TimelineItem]) -> Block | None:
    """Return the block that waits for a person."""
    waiting = [
        block for block in blocks_of(timeline) if block.block_type == HUMAN_INTERACTION and block.status == "running"
    ]
    return waiting[-1] if waiting else None


def last_screenshot(block: Block) -> str | None:
    """Return the artifact id of the newest screenshot of a block; its actions are newest first."""
    shots = (action.screenshot_artifact_id for action in block.actions)
    return next((shot for shot in shots if shot), None)


def definitions_of(blocks: Any) -> Iterator[dict[str, Any]]:
    """Yield the blocks of a workflow's definition, including blocks in loops."""
    for block in blocks if isinstance(blocks, list) else []:
        if isinstance(block, dict):
            yield block
            yield from definitions_of(block.get("loop_blocks"))
