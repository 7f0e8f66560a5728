"""
Reading files from addresses that an answer names: without the API key, without redirects, and not from everywhere.

Otherwise, anyone who controls Skyvern's answers could have a worker read files of its own disk, or services of its
network and its cloud, and store what they say.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import SplitResult, urlsplit

import httpx

from airflow_skyvern import __version__
from airflow_skyvern.client.environment import PORTS, Proxy, proxy_for
from airflow_skyvern.client.failures import is_page
from airflow_skyvern.client.sender import tls_context, way_through
from airflow_skyvern.client.streaming import Incoming, request_headers
from airflow_skyvern.client.versions import FILES_BY_ID
from airflow_skyvern.exceptions import (
    SkyvernAddressRefused,
    SkyvernConnectionError,
    SkyvernResponseError,
    SkyvernServerError,
)

if TYPE_CHECKING:
    from airflow_skyvern.client.settings import Settings

PAGES = (".html", ".htm", ".xhtml", ".mht", ".mhtml")
"""The extensions of web pages."""

Resolve = Callable[[str, int], list[str]]


def resolved(host: str, port: int) -> list[str]:
    """Return the IP addresses of a host."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


class AddressReader:
    """
    Reads files from signed addresses.

    Skyvern's own origin may be anywhere; every other host must have public IP addresses only.

    :param settings: The settings of the connection, for its timeout, proxy and certificates; not for its key.
    :param resolve: Returns the IP addresses of a host.
    :param transport: What carries the requests; the network if not given.
    """

    def __init__(
        self, settings: Settings, *, resolve: Resolve = resolved, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._settings = settings
        self._resolve = resolve
        self._transport = transport
        self._clients: dict[Proxy | None, httpx.Client] = {}
        self._making = threading.Lock()

    def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            client.close()

    def _client_for(self, address: str) -> httpx.Client:
        """Return the client for an address: the environment may name a proxy for some hosts only."""
        proxy = proxy_for(address, self._settings.proxy)
        with self._making:
            if proxy not in self._clients:
                way = way_through(proxy, tls_context(self._settings))
                if self._transport is not None:
                    way = {**way, "proxy": None, "transport": self._transport}
                agent = {"user-agent": f"airflow-provider-skyvern/{__version__}"}
                self._clients[proxy] = httpx.Client(headers=agent, timeout=self._settings.timeout, **way)
            return self._clients[proxy]

    @contextmanager
    def stream(self, address: str, start: int = 0) -> Iterator[Incoming]:
        """
        Send the request once, and hand over the file as it arrives.

        :raises SkyvernAddressRefused: the address is not one that is read.
        :raises SkyvernResponseError: the response is not a file: the address has expired, or redirects.
        :raises SkyvernConnectionError: no answer came, or only a part of it.
        """
        url = self.checked(address)
        try:
            with self._client_for(address).stream("GET", address, headers=request_headers(start)) as response:
                self._check_peer(url, response)
                if not response.is_success:
                    raise _refusal(url, response)
                if is_page(response) and not url.path.lower().endswith(PAGES):
                    raise _page(url, response)
                yield Incoming.of(response, start)
        except httpx.HTTPError as error:
            # The words of httpx may quote the address, which is a secret.
            raise SkyvernConnectionError(
                f"Could not read a file from {url.hostname}: {type(error).__name__}."
            ) from None

    def checked(self, address: str) -> SplitResult:
        """
        Parse an address that may be read.

        :raises SkyvernAddressRefused: says why it may not; names the host, and nothing that may be a secret.
        """
        try:
            url = urlsplit(address)
            port = url.port or PORTS.get(url.scheme, 0)
        except ValueError:
            raise SkyvernAddressRefused("A file of the run is at an address that cannot be read.") from None
        if url.scheme not in PORTS or not url.hostname:
            raise SkyvernAddressRefused(
                f"A file of the run is at a {url.scheme or 'relative'}: address, and only http: and https: ones are "
                "read. A server that keeps files itself gives them by artifact id instead, from Skyvern "
                f"{FILES_BY_ID.since} on (an older one needs an object store), and never for files of tasks."
            )
        if url.username or url.password:
            raise SkyvernAddressRefused(f"A file of the run is at {url.hostname}, with a password in its address.")
        if not self._is_own(url, port):
            self._check_host(url, port)
        return url

    def _is_own(self, url: SplitResult, port: int) -> bool:
        own = urlsplit(self._settings.base_url)
        own_port = own.port or PORTS.get(own.scheme)
        return (own.scheme, own.hostname, own_port) == (url.scheme, url.hostname, port)

    def _check_host(self, url: SplitResult, port: int) -> None:
        host = url.hostname or ""
        try:
            found = self._resolve(host, port)
        except OSError as error:
            if self._is_proxied(url):
                return
            raise SkyvernConnectionError(f"Could not read a file from {host}: {error}.", never_sent=True) from error
        for ip in found:
            _check_ip(host, ip)

    def _check_peer(self, url: SplitResult, response: httpx.Response) -> None:
        """Check which host has answered, before anything is read: a name may now lead to another host."""
        host = url.hostname or ""
        if self._is_own(url, url.port or PORTS[url.scheme]) or self._is_proxied(url):
            return
        stream: Any = response.extensions.get("network_stream")
        peer = stream.get_extra_info("server_addr") if stream is not None else None
        if peer is not None:
            _check_ip(host, str(peer[0]))

    def _is_proxied(self, url: SplitResult) -> bool:
        return proxy_for(url.geturl(), self._settings.proxy) is not None


def _check_ip(host: str, ip: str) -> None:
    address = ipaddress.ip_address(ip.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    if not (mapped or address).is_global or address.is_multicast:
        raise SkyvernAddressRefused(
            f"A file of the run is at {host}, a host of a private network, and not Skyvern's own address (the base "
            "URL of the connection); it is not read."
        )


def _refusal(url: SplitResult, response: httpx.Response) -> SkyvernResponseError | SkyvernServerError:
    """Say that no file came; what the host says is not quoted, as storage services repeat signatures."""
    status = response.status_code
    kind = SkyvernServerError if response.is_server_error else SkyvernResponseError
    why = "a redirect, which is not followed" if response.is_redirect else "the address may have expired"
    return kind(f"Could not read a file from {url.hostname}: it answered {status} ({why}).", status_code=status)


def _page(url: SplitResult, response: httpx.Response) -> SkyvernResponseError:
    return SkyvernResponseError(
        f"Could not read a file from {url.hostname}: a web page came instead of it.", status_code=response.status_code
    )
