"""Which of a schedule's parameters look like secrets, so that they do not end in a file."""

from __future__ import annotations

import re
from typing import Any

SECRET_NAME = re.compile(
    r"pass(wd|phrase|code)?s?$|password|pwd|secret|token|api_?key|access_?key|private_?key|auth(orization)?$|bearer"
    r"|cookie|credential|sess(ion)?_?id|(^|_)(pw|pass|otp|totp|pin|cvv|cvc|ssn|iban)\d*($|_)|card_?number",
    re.IGNORECASE,
)
SECRET_VALUE = re.compile(
    r"^(bearer|basic)\s+\S+|^eyJ[\w-]+\.[\w-]+|^(sk|pk|rk|ghp|gho|xox[a-z]|AKIA|AIza)[-_A-Za-z0-9]{12,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY|://[^/\s:@]+:[^/\s@]+@",
    re.IGNORECASE,
)
REFERENCE = re.compile(r"^(cred|azs|op|bp|pbs|wpid)_[\w-]+$")
"""Ids of things that Skyvern keeps: they name a secret and are none."""


def looks_secret(name: str, value: Any) -> bool:
    """Tell whether a parameter is better kept out of files: by its name, or by what it holds."""
    if isinstance(value, dict | list | bool) or value in (None, ""):
        return False
    text = str(value)
    if REFERENCE.match(text):
        return False
    return names_secret(name) or bool(SECRET_VALUE.search(text))


def names_secret(name: str) -> bool:
    """Tell whether a name is one that secrets have, in whatever spelling: ``api_key``, ``x-api-key``, ``apiKey``."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", name)
    return bool(SECRET_NAME.search(words))
