"""Parameters that are credentials take names: found right before the start, once, or nothing is started."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.client.workflow_parameters import name_refused
from airflow_skyvern.compat.sdk import DAG, AirflowFailException
from airflow_skyvern.decorators import skyvern_task
from airflow_skyvern.exceptions import SkyvernRequestError, SkyvernServerError
from airflow_skyvern.hooks import SkyvernHook
from tests.support.run_workflow_tasks import START, execute, make, try_number

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
    from tests.unit.conftest import TaskLog

LIST = "/v1/credentials"


def credential(name: str) -> str:
    made = SkyvernHook().create_credential(name, "password", {"username": "u", "password": "s3cr3t"})
    return made.credential_id


@pytest.fixture
def logs_in(skyvern: FakeSkyvern) -> str:
    return skyvern.workflow(parameters={"login": "credential_id", "month": "string"}, defaults={"month": "10"})


def started_with(skyvern: FakeSkyvern) -> list[Any]:
    return [seen.json["parameters"] for seen in skyvern.sent("POST", START)]


def test_a_name_becomes_the_id_of_the_credential_with_one_request(
    skyvern: FakeSkyvern, logs_in: str, task_log: TaskLog
) -> None:
    credential_id = credential("portal")
    credential("portal of others")
    execute(make(logs_in, parameters={"login": "portal", "month": "11"}))
    assert started_with(skyvern) == [{"login": credential_id, "month": "11"}]
    assert [seen.query.get("search") for seen in skyvern.sent("GET", LIST)] == [["portal"]]
    assert f"parameters.login: credential 'portal' is {credential_id}" in task_log()


@pytest.mark.parametrize("given", [{"login": "{id}"}, {"month": "11"}, {"login": ""}, {"login": None, "month": "1"}])
def test_without_a_name_no_credentials_are_listed(skyvern: FakeSkyvern, logs_in: str, given: dict[str, Any]) -> None:
    credential_id = credential("portal")
    parameters = {key: value.format(id=credential_id) if value else value for key, value in given.items()}
    execute(make(logs_in, parameters=parameters))
    assert started_with(skyvern) == [parameters]
    assert skyvern.sent("GET", LIST) == []


def test_a_text_of_another_type_is_no_name(skyvern: FakeSkyvern) -> None:
    execute(make(skyvern.workflow(parameters={"login": "string"}), parameters={"login": "portal"}))
    assert skyvern.sent("GET", LIST) == []


def test_a_default_that_is_a_name_is_found_too(skyvern: FakeSkyvern) -> None:
    credential_id = credential("portal")
    workflow = skyvern.workflow(
        parameters={"login": "credential_id", "month": "string"}, defaults={"login": "portal"}
    )
    execute(make(workflow, parameters={"month": "11"}))
    assert started_with(skyvern) == [{"login": credential_id, "month": "11"}]


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        ((), "parameters.login: Skyvern has no credential of the name 'portal'. It has none at all."),
        (("Portal",), "no credential of the name 'portal'. Did you mean Portal?"),
        (("portl", "bank"), "no credential of the name 'portal'. Did you mean portl?"),
        (("bank", "shop"), "no credential of the name 'portal'. It has 'bank', 'shop'."),
    ],
)
def test_a_name_that_is_not_there_starts_nothing_and_is_not_tried_again(
    skyvern: FakeSkyvern, logs_in: str, names: tuple[str, ...], complaint: str
) -> None:
    for name in names:
        credential(name)
    with pytest.raises(AirflowFailException) as caught:
        execute(make(logs_in, parameters={"login": "portal"}))
    assert complaint in str(caught.value)
    assert skyvern.runs == {}


def test_two_credentials_of_one_name_start_nothing_and_both_ids_are_named(skyvern: FakeSkyvern, logs_in: str) -> None:
    first, second = credential("portal"), credential("portal")
    with pytest.raises(AirflowFailException, match=f"2 credentials of the name 'portal': {first}, {second}"):
        execute(make(logs_in, parameters={"login": "portal"}))
    assert skyvern.runs == {}


def test_a_user_name_that_is_found_by_the_same_text_is_no_name(skyvern: FakeSkyvern, logs_in: str) -> None:
    SkyvernHook().create_credential("bank", "password", {"username": "portal", "password": "s3cr3t"})
    credential_id = credential("portal")
    execute(make(logs_in, parameters={"login": "portal"}))
    assert started_with(skyvern) == [{"login": credential_id}]


def test_a_name_that_is_longer_than_what_skyvern_searches_for_is_found(skyvern: FakeSkyvern, logs_in: str) -> None:
    credential_id = credential("portal " * 40)
    execute(make(logs_in, parameters={"login": "portal " * 40}))
    assert started_with(skyvern) == [{"login": credential_id}]
    assert skyvern.sent("GET", LIST)[0].query.get("search") is None


@pytest.mark.slow
def test_a_list_that_does_not_come_starts_nothing_and_leaves_the_task_its_retries(
    skyvern: FakeSkyvern, logs_in: str
) -> None:
    skyvern.next("GET", LIST, *[httpx.Response(500, json={"detail": "vault"})] * 5)
    with pytest.raises(SkyvernServerError):
        execute(make(logs_in, parameters={"login": "portal"}))
    assert skyvern.runs == {}


@pytest.mark.slow
def test_a_retry_resumes_its_run_though_the_credential_was_renamed(skyvern: FakeSkyvern, logs_in: str) -> None:
    credential_id = credential("portal")
    operator = make(logs_in, parameters={"login": "portal"}, wait_for_completion=False)
    run_id = execute(operator, try_number(1))
    SkyvernHook().rename_credential(credential_id, "another")
    retried = make(logs_in, parameters={"login": "portal"}, wait_for_completion=False)
    assert execute(retried, try_number(2)) == run_id
    assert len(skyvern.runs) == 1


@pytest.mark.parametrize("durable", [True, False])
def test_with_and_without_a_key_of_its_own_a_run_gets_the_id(
    skyvern: FakeSkyvern, logs_in: str, *, durable: bool
) -> None:
    credential_id = credential("portal")
    execute(make(logs_in, parameters={"login": "portal"}, durable=durable))
    assert started_with(skyvern) == [{"login": credential_id}]


FILE = """
title: Invoices
workflow_definition:
  parameters:
  - {key: login, parameter_type: workflow, workflow_parameter_type: credential_id, default_value: portal}
  blocks:
  - {block_type: wait, label: pause, wait_sec: 1}
"""


@pytest.mark.parametrize("parameters", [None, {"login": "portal"}])
@pytest.mark.parametrize("check_parameters", [True, False])
def test_the_workflow_of_a_file_takes_a_name_as_default_and_as_parameter(
    skyvern: FakeSkyvern, tmp_path: Path, parameters: Any, *, check_parameters: bool
) -> None:
    (tmp_path / "invoices.yaml").write_text(FILE)
    credential_id = credential("portal")
    task = make(
        None,  # type: ignore[arg-type]  # a file's workflow has no id yet
        workflow_file=tmp_path / "invoices.yaml",
        parameters=parameters,
        check_parameters=check_parameters,
    )
    execute(task)
    [run] = skyvern.runs.values()
    assert run.parameters == {"login": credential_id}
    [workflow] = skyvern.workflows.values()
    [row] = workflow.definitions[0]["workflow_definition"]["parameters"]
    assert row["default_value"] == "portal"


def test_a_name_that_is_not_there_makes_no_version_of_a_file(skyvern: FakeSkyvern, tmp_path: Path) -> None:
    (tmp_path / "invoices.yaml").write_text(FILE)
    with pytest.raises(AirflowFailException, match=r"parameters\.login: Skyvern has no credential of the name"):
        execute(make(None, workflow_file=tmp_path / "invoices.yaml"))  # type: ignore[arg-type]  # as above
    assert skyvern.workflows == {}


def test_a_function_returns_a_name(skyvern: FakeSkyvern, logs_in: str) -> None:
    credential_id = credential("portal")

    def invoices() -> dict[str, str]:
        return {"login": "portal"}

    with DAG("d", schedule=None):
        task: Any = skyvern_task(invoices, workflow_id=logs_in, poll_interval=0.01)()
    execute(task.operator)
    assert started_with(skyvern) == [{"login": credential_id}]


def test_the_refusal_of_a_name_that_was_not_looked_up_says_so(skyvern: FakeSkyvern, logs_in: str) -> None:
    credential("portal")
    with pytest.raises(AirflowFailException, match=r"parameters\.login: Invalid credential ID: portal") as caught:
        execute(make(logs_in, parameters={"login": "portal"}, check_parameters=False))
    assert "with check_parameters=True" in str(caught.value)
    other = SkyvernRequestError("no", detail="Invalid credential ID: <redacted>. Failed.")
    assert name_refused(other, {"login": "portal"}) is other


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer", [httpx.Response(200, text="<html>Sign in</html>"), httpx.Response(200, json={"status": "ok"})]
)
def test_a_name_that_trouble_kept_from_being_looked_up_is_for_a_retry(
    skyvern: FakeSkyvern, logs_in: str, answer: httpx.Response
) -> None:
    credential_id = credential("portal")
    skyvern.next("GET", f"/v1/workflows/{logs_in}", *[answer] * 9)
    with pytest.raises(SkyvernRequestError, match=r"parameters\.login: Invalid credential ID: portal") as caught:
        execute(make(logs_in, parameters={"login": "portal"}))
    assert "A retry does both." in str(caught.value)
    assert "Correct the request" not in str(caught.value)
    assert skyvern.runs == {}
    skyvern._scripts.clear()
    execute(make(logs_in, parameters={"login": "portal"}, lost_start_timeout=0.01), try_number(2))
    assert started_with(skyvern)[-1] == {"login": credential_id}


def test_a_wrong_id_is_not_for_a_retry_whatever_was_not_read(skyvern: FakeSkyvern, logs_in: str) -> None:
    skyvern.next("GET", f"/v1/workflows/{logs_in}", *[httpx.Response(200, text="<html>Sign in</html>")] * 9)
    with pytest.raises(AirflowFailException, match=r"parameters\.login: Invalid credential ID: cred_7"):
        execute(make(logs_in, parameters={"login": "cred_7"}))
    skyvern._scripts.clear()
