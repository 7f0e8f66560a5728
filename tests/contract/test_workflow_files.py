"""Workflows as files, on a real server: what is compared, made once, and run."""

from __future__ import annotations

import json
import logging
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import PIPE, Popen
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.client import api, workflow_api
from airflow_skyvern.client.run_request import RunRequest
from airflow_skyvern.client.sender import SkyvernClient
from airflow_skyvern.exceptions import SkyvernAPIError, SkyvernNotFoundError, SkyvernRequestError
from airflow_skyvern.workflow_files import fields
from airflow_skyvern.workflow_files.differences import differences
from airflow_skyvern.workflow_files.form import form_of
from airflow_skyvern.workflow_files.ownership import find
from airflow_skyvern.workflow_files.publish import Published, ensure_version
from airflow_skyvern.workflow_files.pull import Pull
from airflow_skyvern.workflow_files.push import carry_out, plan
from airflow_skyvern.workflow_files.text import WorkflowFile
from dev.browser.workflows import browser_workflows
from dev.skyvern_server import workflows

if TYPE_CHECKING:
    from airflow_skyvern.models import Workflow
    from dev.skyvern_server import SkyvernServer
    from tests.contract.conftest import Side

log = logging.getLogger(__name__)
CONFLICT = 409
TIMES = 20


def definition(seconds: int = 1, title: str = "from a file") -> dict[str, Any]:
    note = {"parameter_type": "workflow", "key": "note", "workflow_parameter_type": "string", "default_value": ""}
    pause = {"block_type": "wait", "label": "pause", "wait_sec": seconds}
    return {"title": title, "workflow_definition": {"parameters": [note], "blocks": [pause]}}


def file(seconds: int = 1, name: str | None = None) -> WorkflowFile:
    """A file that no other test has."""
    return WorkflowFile(name or f"{uuid.uuid4().hex}.yaml", definition(seconds))


def versions(side: Side, workflow_id: str) -> list[int]:
    return [one.version or 0 for one in side.send(workflow_api.list_workflow_versions(workflow_id))]


def workflows_titled(side: Side, title: str) -> list[Workflow]:
    return [one for one in side.send(api.list_workflows(search_key=title)) if one.title == title]


class TestTheOlderAddresses:
    """Skyvern knows at these only which version is expected, and which one is to run."""

    def test_an_update_is_refused_when_another_version_has_come(self, side: Side) -> None:
        workflow_id = side.send(workflow_api.create_workflow(definition())).workflow_permanent_id
        assert side.send(workflow_api.update_workflow(workflow_id, definition(2), expected_version=1)).version == 2
        with pytest.raises(SkyvernAPIError, match="Concurrent update detected") as caught:
            side.send(workflow_api.update_workflow(workflow_id, definition(3), expected_version=1))
        assert (caught.value.status_code, caught.value.transient) == (CONFLICT, True)
        side.send(workflow_api.delete_workflow(workflow_id))
        with pytest.raises(SkyvernNotFoundError, match=f"workflow_permanent_id={workflow_id}"):
            side.send(workflow_api.update_workflow(workflow_id, definition(3), expected_version=2))

    def test_any_version_can_be_run(self, side: Side) -> None:
        workflow_id = side.send(workflow_api.create_workflow(definition(1))).workflow_permanent_id
        side.send(workflow_api.update_workflow(workflow_id, definition(30)))
        request = RunRequest.of(
            {"workflow_id": workflow_id, "parameters": {"note": "x"}}, {"run_metadata": {"k": "v"}}
        )
        started = side.send(api.start_run(request.model_copy(update={"workflow_version": 1})))
        run = side.see(started, "completed")
        assert (run.run_request or {})["workflow_id"] == workflow_id
        assert (run.run_request or {})["parameters"] == {"note": "x"}
        assert side.send(api.get_run_tags([run.run_id])).of(run.run_id)["k"] == "v"
        workflow = side.send(api.get_run_definition(run.run_id)).get("workflow") or {}
        assert (workflow["version"], workflow["workflow_definition"]["blocks"][0]["wait_sec"]) == (1, 1)

    def test_a_version_that_is_not_there_is_refused_by_name(self, side: Side) -> None:
        workflow_id = side.send(workflow_api.create_workflow(definition())).workflow_permanent_id
        request = RunRequest.of({"workflow_id": workflow_id}).model_copy(update={"workflow_version": 7})
        with pytest.raises(SkyvernNotFoundError, match="Workflow not found") as caught:
            side.send(api.start_run(request))
        assert caught.value.workflow_gone
        side.send(workflow_api.delete_workflow(workflow_id))
        with pytest.raises(SkyvernNotFoundError):
            side.send(api.start_run(request.model_copy(update={"workflow_version": 1})))

    def test_parameters_are_checked_as_at_the_other_address(self, side: Side) -> None:
        given = definition()
        given["workflow_definition"]["parameters"][0] |= {"default_value": None, "workflow_parameter_type": "integer"}
        workflow_id = side.send(workflow_api.create_workflow(given)).workflow_permanent_id
        request = RunRequest.of({"workflow_id": workflow_id}).model_copy(update={"workflow_version": 1})
        with pytest.raises(SkyvernRequestError, match="Missing value for parameter"):
            side.send(api.start_run(request))


class TestTheForm:
    def test_the_table_of_fields_is_what_the_server_says_of_itself(self, server: SkyvernServer) -> None:
        schemas = server.request("GET", "/openapi.json")[1]["components"]["schemas"]
        assert set(_fields(schemas, "WorkflowCreateYAMLRequest")) - {"recording_id"} == set(fields.of_root())
        assert set(_fields(schemas, "WorkflowDefinitionYAML")) == set(fields.of_definition())
        for model, known in (
            ("WorkflowRetryPolicy", fields.RETRY_POLICY),
            ("WorkflowRetryRule", fields.RETRY_RULE),
            ("BrowserSettings", fields.BROWSER_SETTINGS),
        ):
            assert set(_fields(schemas, _described_as(schemas, model))) == set(known)
        parts = schemas["WorkflowDefinitionYAML"]["properties"]
        for part, key, of, types in (
            ("blocks", "block_type", fields.of_block, fields.block_types()),
            ("parameters", "parameter_type", fields.of_parameter, fields.parameter_types()),
        ):
            mapping = parts[part]["items"]["discriminator"]["mapping"]
            assert set(mapping) - {"output"} == set(types)
            for kind in types:
                described = _fields(schemas, mapping[kind].rpartition("/")[2])
                assert {**described, key: fields.REQUIRED} == {**(of(kind) or {})}, kind

    def test_a_block_of_each_type_is_read_as_it_was_sent(self, real: Side) -> None:
        unlike: dict[str, list[str]] = {}
        for name, given in (*_blocks(), ("parameters", _parameters())):
            made = real.send(workflow_api.create_workflow(given))
            stored = real.send(api.get_workflow(made.workflow_permanent_id)).model_dump(mode="json")
            if found := differences(form_of(given), form_of(stored)):
                unlike[name] = [str(one) for one in found]
        assert unlike == {}

    def test_a_version_has_nothing_of_the_one_before(self, real: Side) -> None:
        all_set = {
            **definition(),
            "proxy_location": "RESIDENTIAL_DE",
            "max_elapsed_time_minutes": 7,
            "totp_identifier": "t",
            "extra_http_headers": {"x-a": "b"},
            "cdp_connect_headers": {"x-b": "c"},
            "mask_secrets": True,
            "enable_self_healing": True,
            "code_version": 1,
            "pin_saved_session_ip": True,
            "status": "draft",
            "webhook_callback_url": "https://example.com/h",
            "totp_verification_url": "https://example.com/t",
        }
        all_set["workflow_definition"] |= {"workflow_system_prompt": "p", "browser_settings": {"timezone_id": "UTC"}}
        name = file().name
        first = ensure_version(real.send, WorkflowFile(name, all_set), log)
        assert ensure_version(real.send, WorkflowFile(name, all_set), log) == Published(
            first.workflow_id, 1, made=False
        )
        assert ensure_version(real.send, file(name=name), log).version == 2
        stored = real.send(api.get_workflow(first.workflow_id)).model_dump(mode="json")
        assert form_of(stored) == form_of(definition())
        assert ensure_version(real.send, WorkflowFile(name, all_set), log).version == 1


def _fields(schemas: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the fields of a model and their defaults, as the table has them."""
    model = schemas[name]
    required = set(model.get("required", ()))
    return {
        field: fields.REQUIRED if field in required else about.get("default", _of_list(about))
        for field, about in model["properties"].items()
    }


def _described_as(schemas: Mapping[str, Any], model: str) -> str:
    """Return a model's name in the description, which has one for input where input and output differ."""
    return f"{model}-Input" if f"{model}-Input" in schemas else model


def _of_list(about: Mapping[str, Any]) -> Any:
    return [] if about.get("type") == "array" else None


NEEDED: dict[str, dict[str, Any]] = {
    "validation": {"complete_criterion": "a list is shown"},
    "action": {"navigation_goal": "press the button"},
    "for_loop": {"loop_variable_reference": "{{ rows }}"},
    "send_email": {"sender": "a@example.com"},
    "email_inbox": {"email_client": "gmail"},
    "wait": {"wait_sec": 1},
    "conditional": {"branch_conditions": [{"criteria": {"expression": "{{ rows }}"}}, {"is_default": True}]},
}
VALUES: dict[str, Any] = {
    "code": "return {}",
    "condition": {"expression": "{{ rows }}"},
    "recipients": ["a@example.com"],
    "loop_blocks": [{"block_type": "wait", "label": "inner", "wait_sec": 1}],
    "data_schema": {"type": "object"},
    "json_schema": {"type": "object"},
    "export_data_schema": {"type": "object"},
    "error_code_mapping": {"GONE": "the list is empty"},
    "headers": {"x-a": "{{ rows }}"},
    "parameter_keys": ["rows"],
    "url": "https://example.com",
    "navigation_goal": "Open the list.\nDone.",
    "engine": "skyvern-1.0",
    "title": "a title",
    "model": None,
}


def _blocks() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield a workflow for each type of block: with what it needs, and with all that can be set at once."""
    for kind, own in fields.block_types().items():
        needed = {name: VALUES.get(name, "some text") for name, default in own.items() if default == fields.REQUIRED}
        least = {"block_type": kind, "label": "it", **needed, **NEEDED.get(kind, {})}
        yield kind, _with_block(least)
        flags = {name: not default for name, default in own.items() if isinstance(default, bool)}
        numbers: dict[str, Any] = {name: default + 3 for name, default in own.items() if type(default) is int}
        known = {name: VALUES[name] for name in own if name in VALUES and name not in least}
        if kind == "for_loop":
            numbers["data_schema"] = {"type": "object"}
        yield f"{kind} with all", _with_block({**least, **flags, **numbers, **known, "continue_on_failure": True})


def _with_block(block: dict[str, Any]) -> dict[str, Any]:
    rows = {"parameter_type": "workflow", "key": "rows", "workflow_parameter_type": "json", "default_value": [1]}
    return {"title": "each type", "workflow_definition": {"parameters": [rows], "blocks": [block]}}


def _parameters() -> dict[str, Any]:
    of_types = {"integer": "3", "boolean": "true", "float": 1, "string": 7, "json": {"a": [1, None, 1.5]}}
    own = [
        {"parameter_type": "workflow", "key": f"p_{kind}", "workflow_parameter_type": kind, "default_value": default}
        for kind, default in of_types.items()
    ]
    context = {"parameter_type": "context", "key": "later", "source_parameter_key": "p_json"}
    secret = {"parameter_type": "aws_secret", "key": "mail", "aws_key": "MAIL", "description": "of the mail server"}
    loop = {"block_type": "for_loop", "label": "each", "loop_over_parameter_key": "p_json"}
    blocks = [{**loop, "loop_blocks": VALUES["loop_blocks"]}]
    return {"title": "parameters", "workflow_definition": {"parameters": [context, *own, secret], "blocks": blocks}}


def test_pull_push_pull_of_every_workflow_of_the_rig_changes_nothing(
    server: SkyvernServer, real: Side, tmp_path: Path
) -> None:
    every = {**workflows(server.peer_url), **browser_workflows("http://127.0.0.1:9")}
    puller = Pull(real.send, tmp_path)
    refused = []
    for name, given in every.items():
        workflow_id = server.create_workflow(f"{name} {uuid.uuid4().hex}", given)
        try:
            path = Path(puller.pull(workflow_id).file)
        except ValueError as error:
            refused.append((name, str(error)))
            continue
        content = path.read_bytes()
        assert carry_out(real.send, plan(real.send, path)).action == "unchanged", name
        path.unlink()
        puller.pull(workflow_id)
        assert path.read_bytes() == content, name
        assert versions(real, workflow_id) == [1], name
    # Those that have a password as the default of a parameter, and one with a key in a header.
    holding = [
        name for name, given in every.items() if name == "secret_http" or '"key": "password"' in json.dumps(given)
    ]
    assert len(holding) > 1
    assert [name for name, _ in refused] == holding
    assert all("holds a secret" in message for _, message in refused)


class TestOnce:
    def test_twenty_tasks_and_two_processes_make_one_workflow_and_one_version_per_content(
        self, server: SkyvernServer, real: Side, tmp_path: Path
    ) -> None:
        title = uuid.uuid4().hex
        script = tmp_path / "push.py"
        script.write_text(PUSH)
        for seconds in (1, 2):
            given = [server.base_url, server.api_key, title, str(seconds)]
            both = [Popen([sys.executable, str(script), *given], stdout=PIPE, text=True) for _ in range(2)]
            made = {line for one in both for line in one.communicate(timeout=120)[0].splitlines()}
            assert [one.returncode for one in both] == [0, 0]
            (workflow,) = workflows_titled(real, title)
            assert made == {f"{workflow.workflow_permanent_id} {seconds}"}
            assert versions(real, workflow.workflow_permanent_id) == list(range(seconds, 0, -1))

    @pytest.mark.parametrize("method", ["POST", "PUT"])
    def test_a_lost_answer_twenty_times_makes_nothing_twice(self, real: Side, method: str) -> None:
        send, lost = _lossy(real, method)
        for _ in range(TIMES):
            name = file().name
            first = ensure_version(send, file(1, name), log, sleep=lambda _: None)
            second = ensure_version(send, file(2, name), log, sleep=lambda _: None)
            assert (first.version, second.version, second.workflow_id) == (1, 2, first.workflow_id)
            assert versions(real, first.workflow_id) == [2, 1]
        assert len(lost) == TIMES

    def test_edited_between_push_and_run(self, real: Side) -> None:
        made = ensure_version(real.send, mine := file(1), log)
        real.send(workflow_api.update_workflow(made.workflow_id, definition(600)))
        assert ensure_version(real.send, mine, log) == Published(made.workflow_id, 1, made=False)
        request = RunRequest.of({"workflow_id": made.workflow_id}).model_copy(update={"workflow_version": 1})
        assert real.see(real.send(api.start_run(request)), "completed").succeeded
        assert ensure_version(real.send, file(2, mine.name), log).version == 3
        assert versions(real, made.workflow_id) == [3, 2, 1]

    def test_deleted_between_push_and_run(self, real: Side) -> None:
        made = ensure_version(real.send, mine := file(1), log)
        real.delete_workflow(made.workflow_id)
        with ThreadPoolExecutor(8) as pool:
            again = set(pool.map(lambda _: ensure_version(real.send, mine, log).workflow_id, range(8)))
        assert len(again) == 1
        assert made.workflow_id not in again
        assert find(real.send, mine.name) is not None

    def test_a_definition_that_skyvern_refuses_is_refused_in_its_words(self, real: Side) -> None:
        bad = definition()
        bad["workflow_definition"]["blocks"][0]["wait_sec"] = -1
        with pytest.raises(SkyvernRequestError):
            ensure_version(real.send, WorkflowFile(file().name, bad), log)


PUSH = """
import logging, sys
from concurrent.futures import ThreadPoolExecutor
from airflow_skyvern.client.sender import SkyvernClient
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.workflow_files.publish import ensure_version
from airflow_skyvern.workflow_files.text import WorkflowFile

url, key, title, seconds = sys.argv[1:]
pause = {"block_type": "wait", "label": "pause", "wait_sec": int(seconds)}
raw = {"title": title, "workflow_definition": {"parameters": [], "blocks": [pause]}}
send = SkyvernClient(Settings(key, base_url=url)).send
file = WorkflowFile(title + ".yaml", raw)
with ThreadPoolExecutor(10) as pool:
    made = list(pool.map(lambda _: ensure_version(send, file, logging.getLogger()), range(10)))
for one in made:
    print(one.workflow_id, one.version)
"""


def _lossy(side: Side, method: str) -> tuple[Callable[[Any], Any], list[str]]:
    """Send to the real server, and lose the answer to the first request of this method for each of its paths."""
    lost: list[str] = []

    class Lossy(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            answer = super().handle_request(request)
            answer.read()
            key = request.headers.get("idempotency-key") or str(request.url)
            makes = "idempotency-key" in request.headers or request.method == "PUT"
            if request.method == method and makes and key not in lost:
                lost.append(key)
                raise httpx.ReadTimeout("the answer was lost", request=request)
            return answer

    client = SkyvernClient(side.client.settings, transport=Lossy(), sleep=lambda _: None)
    return client.send, lost
