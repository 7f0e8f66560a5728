"""Reads a run's timeline: the block that failed, and the block that waits for a person."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime

    from airflow_skyvern.models import Block, TimelineItem

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


def block_seconds(duration: float | None, begun: datetime | None, modified: datetime | None) -> float | None:
    """Return how long a finished block took; blocks that need no browser do not report a duration."""
    if duration is not None:
        return duration
    if begun is None or modified is None:
        return None
    return max(0.0, (modified - begun).total_seconds())


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
