"""Which sites a prompt may be about. A model writes prompt and address, so nothing of them is trusted."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from airflow_skyvern.exceptions import SkyvernConfigError

SCHEMES = {"http": 80, "https": 443}
UNSAFE = re.compile(r"[\s\\\x00-\x1f\x7f]")
"""What browsers read otherwise than Python does: they take a backslash for a slash, and leave out line breaks."""

ADDRESS = re.compile(r"\b[a-z][a-z0-9+.-]*:/*[\\/]{2}[^\s<>\"']+", re.IGNORECASE)
HOST_NAME = re.compile(
    r"(?<![\w@.-])(?<!\w/)(?:(?:[\w-]+\.)+([^\W\d_]{2,})|localhost|\d{1,3}(?:\.\d{1,3}){3})(?![\w@-])(?!\.\w)"
    r"(?::\d+)?(?:[/\\][^\s<>\"']*)?",
    re.IGNORECASE,
)
FILE_ENDINGS = frozenset(
    [
        "csv",
        "doc",
        "docx",
        "exe",
        "gif",
        "htm",
        "html",
        "jpeg",
        "jpg",
        "js",
        "json",
        "log",
        "md",
        "mp4",
        "ods",
        "pdf",
        "png",
        "ppt",
        "pptx",
        "py",
        "sql",
        "svg",
        "tsv",
        "txt",
        "xls",
        "xlsx",
        "xml",
        "yaml",
        "yml",
        "zip",
    ]
)
"""What ends the name of a file, and no host name, in a prompt."""

ENDS = ".,;:!?)]}"
"""What ends a sentence after an address, and is not part of it."""


@dataclass(frozen=True)
class Site:
    """
    A site that may be visited.

    :param host: Its host name, in small letters.
    :param subdomains: Whether all names below it belong to it.
    :param scheme: The only scheme, if one was given.
    :param port: The only port, if one was given; else the scheme's own.
    :param start: The address at which prompts begin here.
    """

    host: str
    subdomains: bool
    scheme: str | None
    port: int | None
    start: str

    @classmethod
    def of(cls, text: str) -> Site:
        """
        Read a site as an author gives it: a host name, one with ``*.`` before it, or an address.

        :raises SkyvernConfigError: it is none of these.
        """
        given: object = text  # an author's, of any type
        if not isinstance(given, str) or not given.strip() or UNSAFE.search(given):
            raise SkyvernConfigError(f"sites: {text!r} must be a host name, such as shop.example.com, or an address.")
        has_scheme = "://" in text
        parts = split(text if has_scheme else f"https://{text}")
        host = _host_of(parts) if parts is not None else ""
        subdomains, host = host.startswith("*."), host.removeprefix("*.")
        if parts is None or not re.fullmatch(r"[\w-]+(\.[\w-]+)*|\[[0-9a-f:]+\]", host):
            raise SkyvernConfigError(f"sites: {text!r} is neither a host name nor an http or https address.")
        start = parts.geturl().replace("*.", "", 1)
        return cls(host, subdomains, parts.scheme if has_scheme else None, parts.port, start)

    def has(self, parts: SplitResult) -> bool:
        """Return whether an address belongs to this site."""
        host = _host_of(parts)
        is_host = host in (self.host, f"www.{self.host}") or (self.subdomains and host.endswith(f".{self.host}"))
        port = parts.port or SCHEMES[parts.scheme]
        wanted = self.port or SCHEMES[self.scheme or parts.scheme]
        return is_host and port == wanted and self.scheme in (None, parts.scheme)

    def __str__(self) -> str:
        scheme = f"{self.scheme}://" if self.scheme else ""
        port = f":{self.port}" if self.port else ""
        return f"{scheme}{'*.' if self.subdomains else ''}{self.host}{port}"


class Sites:
    """
    The sites that prompts may be about.

    :param given: As an author gives them.
    :raises SkyvernConfigError: there are none, or one of them is not a site.
    """

    def __init__(self, given: Sequence[str]) -> None:
        if isinstance(given, str) or not given:
            raise SkyvernConfigError("sites: give a list of sites that prompts may be about.")
        self._sites = [Site.of(site) for site in given]

    def __str__(self) -> str:
        return ", ".join(map(str, self._sites))

    @property
    def start(self) -> str:
        """The address at which prompts begin that say nothing of it."""
        return self._sites[0].start

    def allowed_address(self, text: str) -> str | None:
        """Return the whole address, if the browser may begin there; None if it may not."""
        address = text.strip()
        address = address if re.match(r"[a-z][a-z0-9+.-]*:", address, re.IGNORECASE) else f"https://{address}"
        parts = None if UNSAFE.search(address) else split(address)
        allowed = parts is not None and "@" not in parts.netloc and self._have(parts)
        return address if allowed else None

    def others_in(self, prompt: str) -> list[str]:
        """Return the names in a prompt that look like a site other than these."""
        return [name for name in dict.fromkeys(_named(prompt)) if self.allowed_address(name) is None]

    def _have(self, parts: SplitResult) -> bool:
        return any(site.has(parts) for site in self._sites)


def split(address: str) -> SplitResult | None:
    """Split an address of http or https; None for any other."""
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        return None
    return parts if parts.scheme in SCHEMES and parts.hostname else None


def _host_of(parts: SplitResult) -> str:
    host = (parts.hostname or "").rstrip(".")
    return f"[{host}]" if ":" in host else host


def _named(prompt: str) -> Iterator[str]:
    yield from (found[0].rstrip(ENDS) for found in ADDRESS.finditer(prompt))
    for found in HOST_NAME.finditer(ADDRESS.sub(" ", prompt)):
        if (found[1] or "").lower() not in FILE_ENDINGS:
            yield found[0].rstrip(ENDS)
