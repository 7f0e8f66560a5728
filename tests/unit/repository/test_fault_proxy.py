"""The proxy of `make faults` knows what each request of a task is, and whose."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_skyvern.client import api
from airflow_skyvern.client.run_request import RunRequest
from airflow_skyvern.client.sender import SkyvernClient
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.runs.prompt_workflow import Shape, find_or_create
from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
from airflow_skyvern.testing.loopback import Loopback
from airflow_skyvern.workflow_files.publish import ensure_version
from airflow_skyvern.workflow_files.text import read
from dev.fault_proxy import Exchange, FaultProxy
from tests.faults.catalogue import Fault
from tests.faults.kinds import without_browser, write_file

log = logging.getLogger(__name__)


class World:
    """The fake behind the proxy, and the kinds of the requests that have passed."""

    def __init__(self, fake: FakeSkyvern, client: SkyvernClient, proxy: FaultProxy, kinds: list[str]) -> None:
        self.fake, self.client, self.proxy, self.kinds = fake, client, proxy, kinds

    def start(self, workflow_id: str, version: int | None = None) -> str:
        request = RunRequest.of({"workflow_id": workflow_id}, {"run_metadata": {"x": "007"}})
        run = self.client.send(api.start_run(request.model_copy(update={"workflow_version": version})))
        return run.run_id


@pytest.fixture
def world() -> Iterator[World]:
    kinds: list[str] = []

    async def note(exchange: Exchange) -> None:
        kinds.append(exchange.kind)
        if exchange.kind == "create":
            exchange.body = without_browser(exchange.body)

    with Loopback() as server:
        server.fake = FakeSkyvern()
        with FaultProxy(server.url, server.fake.api_key, note) as proxy:
            proxy.keys.add("a key")
            with SkyvernClient(Settings("a key", base_url=proxy.url)) as client:
                yield World(server.fake, client, proxy, kinds)


@pytest.mark.slow
def test_a_workflow_file_is_created_updated_and_started(world: World, tmp_path: Path) -> None:
    fault = Fault("none")
    first = ensure_version(world.client.send, read(write_file(tmp_path, 0, fault, 10)), log)
    second = ensure_version(world.client.send, read(write_file(tmp_path, 0, fault, 60)), log)
    assert (first.version, second.version) == (1, 2)
    assert [kind for kind in world.kinds if kind in ("create", "update")] == ["create", "update"]
    run_id = world.start(second.workflow_id, 1)
    assert world.kinds[-1] == "start"
    assert world.proxy.run_owner == {run_id: "007"}
    world.client.send(api.get_run(run_id))
    assert world.kinds[-1] == "get"


@pytest.mark.slow
def test_the_workflow_of_prompts_is_created_without_a_browser_and_started(world: World) -> None:
    workflow_id = find_or_create(world.client.send, Shape())
    assert [kind for kind in world.kinds if kind != "other"] == ["create", "workflow"]
    made = world.client.send(api.get_workflow(workflow_id)).model_dump(mode="json")
    (block,) = made["workflow_definition"]["blocks"]
    assert (block["block_type"], block["label"]) == ("http_request", "task")
    assert find_or_create(world.client.send, Shape()) == workflow_id
    assert world.proxy.run_owner == {world.start(workflow_id): "007"}
