"""Masks the secrets of an output before it is pushed, written or logged."""

from __future__ import annotations

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
        """
        Return the value with ``***`` in the place of each secret.

        Lists and mappings are changed in place: a copy of a large output would cost a third of its memory again.
        """
        if isinstance(value, str):
            return self._masked_text(value)
        if isinstance(value, dict):
            self._mask_mapping(value)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                value[index] = self.masked(item)
        return value

    def _masked_text(self, text: str) -> str:
        return str(self._redact(masked_text(text)))

    def _mask_mapping(self, value: dict[str, Any]) -> None:
        secret_entry = "value" in value and self._names_secret(value.get("name", value.get("key")))
        for name, item in value.items():
            secret = self._names_secret(name) or (secret_entry and name == "value")
            value[name] = _hidden(item) if secret else self.masked(item)
        for name in [name for name in value if self._masked_name(name) != name]:
            value[_free(self._masked_name(name), value)] = value.pop(name)

    def _names_secret(self, name: Any) -> bool:
        if not isinstance(name, str):  # the "name" of an entry may be anything
            return False
        return certainly_names_secret(name) or any(part in name.lower() for part in self._names)


def _hidden(value: Any) -> Any:
    """Mask everything below a name that says it is a secret; what is empty, a flag or a Skyvern id is none."""
    if isinstance(value, dict):
        return {name: _hidden(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_hidden(item) for item in value]
    if value in (None, "") or isinstance(value, bool) or REFERENCE.match(str(value)):
        return value
    return MASK


def _free(name: str, taken: dict[str, Any]) -> str:
    """Keep two names that differ only in what is masked apart."""
    return name if name not in taken else f"{name} ({len(taken)})"
