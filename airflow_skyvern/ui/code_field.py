"""The part of a page about a code that a run waits for; :mod:`airflow_skyvern.ui.login_code` sends the code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_skyvern.ui.concealment import visible

if TYPE_CHECKING:
    from airflow_skyvern.ui.lookup import FoundTask
    from airflow_skyvern.ui.reader import RunReader


@dataclass(frozen=True)
class CodeField:
    """
    The part of a page about a code that a run waits for.

    :param block: The label of the block.
    :param sent_to: Where the code has arrived; only for users who may send it.
    """

    block_id: str
    block: str
    sent_to: str = ""


async def code_field(reader: RunReader, found: FoundTask, *, may_send: bool) -> CodeField | None:
    """Return the code field for a task instance's page; None if its run waits for no code."""
    step = found.noted.code_step
    if step is None or found.run is None:
        return None
    sent_to = visible(await reader.code_identifier(found.run, step)) if may_send else ""
    return CodeField(step.block_id, visible(step.label), sent_to)
