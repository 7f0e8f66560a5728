"""
Which names and values are secrets: what a schedule's file leaves out, and what is masked in outputs and messages.

A file leaves out whatever may be a secret, as a person completes it. Of an output only what certainly is one may be
masked, as the rest is the data that the run was for: ``secretary``, ``token_count`` and ``iban`` stay.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from typing import Any

MASK = "***"
"""What Airflow's own masker puts in the place of a secret."""

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

CERTAIN_NAME = r"""(?x)
    (^|_) (
        password | passwd | passphrase | passcode | pwd | pw | (user|db|login|proxy|smtp|ftp)_?pass
      | (client_?)? secrets? | token | (access|refresh|auth|id|api|csrf|xsrf|session|bearer)_?tokens?
      | (api|access|private|secret|auth|account|subscription|functions|signing|encryption)_?keys?
      | authorization | auth | bearer | jwt | cookies? | (aws|google|gcp|azure|login|client)_?credentials?
      | sess(ion)?_?id | (j|php)sess(ion)?_?id | csrf | xsrf | otp | totp | cvv | cvc
      | (x_amz|x_goog|x_ms)_(signature|credential|security_token) | shared_access_signature
    ) (_? \d+ | _(value|hash|header|string|data|key|seed|confirmation|repeat|plain|raw))* $
"""
"""The secret is the last word of the name, as in ``client_secret``; in ``token_count`` it is not."""

QUERY_NAME = r"(?x) ^(sig|signature|key|code|sid|session|awsaccesskeyid|googleaccessid|hmac|ticket|assertion|pass)$"
"""Names that are secrets in the query of an address, and mean other things elsewhere."""

SHORTEST_CODE = 16
"""Characters of a code that a login sends in an address; that of an item is shorter."""

ASSIGNMENT = r"(?<![\w.%\[\]-])(?P<name>[\w.%\[\]-]{1,64})=(?P<value>[^&;#\s\"'<>\\]+)"
"""``name=value``, in the query of an address or in the body of a form."""

QUOTED = (
    r"(?P<quote>\\{0,3}[\"'])(?P<name>[\w.-]{1,64})(?P=quote)\s{0,4}:\s{0,4}(?P=quote)"
    r"(?P<value>(?:(?!(?P=quote))(?:\\.|[^\\]))+)"
)
"""``"name": "value"``: JSON, or a mapping as Python prints it, within a text."""

HEADER_NAME = r"(?i:(proxy-)?authorization|(set-)?cookie|x-api-key|x-[\w-]{1,40}-(token|key))"
HEADER = rf"(?<![\w-])(?P<name>{HEADER_NAME})(?P<between>\s{{0,4}}:\s{{0,4}})(?P<value>[^\r\n\"'}}\]]+)"
"""A line of a request's headers within a text."""

ALWAYS = r"""(?x)
    (?P<before> :// [^/\s:@"']{0,64} : ) [^/\s"'?\#<>]{1,512} (?=@)
  | (?<![\w.-]) eyJ[\w-]{8,} \. [\w-]{8,} (\.[\w-]*)?
  | (?<!\w) ( gh[pousr]_\w{20,} | github_pat_\w{20,} | glpat-[\w-]{16,} | xox[abeprs]-[\w-]{10,} | AKIA[0-9A-Z]{16}
            | AIza[\w-]{30,} | (sk|rk)[-_](live|test|proj|ant|or)[-_][\w-]{12,} | sk-\w{32,} ) (?!\w)
  | -----BEGIN[ ][A-Z ]*PRIVATE[ ]KEY-----  .*? (-----END[ ][A-Z ]*PRIVATE[ ]KEY----- | \Z)
"""
"""What shows by its form that it is a secret, wherever it stands."""

SIGNS = ("://", "eyJ", "-----BEGIN", "gh", "glpat-", "xox", "AKIA", "AIza", "sk-", "sk_", "rk-", "rk_")
"""One of these is in every text that :data:`ALWAYS` matches; to look for them first takes a tenth of the time."""

SCHEME = r"(?i)(?<![\w-])(?P<scheme>bearer|basic|token) {1,4}(?P<value>[\w.~+/-]{6,}={0,2})"


def looks_secret(name: str, value: Any) -> bool:
    """Return whether a parameter is better kept out of files: by its name, or by what it holds."""
    if isinstance(value, dict | list | bool) or value in (None, ""):
        return False
    text = str(value)
    if REFERENCE.match(text):
        return False
    return names_secret(name) or bool(SECRET_VALUE.search(text))


def names_secret(name: str) -> bool:
    """Return whether secrets have such a name, however it is spelled: ``api_key``, ``x-api-key``, ``apiKey``."""
    return bool(SECRET_NAME.search(_words(name)))


@lru_cache(maxsize=4096)
def certainly_names_secret(name: str) -> bool:
    """
    Return whether what stands under this name in an output is a secret, and not data that resembles one.

    A name has no spaces and no apostrophes: "Victoria's Secret" names a row of data.
    """
    return not re.search(r"[\s'\u2019]", name.strip()) and bool(
        _pattern(CERTAIN_NAME).search(_words(name).strip("_").lower())
    )


def secrets_in(value: Any, name: str = "") -> Iterator[str]:
    """
    Yield the texts that are secrets in what a task sends: by the names that they stand under, or by their form.

    :param name: What the value stands under.
    """
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from secrets_in(item, str(key))
        if isinstance(entry := value.get("name", value.get("key")), str) and "value" in value:
            yield from secrets_in(value["value"], entry)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from secrets_in(item, name)
    elif isinstance(value, str):
        if certainly_names_secret(name):
            yield from () if REFERENCE.match(value) else (value,)
        else:
            found: list[str] = []
            masked_text(value, found)
            yield from found


def secret_by_form(text: str) -> bool:
    """Return whether a secret stands in a text that shows by its form that it is one, whatever it is called."""
    return any(sign in text for sign in SIGNS) and bool(_pattern(ALWAYS).search(text))


def is_header_of_secret(name: str) -> bool:
    """Return whether a header of a request has this name, and a secret as its value."""
    return bool(_pattern(rf"(?:{HEADER_NAME})$").match(name))


def masked_text(text: str, found: list[str] | None = None) -> str:
    """
    Mask the secrets within a text, and nothing else of it.

    :param found: Gets each of them.

    These are secret values in the queries of addresses and in form bodies, passwords in addresses, headers such as
    Authorization and Cookie, entries of quoted JSON, and what shows by its form: bearer tokens, JWTs, private keys.
    """
    masks = _Masks([] if found is None else found)
    if any(sign in text for sign in SIGNS):
        text = _pattern(ALWAYS).sub(masks.by_form, text)
    if "=" in text:
        text = _pattern(ASSIGNMENT).sub(masks.assignment, text)
    if ":" in text:
        if '"' in text or "'" in text:
            text = _pattern(QUOTED).sub(masks.quoted, text)
        text = _pattern(HEADER).sub(masks.value, text)
    return _pattern(SCHEME).sub(masks.scheme, text) if " " in text else text


class _Masks:
    """What becomes of each place that may be a secret."""

    def __init__(self, found: list[str]) -> None:
        self._found = found

    def value(self, found: re.Match[str]) -> str:
        """Mask the value, and leave what stands around it."""
        self._found.append(found["value"])
        start, end = (place - found.start() for place in found.span("value"))
        return found[0][:start] + MASK + found[0][end:]

    def by_form(self, found: re.Match[str]) -> str:
        """Mask all but what leads to a password in an address."""
        before = found["before"] or ""
        self._found.append(found[0][len(before) :])
        return before + MASK

    def assignment(self, found: re.Match[str]) -> str:
        """Mask the value of a name, some names only in the query of an address."""
        name = found["name"].replace("%5B", "_").replace("%5D", "_")
        in_query = found.string.endswith(("?", "&", "&amp;"), 0, found.start())
        asked = in_query and bool(_pattern(QUERY_NAME).match(name.lower()))
        if asked and name.lower() == "code":  # of a login, or of an item
            asked = len(found["value"]) >= SHORTEST_CODE
        secret = certainly_names_secret(name) or asked
        return self.value(found) if secret else found[0]

    def quoted(self, found: re.Match[str]) -> str:
        """Mask the value of a name in JSON."""
        return self.value(found) if certainly_names_secret(found["name"]) else found[0]

    def scheme(self, found: re.Match[str]) -> str:
        """Mask credentials, and leave "basic authentication", "Bearer bonds" and the number of one."""
        is_secret = _is_base64_of_credentials if found["scheme"].lower() == "basic" else _is_mixed
        return self.value(found) if is_secret(found["value"]) else found[0]


def _is_mixed(value: str) -> bool:
    """Return whether a text has digits and letters: a number has no letters, and a word no digits."""
    return any(map(str.isdigit, value)) and any(map(str.isalpha, value))


def _is_base64_of_credentials(value: str) -> bool:
    try:
        return b":" in base64.b64decode(value, validate=True)
    except binascii.Error:
        return False


def _words(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", name)


@cache
def _pattern(text: str) -> re.Pattern[str]:
    """Compile at first use: this module is loaded when DAGs are parsed."""
    return re.compile(text, re.DOTALL)
