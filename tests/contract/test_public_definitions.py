"""
Definitions that Skyvern itself publishes, as examples in its package: pulled, changed, compared and pushed.

They are read where the server is installed, so that no copy of them grows old here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.cli import main
from dev.skyvern_server import SKYVERN_VENV

if TYPE_CHECKING:
    from dev.skyvern_server import SkyvernServer

ALL = sorted(SKYVERN_VENV.glob("lib/python*/site-packages/skyvern/cli/skills/skyvern/examples/*.json"))
LOOPED = "conditional-retry"
"""An example that Skyvern 1.0.56 itself refuses: its blocks lead back to the first one."""

PUBLISHED = [path for path in ALL if path.stem != LOOPED]
GOAL = "data_extraction_goal: Extract"
COMMENT = "# Finance reads this every Monday.\n"

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _connection(server: SkyvernServer, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"conn_type": "skyvern", "host": server.base_url, "password": server.api_key}
    monkeypatch.setenv("AIRFLOW_CONN_SKYVERN_DEFAULT", json.dumps(given))
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "WARNING")
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")  # which the command sets for its own process


def workflows(*arguments: object) -> int:
    return main(["workflows", *map(str, arguments)])


def goals(server: SkyvernServer, workflow_id: str) -> list[str]:
    """What is to be extracted, by version, newest first."""
    _, versions = server.request("GET", f"/v1/workflows/{workflow_id}/versions")
    blocks = [block for version in versions for block in version["workflow_definition"]["blocks"]]
    return [block["data_extraction_goal"] for block in blocks if block["block_type"] == "extraction"]


@pytest.mark.skipif(not PUBLISHED, reason="this Skyvern has no examples in its package")
@pytest.mark.parametrize("published", PUBLISHED, ids=[path.stem for path in PUBLISHED])
def test_a_published_definition_is_pulled_changed_compared_and_pushed(
    server: SkyvernServer, tmp_path: Path, capsys: Capture, published: Path
) -> None:
    definition: dict[str, Any] = json.loads(published.read_text())
    workflow_id = server.create_workflow(definition.pop("title"), definition)

    assert workflows("pull", workflow_id, "--to", tmp_path) == 0
    (file,) = tmp_path.iterdir()
    pulled = file.read_bytes()
    assert b"workflow_permanent_id" not in pulled
    assert workflows("diff", file) == 0
    assert workflows("push", "--yes", file) == 0
    file.unlink()
    assert workflows("pull", workflow_id, "--to", tmp_path) == 0
    assert file.read_bytes() == pulled  # and nothing was pushed: see the versions below

    base, rest = pulled.decode().split("\n", 1)
    changed = COMMENT + rest.replace(GOAL, "data_extraction_goal: Read")
    assert changed.count("data_extraction_goal: Read") == 1
    file.write_text(f"{base}\n{changed}")
    capsys.readouterr()
    assert workflows("diff", file) == 1
    assert capsys.readouterr().out.count("data_extraction_goal") == 1
    assert workflows("push", "--yes", file) == 0
    assert f"updated, version 2 of {workflow_id}" in capsys.readouterr().out
    assert workflows("diff", file) == 0
    assert workflows("push", "--yes", file) == 0
    newest, first = goals(server, workflow_id)
    assert newest == first.replace("Extract", "Read", 1) != first
    assert workflows("pull", workflow_id, "--to", tmp_path) == 0
    assert file.read_text().split("\n", 1)[1] == changed  # the comment, too


@pytest.mark.skipif(LOOPED not in [path.stem for path in ALL], reason="this Skyvern has no such example")
def test_a_published_definition_that_skyvern_refuses_is_refused_in_its_words(
    server: SkyvernServer, tmp_path: Path, capsys: Capture
) -> None:
    (published,) = (path for path in ALL if path.stem == LOOPED)
    file = tmp_path / published.name
    file.write_bytes(published.read_bytes())
    before = server.request("GET", "/v1/workflows?page_size=100")[1]
    assert workflows("push", "--yes", file) == 1
    said = capsys.readouterr()
    assert "Circular reference detected" in said.out + said.err
    assert server.request("GET", "/v1/workflows?page_size=100")[1] == before
