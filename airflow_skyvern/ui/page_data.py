"""Turns Skyvern's data about a run into the data of its page: plain values, masked, for the templates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_skyvern.durations import in_words
from airflow_skyvern.runs.blocks import block_seconds, blocks_of
from airflow_skyvern.runs.login_code import types_code
from airflow_skyvern.ui.concealment import Concealment, visible, web_address
from airflow_skyvern.ui.output_text import output_text

if TYPE_CHECKING:
    from airflow_skyvern.models import Action, Artifact, Block, DownloadedFile, Run, RunCost, TimelineItem

MOST_BLOCKS = 300
"""Blocks of a timeline on a page; a loop may have thousands."""

MOST_STEPS = 40
"""Actions of a block on a page."""

MOST_PICTURES = 4
"""Pictures of a block on a page, the last ones."""

DEEPEST = 8
"""Levels of nested loops on a page."""


EVER = datetime.min.replace(tzinfo=timezone.utc)

ENDED_BADLY = frozenset({"failed", "terminated", "timed_out"})
"""The statuses of a run that failed by itself."""


@dataclass(frozen=True)
class Step:
    """An action of the agent in a block."""

    what: str
    why: str
    status: str
    picture: str | None


@dataclass(frozen=True)
class BlockData:
    """A block in the timeline."""

    label: str
    kind: str
    status: str
    description: str
    duration: str
    failure_reason: str
    error_codes: Sequence[str]
    question: str
    block_id: str
    iteration: str
    steps: Sequence[Step]
    steps_left_out: int
    pictures: Sequence[str]
    children: Sequence[BlockData]

    @property
    def is_waiting_for_person(self) -> bool:
        """Whether the run waits for a person here."""
        return self.kind == "human_interaction" and self.status in ("running", "paused")


@dataclass(frozen=True)
class RunError:
    """An error of a run, with the code that its workflow gives it."""

    code: str
    text: str


@dataclass(frozen=True)
class FileData:
    """A file that the run downloaded; ``artifact_id`` is None if Skyvern does not return it."""

    artifact_id: str | None
    name: str
    size: str


@dataclass(frozen=True)
class RunData:
    """The page of a run."""

    run_id: str
    status: str
    is_final: bool
    title: str
    workflow_id: str
    app_url: str | None
    schedule_id: str
    schedule_url: str | None
    created_at: datetime | None
    finished_at: datetime | None
    failure_reason: str
    errors: Sequence[RunError]
    blocks: Sequence[BlockData]
    blocks_left_out: int
    newest_picture: str | None
    has_recording: bool
    recording_not_available: bool
    files: Sequence[FileData]
    parameters: Sequence[tuple[str, str]]
    output: str
    steps: int
    credits: int
    attempt: int
    retry_pending: bool
    conceal: Concealment
    session_id: str
    profile: str
    login_failure: str
    codes_since: Mapping[str, datetime]

    def hides(self, artifact: Artifact) -> bool:
        """Return whether a picture may show a code: any picture of a block after it typed one in."""
        since = self.codes_since.get(artifact.task_id or "")
        return since is not None and (artifact.created_at is None or artifact.created_at >= since)

    @property
    def has_ended(self) -> bool:
        """Whether the page is final: recordings are compressed and pictures added seconds after the end."""
        ended = self.finished_at
        return self.is_final and ended is not None and datetime.now(timezone.utc) - ended > timedelta(seconds=60)

    @property
    def reason(self) -> str:
        """Why the run ended badly, in one text."""
        said = (self.failure_reason, *(f"{error.code} {error.text}".strip() for error in self.errors))
        return next(filter(None, said), "")

    @property
    def ended_badly(self) -> bool:
        """Whether the run itself failed, and says why."""
        return self.is_final and self.status in ENDED_BADLY and bool(self.reason)

    def duration(self, now: datetime | None = None) -> str:
        """Return how long the run took, or has taken so far."""
        if self.created_at is None:
            return ""
        until = self.finished_at or (now or datetime.now(timezone.utc))
        return in_words((until - self.created_at).total_seconds(), tenths=True)


def page_of(
    run: Run,
    timeline: Sequence[TimelineItem],
    pictures: Sequence[str] = (),
    schedule_id: str | None = None,
    *,
    has_recording: bool = False,
    cost: RunCost | None = None,
    sizes: Mapping[str, int] | None = None,
    names: Mapping[str, str] | None = None,
    login_failure: str = "",
) -> RunData:
    """
    Create the page of a run.

    :param timeline: The run's timeline, newest first.
    :param pictures: The run's pictures, newest first, if the timeline is missing.
    :param schedule_id: The schedule in Skyvern that has started the run.
    :param has_recording: Whether the run is over and Skyvern's API has its recording; it has no recordings of browser
        sessions.
    :param cost: What the run has cost, once it is over.
    :param sizes: The sizes of downloaded files by the ids of their artifacts, where the run does not report them.
    :param names: The names of its browser profile and credentials, by their ids.
    :param login_failure: Why its login failed, if it did.
    """
    request = run.run_request or {}
    parameters: Mapping[str, Any] = request.get("parameters") or {}
    blocks = list(blocks_of(timeline, DEEPEST))[::-1]
    conceal = Concealment(parameters, [action for block in blocks for action in block.actions])
    used = cost or {}
    count = _Count(MOST_BLOCKS)
    return RunData(
        run_id=run.run_id,
        status=run.status,
        is_final=run.is_final,
        title=conceal.name(request.get("title") or ""),
        workflow_id=conceal.name(request.get("workflow_id") or ""),
        app_url=web_address(run.app_url),
        schedule_id=schedule_id or "",
        schedule_url=_schedule_url(run, str(request.get("workflow_id") or ""), schedule_id),
        created_at=run.created_at,
        finished_at=run.finished_at,
        failure_reason=conceal.text(run.failure_reason),
        errors=list(_errors(run, conceal)),
        blocks=[_block(item, conceal, count) for item in _oldest_first(timeline) if count.take()],
        blocks_left_out=max(0, len(blocks) - MOST_BLOCKS),
        newest_picture=next((picture for block in blocks for picture in _pictures(block)), None)
        or next(iter(pictures), None),
        has_recording=has_recording,
        recording_not_available=bool(run.recording_url) and not has_recording,
        files=[_file(file, conceal, sizes or {}) for file in run.downloaded_files],
        output=output_text(run.output, conceal),
        steps=used.get("total_steps") or run.step_count or 0,
        credits=(used.get("credits_used") or 0) + (used.get("cached_credits_used") or 0),
        conceal=conceal,
        session_id=conceal.name(run.browser_session_id),
        profile=_named(run.browser_profile_id, names or {}, conceal),
        login_failure=conceal.text(login_failure),
        codes_since=dict(_codes_since(blocks)),
        parameters=[
            (conceal.name(key), _shown(str(key), value, names or {}, conceal)) for key, value in parameters.items()
        ],
        attempt=run.attempt or 1,
        retry_pending=run.retry_pending,
    )


def _named(found: str | None, names: Mapping[str, str], conceal: Concealment) -> str:
    """Return an object's name and id; only the id if the name is not known."""
    name = conceal.name(names.get(found or ""))
    return f"{name} ({visible(found)})" if name else visible(found)


def _shown(key: str, value: Any, names: Mapping[str, str], conceal: Concealment) -> str:
    """Return the value of a parameter; for a credential, its name."""
    is_named = isinstance(value, str) and value in names
    return _named(value, names, conceal) if is_named else conceal.parameter(key, value)


def _codes_since(blocks: Iterable[Block]) -> Iterator[tuple[str, datetime]]:
    """Yield the tasks of the blocks that have typed in a code, and since when: their actions are newest first."""
    for block in blocks:
        first = [action for action in block.actions if types_code(action)][-1:]
        if first and block.task_id:
            yield block.task_id, first[0].created_at or EVER


def _file(file: DownloadedFile, conceal: Concealment, sizes: Mapping[str, int]) -> FileData:
    size = file.file_size if file.file_size is not None else sizes.get(file.artifact_id or "")
    return FileData(file.artifact_id, conceal.name(file.filename or "file"), size_in_words(size))


def _errors(run: Run, conceal: Concealment) -> Iterator[RunError]:
    """Yield the errors of a run; without their text where the reason of the run repeats it."""
    for error in run.errors:
        code, text = conceal.name(error.get("error_code")), conceal.text(error.get("reasoning"))
        text = "" if text in conceal.text(run.failure_reason) else text
        if code or text:
            yield RunError(code, text)


def _schedule_url(run: Run, workflow_id: str, schedule_id: str | None) -> str | None:
    """Return the address of a schedule in Skyvern's UI, on the same server as the address of the run."""
    ui, found, _ = (run.app_url or "").partition("/runs/")
    if not (schedule_id and found):
        return None
    return web_address(f"{ui}/schedules/{quote(workflow_id, safe='')}/{quote(schedule_id, safe='')}")


@dataclass
class _Count:
    left: int

    def take(self) -> bool:
        self.left -= 1
        return self.left >= 0


def _oldest_first(items: Sequence[TimelineItem]) -> Iterator[TimelineItem]:
    return (item for item in reversed(items) if item.block is not None)


def _block(item: TimelineItem, conceal: Concealment, count: _Count, depth: int = 0) -> BlockData:
    block = item.block
    assert block is not None
    children = _oldest_first(item.children) if depth < DEEPEST else ()
    return BlockData(
        label=conceal.name(block.label or block.block_type),
        kind=conceal.name(block.block_type),
        status=conceal.name(block.status or "unknown"),
        description=conceal.text(block.description),
        duration=_duration_of(block),
        failure_reason=conceal.text(block.failure_reason),
        error_codes=[conceal.name(code) for code in block.error_codes],
        question=conceal.text(block.instructions),
        block_id=block.workflow_run_block_id or "",
        iteration="" if block.current_index is None else f"iteration {block.current_index + 1}",
        steps=[_step(action, conceal) for action in reversed(block.actions[:MOST_STEPS])],
        steps_left_out=max(0, len(block.actions) - MOST_STEPS),
        pictures=_pictures(block)[:MOST_PICTURES][::-1],
        children=[_block(child, conceal, count, depth + 1) for child in children if count.take()],
    )


def _step(action: Action, conceal: Concealment) -> Step:
    return Step(
        what=conceal.name(action.action_type).replace("_", " "),
        why=conceal.text(action.intention or action.reasoning),
        status=conceal.name(action.status),
        picture=action.screenshot_artifact_id,
    )


def _pictures(block: Block) -> list[str]:
    """Return the ids of a block's pictures, newest first; if it typed in a code, only the earlier pictures."""
    numbers = [number for number, action in enumerate(block.actions) if types_code(action)]
    if numbers:
        before = block.actions[numbers[-1] + 1 :]
        return list(dict.fromkeys(_texts(action.screenshot_artifact_id for action in before)))
    output = block.output if isinstance(block.output, Mapping) else {}
    last = output.get("task_screenshot_artifact_ids") or output.get("workflow_screenshot_artifact_ids") or []
    actions = [action.screenshot_artifact_id for action in block.actions]
    return list(dict.fromkeys(_texts([*(last if isinstance(last, list) else []), *actions])))


def _texts(values: Iterable[Any]) -> list[str]:
    return [value for value in values if isinstance(value, str) and value]


def _duration_of(block: Block) -> str:
    """Return how long a block took; empty while it is active."""
    is_over = block.duration is not None or block.status not in ("running", "paused", None)
    seconds = block_seconds(block.duration, block.created_at, block.modified_at) if is_over else None
    return "" if seconds is None else in_words(seconds, tenths=True)


def size_in_words(size: int | None) -> str:
    """Return a file's size: ``312 kB``; empty if it is not known."""
    if size is None:
        return ""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size} bytes"
