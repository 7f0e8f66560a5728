"""The tasks about logins: sync of credentials, and codes."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.compat import since_3_1
from airflow_skyvern.compat.sdk import DAG, AirflowFailException, BaseOperator
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernSyncError
from airflow_skyvern.operators import SkyvernSendTotpCodeOperator, SkyvernSyncCredentialsOperator
from tests.support.tasks import FakeTaskInstance, context_of
from tests.unit.task.test_rendered_secrets import shown

if TYPE_CHECKING:
    from airflow_skyvern.testing.fake.skyvern import FakeSkyvern
    from tests.unit.conftest import TaskLog

PASSWORD, SEED, CODE = "zebra-passphrase-7", "JBSWY3DPEHPK3PXP", "48291375"
CREATE = "/v1/credentials"


class Finds(BaseOperator):
    """A task that pushes something."""

    def execute(self, context: Any) -> None:
        """Do nothing."""


@pytest.fixture(autouse=True)
def _named_airflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__SKYVERN__INSTALLATION", "https://airflow.example.com")
    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", "hTXAmGqjSnMXzWBwm3hAxb2bKf6UFTH1wzhsmyqGVKw=")


@pytest.fixture
def portal(monkeypatch: pytest.MonkeyPatch) -> None:
    store(monkeypatch, "portal", password=PASSWORD, extra={"skyvern_credential": {"totp": SEED}})


def store(monkeypatch: pytest.MonkeyPatch, conn_id: str, **fields: Any) -> None:
    given = {"conn_type": "generic", "login": "me", **fields}
    monkeypatch.setenv(f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(given))


def syncing(*connections: str, **more: Any) -> SkyvernSyncCredentialsOperator:
    with DAG("d", schedule=None):
        return SkyvernSyncCredentialsOperator(task_id="logins", connections=[*connections], **more)


def execute(task: Any) -> Any:
    return task.execute(context_of(FakeTaskInstance()))


# Sync.


@pytest.mark.usefixtures("portal")
def test_a_sync_returns_what_it_did_and_no_secret_is_anywhere(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch, task_log: TaskLog
) -> None:
    made = execute(syncing("portal"))
    [credential_id] = skyvern.credentials
    portal = {"connection": "portal", "name": "portal", "credential_id": credential_id}
    nothing: dict[str, list[Any]] = {"created": [], "rotated": [], "unchanged": [], "deleted": []}
    assert made == {**nothing, "created": [portal]}
    assert execute(syncing("portal")) == {**nothing, "unchanged": [portal]}
    store(monkeypatch, "portal", password="another-passphrase")
    assert execute(syncing("portal")) == {**nothing, "rotated": [portal]}
    store(monkeypatch, "bank", password=PASSWORD)
    assert execute(syncing("bank", delete=True))["deleted"] == [portal]
    seen = json.dumps(made) + task_log() + shown(syncing("portal"))
    assert not any(secret in seen for secret in (PASSWORD, SEED, "another-passphrase"))
    assert since_3_1.redactor()(f"{PASSWORD} {SEED}") == "*** ***"


@pytest.mark.usefixtures("portal")
def test_another_task_has_another_list(skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch) -> None:
    execute(syncing("portal"))
    store(monkeypatch, "bank", password=PASSWORD)
    with DAG("another", schedule=None):
        other = SkyvernSyncCredentialsOperator(task_id="logins", connections=["bank"], delete=True)
    assert execute(other)["deleted"] == []
    assert len(skyvern.credentials) == 2


@pytest.mark.usefixtures("portal")
def test_a_vault_that_fails_leaves_the_task_its_retries_and_names_the_connection(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch, task_log: TaskLog
) -> None:
    store(monkeypatch, "bank", password=PASSWORD)
    skyvern.next("POST", CREATE, httpx.Response(500, json={"detail": f"vault: {PASSWORD}"}))
    with pytest.raises(SkyvernSyncError, match="1 of 2 credentials could not be synced: portal: ") as caught:
        execute(syncing("portal", "bank"))
    assert caught.value.transient
    assert [one.name for one in skyvern.credentials.values()] == ["bank"]
    assert PASSWORD not in str(caught.value) + task_log()


def test_a_connection_that_is_not_there_is_tried_again_and_one_without_a_password_is_not(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SkyvernSyncError, match="portal: Airflow has no such connection, or its secrets backend"):
        execute(syncing("portal", delete=True))
    store(monkeypatch, "portal")
    with pytest.raises(AirflowFailException, match="portal: credential 'portal': password is missing"):
        execute(syncing("portal"))
    assert skyvern.credentials == {}


def test_a_connection_that_cannot_be_read_is_named_without_its_text(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch, task_log: TaskLog
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PORTAL", f"http://me:{PASSWORD}@host:port/")
    with pytest.raises(SkyvernSyncError) as caught:
        execute(syncing("portal"))
    assert PASSWORD not in str(caught.value) + task_log()
    assert caught.value.__cause__ is None
    assert skyvern.credentials == {}


@pytest.mark.usefixtures("portal")
def test_an_airflow_without_a_name_syncs_nothing(skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__SKYVERN__INSTALLATION", "")
    with pytest.raises(AirflowFailException, match=r"set \[skyvern\] installation"):
        execute(syncing("portal"))
    assert skyvern.credentials == {}


@pytest.mark.parametrize("connections", [[], "portal", [""], [5], "", {"portal": 1}])
def test_connections_that_are_no_list_of_ids_are_refused_when_the_dag_is_parsed(connections: Any) -> None:
    with pytest.raises(SkyvernConfigError, match="Task 'logins': connections: "), DAG("d", schedule=None):
        SkyvernSyncCredentialsOperator(task_id="logins", connections=connections)


@pytest.mark.usefixtures("portal")
def test_the_ids_may_come_from_a_template(skyvern: FakeSkyvern) -> None:
    with DAG("d", schedule=None):
        task: Any = SkyvernSyncCredentialsOperator(task_id="logins", connections="{{ params.ids | tojson }}")
    task.render_template_fields({**context_of(FakeTaskInstance()), "params": {"ids": ["portal"]}})
    assert [one["name"] for one in execute(task)["created"]] == ["portal"]


# Codes.


def sending(**more: Any) -> Any:
    given: dict[str, Any] = {"task_id": "code", "totp_identifier": "bot@example.com", **more}
    return SkyvernSendTotpCodeOperator(**given)


def test_a_function_finds_the_code_which_is_nowhere_afterwards(skyvern: FakeSkyvern, task_log: TaskLog) -> None:
    asked: list[str] = []
    run_id = skyvern.run()

    def newest(ti: Any) -> str:
        asked.append(ti.task_id)
        return CODE

    with DAG("d", schedule=None):
        task = sending(code=newest, run_id=run_id, expires_in=timedelta(seconds=30))
    task.render_template_fields(context_of(FakeTaskInstance()))
    returned = execute(task)
    [sent] = skyvern.sent("POST", "/v1/credentials/totp")
    assert (sent.json["totp_identifier"], sent.json["content"], sent.json["workflow_run_id"], asked) == (
        *("bot@example.com", CODE, run_id),
        ["t"],
    )
    left = datetime.fromisoformat(sent.json["expired_at"]) - datetime.now(timezone.utc)
    assert timedelta(0) < left <= timedelta(seconds=30)
    assert returned.startswith("totp_")
    assert CODE not in returned + task_log() + shown(task)


def test_a_template_is_rendered_and_shown_as_stars(
    skyvern: FakeSkyvern, monkeypatch: pytest.MonkeyPatch, task_log: TaskLog
) -> None:
    with DAG("d", schedule=None):
        task = sending(code="{{ params.code }}")
    context = {**context_of(FakeTaskInstance()), "params": {"code": CODE}}
    monkeypatch.setattr("airflow_skyvern.compat.sdk.get_current_context", lambda: context, raising=False)
    task.render_template_fields(context)
    assert json.loads(shown(task))["code"] == "***"
    assert CODE not in repr(vars(task)) + str(task.code)
    execute(task)
    assert skyvern.sent("POST", "/v1/credentials/totp")[0].json["content"] == CODE
    assert CODE not in task_log()


def test_the_value_of_another_task_makes_that_one_come_first() -> None:
    with DAG("d", schedule=None):
        finds = Finds(task_id="finds")
        task = sending(code=finds.output)
    assert task.upstream_task_ids == {"finds"}


def test_a_mapped_task_takes_the_codes_of_another_one(skyvern: FakeSkyvern) -> None:
    with DAG("d", schedule=None):
        finds = Finds(task_id="finds")
        mapped: Any = SkyvernSendTotpCodeOperator.partial(task_id="code", totp_identifier="a").expand(
            code=finds.output
        )
    task = mapped.unmap({"code": CODE})
    task.render_template_fields(context_of(FakeTaskInstance()))
    assert json.loads(shown(task))["code"] == "***"
    execute(task)
    assert skyvern.sent("POST", "/v1/credentials/totp")[0].json["content"] == CODE


def test_a_code_in_the_dag_file_is_refused() -> None:
    with pytest.raises(SkyvernConfigError, match="Task 'code': code: is a text of the DAG file") as caught:
        sending(code=CODE)
    assert CODE not in str(caught.value)


@pytest.mark.parametrize("found", [None, "", "  ", "None", 482913])
def test_without_a_code_nothing_is_sent_and_no_retry_comes(skyvern: FakeSkyvern, found: Any) -> None:
    with pytest.raises(AirflowFailException, match="code: there is none") as caught:
        execute(sending(code=lambda: found))
    assert skyvern.totp_codes == []
    assert "482913" not in str(caught.value)


@pytest.mark.parametrize(
    ("found", "sent"),
    [
        ("482 913", "482913"),
        (" 482-913\n", "482913"),
        ("AB-12 CD", "AB-12 CD"),
        ("Your code is 482 913.", "Your code is 482 913."),
    ],
)
def test_people_read_codes_with_spaces(skyvern: FakeSkyvern, found: str, sent: str) -> None:
    execute(sending(code=lambda: found))
    assert skyvern.totp_codes[0]["content"] == sent


def test_a_refusal_does_not_repeat_the_code(skyvern: FakeSkyvern, task_log: TaskLog) -> None:
    skyvern.next("POST", "/v1/credentials/totp", httpx.Response(400, json={"detail": f"Failed to parse {CODE}"}))
    with pytest.raises(AirflowFailException) as caught:
        execute(sending(code=lambda: CODE))
    assert "Failed to parse ***" in str(caught.value)
    assert CODE not in task_log()
