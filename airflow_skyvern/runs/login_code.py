"""
Recognizes that a run waits at a login for a code, and in which block.

No endpoint reports it. The run and its block stay ``running``, and the last action is the click that sent the form.
So a block that accepts codes and has been quiet since such a click counts as waiting. A slow step looks the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from airflow_skyvern.client import api, task_api
from airflow_skyvern.runs.blocks import blocks_of

if TYPE_CHECKING:
    from airflow_skyvern.client.session import Send, SendAsync
    from airflow_skyvern.models import Action, BlockTask, TimelineItem

SUBMITS = frozenset({"click", "keypress"})
"""The actions after which a portal asks for a code."""

WITHHELD = frozenset({"<redacted otp value>", "<redacted input value>"})
"""A timeline's placeholders: the first for a code, the second for a text that may have been one."""

QUIET = 10.0
"""Seconds without another action after which a block counts as waiting."""

EXPIRES = 30.0
"""Seconds for which Skyvern may use a code. Longer, and it types a wrong one in again (after 37 s)."""

LONGEST_CODE = 10
"""Longest text that Skyvern uses as a code unchanged; in a longer one its model searches for the code."""

SETTLES = 90.0
"""
Seconds after a code was sent in which nobody is asked about the same step again: the code is typed in by then. If
not, Skyvern has not used it: it was read too late, or a clock is wrong.
"""


@dataclass(frozen=True)
class CodeStep:
    """
    Where a run may wait for a code.

    :param actions: How many actions the block has done by then; typing a wrong code increases it.
    """

    block_id: str
    task_id: str
    label: str
    actions: int

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> CodeStep:
        """Read what has crossed Airflow's database."""
        return cls(**{name: stored[name] for name in ("block_id", "task_id", "label", "actions")})

    def stored(self) -> dict[str, Any]:
        """Return what crosses Airflow's database; nothing of it is secret."""
        return asdict(self)


async def is_still_at(send: SendAsync, run_id: str, step: CodeStep) -> bool:
    """:func:`still_at` for an event loop."""
    return code_step_of(await send(api.get_run_timeline(run_id))) == step


def code_step_of(timeline: Sequence[TimelineItem]) -> CodeStep | None:
    """Return the step at which a run waits for a code if it waits for one."""
    running = [block for block in blocks_of(timeline) if block.status == "running" and block.task_id]
    block = running[-1] if running else None
    if block is None or not (block.actions and block.workflow_run_block_id and block.task_id):
        return None
    if block.actions[0].action_type not in SUBMITS:
        return None
    return CodeStep(block.workflow_run_block_id, block.task_id, block.label or "", len(block.actions))


def types_code(action: Action) -> bool:
    """Return whether an action typed a code in: Skyvern reports its purpose, and not the code."""
    extra = action.model_extra or {}
    return (
        action.action_type == "verification_code"
        or action.text in WITHHELD
        or any(extra.get(name) for name in ("totp_identifier", "totp_url", "totp_code_required", "totp_timing_info"))
    )


def identifier_of(task: BlockTask) -> str | None:
    """Return the destination of codes for a block; None if it accepts none, or gets them from its own address."""
    request = task["request"]
    return None if request.get("totp_verification_url") else request.get("totp_identifier") or None


def still_at(send: Send, run_id: str, step: CodeStep) -> bool:
    """Return whether a run is still at this step."""
    return code_step_of(send(api.get_run_timeline(run_id))) == step


async def identifier_at(send: SendAsync, step: CodeStep) -> str | None:
    """Return the destination of a code for this step."""
    return identifier_of(await send(task_api.get_block_task(step.task_id)))


@dataclass(frozen=True)
class Answered:
    """
    A step for which a person has sent a code.

    :param until: When the same step counts as waiting again, in seconds since the epoch.
    """

    step: CodeStep
    until: float

    @classmethod
    def of(cls, stored: Mapping[str, Any] | None) -> Answered | None:
        """Read what has crossed Airflow's database."""
        return cls(CodeStep.of(stored), stored["until"]) if stored else None

    def stored(self) -> dict[str, Any]:
        """Return what crosses Airflow's database."""
        return {**self.step.stored(), "until": self.until}


class CodeWatch:
    """
    Notices between two polls that a run waits for a code.

    :param answered: The step that was answered last.
    :param clock: Returns the time in seconds since the epoch.
    """

    def __init__(
        self, answered: Answered | None, *, quiet: float = QUIET, clock: Callable[[], float] = time.time
    ) -> None:
        self._answered, self._quiet, self._clock = answered, quiet, clock
        self._step: CodeStep | None = None
        self._since = 0.0

    def waits_at(self, timeline: Sequence[TimelineItem]) -> CodeStep | None:
        """Return the step at which the run has been quiet, unless its code is on its way."""
        step = code_step_of(timeline)
        if step != self._step:
            self._step, self._since = step, self._clock()
        return None if step is None or self._is_too_soon(step) else step

    def _is_too_soon(self, step: CodeStep) -> bool:
        now, known = self._clock(), self._answered
        return now - self._since < self._quiet or (known is not None and known.step == step and now < known.until)
