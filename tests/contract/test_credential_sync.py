"""A sync of credentials: the fake and a real server keep and show the same of it."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

import pytest

from airflow_skyvern.client import credential_api
from airflow_skyvern.credentials.mark import Owner
from airflow_skyvern.credentials.names import id_of
from airflow_skyvern.credentials.sync import Sync
from airflow_skyvern.credentials.wanted import Wanted
from airflow_skyvern.exceptions import SkyvernConfigError
from tests.support.cards import CARD

if TYPE_CHECKING:
    from tests.contract.conftest import Side

LOGIN = {"username": "Me@Example.com", "password": "zebra-passphrase-7", "totp": "JBSWY3DPEHPK3PXP"}
CONTENTS: list[tuple[Any, dict[str, Any], dict[str, Any]]] = [
    ("password", LOGIN, {**LOGIN, "password": "another-passphrase"}),
    ("password", {**LOGIN, "totp_identifier": "Me@Example.com", "totp_type": "email"}, LOGIN),
    ("credit_card", CARD, {**CARD, "card_cvv": "321"}),
    ("secret", {"secret_value": "zebra-passphrase-7", "secret_label": "token"}, {"secret_value": "another"}),
]


@pytest.mark.parametrize(("kind", "content", "changed"), CONTENTS, ids=["login", "mail code", "card", "secret"])
def test_each_kind_is_created_left_rotated_and_deleted_and_foreign_ones_stay(
    side: Side, kind: Any, content: dict[str, Any], changed: dict[str, Any]
) -> None:
    unique = uuid.uuid4().hex
    name, other, owner = f"portal {unique}", f"bank {unique}", Owner(unique, "nightly", ("key",))
    foreign = side.send(credential_api.create_credential(f"theirs {unique}", "secret", {"secret_value": "x" * 9}))

    def sync(wanted: dict[str, Any], *names: str, **options: bool) -> dict[str, str]:
        found = Sync(side.send, owner, lambda conn_id: Wanted(conn_id, conn_id, kind, wanted), **options).run(names)
        return {one.conn_id: str(one.error or one.action) for one in found}

    assert sync(content, name, other) == {name: "created", other: "created"}
    credential_id = id_of(side.send, name, "here")
    assert sync(content, name, other) == {name: "unchanged", other: "unchanged"}
    assert sync(changed, name) == {name: "rotated"}
    assert sync(changed, name) == {name: "unchanged"}
    assert id_of(side.send, name, "here") == credential_id
    assert sync(changed, name, delete=True) == {other: "deleted", name: "unchanged"}
    with pytest.raises(SkyvernConfigError, match="no credential of the name"):
        id_of(side.send, other, "here")
    refused = sync(changed, name, f"theirs {unique}")[f"theirs {unique}"]
    assert f"{foreign.credential_id} (made by a person" in refused
    assert side.send(credential_api.get_credential(foreign.credential_id)) == foreign
    side.send(credential_api.create_credential(name, "secret", {"secret_value": "x" * 9}))
    with pytest.raises(SkyvernConfigError, match=f"2 credentials of the name .*{credential_id}"):
        id_of(side.send, name, "here")
