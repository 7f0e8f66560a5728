"""Checks a credential before it is sent: Skyvern accepts a login without a password."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_skyvern.exceptions import SkyvernConfigError

NEEDED: dict[str, tuple[str, ...]] = {
    "password": ("username", "password"),
    "credit_card": (
        "card_number",
        "card_cvv",
        "card_exp_month",
        "card_exp_year",
        "card_brand",
        "card_holder_name",
    ),
    "secret": ("secret_value",),
}
ALLOWED: dict[str, frozenset[str]] = {
    "password": frozenset({*NEEDED["password"], "totp", "totp_type", "totp_identifier", "metadata"}),
    "credit_card": frozenset(
        {*NEEDED["credit_card"], "billing_address", "billing_email", "billing_phone", "metadata"}
    ),
    "secret": frozenset({*NEEDED["secret"], "secret_label"}),
}
MAPPINGS = frozenset({"metadata", "billing_address"})
"""The fields that are mappings of texts; all others are texts."""

SHOWN = frozenset({"username", "totp_type", "totp_identifier", "secret_label", "card_brand"})
"""The fields that Skyvern itself shows; all others are secret."""

UNSTORABLE = re.compile("[\\0\ud800-\udfff]")
"""NUL, which PostgreSQL refuses, and halves of pairs, which no request can hold."""

SHORTEST_SECRET = 3
"""The shortest value that is masked within other texts: a CVV has three digits."""


def check_credential(name: str, credential_type: str, credential: Mapping[str, Any]) -> None:
    """
    Check a credential; no message repeats a value.

    :raises SkyvernConfigError: names what is missing, empty, unknown, or of another type.
    """
    if not name.strip():
        raise SkyvernConfigError("credential: name is empty.")
    if credential_type not in NEEDED:
        raise SkyvernConfigError(f"credential {name!r}: credential_type must be one of {', '.join(NEEDED)}.")
    for field in NEEDED[credential_type]:
        if _is_blank(credential.get(field)):
            raise SkyvernConfigError(f"credential {name!r}: {field} is missing or empty.")
    if unknown := sorted(map(str, set(credential) - ALLOWED[credential_type])):
        known = ", ".join(sorted(ALLOWED[credential_type]))
        raise SkyvernConfigError(f"credential {name!r}: {', '.join(unknown)} is unknown; known: {known}.")
    for field, value in {"name": name, **credential}.items():
        if any(map(UNSTORABLE.search, _texts(value))):
            raise SkyvernConfigError(f"credential {name!a}: {field} has a character that no server can store.")
        if value is not None and not isinstance(value, Mapping if field in MAPPINGS else str):
            kind = "a mapping" if field in MAPPINGS else "a text"
            raise SkyvernConfigError(f"credential {name!r}: {field} must be {kind}.")


def check_code(totp_identifier: str, content: str) -> None:
    """
    Check a code for a login; no message repeats it.

    :raises SkyvernConfigError: names what is missing or empty.
    """
    for field, value in {"totp_identifier": totp_identifier, "content": content}.items():
        if _is_blank(value):
            raise SkyvernConfigError(f"code for a login: {field} is missing or empty.")


def as_typed(text: str) -> str:
    """Return a code without the spaces and hyphens that people read it with; any other message as it is."""
    compact = re.sub(r"[\s-]", "", text)
    return compact if compact.isascii() and compact.isdigit() else text.strip()


def secrets_of(credential: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the values of a credential that nothing may repeat."""
    hidden = (value for field, value in credential.items() if field not in SHOWN)
    return tuple(text for value in hidden for text in _texts(value) if len(text) >= SHORTEST_SECRET)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)


def _is_blank(value: Any) -> bool:
    return not (isinstance(value, str) and value.strip())
