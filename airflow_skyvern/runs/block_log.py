"""Logs the blocks of a run for the task that waits for it: which has begun, which has ended and how."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from airflow_skyvern.client import api
from airflow_skyvern.durations import in_words
from airflow_skyvern.exceptions import SkyvernError, shorten
from airflow_skyvern.runs.blocks import ENDED, seconds_of

if TYPE_CHECKING:
    from airflow_skyvern.client.session import Send
    from airflow_skyvern.models import BlockRow, Run, RunDefinition, RunSnapshot, TimelineRow
    from airflow_skyvern.runs.wait import Log

log = logging.getLogger(__name__)

INTERVAL = 60.0
"""Seconds between two requests for the timeline of a run, at least."""

AT_WORK = frozenset({"running", "paused"})
"""The statuses of a run in which its blocks change."""

LONGEST_LABEL = 80


class BlockLog:
    """
    The blocks of a run that one wait has logged.

    Only the blocks of the workflow are logged; for a loop, its progress. The timeline is requested once a minute and
    once at the end: Skyvern's list of active runs has no block status.

    :param run_id: The run.
    :param log: The log for its blocks.
    :param clock: Returns the time in seconds since the epoch.
    """

    def __init__(self, run_id: str, log: Log, *, clock: Callable[[], float] = time.time) -> None:
        self.run_id = run_id
        self.is_total_known = False
        self._total: int | None = None
        self._log = log
        self._clock = clock
        self._due_at = clock() + INTERVAL * random.uniform(0.2, 1.0)  # a starting triggerer has many at once
        self._logged: dict[tuple[int, int], str] = {}
        self._is_off = False

    def is_due(self, run: RunSnapshot) -> bool:
        """Whether the run's timeline should be requested now."""
        return run.status in AT_WORK and self._clock() >= self._due_at

    def requested(self) -> None:
        """Note that the timeline is being requested."""
        self._due_at = self._clock() + INTERVAL

    def skipped(self, waits: int) -> None:
        """Note that the timeline is not requested, as this triggerer has too many waits."""
        self.requested()
        if not self._is_off:
            self._is_off = True
            self._log.info(
                "Skyvern run %s: its blocks are not logged while this triggerer waits for %d runs", self.run_id, waits
            )

    def set_total(self, definition: RunDefinition | None) -> None:
        """Take the number of blocks from the definition of the run's workflow; None if it is not known."""
        self.is_total_known = True
        workflow: Any = (definition or {}).get("workflow") or {}
        blocks = (workflow.get("workflow_definition") or {}).get("blocks")
        self._total = len(blocks) if isinstance(blocks, list) else None

    def update(self, timeline: Sequence[TimelineRow]) -> None:
        """Log what is new in a timeline, which is newest first."""
        self._is_off = False
        numbers: dict[int, int] = {}
        for row in reversed(timeline):
            block, attempt = row.get("block"), row.get("attempt") or 1
            if block is None:
                continue
            number = numbers[attempt] = numbers.get(attempt, 0) + 1
            state = _state(block, row.get("children") or ())
            if self._logged.get((attempt, number)) != state:
                self._logged[attempt, number] = state
                self._log.info(
                    "Skyvern run %s: block %s: %s, %s", self.run_id, self._numbered(number), _name(block), state
                )

    def _numbered(self, number: int) -> str:
        return f"{number} of {self._total}" if self._total and number <= self._total else str(number)


def _name(block: BlockRow) -> str:
    return shorten(block.get("label") or block["block_type"], LONGEST_LABEL)


def _state(block: BlockRow, children: Sequence[TimelineRow]) -> str:
    status = block.get("status") or "running"
    if status in ENDED:
        seconds = seconds_of(block)
        return status if seconds is None else f"{status} {_preposition(status)} {in_words(seconds)}"
    values, at = block.get("loop_values"), max(map(_iteration, children), default=0)
    return f"{status}, at {at} of {len(values)}" if at and values else status


def _iteration(child: TimelineRow) -> int:
    """Return the number of the iteration that a block of a loop belongs to, from 1; 0 if it is not known."""
    block = child.get("block")
    index = block.get("current_index") if block else None
    return 0 if index is None else index + 1


def _preposition(status: str) -> str:
    return "in" if status == "completed" else "after"


def with_blocks(fetch: Callable[[], Run], send: Send, blocks: BlockLog) -> Callable[[], Run]:
    """Return a function that fetches a run and logs its blocks, for a task that waits on its worker."""

    def fetched() -> Run:
        run = fetch()
        if run.is_final or blocks.is_due(run):
            blocks.requested()
            try:
                if not blocks.is_total_known:
                    blocks.set_total(send(api.get_run_definition(run.run_id)))
                blocks.update(send(api.list_block_rows(run.run_id)))
            except SkyvernError as error:
                log.debug("The blocks of run %s are not logged: %s", run.run_id, error)
        return run

    return fetched
