"""Names under which secrets stand: those that say so by themselves, and those that also name data."""

from __future__ import annotations

import re
import unicodedata
from functools import cache, lru_cache
from typing import Literal

Kind = Literal["certain", "possible", ""]
"""Whether a name is that of a secret whatever it looks like, only with a secret's form, or not at all."""

SECRET_NAME = re.compile(
    r"pass(wd|phrase|code)?s?$|password|pwd|secret|token|api_?key|access_?key|private_?key|auth(orization)?$|bearer"
    r"|cookie|credential|sess(ion)?_?id|(^|_)(pw|pass|otp|totp|pin|cvv|cvc|ssn|iban)\d*($|_)|card_?number",
    re.IGNORECASE,
)
"""What may be a secret, so that a file leaves it out; a person completes it."""

FOREIGN = (
    "passwort kennwort contrasena contrasenya mot_de_passe motdepasse senha palavra_passe wachtwoord haslo losenord "
    "salasana adgangskode passord heslo jelszo sifre kata_sandi mat_khau пароль гасло парола лозинка סיסמה סיסמא "
    "كلمة_المرور كلمة_السر 密码 密碼 口令 パスワード 暗証番号 비밀번호 암호 รหัสผ่าน κωδικος_προσβασης पासवर्ड"
).split()
"""What a password is called elsewhere, without accents."""

ENDING = r"(_?\d+|_(value|hash|header|string|data|seed|confirmation|confirm|repeat|again|plain|raw|text|current|new|old))*$"
"""What may follow the word that says so: ``password_2``, ``client_secret_value``; not ``token_count``."""

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


def names_secret(name: str) -> bool:
    """Return whether secrets have such a name, however it is spelled: ``api_key``, ``x-api-key``, ``apiKey``."""
    return bool(SECRET_NAME.search(words_of(name)))


@lru_cache(maxsize=4096)
def kind_of(name: str) -> Kind:
    """
    Return what a name says of its value.

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
    """Return whether nothing but a header has this name: ``X-Api-Key``, and not ``token``."""
    return is_header_of_secret(name) and ("-" in name or name.lower() in ("authorization", "cookie"))


@lru_cache(maxsize=4096)
def is_for_passwords(name: str) -> bool:
    """Return whether a password stands under this name: what a person types, also with spaces."""
    return bool(re.search(r"pass|pwd|pw$", last_word(name))) or any(word in last_word(name) for word in FOREIGN)


def last_word(name: str) -> str:
    """Return the word of a name that says what it is, in small letters."""
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
