"""What a connection, and the answers of its server, mean: facts into findings."""

from __future__ import annotations

from datetime import datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from airflow_skyvern.checks.finding import Finding
from airflow_skyvern.client.answers import said_in
from airflow_skyvern.client.versions import (
    BEFORE_VERSIONS,
    NEWEST,
    RUN_TAGS,
    is_missing_route,
    missing_in,
    numbers,
    too_old,
)
from airflow_skyvern.compat.internals import is_loopback
from airflow_skyvern.durations import in_words
from airflow_skyvern.exceptions import (
    SkyvernAPIError,
    SkyvernAuthError,
    SkyvernConnectionError,
    SkyvernError,
    SkyvernResponseError,
)
from airflow_skyvern.runs.lookup import has_no_tags

if TYPE_CHECKING:
    from airflow_skyvern.client.settings import Settings
    from airflow_skyvern.models.resources import WebhookTest

SAME_CLOCK = timedelta(seconds=30)
OTHER_CLOCK = timedelta(minutes=5)
"""From here on the ages of runs mislead: ``runs orphans --min-age``, and what counts as just ended."""

SET_PAGE = "Set app_url in the extra of the connection to the address that people use"

UNREADABLE_KEY = "Invalid credentials"
"""What Skyvern says where no key has reached it."""


def connection(settings: Settings) -> Finding:
    """Say where a connection leads, and how."""
    way = f"{settings.base_url}{', through the proxy of the connection' if settings.proxy else ''}"
    if settings.exposes_key:
        return Finding(
            "connection",
            "warning",
            f"{way}: the API key travels unencrypted.",
            f"Use https: {with_https(settings.base_url)} in the host field.",
        )
    if settings.verify is False:
        return Finding(
            "connection",
            "warning",
            f"{way}: certificates are not verified, so anybody on the way can read the API key.",
            'Set verify in the extra to true, or to the file of your authority: {"verify": "/path/ca.pem"}.',
        )
    return Finding("connection", "ok", way)


def no_connection(error: Exception) -> Finding:
    """Say why a connection cannot be used; what a secrets backend raises may hold anything."""
    if isinstance(error, SkyvernError):
        return Finding("connection", "problem", str(error), "Correct the field that is named.")
    if type(error).__name__ == "AirflowNotFoundException":
        return Finding(
            "connection",
            "problem",
            "There is no connection of this id.",
            "Create it (Admin, Connections, type Skyvern), or set AIRFLOW_CONN_<ID> where this command, the workers "
            "and the triggerer run; or name another one: --conn-id.",
        )
    return Finding(
        "connection",
        "problem",
        f"It cannot be read ({type(error).__name__}).",
        "Run this where Airflow runs, with its settings; check the secrets backend.",
    )


def server(version: str) -> Finding:
    """Say that a Skyvern has answered."""
    return Finding("server", "ok", f"Skyvern {version} answers.")


def no_server(error: SkyvernError) -> Finding:
    """Say why no answer came, or not one of Skyvern's."""
    if isinstance(error, SkyvernAPIError) and is_missing_route(error):
        return Finding(
            "server",
            "problem",
            str(error),
            f"Correct the base URL (the host field), or upgrade Skyvern to {NEWEST}.",
        )
    if isinstance(error, SkyvernConnectionError):
        fix = "Correct the host, port or proxy of the connection, or let this machine through to it."
    elif isinstance(error, SkyvernResponseError):
        fix = "Correct the base URL (the host field), or let the proxy pass requests of Airflow."
    else:
        fix = "Repair Skyvern, or what is before it; run this again."
    return Finding("server", "problem", str(error), fix)


def only_https(settings: Settings) -> Finding:
    """Say that the server hangs up on plain http, and answers to TLS."""
    return Finding(
        "server",
        "problem",
        f"Could not get the server's version: no answer from {settings.base_url}, which hangs up. The server speaks "
        f"https there: use {with_https(settings.base_url)} as the base URL (the host field of the Airflow "
        "connection).",
        "Correct the host field of the connection.",
    )


def with_https(base_url: str) -> str:
    """Return an address with https in the place of http."""
    return base_url.replace("http://", "https://", 1)


def key() -> Finding:
    """Say that the key is right."""
    return Finding("key", "ok", "Skyvern accepts the API key.")


def no_key(error: SkyvernError) -> Finding:
    """Say why the key was not accepted."""
    if not isinstance(error, SkyvernAuthError):
        return Finding("key", "unknown", str(error), "Run this again when the server answers.")
    if error.detail.startswith(UNREADABLE_KEY):
        fix = "Let the proxy before Skyvern pass the header x-api-key."
    else:
        fix = (
            "Copy the key again (Skyvern, Settings, API keys) into the password field; each server has its own keys."
        )
    return Finding("key", "problem", f"Skyvern refuses the API key: {error.detail}.", fix)


def version(text: str) -> Finding:
    """Say what a version of Skyvern cannot do."""
    if text != BEFORE_VERSIONS and not numbers(text):
        return Finding("version", "unknown", f"Skyvern does not give its version as numbers: {text!r}.")
    if missing := missing_in(text):
        return Finding("version", "warning", too_old(text, missing), f"Upgrade Skyvern to {NEWEST}.")
    newer = f", newer than {NEWEST}, with which this was tested" if numbers(text) > numbers(NEWEST) else ""
    return Finding("version", "ok", f"Skyvern {text}{newer}.")


def clock(theirs: datetime | None, ours: datetime) -> Finding:
    """
    Compare two clocks.

    :param theirs: What the server says, to the second.
    """
    if theirs is None:
        return Finding("clock", "unknown", "The server does not send its time.")
    difference = abs(theirs - ours)
    if difference <= SAME_CLOCK:
        return Finding("clock", "ok", f"The clocks differ by less than {SAME_CLOCK.seconds} s.")
    side = "ahead of" if theirs > ours else "behind"
    return Finding(
        "clock",
        "problem" if difference >= OTHER_CLOCK else "warning",
        f"The server's clock is {in_words(difference.total_seconds())} {side} this machine's.",
        "Synchronize both with NTP: ages of runs, signed addresses and certificates depend on it.",
    )


def no_clock(error: SkyvernError) -> Finding:
    """Say why the server's clock is not known."""
    return Finding("clock", "unknown", str(error), "Run this again when the server answers.")


def tags() -> Finding:
    """Say that runs have tags."""
    return Finding("tags", "ok", "Runs can be found by their tags.")


def no_tags(error: SkyvernError, *, has_task_state: bool) -> Finding:
    """
    Say what it means that runs have no tags.

    :param has_task_state: Whether Airflow itself remembers the run of an earlier try; from 3.3 on.
    """
    if not (isinstance(error, SkyvernAPIError) and (has_no_tags(error) or is_missing_route(error))):
        return Finding("tags", "unknown", str(error), "Run this again when the server answers.")
    why = (
        f"This Skyvern is older than {RUN_TAGS.since}, which brought run tags"
        if is_missing_route(error)
        else error.detail
    )
    upgrade = "Upgrade Skyvern" if is_missing_route(error) else "Ask Skyvern to turn on run tags for the organization"
    if has_task_state:
        return Finding(
            "tags",
            "warning",
            f"{why.rstrip('.')}: a start without an answer needs a person, and no orphans can be found.",
            f"{upgrade}.",
        )
    return Finding(
        "tags",
        "problem",
        f"{why.rstrip('.')}: a retry cannot find the run of an earlier try, and fails.",
        f"{upgrade}, or use Airflow 3.3, which remembers runs itself.",
    )


def no_page_known(reason: str) -> Finding:
    """Say that no address of Skyvern's UI is known yet."""
    return Finding("ui", "unknown", f"The address of Skyvern's UI is not known: {reason}.")


def page(address: str, base_url: str, error: SkyvernError | None) -> Finding:
    """
    Say whether the button "Skyvern run" leads to a page.

    :param address: Of a run's page, as tasks push it.
    :param base_url: The server's.
    :param error: What came of opening it here; also of a page that opens, as that is not an answer of Skyvern's API.
    """
    shown, set_it = _without_path(address), SET_PAGE
    if is_loopback(address) and not is_loopback(base_url):
        return Finding("ui", "warning", f"Links lead to {shown}, which is each reader's own machine.", f"{set_it}.")
    if isinstance(error, SkyvernConnectionError):
        return Finding(
            "ui",
            "warning",
            f"Links lead to {shown}, which does not answer this machine.",
            f"{set_it}; nothing to do if their browsers reach this one.",
        )
    status = error.status_code if isinstance(error, SkyvernAPIError) else int(HTTPStatus.OK)
    if _shows_a_page(status):
        return Finding("ui", "ok", f"Links lead to {shown}, where a page answers.")
    return Finding(
        "ui", "problem", f"Links lead to {shown}, which answers {status}: this is not Skyvern's UI.", f"{set_it}."
    )


def no_page(address: str) -> Finding:
    """Say that what the server gives as the address of a page is not one."""
    return Finding("ui", "problem", f"Links lead to {address!r}, which is not a page's address.", f"{SET_PAGE}.")


def is_address(text: str) -> bool:
    """Return whether a browser would open this."""
    try:
        url = urlsplit(text)
    except ValueError:
        return False
    return url.scheme in ("http", "https") and bool(url.hostname)


def _shows_a_page(status: int) -> bool:
    """Return whether a browser would get further: a page, a redirect to a login, or the wish for one."""
    return status < HTTPStatus.BAD_REQUEST or status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)


def webhooks(address: str, result: WebhookTest) -> Finding:
    """
    Say whether Skyvern reaches the receiver, by its sample of a webhook.

    :param address: The receiver's.
    """
    if result.status_code is None:
        return Finding(
            "webhooks",
            "problem",
            f"Skyvern does not reach {address}: {result.error or 'it does not say why'}",
            "Let Skyvern's machine through to it, or give its outer address: --webhook-url; a self-hosted Skyvern "
            "refuses private hosts that its ALLOWED_HOSTS does not name.",
        )
    said = said_in(result.response_body)
    if result.status_code == HTTPStatus.OK and result.response_body.startswith('{"result":'):
        return Finding("webhooks", "ok", f"Skyvern reaches {address}, and its signature is right.")
    if result.status_code == HTTPStatus.UNAUTHORIZED and said and said.words == "Invalid signature":
        return Finding(
            "webhooks",
            "problem",
            f"Skyvern reaches {address}, but signs with another key than this connection has.",
            "Put the newest API key of the organization into the connection, also where the API server runs, and the "
            "connection into [skyvern] webhook_connections there.",
        )
    return Finding(
        "webhooks",
        "problem",
        f"Something other than the receiver answers Skyvern at {address}, with {result.status_code}.",
        "Correct the address, let the proxy before Airflow pass /skyvern/webhooks/, and restart the API server with "
        "[skyvern] webhook_connections.",
    )


def no_webhook_test(error: SkyvernError) -> Finding:
    """Say why Skyvern has not tried."""
    if isinstance(error, SkyvernAPIError) and is_missing_route(error):
        return Finding("webhooks", "unknown", "This Skyvern has no test of webhooks.", "Watch for a real one.")
    return Finding("webhooks", "unknown", str(error), "Run this again when the server answers.")


def not_asked(check: str) -> Finding:
    """Say that something needs what does not work."""
    return Finding(check, "unknown", "Not checked: it needs a server that accepts the key.")


def _without_path(address: str) -> str:
    url = urlsplit(address)
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path.partition('/runs/')[0]}"
