"""Whether a text under a name is a secret: by what the name says, and by what the text looks like."""

from __future__ import annotations

import re
from typing import Literal
from urllib.parse import unquote

from airflow_skyvern.secret_values.forms import (
    COOKIES,
    LONGEST_SECRET,
    SCHEME,
    is_base32,
    is_bearer_token,
    is_credentials_base64,
    is_data,
    is_mixed,
    is_one_time_code,
    is_random,
    is_uuid,
)
from airflow_skyvern.secret_values.names import COOKIE_NAME, is_for_passwords, is_header_only, kind_of, last_word

Place = Literal["", "entry", "headers", "cookies", "query", "login"]
"""
What a name and its value are part of: an object of data, an entry such as ``{"name": …, "value": …}``, the headers or
cookies of a request, the query of an address or the body of a form, or an object with a user's name beside it.
"""

SESSIONS = frozenset("session_id sessionid sess_id sessid sid session sess jsession_id jsessionid phpsessid".split())
IN_QUERY = re.compile(
    r"(?i)^(sig|signature|key|code|sid|session|hmac|ticket|assertion|pass|hash|auth|s|st|token|t|k|pwd|nonce|state|otp|"
    r"hdnea|hdnts|__gda__|tempauth|oobcode|policy|security|secret|samlresponse|samlrequest|relaystate|invite|"
    r"awsaccesskeyid|googleaccessid|ossaccesskeyid|key-pair-id|x-amz-credential|x-goog-credential)$"
)
"""Names that are secrets in an address, if their values look like it, and mean other things elsewhere."""

SIGNERS = re.compile(r"(?i)^(sig|awsaccesskeyid|googleaccessid|ossaccesskeyid|key-pair-id|x-(amz|goog)-credential)$")
"""Those of signed addresses, which have no other meaning."""

WHOLE_TOKEN = re.compile(r"^\S{4,}$")


def is_secret(name: str, text: str, place: Place = "") -> bool:
    """
    Return whether a text that stands under a name is a secret.

    What a name says is enough only where it cannot name data, as ``client_secret``; a ``token`` or a ``session_id``
    must look like a secret, too, and whatever is plainly data is none.
    """
    kind = kind_of(name)
    if not (kind or place) or not _may_be(text := text.strip()):
        return False
    if place in ("headers", "entry") and is_header_only(name):
        return _is_of_header(name, text, place)
    if place == "cookies":
        return bool(COOKIE_NAME.search(name)) or is_mixed(text) or is_random(text)
    if place == "query" and IN_QUERY.match(name) and kind != "certain":
        return _is_in_query(name, text)
    if kind == "possible":
        return _looks_like(last_word(name), text, place)
    return kind == "certain" and (is_for_passwords(name) or _is_whole(text))


def _is_whole(text: str) -> bool:
    """Return whether a text is one key or token: it has no spaces, unless it is a file of keys."""
    return not re.search(r"\s", text) or "-----BEGIN" in text or bool(COOKIES.match(text) or SCHEME.match(text))


def _may_be(text: str) -> bool:
    return bool(text) and len(text) <= LONGEST_SECRET and not is_data(text)


def _is_of_header(name: str, text: str, place: Place) -> bool:
    if place == "headers" or SCHEME.match(text):
        return place == "headers" or scheme_holds_secret(text)
    if "cookie" in name.lower():  # a row of data may be called so
        return bool(COOKIES.match(text)) or is_mixed(text)
    return is_mixed(text) or is_random(text) or _is_one_word(text) or kind_of(name) == "certain"


def _is_one_word(text: str) -> bool:
    return bool(re.fullmatch(r"[a-z]{4,}\d*", text))


def _is_in_query(name: str, text: str) -> bool:
    text = unquote(text)
    if SIGNERS.match(name) or is_random(text):
        return True
    if name.lower() == "code":  # of a login, or of an item
        return len(text) >= 16 and is_mixed(text)  # noqa: PLR2004
    if name.lower() in ("sid", "session", "key", "s", "t", "k", "st", "hash", "state", "ticket"):
        return is_mixed(text)
    return is_mixed(text) or (kind_of(name) == "possible" and len(text) >= 8 and not text.isalpha())  # noqa: PLR2004


def _looks_like(word: str, text: str, place: Place) -> bool:  # noqa: PLR0911  a line per meaning of a word
    """Return whether a text looks like what its name says that it may be."""
    if is_random(text):
        return True
    if word in SESSIONS:
        return False
    if word.endswith(("otp", "cvv", "cvc", "cvv2", "cvc2", "passcode", "code", "codes")):
        return is_one_time_code(text) or is_mixed(text) or (word.startswith("cv") and text.isdigit())
    if word.endswith(("cookie", "cookies")):
        return bool(COOKIES.match(text)) or is_mixed(text)
    if word.endswith(("authorization", "authentication", "auth", "bearer")):
        return _is_authorization(text)
    if word.endswith(("pass", "pw")):
        return is_mixed(text) or place == "login"
    if word.endswith(("phrase", "mnemonic")):
        return len(text.split()) >= 12  # noqa: PLR2004  as wallets have them
    return is_mixed(text) or is_base32(text) or (word.endswith("token") and is_uuid(text)) or place == "login"


def _is_authorization(text: str) -> bool:
    return (bool(SCHEME.match(text)) and scheme_holds_secret(text)) or is_mixed(text)


def scheme_holds_secret(text: str) -> bool:
    """Tell ``Bearer eyJ…`` and ``Basic dXNl…`` from "Basic plan", "Bearer bonds" and the number of one."""
    scheme, _, rest = text.strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "basic":
        return is_credentials_base64(rest) or is_mixed(rest)
    if "=" in rest and "," in rest:  # Digest, OAuth 1, AWS4-HMAC-SHA256
        return True
    return " " not in rest and is_bearer_token(rest.partition("=")[2].strip('"') or rest)
