"""
Finds browser profiles by name, and creates one from a browser without creating a second one.

Newer servers refuse a second profile with the same name, older ones create it; and Skyvern's own profiles may have
any name. So a profile that replaces an older one is first created under a temporary name, and gets the final name
when the older one is deleted. A retry finds either by its name, and recognizes it by its age: it is younger than its
browser.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from datetime import datetime
from typing import TYPE_CHECKING

from airflow_skyvern.client import browser_api
from airflow_skyvern.client.suggestions import did_you_mean
from airflow_skyvern.exceptions import SkyvernConfigError, SkyvernNotFoundError

if TYPE_CHECKING:
    from airflow_skyvern.client.session import Send
    from airflow_skyvern.models import BrowserProfile

ID_PREFIX = "bp_"
BEING_REPLACED = 3.0
"""Seconds after which a name is looked up once more: a profile that is being replaced has none for a moment."""

MOST_NAMES = 20
"""How many names a message lists."""


def profile_id_of(send: Send, profile: str, sleep: Callable[[float], object] = time.sleep) -> str:
    """
    Return the id of a profile that is given by id or name; an id takes no request.

    :raises SkyvernConfigError: no profile has this name, or several have it.
    """
    if profile.startswith(ID_PREFIX):
        return profile
    found = named(send, profile)
    if len(found) != 1:
        sleep(BEING_REPLACED)
        found = named(send, profile)
    if len(found) == 1:
        return found[0].browser_profile_id
    raise _refusal(send, profile, found)


def _refusal(send: Send, profile: str, found: Collection[BrowserProfile]) -> SkyvernConfigError:
    if found:
        ids = ", ".join(sorted(one.browser_profile_id for one in found))
        return SkyvernConfigError(
            f"browser_profile_id: {len(found)} browser profiles are called {profile!r}: {ids}. Give the id of the "
            "one that is meant, or delete the others. Nothing was started."
        )
    names = sorted({one.name for one in _all(send) if not one.is_managed})
    hint = did_you_mean(profile, names) or (f"Known: {', '.join(names[:MOST_NAMES])}." if names else "There is none.")
    return SkyvernConfigError(
        f"browser_profile_id: no browser profile is called {profile!r}. {hint} Nothing was started."
    )


def named(send: Send, name: str) -> list[BrowserProfile]:
    """Return the profiles with exactly this name; if people have created any, only those."""
    found = [
        one
        for one in send(browser_api.list_browser_profiles(name).as_answered())
        if one.name == name and not one.deleted_at
    ]
    return [one for one in found if not one.is_managed] or found


def _all(send: Send) -> list[BrowserProfile]:
    profiles: list[BrowserProfile] = send(browser_api.list_browser_profiles())
    return profiles


def save_profile(
    send: Send,
    name: str,
    *,
    session_id: str | None,
    run_id: str | None,
    since: datetime | None,
    description: str | None = None,
    replace: bool = True,
    ensure_current: Callable[[], object] = lambda: None,
) -> str:
    """
    Create a profile from a closed session or a run, and return its id; or return the id of the one created before.

    :param since: When session or run were created: a younger profile with the name comes from an earlier try.
    :param replace: Whether it replaces an older profile with its name, which is then deleted.
    :param ensure_current: Raises if another try of the task has taken over; called before anything is changed.
    :raises SkyvernConfigError: an older one exists, and ``replace`` is False.
    """
    steps = _Saving(send, session_id, run_id, since, description, ensure_current)
    mine, older = steps.compare(name)
    if mine is not None:
        steps.delete(older if replace else ())
        return mine.browser_profile_id
    if older and not replace:
        raise SkyvernConfigError(
            f"name: browser profile {older[0].browser_profile_id} is called {name!r} already. Choose another name, "
            "or say replace=True: then this one takes its place, and that one is deleted."
        )
    ready, leftovers = steps.compare(temporary := f"{name} (being saved)")
    if ready is None and not older:
        return steps.made(name)
    steps.delete(leftovers)
    made = ready.browser_profile_id if ready else steps.made(temporary)
    steps.delete(older)
    steps.rename(made, name)
    return made


class _Saving:
    """The steps; each may be the last one of a try, and the next try continues there."""

    def __init__(
        self,
        send: Send,
        session_id: str | None,
        run_id: str | None,
        since: datetime | None,
        description: str | None,
        ensure_current: Callable[[], object],
    ) -> None:
        self._send = send
        self._source = {"browser_session_id": session_id, "workflow_run_id": run_id}
        self._since = since
        self._description = description
        self._ensure_current = ensure_current

    def compare(self, name: str) -> tuple[BrowserProfile | None, list[BrowserProfile]]:
        """Return the profile with this name that an earlier try has created, and the others."""
        found = [one for one in named(self._send, name) if not one.is_managed]
        mine = [one for one in found if self._since and one.created_at and one.created_at >= self._since]
        return (mine[-1] if mine else None), [one for one in found if one not in mine[-1:]]

    def made(self, name: str) -> str:
        self._ensure_current()
        call = browser_api.create_browser_profile(name, description=self._description, **self._source)
        made: BrowserProfile = self._send(call)
        return made.browser_profile_id

    def delete(self, profiles: Collection[BrowserProfile]) -> None:
        for one in profiles:
            self._ensure_current()
            try:
                self._send(browser_api.delete_browser_profile(one.browser_profile_id))
            except SkyvernNotFoundError:
                continue  # an earlier attempt has deleted it

    def rename(self, profile_id: str, name: str) -> None:
        self._ensure_current()
        self._send(browser_api.update_browser_profile(profile_id, name))
