"""
What an execution runs: a stored workflow, a workflow file, or a prompt; and what is in Skyvern afterwards.

Executions share files, and these have the content of another execution or one of their own, so that tasks create and
update the same workflows side by side. In the end each file and each shape of prompts has to have one workflow, and
each content one version.

Here a prompt needs no browser. On the road its block becomes a request to a page that takes as long as the run shall:
what the faults are about is how the workflow is made and run, not what a browser does there (`tests/browser`).
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import yaml

from tests.faults.catalogue import BOTH, Fault, Kind, Way

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from dev.skyvern_server import SkyvernServer

FILES = 2
"""How many files are shared."""

SHARERS = 6
"""How many executions in a row share a content."""

FILE_TITLE = "faults file "
PROMPT_TITLE = "Airflow prompt"
LONGEST_PAGE = 1000
"""Seconds for which a page may take."""

ITEM_PARAMETER = {
    "parameter_type": "workflow",
    "key": "item",
    "workflow_parameter_type": "string",
    "default_value": "",
}


def kind_of(number: int, way: Way, fault: Fault) -> Kind:
    """Deal the kinds in turn, where a fault knows several."""
    kinds = fault.runs if way in BOTH else ("workflow",)
    return kinds[number % len(kinds)]


def write_file(folder: Path, number: int, fault: Fault, seconds: int) -> Path:
    """Write the file of an execution: one of its own where its workflow has to be created, else a shared one."""
    name = f"own_{number}" if fault.strikes("create") else f"shared_{number % FILES}"
    content = number if fault.strikes("update") else -(number // SHARERS)
    path = folder / f"{content}_{seconds}" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    written = path.with_suffix(f".{number}")
    block = {"block_type": "wait", "label": "pause", "wait_sec": seconds}
    definition = {"parameters": [ITEM_PARAMETER], "blocks": [block]}
    about = {"title": f"{FILE_TITLE}{name}", "description": f"content {content}"}
    written.write_text(yaml.safe_dump({**about, "workflow_definition": definition}))
    return written.replace(path)  # at once: another execution may read it


def without_browser(body: bytes) -> bytes:
    """Return the request that makes the workflow of prompts, with a block that needs no browser."""
    request = json.loads(body)
    definition = request.get("json_definition") or {}
    if not str(definition.get("title")).startswith(PROMPT_TITLE):
        return body
    [block] = definition["workflow_definition"]["blocks"]
    page = {"block_type": "http_request", "method": "GET", "url": block["url"], "timeout": LONGEST_PAGE}
    definition["workflow_definition"]["blocks"] = [{**page, "label": block["label"], "parameter_keys": ["url"]}]
    return json.dumps(request).encode()


def made(skyvern: SkyvernServer) -> list[dict[str, Any]]:
    """Return the workflows that tasks have made, those of prompts among them, which Skyvern hides."""
    rows = [row for page in _pages(skyvern) for row in page]
    return [row for row in rows if str(row["title"]).startswith((FILE_TITLE, PROMPT_TITLE))]


def _pages(skyvern: SkyvernServer) -> Iterator[list[dict[str, Any]]]:
    number = 1
    while page := _asked(
        skyvern, f"/v1/workflows?page_size=100&page={number}&status=published&status=auto_generated"
    ):
        yield page
        number += 1


def _asked(skyvern: SkyvernServer, path: str) -> Any:
    status, body = skyvern.request("GET", path)
    assert status == 200, f"{path}: {status} {body}"
    return body


def versions_of(skyvern: SkyvernServer, row: Mapping[str, Any]) -> list[str]:
    """Return what each version of a workflow says, newest first."""
    versions = _asked(skyvern, f"/v1/workflows/{row['workflow_permanent_id']}/versions")
    return [_content(version) for version in versions]


def _content(version: Mapping[str, Any]) -> str:
    waits = [block.get("wait_sec") for block in version["workflow_definition"]["blocks"]]
    return f"{version.get('description')}, {waits}"


def made_twice(workflows: list[tuple[str, list[str]]]) -> list[str]:
    """
    Say what was made twice: a workflow of a file or a shape of prompts, or a version of a content.

    :param workflows: The title of each workflow, and what its versions say.
    """
    titles = Counter(title for title, _ in workflows)
    twice = [f"{number} workflows {title!r}" for title, number in titles.items() if number > 1]
    for title, versions in workflows:
        contents = Counter(versions)
        twice += [f"{number} versions {one!r} of {title!r}" for one, number in contents.items() if number > 1]
    return twice


def report_made(skyvern: SkyvernServer) -> list[str]:
    """Print what tasks have made, and return what of it was made twice."""
    workflows = [(str(row["title"]), versions_of(skyvern, row)) for row in made(skyvern)]
    files = [versions for title, versions in workflows if title.startswith(FILE_TITLE)]
    twice = made_twice(workflows)
    print(
        f"made: {len(files)} workflows of files with {sum(map(len, files))} versions, {len(workflows) - len(files)} "
        f"workflows of prompts; twice: {'; '.join(twice) or 'nothing'}"
    )
    return twice
