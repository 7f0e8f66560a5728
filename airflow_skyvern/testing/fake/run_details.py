"""What the fake returns of a run beyond its status: the timeline of its blocks, its artifacts and their content."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import httpx

from airflow_skyvern.testing.fake import older
from airflow_skyvern.testing.fake.checks import complaint, detail, one_of
from airflow_skyvern.testing.fake.records import FINAL, ORGANIZATION, Media, Run, Seen, stamp

BROWSER_BLOCKS = {"task", "navigation", "login", "action", "extraction", "file_download", "validation", "goto_url"}
CONTENT_TYPES = {
    "browser_console_log": "text/plain",
    "har": "application/json",
    "html_action": "text/html",
    "html_scrape": "text/html",
    "llm_prompt": "text/plain",
    "llm_request": "application/json",
    "llm_response": "application/json",
    "llm_response_parsed": "application/json",
    "recording": "video/webm",
    "screenshot_action": "image/png",
    "screenshot_final": "image/png",
    "screenshot_llm": "image/png",
    "visible_elements_tree": "application/json",
}
SUFFIXES = {
    "image/png": "png",
    "video/mp4": "mp4",
    "text/html": "html",
    "application/json": "json",
    "text/plain": "txt",
}

# Every field of a block, an action and an artifact, as a real server returns it where it is empty.
_RECORDED = json.loads(Path(__file__).with_suffix(".json").read_text())
ARTIFACT_TYPES: list[str] = _RECORDED["artifact_types"]
NO_BLOCK: dict[str, Any] = {**_RECORDED["block"], "organization_id": ORGANIZATION}
NO_ACTION: dict[str, Any] = {**_RECORDED["action"], "organization_id": ORGANIZATION}
NO_ARTIFACT: dict[str, Any] = {**_RECORDED["artifact"], "organization_id": ORGANIZATION}


OF_TASKS = ("code", "totp_identifier", "totp_verification_url", "failure_category")
"""What a timeline does not say of a block; but for the code, the task behind the block says it."""

LOGIN = ({"action_type": "input_text"}, {"action_type": "input_text"}, {"action_type": "click"})
CODE = ({"action_type": "input_text", "text": "<redacted otp value>"}, {"action_type": "click"})
"""What a block does to log in, and then with each code; the code itself is not listed."""


def task_of_block(run: Run, wanted: str) -> dict[str, Any] | None:
    """Return the task behind a block; nothing if this run has no such task."""
    for block, path in _walk(run.begun_blocks):
        if _task_id(run, block, path) == wanted:
            asked = {name: block.get(name) for name in ("totp_identifier", "totp_verification_url")}
            request = {"url": block.get("url"), "navigation_payload": {"password": "of the site"}, **asked}
            why = {"failure_category": block.get("failure_category"), "failure_reason": block.get("failure_reason")}
            return {"task_id": wanted, "status": block["status"], "request": request, "errors": [], **why}
    return None


def timeline(run: Run) -> list[dict[str, Any]]:
    """Return the blocks that have begun, newest first."""
    return [_item(run, block, str(number)) for number, block in enumerate(run.begun_blocks)][::-1]


def _item(run: Run, given: Mapping[str, Any], path: str, parent: str | None = None) -> dict[str, Any]:
    own = {name: value for name, value in given.items() if name not in OF_TASKS}
    children, actions = own.pop("children", ()), own.pop("actions", ())
    if "code" in given:
        typed = [action for label, _ in run.typed if label == given["label"] for action in CODE]
        actions = [*(actions or LOGIN), *typed]
    times = {"created_at": stamp(run.created_at), "modified_at": stamp(run.created_at)}
    block_id, task_id = f"wrb_{run.run_id[3:]}{path}", _task_id(run, given, path)
    ids = {"workflow_run_block_id": block_id, "workflow_run_id": run.run_id, "parent_workflow_run_block_id": parent}
    acted = [_action(run, action, task_id, number) for number, action in enumerate(actions)][::-1]
    engine = "skyvern-1.0" if task_id or own.get("block_type") == "human_interaction" else None
    known = {"status": "completed", "output": None, "task_id": task_id, "engine": engine, "actions": acted}
    block = {**NO_BLOCK, **ids, **known, **times, **own}
    nested = [_item(run, child, f"{path}0{number}", block_id) for number, child in enumerate(children)][::-1]
    return {"type": "block", "attempt": 1, "block": block, "thought": None, "children": nested, **times}


def _task_id(run: Run, block: Mapping[str, Any], path: str) -> str | None:
    return f"tsk_{run.run_id[3:]}{path}" if block.get("block_type") in BROWSER_BLOCKS else None


def _walk(blocks: Sequence[Mapping[str, Any]], path: str = "") -> Iterator[tuple[Mapping[str, Any], str]]:
    for number, block in enumerate(blocks):
        yield block, f"{path}{number}"
        yield from _walk(block.get("children", ()), f"{path}{number}0")


def _action(run: Run, given: Mapping[str, Any], task_id: str | None, number: int) -> dict[str, Any]:
    own = dict(given)
    picture = own.pop("screenshot", None)
    moment = stamp(run.created_at)
    return {
        **NO_ACTION,
        "action_id": f"act_{run.run_id[3:]}{number}",
        "workflow_run_id": run.run_id,
        "task_id": task_id,
        "step_id": task_id and f"stp_{task_id[4:]}",
        "step_order": 0,
        "action_order": number,
        "screenshot_artifact_id": None if picture is None else artifact_id(run, picture),
        **dict.fromkeys(("started_at", "finished_at", "created_at", "modified_at"), moment),
        **own,
    }


def artifact_id(run: Run, number: int) -> str:
    return f"a_{run.run_id[3:]}{number}"


def artifacts(run: Run) -> list[dict[str, Any]]:
    """Return the artifacts so far; those of a block once it has begun, all others at the end."""
    return [_artifact(run, number, stored) for number, stored in _stored(run)]


def _stored(run: Run) -> Iterator[tuple[int, Media]]:
    begun, over = {block["label"] for block, _ in _walk(run.begun_blocks)}, run.state["status"] in FINAL
    for number, stored in enumerate((*run.workflow.media, *_downloads(run))):
        if stored.label in begun or (stored.label is None and over):
            yield number, stored


def _downloads(run: Run) -> list[Media]:
    return [Media("download", content, name=name) for name, content in run.workflow.artifacts.items()]


def _artifact(run: Run, number: int, stored: Media) -> dict[str, Any]:
    task_id = _task_of(run, stored)
    address, moment = _address(run, number, stored), stamp(run.created_at)
    checksum = hashlib.sha256(stored.content).hexdigest() if stored.artifact_type == "download" else None
    return {
        **NO_ARTIFACT,
        "created_at": moment,
        "modified_at": moment,
        "artifact_id": artifact_id(run, number),
        "artifact_type": stored.artifact_type,
        "uri": address,
        "checksum": checksum,
        "file_size": len(stored.content),
        "task_id": task_id,
        "step_id": task_id and f"stp_{task_id[4:]}",
        "workflow_run_id": run.run_id,
        "run_id": run.run_id,
        "signed_url": address,
    }


def _task_of(run: Run, stored: Media) -> str | None:
    """Return the task of its block; what belongs to no block has that of the first one, but files have none."""
    if stored.artifact_type == "download":
        return None
    tasks = ((block, _task_id(run, block, path)) for block, path in _walk(run.workflow.all_blocks))
    return next((task for block, task in tasks if task and stored.label in (None, block["label"])), None)


def _address(run: Run, number: int, stored: Media) -> str:
    if stored.artifact_type == "download":
        return f"file:///artifacts/downloads/{run.run_id}/{stored.name}"
    suffix = SUFFIXES.get(_content_type(stored), "webm")
    return f"file:///artifacts/{run.run_id}/{artifact_id(run, number)}_{stored.artifact_type}.{suffix}"


def downloaded_files(run: Run) -> list[dict[str, Any]]:
    """Return the files that the run has downloaded."""
    rows = [row for row in artifacts(run) if row["artifact_type"] == "download"]
    shared = ("checksum", "file_size", "modified_at", "artifact_id")
    return [
        {"url": row["uri"], "filename": PurePosixPath(row["uri"]).name, **{key: row[key] for key in shared}}
        for row in rows
    ]


def pictures(run: Run) -> dict[str, Any]:
    """Return where the recording and the last three screenshots are."""
    rows = artifacts(run) if run.state["status"] in FINAL else []
    shots = [row["uri"] for row in rows if row["artifact_type"] in ("screenshot_action", "screenshot_final")]
    recording = next((row["uri"] for row in rows if row["artifact_type"] == "recording"), None)
    return {"recording_url": recording, "screenshot_urls": shots[::-1][:3] or None}


def _content_type(stored: Media) -> str:
    if stored.content[4:8] == b"ftyp":
        return "video/mp4"
    return CONTENT_TYPES.get(stored.artifact_type, "application/octet-stream")


def content(seen: Seen, stored: Media) -> httpx.Response:
    """Answer with the content, or with the one part of it that was asked for."""
    headers = {
        "content-type": _content_type(stored),
        "content-disposition": "inline",
        "cache-control": "private, no-cache",
        "x-content-type-options": "nosniff",
        "accept-ranges": "bytes",
    }
    if stored.artifact_type == "download":
        name = "".join(character for character in stored.name or "" if character.isprintable())
        headers["content-disposition"] = f"attachment; filename=\"{name}\"; filename*=UTF-8''{name}"
    part, size = part_of(seen.headers.get("range"), len(stored.content)), len(stored.content)
    if part is None:
        return httpx.Response(200, content=stored.content, headers=headers)
    if not part:
        del headers["content-type"]
        return httpx.Response(416, headers={**headers, "content-length": "0", "content-range": f"bytes */{size}"})
    headers["content-range"] = f"bytes {part.start}-{part.stop - 1}/{size}"
    return httpx.Response(206, content=stored.content[part.start : part.stop], headers=headers)


def part_of(header: str | None, size: int) -> range | None:
    """Read a Range header: None when it is ignored, an empty range when it cannot be satisfied."""
    found = re.fullmatch(r"bytes=([0-9]*)-([0-9]*)", header or "")
    if found is None or found[0] in ("bytes=-", "bytes=-0"):
        return None
    first, last = found.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    return range(int(first), min(size, int(last) + 1 if last else size))


class FakeRunDetails:
    """The part of the fake that answers for timelines and artifacts."""

    runs: dict[str, Run]
    version: str

    def _timeline(self, seen: Seen, run_id: str) -> Any:
        if run_id not in self.runs:
            raise detail(404, f"Run not found {run_id}")
        if self.runs[run_id].is_task:
            raise detail(400, "Timeline not available for run type task_v1")
        return older.unreadable_pause(self.version, self.runs[run_id]) or timeline(self.runs[run_id])

    def _task_of_block(self, seen: Seen, task_id: str) -> Any:
        found = (task_of_block(run, task_id) for run in self.runs.values())
        told = next((task for task in found if task is not None), None)
        if told is None:
            raise detail(404, f"Task {task_id} not found")
        return told

    def _artifacts(self, seen: Seen, run_id: str) -> Any:
        wanted = seen.query.get("artifact_type") or ()
        for number, given in enumerate(wanted):
            if given not in ARTIFACT_TYPES:
                choices = one_of(ARTIFACT_TYPES)
                msg = f"Input should be {choices}"
                raise complaint("enum", ["query", "artifact_type", number], msg, given, expected=choices)
        rows = artifacts(self.runs[run_id]) if run_id in self.runs else []
        return [row for row in rows if not wanted or row["artifact_type"] in wanted]

    def _artifact_content(self, seen: Seen, wanted: str) -> Any:
        for run, (number, stored) in itertools.chain.from_iterable(
            ((run, found) for found in _stored(run)) for run in self.runs.values()
        ):
            if artifact_id(run, number) == wanted:
                return content(seen, stored)
        raise detail(404, f"Artifact not found {wanted}")


_ID = "([^/]+)"
RUN_DETAIL_ROUTES = (
    ("GET", f"/v1/runs/{_ID}/timeline", "_timeline"),
    ("GET", f"/api/v1/tasks/{_ID}", "_task_of_block"),
    ("GET", f"/v1/runs/{_ID}/artifacts", "_artifacts"),
    ("GET", f"/v1/artifacts/{_ID}/content", "_artifact_content"),
)
