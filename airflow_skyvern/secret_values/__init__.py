"""
Decides which names and values are secrets, for schedule files, which omit them, and for masking outputs and messages.

A file omits anything that may be a secret, as a person completes it. In an output only certain secrets may be masked,
as the rest is the data that the run was for: ``secretary``, ``token_count`` and ``iban`` stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from airflow_skyvern.secret_values.forms import MASK, PLACEHOLDER, REFERENCE, STATES, is_data
from airflow_skyvern.secret_values.names import IN_QUERY, Place, is_for_passwords, is_secret, kind_of, names_secret
from airflow_skyvern.secret_values.structures import Walk
from airflow_skyvern.secret_values.texts import masked_text

__all__ = [
    "MASK",
    "REFERENCE",
    "Place",
    "Walk",
    "is_secret",
    "looks_secret",
    "masked_text",
    "names_secret",
    "secrets_in",
]

IN_ADDRESS = re.compile(r"[?&](?P<name>[\w.-]{1,64})=(?P<value>[^&#\s]+)")

SECRET_VALUE = re.compile(
    r"^(bearer|basic)\s+\S+|^eyJ[\w-]+\.[\w-]+|^(sk|pk|rk|ghp|gho|xox[a-z]|AKIA|AIza)[-_A-Za-z0-9]{12,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY|://[^/\s:@]+:[^/\s@]+@",
    re.IGNORECASE,
)


def looks_secret(name: str, value: Any) -> bool:
    """Return whether a parameter should be kept out of files, by its name or its value."""
    if isinstance(value, dict | list | bool) or value in (None, ""):
        return False
    text = str(value)
    if REFERENCE.match(text):
        return False
    return names_secret(name) or bool(SECRET_VALUE.search(text))


def secrets_in(value: Any, name: str = "") -> Iterator[str]:
    """
    Yield the secrets in what a task sends, recognized by their names or by their form.

    :param name: The name of the value.
    """
    search = _Search()
    search.walk(value, name)
    yield from search.found


def _is_sent_as_secret(name: str, value: str) -> bool:
    """Return whether a text given by a task's author is a secret: a password may be a word, or have spaces."""
    if kind_of(name) == "certain" and is_for_passwords(name):
        return (
            len(value) > 1
            and value.casefold() not in STATES
            and not (REFERENCE.match(value) or PLACEHOLDER.match(value))
        )
    return bool(kind_of(name)) and not (is_data(value) or value.isalpha() or " " in value)


def _is_sent_in_address(name: str, value: str) -> bool:
    """Return whether a task's address holds a secret there, as ``totp_url?key=`` does: it may consist of words."""
    named = bool(kind_of(name) or IN_QUERY.match(name))
    return named and len(value) >= 8 and not (is_data(value) or value.isalpha() or value.isdigit())  # noqa: PLR2004


class _Search(Walk):
    """Collects secrets, and changes nothing."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def text(self, value: str, name: str, place: Place) -> str:
        """Collect a value under a secret's name, if it is not a word; from other texts, the secrets within."""
        if is_secret(name, value, place) or _is_sent_as_secret(name, value):
            self.found.append(value)
        else:
            masked_text(value, self.found)
            self.found += [
                found["value"] for found in IN_ADDRESS.finditer(value) if _is_sent_in_address(**found.groupdict())
            ]
        return value
