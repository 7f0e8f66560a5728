"""Decides whether a text under a name is a secret, by the name and by the form of the text."""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache
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
    is_made_up,
    is_mixed,
    is_one_time_code,
    is_random,
    is_uuid,
)

Kind = Literal["certain", "possible", ""]
"""Whether a name marks any value as a secret, only a value with a secret's form, or none."""

SECRET_NAME = re.compile(
    r"pass(wd|phrase|code)?s?$|password|pwd|secret|token|api_?key|access_?key|private_?key|auth(orization)?$|bearer"
    r"|cookie|credential|sess(ion)?_?id|(^|_)(pw|pass|otp|totp|pin|cvv|cvc|ssn|iban)\d*($|_)|card_?number",
    re.IGNORECASE,
)
"""Names of possible secrets, which a file omits; a person completes it."""

FOREIGN = (
    "passwort kennwort contrasena contrasenya mot_de_passe motdepasse senha palavra_passe wachtwoord haslo losenord "
    "salasana adgangskode passord heslo jelszo sifre kata_sandi mat_khau пароль гасло парола лозинка סיסמה סיסמא "
    "كلمة_المرور كلمة_السر 密码 密碼 口令 パスワード 暗証番号 비밀번호 암호 รหัสผ่าน κωδικος_προσβασης पासवर्ड"
).split()
"""Words for "password" in other languages, without accents."""

ENDING = r"(_?\d+|_(value|hash|header|string|data|seed|confirmation|confirm|repeat|again|plain|raw|text|current|new|old))*$"
"""Words that may follow the word for a secret: ``password_2``, ``client_secret_value``; not ``token_count``."""

CERTAIN = rf"""
    (^|_) (
        passwords? | passwd | passphrase | pwd | (pg|my|mysql|db|smtp|http|ftp|user|admin|root|redis|mongo|ssh|app|proxy|new|old)passw(or)?d | (user|db|login|proxy|smtp|ftp|admin|root|app|mail)_?(pass|pw|pwd)
      | {"|".join(FOREIGN)}
      | (client|app|consumer|shared|webhook|oauth2?|otp|totp|2fa|mfa|jwt|api|signing|user|account|application)_?secrets?
      | secret_?(access_?)?keys? | secret_?token
      | (access|refresh|auth|oauth2?|id|api|csrf|xsrf|session|bearer|security|login|reset|verification|bot|deploy|private
        |personal_access|admin|service|app|user|magic|csrfmiddleware|request_verification|authenticity)_?tokens?
      | x_?(auth|csrf|xsrf|amz_security|vault|access|goog_iam_authorization)_?tokens?
      | (x_)?api_?keys? | (private|master|storage|ssh|rsa|pgp|aes)_?keys? | (functions|shared_access|signing|encryption)_keys?
      | proxy_?authorization | set_?cookie2? | (otp|totp|mfa|2fa)_?(seed|uri|url)
      | (aws|azure)_?(secret|session)_?\w{{0,20}} | x_amz_(signature|credential|security_token) | x_goog_(signature|credential)
      | shared_access_signature | connection_?string_?(password|secret)
    ) {ENDING}
"""

POSSIBLE = rf"""
    (^|_) (
        pass | pw | passcode | passcodes | secrets? | tokens? | auth | authorization | authentication | bearer | jwt
      | cookies? | credentials? | (j|php)?sess(ion)?_?id | sid | csrf | xsrf | otp | totp | cvv2? | cvc2? | sess(ion)?
      | (access|account|auth|subscription|host|primary|secondary|user|license_api)_?keys? | signature | sig | hmac | nonce_secret
      | recovery_?codes? | backup_?codes? | seed_?phrase | mnemonic
    ) {ENDING}
"""

HEADER = re.compile(
    r"(?ix) ^ ( (proxy-)?authorization | authentication | (set-)?cookie2? | (x-)?api-?key | x-auth(-[\w-]+)? | [\w-]+-apikey"
    r"| [\w-]+-(api|auth|access|secret|master|functions|subscription|account|encryption|admin)-?key | (x|private|deploy|job)-[\w-]{1,40}-key"
    r"| ([\w-]+-)?(token|secret|password|passwd|signature|credentials?|authorization|session|session-?id|jwt|hmac)"
    r"| [\w-]+-auth )$"
)
"""Headers of a request whose values are secrets."""

HARMLESS_HEADER = re.compile(
    r"(?i)^(sec-websocket-|surrogate-|idempotency-|x-idempotency-|x-cache-|x-surrogate-|access-control-|x-request-)"
)

HTTP_HEADERS = frozenset(
    "accept accept-encoding accept-language access-control-allow-origin cache-control connection content-length "
    "content-type content-encoding date etag expires host last-modified location origin pragma referer server "
    "strict-transport-security transfer-encoding upgrade-insecure-requests user-agent vary x-forwarded-for "
    "x-requested-with x-request-id sec-fetch-mode sec-fetch-site sec-fetch-dest dnt if-none-match".split()
)
"""Headers without secrets, by which a list is known to be one of headers."""

COOKIE_NAME = re.compile(
    r"(?i)(^|[_.-])((php|j|asp\.?net_?|connect\.)?sess(ion)?(_?id)?|sid|auth\w*|token|jwt|csrf\w*|xsrf\w*|remember\w*|login|\.aspxauth)"
    r"([_.-]|$)|sess(ion)?id|session|auth|token$"
)

Place = Literal["", "entry", "headers", "cookies", "query", "login", "vault"]
"""
The place of a name and its value: an object of data, an entry such as ``{"name": …, "value": …}``, the headers or
cookies of a request, the query of an address or the body of a form, an object that also has a user's name, or one
declared to hold only secrets.
"""

SESSIONS = frozenset("session_id sessionid sess_id sessid sid session sess jsession_id jsessionid phpsessid".split())
IN_QUERY = re.compile(
    r"(?i)^(sig|signature|key|code|sid|session|hmac|ticket|assertion|pass|hash|auth|s|st|token|t|k|pwd|nonce|state|otp|"
    r"hdnea|hdnts|__gda__|tempauth|oobcode|policy|security|secret|samlresponse|samlrequest|relaystate|invite|"
    r"awsaccesskeyid|googleaccessid|ossaccesskeyid|key-pair-id|x-amz-credential|x-goog-credential)$"
)
"""Names that denote secrets in an address, if their values look like it, but mean other things elsewhere."""

SIGNERS = re.compile(r"(?i)^(sig|awsaccesskeyid|googleaccessid|ossaccesskeyid|key-pair-id|x-(amz|goog)-credential)$")
"""Names in signed addresses, which have no other meaning."""

USER_OPTIONS = ("-u", "--user", "--proxy-user", "-U", "--auth", "-a", "--basic-auth")
"""Options of commands that take a user's name and a password, and of others that take something else."""

OF_CLIENT = " of an HTTP client"
"""Suffix for an option's name in a program whose option takes nothing else."""

USER_AND_PASSWORD = re.compile(r"^[^\s:]{1,128}:\S+$")

WHOLE_TOKEN = re.compile(r"^\S{4,}$")


def names_secret(name: str) -> bool:
    """Return whether secrets have such a name, however it is spelled: ``api_key``, ``x-api-key``, ``apiKey``."""
    return bool(SECRET_NAME.search(words_of(name)))


@lru_cache(maxsize=4096)
def kind_of(name: str) -> Kind:
    """
    Return what a name says about its value.

    A name has no apostrophe, and few words: "Victoria's Secret" names a row of data.
    """
    name = name.strip()
    if len(name) > 80 or "'" in name or "\u2019" in name:  # noqa: PLR2004  no field is called so
        return ""
    words = words_of(name).strip("_").lower()
    if _pattern(CERTAIN).search(words):
        return "certain"
    if " " in name:  # "Session ID" of a conference, "Access Key" of a menu
        return ""
    return "possible" if _pattern(POSSIBLE).search(words) else ""


@lru_cache(maxsize=4096)
def is_header_of_secret(name: str) -> bool:
    """Return whether a header of a request has this name, and a secret as its value."""
    return bool(HEADER.match(name)) and not HARMLESS_HEADER.match(name)


def is_header_only(name: str) -> bool:
    """Return whether only headers have this name: ``X-Api-Key``, and not ``token``."""
    return is_header_of_secret(name) and ("-" in name or name.lower() in ("authorization", "cookie"))


@lru_cache(maxsize=4096)
def is_for_passwords(name: str) -> bool:
    """Return whether this name denotes a password, which a person types and which may have spaces."""
    return bool(re.search(r"pass|pwd|pw$", last_word(name))) or any(word in last_word(name) for word in FOREIGN)


@lru_cache(maxsize=4096)
def last_word(name: str) -> str:
    """Return the word of a name that says what it is, in lowercase."""
    return re.sub(ENDING, "", words_of(name).strip("_").lower())


def words_of(name: str) -> str:
    """Return a name with an underscore between its words, and without accents."""
    plain = name if name.isascii() else unicodedata.normalize("NFC", _without_accents(name))
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|[^\w]+", "_", plain)


def _without_accents(text: str) -> str:
    text = text.replace("ł", "l").replace("Ł", "L").replace("ı", "i")
    found = unicodedata.normalize("NFKD", text)
    return "".join(
        character
        for character in found
        if not (unicodedata.combining(character) and unicodedata.name(character, "").startswith("COMBINING"))
        or "\u3040" <= character <= "\u30ff"
    )


@cache
def _pattern(text: str) -> re.Pattern[str]:
    """Compile at first use: this module is loaded when DAGs are parsed."""
    return re.compile(text, re.VERBOSE)


def is_secret(name: str, text: str, place: Place = "") -> bool:  # noqa: PLR0911  a line per place and kind of name
    """
    Return whether a text under a name is a secret.

    The name alone is enough only if it cannot name data, as ``client_secret``; a ``token`` or a ``session_id`` must
    also look like a secret, and clear data is never one.
    """
    if name.startswith(USER_OPTIONS):
        return _is_user_and_password(name, text)
    kind = kind_of(name)
    if not (kind or place) or not _may_be(text := text.strip()):
        return False
    if place in ("headers", "entry") and is_header_only(name):
        return _is_of_header(name, text, place)
    if place == "vault":
        return True
    if place == "cookies":
        return bool(COOKIE_NAME.search(name)) or is_mixed(text) or is_random(text)
    if place == "query" and IN_QUERY.match(name) and kind != "certain":
        return _is_in_query(name, text)
    if kind == "possible":
        return _looks_like(last_word(name), text, place)
    return kind == "certain" and (is_for_passwords(name) or _is_whole(text))


def _is_user_and_password(name: str, text: str) -> bool:
    option, of_client, _ = name.partition(OF_CLIENT)
    password = text.partition(":")[2]
    if option not in USER_OPTIONS or not USER_AND_PASSWORD.match(text):
        return False
    return is_made_up(password) or (bool(of_client) and len(password) > 2 and not is_data(password))  # noqa: PLR2004


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
    """Return whether a text looks like the secret that its name suggests."""
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
    """Return whether this is ``Bearer eyJ…`` or ``Basic dXNl…``, not "Basic plan" or "Bearer bonds" and its number."""
    scheme, _, rest = text.strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "basic":
        return is_credentials_base64(rest) or is_mixed(rest)
    if "=" in rest and "," in rest:  # Digest, OAuth 1, AWS4-HMAC-SHA256
        return True
    return " " not in rest and is_bearer_token(rest.partition("=")[2].strip('"') or rest)
