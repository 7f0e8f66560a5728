"""
Credentials of Skyvern made, rotated and deleted so that they are as connections of Airflow say.

No step leaves what the next sync takes for something else. A credential is made under a name that says whose it is;
its own name and its mark come with one request. Before a secret is replaced, its fingerprint goes. So whatever is
interrupted is found by the next sync, and is done again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_skyvern.client import credential_api
from airflow_skyvern.credentials.mark import Mark
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernError, SkyvernNotFoundError

if TYPE_CHECKING:
    from airflow_skyvern.client.session import Send
    from airflow_skyvern.credentials.mark import Owner
    from airflow_skyvern.credentials.wanted import Wanted
    from airflow_skyvern.models import Credential

FAILED = "failed"
ACTIONS = ("created", "rotated", "unchanged", "deleted")


@dataclass(frozen=True)
class Outcome:
    """
    What was done with a credential, or would be; nothing of it is secret.

    :param action: ``created``, ``rotated``, ``unchanged``, ``deleted`` or ``failed``.
    :param error: Why it was not done.
    :param note: What somebody should look at, though it was done.
    """

    conn_id: str
    action: str
    name: str | None = None
    credential_id: str | None = None
    error: SkyvernError | None = field(default=None, compare=False)
    note: str | None = None

    def as_row(self) -> dict[str, Any]:
        """Return it as a row of a table."""
        return {
            "connection": self.conn_id,
            "action": self.action,
            "name": self.name,
            "credential_id": self.credential_id,
            "message": str(self.error) if self.error else self.note,
        }

    def as_xcom(self) -> dict[str, Any]:
        """Return which credential it is."""
        return {"connection": self.conn_id, "name": self.name, "credential_id": self.credential_id}


class Sync:
    """
    One pass over some connections.

    :param read: Reads a connection; what it raises is the outcome of that one.
    :param delete: Whether credentials of this list are deleted whose connections are not in it any more.
    :param dry_run: Whether everything is only found out, and nothing done.
    """

    def __init__(
        self,
        send: Send,
        owner: Owner,
        read: Callable[[str], Wanted],
        *,
        delete: bool = False,
        dry_run: bool = False,
    ) -> None:
        self._send = send
        self._owner = owner
        self._read = read
        self._delete = delete
        self._dry_run = dry_run
        self._known: list[Credential] = []

    def run(self, conn_ids: Iterable[str]) -> Iterator[Outcome]:
        """
        Yield the results, connection by connection; a failure does not stop the others.

        :raises SkyvernError: the credentials cannot be listed, or no connection is named.
        """
        listed = list(dict.fromkeys(conn_ids))
        if not listed:
            raise SkyvernConfigError("connections: is empty; name at least one. Nothing was changed.")
        self._known = self._send(credential_api.list_credentials())
        if self._delete:
            yield from self._outcomes_of_removed(listed)
        wanted = [self._done(conn_id, partial(self._read, conn_id)) for conn_id in listed]
        names = Counter(one.name for one in wanted if not isinstance(one, Outcome))
        for one in wanted:
            yield one if isinstance(one, Outcome) else self._outcome(one, names)

    def _outcome(self, wanted: Wanted, names: Counter[str]) -> Outcome:
        done: Outcome = self._done(wanted.conn_id, partial(self._synced, wanted, names))
        return replace(done, name=wanted.name)

    def _done(self, conn_id: str, do: Callable[[], Any]) -> Any:
        """Do something for a connection; an error is its outcome."""
        try:
            return do()
        except SkyvernError as error:
            return Outcome(conn_id, FAILED, error=error)

    def _synced(self, wanted: Wanted, names: Counter[str]) -> Outcome:
        if names[wanted.name] > 1:
            raise SkyvernConfigError(f"another connection of the list wants the name {wanted.name!r}, too.")
        own = self._own(wanted.conn_id)
        namesakes = self._namesakes(wanted, own)
        if namesakes and all(one.name != wanted.name for one in own):
            raise SkyvernConfigError(
                f"{namesakes} That is left as it is. Rename or delete it in Skyvern, or give this connection another "
                "name: extra.skyvern_credential.name."
            )
        if not own:
            return self._created(wanted)
        kept = self._without_twins(own)
        mark = Mark.of(kept) or Mark.made(self._owner, wanted.conn_id)
        is_same = self._is_as_wanted(kept, wanted) and mark.fits(wanted.compared, self._owner.keys)
        outcome = Outcome(wanted.conn_id, "unchanged", credential_id=kept.credential_id, note=namesakes or None)
        return outcome if is_same else self._rotated(wanted, kept, mark, outcome)

    def _own(self, conn_id: str) -> list[Credential]:
        """Return the credentials that this Airflow has made from a connection, in any list, the newest first."""
        marks = ((one, Mark.of(one)) for one in self._known)
        return [one for one, mark in marks if mark and (mark.owner, mark.conn_id) == (self._owner.digest, conn_id)]

    def _namesakes(self, wanted: Wanted, own: Sequence[Credential]) -> str:
        """Say which other credentials have the name, and whose they are; an empty text if none has."""
        others = [one for one in self._known if one.name == wanted.name and one not in own]
        whose = ", ".join(f"{one.credential_id} ({self._whose(one)})" for one in others)
        return f"Skyvern has another credential of the name {wanted.name!r}: {whose}." if others else ""

    def _whose(self, credential: Credential) -> str:
        mark = Mark.of(credential)
        if mark is None:
            return "made by a person or another program"
        own = mark.owner == self._owner.digest
        return f"made by {'this' if own else 'another'} Airflow from its connection {mark.conn_id}"

    def _without_twins(self, own: list[Credential]) -> Credential:
        """Return the oldest; two syncs at once may have made several."""
        *twins, oldest = own
        if twins and not self._delete:
            ids = ", ".join(one.credential_id for one in own)
            raise SkyvernConfigError(
                f"there are {len(own)} credentials of it: {ids}. Two syncs at once have made them; delete all but "
                "one in Skyvern, or sync with delete, which keeps the oldest."
            )
        for twin in twins:
            self._remove(twin)
        return oldest

    def _is_as_wanted(self, credential: Credential, wanted: Wanted) -> bool:
        """Compare what Skyvern shows: somebody may have edited it there."""
        said = credential.credential
        shown = all(said.get(name, value) == value for name, value in wanted.shown.items())
        return shown and (credential.name, credential.credential_type) == (wanted.name, wanted.credential_type)

    def _created(self, wanted: Wanted) -> Outcome:
        outcome, mark = Outcome(wanted.conn_id, "created"), Mark.made(self._owner, wanted.conn_id)
        if self._dry_run:
            return outcome
        name, kind, content = mark.unfinished_name, wanted.credential_type, wanted.content
        made: Credential = self._send(credential_api.create_credential(name, kind, content))
        if not self._finish(wanted, made, mark):
            self._remove(made)
            raise SkyvernConfigError(
                f"Skyvern does not keep the text that marks credential {made.credential_id}, so it would not be "
                "known again; it was deleted. Use a newer Skyvern."
            )
        return replace(outcome, credential_id=made.credential_id)

    def _rotated(self, wanted: Wanted, kept: Credential, mark: Mark, outcome: Outcome) -> Outcome:
        """Replace the secret under the present name, by which an unfinished one is found again."""
        if not self._dry_run:
            if kept.user_context:
                self._write(kept, kept.name, replace(mark, salt="", fingerprint=""))
            kind, content = wanted.credential_type, wanted.content
            self._send(credential_api.update_credential(kept.credential_id, kept.name, kind, content))
            self._finish(wanted, kept, mark)
        return replace(outcome, action="rotated")

    def _finish(self, wanted: Wanted, credential: Credential, mark: Mark) -> bool:
        """Give a credential its name and its mark, with one request; return whether Skyvern keeps them."""
        new = replace(Mark.made(self._owner, wanted.conn_id, wanted.compared), scope=mark.scope)
        return Mark.of(self._write(credential, wanted.name, new)) == new

    def _write(self, credential: Credential, name: str, mark: Mark) -> Credential:
        text = mark.written_into(credential.user_context, self._owner)
        written: Credential = self._send(credential_api.rename_credential(credential.credential_id, name, text))
        return written

    def _outcomes_of_removed(self, listed: Sequence[str]) -> Iterator[Outcome]:
        """Delete what this list has made from connections that it does not name any more."""
        for one in list(self._known):
            mark = Mark.of(one)
            if mark and self._is_of_this_list(mark) and mark.conn_id not in listed:
                yield replace(self._done(mark.conn_id, partial(self._deleted, one, mark)), name=one.name)

    def _is_of_this_list(self, mark: Mark) -> bool:
        return (mark.owner, mark.scope) == (self._owner.digest, self._owner.scope_digest)

    def _deleted(self, credential: Credential, mark: Mark) -> Outcome:
        self._remove(credential)
        return Outcome(mark.conn_id, "deleted", credential_id=credential.credential_id)

    def _remove(self, credential: Credential) -> None:
        """Delete a credential; it is not an error if it is already gone."""
        if not self._dry_run:
            with suppress(SkyvernNotFoundError):
                self._send(credential_api.delete_credential(credential.credential_id))
        self._known = [one for one in self._known if one.credential_id != credential.credential_id]
