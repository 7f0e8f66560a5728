"""
Where the Skyvern server is and how to reach it, as one value, read from the fields of an Airflow connection.

A connection may be written in a form, as JSON or as a URI, which Airflow takes apart:
``skyvern://http://:KEY@[::1]:8000/a%20b?verify=no`` comes as host ``http://::1``, port 8000, schema ``a b`` and extra
``{"verify": "no"}``. All spellings of a connection must give the same settings.
"""

from __future__ import annotations

import ipaddress
import json
import re
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from airflow_skyvern.client.environment import LARGEST_PORT, PROXY_SCHEMES, Trust, proxy_of, trust_of
from airflow_skyvern.client.suggestions import did_you_mean
from airflow_skyvern.durations import seconds_of
from airflow_skyvern.exceptions import SkyvernConfigError

DEFAULT_BASE_URL = "https://api.skyvern.com"
DEFAULT_TIMEOUT = 30.0
DEFAULT_MAX_ANSWER_BYTES = 256 * 2**20
CONNECT_TIMEOUT = 10.0


EXTRAS = ("timeout", "proxy", "verify", "app_url")

YES = frozenset({"true", "t", "yes", "y", "on", "1"})

NO = frozenset({"false", "f", "no", "n", "off", "0"})

LONGEST_TIMEOUT = 86400.0
"""The longest wait for the answer to one request: sockets take no more than some days."""

RUN_PAGE = re.compile(r"/(runs|tasks)/.*", re.DOTALL)
"""Where Skyvern's UI shows a run; a prompt without a workflow (``tsk_…``) has another page."""

IN_PATHS = ":@!$&'()*+,;=~"
"""Characters that a path may contain unescaped, besides letters and digits."""


@dataclass(frozen=True)
class Settings:
    """
    Where the server is and how to talk to it.

    :param timeout: Seconds to wait for an answer.
    :param proxy: Address of a proxy; None to use the environment's.
    :param verify: True, False, or the path of a file with certificates to trust.
    :param app_url: Address of Skyvern's web UI; None for the server's own.
    :param max_answer_bytes: The largest answer that is read, decompressed; the answer for a run holds its output.
    """

    api_key: str = field(repr=False)
    base_url: str = DEFAULT_BASE_URL
    timeout: float = DEFAULT_TIMEOUT
    proxy: str | None = field(default=None, repr=False)
    verify: bool | str = True
    max_answer_bytes: int = DEFAULT_MAX_ANSWER_BYTES
    app_url: str | None = None

    @property
    def connect_timeout(self) -> float:
        """Seconds to wait for a connection: a server that is there accepts it at once."""
        return min(CONNECT_TIMEOUT, self.timeout)

    def run_page(self, address: str | None) -> str | None:
        """Return the address of a run's page in Skyvern's UI as people reach it; a server may know only its own."""
        page = RUN_PAGE.search(address or "")
        return address if self.app_url is None or page is None else self.app_url + page[0]

    @property
    def exposes_key(self) -> bool:
        """Whether the key would travel unencrypted over a network."""
        url = urlsplit(self.base_url)
        return url.scheme == "http" and url.hostname not in {"localhost", "127.0.0.1", "::1"}

    @property
    def account(self) -> tuple[str, str, str | None]:
        """The values that decide which runs Skyvern lists: the server, the way to it, and the key."""
        return self.base_url, self.api_key, self.proxy

    @property
    def fingerprint(self) -> tuple[Settings, Trust]:
        """The identity of these settings, including the version of the certificates file."""
        return self, trust_of(self.verify)

    def within(self, seconds: float, longest_answer: int | None = None) -> Settings:
        """Return the same settings for a request that has only so many seconds, and bytes for its answer."""
        longest = min(self.max_answer_bytes, longest_answer or self.max_answer_bytes)
        return replace(self, timeout=min(self.timeout, seconds), max_answer_bytes=longest)

    def at_least(self, seconds: float) -> Settings:
        """Return the same settings for a request whose answer may take so many seconds."""
        return replace(self, timeout=max(self.timeout, seconds))


def settings_from(
    *,
    host: str | None,
    port: int | None,
    schema: str | None,
    login: str | None,
    password: str | None,
    extra: str | None,
    max_answer_bytes: int,
) -> Settings:
    """
    Read the settings out of the fields of a connection.

    :raises SkyvernConfigError: a field is missing, wrong or unknown; the message names it.
    """
    extras = _extras(extra)
    return Settings(
        api_key=_api_key(password, login),
        base_url=_base_url(host, port, schema),
        timeout=_timeout(extras.get("timeout")),
        proxy=_proxy(extras.get("proxy")),
        verify=_verify(extras.get("verify")),
        max_answer_bytes=max_answer_bytes,
        app_url=_app_url(extras.get("app_url")),
    )


def _api_key(password: str | None, login: str | None) -> str:
    key = (password or "").strip()
    if not key and (login or "").strip():
        raise SkyvernConfigError("the API key is missing; it goes into the password field, not into the login field.")
    if not key:
        raise SkyvernConfigError("the API key is missing; put it into the password field.")
    if not (key.isascii() and key.isprintable()):
        raise SkyvernConfigError("the API key (password field) holds characters that no key has.")
    return key


def _base_url(host: str | None, port: int | None, schema: str | None) -> str:
    """
    Join host, port and schema; the latter is a scheme, or the path of a URI.

    Ends without a slash and without ``/v1`` or ``/api/v1``, which is Skyvern's own: its paths begin with ``/v1``.
    """
    scheme, path = _scheme_or_path(schema)
    text = (host or "").strip() or DEFAULT_BASE_URL
    before, separator, after = text.partition("://")
    text = f"{before}://{_bracketed(after)}" if separator else f"{scheme or 'https'}://{_bracketed(text)}"
    try:
        url = urlsplit(text)
        own_port = url.port
    except ValueError:
        raise SkyvernConfigError("the base URL (host field) is not an address.") from None
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise SkyvernConfigError("the base URL (host field) must look like https://api.skyvern.com, without a query.")
    if url.username or url.password:
        raise SkyvernConfigError("the base URL (host field) must not hold a password.")
    if scheme not in ("", url.scheme):
        raise SkyvernConfigError(f"the base URL says {url.scheme}, the schema field {scheme}; clear one.")
    if port and own_port and port != own_port:
        raise SkyvernConfigError(f"the base URL says port {own_port}, the port field {port}; clear one.")
    if own_port == 0 or (port and not 0 < port <= LARGEST_PORT):
        raise SkyvernConfigError(f"the port must be between 1 and {LARGEST_PORT}.")
    name = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    place = f"{name}:{own_port or port}" if own_port or port else name
    full = ("/".join(_quoted(unquote(part)) for part in url.path.split("/")) + path).rstrip("/")
    return f"{url.scheme}://{place}{_without_own_path(full)}"


def _scheme_or_path(schema: str | None) -> tuple[str, str]:
    text = (schema or "").strip()
    name = text.removesuffix("://").lower()
    if name in ("http", "https"):
        return name, ""
    path = text.strip("/")
    return "", "".join(f"/{_quoted(part)}" for part in path.split("/")) if path else ""


def _quoted(part: str) -> str:
    return quote(part, safe=IN_PATHS)


def _bracketed(host_and_path: str) -> str:
    """Give an IPv6 address its brackets back: Airflow removes them from a URI."""
    host, slash, path = host_and_path.partition("/")
    with suppress(ValueError):
        return f"[{ipaddress.IPv6Address(host)}]{slash}{path}"
    return host_and_path


def _without_own_path(path: str) -> str:
    for own in ("/api/v1", "/v1"):
        if path.endswith(own):
            return path[: -len(own)].rstrip("/")
    return path


def _extras(text: str | None) -> dict[str, Any]:
    try:
        extra = json.loads(text or "{}")
    except ValueError:
        raise SkyvernConfigError("the extra field is not JSON.") from None
    if not isinstance(extra, dict):
        raise SkyvernConfigError("the extra field must be a JSON object.")
    for name in extra:
        if name not in EXTRAS:
            hint = did_you_mean(name, EXTRAS) or f"Known ones: {', '.join(EXTRAS)}."
            raise SkyvernConfigError(f"extra: there is no {name!r}. {hint}")
    return extra


def _timeout(value: Any) -> float:
    if value in (None, ""):
        return DEFAULT_TIMEOUT
    try:
        seconds = 0.0 if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        raise SkyvernConfigError(f"timeout must be a number of seconds, not {value!r}.") from None
    if not 0 < seconds < float("inf"):
        raise SkyvernConfigError(f"timeout must be more than 0 seconds, not {value!r}.")
    return seconds_of("timeout", seconds, most=LONGEST_TIMEOUT)


def _proxy(value: Any) -> str | None:
    if value in (None, ""):
        return None
    schemes = tuple(f"{scheme}://" for scheme in PROXY_SCHEMES)
    if not isinstance(value, str) or not value.strip().lower().startswith(schemes):
        raise SkyvernConfigError("proxy must be an address such as http://proxy.example.com:3128.")
    proxy_of("proxy", value)
    return value.strip()


def _app_url(value: Any) -> str | None:
    if value in (None, ""):
        return None
    try:
        url = urlsplit(value) if isinstance(value, str) else None
    except ValueError:
        url = None
    if url is None or url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise SkyvernConfigError("app_url must be an address such as https://app.skyvern.com, without a query.")
    if url.username or url.password:
        raise SkyvernConfigError("app_url must not hold a password: everybody who sees a task sees it.")
    return str(value).rstrip("/").removesuffix("/runs")


def _verify(value: Any) -> bool | str:
    """Read yes, no, or a path; URIs and the connection form of Airflow 2 say all of them as text."""
    if value is None:
        return True
    word = str(value).strip().lower() if isinstance(value, str | bool) else "?"
    if word in YES or not word:
        return True
    if word in NO:
        return False
    if isinstance(value, str) and ("/" in value or "." in value):
        return value.strip()
    raise SkyvernConfigError(f"verify must be true, false or the path of a certificate file, not {value!r}.")
