"""
From the name of a credential to its id.

Skyvern takes ids only, and several of its credentials may have one name. So a name is looked up right before a run is
started, and one that is not there, or is there twice, starts nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from airflow_skyvern.client import credential_api
from airflow_skyvern.client.suggestions import did_you_mean
from airflow_skyvern.exceptions import SkyvernConfigError

if TYPE_CHECKING:
    from airflow_skyvern.client.session import Send
    from airflow_skyvern.models import Credential
    from airflow_skyvern.runs.wait import Log

LONGEST_SEARCH = 200
"""Characters of a name that Skyvern searches for; it refuses a longer text."""

MOST_NAMES = 10
"""How many names a message lists."""


def ids_of(send: Send, names: Mapping[str, str], log: Log) -> dict[str, str]:
    """
    Return the ids of the credentials that parameters of a run name, by the parameters.

    :raises SkyvernConfigError: no credential has a name, or several have it; nothing was started.
    """
    return {key: _logged_id(send, key, name, log) for key, name in names.items()}


def _logged_id(send: Send, key: str, name: str, log: Log) -> str:
    credential_id = id_of(send, name, f"parameters.{key}")
    log.info("parameters.%s: credential %r is %s", key, name, credential_id)
    return credential_id


def id_of(send: Send, name: str, where: str) -> str:
    """
    Return the id of the one credential of this name.

    :param where: What is wrong if there is none, for the message.
    :raises SkyvernConfigError: there is none, or there are several.
    """
    found = [one.credential_id for one in _searched(send, name) if one.name == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise SkyvernConfigError(
            f"{where}: Skyvern has {len(found)} credentials of the name {name!r}: {', '.join(sorted(found))}. Give "
            "the id of the one that is meant, or rename the others in Skyvern. Nothing was started."
        )
    raise SkyvernConfigError(f"{where}: {' '.join(_unknown(name, send(credential_api.list_credentials())))}")


def _searched(send: Send, name: str) -> list[Credential]:
    """Search by a part of the name, as Skyvern does; what it finds besides is for the caller to leave out."""
    found: list[Credential] = send(
        credential_api.list_credentials(name if len(name) <= LONGEST_SEARCH else None).as_answered()
    )
    return found


def _unknown(name: str, known: list[Credential]) -> Iterator[str]:
    yield f"Skyvern has no credential of the name {name!r}."
    names = sorted({one.name for one in known})
    if hint := did_you_mean(name, names):
        yield hint
    elif names:
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        yield f"It has {', '.join(map(repr, names[:MOST_NAMES]))}{more}."
    else:
        yield "It has none at all."
    yield "Names are compared letter by letter. Nothing was started."
