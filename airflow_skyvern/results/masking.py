"""Masks the secrets of an output before it is pushed, written or logged."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from airflow_skyvern import compat
from airflow_skyvern.secret_values import MASK, REFERENCE, certainly_names_secret, masked_text


class OutputMasker:
    """
    Masks what a block echoes: request headers, cookies, keys in addresses and forms, signed addresses.

    The structure stays, and of a text all but the secret. What is masked: what stands under a name of
    :func:`~airflow_skyvern.secret_values.certainly_names_secret` or of Airflow's ``[core] sensitive_var_conn_names``,
    what a text shows to be a secret, and what Airflow knows as one, such as the passwords of connections.
    """

    def __init__(self) -> None:
        self._names = compat.sensitive_names()
        self._redact = compat.redactor()
        self._masked_name = lru_cache(maxsize=4096)(self._masked_text)

    def masked(self, value: Any) -> Any:
        """Return the value with ``***`` in the place of each secret."""
        if isinstance(value, str):
            return self._masked_text(value)
        if isinstance(value, Mapping):
            return self._masked_mapping(value)
        if isinstance(value, list | tuple):
            return [self.masked(item) for item in value]
        return value

    def _masked_text(self, text: str) -> str:
        return str(self._redact(masked_text(text)))

    def _masked_mapping(self, value: Mapping[Any, Any]) -> dict[str, Any]:
        secret_entry = "value" in value and self._names_secret(value.get("name", value.get("key")))
        masked: dict[str, Any] = {}
        for name, item in value.items():
            secret = self._names_secret(name) or (secret_entry and name == "value")
            masked[_free(self._masked_name(str(name)), masked)] = _hidden(item) if secret else self.masked(item)
        return masked

    def _names_secret(self, name: Any) -> bool:
        if not isinstance(name, str):
            return False
        return certainly_names_secret(name) or any(part in name.lower() for part in self._names)


def _hidden(value: Any) -> Any:
    """Mask everything below a name that says it is a secret; what is empty, a flag or a Skyvern id is none."""
    if isinstance(value, Mapping):
        return {name: _hidden(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(item) for item in value]
    if value in (None, "") or isinstance(value, bool) or REFERENCE.match(str(value)):
        return value
    return MASK


def _free(name: str, taken: Mapping[str, Any]) -> str:
    """Keep two names that differ only in what is masked apart."""
    return name if name not in taken else f"{name} ({len(taken)})"
