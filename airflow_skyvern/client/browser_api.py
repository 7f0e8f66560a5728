"""The endpoints around browsers, as values: sessions and profiles; see :mod:`airflow_skyvern.client.api`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_skyvern.client.answers import ANY_WORDS, Refusal
from airflow_skyvern.client.calls import Call, delete, get, given, paged, patch, path_segment, post
from airflow_skyvern.client.versions import NEW_PROFILES, SEARCHES, SESSION_PAGES, needed
from airflow_skyvern.exceptions import SkyvernAPIError, SkyvernRequestError
from airflow_skyvern.models import BrowserProfile, BrowserProfileUsage, BrowserSession, BrowserType, RunSummary

SESSIONS, PROFILES = "/v1/browser_sessions", "/v1/browser_profiles"

SLOW_OPEN, SLOW_CLOSE, SLOW_SAVE = 60.0, 90.0, 90.0
"""Seconds for the answer of a server under load. Measured: 13 to open, 41 to close."""

CREATE_PROFILE = (
    Refusal(400, "Browser session does not have a persisted profile archive.{}", SkyvernRequestError, transient=True),
    Refusal(400, "Workflow run does not have a persisted session", SkyvernRequestError, transient=True),
    Refusal(409, "A browser profile named {} already exists.{}", SkyvernAPIError, transient=True),
    *ANY_WORDS,
)
"""Transient refusals: the browser has not stored its profile yet, or another one has just taken the name."""


def create_browser_session(
    timeout: int | None = None,
    browser_profile_id: str | None = None,
    proxy_location: str | Mapping[str, str] | None = None,
    url: str | None = None,
    browser_type: str | None = None,
    *,
    generate_browser_profile: bool = False,
) -> Call[BrowserSession]:
    """
    Open a browser that several runs can use, one after the other.

    It has no name and no tag: one whose answer is lost cannot be found, and stays open until its ``timeout``.

    :param timeout: Minutes after which Skyvern closes it, 5 to 1440. Default: Skyvern's, 60.
    :param browser_profile_id: The profile to begin with: its logins are there.
    :param url: The address to open.
    :param generate_browser_profile: Whether a profile is made of it when it is closed.

    https://www.skyvern.com/docs/api-reference/api-reference/browser-sessions/create-browser-session
    """
    body = given(
        timeout=timeout,
        browser_profile_id=browser_profile_id,
        proxy_location=proxy_location,
        url=url,
        browser_type=browser_type,
        generate_browser_profile=generate_browser_profile or None,
    )
    what = "open a browser session"
    needs = needed(body, {"url": SESSION_PAGES, "generate_browser_profile": NEW_PROFILES})
    return post(SESSIONS, what, BrowserSession, body=body, repeatable=False, slow=SLOW_OPEN, needs=needs)


def get_browser_session(browser_session_id: str) -> Call[BrowserSession]:
    """
    Get a browser session.

    https://www.skyvern.com/docs/api-reference/api-reference/browser-sessions/get-browser-session
    """
    return get(_session(browser_session_id), f"get browser session {browser_session_id}", BrowserSession)


def list_browser_sessions() -> Call[list[BrowserSession]]:
    """
    List the browser sessions that are open.

    https://www.skyvern.com/docs/api-reference/api-reference/browser-sessions/get-browser-sessions
    """
    return get(SESSIONS, "list browser sessions", list[BrowserSession])


def extend_browser_session(browser_session_id: str, additional_minutes: int) -> Call[BrowserSession]:
    """
    Keep a browser session open for longer. Of one that has ended the server says 409.

    https://www.skyvern.com/docs/api-reference/api-reference/browser-sessions
    """
    return post(
        f"{_session(browser_session_id)}/extend",
        f"extend browser session {browser_session_id}",
        BrowserSession,
        body={"additional_minutes": additional_minutes},
        repeatable=False,
    )


def update_browser_session(browser_session_id: str, *, generate_browser_profile: bool) -> Call[BrowserSession]:
    """Say whether a profile is made of a browser session when it is closed."""
    body = {"generate_browser_profile": generate_browser_profile}
    what = f"update browser session {browser_session_id}"
    return patch(_session(browser_session_id), what, BrowserSession, body)


def close_browser_session(browser_session_id: str) -> Call[None]:
    """
    Close a browser session; that may take 40 seconds.

    https://www.skyvern.com/docs/api-reference/api-reference/browser-sessions/close-browser-session
    """
    what = f"close browser session {browser_session_id}"
    return post(f"{_session(browser_session_id)}/close", what, Any, slow=SLOW_CLOSE)


def list_runs_of_browser_session(browser_session_id: str) -> Call[list[RunSummary]]:
    """List the runs that a browser session has had, newest first."""
    what = f"list the runs of browser session {browser_session_id}"
    return paged(f"{_session(browser_session_id)}/workflow_runs", what, RunSummary, {})


def create_browser_profile(
    name: str,
    browser_session_id: str | None = None,
    workflow_run_id: str | None = None,
    description: str | None = None,
) -> Call[BrowserProfile]:
    """
    Keep what a browser has after a login, for later runs and sessions.

    :param name: Not unique.
    :param browser_session_id: The session to make it of.
    :param workflow_run_id: The run to make it of, of a workflow that keeps its browser session.

    https://www.skyvern.com/docs/api-reference/api-reference/browser-profiles/create-browser-profile
    """
    body = given(
        name=name,
        browser_session_id=browser_session_id,
        workflow_run_id=workflow_run_id,
        description=description,
    )
    about: Any = {"known": CREATE_PROFILE, "slow": SLOW_SAVE}
    return post(PROFILES, f"create browser profile {name!r}", BrowserProfile, body=body, repeatable=False, **about)


def get_browser_profile(browser_profile_id: str) -> Call[BrowserProfile]:
    """
    Get a browser profile.

    https://www.skyvern.com/docs/api-reference/api-reference/browser-profiles/get-browser-profile
    """
    return get(_profile(browser_profile_id), f"get browser profile {browser_profile_id}", BrowserProfile)


def list_browser_profiles(search_key: str | None = None) -> Call[list[BrowserProfile]]:
    """
    List the browser profiles, all pages.

    :param search_key: A part of name or description.

    https://www.skyvern.com/docs/api-reference/api-reference/browser-profiles/list-browser-profiles
    """
    needs = (SEARCHES,) if search_key else ()
    return paged(PROFILES, "list browser profiles", BrowserProfile, {"search_key": search_key}, needs=needs)


def get_browser_profile_usage(browser_profile_id: str) -> Call[BrowserProfileUsage]:
    """Get which workflows and credentials use a browser profile."""
    what = f"get the usage of browser profile {browser_profile_id}"
    return get(f"{_profile(browser_profile_id)}/usage", what, BrowserProfileUsage)


def update_browser_profile(
    browser_profile_id: str, name: str | None = None, description: str | None = None
) -> Call[BrowserProfile]:
    """Rename a browser profile."""
    body = given(name=name, description=description)
    return patch(_profile(browser_profile_id), f"update browser profile {browser_profile_id}", BrowserProfile, body)


def delete_browser_profile(browser_profile_id: str) -> Call[None]:
    """
    Delete a browser profile.

    https://www.skyvern.com/docs/api-reference/api-reference/browser-profiles/delete-browser-profile
    """
    return delete(_profile(browser_profile_id), f"delete browser profile {browser_profile_id}")


def list_browser_types() -> Call[list[BrowserType]]:
    """List the browsers that this server has, for ``browser_type``."""
    return get("/v1/browser_types", "list browser types", list[BrowserType])


def _session(browser_session_id: str) -> str:
    return f"{SESSIONS}/{path_segment(browser_session_id)}"


def _profile(browser_profile_id: str) -> str:
    return f"{PROFILES}/{path_segment(browser_profile_id)}"
