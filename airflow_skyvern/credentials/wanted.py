"""
What a connection of Airflow says of a credential.

It holds the login and password of the web site. Everything else is in its extra, under ``skyvern_credential``:
``name``, ``type``, and fields of Skyvern's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from airflow_skyvern.client.credential_check import check_credential, secrets_of
from airflow_skyvern.exceptions import SkyvernConfigError

if TYPE_CHECKING:
    from airflow_skyvern.client.credential_api import CredentialType

EXTRA = "skyvern_credential"
"""The key in a connection's extra."""

FROM_LOGIN = {"password": "username", "credit_card": "card_holder_name", "secret": "secret_label"}
FROM_PASSWORD = {"password": "password", "credit_card": "card_number", "secret": "secret_value"}
"""Which field of a credential the login and the password of a connection are, by the credential's type."""

SHOWN_AS = {"username": "username", "secret_label": "secret_label", "card_brand": "brand"}
"""What Skyvern shows of a credential as it was given: field → name in its answers."""

OF_SKYVERN = "skyvern"
"""The type of the connections whose password is Skyvern's own API key."""


@dataclass(frozen=True)
class Wanted:
    """
    A credential as a connection wants it.

    :param conn_id: The connection.
    :param name: Its name in Skyvern.
    :param content: Its fields, by Skyvern's names.
    """

    conn_id: str
    name: str
    credential_type: CredentialType
    content: Mapping[str, Any] = field(repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """The values of it that nothing may repeat."""
        return secrets_of(self.content)

    @property
    def compared(self) -> dict[str, Any]:
        """All of it that a change of is a reason to rotate."""
        return {"credential_type": self.credential_type, **self.content}

    @property
    def shown(self) -> dict[str, Any]:
        """What Skyvern shows of it, by the names that it has there."""
        shown = {name: self.content[mine] for mine, name in SHOWN_AS.items() if mine in self.content}
        return {**shown, "last_four": self.content["card_number"][-4:]} if "card_number" in self.content else shown


def wanted_from(
    conn_id: str, conn_type: str | None, login: str | None, password: str | None, extra: str | None
) -> Wanted:
    """
    Read what a connection says; no message repeats a value.

    :raises SkyvernConfigError: something is missing, empty or unknown.
    """
    if conn_type == OF_SKYVERN:
        raise SkyvernConfigError("is of type skyvern: its password is the API key of Skyvern, not of a web site.")
    settings = _settings(extra)
    name, kind = settings.pop("name", conn_id), settings.pop("type", "password")
    if not isinstance(name, str) or not name.strip():
        raise SkyvernConfigError(f"extra.{EXTRA}.name: must be a text, and not empty.")
    if not isinstance(kind, str) or kind not in FROM_PASSWORD:
        raise SkyvernConfigError(f"extra.{EXTRA}.type: is unknown; known: {', '.join(FROM_PASSWORD)}.")
    given = {FROM_LOGIN[kind]: login, FROM_PASSWORD[kind]: password}
    content = {**{field: value for field, value in given.items() if value}, **settings}
    check_credential(name, kind, content)
    return Wanted(conn_id, name.strip(), cast("CredentialType", kind), content)


def _settings(extra: str | None) -> dict[str, Any]:
    try:
        known = json.loads(extra) if extra else {}
    except ValueError:
        raise SkyvernConfigError("extra: is not JSON.") from None
    settings = known.get(EXTRA, {}) if isinstance(known, Mapping) else {}
    if isinstance(settings, str):  # the form of a connection type may keep each of its fields as a text
        return _settings(json.dumps({EXTRA: _parsed(settings)}))
    if not isinstance(settings, Mapping):
        raise SkyvernConfigError(f"extra.{EXTRA}: must be a mapping.")
    return dict(settings)


def _parsed(text: str) -> Any:
    try:
        parsed = json.loads(text)
    except ValueError:
        parsed = None
    if not isinstance(parsed, Mapping):
        raise SkyvernConfigError(f"extra.{EXTRA}: must be a mapping.")
    return parsed
