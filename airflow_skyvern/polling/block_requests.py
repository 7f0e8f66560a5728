"""Requests the timelines of runs whose blocks are logged, one after the other, between the polls."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from airflow_skyvern.client import api
from airflow_skyvern.exceptions import SkyvernError
from airflow_skyvern.polling.queue import State

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call
    from airflow_skyvern.polling.queue import QueueEntry
    from airflow_skyvern.runs.block_log import BlockLog

log = logging.getLogger(__name__)

MOST_WAITS = 300
"""With more waits in a triggerer, no timeline is requested: five requests a second are enough."""

LAST_SECONDS = 5.0
"""Seconds for which the end of a run is held back until its last blocks are logged."""


class BlockRequests:
    """
    Decides when to request which timelines; the waits say whether they need theirs.

    :param send: Sends a call with the client of the connection.
    :param count_waits: Returns how many waits this triggerer has.
    """

    def __init__(self, send: Callable[[Call[Any]], Awaitable[Any]], count_waits: Callable[[], int]) -> None:
        self._send = send
        self._count_waits = count_waits
        self._entries: deque[QueueEntry] = deque()
        self._task: asyncio.Task[None] | None = None

    def polled(self, entry: QueueEntry) -> None:
        """Request the timeline of a run that was polled and is active, if that is due."""
        blocks, run = entry.blocks, entry.wait.run
        if blocks is None or run is None or not blocks.is_due(run):
            return
        if (waits := self._count_waits()) > MOST_WAITS:
            entry.call(blocks.skipped, waits)
            return
        blocks.requested()
        self._entries.append(entry)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._request_all())

    async def before_end(self, entry: QueueEntry) -> None:
        """Log the last blocks of a run that has ended, before its wait ends."""
        blocks = entry.blocks
        if blocks is None or self._count_waits() > MOST_WAITS:
            return
        try:
            await asyncio.wait_for(self._log_blocks(entry, blocks), LAST_SECONDS)
        except (TimeoutError, asyncio.TimeoutError):  # one class only from Python 3.11 on
            log.debug("The last blocks of run %s were not logged in time", entry.wait.run_id)

    def stop(self) -> list[asyncio.Task[None]]:
        """Stop requesting; return the asyncio tasks to cancel."""
        self._entries.clear()
        task, self._task = self._task, None
        return [] if task is None else [task]

    async def _request_all(self) -> None:
        while self._entries:
            entry = self._entries.popleft()
            if entry.state is not State.REMOVED and entry.blocks is not None:
                await self._log_blocks(entry, entry.blocks)
        self._task = None

    async def _log_blocks(self, entry: QueueEntry, blocks: BlockLog) -> None:
        """Request the timeline, and the first time also the number of blocks; an error costs only these log lines."""
        try:
            if not blocks.is_total_known:
                blocks.set_total(await self._definition(blocks.run_id))
            timeline = await self._send(api.list_block_rows(blocks.run_id))
            entry.call(blocks.update, timeline)
        except Exception as error:  # noqa: BLE001  such as an answer of another form: the wait continues
            log.debug("The blocks of run %s are not logged: %s", blocks.run_id, error)

    async def _definition(self, run_id: str) -> Any:
        try:
            return await self._send(api.get_run_definition(run_id))
        except SkyvernError as error:
            if error.transient:
                raise
            return None
