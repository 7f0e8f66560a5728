"""
A run that waits for a person: its question, and an answer that reaches exactly the block that asked.

Skyvern's endpoint takes only the run: continuing it approves any waiting block, and no endpoint rejects. A run may
ask several times. So nothing is sent before the timeline shows that the block in question still waits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_skyvern.client import api
from airflow_skyvern.client.retry import patience_with, while_transient
from airflow_skyvern.client.session import fetch_run
from airflow_skyvern.exceptions import SkyvernNotFoundError, shorten
from airflow_skyvern.runs.blocks import HUMAN_INTERACTION, definitions_of, waiting_block
from airflow_skyvern.runs.wait import PAUSED

if TYPE_CHECKING:
    import tenacity

    from airflow_skyvern.client.session import Send
    from airflow_skyvern.models import Block, Workflow

APPROVE, REJECT = "Approve", "Reject"
"""The names of the answers if a block does not name them."""

LONGEST_OPTION = 60
LONGEST_TEXT = 2000

ANSWER_PATIENCE = 300.0
"""Seconds for which an answer is sent again while Skyvern cannot be reached."""


@dataclass(frozen=True)
class Question:
    """
    The question of a paused run.

    :param block_id: The block that waits; None if the timeline does not show one.
    :param app_url: The run's page in Skyvern.
    :param approve: The block's name for the answer that lets the run continue.
    :param reject: Its name for the other one.
    """

    run_id: str
    block_id: str | None
    label: str
    subject: str
    instructions: str
    app_url: str | None = None
    approve: str = APPROVE
    reject: str = REJECT


def question_of(send: Send, run_id: str) -> Question | None:
    """Return the run's current question, or None if it does not wait for a person."""
    run = fetch_run(send, run_id)
    if run.status != PAUSED:
        return None
    block = waiting_block(send(api.get_run_timeline(run_id)))
    if block is None:
        return Question(run_id, None, "", "", "", run.app_url)
    approve, reject = _options(block)
    return Question(
        run_id,
        block.workflow_run_block_id,
        block.label or "",
        _text(block.subject),
        _text(block.instructions or block.body),
        run.app_url,
        approve,
        reject,
    )


def approve(send: Send, run_id: str, block_id: str | None, sleep: Callable[[float], object]) -> bool:
    """
    Let the run continue if it still asks the same; return whether it continues because of this.

    :param block_id: The block that asked.
    :raises SkyvernError: Skyvern could not be reached for minutes, or refuses.
    """
    attempt = _Approval(send, run_id, block_id).attempt
    return bool(asking(sleep)(attempt))


def asking(sleep: Callable[[float], object]) -> tenacity.Retrying:
    """Return a retrier for requests about a run that has just asked, or for the answer."""
    return while_transient(ANSWER_PATIENCE, sleep=sleep, refusals=patience_with)


class _Approval:
    """An approval that may need several attempts; one whose answer was lost may have arrived."""

    def __init__(self, send: Send, run_id: str, block_id: str | None) -> None:
        self._send, self._run_id, self._block_id = send, run_id, block_id
        self._sent = False

    def attempt(self) -> bool:
        if not still_asks(self._send, self._run_id, self._block_id):
            return self._sent
        self._sent = True
        try:
            self._send(api.continue_run(self._run_id))
        except SkyvernNotFoundError:  # somebody else was a moment faster, if the run has moved on
            if still_asks(self._send, self._run_id, self._block_id):
                raise
            return False
        return True


def still_asks(send: Send, run_id: str, block_id: str | None) -> bool:
    """Return whether the run still waits in that block."""
    question = question_of(send, run_id)
    return question is not None and question.block_id == block_id


def asks_once(workflow: Workflow) -> bool:
    """Return whether a run of the workflow asks a person at most once: in one block outside of loops."""
    blocks = workflow.workflow_definition.get("blocks") or []
    asking = [block for block in definitions_of(blocks) if block.get("block_type") == HUMAN_INTERACTION]
    return len(asking) == 1 and asking[0] in blocks


def escaped(text: str) -> str:
    """Escape a text so that Markdown shows it as it is: no link, no picture, no list."""
    return re.sub(r"([\\`*_{}\[\]()<>#+\-.!|~&:/@])", r"\\\1", text)


def _options(block: Block) -> tuple[str, str]:
    approve = shorten(block.positive_descriptor or "", LONGEST_OPTION) or APPROVE
    reject = shorten(block.negative_descriptor or "", LONGEST_OPTION) or REJECT
    return (approve, reject) if approve != reject else (APPROVE, REJECT)


def _text(text: str | None) -> str:
    from airflow_skyvern.secret_values import masked_text

    return masked_text((text or "").strip())[:LONGEST_TEXT]
