"""Hides a run's secrets from its page: the values of secret parameters, and texts typed into password fields."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow_skyvern.compat import internals
from airflow_skyvern.secret_values import MASK, looks_secret, masked_text, names_secret

if TYPE_CHECKING:
    from airflow_skyvern.models import Action

SHORTEST = 3
"""Shorter texts are not masked: they occur by chance within words."""

SHORTEST_UNMISTAKABLE = 8
"""A text of letters and digits of at least this length does not occur in a sentence by chance."""

LONGEST_TEXT = 2000
"""Characters of a text on a page."""

INVISIBLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
"""Invisible characters, which may reverse the text around them: ``invoice_<U+202E>fdp.exe``."""

SAYS_SECRET = re.compile(
    r"\bpass(word|code|phrase|wd|key)s?\b|\bpwd\b|\bpin\b|\botps?\b|\btotp\b|one[- ]time|\b(2|m)fa\b|secret|\btoken\b"
    r"|(verification|security|authenticat\w+|access|login) code|\bcv[vc]2?\b|card number|api[ -]?key|\bssn\b"
    r"|passwor[td]|kennwort|contrase|mot de passe|\bsenha\b|wachtwoord",
    re.IGNORECASE,
)
"""The agent's words for a field whose content is secret."""

SECRET_FIELDS = frozenset({"current-password", "new-password", "one-time-code", "cc-number", "cc-csc"})
"""The values of the attribute ``autocomplete`` for such a field."""

OPEN_FIELDS = frozenset(
    {"email", "search", "url", "date", "datetime-local", "month", "time", "week", "color", "range"}
)
"""Types of fields that hold no secret."""


class Concealment:
    """
    Masks secrets in everything that a page shows of one run.

    Skyvern puts values of parameters, and typed texts, into descriptions, reasons and errors. So the values of
    parameters whose names or contents show that they are secret are masked there, and so are texts typed into a
    password field. Short ones are masked only as whole words, and never in a name: a password ``demo`` does not
    affect the block ``find_demo``.

    :param parameters: The parameters of the run.
    :param actions: The actions of its agent.
    """

    def __init__(self, parameters: Mapping[str, Any], actions: Iterable[Action] = ()) -> None:
        self._names = internals.sensitive_names()
        typed = (str(action.text).strip() for action in actions if types_secret(action))
        secrets = {text for text in (*self._secrets_in(parameters), *typed) if len(text) >= SHORTEST}
        unmistakable = {form for text in secrets if _is_unmistakable(text) for form in _spellings(text)}
        self._in_names = _any_of(unmistakable)
        self._in_texts = _any_of(unmistakable, whole_words=secrets)

    def text(self, value: Any) -> str:
        """Return a sentence for a page: masked, and limited in length."""
        return _shortened(self._masked_text(value, self._in_texts))

    def name(self, value: Any) -> str:
        """Return a title, a label, a code or the name of a file, with only certain secrets masked."""
        return _shortened(self._masked_text(value, self._in_names))

    def parameter(self, name: str, value: Any) -> str:
        """Return the value of a parameter, masked for a page."""
        if self._is_secret(name, value):
            return MASK
        shown = self._masked(value)
        return self.text(shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False, default=str))

    def _masked_text(self, value: Any, secrets: re.Pattern[str]) -> str:
        return masked_text(secrets.sub(MASK, visible(value)))

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


def types_secret(action: Action) -> bool:
    """
    Return whether the agent has typed a secret: judged by the field, else by the agent's words.

    Other typed texts (a customer's number, a month) are the subject of the run, and appear in its reasons.
    """
    if not action.text:
        return False
    attributes = _attributes_of(action)
    kind = str(attributes.get("type") or "").lower()
    if kind == "password" or SECRET_FIELDS & set(str(attributes.get("autocomplete") or "").lower().split()):
        return True
    named = [str(attributes.get(name) or "") for name in ("name", "id", "placeholder", "aria-label")]
    if any(names_secret(name) or SAYS_SECRET.search(name) for name in named):
        return True
    return kind not in OPEN_FIELDS and bool(SAYS_SECRET.search(_said_of(action)))


def _attributes_of(action: Action) -> Mapping[str, Any]:
    element = (action.model_extra or {}).get("skyvern_element_data")
    found = element.get("attributes") if isinstance(element, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _said_of(action: Action) -> str:
    context = (action.model_extra or {}).get("input_or_select_context")
    field = context.get("field") if isinstance(context, Mapping) else None
    return f"{field or ''} {action.intention or ''}".strip() or action.reasoning or ""


def visible(value: Any) -> str:
    """Return a text without invisible characters and characters that reverse others."""
    return INVISIBLE.sub("", str(value or "")[: 4 * LONGEST_TEXT])


def _is_unmistakable(secret: str) -> bool:
    kinds = (str.isalpha, str.isdigit, lambda character: not character.isalnum())
    mixed = sum(any(map(kind, secret)) for kind in kinds) > 1
    return mixed and len(secret) >= SHORTEST_UNMISTAKABLE and not re.search(r"\s", secret)


def _spellings(secret: str) -> set[str]:
    """Return the forms of a secret in a text: as it is, encoded in JSON, and encoded in an address."""
    return {secret, json.dumps(secret)[1:-1], quote(secret, safe="")}


def _any_of(anywhere: Iterable[str], *, whole_words: Iterable[str] = ()) -> re.Pattern[str]:
    """Return a pattern that finds any of these texts, the longest first."""
    found = {text: re.escape(text) for text in anywhere}
    found = {**{text: rf"(?<!\w){re.escape(text)}(?!\w)" for text in whole_words}, **found}
    return re.compile("|".join(found[text] for text in sorted(found, key=len, reverse=True)) or r"(?!)")


def _shortened(text: str) -> str:
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]} …"


def web_address(text: Any) -> str | None:
    """Return an address that a page may link to: anything but http could run as a script in Airflow's page."""
    if not isinstance(text, str):
        return None
    try:
        parts = urlsplit(text)
    except ValueError:
        return None
    return text if parts.scheme in ("http", "https") and parts.hostname else None
