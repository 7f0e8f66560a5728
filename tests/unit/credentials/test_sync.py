"""Credentials made from connections: each case, each interruption, and whose they are."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from airflow_skyvern.client import credential_api
from airflow_skyvern.client.sender import SkyvernClient
from airflow_skyvern.client.settings import Settings
from airflow_skyvern.credentials.mark import LONGEST_CONTEXT, Mark, Owner
from airflow_skyvern.credentials.sync import Outcome, Sync
from airflow_skyvern.credentials.wanted import Wanted, wanted_from
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernError, SkyvernServerError, SkyvernSyncError
from airflow_skyvern.testing.fake.skyvern import API_KEY, FakeSkyvern

if TYPE_CHECKING:
    from collections.abc import Iterator

LIST, ONE, UPDATE, DELETE = (f"/v1/credentials{rest}" for rest in ("", "/[^/]+", "/[^/]+/update", "/[^/]+/delete"))
PASSWORD = "zebra-passphrase-7"
BROKEN = httpx.Response(500, json={"detail": f"vault: {PASSWORD}"})


@dataclass
class Airflow:
    """One installation, with its connections."""

    client: SkyvernClient
    owner: Owner = field(default_factory=lambda: Owner("https://airflow.example.com", "nightly", ("key",)))
    connections: dict[str, Any] = field(default_factory=dict)

    def store(self, conn_id: str, password: str = PASSWORD, login: str = "me", **extra: Any) -> None:
        said = json.dumps({"skyvern_credential": extra}) if extra else None
        self.connections[conn_id] = ("generic", login, password, said)

    def read(self, conn_id: str) -> Wanted:
        if conn_id not in self.connections:
            raise SkyvernSyncError("there is none", transient=True)
        return wanted_from(conn_id, *self.connections[conn_id])

    def sync(self, *conn_ids: str, owner: Owner | None = None, **options: bool) -> list[Outcome]:
        chosen = conn_ids or tuple(self.connections)
        return list(Sync(self.client.send, owner or self.owner, self.read, **options).run(chosen))

    def actions(self, *conn_ids: str, **options: Any) -> dict[str, str]:
        return {one.conn_id: one.action for one in self.sync(*conn_ids, **options)}


@pytest.fixture
def airflow(fake: FakeSkyvern) -> Iterator[Airflow]:
    settings, transport = Settings(API_KEY), httpx.MockTransport(fake.handle)
    with SkyvernClient(settings, transport=transport, sleep=lambda _: None) as client:
        yield Airflow(client)


def kept(fake: FakeSkyvern) -> dict[str, Any]:
    """What Skyvern has of each credential: its secret fields, by name."""
    return {one.name: one.content for one in fake.credentials.values()}


def writes(fake: FakeSkyvern) -> list[str]:
    return [f"{seen.method} {seen.path}" for seen in fake.requests if seen.method != "GET"]


def by_hand(airflow: Airflow, name: str) -> str:
    made = airflow.client.send(credential_api.create_credential(name, "secret", {"secret_value": "theirs"}))
    return made.credential_id


def test_a_connection_becomes_a_credential_and_stays_untouched_while_it_stays_the_same(
    fake: FakeSkyvern, airflow: Airflow
) -> None:
    airflow.store("portal")
    [made] = airflow.sync()
    assert (made.action, made.name, made.credential_id) == ("created", "portal", *fake.credentials)
    assert kept(fake) == {"portal": {"username": "me", "password": PASSWORD}}
    before = writes(fake)
    assert airflow.actions() == {"portal": "unchanged"}
    assert writes(fake) == before


@pytest.mark.parametrize(
    "change",
    [
        {"password": "another"},
        {"login": "you"},
        {"totp": "JBSWY3DPEHPK3PXP"},
        {"type": "secret"},
        {"name": "The portal"},
    ],
)
def test_whatever_changes_rotates_the_credential_which_keeps_its_id(
    fake: FakeSkyvern, airflow: Airflow, change: dict[str, Any]
) -> None:
    airflow.store("portal")
    [made] = airflow.sync()
    airflow.store("portal", **change)
    [rotated] = airflow.sync()
    assert (rotated.action, rotated.credential_id) == ("rotated", made.credential_id)
    assert kept(fake) == {rotated.name: dict(airflow.read("portal").content)}
    assert airflow.actions() == {"portal": "unchanged"}


def test_what_somebody_has_edited_in_skyvern_is_made_as_the_connection_says(
    fake: FakeSkyvern, airflow: Airflow
) -> None:
    airflow.store("portal")
    [made] = airflow.sync()
    assert made.credential_id is not None
    airflow.client.send(credential_api.rename_credential(made.credential_id, "mine now"))
    assert airflow.actions() == {"portal": "rotated"}
    fake.credentials[made.credential_id].content["username"] = "you"
    assert airflow.actions() == {"portal": "rotated"}
    assert kept(fake) == {"portal": {"username": "me", "password": PASSWORD}}


def test_what_people_write_beside_a_credential_stays(fake: FakeSkyvern, airflow: Airflow) -> None:
    airflow.store("portal")
    airflow.sync()
    [made] = fake.credentials.values()
    made.user_context = f"Click SSO first.\n{made.user_context}\nThen wait."
    assert airflow.actions() == {"portal": "unchanged"}
    airflow.store("portal", "another")
    assert airflow.actions() == {"portal": "rotated"}
    assert made.user_context is not None
    assert made.user_context.endswith("\nClick SSO first.\nThen wait.")
    airflow.store("portal", "a third")
    airflow.sync()
    assert made.user_context.endswith("\nClick SSO first.\nThen wait.")
    assert made.user_context.count("Kept by Airflow") == 1
    made.user_context += "x" * (LONGEST_CONTEXT - len(made.user_context))
    airflow.store("portal", "a fourth", "a longer name")
    assert airflow.actions() == {"portal": "rotated"}
    assert airflow.actions() == {"portal": "unchanged"}


def test_a_foreign_credential_of_the_name_is_left_as_it_is_and_named(fake: FakeSkyvern, airflow: Airflow) -> None:
    theirs = by_hand(airflow, "portal")
    airflow.store("portal")
    airflow.store("bank")
    refused, made = airflow.sync()
    assert (refused.action, made.action) == ("failed", "created")
    assert f"{theirs} (made by a person or another program)" in str(refused.error)
    assert "extra.skyvern_credential.name" in str(refused.error)
    assert kept(fake)["portal"] == {"secret_value": "theirs"}
    airflow.store("portal", name="portal of Airflow")
    assert airflow.actions(delete=True) == {"portal": "created", "bank": "unchanged"}
    assert kept(fake)["portal"] == {"secret_value": "theirs"}


def test_a_foreign_one_that_comes_later_does_not_keep_ours_from_its_rotation(
    fake: FakeSkyvern, airflow: Airflow
) -> None:
    airflow.store("portal")
    airflow.sync()
    theirs = by_hand(airflow, "portal")
    airflow.store("portal", "another")
    [outcome] = airflow.sync(delete=True)
    assert outcome.action == "rotated"
    assert theirs in (outcome.note or "")
    assert fake.credentials[theirs].content == {"secret_value": "theirs"}


def test_two_connections_of_one_name_are_both_refused(fake: FakeSkyvern, airflow: Airflow) -> None:
    airflow.store("portal")
    airflow.store("portal_2", name="portal")
    assert airflow.actions() == {"portal": "failed", "portal_2": "failed"}
    assert fake.credentials == {}


def test_a_connection_that_left_the_list_loses_its_credential_only_with_delete(
    fake: FakeSkyvern, airflow: Airflow
) -> None:
    airflow.store("portal")
    airflow.store("bank")
    airflow.sync()
    assert airflow.actions("portal") == {"portal": "unchanged"}
    assert airflow.actions("portal", delete=True) == {"bank": "deleted", "portal": "unchanged"}
    assert set(kept(fake)) == {"portal"}


def test_a_name_moves_from_a_removed_connection_to_another_one_in_one_pass(
    fake: FakeSkyvern, airflow: Airflow
) -> None:
    airflow.store("old", name="portal")
    airflow.sync()
    airflow.connections.clear()
    airflow.store("new", name="portal")
    assert airflow.actions() == {"new": "failed"}
    assert airflow.actions(delete=True, dry_run=True) == {"old": "deleted", "new": "created"}
    assert airflow.actions(delete=True) == {"old": "deleted", "new": "created"}
    assert set(kept(fake)) == {"portal"}


def test_a_listed_connection_that_is_not_found_keeps_its_credential(fake: FakeSkyvern, airflow: Airflow) -> None:
    airflow.store("portal")
    airflow.store("bank")
    airflow.sync()
    airflow.connections.clear()  # as Airflow shows it while its secrets backend is away
    assert airflow.actions("portal", "bank", delete=True) == {"portal": "failed", "bank": "failed"}
    assert set(kept(fake)) == {"portal", "bank"}


@pytest.mark.parametrize("other", [{"installation": "https://other.example.com"}, {"scope": "weekly"}])
def test_another_airflow_and_another_list_are_never_deleted(
    fake: FakeSkyvern, airflow: Airflow, other: dict[str, str]
) -> None:
    theirs = Owner(
        **{"installation": airflow.owner.installation, "scope": airflow.owner.scope, **other}, keys=("key",)
    )
    airflow.store("bank")
    airflow.sync(owner=theirs)
    airflow.store("portal")
    assert airflow.actions("portal", delete=True) == {"portal": "created"}
    assert airflow.actions("bank", delete=True, owner=theirs) == {"bank": "unchanged"}
    assert set(kept(fake)) == {"portal", "bank"}


def test_the_credential_of_another_airflow_is_not_rotated_but_refused(fake: FakeSkyvern, airflow: Airflow) -> None:
    airflow.store("portal")
    airflow.sync()
    airflow.store("portal", "of staging")
    [refused] = airflow.sync(owner=Owner("https://staging.example.com", "nightly", ("key",)), delete=True)
    assert "made by another Airflow from its connection portal" in str(refused.error)
    assert kept(fake)["portal"]["password"] == PASSWORD


def test_another_list_rotates_the_credential_which_stays_in_its_first_list(
    fake: FakeSkyvern, airflow: Airflow
) -> None:
    airflow.store("portal")
    airflow.sync()
    weekly = Owner(airflow.owner.installation, "weekly", ("key",))
    airflow.store("portal", "another")
    assert airflow.actions(owner=weekly) == {"portal": "rotated"}
    airflow.store("bank")
    assert airflow.actions("bank", owner=weekly, delete=True) == {"bank": "created"}
    assert set(kept(fake)) == {"portal", "bank"}


def test_a_dry_run_finds_out_everything_and_changes_nothing(fake: FakeSkyvern, airflow: Airflow) -> None:
    airflow.store("same")
    airflow.store("changed")
    airflow.store("gone")
    airflow.sync()
    before = writes(fake)
    del airflow.connections["gone"]
    airflow.store("changed", "another")
    airflow.store("new")
    expected = {"gone": "deleted", "same": "unchanged", "changed": "rotated", "new": "created"}
    assert airflow.actions(delete=True, dry_run=True) == expected
    assert writes(fake) == before
    assert airflow.actions(delete=True) == expected


def test_a_vault_that_fails_for_one_does_not_stop_the_others(fake: FakeSkyvern, airflow: Airflow) -> None:
    for conn_id in ("portal", "bank", "shop"):
        airflow.store(conn_id)
    fake.next("POST", LIST, BROKEN)
    outcomes = airflow.sync()
    assert [one.action for one in outcomes] == ["failed", "created", "created"]
    assert isinstance(outcomes[0].error, SkyvernServerError)
    assert PASSWORD not in str(outcomes[0].error)
    assert "***" in str(outcomes[0].error)
    assert airflow.actions() == {"portal": "created", "bank": "unchanged", "shop": "unchanged"}


def test_what_cannot_be_listed_changes_nothing(fake: FakeSkyvern, airflow: Airflow) -> None:
    airflow.store("portal")
    fake.next("GET", LIST, *[BROKEN] * 5)
    with pytest.raises(SkyvernServerError):
        airflow.sync()
    assert writes(fake) == []


def test_an_empty_list_deletes_nothing(fake: FakeSkyvern, airflow: Airflow) -> None:
    airflow.store("portal")
    airflow.sync()
    with pytest.raises(SkyvernConfigError, match="connections: is empty"):
        list(Sync(airflow.client.send, airflow.owner, airflow.read, delete=True).run([]))
    assert set(kept(fake)) == {"portal"}


# Interruptions: whatever a step leaves, the next sync ends it.

LOST = httpx.ReadTimeout("lost")


def test_a_credential_whose_mark_did_not_come_is_finished_by_the_next_sync(
    fake: FakeSkyvern, airflow: Airflow
) -> None:
    airflow.store("portal")
    fake.next("PATCH", ONE, *[BROKEN] * 5)
    assert airflow.actions() == {"portal": "failed"}
    assert "portal" not in kept(fake)
    [left] = fake.credentials
    [done] = airflow.sync()
    assert (done.action, done.credential_id) == ("rotated", left)
    assert kept(fake) == {"portal": {"username": "me", "password": PASSWORD}}
    assert airflow.actions() == {"portal": "unchanged"}


def test_an_unfinished_credential_is_found_again_after_each_further_interruption(
    fake: FakeSkyvern, airflow: Airflow
) -> None:
    airflow.store("portal")
    fake.next("PATCH", ONE, *[BROKEN] * 10)
    for _ in range(2):
        assert airflow.actions() == {"portal": "failed"}
    assert len(fake.credentials) == 1
    assert airflow.actions() == {"portal": "rotated"}


def test_an_unfinished_credential_of_a_removed_connection_is_deleted(fake: FakeSkyvern, airflow: Airflow) -> None:
    airflow.store("portal")
    fake.next("PATCH", ONE, *[BROKEN] * 5)
    airflow.sync()
    airflow.store("bank")
    assert airflow.actions("bank", delete=True) == {"portal": "deleted", "bank": "created"}


def test_a_rotation_whose_last_step_is_lost_is_not_taken_for_the_secret_before(
    fake: FakeSkyvern, airflow: Airflow
) -> None:
    airflow.store("portal")
    airflow.sync()
    airflow.store("portal", "another")
    sent = len(fake.sent("PATCH", ONE))
    original = fake.handle

    def second_patch_is_lost(request: httpx.Request) -> httpx.Response:
        if request.method == "PATCH" and len(fake.sent("PATCH", ONE)) > sent:
            raise httpx.ReadTimeout("lost", request=request)
        return original(request)

    transport = httpx.MockTransport(second_patch_is_lost)
    with SkyvernClient(Settings(API_KEY), transport=transport, sleep=lambda _: None) as client:
        [lost] = Sync(client.send, airflow.owner, airflow.read).run(["portal"])
    assert lost.action == "failed"
    assert kept(fake)["portal"]["password"] == "another"
    airflow.store("portal")  # as it was before
    assert airflow.actions() == {"portal": "rotated"}
    assert kept(fake)["portal"]["password"] == PASSWORD


def test_twins_of_two_syncs_at_once_are_named_and_only_delete_removes_the_newer_one(
    fake: FakeSkyvern, airflow: Airflow
) -> None:
    airflow.store("portal")
    [first] = airflow.sync()
    [made] = fake.credentials.values()
    second = by_hand(airflow, "portal")
    fake.credentials[second].user_context = made.user_context
    [refused] = airflow.sync()
    assert f"{second}, {first.credential_id}" in str(refused.error)
    [unchanged] = airflow.sync(delete=True)
    assert (unchanged.action, [*fake.credentials]) == ("unchanged", [first.credential_id])


def test_a_server_that_keeps_no_mark_is_left_without_a_credential(fake: FakeSkyvern, airflow: Airflow) -> None:
    airflow.store("portal")
    original = fake.handle

    def forgetful(request: httpx.Request) -> httpx.Response:
        answer = original(request)
        if request.method == "PATCH":
            return httpx.Response(200, json={**answer.json(), "user_context": None})
        return answer

    with SkyvernClient(Settings(API_KEY), transport=httpx.MockTransport(forgetful)) as client:
        [refused] = Sync(client.send, airflow.owner, airflow.read).run(["portal"])
    assert "Use a newer Skyvern" in str(refused.error)
    assert fake.credentials == {}


def test_a_credential_that_somebody_deletes_meanwhile_fails_and_is_made_again(
    fake: FakeSkyvern, airflow: Airflow
) -> None:
    airflow.store("portal")
    airflow.sync()
    airflow.store("portal", "another")
    gone = httpx.Response(404, json={"detail": "Credential not found, credential_id=cred_1"})
    fake.next("POST", UPDATE, gone)
    assert airflow.actions() == {"portal": "failed"}
    fake.credentials.clear()
    assert airflow.actions() == {"portal": "created"}


# The mark.


def test_the_mark_names_airflow_and_connection_and_holds_nothing_to_guess_by(
    fake: FakeSkyvern, airflow: Airflow
) -> None:
    airflow.store("portal")
    airflow.store("twin", name="twin")
    airflow.sync()
    first, second = (one.user_context or "" for one in fake.credentials.values())
    assert first.startswith(
        "Kept by Airflow (https://airflow.example.com) from its connection portal: edit it there.\n"
    )
    assert PASSWORD not in first + second
    prints = [json.loads(text.partition("airflow-credential: ")[2])["fingerprint"] for text in (first, second)]
    assert prints[0] != prints[1]  # of the same login and password


@pytest.mark.parametrize("keys", [("new", "key"), ("key",), ("key", "old")])
def test_while_airflows_key_is_rotated_everything_stays_untouched(airflow: Airflow, keys: tuple[str, ...]) -> None:
    airflow.store("portal")
    airflow.sync()
    rotating = Owner(airflow.owner.installation, airflow.owner.scope, keys)
    assert airflow.actions(owner=rotating) == {"portal": "unchanged"}


@pytest.mark.slow
@pytest.mark.parametrize("keys", [("new",), ()])
def test_another_key_rotates_once(airflow: Airflow, keys: tuple[str, ...]) -> None:
    airflow.store("portal")
    airflow.sync()
    other = Owner(airflow.owner.installation, airflow.owner.scope, keys)
    assert airflow.actions(owner=other) == {"portal": "rotated"}
    assert airflow.actions(owner=other) == {"portal": "unchanged"}


@pytest.mark.parametrize(
    "context",
    [
        None,
        "",
        "click SSO first",
        "\nairflow-credential: ",
        "\nairflow-credential: []",
        "\nairflow-credential: {}",
        '\nairflow-credential: {"owner": 1, "scope": "s", "conn_id": "c", "salt": "", "fingerprint": ""}',
        '\nairflow-credential: {"owner": ["x"]',
        "\nairflow-credential: null",
        "\nairflow-credential: " + "[" * 9000,
    ],
)
def test_a_text_that_is_no_mark_makes_a_credential_nobodys(
    fake: FakeSkyvern, airflow: Airflow, context: str | None
) -> None:
    theirs = by_hand(airflow, "portal")
    fake.credentials[theirs].user_context = context
    [listed] = airflow.client.send(credential_api.list_credentials())
    assert Mark.of(listed) is None


def test_the_longest_connection_id_fits_and_a_longer_one_is_refused(fake: FakeSkyvern, airflow: Airflow) -> None:
    owner = Owner("https://" + "a" * 500, "nightly " * 99, ("key",))
    airflow.store("c" * 250)
    airflow.store("d" * 251)
    assert [one.action for one in airflow.sync(owner=owner)] == ["created", "failed"]
    [made] = fake.credentials.values()
    assert len(made.user_context or "") <= LONGEST_CONTEXT
    assert airflow.actions("c" * 250, owner=owner) == {"c" * 250: "unchanged"}


# What a connection says.


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (("generic", "me", None, None), "password is missing or empty"),
        (("generic", "me", "  ", None), "password is missing or empty"),
        (("generic", None, PASSWORD, None), "username is missing or empty"),
        (("generic", "me", PASSWORD, "{"), "extra: is not JSON"),
        (("generic", "me", PASSWORD, '{"skyvern_credential": 5}'), "must be a mapping"),
        (("generic", "me", PASSWORD, '{"skyvern_credential": {"type": "zebra-passphrase-7"}}'), "type: is unknown"),
        (("generic", "me", PASSWORD, '{"skyvern_credential": {"type": ["secret"]}}'), "type: is unknown"),
        (("generic", "me", PASSWORD, '{"skyvern_credential": {"name": ""}}'), "name: must be a text"),
        (("generic", "me", PASSWORD, '{"skyvern_credential": {"pin": "1"}}'), "pin is unknown"),
        (("generic", "me", PASSWORD, '{"skyvern_credential": {"totp": 123}}'), "totp must be a text"),
        (("generic", "me", PASSWORD, '{"skyvern_credential": {"metadata": "x"}}'), "metadata must be a mapping"),
        (("generic", "A B", PASSWORD, '{"skyvern_credential": {"type": "credit_card"}}'), "card_cvv is missing"),
        (("skyvern", None, PASSWORD, None), "its password is the API key"),
    ],
)
def test_a_connection_that_says_too_little_or_what_nobody_knows_is_refused_without_its_values(
    said: tuple[Any, ...], complaint: str
) -> None:
    with pytest.raises(SkyvernConfigError) as caught:
        wanted_from("portal", *said)
    assert complaint in str(caught.value)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("odd", ["\0", "\ud800"], ids=ascii)
@pytest.mark.parametrize("where", ["password", "login", "name"])
def test_a_text_that_no_server_can_store_is_refused_and_the_others_are_done(
    fake: FakeSkyvern, airflow: Airflow, where: str, odd: str
) -> None:
    airflow.store("odd", **{where: f"{PASSWORD}{odd}"})
    airflow.store("fine")
    refused, fine = airflow.sync()
    assert "has a character that no server can store" in str(refused.error)
    assert (where == "name") == (PASSWORD in str(refused.error))
    assert fine.action == "created"
    assert list(kept(fake)) == ["fine"]


@pytest.mark.parametrize(
    "odd",
    ["ü€🙂", "quote\"'\\", "new\nline", "{{ 7*7 }}", "%s%d", " spaces ", "<b>", "\u202e", "x" * 5000],
    ids=ascii,
)
@pytest.mark.parametrize("where", ["password", "login", "name"])
def test_any_other_text_arrives_as_it_is(fake: FakeSkyvern, airflow: Airflow, where: str, odd: str) -> None:
    airflow.store("odd", **{where: odd})
    assert airflow.actions() == {"odd": "created"}
    [(name, content)] = kept(fake).items()
    assert odd.strip() == name if where == "name" else odd in content.values()
    assert airflow.actions() == {"odd": "unchanged"}


def test_a_card_and_a_secret_are_made_too(fake: FakeSkyvern, airflow: Airflow) -> None:
    card = {"card_cvv": "123", "card_exp_month": "10", "card_exp_year": "2030", "card_brand": "visa"}
    airflow.store("card", "4111111111111111", "A B", type="credit_card", **card)
    airflow.store("token", type="secret")
    assert airflow.actions() == {"card": "created", "token": "created"}
    assert kept(fake) == {
        "card": {"card_number": "4111111111111111", "card_holder_name": "A B", **card},
        "token": {"secret_value": PASSWORD, "secret_label": "me"},
    }
    assert airflow.actions() == {"card": "unchanged", "token": "unchanged"}


def test_nothing_that_is_printed_of_them_is_secret(airflow: Airflow) -> None:
    airflow.store("portal", totp="JBSWY3DPEHPK3PXP")
    wanted = airflow.read("portal")
    call = credential_api.create_credential(wanted.name, wanted.credential_type, wanted.content)
    shown = repr((wanted, call, airflow.owner, airflow.sync()))
    assert not any(secret in shown for secret in (PASSWORD, "JBSWY3DPEHPK3PXP", "'key'"))


@pytest.mark.parametrize("status", [400, 422, 500, 502])
@pytest.mark.parametrize("secret", [PASSWORD, 'qu"ote\\ü', "line\nbreak"])
def test_no_error_repeats_what_a_server_or_its_vault_echoes(
    fake: FakeSkyvern, airflow: Airflow, status: int, secret: str
) -> None:
    login = {"username": "me", "password": secret, "metadata": {"pin": "98765"}}
    fake.next("POST", LIST, httpx.Response(status, json={"detail": f"vault refuses {secret} and 98765"}))
    with pytest.raises(SkyvernError) as caught:
        airflow.client.send(credential_api.create_credential("portal", "password", login))
    assert "vault refuses *** and ***" in str(caught.value)
