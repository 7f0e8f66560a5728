"""Masks the secrets of an output before it is pushed, written or logged."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from airflow_skyvern.compat import internals, since_3_1
from airflow_skyvern.secret_values import (
    MASK,
    REFERENCE,
    certainly_names_secret,
    is_header_of_secret,
    masked_text,
)

PLURALS = frozenset({"cookies", "secrets", "tokens"})
"""Names of things in a row of data; no header and no field of a form is called so."""

RECORDS = frozenset({"authorization", "auth"})
"""Names of headers that are texts; data has objects under them."""

PAIR = 2


class OutputMasker:
    """
    Masks what a block echoes: request headers, cookies, keys in addresses and forms, signed addresses.

    The structure stays, and of a text all but the secret. What is masked: what stands under a name of
    :func:`~airflow_skyvern.secret_values.certainly_names_secret` or of Airflow's ``[core] sensitive_var_conn_names``,
    what a text shows to be a secret, and what Airflow knows as one, such as the passwords of connections.
    """

    def __init__(self) -> None:
        self._names = internals.sensitive_names()
        self._redact = since_3_1.redactor()
        self._masked_name = lru_cache(maxsize=4096)(self._masked_text)

    def masked(self, value: Any) -> Any:
        """
        Return the value with ``***`` in the place of each secret.

        Lists and mappings are changed in place: a copy of a large output would cost a third of its memory again.
        """
        if isinstance(value, str):
            return self._masked_text(value)
        if isinstance(value, dict):
            self._mask_mapping(value)
        elif isinstance(value, list):
            self._mask_list(value)
        return value

    def _masked_text(self, text: str) -> str:
        return str(self._redact(masked_text(text)))

    def _mask_mapping(self, value: dict[str, Any]) -> None:
        places = {str(name).lower(): name for name in value}
        entry = value.get(places.get("name", places.get("key", "")))
        secret_place = (
            places.get("value") if self._names_secret(entry) and str(entry).lower() not in PLURALS else None
        )
        for name, item in value.items():
            secret = name == secret_place or (self._names_secret(name) and not _is_record(name, item))
            value[name] = _hidden(item) if secret else self.masked(item)
        for name in [name for name in value if self._masked_name(name) != name]:
            value[_free(self._masked_name(name), value)] = value.pop(name)

    def _mask_list(self, value: list[Any]) -> None:
        """Mask the items; of a pair such as ``["X-Api-Key", "…"]``, a header, the second one."""
        header = len(value) == PAIR and isinstance(value[0], str) and is_header_of_secret(value[0])
        for index, item in enumerate(value):
            value[index] = _hidden(item) if header and index else self.masked(item)

    def _names_secret(self, name: Any) -> bool:
        if not isinstance(name, str):  # the "name" of an entry may be anything
            return False
        return certainly_names_secret(name) or any(part in name.lower() for part in self._names)


def _hidden(value: Any) -> Any:
    """Mask the texts below a name of a secret; what is empty, a number, a flag or a Skyvern id is none."""
    if isinstance(value, dict):
        return {name: _hidden(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_hidden(item) for item in value]
    return MASK if isinstance(value, str) and value and not REFERENCE.match(value) else value


def _is_record(name: str, value: Any) -> bool:
    """Tell an authorization as data has it, with a number and a date, from the header."""
    return isinstance(value, dict) and name.lower() in RECORDS


def _free(name: str, taken: dict[str, Any]) -> str:
    """Keep two names that differ only in what is masked apart."""
    return name if name not in taken else f"{name} ({len(taken)})"
