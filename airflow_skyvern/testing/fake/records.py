"""The workflows and runs that the fake holds, and the requests that it has seen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

FINAL = ("completed", "failed", "terminated", "timed_out", "canceled")

ORGANIZATION = "o_599983462807843814"

TYPED_AGAIN_AFTER = timedelta(seconds=37)
"""After this time a real server types a wrong code in again."""

Step = str | Mapping[str, Any]


def stamp(moment: datetime | None) -> str | None:
    """Write a time as the server does."""
    return None if moment is None else moment.replace(tzinfo=None).isoformat(timespec="microseconds")


@dataclass(frozen=True)
class Media:
    """
    Something that each run of a workflow leaves behind.

    :param artifact_type: One of the server's: ``recording``, ``screenshot_action``, ``screenshot_final``, ``har`` …
    :param label: The block that it belongs to, whose begin it needs; without a label it is there at the end.
    :param name: The name of a file, of type ``download``.
    """

    artifact_type: str
    content: bytes
    label: str | None = None
    name: str = ""


@dataclass
class Workflow:
    """
    A workflow and what its runs will do.

    :param parameters: Types by name; those without a default are required.
    :param plan: The statuses that a run goes through, or mappings with more fields; the last one stays. The field
        ``blocks`` says how many blocks have begun by then, the last of which is at work; ``answered``, that a person
        answers in Skyvern to what a paused run asks.
    :param fallback_plan: What a run does that Skyvern starts with a fallback credential, in place of a failed one.
    :param output: The output of a run, or a function that makes it from the parameters.
    :param blocks: What the timeline has of each block, in the order of execution: ``label``, ``block_type`` and
        whatever else differs from the usual; ``children`` are the blocks of a loop. An action in ``actions`` has its
        picture by ``screenshot``, an index of ``media``. One with ``code`` waits, once it has begun, until it gets
        that code for its ``totp_identifier``, and does its own ``actions`` before; a wrong one is typed in, too.
        Without blocks, one that waits for each of ``labels``.
    :param definitions: What was sent for each version, oldest first, where the workflow was created through the API.
    :param media: What a run leaves behind besides ``artifacts``, which are the files that it downloads, by name.
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
    blocks: Sequence[Mapping[str, Any]] = ()
    media: Sequence[Media] = ()
    definitions: list[Mapping[str, Any]] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)
    any_parameters: bool = False
    any_blocks: bool = False

    @property
    def version(self) -> int:
        """The number of the newest version."""
        return max(1, len(self.definitions))

    def parameters_of(self, version: int | None = None) -> tuple[Mapping[str, str], Mapping[str, Any]]:
        """Return types and defaults of the parameters of a version; of the newest, if none is given."""
        if not self.definitions:
            return self.parameters, self.defaults
        rows = self.definitions[(version or self.version) - 1]["workflow_definition"]["parameters"]
        own = [row for row in rows if row.get("parameter_type") == "workflow"]
        kinds = {row["key"]: row.get("workflow_parameter_type", "string") for row in own}
        return kinds, {row["key"]: row.get("default_value") for row in own}

    @property
    def status(self) -> str:
        """Whether a person sees it in the list: not where it is auto_generated."""
        return str(self.definitions[-1].get("status", "published")) if self.definitions else "published"

    @property
    def all_blocks(self) -> Sequence[Mapping[str, Any]]:
        """The blocks of the workflow, in the order of execution."""
        return self.blocks or [{"label": label, "block_type": "wait"} for label in self.labels]

    @property
    def defined_blocks(self) -> Sequence[Mapping[str, Any]]:
        """The blocks of its definition; where a test names none, those of which its output has entries."""
        if self.any_blocks:
            return []
        entries = self.output if isinstance(self.output, Mapping) and not self.blocks else {}
        known = {block["label"] for block in self.all_blocks}
        labels = dict.fromkeys(str(entry).removesuffix("_output") for entry in entries)
        labels.pop("extracted_information", None)  # which stands beside the entries of blocks
        return [*self.all_blocks, *({"label": one, "block_type": "wait"} for one in labels if one not in known)]


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
    started_by: str = "api"
    step: int = -1
    canceled: bool = False
    continued: bool = False
    retried_from: str | None = None
    retried_by: str | None = None
    workflow_version: int | None = None
    occupied_by: str | None = None
    typed: list[tuple[str, str]] = field(default_factory=list)
    """The codes that were typed in, each with the label of its block."""
    used: set[str] = field(default_factory=set)
    """The ids of the codes that are not typed in again."""

    @property
    def is_task(self) -> bool:
        """Whether it is a run of a prompt without a workflow: it has no timeline, no tags, and a page elsewhere."""
        return self.run_id.startswith("tsk_")

    @property
    def trigger_type(self) -> str:
        """Who has started the run: a schedule, a caller of the API, or a person."""
        return "scheduled" if self.schedule_id else self.started_by

    @property
    def plan(self) -> Sequence[Step]:
        """The steps of this run; in a session where another run is, it begins and fails."""
        if self.occupied_by is not None:
            return ("queued", "running", "failed")
        return self.workflow.fallback_plan if self.retried_from else self.workflow.plan

    @property
    def failure_reason(self) -> str | None:
        """Why the run has failed, if it has."""
        if self.occupied_by is None:
            return self.workflow.failure_reason
        return (
            f"Failed to begin browser session for workflow run: Browser session {self.request['browser_session_id']} "
            f"is already occupied by {self.occupied_by}. Wait for that run to finish or cancel it, then retry."
        )

    @property
    def _planned(self) -> dict[str, Any]:
        if self.step < 0:
            planned: Step = "canceled" if self.canceled else "created"
        else:
            planned = self.plan[self.step]
        return {"status": planned} if isinstance(planned, str) else {**planned}

    @property
    def state(self) -> dict[str, Any]:
        """Return status and all that the plan says of this step."""
        state = {key: value for key, value in self._planned.items() if key not in ("blocks", "answered")}
        state = {"attempt": 1, "retry_pending": False, "next_attempt_at": None, **state}
        if self.canceled:
            state["retry_pending"] = False
            state["status"] = state["status"] if state["status"] in FINAL else "canceled"
        return state

    @property
    def begun_blocks(self) -> list[Mapping[str, Any]]:
        """The blocks that have begun, in the order of execution, each with its status."""
        blocks, status = self.workflow.all_blocks, self.state["status"]
        begun = blocks[: self._planned.get("blocks", self._usually_begun)]
        last = "running" if self.canceled or status not in FINAL else status  # a cancel does not reach the block
        statuses = [*["completed"] * (len(begun) - 1), last]
        return [{"status": known, **block} for known, block in zip(statuses, begun, strict=False)]

    @property
    def _usually_begun(self) -> int:
        """All at the end; when paused, up to the one that asks a person; else the first."""
        status = self.state["status"]
        if self.step < 0 or status == "queued":
            return 0
        kinds = [block.get("block_type") for block in self.workflow.all_blocks]
        if status == "paused" and "human_interaction" in kinds:
            return kinds.index("human_interaction") + 1
        return len(kinds) if status in FINAL else 1

    @property
    def is_over(self) -> bool:
        """Return whether nothing more will happen."""
        return self.state["status"] in FINAL and not self.state["retry_pending"]

    @property
    def waits_for_code_at(self) -> Mapping[str, Any] | None:
        """The block that waits for a code; None if none does."""
        block = self.begun_blocks[-1] if self.begun_blocks else None
        if block is None or "code" not in block or self.is_over or self.state["status"] != "running":
            return None
        return None if (block["label"], block["code"]) in self.typed else block

    def take_codes(self, codes: Sequence[Mapping[str, Any]], now: datetime) -> None:
        """
        Type in the newest code that the waiting block may use.

        One is typed in again 37 seconds later if it has not expired by then; here, with the next request.
        """
        block = self.waits_for_code_at
        if block is None:
            return
        usable = [code for code in codes if self._may_use(code, block.get("totp_identifier"), now)]
        if usable:
            newest = usable[-1]
            self.typed.append((block["label"], newest["content"]))
            if (expires := _expiry_of(newest)) is not None and expires < now + TYPED_AGAIN_AFTER:
                self.used.add(newest["totp_code_id"])

    def _may_use(self, code: Mapping[str, Any], identifier: str | None, now: datetime) -> bool:
        expires = _expiry_of(code)
        return (
            code["totp_identifier"] == identifier
            and code.get("workflow_run_id") in (None, self.run_id)
            and code["sent_at"] > self.created_at
            and code["totp_code_id"] not in self.used
            and (expires is None or expires > now)
        )

    def look(self) -> None:
        """Go one step further, unless the run is over or waits for a person or a code."""
        if self.waits_for_code_at is not None and not self.canceled:
            return
        answered = self.continued or self._planned.get("answered")
        paused = self.state["status"] == "paused" and not answered
        if not self.canceled and not paused and self.step < len(self.plan) - 1:
            self.continued = self.continued and self.state["status"] != "paused"
            self.step += 1


def _expiry_of(code: Mapping[str, Any]) -> datetime | None:
    return datetime.fromisoformat(code["expired_at"]) if code.get("expired_at") else None


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
