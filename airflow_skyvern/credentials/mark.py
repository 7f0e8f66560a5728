"""
What says that a credential of Skyvern is made from a connection of Airflow, and whether it is as that connection is.

Skyvern keeps a text beside each credential, ``user_context``, which a rotation leaves as it is, and shows it to
everybody who may use the organization. So it names the Airflow and the connection, and holds no digest that a
password could be guessed from: the fingerprint is keyed with Airflow's Fernet key, 32 random bytes that nobody in
Skyvern has. The API key would not do, as whoever may read the text has it. Without a Fernet key, a slow hash makes
guesses dear.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from airflow_skyvern.exceptions import SkyvernConfigError

if TYPE_CHECKING:
    from airflow_skyvern.models import Credential

ITERATIONS = 600_000
"""Of PBKDF2 with SHA-256, as OWASP advises; only where Airflow has no Fernet key: some 0.3 s for each connection."""

LONGEST_CONTEXT = 1000
"""Characters that Skyvern keeps."""

LONGEST_CONN_ID = 250
"""As in Airflow's own table."""

LONGEST_SHOWN_NAME = 100
"""Characters of this Airflow's name that the text shows; it is compared as a digest."""

TEXT = re.compile(r"Kept by Airflow \([^\n]*\) from its connection [^\n]*: edit it there\.\n(?=airflow-credential: )")
DATA = "airflow-credential: "
UNFINISHED = "airflow-credential-unfinished"


@dataclass(frozen=True)
class Owner:
    """
    Which Airflow keeps credentials, and in which list.

    :param installation: The name of this Airflow among those that share a Skyvern organization.
    :param scope: The name of the list of connections that a credential is deleted by.
    :param keys: Airflow's Fernet keys, the newest first; with none, fingerprints are salted and slow.
    """

    installation: str
    scope: str
    keys: Sequence[str] = field(default=(), repr=False)

    @property
    def digest(self) -> str:
        """What distinguishes this Airflow from others."""
        return _digest(self.installation)

    @property
    def scope_digest(self) -> str:
        """What distinguishes this list from others."""
        return _digest(self.scope)


@dataclass(frozen=True)
class Mark:
    """
    The mark that Skyvern keeps with a credential that an Airflow has made.

    :param owner: The digest of that Airflow's name.
    :param scope: The digest of the list that it is deleted by.
    :param conn_id: Its connection.
    :param salt: Of the fingerprint.
    :param fingerprint: Of all that the connection says; empty while it is being changed.
    """

    owner: str
    scope: str
    conn_id: str
    salt: str = ""
    fingerprint: str = ""

    @classmethod
    def of(cls, credential: Credential) -> Mark | None:
        """Read the mark of a credential; None where no Airflow has made it."""
        if (unfinished := credential.name.split(":", 3))[0] == UNFINISHED:
            return cls(*unfinished[1:]) if len(unfinished) == len((UNFINISHED, "owner", "scope", "conn_id")) else None
        _, found, rest = (credential.user_context or "").partition(f"\n{DATA}")
        try:
            data, _ = json.JSONDecoder().raw_decode(rest)
            return cls(**{one.name: _text(data[one.name]) for one in fields(cls)}) if found else None
        except (ValueError, KeyError, TypeError, RecursionError):
            return None

    @classmethod
    def made(cls, owner: Owner, conn_id: str, content: Mapping[str, Any] | None = None) -> Mark:
        """Make the mark of a credential with this content; without one, of a credential that is being changed."""
        if len(conn_id) > LONGEST_CONN_ID:
            raise SkyvernConfigError(f"its id is longer than {LONGEST_CONN_ID} characters.")
        if content is None:
            return cls(owner.digest, owner.scope_digest, conn_id)
        salt, key = secrets.token_hex(16), owner.keys[0] if owner.keys else ""
        return cls(owner.digest, owner.scope_digest, conn_id, salt, fingerprint(content, salt, key))

    def fits(self, content: Mapping[str, Any], keys: Sequence[str]) -> bool:
        """Return whether the credential has this content, as far as one of the keys says."""
        if not self.fingerprint:
            return False
        prints = (fingerprint(content, self.salt, key) for key in keys or ("",))
        return any(hmac.compare_digest(one, self.fingerprint) for one in prints)

    @property
    def unfinished_name(self) -> str:
        """The name of a credential until it has its mark: it is found by it if that does not come."""
        return f"{UNFINISHED}:{self.owner}:{self.scope}:{self.conn_id}"

    def written_into(self, context: str | None, owner: Owner) -> str:
        """Return the text that Skyvern keeps, with what people have written there; without that if it is too long."""
        name = " ".join(owner.installation.split())[:LONGEST_SHOWN_NAME]
        head = f"Kept by Airflow ({name}) from its connection {self.conn_id}: edit it there.\n"
        own = f"{head}{DATA}{json.dumps(asdict(self), ensure_ascii=False)}"
        theirs = _written_by_people(context or "")
        together = f"{own}\n{theirs}" if theirs else own
        return together if len(together) <= LONGEST_CONTEXT else own


def fingerprint(content: Mapping[str, Any], salt: str, key: str) -> str:
    """Return what distinguishes a content from another, and does not reveal it to those who guess."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=True).encode()
    if key:
        return hmac.new(key.encode(), salt.encode() + text, hashlib.sha256).hexdigest()
    return hashlib.pbkdf2_hmac("sha256", text, salt.encode(), ITERATIONS).hex()


def _written_by_people(context: str) -> str:
    before, found, rest = TEXT.sub("\n", context).partition(DATA)
    if not found:
        return context.strip()
    try:
        _, end = json.JSONDecoder().raw_decode(rest)
    except (ValueError, RecursionError):
        end = len(rest.partition("\n")[0])
    return f"{before.strip()}\n{rest[end:].strip()}".strip()


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
