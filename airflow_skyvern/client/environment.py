"""
Reads from this process's environment how to reach a server: through which proxy, and which certificates to trust.

httpx, urllib and OpenSSL each read such variables by themselves, and fail without naming them. So they are read
here and nowhere else, as curl reads them: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, also in lower case, which
goes first; SSL_CERT_FILE, SSL_CERT_DIR and SSLKEYLOGFILE. A wrong value is an error that names the variable. It never
quotes a proxy's address, which may hold a password.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from airflow_skyvern.exceptions import SkyvernConfigError

PORTS = {"http": 80, "https": 443}
SOCKS = {"socks5": "socks5", "socks5h": "socks5"}  # httpx lets the proxy find the host in both
PROXY_SCHEMES = (*PORTS, *SOCKS)
SOCKS_PORT = 1080
LARGEST_PORT = 65535

HOST_NAME = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class Proxy:
    """
    A proxy that requests go through.

    :param source: Where it is set: the connection's field ``proxy``, or a variable.
    :param auth: User and password, if it needs them.
    """

    source: str
    scheme: str
    host: str
    port: int
    auth: tuple[str, str] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Trust:
    """
    Which certificates are accepted.

    :param source: Where that is set: the connection's field ``verify``, or a variable. Empty: nowhere.
    :param changed_at: When the file of certificates was last written, if there is one.
    :param key_log: Where TLS writes its keys to, for those who record the network.
    """

    verify: bool
    source: str = ""
    file: str | None = None
    directory: str | None = None
    changed_at: float | None = None
    key_log: str | None = None


def proxy_for(address: str, configured: str | None = None) -> Proxy | None:
    """
    Return the proxy for requests to an address.

    :param configured: The field ``proxy`` of the connection, which goes before the environment.
    :raises SkyvernConfigError: names the field or variable, and what is wrong with it.
    """
    if configured:
        return proxy_of("proxy", configured)
    url = urlsplit(address)
    variable = _first_set(f"{url.scheme}_proxy", "all_proxy")
    if variable is None or _is_excepted(url):
        return None
    return proxy_of(f"{variable} (environment variable)", os.environ[variable])


def proxy_of(source: str, text: str) -> Proxy:
    """
    Read the address of a proxy: ``[scheme://][user:password@]host[:port]``.

    :raises SkyvernConfigError: names where it is set, and what is wrong with it.
    """
    before, separator, after = text.strip().partition("://")
    scheme, rest = (before.lower(), after) if separator else ("http", before)
    if scheme not in PROXY_SCHEMES:
        raise SkyvernConfigError(
            f"{source}: no proxy of this kind can be used, only http://, https:// and socks5:// or socks5h://."
        )
    authority, path = _split_at_end(rest)
    if "@" in path:
        raise SkyvernConfigError(
            f"{source} is not an address; if its password holds one of /?#@:, percent-encode it (# is %23)."
        )
    credentials, _, host_and_port = authority.rpartition("@")
    host, port = _host_and_port(source, host_and_port)
    if scheme in SOCKS:
        _check_socks(source)
    user, _, password = credentials.partition(":")
    return Proxy(
        source,
        SOCKS.get(scheme, scheme),
        host,
        port or PORTS.get(scheme, SOCKS_PORT),
        (unquote(user), unquote(password)) if credentials else None,
    )


def trust_of(verify: bool | str) -> Trust:  # noqa: FBT001  a setting
    """
    Return which certificates are accepted.

    :param verify: The field of the connection: its path goes before the environment.
    """
    key_log = os.environ.get("SSLKEYLOGFILE") or None
    if verify is False:
        return Trust(verify=False)
    if isinstance(verify, str):
        return Trust(verify=True, source="verify", file=verify, changed_at=_changed_at(verify), key_log=key_log)
    if path := os.environ.get("SSL_CERT_FILE"):
        return Trust(verify=True, source="SSL_CERT_FILE", file=path, changed_at=_changed_at(path), key_log=key_log)
    if folders := os.environ.get("SSL_CERT_DIR"):
        return Trust(verify=True, source="SSL_CERT_DIR", directory=folders, key_log=key_log)
    return Trust(verify=True, key_log=key_log)


def check_trust(trust: Trust) -> None:
    """
    Check what OpenSSL would either pass over in silence or complain about without a name.

    :raises SkyvernConfigError: names the variable.
    """
    folders = (trust.directory or "").split(os.pathsep)
    if trust.directory is not None and not any(Path(folder).is_dir() for folder in folders if folder):
        raise unreadable_certificates(trust, "the folder does not exist")
    if trust.key_log is not None:
        try:
            Path(trust.key_log).open("ab").close()
        except OSError as error:
            raise SkyvernConfigError(
                f"SSLKEYLOGFILE (environment variable): cannot write to {trust.key_log}: {error.strerror}. Unset it, "
                "or let it name a file that can be written."
            ) from error


def unreadable_certificates(trust: Trust, why: object) -> SkyvernConfigError:
    """Make the error for certificates that cannot be read."""
    path = trust.file or trust.directory
    if trust.source == "verify":
        return SkyvernConfigError(f"verify: cannot read certificates from {path}: {why}")
    what = "a PEM file" if trust.file else "a folder of certificates"
    return SkyvernConfigError(
        f"{trust.source} (environment variable): cannot read certificates from {path}: {why}. Unset it, let it name "
        f"{what}, or set verify in the extra of the Airflow connection."
    )


def _first_set(*names: str) -> str | None:
    """Return the first variable that is set to anything; lower case goes first."""
    for name in names:
        for spelling in (name, name.upper()):
            if os.environ.get(spelling, "").strip():
                return spelling
    return None


def _split_at_end(rest: str) -> tuple[str, str]:
    """Split what follows a scheme where the host ends."""
    found = re.search(r"[/?#]", rest)
    return (rest, "") if found is None else (rest[: found.start()], rest[found.start() :])


def _host_and_port(source: str, text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        colon, port = rest[:1], rest[1:]
        known = bool(bracket) and _ip(host) is not None and colon in ("", ":")
    else:
        host, _, port = text.partition(":")
        known = HOST_NAME.fullmatch(host) is not None
    if not known:
        raise SkyvernConfigError(
            f"{source} is not an address such as http://proxy.example.com:3128 or http://[2001:db8::1]:3128; a user "
            "and password go before the host, user:password@, with /?#@: percent-encoded."
        )
    if not port:
        return host, None
    if not (port.isascii() and port.isdecimal() and 0 < int(port) <= LARGEST_PORT):
        raise SkyvernConfigError(
            f"{source} is not an address: its port must be a number from 1 to {LARGEST_PORT}; if its password holds "
            "one of /?#@:, percent-encode it."
        )
    return host, int(port)


def _check_socks(source: str) -> None:
    if importlib.util.find_spec("socksio") is None:
        raise SkyvernConfigError(
            f"{source}: a SOCKS proxy needs the Python package socksio, which is not installed: pip install "
            "'httpx[socks]'. Or name an http:// proxy, or add Skyvern's host to NO_PROXY."
        )


def _is_excepted(url: SplitResult) -> bool:
    """
    Return whether requests to this address go past the proxy, by NO_PROXY.

    Its entries are separated by commas or blanks: ``*``, a domain with all its hosts, an IP address, or a network. A
    port or a scheme narrows an entry. Any other entry excepts nothing.
    """
    variable = _first_set("no_proxy")
    entries = re.split(r"[,\s]+", os.environ[variable]) if variable else []
    return any(_excepts(entry, url) for entry in entries if entry)


def _excepts(entry: str, url: SplitResult) -> bool:
    if entry == "*":
        return True
    scheme, _, place = entry.lower().rpartition("://")
    if scheme and scheme != url.scheme:
        return False
    host = (url.hostname or "").rstrip(".")
    address = _ip(host)
    if address is not None and (excepted := _excepts_ip(place, address, url)) is not None:
        return excepted
    name, _, port = place.partition(":")
    if address is not None or (port and port != _port_of(url)):
        return False
    domain = name.removeprefix("*").strip(".")
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _excepts_ip(place: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address, url: SplitResult) -> bool | None:
    """Return whether an entry excepts an IP address; None if it is neither an address nor a network."""
    network, port = place, ""
    if place.startswith("["):
        network, _, rest = place[1:].partition("]")
        network, port = (f"{network}{rest}", "") if rest.startswith("/") else (network, rest.removeprefix(":"))
    elif place.count(":") == 1:
        network, _, port = place.partition(":")
    if port and port != _port_of(url):
        return False
    with suppress(ValueError):
        return address in ipaddress.ip_network(network, strict=False)
    return None


def _port_of(url: SplitResult) -> str:
    return str(url.port or PORTS.get(url.scheme) or "")


def _ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    with suppress(ValueError):
        return ipaddress.ip_address(text.partition("%")[0])
    return None


def _changed_at(path: str) -> float | None:
    with suppress(OSError):
        return Path(path).stat().st_mtime
    return None
