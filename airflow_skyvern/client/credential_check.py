"""What a credential must have, checked before it is sent: Skyvern takes a login without a password."""

from __future__ import annotations

from collections.abc import Mapping
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


def check_credential(name: str, credential_type: str, credential: Mapping[str, Any]) -> None:
    """
    Check a credential; no message repeats a value.

    :raises SkyvernConfigError: names what is missing, empty, or unknown.
    """
    if not name.strip():
        raise SkyvernConfigError("credential: name is empty.")
    if credential_type not in NEEDED:
        raise SkyvernConfigError(f"credential {name!r}: credential_type must be one of {', '.join(NEEDED)}.")
    for field in NEEDED[credential_type]:
        if not (isinstance(value := credential.get(field), str) and value):
            raise SkyvernConfigError(f"credential {name!r}: {field} is missing or empty.")
    if unknown := sorted(set(credential) - ALLOWED[credential_type]):
        known = ", ".join(sorted(ALLOWED[credential_type]))
        raise SkyvernConfigError(f"credential {name!r}: {', '.join(unknown)} is unknown; known: {known}.")
