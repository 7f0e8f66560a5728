"""Workflows themselves, their tags and folders, and credentials: the fake is like a real server."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.client import api, browser_api, credential_api, task_api, workflow_api
from airflow_skyvern.client.run_request import RunRequest
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernNotFoundError, SkyvernRequestError
from airflow_skyvern.models.resources import BrowserSession
from airflow_skyvern.operators.run_prompt import ENGINES
from airflow_skyvern.runs.cancel import cancel_unless_ended
from airflow_skyvern.runs.prompt_workflow import Shape, find_or_create
from dev.site import described, endpoints
from tests.support.cards import CARD

if TYPE_CHECKING:
    from airflow_skyvern.client.calls import Call
    from airflow_skyvern.models import Workflow
    from tests.contract.conftest import Side


def definition(title: str = "as code", seconds: int = 1) -> dict[str, Any]:
    month = {"parameter_type": "workflow", "key": "month", "workflow_parameter_type": "string", "default_value": "10"}
    pause = {"block_type": "wait", "label": "pause", "wait_sec": seconds}
    return {"title": title, "workflow_definition": {"parameters": [month], "blocks": [pause]}}


def made(side: Side, **more: Any) -> Workflow:
    return side.send(workflow_api.create_workflow(definition(**more)))


def seconds_of(workflow: Workflow) -> int:
    return int(workflow.workflow_definition["blocks"][0]["wait_sec"])


def test_a_workflow_is_created_updated_read_by_version_and_deleted(side: Side) -> None:
    first = made(side)
    workflow_id = first.workflow_permanent_id
    assert (first.title, first.version, [one.key for one in first.parameters if one.is_settable]) == (
        "as code",
        1,
        ["month"],
    )
    second = side.send(workflow_api.update_workflow(workflow_id, definition("renamed", 2)))
    assert (second.workflow_permanent_id, second.title, second.version) == (workflow_id, "renamed", 2)
    assert seconds_of(side.send(api.get_workflow(workflow_id))) == 2
    assert seconds_of(side.send(workflow_api.get_workflow_version(workflow_id, 1))) == 1
    assert [one.version for one in side.send(workflow_api.list_workflow_versions(workflow_id))] == [2, 1]
    side.send(workflow_api.delete_workflow(workflow_id))
    with pytest.raises(SkyvernNotFoundError):
        side.send(api.get_workflow(workflow_id))
    side.send(workflow_api.delete_workflow(workflow_id))  # once more changes nothing
    revived = side.send(workflow_api.update_workflow(workflow_id, definition()))
    assert revived.version == 3
    assert side.send(api.get_workflow(workflow_id)).title == "as code"


def test_an_update_with_the_same_text_makes_a_version_too(side: Side) -> None:
    workflow_id = made(side).workflow_permanent_id
    assert side.send(workflow_api.update_workflow(workflow_id, definition())).version == 2


def test_the_same_idempotency_key_creates_one_workflow(side: Side) -> None:
    key = uuid.uuid4().hex
    call = workflow_api.create_workflow(definition(), idempotency_key=key)
    first, again = side.send(call), side.send(call)
    assert first.workflow_permanent_id == again.workflow_permanent_id
    side.send(workflow_api.update_workflow(first.workflow_permanent_id, definition(seconds=5)))
    answer = side.send(call)
    assert (answer.version, seconds_of(answer)) == (1, 1)
    side.send(workflow_api.delete_workflow(first.workflow_permanent_id))
    assert side.send(call).model_extra["deleted_at"] is not None  # type: ignore[index]  # models keep what else comes


def test_an_idempotency_key_has_only_visible_characters(side: Side) -> None:
    with pytest.raises(SkyvernRequestError, match="Idempotency-Key must contain 1 to 255 visible ASCII bytes"):
        side.send(workflow_api.create_workflow(definition(), idempotency_key="a b"))


def test_an_unknown_workflow_has_no_versions_and_cannot_be_updated(side: Side) -> None:
    assert side.send(workflow_api.list_workflow_versions("wpid_0")) == []
    with pytest.raises(SkyvernNotFoundError, match="workflow_permanent_id=wpid_0"):
        side.send(workflow_api.update_workflow("wpid_0", definition()))


def test_output_parameters_are_not_sent_back(side: Side) -> None:
    given = definition()
    given["workflow_definition"]["parameters"] = [{"parameter_type": "output", "key": "pause_output"}]
    with pytest.raises(SkyvernRequestError, match="Cannot manually create output parameters"):
        side.send(workflow_api.create_workflow(given))


def test_workflows_are_found_by_their_tags(side: Side) -> None:
    workflow_id, name = made(side).workflow_permanent_id, uuid.uuid4().hex
    tags = side.send(workflow_api.apply_workflow_tags(workflow_id, {"airflow_file": name, "team": "billing"}))
    assert tags.as_mapping() == {"airflow_file": name, "team": "billing"}
    assert [one.workflow_permanent_id for one in side.send(api.list_workflows(tags={"airflow_file": name}))] == [
        workflow_id
    ]
    assert side.send(api.list_workflows(tags={"airflow_file": f"{name}0"})) == []
    several = side.send(workflow_api.get_tags_of_workflows([workflow_id])).workflow_tags[workflow_id]
    assert {tag.key: tag.value for tag in several} == {"airflow_file": name, "team": "billing"}
    assert side.send(workflow_api.delete_workflow_tag(workflow_id, "team")).as_mapping() == {"airflow_file": name}
    assert side.send(workflow_api.apply_workflow_tags(workflow_id, {}, remove=["airflow_file"])).tags == []
    assert side.send(workflow_api.get_workflow_tags(workflow_id)).tags == []
    with pytest.raises(SkyvernNotFoundError, match="Workflow wpid_0 not found"):
        side.send(workflow_api.get_workflow_tags("wpid_0"))


def test_a_run_is_tagged_and_untagged(side: Side) -> None:
    run_id = side.start("ok_wait").run_id
    assert side.send(api.apply_run_tags(run_id, {"team": "billing"})).as_mapping()["team"] == "billing"
    assert side.send(api.list_run_tags(run_id)).as_mapping()["team"] == "billing"
    assert "team" not in side.send(api.delete_run_tag(run_id, "team")).as_mapping()


def test_a_workflow_moves_into_a_folder_and_out_again(side: Side) -> None:
    workflow_id, title = made(side).workflow_permanent_id, uuid.uuid4().hex
    folder = side.send(workflow_api.create_folder(title, "of a test"))
    folder_id = folder.folder_id
    assert (folder.title, folder.description, folder.workflow_count) == (title, "of a test", 0)
    assert side.send(workflow_api.move_workflow(workflow_id, folder_id)).workflow_permanent_id == workflow_id
    assert side.send(workflow_api.get_folder(folder_id)).workflow_count == 1
    assert [one.workflow_permanent_id for one in side.send(api.list_workflows(folder_id=folder_id))] == [workflow_id]
    side.send(workflow_api.move_workflow(workflow_id, None))
    assert side.send(api.list_workflows(folder_id=folder_id)) == []
    assert side.send(workflow_api.update_folder(folder_id, f"{title}2")).title == f"{title}2"
    assert [one.folder_id for one in side.send(workflow_api.list_folders(title))] == [folder_id]
    side.send(workflow_api.delete_folder(folder_id))
    with pytest.raises(SkyvernNotFoundError, match=f"Folder {folder_id} not found"):
        side.send(workflow_api.get_folder(folder_id))


@pytest.mark.parametrize(
    ("credential_type", "content", "shown"),
    [
        ("password", {"username": "u", "password": "s3cr3t"}, {"username": "u"}),
        (
            "credit_card",
            CARD,
            {"last_four": "1111", "brand": "visa"},
        ),
        ("secret", {"secret_value": "s3cr3t", "secret_label": "token"}, {"secret_label": "token"}),
    ],
)
def test_a_credential_is_created_listed_rotated_and_deleted_and_never_read_back(
    side: Side, credential_type: Any, content: dict[str, Any], shown: dict[str, Any]
) -> None:
    name = uuid.uuid4().hex
    credential = side.send(credential_api.create_credential(name, credential_type, content))
    credential_id = credential.credential_id
    assert (credential.name, credential.credential_type) == (name, credential_type)
    assert shown.items() <= credential.credential.items()
    assert [one.credential_id for one in side.send(credential_api.list_credentials(name))] == [credential_id]
    rotated = side.send(credential_api.update_credential(credential_id, name, credential_type, content))
    assert rotated.credential_id == credential_id
    seen = side.send(credential_api.get_credential(credential_id))
    assert not {"s3cr3t", "4111111111111111", "123"} & set(map(str, seen.credential.values()))
    side.send(credential_api.delete_credential(credential_id))
    with pytest.raises(SkyvernNotFoundError, match="Credential not found"):
        side.send(credential_api.get_credential(credential_id))
    with pytest.raises(SkyvernNotFoundError, match="Credential not found"):
        side.send(credential_api.delete_credential(credential_id))


def test_what_is_written_about_a_credential_is_changed_apart_from_its_secret_and_outlives_a_rotation(
    side: Side,
) -> None:
    login, rotated = {"username": "u", "password": "s3cr3t"}, {"username": "v", "password": "an0ther"}
    name, renamed = uuid.uuid4().hex, uuid.uuid4().hex
    credential_id = side.send(credential_api.create_credential(name, "password", login)).credential_id
    changed = side.send(credential_api.rename_credential(credential_id, renamed, "Kept by Airflow.\nSign in first."))
    assert (changed.name, changed.user_context) == (renamed, "Kept by Airflow.\nSign in first.")
    after = side.send(credential_api.update_credential(credential_id, renamed, "password", rotated))
    assert (after.name, after.credential["username"]) == (renamed, "v")
    [listed] = side.send(credential_api.list_credentials(renamed))
    assert (listed.user_context, listed.credential["username"]) == ("Kept by Airflow.\nSign in first.", "v")
    only_renamed = side.send(credential_api.rename_credential(credential_id, name))
    assert (only_renamed.name, only_renamed.user_context) == (name, "Kept by Airflow.\nSign in first.")
    side.send(credential_api.delete_credential(credential_id))
    with pytest.raises(SkyvernNotFoundError, match="Credential not found"):
        side.send(credential_api.rename_credential(credential_id, name))


def test_a_run_takes_the_id_of_a_credential_and_no_name_also_as_a_default(side: Side) -> None:
    name = f"portal {uuid.uuid4().hex}"
    credential = side.send(credential_api.create_credential(name, "secret", {"secret_value": "s3cr3t"}))
    login = {"parameter_type": "workflow", "key": "login", "workflow_parameter_type": "credential_id"}
    pause = {"block_type": "wait", "label": "pause", "wait_sec": 1}

    def workflow(default: str | None) -> str:
        definition = {"parameters": [{**login, "default_value": default}], "blocks": [pause]}
        body = {"title": "logs in", "workflow_definition": definition}
        return side.send(workflow_api.create_workflow(body)).workflow_permanent_id

    def start(workflow_id: str, **parameters: Any) -> str:
        fields = {"workflow_id": workflow_id, "parameters": parameters or None}
        return side.send(api.start_run(RunRequest.of(fields, None))).run_id

    without_default, by_name = workflow(None), workflow(name)
    for refused in (name, "cred_1"):
        with pytest.raises(SkyvernRequestError, match=f"Invalid credential ID: {refused}"):
            start(without_default, login=refused)
    with pytest.raises(SkyvernRequestError, match="Invalid credential ID: portal"):
        start(by_name)
    assert start(without_default, login=credential.credential_id).startswith("wr_")
    assert start(by_name, login=credential.credential_id).startswith("wr_")
    assert start(without_default).startswith("wr_")


def test_two_credentials_may_have_the_same_name(side: Side) -> None:
    name = uuid.uuid4().hex
    for _ in range(2):
        side.send(credential_api.create_credential(name, "secret", {"secret_value": "x"}))
    assert len(side.send(credential_api.list_credentials(name))) == 2


def test_a_login_without_a_password_is_refused_here_as_skyvern_takes_it(real: Side) -> None:
    with pytest.raises(SkyvernConfigError, match="password is missing"):
        credential_api.create_credential("login", "password", {"username": "u"})
    body = {"name": "login", "credential_type": "password", "credential": {"username": "u"}}
    assert real.http.post("/v1/credentials", json=body).is_success


def test_a_code_is_taken_and_not_kept(side: Side) -> None:
    code = side.send(credential_api.send_totp_code("a@example.com", "123456"))
    assert code.totp_identifier == "a@example.com"
    assert "123456" not in code.model_dump_json()


def test_an_uploaded_file_is_deleted_once(side: Side) -> None:
    file_id = side.send(api.upload_file(b"x", "x.txt")).file_id
    assert file_id is not None
    side.send(api.delete_file(file_id))
    with pytest.raises(SkyvernNotFoundError, match=f"File {file_id} not found"):
        side.send(api.delete_file(file_id))


UNKNOWN = [
    (browser_api.get_browser_session("pbs_1"), "Browser session pbs_1 not found"),
    (browser_api.close_browser_session("pbs_1"), "Browser session pbs_1 not found"),
    (browser_api.extend_browser_session("pbs_1", 5), "Browser session pbs_1 not found"),
    (browser_api.update_browser_session("pbs_1", generate_browser_profile=True), "Browser session pbs_1 not found"),
    (browser_api.get_browser_profile("bp_1"), "Browser profile bp_1 not found"),
    (browser_api.get_browser_profile_usage("bp_1"), "Browser profile bp_1 not found"),
    (browser_api.update_browser_profile("bp_1", "n"), "Browser profile bp_1 not found"),
    (browser_api.delete_browser_profile("bp_1"), "Browser profile bp_1 not found"),
    (task_api.get_script("s_1"), "Script not found"),
]


@pytest.mark.parametrize(("call", "words"), UNKNOWN, ids=lambda value: getattr(value, "what", ""))
def test_what_does_not_exist_is_said_so(real: Side, call: Call[Any], words: str) -> None:
    with pytest.raises(SkyvernNotFoundError, match=words):
        real.send(call)


@pytest.mark.parametrize(
    "call",
    [browser_api.list_browser_profiles(), browser_api.list_browser_types()],
    ids=lambda call: call.what,
)
def test_what_nobody_has_made_is_an_empty_list(real: Side, call: Call[Any]) -> None:
    assert real.send(call) == []


def test_open_browser_sessions_are_listed(real: Side) -> None:
    """A run that waits for a person keeps one open; other tests start such runs."""
    assert {type(one) for one in real.send(browser_api.list_browser_sessions())} <= {BrowserSession}


def test_each_endpoint_that_skyvern_describes_has_a_method_or_a_reason(real: Side) -> None:
    """What is recorded is compared with the methods in tests/unit/repository/test_endpoints.py."""
    found, recorded = described.described_by(real.http), described.recorded()
    assert len(found["operations"]) >= 90
    assert endpoints.without_method(found["operations"]) == set()
    assert found["operations"] == recorded["operations"], "record them anew: python -m dev.site.described"


def test_a_prompt_without_a_model_fails_as_a_task(side: Side) -> None:
    run = side.send(task_api.run_task("say hello", url=side.hook_url, max_steps=1))
    assert run.is_task
    ended = side.see(run, "failed", "terminated", "completed")
    assert (ended.status, ended.run_type, ended.is_final) == ("failed", "task_v1", True)
    assert ended.app_url is not None
    assert ended.app_url.endswith(f"/tasks/{run.run_id}")
    assert (ended.run_request or {})["prompt"] == "say hello"


def test_a_task_has_no_timeline_and_one_that_is_over_cannot_be_canceled(side: Side) -> None:
    run = side.send(task_api.run_task("say hello", url=side.hook_url, max_steps=1))
    ended = side.see(run, "failed", "terminated", "completed")
    with pytest.raises(SkyvernRequestError, match="Timeline not available for run type task_v1"):
        side.send(api.get_run_timeline(run.run_id))
    with pytest.raises(SkyvernRequestError, match=f"Invalid task status transition from {ended.status} to canceled"):
        side.send(api.cancel_run(run.run_id))
    assert not cancel_unless_ended(side.send, run.run_id).canceled
    assert {row.run_id for row in side.send(api.list_runs(status=["failed"]))} >= {run.run_id}


def test_the_workflow_of_prompts_is_made_once_hidden_and_replaced_when_it_was_changed(side: Side) -> None:
    shape = Shape(error_codes={"GONE": uuid.uuid4().hex}, uploads=("receipt",))
    with ThreadPoolExecutor(4) as pool:
        [first] = set(pool.map(lambda _: find_or_create(side.send, shape), range(4)))
    made = side.send(api.get_workflow(first))
    assert made.version == 1
    settable = {one.key: one.workflow_parameter_type for one in made.parameters if one.is_settable}
    kinds = {"prompt": "string", "url": "string", "schema": "string", "values": "json", "receipt": "file_url"}
    assert settable == kinds
    [block] = made.workflow_definition["blocks"]
    sent = shape.definition["workflow_definition"]["blocks"][0]
    del sent["parameter_keys"]  # the answer has the parameters themselves
    assert {key: block.get(key) for key in sent} == sent
    assert first not in {one.workflow_permanent_id for one in side.send(api.list_workflows(made.title))}
    hidden = side.send(api.list_workflows(made.title, status=["auto_generated"]))
    assert first in {one.workflow_permanent_id for one in hidden}
    side.send(workflow_api.update_workflow(first, shape.definition))
    second = find_or_create(side.send, shape)
    side.send(workflow_api.delete_workflow(second))
    third = find_or_create(side.send, shape)
    assert len({first, second, third}) == 3
    assert find_or_create(side.send, shape) == third


@pytest.mark.parametrize("engine", sorted({*ENGINES} - {"ui-tars"}))
def test_a_block_takes_each_engine_that_the_operator_allows(side: Side, engine: str) -> None:
    made = side.send(api.get_workflow(find_or_create(side.send, Shape(engine))))
    [block] = made.workflow_definition["blocks"]
    assert (block["engine"], block["engine_pinned"]) == (engine, True)
