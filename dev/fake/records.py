"""The workflows and runs that the fake holds, and the requests that it has seen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

FINAL = ("completed", "failed", "terminated", "timed_out", "canceled")

Step = str | Mapping[str, Any]


@dataclass
class Workflow:
    """
    A workflow and what its runs will do.

    :param parameters: Types by name; those without a default are required.
    :param plan: The statuses that a run goes through, or mappings with more fields; the last one stays.
    :param fallback_plan: What a run does that Skyvern starts with a fallback credential, in place of a failed one.
    :param output: The output of a run, or a function that makes it from the parameters.
    """

    workflow_id: str
    title: str
    plan: Sequence[Step]
    output: Any
    created_at: datetime
    parameters: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    failure_reason: str | None = None
    errors: Sequence[Mapping[str, Any]] = ()
    labels: Sequence[str] = ("pause",)
    artifacts: Mapping[str, bytes] = field(default_factory=dict)
    webhook_url: str | None = None
    deleted: bool = False
    fallback_plan: Sequence[Step] = ()


@dataclass
class Run:
    """A run on its way along the plan of its workflow."""

    run_id: str
    workflow: Workflow
    parameters: dict[str, Any]
    tags: dict[str, str]
    webhook_url: str | None
    created_at: datetime
    request: dict[str, Any]
    schedule_id: str | None = None
    step: int = -1
    canceled: bool = False
    told_to_go_on: bool = False
    retried_from: str | None = None
    retried_by: str | None = None

    @property
    def plan(self) -> Sequence[Step]:
        """The steps of this run."""
        return self.workflow.fallback_plan if self.retried_from else self.workflow.plan

    @property
    def state(self) -> dict[str, Any]:
        """Tell status and all that the plan says of this step."""
        if self.step < 0:
            planned: Step = "canceled" if self.canceled else "created"
        else:
            planned = self.plan[self.step]
        state: dict[str, Any] = {"status": planned} if isinstance(planned, str) else dict(planned)
        state = {"attempt": 1, "retry_pending": False, "next_attempt_at": None, **state}
        if self.canceled:
            state["retry_pending"] = False
            state["status"] = state["status"] if state["status"] in FINAL else "canceled"
        return state

    @property
    def is_over(self) -> bool:
        """Tell whether nothing more will happen."""
        return self.state["status"] in FINAL and not self.state["retry_pending"]

    def look(self) -> None:
        """Go one step further, unless the run is over or waits for a person."""
        paused = self.state["status"] == "paused" and not self.told_to_go_on
        if not self.canceled and not paused and self.step < len(self.plan) - 1:
            self.step += 1


@dataclass(frozen=True)
class Seen:
    """A request that arrived."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.content)
