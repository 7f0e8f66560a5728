"""Recognizes by its form whether a value is data, or a secret made by a machine or a person."""

from __future__ import annotations

import base64
import binascii
import re
from functools import cache

MASK = "***"
"""The text with which Airflow's own masker replaces a secret."""

REFERENCE = re.compile(r"^(cred|azs|op|bp|pbs|wpid|wr|tsk)_[\w-]+$")
"""Ids of Skyvern's objects: they may name a secret but are not secret."""

LONGEST_SECRET = 16_384
"""Longest value that counts as one secret; a longer one is a text that may hold several."""

STATES = frozenset(
    "yes no true false none null nil undefined n/a na ok on off set unset empty missing required optional mandatory enabled "
    "disabled active inactive expired valid invalid wrong incorrect correct weak medium strong changed unchanged present absent "
    "protected hidden masked redacted removed secret password passwort login token cookie cookies authorization bearer basic "
    "approved pending denied granted rejected declined authorized unauthorized forbidden accepted success failed failure "
    "error unknown default custom public private text string number integer boolean object array never always "
    "manual automatic forgot forgotten reset show hide change confirm submit cancel ja nein oui non si nao tak nie да нет "
    "erforderlich vergessen falsch richtig leer abgelaufen requis oublie obligatoire facultatif requerido obligatorio opcional "
    "obrigatorio verplicht same-origin include omit x".split()
)
"""Words about secrets that are not secrets."""

ABOUT = re.compile(
    r"(?i)\b(at|least|the|an?|of|is|are|was|has|have|been|must|your|you|please|to|and|or|be|not|for|in|with|will|can|"
    r"minimum|maximum|characters?|chars|letters?|digits?|required|forgot(ten)?|reset|enter|choose|new|confirm|change[ds]?|show|"
    r"hide|strength|expire[ds]?|days?|hours?|minutes?|ago|last|never|incorrect|invalid|wrong|error|field|see|ask|only|"
    r"mindestens|zeichen|vergessen|ändern|falsch|erforderlich|bitte|und|oder|der|die|das|ist|nicht|mit|"
    r"le|la|les|de|du|des|est|et|ou|votre|oublié|requis|caractères|au|moins|"
    r"el|los|las|su|muss|werden|geändert|à|changer|modifier|yes|no|none|olvid\w+|caracteres|mínimo|al|menos|obligatori[oa]|o|seu|sua|esqueceu|il|per|con|een|het|van|wachtwoord)\b"
)
"""Words in sentences about passwords; a passphrase contains hardly any of them."""

PLACEHOLDER = re.compile(
    r"""(?ix) ^ (
        [*•●·.…_xX#?-]+ | \([^()\d]*\) | <[^<>]*> | \{+[^{}]*\}+ | \[[^\[\]]*\] | %\w+% | \$\{?\w+\}? | \$\{\{.*\}\} | %7B.*%7D | \$\(.*\)
      | (your|insert|enter|replace|add|example|sample|dummy|placeholder|changeme|change_me|redacted|todo|tbd)
        ([-_ ]?(your|my|the|api|auth|access|secret|client|private|app|db|here|key|token|password|passwd|id|value|with|me|goes|in))*
      | (process\.env|os\.environ|env|getenv|secrets?|vars?|settings|config|vault|op|ssm|keyring|arn:aws|secretsmanager|ref)[.:(\[/].*
    ) $"""
)
"""Placeholders for secrets in documentation and in configuration."""

_UUID = re.compile(r"(?i)^\{?[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}\}?$")
_DATE = re.compile(
    r"^\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([T ,].*)?$|^\d{1,2}:\d\d(:\d\d)?( ?[AaPp][Mm])?$|^\d{8}T\d{6}Z?$"
)
_NUMBER = re.compile(r"^[-+]?[$€£¥]?\s?\d[\d.,' ]*\s?(%|[$€£¥]|[A-Za-z]{1,3})?$")
_WORD = r"(\d+|((?:[A-Z]{0,2}[a-z]{2,}){1,3}|[A-Z]+|[a-zß-ÿ]|[^\W\d_a-zA-Z]+[^\W\d_]*|[A-Z]?[^\W\d_A-Z]+)\d{0,4})"
_SLUG = re.compile(rf"^{_WORD}([-_./:#+ ]{_WORD})*$")
_CODE = re.compile(
    r"^[A-Z]{1,6}[-_/#.]?\d{1,12}[A-Z]{0,3}$|^\d{1,12}[-_/.]?[A-Z]{1,4}$|^v?\d+(\.\d+)+\w*$|^\d+(of|x|by|to|vs|per)\d+$"
)
_UPPER_CODE = re.compile(r"^[A-Z0-9]+([-_/.: ][A-Z0-9]+)*$")
_ADDRESS = re.compile(
    r"(?i)^(https?|ftp|file|s3|gs)://|^[\w.+-]+@[\w-]+(\.[\w-]+)+$|^(/(?!.*[+=])|\./|\.\./|[a-z]:\\)|^mailto:|^data:"
)
_FILE = re.compile(
    r"(?i)^[\w .()/-]+\.(pdf|png|jpe?g|gif|csv|xlsx?|docx?|txt|json|xml|html?|zip|gz|mp[34]|py|js|ts|css|svg|webp)$"
)
_TOKEN_CHARACTERS = re.compile(r"^[\w.~+/=:%!@#$^&*?,;|()<>{}\[\]-]+$")
_HEX = re.compile(r"^([0-9a-f]+|[0-9A-F]+)$")
_BASE32 = re.compile(r"^[A-Z2-7]{16,}=*$")
_RUN = re.compile(r"[A-Za-z]+|\d+")
SCHEME = re.compile(
    r"(?is)^\s*(bearer|basic|token|apikey|api-key|digest|negotiate|ntlm|oauth|hawk|aws4-hmac-sha256|aws|sharedkey(lite)?|"
    r"signature|key|jwt|genie-?key|splunk|mac|goog\w*|sso-key|discogs|klaviyo-api-key|dpop|bot|gateway|privatetoken)[ :]+\S{4,}"
)
"""How the value of an Authorization header begins."""
COOKIES = re.compile(r"^\s*[\w.$%!*+~|-]{1,100}=[^;\s]{1,}(\s*(;|$)|\s*,)")
"""The form of a Cookie or Set-Cookie header's value."""


def is_data(text: str) -> bool:
    """Return whether a text is clearly not a secret, under any name: a state, a sentence, a date, a placeholder."""
    text = text.strip()
    return (
        len(text) < 2  # noqa: PLR2004  nothing that could be guessed
        or text.endswith(("(", "["))  # a call, in code
        or text.casefold() in STATES
        or bool(REFERENCE.match(text) or PLACEHOLDER.match(text) or _DATE.match(text) or _ADDRESS.match(text))
        or (bool(re.search(r"\s", text)) and _is_sentence(text))
        or (text.isalpha() and not any(map(str.isascii, text)))  # a word in another script
        or (bool(_NUMBER.match(text)) and not text.isdigit())
    )


def _is_sentence(text: str) -> bool:
    return (bool(ABOUT.search(text)) and not COOKIES.match(text)) or bool(_NUMBER.match(text))


def is_mixed(text: str) -> bool:
    """Return whether a text looks made up by a person or a machine: ``s3cr3t-W4rd``, not ``AB12`` or ``2024-spring``."""
    if not 6 <= len(text) <= LONGEST_SECRET or not _TOKEN_CHARACTERS.match(text) or is_data(text):  # noqa: PLR2004
        return False
    if not (any(map(str.isdigit, text)) and any(map(str.isalpha, text))):
        return False
    return not (
        _SLUG.match(text) or _CODE.match(text) or _UPPER_CODE.match(text) or _UUID.match(text) or _FILE.match(text)
    )


def is_random(text: str) -> bool:
    """Return whether a text looks machine-made and unguessable: long, with mixed characters."""
    if not 16 <= len(text) <= LONGEST_SECRET or not _TOKEN_CHARACTERS.match(text) or is_data(text):  # noqa: PLR2004
        return False
    if _UUID.match(text) or _FILE.match(text) or _SLUG.match(text):
        return False
    if _HEX.match(text):
        return len(text) >= 32 and not text.isdigit() and not text.isalpha()  # noqa: PLR2004  a digest's length
    kinds = sum(any(map(kind, text)) for kind in (str.islower, str.isupper, str.isdigit))
    return (kinds == 3 and _changes(text) >= 3) or (len(text) >= 32 and kinds >= 2 and _changes(text) >= 4)  # noqa: PLR2004


def is_password(text: str) -> bool:
    """Return whether the text after "password:" in a sentence is one: it has digits or signs among its letters."""
    if not 5 <= len(text) <= 256 or is_data(text) or _FILE.match(text):  # noqa: PLR2004
        return False
    letters, digits = any(map(str.isalpha, text)), any(map(str.isdigit, text))
    signs = bool(re.search(r"[!@#$%^&*+=?~|]", text))
    return (digits and (letters or signs)) or (letters and signs) or (text.isdigit() and len(text) >= 6)  # noqa: PLR2004


def is_bare_password(text: str) -> bool:
    """Return whether a word that follows "password" without a colon is one, and not the next word of a sentence."""
    return is_made_up(text) or bool(re.fullmatch(r"[a-z]{3,}\d{2,4}", text))


def is_made_up(text: str) -> bool:
    """Return whether a text is a password by its form alone: mixed, random, or made of letters and signs."""
    return is_mixed(text) or is_random(text) or (is_password(text) and bool(re.search(r"[!@#$%^&*]", text)))


def is_recovery_code(text: str) -> bool:
    """Return whether a text is a recovery code for an account: capital letters and digits."""
    return bool(re.fullmatch(r"(?=\S*\d)(?=\S*[A-Z])[A-Z0-9]{16,}", text))


def is_one_time_code(text: str) -> bool:
    """Return whether a text is a one-time code, or the seed of such codes."""
    return bool(re.fullmatch(r"\d{6,8}|\d{3}[ -]\d{3}", text)) or is_base32(text)


def is_base32(text: str) -> bool:
    """Return whether a text is the seed of an authenticator."""
    return bool(_BASE32.match(text)) and any(map(str.isdigit, text))


def is_uuid(text: str) -> bool:
    """Return whether a text is a UUID: an id more often than a secret."""
    return bool(_UUID.match(text))


def is_credentials_base64(text: str) -> bool:
    """Return whether a text is ``user:password``, encoded for an Authorization header."""
    try:
        return b":" in base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False


def is_bearer_token(text: str) -> bool:
    """Return whether this is a token, not the number of a share: it has lowercase letters, or is longer than any number."""
    if len(text) >= 24 and not is_uuid(text):  # noqa: PLR2004
        return True
    return is_uuid(text) or (is_mixed(text) and any(map(str.islower, text)))


def _changes(text: str) -> int:
    """Count the changes between letters and digits, and between lowercase and capital letters."""
    return sum(a[1] != b[1] for a, b in zip(_kinds(text), _kinds(text)[1:], strict=False))


@cache
def _kind(character: str) -> str:
    return "d" if character.isdigit() else "u" if character.isupper() else "l" if character.islower() else "s"


def _kinds(text: str) -> list[tuple[str, str]]:
    return [(character, _kind(character)) for character in text[:64]]
