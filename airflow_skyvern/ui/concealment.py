"""What a page must not show of a run: the values of secret parameters, and what was typed into forms."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from airflow_skyvern import compat
from airflow_skyvern.secret_values import MASK, looks_secret, masked_text

SHORTEST = 4
"""A shorter text is no secret that could be found again: masking it would tear words apart."""

LONGEST_TEXT = 2000
"""Characters of a text on a page."""


class Concealment:
    """
    Masks secrets in everything that a page shows of one run.

    Skyvern puts values of parameters, and what it types, into descriptions, reasons and errors. So the values of
    parameters whose names or contents say that they are secret are masked wherever they stand, and so is every text
    that was typed.

    :param parameters: The parameters of the run.
    :param typed: The texts that its actions typed.
    """

    def __init__(self, parameters: Mapping[str, Any], typed: Iterable[str]) -> None:
        self._names = compat.sensitive_names()
        secrets = {*self._secrets_in(parameters), *typed}
        self._secrets = sorted((text for text in secrets if len(text) >= SHORTEST), key=len, reverse=True)

    def text(self, value: Any) -> str:
        """Return a text as a page may show it: masked, and not endless."""
        text = str(value or "")[: 4 * LONGEST_TEXT]
        for secret in self._secrets:
            text = text.replace(secret, MASK)
        text = masked_text(text)
        return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} …"

    def parameter(self, name: str, value: Any) -> str:
        """Return the value of a parameter as a page may show it."""
        if self._is_secret(name, value):
            return MASK
        shown = self._masked(value)
        return self.text(shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False, default=str))

    def _masked(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {
                name: MASK if self._is_secret(str(name), item) else self._masked(item) for name, item in value.items()
            }
        return [self._masked(item) for item in value] if isinstance(value, list) else value

    def _secrets_in(self, value: Any, name: str = "") -> Iterator[str]:
        if isinstance(value, Mapping):
            for key, item in value.items():
                yield from self._secrets_in(item, str(key) if not self._is_secret(name, "x") else name)
        elif isinstance(value, list):
            for item in value:
                yield from self._secrets_in(item, name)
        elif name and self._is_secret(name, value):
            yield str(value)

    def _is_secret(self, name: str, value: Any) -> bool:
        lower = name.lower()
        if any(part in lower for part in self._names):
            return value not in (None, "", True, False)
        return looks_secret(name, "x" if isinstance(value, Mapping | list) and value else value)


def web_address(text: Any) -> str | None:
    """Return an address that a page may link to: anything but http runs as a script in Airflow's page."""
    if not isinstance(text, str):
        return None
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    return text if parts.scheme in ("http", "https") and parts.hostname else None
